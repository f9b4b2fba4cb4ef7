//! Opens the data directory while HTTP and gRPC answer already, and tells how far that has come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use sd_notify::NotifyState;
use tokio::time::timeout;

use super::systemd::notify;
use crate::config::Config;
use crate::store::{Disk, Options, Progress, Store};

/// How often progress is told. The first time comes late enough that a usual start says nothing.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Asks systemd for more time while a long log is read.
pub async fn open_store(config: &Config, disk: Arc<dyn Disk>, progress: &Progress) -> anyhow::Result<Arc<Store>> {
    let mut options = Options::new(&config.data_dir);
    options.retention = config.retention.unwrap_or(Duration::ZERO);
    options.tiers = config.tiers.map(|kept| kept.0);
    options.limits = config.limits.clone();
    options.progress = progress.clone();
    let begun = Instant::now();
    let mut opening = tokio::task::spawn_blocking(move || Store::open(options, disk));
    let store = loop {
        match timeout(TELL_EVERY, &mut opening).await {
            Ok(opened) => break opened.context("opening the data directory failed")??,
            Err(_) => {
                let progress = progress.to_string();
                tracing::info!(progress, "not ready yet");
                notify(&[NotifyState::ExtendTimeoutUsec(60_000_000), NotifyState::Status(&progress)]);
            }
        }
    };
    let seconds = begun.elapsed().as_secs_f64();
    tracing::info!(seconds, series = store.stats().series, "the data directory is open");
    Ok(store)
}
