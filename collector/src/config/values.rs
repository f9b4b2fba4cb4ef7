//! Settings that are more than a word or a path: how each is written, and what is wrong with it otherwise.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// A `HOST:PORT` to listen on; the name is looked up at start.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Listen(pub(super) String);

impl Listen {
    /// The addresses behind the name.
    pub async fn resolve(&self) -> std::io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host(&self.0).await?.collect())
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let usable = text.rsplit_once(':').is_some_and(|(host, port)| {
            let bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
            !host.is_empty() && !bare_v6 && port.parse::<u16>().is_ok()
        });
        if usable {
            Ok(Self(text.into()))
        } else {
            Err(format!("{text:?} is not HOST:PORT, as 127.0.0.1:9390 or [::1]:9390"))
        }
    }
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How long samples are kept; `None` for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Retention(pub Option<Duration>);

impl FromStr for Retention {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "0" {
            return Ok(Self(None));
        }
        match humantime::parse_duration(text) {
            Ok(duration) if duration.is_zero() => Ok(Self(None)),
            Ok(duration) if duration < Duration::from_secs(60) => {
                Err(format!("{text:?} is less than a minute; say 0 to keep samples for ever"))
            }
            Ok(duration) => Ok(Self(Some(duration))),
            Err(error) => Err(format!("{text:?} is not a duration as 30d, 12h or 1y: {error}")),
        }
    }
}

impl TryFrom<String> for Retention {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// How long a tier is kept: `None` makes none, zero keeps it for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct TierRetention(pub Option<Duration>);

impl FromStr for TierRetention {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        let Retention(kept) = text.parse().map_err(|error| format!("{error}; or say `off` to make no such windows"))?;
        Ok(Self(Some(kept.unwrap_or(Duration::ZERO))))
    }
}

impl TryFrom<String> for TierRetention {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for TierRetention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("off"),
            Some(Duration::ZERO) => f.write_str("0"),
            Some(kept) => f.write_str(&written(kept)),
        }
    }
}

/// A time as it would be written here: in days where that is exact, as a year of humantime is none of 365 days.
pub fn written(time: Duration) -> String {
    const DAY: u64 = 24 * 3600;
    match (time.as_secs() / DAY, time.as_secs() % DAY) {
        (days @ 1.., 0) => format!("{days}d"),
        _ => humantime::format_duration(time).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `90d` was told as 2months 29days 2h 52m 48s.
    #[test]
    fn a_retention_is_told_as_it_is_written() {
        for text in ["90d", "365d", "12h", "0", "off"] {
            assert_eq!(text.parse::<TierRetention>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn listen_addresses() {
        for good in ["127.0.0.1:0", "localhost:9390", "[::1]:9390", "0.0.0.0:80"] {
            assert!(good.parse::<Listen>().is_ok(), "{good}");
        }
        for bad in ["", ":9390", "localhost", "::1:9390", "a:99999", "a:b"] {
            assert!(bad.parse::<Listen>().is_err(), "{bad}");
        }
    }
}
