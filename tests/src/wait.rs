//! Waiting for a condition, with a deadline and a name for what did not come.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// How long a test waits for what takes milliseconds on an idle machine. Two cores shared with a compiler need the rest.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits until `condition` holds; the error says what was awaited.
pub async fn until<F>(what: &str, patience: Duration, mut condition: impl FnMut() -> F) -> anyhow::Result<()>
where
    F: Future<Output = bool>,
{
    let start = Instant::now();
    while !condition().await {
        if start.elapsed() > patience {
            bail!("waited {patience:?} in vain for {what}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Waits until `attempt` succeeds and gives what it found; the error carries the last failure.
pub async fn until_ok<F, T>(what: &str, patience: Duration, mut attempt: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let start = Instant::now();
    loop {
        match attempt().await {
            Ok(found) => return Ok(found),
            Err(error) if start.elapsed() > patience => {
                return Err(error).with_context(|| format!("waited {patience:?} in vain for {what}"));
            }
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}
