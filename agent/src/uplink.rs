//! The connection to the collector: how it is made, and what follows from each way in which it fails.

use std::path::PathBuf;
use std::time::Duration;

use lampad_proto::client::way_out;
use lampad_proto::v1::ingest_client::IngestClient;
use lampad_proto::v1::{Downward, Hello, Upward, Welcome, downward, upward};
use rand::Rng;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status, Streaming};

use crate::sampler::chain;

/// Messages handed over and not yet taken by the connection. Small: what waits here delays what is newer.
pub const UP_MAX: usize = 64;

/// Short, because what is tried while the way is cut only ends by it, and the next attempt is the one that gets through.
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);
/// For TCP and TLS together: some round trips of a bad link.
const TLS_DEADLINE: Duration = Duration::from_secs(3);
const WELCOME_DEADLINE: Duration = Duration::from_secs(5);

/// The connection counts as dead when the other side does not answer a ping of HTTP/2 for this long.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// First and longest time from one attempt to the next. The longest one bounds how old the newest sample is when an outage is
/// over, which shall be a second. A thousand agents that come back are spread over it by chance.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(700));

/// A stream that lived so long was a success; one that ends sooner is one more failure, or each would start at the first wait.
const STEADY: Duration = Duration::from_secs(5);

/// Wait before the next attempt when the collector refuses: it will most likely refuse again.
const REFUSED_WAIT: Duration = Duration::from_secs(3);

/// How rustls calls the alert of a collector that wants a certificate of us and got none.
const NAMELESS: &str = "CertificateRequired";

/// Troubles that are remembered as told.
const SAID_MAX: usize = 8;

/// Where the collector is and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `http://host:port` or `https://host:port`.
    pub collector: String,
    pub tls_ca: Option<PathBuf>,
    /// Certificate and key of this agent.
    pub tls_identity: Option<(PathBuf, PathBuf)>,
    pub token_file: Option<PathBuf>,
}

/// A stream that was welcomed.
pub struct Link {
    pub up: mpsc::Sender<Upward>,
    pub down: Streaming<Downward>,
    pub welcome: Welcome,
}

#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    #[error("cannot read {} for the connection to the collector", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("cannot use {what} for the connection to the collector: {detail}")]
    Setup { what: String, detail: String },
    #[error("cannot reach the collector at {collector}: {detail}; check the address and that it runs")]
    Unreachable { collector: String, detail: String },
    #[error("there is something at {collector}, but no collector that understands us ({detail}){way_out}")]
    Misdirected { collector: String, detail: String, way_out: &'static str },
    #[error("the collector at {collector} did not answer within {deadline:?}")]
    Silent { collector: String, deadline: Duration },
    #[error(
        "the collector at {collector} has a stream of this agent already: {detail}. If a copied state directory is the cause, delete it on the copy"
    )]
    Duplicate { collector: String, detail: String },
    #[error(
        "the collector at {collector} knows later frames of this agent than its state directory ({detail}); starting a new epoch"
    )]
    Behind { collector: String, detail: String },
    #[error("the collector at {collector} does not let this agent in: {detail}; check --token-file and --tls-cert")]
    NotAllowed { collector: String, detail: String },
    #[error("the collector at {collector} refuses this agent: {detail}; are both of fitting versions?")]
    Refused { collector: String, detail: String },
    #[error("the collector at {collector} ended the stream: {detail}")]
    Ended { collector: String, detail: String },
}

/// What the uplink does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Try again soon.
    Retry,
    /// Try again, but not at once: somebody has to do something first.
    RetrySlowly,
    /// The numbers of this epoch are not ours any more.
    NewEpoch,
}

impl UplinkError {
    /// Decided here once; callers match on nothing else.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } | Self::Ended { .. } => Verdict::Retry,
            Self::Behind { .. } => Verdict::NewEpoch,
            Self::File { .. }
            | Self::Setup { .. }
            | Self::Misdirected { .. }
            | Self::Duplicate { .. }
            | Self::NotAllowed { .. }
            | Self::Refused { .. } => Verdict::RetrySlowly,
        }
    }

    /// What it is told as, once: troubles with one way out are one, and numbers such as our own port, which is another one at
    /// every attempt, make no new trouble.
    fn trouble(&self, text: &str) -> String {
        match self {
            Self::Misdirected { way_out, .. } => (*way_out).to_owned(),
            Self::NotAllowed { detail, .. } if detail.contains(NAMELESS) => NAMELESS.to_owned(),
            _ => text.chars().filter(|letter| !letter.is_ascii_digit()).collect(),
        }
    }

    /// What it means that no connection came about.
    fn from_connect(collector: &str, detail: String) -> Self {
        let collector = collector.to_owned();
        match way_out(&detail) {
            _ if detail.contains(NAMELESS) => Self::NotAllowed { collector, detail },
            "" => Self::Unreachable { collector, detail },
            way_out => Self::Misdirected { collector, detail, way_out },
        }
    }

    /// What the answer to Hello means, when it is no Welcome. Only here `OUT_OF_RANGE` speaks of the numbers of frames: a
    /// transport says it as well, of a message that is too large.
    fn from_answer(collector: &str, status: &Status) -> Self {
        match Self::from_status(collector, status) {
            Self::Ended { collector, .. } if status.code() == Code::OutOfRange => {
                Self::Behind { collector, detail: status.message().to_owned() }
            }
            other => other,
        }
    }

    /// What it means to an agent that a stream ended with a gRPC status.
    pub fn from_status(collector: &str, status: &Status) -> Self {
        let collector = collector.to_owned();
        // The chain behind a transport error says more than the status: `connection refused`, `certificate expired`.
        let detail = match std::error::Error::source(status) {
            Some(source) if status.message().is_empty() || status.code() == Code::Unknown => chain(source),
            Some(source) => format!("{}: {}", status.message(), chain(source)),
            None => status.message().to_owned(),
        };
        if detail.contains(NAMELESS) {
            return Self::NotAllowed { collector, detail };
        }
        let way_out = way_out(&detail);
        if !way_out.is_empty() {
            return Self::Misdirected { collector, detail, way_out };
        }
        match status.code() {
            Code::AlreadyExists => Self::Duplicate { collector, detail },
            Code::Unauthenticated | Code::PermissionDenied => Self::NotAllowed { collector, detail },
            Code::FailedPrecondition | Code::InvalidArgument | Code::Unimplemented => {
                Self::Refused { collector, detail }
            }
            code => Self::Ended { collector, detail: format!("{detail} ({code:?})") },
        }
    }
}

impl Target {
    /// The connection's settings; reads the files that it names.
    pub fn endpoint(&self) -> Result<Endpoint, UplinkError> {
        let endpoint = Endpoint::from_shared(self.collector.clone())
            .map_err(|error| UplinkError::Setup { what: self.collector.clone(), detail: chain(&error) })?
            .connect_timeout(CONNECT_DEADLINE)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .user_agent(concat!("lampad-agent/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| UplinkError::Setup { what: "the user agent".to_owned(), detail: chain(&error) })?;
        if !self.collector.starts_with("https://") {
            return Ok(endpoint);
        }
        let mut tls = match &self.tls_ca {
            Some(path) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(path)?)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let Some((certificate, key)) = &self.tls_identity {
            tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        let what = || "the TLS settings (--tls-ca, --tls-cert, --tls-key)".to_owned();
        endpoint.tls_config(tls).map_err(|error| UplinkError::Setup { what: what(), detail: chain(&error) })
    }

    /// `Bearer ...`, read anew for each connection, so that a changed token needs no restart.
    pub fn authorization(&self) -> Result<Option<MetadataValue<Ascii>>, UplinkError> {
        let Some(path) = &self.token_file else { return Ok(None) };
        let token = String::from_utf8_lossy(&read(path)?).trim().to_owned();
        let value = format!("Bearer {token}").parse();
        let detail = "its content is not a token".to_owned();
        value.map(Some).map_err(|_| UplinkError::Setup { what: path.display().to_string(), detail })
    }

    /// Whether the files that it names can be used. Their content may change later.
    pub fn check(&self) -> Result<(), UplinkError> {
        self.authorization()?;
        self.endpoint().map(drop)
    }

    /// Connects, says hello and waits to be welcomed.
    pub async fn connect(&self, hello: Hello) -> Result<Link, UplinkError> {
        let collector = || self.collector.clone();
        let authorization = self.authorization()?;
        // The endpoint's own deadline ends when TCP is up; what accepts and then says nothing would hold TLS for ever.
        let channel = match tokio::time::timeout(TLS_DEADLINE, self.endpoint()?.connect()).await {
            Ok(connected) => connected.map_err(|error| UplinkError::from_connect(&self.collector, chain(&error)))?,
            Err(_) => return Err(UplinkError::Silent { collector: collector(), deadline: TLS_DEADLINE }),
        };
        let (up, messages) = mpsc::channel(UP_MAX);
        let hello = Upward { message: Some(upward::Message::Hello(hello)) };
        up.try_send(hello).map_err(|_| UplinkError::Ended { collector: collector(), detail: "at once".to_owned() })?;
        let mut request = Request::new(ReceiverStream::new(messages));
        if let Some(value) = authorization {
            request.metadata_mut().insert("authorization", value);
        }
        let welcomed = async {
            let mut down = IngestClient::new(channel).stream(request).await?.into_inner();
            let first = down.message().await?;
            Ok::<_, Status>((down, first.and_then(|message| message.message)))
        };
        match tokio::time::timeout(WELCOME_DEADLINE, welcomed).await {
            Ok(Ok((down, Some(downward::Message::Welcome(welcome))))) => Ok(Link { up, down, welcome }),
            Ok(Ok(_)) => {
                Err(UplinkError::Refused { collector: collector(), detail: "it did not begin with Welcome".to_owned() })
            }
            Ok(Err(status)) => Err(UplinkError::from_answer(&self.collector, &status)),
            Err(_) => Err(UplinkError::Silent { collector: collector(), deadline: WELCOME_DEADLINE }),
        }
    }
}

fn read(path: &PathBuf) -> Result<Vec<u8>, UplinkError> {
    std::fs::read(path).map_err(|source| UplinkError::File { path: path.clone(), source })
}

/// When to try again, and what to say meanwhile.
#[derive(Debug, Default)]
pub struct Attempts {
    failures: u32,
    /// New epochs since a stream held.
    epochs: u32,
    /// What was told, until a stream has held. Several, because one trouble may show itself in turns.
    said: Vec<String>,
    /// Something was told since the last ack.
    told: bool,
    begun: Option<Instant>,
    worked: Option<Instant>,
}

impl Attempts {
    /// Notes that an attempt begins.
    pub fn begin(&mut self) {
        self.begun = Some(Instant::now());
    }

    /// Notes a failure, says it once, and returns how long to wait.
    pub fn failed(&mut self, error: &UplinkError) -> Duration {
        if self.worked.take().is_some_and(|since| since.elapsed() >= STEADY) {
            (self.failures, self.epochs) = (0, 0);
            self.said.clear();
        }
        self.failures += 1;
        let text = chain(error);
        let trouble = error.trouble(&text);
        // The alert is lost where the connection ends before it is read: what is seen then is this trouble too.
        let cut = ["broken pipe", "connection closed", "onnection reset"].iter().any(|part| text.contains(part));
        let is_known = self.said.contains(&trouble) || cut && self.said.iter().any(|said| said == NAMELESS);
        if !is_known {
            tracing::warn!("{text}; trying again, told again when it works");
            if self.said.len() >= SAID_MAX {
                self.said.remove(0);
            }
            self.said.push(trouble);
            self.told = true;
        }
        match error.verdict() {
            Verdict::NewEpoch => {
                self.epochs += 1;
                // A new epoch is refused for this reason only when something is very wrong.
                if self.epochs == 1 { Duration::ZERO } else { jittered(REFUSED_WAIT) }
            }
            Verdict::RetrySlowly => jittered(REFUSED_WAIT),
            Verdict::Retry => {
                let apart = jittered(BACKOFF.0.saturating_mul(1 << (self.failures - 1).min(4)).min(BACKOFF.1));
                // An attempt that ended by its deadline has waited already.
                let took = self.begun.map_or(Duration::ZERO, |begun| begun.elapsed());
                apart.saturating_sub(took).max(jittered(BACKOFF.0))
            }
        }
    }

    /// Notes a stream that was welcomed. After a trouble that was told this is no news yet: a collector may welcome and then
    /// refuse every frame.
    pub fn welcomed(&mut self, collector: &str) {
        if self.failures == 0 {
            tracing::info!(collector, "connected");
        }
        self.worked = Some(Instant::now());
    }

    /// Notes that the collector has stored something: now it works.
    pub fn acked(&mut self, collector: &str) {
        if std::mem::take(&mut self.told) {
            tracing::info!(collector, failures = self.failures, "connected again");
            self.said.clear();
        }
    }
}

/// Between half and the whole of it, so that a fleet does not come back in step.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::rng().random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound() {
        let mut attempts = Attempts::default();
        let error = UplinkError::Unreachable { collector: "http://c".to_owned(), detail: "refused".to_owned() };
        let waits: Vec<_> = (0..20).map(|_| attempts.failed(&error)).collect();
        assert!(waits[0] <= BACKOFF.0);
        assert!(waits[6] >= BACKOFF.1 / 2);
        assert!(waits.iter().all(|wait| *wait <= BACKOFF.1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_took_its_time_is_followed_by_the_next_at_once() {
        let mut attempts = Attempts { failures: 20, ..Attempts::default() };
        attempts.begin();
        tokio::time::advance(CONNECT_DEADLINE).await;
        let error = UplinkError::Unreachable { collector: "http://c".to_owned(), detail: "timed out".to_owned() };
        assert!(attempts.failed(&error) <= BACKOFF.0);
    }

    #[tokio::test(start_paused = true)]
    async fn streams_that_end_soon_are_failures_and_one_that_held_is_none() {
        let mut attempts = Attempts::default();
        let error = UplinkError::Ended { collector: "http://c".to_owned(), detail: "disk full".to_owned() };
        for _ in 0..10 {
            attempts.begin();
            attempts.welcomed("http://c");
            attempts.failed(&error);
        }
        assert!(attempts.failed(&error) >= BACKOFF.1 / 2, "a refusing collector is not asked twenty times a second");
        assert!(attempts.told, "it does not work before something is stored");
        assert_eq!(attempts.said.len(), 1, "and is told of once, not at every attempt");
        attempts.begin();
        attempts.welcomed("http://c");
        attempts.acked("http://c");
        assert!(!attempts.told);
        tokio::time::advance(STEADY).await;
        assert!(attempts.failed(&error) <= BACKOFF.0);
        assert!(attempts.told, "the end of a stream that held is news");
    }

    #[test]
    fn a_missing_certificate_is_told_once_with_the_way_out() {
        let mut attempts = Attempts::default();
        let alert = UplinkError::from_connect("https://c", "received fatal alert: CertificateRequired".to_owned());
        assert!(alert.to_string().contains("--tls-cert"), "{alert}");
        let later =
            UplinkError::from_status("https://c", &Status::unknown("received fatal alert: CertificateRequired"));
        let cut = UplinkError::from_status("https://c", &Status::unknown("broken pipe"));
        for error in [&alert, &cut, &later, &cut, &alert] {
            attempts.failed(error);
        }
        assert_eq!(attempts.said, [NAMELESS]);
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let target = Target {
            collector: "https://c:1".to_owned(),
            tls_ca: None,
            tls_identity: None,
            token_file: Some("/nope/token".into()),
        };
        assert!(target.check().unwrap_err().to_string().contains("/nope/token"));
        let target = Target { token_file: None, tls_ca: Some("/nope/ca.pem".into()), ..target };
        assert!(target.check().unwrap_err().to_string().contains("/nope/ca.pem"));
    }

    #[test]
    fn only_the_answer_to_hello_speaks_of_numbers() {
        let too_large = Status::out_of_range("decoded message length too large");
        assert_eq!(UplinkError::from_status("http://c", &too_large).verdict(), Verdict::Retry);
        let behind = UplinkError::from_answer("http://c", &Status::out_of_range("knows 900"));
        let mut attempts = Attempts::default();
        assert_eq!(attempts.failed(&behind), Duration::ZERO);
        assert!(attempts.failed(&behind) >= REFUSED_WAIT / 2, "a second new epoch is not begun at once");
    }

    #[test]
    fn a_status_says_what_to_do() {
        for (status, verdict, text) in [
            (Status::already_exists("db7 at 10.0.0.7:1, here 10.0.0.8:1"), Verdict::RetrySlowly, "10.0.0.8"),
            (Status::out_of_range("knows 900"), Verdict::NewEpoch, "new epoch"),
            (Status::unauthenticated("no token"), Verdict::RetrySlowly, "--token-file"),
            (Status::failed_precondition("speaks 3..4"), Verdict::RetrySlowly, "versions"),
            (Status::unavailable("going down"), Verdict::Retry, "going down"),
        ] {
            let error = UplinkError::from_answer("http://c:1", &status);
            assert_eq!(error.verdict(), verdict, "{error}");
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
