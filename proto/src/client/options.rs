//! Where to push, as whom, and how long to try.

use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::PushError;

/// PEM texts for an `https://` collector.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// The authority that signed the collector's certificate; empty: those that this machine trusts.
    pub ca: String,
    /// Our own certificate and key, where the collector asks for one.
    pub identity: Option<(String, String)>,
}

/// How a client pushes.
#[derive(Debug, Clone)]
pub struct Options {
    pub(super) collector: String,
    pub(super) labels: Vec<(String, String)>,
    token: Option<String>,
    tls: Tls,
    pub(super) give_up_after: Duration,
}

impl Options {
    /// `collector` is its gRPC address: `http://HOST:PORT` or `https://HOST:PORT`.
    pub fn new(collector: impl Into<String>) -> Self {
        Self {
            collector: collector.into(),
            labels: Vec::new(),
            token: None,
            tls: Tls::default(),
            give_up_after: Duration::from_secs(30),
        }
    }

    /// A label for every series. `job` and `instance` are what dashboards expect.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.push((name.into(), value.into()));
        self
    }

    /// The bearer token of the collector's `--token-file`.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }

    /// How long one batch is tried before its flush fails.
    pub fn give_up_after(mut self, time: Duration) -> Self {
        self.give_up_after = time;
        self
    }

    pub(super) fn endpoint(&self) -> Result<Endpoint, PushError> {
        let address = |detail: String| PushError::Address { collector: self.collector.clone(), detail };
        if !self.collector.starts_with("http://") && !self.collector.starts_with("https://") {
            return Err(address("it must begin with http:// or https://".into()));
        }
        let endpoint = Endpoint::from_shared(self.collector.clone())
            .map_err(|error| address(error.to_string()))?
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true);
        if self.collector.starts_with("http://") {
            return Ok(endpoint);
        }
        let mut tls = match self.tls.ca.trim() {
            "" => ClientTlsConfig::new().with_native_roots(),
            _ => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.tls.ca)),
        };
        if let Some((certificate, key)) = &self.tls.identity {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        endpoint.tls_config(tls).map_err(|error| address(format!("its TLS settings do not fit: {error}")))
    }

    pub(super) fn authorization(&self) -> Result<Option<MetadataValue<Ascii>>, PushError> {
        let Some(token) = &self.token else { return Ok(None) };
        let mut value = MetadataValue::try_from(format!("Bearer {}", token.trim())).map_err(|_| PushError::Token)?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}
