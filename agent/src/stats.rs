//! Figures of the agent's own work, counted where it happens and told by `telemetry`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::sampler::ModuleHealth;
use crate::spool;

#[derive(Debug, Default)]
pub struct Stats {
    pub frames_sent: AtomicU64,
    pub frames_backfilled: AtomicU64,
    /// Encoded messages, before HTTP/2 and TLS.
    pub bytes_sent: AtomicU64,
    pub frames_acked: AtomicU64,
    /// Time from sending to ack, summed over live frames.
    pub ack_us: AtomicU64,
    /// Time from the end of a read to its frame's hand-over to the connection, summed and counted.
    pub encode_us: AtomicU64,
    pub ticks: AtomicU64,
    pub connected: AtomicBool,
    pub connects: AtomicU64,
    pub connect_failures: AtomicU64,
    pub key_frames_wanted: AtomicU64,
    pub series_refused: AtomicU64,
    /// Frames dropped because both the disk and memory were full.
    pub frames_dropped: AtomicU64,
    /// Frames in memory, not acked and not in the spool.
    pub frames_waiting: AtomicU64,
}

pub fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// What the parts of the agent tell about themselves.
#[derive(Clone, Default)]
pub struct Shared {
    pub stats: Arc<Stats>,
    pub spool: Arc<spool::Health>,
    modules: Arc<RwLock<Vec<Arc<ModuleHealth>>>>,
}

impl Shared {
    pub fn new(spool: Arc<spool::Health>) -> Self {
        Self { spool, ..Self::default() }
    }

    pub fn modules(&self) -> Vec<Arc<ModuleHealth>> {
        self.modules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_modules(&self, modules: Vec<Arc<ModuleHealth>>) {
        *self.modules.write().unwrap_or_else(PoisonError::into_inner) = modules;
    }
}
