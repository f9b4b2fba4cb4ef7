//! Why a push did not happen, and whether trying again can help.

use tonic::{Code, Status};

#[derive(Debug, thiserror::Error)]
pub enum PushError {
    #[error("{collector} is no address of a collector: {detail}")]
    Address { collector: String, detail: String },
    #[error("the token holds characters that no header may hold: write it on one line, in ASCII")]
    Token,
    #[error("{waiting} samples wait already: flush before pushing more")]
    Full { waiting: usize },
    #[error("collector {collector} cannot be reached or cannot take samples now: {}{}", cause(status), way_out(&cause(status)))]
    Unreachable { collector: String, status: Box<Status> },
    #[error("collector {collector} refused the push: {}{}", cause(status), way_out(&cause(status)))]
    Refused { collector: String, status: Box<Status> },
}

impl PushError {
    pub(super) fn from_status(collector: &str, status: Status) -> Self {
        let collector = collector.to_owned();
        match status.code() {
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Cancelled
            | Code::Unknown
            | Code::Internal => Self::Unreachable { collector, status: Box::new(status) },
            _ => Self::Refused { collector, status: Box::new(status) },
        }
    }

    /// Whether the same push may succeed later. Decided here once.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// The status with what lies beneath it: tonic says only "transport error" and keeps the reason as a source.
fn cause(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// What to try, where the error of a connection that failed shows that the address is not quite right: `; ...`, or nothing.
pub fn way_out(cause: &str) -> &'static str {
    const UNTRUSTED: &str = "; its certificate is of an authority that is not trusted here: name that authority's certificate with --tls-ca";
    const NAMELESS: &str = "; the collector lets in who shows a certificate of an authority it trusts: name yours with --tls-cert and --tls-key";
    const HINTS: [(&str, &str); 10] = [
        (
            "grpc-status header missing",
            "; no gRPC is spoken there: is that the HTTP port? gRPC has its own, 9391 by default",
        ),
        (
            "NoApplicationProtocol",
            "; no gRPC is spoken there: is that the HTTP port? gRPC has its own, 9391 by default",
        ),
        ("InvalidContentType", "; it does not speak TLS there: write http://, or give the collector a certificate"),
        ("frame with invalid size", "; it may want TLS there: write https://"),
        ("CertificateRequired", NAMELESS),
        ("certificate required", NAMELESS),
        ("UnknownIssuer", UNTRUSTED),
        ("BadSignature", UNTRUSTED),
        ("not valid for name", "; its certificate is for other names: use one of those, or give it one with this name"),
        (
            "CaUsedAsEndEntity",
            "; the collector's certificate is an authority's: give it one that an authority has signed",
        ),
    ];
    HINTS.iter().find(|(part, _)| cause.contains(part)).map_or("", |(_, hint)| hint)
}
