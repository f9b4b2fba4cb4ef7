//! What the handlers share.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::query::Engine;
use parking_lot::RwLock;
use tokio::sync::{Semaphore, watch};

use crate::store::{Exemplars, Lsn, Source};

/// What `/api/v1/status/buildinfo` tells.
#[derive(Debug, Clone, Default)]
pub struct BuildInfo {
    /// Prometheus' version whose API this is; clients switch features by it.
    pub version: String,
    pub revision: String,
    pub branch: String,
    pub build_date: String,
}

/// What is told of flags and configuration. Cheap to clone; all clones change with a reload.
#[derive(Debug, Clone, Default)]
pub struct Settings(Arc<RwLock<Told>>);

#[derive(Debug, Clone, Default)]
pub struct Told {
    /// Flags as they were at the start, by name without dashes.
    pub flags: Arc<BTreeMap<String, String>>,
    /// The configuration as it was read last, as text; secrets are left out by whoever fills it.
    pub config: Arc<str>,
    /// As people write it: `30d`.
    pub retention: Arc<str>,
    /// When that configuration was read.
    pub read: jiff::Timestamp,
    /// Whether reading it again has failed since.
    pub reload_failed: bool,
}

impl Settings {
    pub fn new(told: Told) -> Self {
        Self(Arc::new(RwLock::new(told)))
    }

    pub fn told(&self) -> Told {
        self.0.read().clone()
    }

    /// The configuration was read again and is this text.
    pub fn reloaded(&self, config: &str) {
        let mut told = self.0.write();
        (told.config, told.read, told.reload_failed) = (config.into(), jiff::Timestamp::now(), false);
    }

    pub fn reload_failed(&self) {
        self.0.write().reload_failed = true;
    }
}

#[derive(Clone)]
pub struct ApiState {
    pub source: Arc<dyn Source>,
    pub exemplars: Arc<Exemplars>,
    pub engine: Engine,
    pub build: Arc<BuildInfo>,
    pub settings: Settings,
    pub started: jiff::Timestamp,
    /// Changes whenever samples have come.
    pub arrivals: watch::Receiver<Lsn>,
    /// Places of live queries.
    pub live: Arc<Semaphore>,
}
