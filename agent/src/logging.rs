//! The log: to standard error, as text or JSON.

use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::config::LogFormat;

type Change = Box<dyn Fn(EnvFilter) -> anyhow::Result<()> + Send + Sync>;

/// Puts another filter into force, once the log has been started.
static CHANGE: OnceLock<Change> = OnceLock::new();

/// Starts the log; once per process.
pub fn start(format: LogFormat, level: &str) -> anyhow::Result<()> {
    let filter = filter(level).map_err(anyhow::Error::msg)?;
    // A reader of the log that has gone away must not end the agent, so what cannot be written is not complained of either.
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false).with_writer(std::io::stderr);
    let started = match format {
        // The journal stamps and colours by itself.
        LogFormat::Text => {
            let builder = builder.with_ansi(false).with_target(false).with_filter_reloading();
            let handle = builder.reload_handle();
            (builder.try_init(), Box::new(move |filter| Ok(handle.reload(filter)?)) as Change)
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            (builder.try_init(), Box::new(move |filter| Ok(handle.reload(filter)?)) as Change)
        }
    };
    let (started, change) = started;
    started.map_err(|error| anyhow::anyhow!("cannot start the log: {error}"))?;
    // A second start has failed above.
    let _ = CHANGE.set(change);
    Ok(())
}

/// Logs from now on what `level` says.
pub fn change(level: &str) -> anyhow::Result<()> {
    let filter = filter(level).map_err(anyhow::Error::msg)?;
    CHANGE.get().map_or(Ok(()), |change| change(filter))
}

/// What is wrong with a level, with the way out.
pub fn check(level: &str) -> Result<(), String> {
    filter(level).map(drop)
}

/// A lone word that is no level would name a target, and silence everything else.
fn filter(level: &str) -> Result<EnvFilter, String> {
    let is_level = |part: &str| part.contains('=') || part.parse::<LevelFilter>().is_ok();
    if let Some(part) = level.split(',').map(str::trim).find(|part| !is_level(part)) {
        return Err(format!("{part:?} is no level; write error, warn, info, debug or trace, or TARGET=LEVEL"));
    }
    EnvFilter::try_new(level).map_err(|error| format!("{level:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_refused() {
        for (level, fine) in [("info", true), ("warn,lampad_agent=debug", true), ("loud", false), ("info,x", false)] {
            assert_eq!(filter(level).is_ok(), fine, "{level}");
        }
    }
}
