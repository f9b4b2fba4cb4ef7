//! Who may ask: the bearer token, and whether certificates of clients are asked for.

use std::path::{Path, PathBuf};

use parking_lot::RwLock;
use tonic::Status;

/// Longest token file; a file beyond it is not a token.
const TOKEN_BYTES_MAX: u64 = 4096;

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("cannot read token file {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("token file {} {trouble}; write one line with a long random word into it", path.display())]
    Unusable { path: PathBuf, trouble: &'static str },
}

/// The rules in force; changed by a reload.
#[derive(Debug, Default)]
pub struct Access(RwLock<Rules>);

#[derive(Debug, Default, Clone)]
pub struct Rules {
    /// What HTTP clients, plain pushers and agents must send; `None` lets everybody in.
    pub token: Option<String>,
    /// Agents must have shown a certificate that our authority signed; it stands for the token then.
    pub certificates: bool,
}

impl Access {
    pub fn new(rules: Rules) -> Self {
        Self(RwLock::new(rules))
    }

    pub fn set(&self, rules: Rules) {
        *self.0.write() = rules;
    }

    /// Whether `authorization`, the header of that name, lets a request in.
    pub fn permits(&self, authorization: Option<&[u8]>) -> bool {
        let rules = self.0.read();
        let Some(token) = &rules.token else { return true };
        let Some(header) = authorization else { return false };
        let Some((scheme, sent)) = header.split_at_checked(7) else { return false };
        scheme.eq_ignore_ascii_case(b"bearer ") && same(sent.trim_ascii(), token.as_bytes())
    }

    /// Whether an agent's stream may begin.
    pub fn permits_stream(&self, authorization: Option<&[u8]>, has_certificate: bool) -> Result<(), Status> {
        let certificates = self.0.read().certificates;
        let text = match certificates {
            true if has_certificate => return Ok(()),
            true => "agents must show a certificate here; start the agent with --tls-cert and --tls-key",
            false if self.permits(authorization) => return Ok(()),
            false => "agents must send the collector's token; start the agent with --token-file",
        };
        Err(Status::unauthenticated(text))
    }

    /// Whether a plain push may be taken: by the token where one is set, else by a certificate where these are asked for.
    pub fn permits_push(&self, authorization: Option<&[u8]>, has_certificate: bool) -> Result<(), Status> {
        let rules = self.0.read().clone();
        let allowed = match (&rules.token, rules.certificates) {
            (Some(_), certificates) => self.permits(authorization) || (certificates && has_certificate),
            (None, certificates) => !certificates || has_certificate,
        };
        if allowed {
            return Ok(());
        }
        Err(Status::unauthenticated("send the collector's token as metadata `authorization: Bearer TOKEN`"))
    }
}

/// Compares in a time that tells nothing of where two tokens differ.
fn same(sent: &[u8], token: &[u8]) -> bool {
    if sent.len() != token.len() {
        return false;
    }
    let difference = sent.iter().zip(token).fold(0u8, |difference, (a, b)| difference | (a ^ b));
    std::hint::black_box(difference) == 0
}

/// Reads the token: the file's content without the white space around it.
pub fn read_token(path: &Path) -> Result<String, TokenError> {
    let read = |source| TokenError::Read { path: path.into(), source };
    let unusable = |trouble| TokenError::Unusable { path: path.into(), trouble };
    if std::fs::metadata(path).map_err(read)?.len() > TOKEN_BYTES_MAX {
        return Err(unusable("is larger than any token"));
    }
    let text = std::fs::read_to_string(path).map_err(read)?;
    let token = text.trim();
    if token.is_empty() {
        return Err(unusable("is empty"));
    }
    if token.contains(char::is_whitespace) || !token.is_ascii() {
        return Err(unusable("has more than one word, or letters that a header cannot carry"));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_token_is_let_in() {
        let access = Access::new(Rules { token: Some("s3cret".into()), certificates: false });
        for (header, allowed) in [
            (Some(&b"Bearer s3cret"[..]), true),
            (Some(b"bearer  s3cret "), true),
            (Some(b"Bearer s3cre"), false),
            (Some(b"Bearer s3cretx"), false),
            (Some(b"Basic s3cret"), false),
            (Some(b"\xff"), false),
            (None, false),
        ] {
            assert_eq!(access.permits(header), allowed, "{header:?}");
        }
        assert!(access.permits_push(None, true).is_err());
        assert!(access.permits_stream(None, true).is_err(), "nobody has checked that certificate");
        assert!(access.permits_stream(Some(b"Bearer no"), false).is_err());
        assert!(access.permits_stream(Some(b"Bearer s3cret"), false).is_ok());
        access.set(Rules::default());
        assert!(access.permits(None));
    }

    #[test]
    fn with_certificates_a_pusher_needs_either_and_an_agent_its_own() {
        let access = Access::new(Rules { token: Some("t".into()), certificates: true });
        assert!(access.permits_stream(Some(b"Bearer t"), false).is_err() && access.permits_stream(None, true).is_ok());
        assert!(access.permits_push(None, true).is_ok() && access.permits_push(Some(b"Bearer t"), false).is_ok());
        assert!(access.permits_push(None, false).is_err());
    }

    #[test]
    fn token_files_that_hold_no_token_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        for (text, part) in [("", "is empty"), ("two words", "more than one word"), (&*"x".repeat(5000), "larger")] {
            std::fs::write(&path, text).unwrap();
            assert!(read_token(&path).unwrap_err().to_string().contains(part));
        }
        std::fs::write(&path, "  word\n").unwrap();
        assert_eq!(read_token(&path).unwrap(), "word");
    }
}
