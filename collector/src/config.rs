//! What the collector is told: flags, `LAMPAD_...` variables and a TOML file, in this order of precedence.
//!
//! Every setting has one name: `--data-dir`, `LAMPAD_DATA_DIR` and `data_dir = "..."` are the same. Keys that nobody knows
//! are refused with their line, so that a typing error never becomes a default in silence.

mod values;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use serde::Deserialize;

pub use self::values::{Listen, Retention, TierRetention, written};
use crate::limits::{LimitArgs, Limits};

const DATA_DIR: &str = "lampad-data";
const HTTP_LISTEN: &str = "127.0.0.1:9390";
const GRPC_LISTEN: &str = "127.0.0.1:9391";
const RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);
const RETENTION_10S: TierRetention = TierRetention(Some(Duration::from_secs(90 * 24 * 3600)));
const RETENTION_5M: TierRetention = TierRetention(Some(Duration::from_secs(365 * 24 * 3600)));

/// Takes what Lampad agents push, stores it, and answers PromQL as Prometheus does.
#[derive(Debug, Clone, Default, Parser)]
#[command(name = "lampad-collector", version, about)]
pub struct Args {
    /// Directory of everything that is kept; made when it is not there [default: lampad-data]
    #[arg(long, env = "LAMPAD_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where HTTP is served: /metrics, the query API, the status page [default: 127.0.0.1:9390]
    #[arg(long, env = "LAMPAD_HTTP_LISTEN", value_name = "HOST:PORT")]
    pub http_listen: Option<Listen>,
    /// Where agents and pushers connect by gRPC [default: 127.0.0.1:9391]
    #[arg(long, env = "LAMPAD_GRPC_LISTEN", value_name = "HOST:PORT")]
    pub grpc_listen: Option<Listen>,
    /// TOML file with the same settings, `-` written as `_`; read again on SIGHUP
    #[arg(long, env = "LAMPAD_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How long samples are kept, as 30d, 12h or 1y; 0 keeps them for ever [default: 30d]
    #[arg(long, env = "LAMPAD_RETENTION", value_name = "DURATION")]
    pub retention: Option<Retention>,
    /// How long windows of 10 s are kept, which old samples are made into: as above, or `off` for none [default: 90d]
    #[arg(long = "retention-10s", env = "LAMPAD_RETENTION_10S", value_name = "DURATION")]
    pub retention_10s: Option<TierRetention>,
    /// The same of windows of 5 min [default: 365d]
    #[arg(long = "retention-5m", env = "LAMPAD_RETENTION_5M", value_name = "DURATION")]
    pub retention_5m: Option<TierRetention>,
    /// Features to switch on, by Prometheus' names, or `all`
    #[arg(long, env = "LAMPAD_ENABLE_FEATURE", value_name = "NAME", value_delimiter = ',')]
    pub enable_feature: Vec<String>,
    /// Serve Prometheus' admin API: deleting series, snapshots
    #[arg(long, env = "LAMPAD_ENABLE_ADMIN_API")]
    pub enable_admin_api: bool,
    /// Certificate chain (PEM) for HTTP and gRPC
    #[arg(long, env = "LAMPAD_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key (PEM) of the certificate
    #[arg(long, env = "LAMPAD_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Authorities (PEM) that sign the certificates of agents and clients; without a certificate of theirs an agent is refused
    #[arg(long, env = "LAMPAD_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,
    /// File with the bearer token that HTTP clients, plain pushers and agents without a certificate must send
    #[arg(long, env = "LAMPAD_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Allow listening beyond loopback without TLS
    #[arg(long, env = "LAMPAD_INSECURE")]
    pub insecure: bool,
    /// Form of the log lines [default: text]
    #[arg(long, env = "LAMPAD_LOG_FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,
    /// error, warn, info, debug, trace, or directives such as `info,lampad_collector=debug` [default: info]
    #[arg(long, env = "LAMPAD_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Prometheus rule files; not there yet
    #[arg(long, env = "LAMPAD_RULES", value_name = "FILE", value_delimiter = ',')]
    pub rules: Vec<String>,
    /// Alertmanager configuration; not there yet
    #[arg(long, env = "LAMPAD_ALERTMANAGER_CONFIG", value_name = "FILE")]
    pub alertmanager_config: Option<PathBuf>,
    #[command(flatten)]
    pub limits: LimitArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// The file: every flag under its name with `_`; the limits are a table of their own.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data_dir: Option<PathBuf>,
    http_listen: Option<Listen>,
    grpc_listen: Option<Listen>,
    retention: Option<Retention>,
    retention_10s: Option<TierRetention>,
    retention_5m: Option<TierRetention>,
    #[serde(default)]
    enable_feature: Vec<String>,
    #[serde(default)]
    enable_admin_api: bool,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    tls_client_ca: Option<PathBuf>,
    token_file: Option<PathBuf>,
    #[serde(default)]
    insecure: bool,
    log_format: Option<LogFormat>,
    log_level: Option<String>,
    #[serde(default)]
    rules: Vec<String>,
    alertmanager_config: Option<PathBuf>,
    #[serde(default)]
    limits: Limits,
}

/// Where the certificates lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub client_ca: Option<PathBuf>,
}

/// The settings that are in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub data_dir: PathBuf,
    pub http_listen: Listen,
    pub grpc_listen: Listen,
    pub retention: Option<Duration>,
    /// Of windows of 10 s and of 5 min.
    pub tiers: [TierRetention; 2],
    pub features: BTreeSet<String>,
    pub enable_admin_api: bool,
    pub tls: Option<TlsFiles>,
    pub token_file: Option<PathBuf>,
    pub insecure: bool,
    pub log_format: LogFormat,
    pub log_level: String,
    pub limits: Limits,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read config file {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("config file {} is refused", path.display())]
    Parse { path: PathBuf, source: toml::de::Error },
    #[error("{0}")]
    Refused(String),
}

impl Config {
    /// Reads the file that `args` names, lays the flags over it, and checks the whole.
    pub fn load(args: &Args) -> Result<Self, ConfigError> {
        let file = match &args.config {
            Some(path) => read(path)?,
            None => File::default(),
        };
        Self::merge(args, file).map_err(|error| match (error, &args.config) {
            // What the flags alone would not be refused for is the file's.
            (ConfigError::Refused(text), Some(path)) if Self::merge(args, File::default()).is_ok() => {
                ConfigError::Refused(format!("config file {}: {text}", path.display()))
            }
            (error, _) => error,
        })
    }

    fn merge(args: &Args, file: File) -> Result<Self, ConfigError> {
        let args = args.clone();
        if !args.rules.is_empty() || !file.rules.is_empty() {
            return Err(not_yet("--rules", "this version does not evaluate rules"));
        }
        if args.alertmanager_config.or(file.alertmanager_config).is_some() {
            return Err(not_yet("--alertmanager-config", "this version does not send alerts"));
        }
        let (cert, key) = (args.tls_cert.or(file.tls_cert), args.tls_key.or(file.tls_key));
        let client_ca = args.tls_client_ca.or(file.tls_client_ca);
        let tls = match (cert, key, client_ca) {
            (Some(cert), Some(key), client_ca) => Some(TlsFiles { cert, key, client_ca }),
            (None, None, None) => None,
            (None, None, Some(_)) => return Err(incomplete("--tls-client-ca", "--tls-cert and --tls-key")),
            (Some(_), None, _) => return Err(incomplete("--tls-cert", "--tls-key")),
            (None, Some(_), _) => return Err(incomplete("--tls-key", "--tls-cert")),
        };
        let http_listen = args.http_listen.or(file.http_listen).unwrap_or_else(|| Listen(HTTP_LISTEN.into()));
        let grpc_listen = args.grpc_listen.or(file.grpc_listen).unwrap_or_else(|| Listen(GRPC_LISTEN.into()));
        if http_listen == grpc_listen && !http_listen.0.ends_with(":0") {
            let text = format!("--http-listen and --grpc-listen are both {http_listen}; give each a port of its own");
            return Err(ConfigError::Refused(text));
        }
        let features = if args.enable_feature.is_empty() { file.enable_feature } else { args.enable_feature };
        let log_level = args.log_level.or(file.log_level).unwrap_or_else(|| "info".into());
        if let Err(error) = crate::logging::filter(&log_level) {
            let hint = "say error, warn, info, debug or trace";
            return Err(ConfigError::Refused(format!("--log-level {log_level:?} is not understood: {error}; {hint}")));
        }
        Ok(Self {
            data_dir: args.data_dir.or(file.data_dir).unwrap_or_else(|| DATA_DIR.into()),
            http_listen,
            grpc_listen,
            retention: args.retention.or(file.retention).map_or(Some(RETENTION), |retention| retention.0),
            tiers: [
                args.retention_10s.or(file.retention_10s).unwrap_or(RETENTION_10S),
                args.retention_5m.or(file.retention_5m).unwrap_or(RETENTION_5M),
            ],
            features: features.into_iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect(),
            enable_admin_api: args.enable_admin_api || file.enable_admin_api,
            tls,
            token_file: args.token_file.or(file.token_file),
            insecure: args.insecure || file.insecure,
            log_format: args.log_format.or(file.log_format).unwrap_or_default(),
            log_level,
            limits: args.limits.over(file.limits).map_err(ConfigError::Refused)?,
        })
    }

    /// Settings that differ and that only a restart brings into force.
    pub fn needs_restart(&self, new: &Config) -> Vec<&'static str> {
        let fixed = [
            ("data_dir", self.data_dir != new.data_dir),
            ("http_listen", self.http_listen != new.http_listen),
            ("grpc_listen", self.grpc_listen != new.grpc_listen),
            ("enable_feature", self.features != new.features),
            ("enable_admin_api", self.enable_admin_api != new.enable_admin_api),
            ("log_format", self.log_format != new.log_format),
            ("limits", self.limits != new.limits),
            ("retention", self.retention != new.retention),
            ("retention_10s", self.tiers[0] != new.tiers[0]),
            ("retention_5m", self.tiers[1] != new.tiers[1]),
            ("tls_cert (on or off)", self.tls.is_some() != new.tls.is_some()),
        ];
        fixed.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
    }
}

fn read(path: &Path) -> Result<File, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
    toml::from_str(&text).map_err(|source| ConfigError::Parse { path: path.into(), source })
}

fn not_yet(flag: &str, why: &str) -> ConfigError {
    ConfigError::Refused(format!("{flag} is not there yet: {why}; start without it"))
}

fn incomplete(given: &str, missing: &str) -> ConfigError {
    ConfigError::Refused(format!("{given} is given without {missing}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_file(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("collector.toml");
        std::fs::write(&path, text).unwrap();
        let args = Args { config: Some(path), ..Args::default() };
        Config::load(&args).map_err(|error| {
            let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            format!("{error}{source}")
        })
    }

    #[test]
    fn defaults_are_those_of_the_design() {
        let config = Config::load(&Args::default()).unwrap();
        assert_eq!(
            [config.http_listen.to_string(), config.grpc_listen.to_string()],
            ["127.0.0.1:9390", "127.0.0.1:9391"]
        );
        assert_eq!(config.retention, Some(Duration::from_secs(30 * 86_400)));
        assert!(config.tls.is_none() && !config.insecure);
    }

    /// Each key that the default file shows, and the file as a whole, says what holds without it.
    #[test]
    fn the_default_file_says_what_holds_without_it() {
        let written = include_str!("../../systemd/collector.toml");
        let line = |line: &str| match line.strip_prefix('#') {
            Some(key) if !key.starts_with(' ') && !key.starts_with("off:") => key.to_owned() + "\n",
            _ => line.to_owned() + "\n",
        };
        let shown: String = written.lines().map(line).collect();
        assert_eq!(from_file(&shown).unwrap(), Config::load(&Args::default()).unwrap());
        for argument in <Args as clap::CommandFactory>::command().get_arguments() {
            let key = argument.get_id().as_str();
            if ["config", "rules", "alertmanager_config", "help", "version"].contains(&key) {
                continue;
            }
            let is_shown =
                |line: &str| line.trim_start_matches("#off: ").trim_start_matches('#').starts_with(&format!("{key} ="));
            assert!(written.lines().any(is_shown), "{key} is not shown");
        }
    }

    #[test]
    fn flags_win_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, "retention = \"1h\"\nhttp_listen = \"localhost:1\"\n[limits]\nlabels_per_series = 7\n")
            .unwrap();
        let path = path.to_str().unwrap();
        let args = Args::try_parse_from([
            "x",
            "--config",
            path,
            "--retention",
            "0",
            "--retention-10s",
            "off",
            "--retention-5m",
            "0",
        ])
        .unwrap();
        let args = Args { enable_feature: vec!["a".into(), "b".into()], ..args };
        let config = Config::load(&args).unwrap();
        assert_eq!(config.retention, None);
        assert_eq!(config.tiers.map(|kept| kept.to_string()), ["off", "0"]);
        assert_eq!(config.http_listen.to_string(), "localhost:1");
        assert_eq!(config.features, ["a".to_owned(), "b".to_owned()].into());
        assert_eq!(config.limits.labels_per_series, 7);
    }

    #[test]
    fn refusals_name_the_thing_and_the_line() {
        for (text, expected) in [
            ("insecure = true\nretentoin = \"1d\"\n", &["line 2", "retentoin"][..]),
            ("http_listen = \"9390\"\n", &["line 1", "\"9390\" is not HOST:PORT"]),
            ("retention = \"soon\"\n", &["\"soon\" is not a duration"]),
            ("retention = \"5s\"\n", &["less than a minute"]),
            ("retention_5m = \"never\"\n", &["line 1", "\"never\" is not a duration", "`off`"]),
            ("[limits]\nserie = 1\n", &["line 2", "serie"]),
            ("[limits]\nseries = 0\n", &["--limit-series is 0"]),
            ("tls_cert = \"x\"\n", &["collector.toml: --tls-cert is given without --tls-key"]),
            ("http_listen = \"127.0.0.1:9391\"\n", &["are both 127.0.0.1:9391; give each a port of its own"]),
            ("tls_client_ca = \"x\"\n", &["--tls-client-ca is given without"]),
            ("rules = [\"a.yml\"]\n", &["--rules is not there yet"]),
            ("alertmanager_config = \"a.yml\"\n", &["--alertmanager-config is not there yet"]),
            ("log_level = \"x=y=z\"\n", &["--log-level \"x=y=z\" is not understood"]),
        ] {
            let message = from_file(text).unwrap_err();
            for part in expected {
                assert!(message.contains(part), "{text:?} gave {message:?}, without {part:?}");
            }
        }
    }
}
