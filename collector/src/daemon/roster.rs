//! Keeps the list of agents on disk, so that one that does not come back after a restart is missed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::fleet::{self, Registry};
use crate::logging::Repeats;

/// How often the roster is looked at, and how often it is written even though only times have changed.
const ROSTER_EVERY: Duration = Duration::from_secs(2);
const ROSTER_ANYWAY_EVERY: Duration = Duration::from_secs(300);

/// Writes the roster when somebody came or went.
pub async fn keep(registry: Arc<Registry>, dir: PathBuf, end: CancellationToken) {
    let mut look = tokio::time::interval(ROSTER_EVERY);
    let mut written = tokio::time::Instant::now();
    let repeats = Repeats::default();
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            _ = look.tick() => {}
        }
        if !registry.take_unsaved() && written.elapsed() < ROSTER_ANYWAY_EVERY {
            continue;
        }
        written = tokio::time::Instant::now();
        let (agents, dir) = (registry.agents(), dir.clone());
        let write = move || fleet::write_roster(&dir, agents.iter().map(|agent| &**agent));
        if let Ok(Err(error)) = tokio::task::spawn_blocking(write).await
            && let Some(left_out) = repeats.tell("roster")
        {
            tracing::warn!(%error, left_out, "cannot write the list of agents; after a restart some may not be missed");
        }
    }
}
