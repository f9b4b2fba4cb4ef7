//! The log: to standard error, as text or JSON.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::config::LogFormat;

/// Starts the log; once per process.
pub fn start(format: LogFormat, level: &str) -> anyhow::Result<()> {
    let filter = filter(level).map_err(|detail| {
        anyhow::anyhow!("--log-level {level:?}: {detail}; write error, warn, info, debug or trace")
    })?;
    // A reader of the log that has gone away must not end the agent, so what cannot be written is not complained of either.
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false).with_writer(std::io::stderr);
    let started = match format {
        // The journal stamps and colours by itself.
        LogFormat::Text => builder.with_ansi(false).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start the log: {error}"))
}

/// A lone word that is no level would name a target, and silence everything else.
fn filter(level: &str) -> Result<EnvFilter, String> {
    let is_level = |part: &str| part.contains('=') || part.parse::<LevelFilter>().is_ok();
    if let Some(part) = level.split(',').map(str::trim).find(|part| !is_level(part)) {
        return Err(format!("{part:?} is no level"));
    }
    EnvFilter::try_new(level).map_err(|error| error.to_string())
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
