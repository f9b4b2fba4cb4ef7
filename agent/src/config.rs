//! What the agent is told: flags, environment, file, defaults, in this order.
//!
//! ```toml
//! collector = "https://collector:9391"
//! labels = { env = "prod" }
//! spool_bytes = 1073741824
//!
//! [module."host.cpu"]
//! interval = "250ms"
//! deadline = "1s"
//! enabled = true
//!
//! [host]      # see modules::host::HostSettings
//! [mysql]     # see modules::mysql::MysqlSettings
//! ```
//! Unknown keys are refused by name and place; a value out of its bounds is refused with the bounds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lampad_proto::v1::Label;
use serde::Deserialize;

use crate::module::Spec;
use crate::modules::host::HostSettings;
use crate::modules::mysql::{MysqlSettings, Secret, Surroundings, Watched};
use crate::schedule::Schedule;
use crate::uplink::Target;

/// Room for a gigabyte of frames: a day's outage of a busy server.
const SPOOL_BYTES: u64 = 1024 * 1024 * 1024;

/// How much longer than a statement its module waits, so that it hears the statement's own answer.
const STATEMENT_GRACE: Duration = Duration::from_millis(500);

const INTERVAL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(3600));

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{}:{line}: {detail}", path.display())]
    Key { path: PathBuf, line: usize, detail: String },
    #[error("{setting}: {detail}")]
    Value { setting: String, detail: String },
}

impl ConfigError {
    /// Names the file where a value came from there and from no flag.
    fn of_file(self, flags: &Flags) -> Self {
        let (Self::Value { setting, detail }, Some(path)) = (&self, &flags.config) else { return self };
        let (key, flagged) = match setting.as_str() {
            "--collector" => ("collector", flags.collector.is_some()),
            "--spool-bytes" => ("spool_bytes", flags.spool_bytes.is_some()),
            "--log-level" => ("log_level", flags.log_level.is_some()),
            TLS_IDENTITY => ("tls_cert, tls_key", flags.tls_cert.is_some() || flags.tls_key.is_some()),
            MYSQL => ("[mysql]", !flags.mysql.is_empty()),
            "label" => ("labels", flags.instance.is_some()),
            setting => (setting, setting.starts_with("--")),
        };
        if flagged { self } else { value(format!("{}: {key}", path.display()), detail) }
    }
}

/// Settings that have a flag and a key of other names.
const TLS_IDENTITY: &str = "--tls-cert, --tls-key";
const MYSQL: &str = "--mysql, [mysql]";

fn value(setting: impl Into<String>, detail: impl Into<String>) -> ConfigError {
    ConfigError::Value { setting: setting.into(), detail: detail.into() }
}

/// Flags of the daemon. Each is an environment variable and a key of the file too.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Flags {
    /// The collector's gRPC address: http://HOST:PORT or https://HOST:PORT
    #[arg(long, env = "LAMPAD_COLLECTOR", value_name = "URL")]
    pub collector: Option<String>,
    /// Where identity and spool are kept [default: $STATE_DIRECTORY, else /var/lib/lampad-agent]
    #[arg(long, env = "LAMPAD_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// A MySQL or MariaDB server to sample; repeatable, NAME=DSN names its `instance`; without it the usual places are looked at
    #[arg(long, env = "LAMPAD_MYSQL", value_name = "DSN", hide_env_values = true)]
    pub mysql: Vec<Secret>,
    /// Configuration file (TOML); read again on SIGHUP
    #[arg(long, env = "LAMPAD_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Label on every series of this agent; repeatable, comma-separated in the environment
    #[arg(long = "label", env = "LAMPAD_LABEL", value_name = "NAME=VALUE")]
    pub labels: Vec<String>,
    /// Value of the label `instance` [default: the host's name]
    #[arg(long, env = "LAMPAD_INSTANCE", value_name = "NAME")]
    pub instance: Option<String>,
    /// Certificate authority that signed the collector's certificate (PEM) [default: those that this machine trusts]
    #[arg(long, env = "LAMPAD_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Certificate of this agent (PEM); goes with --tls-key
    #[arg(long, env = "LAMPAD_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of this agent (PEM); goes with --tls-cert
    #[arg(long, env = "LAMPAD_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// File with the token that the collector asks for
    #[arg(long, env = "LAMPAD_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Most bytes that frames may take on disk while the collector is away [default: 1 GiB]
    #[arg(long, env = "LAMPAD_SPOOL_BYTES", value_name = "BYTES")]
    pub spool_bytes: Option<u64>,
    /// Where procfs is mounted, for an agent in a container [default: /proc]
    #[arg(long, env = "LAMPAD_PATH_PROCFS", value_name = "DIR")]
    pub path_procfs: Option<PathBuf>,
    /// Where sysfs is mounted [default: /sys]
    #[arg(long, env = "LAMPAD_PATH_SYSFS", value_name = "DIR")]
    pub path_sysfs: Option<PathBuf>,
    /// Where the host's root is seen; taken off the mount points told [default: /]
    #[arg(long, env = "LAMPAD_PATH_ROOTFS", value_name = "DIR")]
    pub path_rootfs: Option<PathBuf>,
    /// What udev knows of block devices [default: /run/udev/data]
    #[arg(long, env = "LAMPAD_PATH_UDEV_DATA", value_name = "DIR")]
    pub path_udev_data: Option<PathBuf>,
    /// Form of the log: text or json [default: text]
    #[arg(long, env = "LAMPAD_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// What is logged: error, warn, info, debug, trace, or filters as target=level [default: info]
    #[arg(long, env = "LAMPAD_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// The file, as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    collector: Option<String>,
    state_dir: Option<PathBuf>,
    labels: BTreeMap<String, String>,
    instance: Option<String>,
    tls_ca: Option<PathBuf>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    token_file: Option<PathBuf>,
    spool_bytes: Option<u64>,
    log_format: Option<LogFormat>,
    log_level: Option<String>,
    module: BTreeMap<String, ModuleSettings>,
    host: HostSettings,
    mysql: MysqlSettings,
}

/// `[module."NAME"]`: how one module is run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModuleSettings {
    #[serde(with = "humantime_serde")]
    pub interval: Option<Duration>,
    #[serde(with = "humantime_serde")]
    pub deadline: Option<Duration>,
    pub enabled: Option<bool>,
}

/// Everything, checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub target: Target,
    pub state_dir: PathBuf,
    /// Sorted by name; `instance` is among them.
    pub labels: Vec<Label>,
    pub hostname: String,
    pub spool_bytes: u64,
    pub log_format: LogFormat,
    pub log_level: String,
    pub modules: BTreeMap<String, ModuleSettings>,
    pub host: HostSettings,
    /// `[host]` as it was written, to see on reload whether it changed: patterns cannot be compared.
    pub host_written: Option<toml::Value>,
    /// The servers that are watched.
    pub mysql: Vec<Watched>,
}

impl Config {
    /// Reads the file that the flags name and merges all sources.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let (file, mut table) = match &flags.config {
            Some(path) => read(path)?,
            None => Default::default(),
        };
        merge(flags, file, table.remove("host")).map_err(|error| error.of_file(flags))
    }

    /// When a module is read, and whether it is.
    pub fn schedule(&self, spec: &Spec) -> Option<Schedule> {
        let settings =
            self.modules.get(&spec.id()).or_else(|| self.modules.get(spec.name)).cloned().unwrap_or_default();
        if settings.enabled == Some(false) {
            return None;
        }
        let mut schedule = settings.interval.map_or(Schedule::of(spec.tier), Schedule::every);
        schedule.deadline = settings.deadline.unwrap_or(schedule.deadline.max(self.statement_deadline(spec)));
        Some(schedule)
    }

    /// How long a module has to bear with a statement: its answer would come to nobody else.
    fn statement_deadline(&self, spec: &Spec) -> Duration {
        let watched = self.mysql.iter().filter(|_| spec.name.starts_with("mysql."));
        let deadlines = watched.filter(|watched| watched.instance == spec.instance);
        deadlines.map(|watched| watched.settings.statement_deadline + STATEMENT_GRACE).max().unwrap_or_default()
    }

    /// Refuses settings for modules that do not exist: a misspelt name would silently do nothing.
    pub fn check_modules<'a>(&self, known: impl Iterator<Item = &'a str> + Clone) -> Result<(), ConfigError> {
        match self.modules.keys().find(|name| !known.clone().any(|known| known == name.as_str())) {
            None => Ok(()),
            Some(name) => {
                let known = known.collect::<Vec<_>>().join(", ");
                Err(value(format!("[module.{name:?}]"), format!("there is no such module; there are: {known}")))
            }
        }
    }
}

fn read(path: &Path) -> Result<(File, toml::Table), ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
    let parsed = toml::from_str(&text).and_then(|file| Ok((file, toml::from_str(&text)?)));
    parsed.map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = text.get(..start).unwrap_or_default().matches('\n').count() + 1;
        ConfigError::Key { path: path.to_owned(), line, detail: error.message().to_owned() }
    })
}

fn merge(flags: &Flags, mut file: File, host_written: Option<toml::Value>) -> Result<Config, ConfigError> {
    let collector = flags.collector.clone().or(file.collector).unwrap_or_else(|| "http://127.0.0.1:9391".to_owned());
    check_collector(&collector)?;
    let tls_cert = flags.tls_cert.clone().or(file.tls_cert);
    let tls_key = flags.tls_key.clone().or(file.tls_key);
    let tls_identity = match (tls_cert, tls_key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err(value(TLS_IDENTITY, "one needs the other; give both or none")),
    };
    let tls_ca = flags.tls_ca.clone().or(file.tls_ca);
    if collector.starts_with("http://") && (tls_ca.is_some() || tls_identity.is_some()) {
        return Err(value(
            "--collector",
            format!("{collector} is without TLS, but TLS files are given; write https://"),
        ));
    }
    let log_level = flags.log_level.clone().or(file.log_level).unwrap_or_else(|| "info".to_owned());
    crate::logging::check(&log_level).map_err(|detail| value("--log-level", detail))?;
    let token_file = flags.token_file.clone().or(file.token_file);
    let hostname = hostname();
    let instance = flags.instance.clone().or(file.instance).unwrap_or_else(|| hostname.clone());
    let spool_bytes = flags.spool_bytes.or(file.spool_bytes).unwrap_or(SPOOL_BYTES);
    if spool_bytes < 2 * crate::spool::SEGMENT_BYTES {
        return Err(value(
            "--spool-bytes",
            format!("{spool_bytes} is below the least, {}", 2 * crate::spool::SEGMENT_BYTES),
        ));
    }
    file.mysql.replace(&flags.mysql);
    let labels = labels(flags, file.labels, instance)?;
    let own = labels.iter().find(|label| label.name == "instance").map_or("", |label| &label.value);
    let mysql = file.mysql.watched(own, &Surroundings::of_this_process());
    let mysql = mysql.map_err(|error| value(MYSQL, error.to_string()))?;
    for watched in &mysql {
        check_time("[mysql]", "statement_deadline", watched.settings.statement_deadline)?;
        for (name, content) in &watched.labels {
            let checked = match name.as_str() {
                "instance" => Err("a server's instance is its `name`; write it there".to_owned()),
                _ => check_label(name, content),
            };
            checked.map_err(|detail| value("labels of [mysql]", detail))?;
        }
    }
    place_host(flags, &mut file.host)?;
    for (name, module) in &file.module {
        check_module(name, module)?;
    }
    Ok(Config {
        target: Target { collector, tls_ca, tls_identity, token_file },
        state_dir: flags.state_dir.clone().or(file.state_dir).unwrap_or_else(default_state_dir),
        labels,
        hostname,
        spool_bytes,
        log_format: flags.log_format.or(file.log_format).unwrap_or_default(),
        log_level,
        modules: file.module,
        host: file.host,
        host_written,
        mysql,
    })
}

/// The kernel's trees, which must be there: a misspelt path would look like a host without any hardware.
fn place_host(flags: &Flags, host: &mut HostSettings) -> Result<(), ConfigError> {
    for (name, flag, path) in [
        ("path_procfs", &flags.path_procfs, &mut host.path_procfs),
        ("path_sysfs", &flags.path_sysfs, &mut host.path_sysfs),
        ("path_rootfs", &flags.path_rootfs, &mut host.path_rootfs),
        ("path_udev_data", &flags.path_udev_data, &mut host.path_udev_data),
    ] {
        if let Some(flag) = flag {
            path.clone_from(flag);
        }
        // Without udev there are only no names of vendors.
        if name != "path_udev_data" && !path.is_dir() {
            return Err(value(name, format!("{} is no directory; name the one that is mounted here", path.display())));
        }
    }
    Ok(())
}

fn check_collector(url: &str) -> Result<(), ConfigError> {
    let bad =
        |detail: &str| value("--collector", format!("{url:?} {detail}; write http://HOST:PORT or https://HOST:PORT"));
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let authority = rest.ok_or_else(|| bad("is not a URL of gRPC"))?.trim_end_matches('/');
    let parsed: http::uri::Authority = authority.parse().map_err(|_| bad("is not an address"))?;
    let digits = |port: &&str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = authority.rsplit_once(':').map(|(_, port)| port).filter(digits);
    match (parsed.port_u16(), port) {
        (Some(1..), _) => Ok(()),
        (_, None) => Err(bad("has no port")),
        (_, Some(_)) => Err(bad("has a port that is not within 1 and 65535")),
    }
}

fn check_module(name: &str, settings: &ModuleSettings) -> Result<(), ConfigError> {
    for (key, given) in [("interval", settings.interval), ("deadline", settings.deadline)] {
        check_time(&format!("[module.{name:?}]"), key, given.unwrap_or(INTERVAL.0))?;
    }
    Ok(())
}

fn check_time(section: &str, key: &str, given: Duration) -> Result<(), ConfigError> {
    let (least, most) = INTERVAL;
    if given < least || given > most {
        return Err(value(section, format!("{key} {given:?} is not within {least:?} and {most:?}")));
    }
    Ok(())
}

/// Flags go before the file, name by name.
fn labels(flags: &Flags, file: BTreeMap<String, String>, instance: String) -> Result<Vec<Label>, ConfigError> {
    let mut all = file;
    if let Some(instance) = &flags.instance {
        all.insert("instance".to_owned(), instance.clone());
    }
    // In the environment commas part the labels; on the command line each has a flag of its own and may hold commas.
    let from_environment = std::env::var("LAMPAD_LABEL").is_ok_and(|text| flags.labels == [text]);
    let given =
        flags.labels.iter().flat_map(|label| if from_environment { label.split(',') } else { label.split('\0') });
    for label in given {
        let (name, content) = parse_label(label).map_err(|detail| value("--label", detail))?;
        all.insert(name, content);
    }
    for (name, content) in &all {
        check_label(name, content).map_err(|detail| value("label", detail))?;
    }
    all.entry("instance".to_owned()).or_insert(instance);
    Ok(all.into_iter().map(|(name, value)| Label { name, value }).collect())
}

/// `NAME=VALUE`.
pub fn parse_label(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| format!("{:?} has no '='; write NAME=VALUE", lampad_proto::shown(text)))?;
    check_label(name, value)?;
    Ok((name.to_owned(), value.to_owned()))
}

fn check_label(name: &str, value: &str) -> Result<(), String> {
    let fits =
        |(at, byte): (usize, u8)| byte == b'_' || byte.is_ascii_alphabetic() || (at > 0 && byte.is_ascii_digit());
    let shown = lampad_proto::shown(name);
    if name.is_empty() || !name.bytes().enumerate().all(fits) {
        return Err(format!("{shown:?} is not a label's name: letters, digits and _, no digit first"));
    }
    if name == "job" || name.starts_with("__") {
        return Err(format!("{shown:?} is set by Lampad itself; choose another name"));
    }
    if value.is_empty() {
        return Err(format!("label {shown:?} has no value; leave it out instead"));
    }
    Ok(())
}

/// systemd names the directory that it made for the unit.
fn default_state_dir() -> PathBuf {
    let from_systemd = std::env::var("STATE_DIRECTORY").unwrap_or_default();
    match from_systemd.split(':').next() {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => PathBuf::from("/var/lib/lampad-agent"),
    }
}

fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
