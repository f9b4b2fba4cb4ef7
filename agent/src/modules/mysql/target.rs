//! One server to log in to: where it is, as whom, and who said so.

use std::fmt;
use std::path::PathBuf;

use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};

use super::settings::Secret;

/// The port that MySQL and MariaDB listen on unless told otherwise.
pub const DEFAULT_PORT: u16 = 3306;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Socket(PathBuf),
    Tcp { host: String, port: u16 },
}

/// Certificates and how strict to be, as the `ssl-*` options of the MySQL clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    pub mode: TlsMode,
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsMode {
    Disabled,
    /// Where the server offers it, without looking at its certificate.
    #[default]
    Preferred,
    Required,
    VerifyCa,
    VerifyIdentity,
}

impl TlsMode {
    /// Takes the spelling of `--ssl-mode`, with `-` or `_`, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().replace('-', "_").as_str() {
            "disabled" => Self::Disabled,
            "preferred" => Self::Preferred,
            "required" => Self::Required,
            "verify_ca" => Self::VerifyCa,
            "verify_identity" => Self::VerifyIdentity,
            _ => return None,
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub address: Address,
    pub user: String,
    pub password: Option<Secret>,
    pub tls: Tls,
    /// Who named it, for messages: `--mysql or LAMPAD_MYSQL`, `/root/.my.cnf`, `a usual place`.
    pub origin: String,
    /// Somebody named this very server, so its absence is an error and not a fact of life.
    pub explicit: bool,
}

impl Target {
    /// Options built by their methods: a password never becomes part of a string that is parsed again.
    pub fn options(&self, mode: TlsMode) -> MySqlConnectOptions {
        let mut options = MySqlConnectOptions::new()
            .username(&self.user)
            // The session sets these itself, in one statement; see `session.rs`.
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .timezone(None)
            .set_names(false)
            .statement_cache_capacity(0)
            .ssl_mode(match mode {
                TlsMode::Disabled => MySqlSslMode::Disabled,
                TlsMode::Preferred => MySqlSslMode::Preferred,
                TlsMode::Required => MySqlSslMode::Required,
                TlsMode::VerifyCa => MySqlSslMode::VerifyCa,
                TlsMode::VerifyIdentity => MySqlSslMode::VerifyIdentity,
            });
        options = match &self.address {
            Address::Socket(path) => options.socket(path),
            Address::Tcp { host, port } => options.host(host).port(*port),
        };
        if let Some(password) = &self.password {
            options = options.password(password.reveal());
        }
        if let Some(ca) = &self.tls.ca {
            options = options.ssl_ca(ca);
        }
        if let (Some(cert), Some(key)) = (&self.tls.cert, &self.tls.key) {
            options = options.ssl_client_cert(cert).ssl_client_key(key);
        }
        options
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(out, "{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(out, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(out, "{host}:{port}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} as {} ({})", self.address, self.user, self.origin)
    }
}
