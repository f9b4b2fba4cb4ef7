//! `lampad-agent push NAME=VALUE...`: a sample from a shell or a cron job, durable when the command returns.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use lampad_proto::client::{Client, Options, PushError, Tls};
use lampad_proto::v1::{Label, MetricType, PushSample, PushSeries};
use tonic::Code;

use crate::config::{ConfigError, Flags, parse_label};

/// Push samples and wait until the collector has them on disk
#[derive(Debug, clap::Args)]
pub struct Push {
    /// What to push, such as backup_size_bytes=7.3e9; a name that ends in _total is a counter
    #[arg(required = true, value_name = "NAME=VALUE")]
    samples: Vec<String>,
    /// Label on all of them; repeatable
    #[arg(long = "label", value_name = "NAME=VALUE")]
    labels: Vec<String>,
    /// Label `job`
    #[arg(long, default_value = "push", value_name = "NAME")]
    job: String,
    /// Label `instance` [default: the host's name]
    #[arg(long, env = "LAMPAD_INSTANCE", value_name = "NAME")]
    instance: Option<String>,
    /// The collector's gRPC address [default: that of the configuration, else http://127.0.0.1:9391]
    #[arg(long, env = "LAMPAD_COLLECTOR", value_name = "URL")]
    collector: Option<String>,
    /// Configuration file of the agent, for the collector's address, TLS and token
    #[arg(long, env = "LAMPAD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// File with the token that the collector asks for
    #[arg(long, env = "LAMPAD_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Certificate authority that signed the collector's certificate (PEM) [default: those that this machine trusts]
    #[arg(long, env = "LAMPAD_TLS_CA", value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Certificate of this pusher (PEM); goes with --tls-key
    #[arg(long, env = "LAMPAD_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Private key of this pusher (PEM); goes with --tls-cert
    #[arg(long, env = "LAMPAD_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// How long to try
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

impl Push {
    pub async fn run(self) -> anyhow::Result<()> {
        let (options, may_be_nameless) = self.options()?;
        let explain = |error| explain(error, may_be_nameless);
        let mut client = Client::connect(options).map_err(explain)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
        let labels: Vec<Label> = self
            .labels
            .iter()
            .map(|text| parse_label(text).map(|(name, value)| Label { name, value }))
            .collect::<Result<_, _>>()
            .map_err(|detail| ConfigError::Value { setting: "--label".to_owned(), detail })?;
        for text in &self.samples {
            client.push(series(text, &labels, now)?)?;
        }
        let report = client.flush().await.map_err(explain)?;
        if report.refused.is_empty() {
            tracing::info!(stored = report.stored, "pushed");
            return Ok(());
        }
        let reasons: Vec<_> =
            report.refused.iter().map(|refused| format!("{}: {}", refused.series, refused.reason)).collect();
        bail!("{} samples are stored, these are refused: {}", report.stored, reasons.join("; "))
    }

    /// Also tells whether the collector may miss a certificate of ours.
    fn options(&self) -> anyhow::Result<(Options, bool)> {
        let flags = Flags {
            collector: self.collector.clone(),
            config: self.config.clone(),
            instance: self.instance.clone(),
            token_file: self.token_file.clone(),
            tls_ca: self.tls_ca.clone(),
            tls_cert: self.tls_cert.clone(),
            tls_key: self.tls_key.clone(),
            ..Flags::default()
        };
        let config = crate::config::Config::load(&flags)?;
        let read =
            |path: &PathBuf| std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
        let instance = config.labels.iter().find(|label| label.name == "instance").map(|label| label.value.clone());
        let mut options = Options::new(config.target.collector.clone())
            .label("job", self.job.clone())
            .label("instance", instance.unwrap_or(config.hostname))
            .give_up_after(self.timeout);
        if let Some(path) = &config.target.token_file {
            options = options.token(read(path)?);
        }
        let ca = config.target.tls_ca.as_ref().map(read).transpose()?;
        let identity = match &config.target.tls_identity {
            Some((certificate, key)) => Some((read(certificate)?, read(key)?)),
            None => None,
        };
        let may_be_nameless = identity.is_none() && config.target.collector.starts_with("https://");
        Ok((options.tls(Tls { ca: ca.unwrap_or_default(), identity }), may_be_nameless))
    }
}

/// The error with the flags of this command that help.
fn explain(error: PushError, may_be_nameless: bool) -> anyhow::Error {
    let hint = match &error {
        PushError::Refused { status, .. }
            if matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied) =>
        {
            "; name the file that holds the collector's token with --token-file"
        }
        PushError::Unreachable { .. } if may_be_nameless && !error.to_string().contains("--tls-") => {
            "; where the collector asks for certificates, name yours with --tls-cert and --tls-key"
        }
        PushError::Token => "; look into the file of --token-file",
        _ => return error.into(),
    };
    anyhow::anyhow!("{error}{hint}")
}

fn series(text: &str, labels: &[Label], timestamp_ms: i64) -> anyhow::Result<PushSeries> {
    let (name, value) = text
        .split_once('=')
        .with_context(|| format!("{:?} has no '='; write NAME=VALUE", lampad_proto::shown(text)))?;
    let value = value.trim().parse().with_context(|| {
        format!("{:?}: {:?} is not a number", lampad_proto::shown(text), lampad_proto::shown(value))
    })?;
    let kind = if name.ends_with("_total") { MetricType::Counter } else { MetricType::Gauge };
    Ok(PushSeries {
        name: name.trim().to_owned(),
        labels: labels.to_vec(),
        r#type: kind.into(),
        help: String::new(),
        unit: String::new(),
        samples: vec![PushSample { timestamp_ms, value, histogram: None }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_token_names_the_flag() {
        let status = Box::new(tonic::Status::unauthenticated("send the collector's token"));
        let error = explain(PushError::Refused { collector: "http://c".to_owned(), status }, false).to_string();
        assert!(error.contains("--token-file") && error.contains("http://c"), "{error}");
        let status = Box::new(tonic::Status::unknown("broken pipe"));
        let error = explain(PushError::Unreachable { collector: "https://c".to_owned(), status }, true).to_string();
        assert!(error.contains("--tls-cert"), "{error}");
    }

    /// The certificate was dropped unless an authority was named too.
    #[test]
    fn a_certificate_needs_no_authority_beside_it() {
        #[derive(clap::Parser)]
        struct Command {
            #[command(flatten)]
            push: Push,
        }
        let parse = |args: &[&str]| {
            let common = ["push", "x=1", "--collector", "https://c:1"];
            <Command as clap::Parser>::try_parse_from(common.iter().chain(args)).unwrap().push
        };
        assert!(parse(&[]).options().is_ok());
        let error = parse(&["--tls-cert", "/nope/c.pem", "--tls-key", "/nope/k.pem"]).options().unwrap_err();
        assert!(error.to_string().contains("/nope/c.pem"), "{error:#}");
    }

    #[test]
    fn a_sample_is_a_name_and_a_number() {
        let parsed = series("backup_runs_total=7.5e3", &[], 5).unwrap();
        assert_eq!(
            (parsed.name.as_str(), parsed.r#type(), parsed.samples[0].value),
            ("backup_runs_total", MetricType::Counter, 7500.0)
        );
        assert_eq!(series("x=NaN", &[], 5).unwrap().r#type(), MetricType::Gauge);
        for (bad, wanted) in [("x", "write NAME=VALUE"), ("x=many", "\"many\" is not a number")] {
            let error = format!("{:#}", series(bad, &[], 5).unwrap_err());
            assert!(error.contains(wanted), "{error}");
        }
    }
}
