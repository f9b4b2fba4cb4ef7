//! What the handlers share.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::query::Engine;
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

#[derive(Clone)]
pub struct ApiState {
    pub source: Arc<dyn Source>,
    pub exemplars: Arc<Exemplars>,
    pub engine: Engine,
    pub build: Arc<BuildInfo>,
    /// Flags in force, by name without dashes.
    pub flags: Arc<BTreeMap<String, String>>,
    /// The configuration in force, as text; secrets are left out by whoever fills it.
    pub config: Arc<str>,
    /// As people write it: `30d`.
    pub retention: Arc<str>,
    pub started: jiff::Timestamp,
    /// Changes whenever samples have come.
    pub arrivals: watch::Receiver<Lsn>,
    /// Places of live queries.
    pub live: Arc<Semaphore>,
}
