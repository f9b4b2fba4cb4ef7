//! Log lines: text for people, JSON for machines; and repeated errors told once, with a count.

use std::collections::HashMap;
use std::fmt;
use std::io::IsTerminal;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt as lines, reload};

use crate::config::LogFormat;

/// Changes the level of a running log.
#[derive(Clone)]
pub struct LogLevel(Option<reload::Handle<EnvFilter, Registry>>);

impl LogLevel {
    /// For tests and embedders that keep a log of their own.
    pub fn fixed() -> Self {
        Self(None)
    }

    /// `level` was checked when the configuration was read.
    pub fn set(&self, level: &str) {
        if let (Some(handle), Ok(filter)) = (&self.0, level.parse::<EnvFilter>())
            && let Err(error) = handle.reload(filter)
        {
            tracing::warn!(%error, level, "the log level stays as it was");
        }
    }
}

/// What `--log-level` means. A lone word that is no level would name a target, and silence everything else.
pub fn filter(level: &str) -> Result<EnvFilter, String> {
    let is_level = |part: &str| part.contains('=') || part.parse::<LevelFilter>().is_ok();
    if let Some(part) = level.split(',').map(str::trim).find(|part| !is_level(part)) {
        return Err(format!("{part:?} is no level"));
    }
    EnvFilter::try_new(level).map_err(|error| error.to_string())
}

/// Starts the log of this process, on standard error; a reader of it that has gone away ends nothing. Only the first call counts.
pub fn init(format: LogFormat, level: &str) -> LogLevel {
    let (filter, handle) = reload::Layer::new(level.parse().unwrap_or_else(|_| EnvFilter::new("info")));
    let base = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Text => base
            .with(
                lines::layer()
                    .with_target(false)
                    .log_internal_errors(false)
                    .with_ansi(std::io::stderr().is_terminal())
                    .with_writer(std::io::stderr),
            )
            .try_init(),
        LogFormat::Json => {
            let layer = lines::layer().json().flatten_event(true).log_internal_errors(false);
            base.with(layer.with_writer(std::io::stderr)).try_init()
        }
    };
    LogLevel(started.is_ok().then_some(handle))
}

/// The whole chain of an error in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let part = source.to_string();
        // Many errors repeat their source in their own text.
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        next = source.source();
    }
    text
}

/// An error that is told again only after this time, with the number of those left out.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// Kinds of errors remembered at once; beyond it the oldest is forgotten and would be told again.
const KINDS_MAX: usize = 1024;

/// Keeps an error that comes every second from filling the log.
#[derive(Debug, Default)]
pub struct Repeats(Mutex<HashMap<String, Told>>);

#[derive(Debug)]
struct Told {
    at: Instant,
    left_out: u64,
}

impl Repeats {
    /// Whether to log what `key` stands for now: `Some(n)` after `n` times that were left out.
    pub fn tell(&self, key: impl fmt::Display) -> Option<u64> {
        let mut told = self.0.lock();
        let now = Instant::now();
        let key = key.to_string();
        if let Some(entry) = told.get_mut(&key) {
            if now.duration_since(entry.at) < TELL_AGAIN {
                entry.left_out += 1;
                return None;
            }
            let left_out = std::mem::take(&mut entry.left_out);
            entry.at = now;
            return Some(left_out);
        }
        if told.len() >= KINDS_MAX
            && let Some(oldest) = told.iter().min_by_key(|(_, entry)| entry.at).map(|(key, _)| key.clone())
        {
            told.remove(&oldest);
        }
        told.insert(key, Told { at: now, left_out: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_repeated_error_is_told_once_a_minute_with_its_count() {
        let repeats = Repeats::default();
        assert_eq!(repeats.tell("a"), Some(0));
        assert_eq!(repeats.tell("a"), None);
        assert_eq!(repeats.tell("b"), Some(0));
        assert_eq!(repeats.tell("a"), None);
        tokio::time::advance(TELL_AGAIN).await;
        assert_eq!(repeats.tell("a"), Some(2));
        assert_eq!(repeats.tell("a"), None);
    }
}
