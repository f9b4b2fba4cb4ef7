//! What a module is: something that reads one source and says what it found.
//!
//! A module keeps no clock, retry or log: the sampler does that once for all. One module is one *group*: one read gives
//! all of its series or none, so a source that can fail alone is a module of its own, and a series belongs to one module.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use lampad_proto::v1::MetricType;

use crate::tick::Tick;

/// A metric family: what its series share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desc {
    pub name: Cow<'static, str>,
    pub kind: MetricType,
    pub help: Cow<'static, str>,
    /// `seconds`, `bytes`, ...; empty where the name says it or there is none.
    pub unit: &'static str,
    /// Names of the labels, in the order in which [`Tick::push`] takes their values.
    pub labels: &'static [&'static str],
}

impl Desc {
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::of(MetricType::Gauge, name, help)
    }

    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self::of(MetricType::Counter, name, help)
    }

    pub const fn untyped(name: &'static str, help: &'static str) -> Self {
        Self::of(MetricType::Unknown, name, help)
    }

    const fn of(kind: MetricType, name: &'static str, help: &'static str) -> Self {
        Self { name: Cow::Borrowed(name), kind, help: Cow::Borrowed(help), unit: "", labels: &[] }
    }

    /// A family whose name the kernel or the server decides.
    pub fn named(kind: MetricType, name: impl Into<Cow<'static, str>>, help: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), kind, help: help.into(), unit: "", labels: &[] }
    }

    pub const fn labels(mut self, labels: &'static [&'static str]) -> Self {
        self.labels = labels;
        self
    }

    pub const fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }
}

/// How often a module is sampled unless the configuration says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Cheap and telling: every 250 ms.
    Vital,
    /// Every second.
    Standard,
    /// Dear, or slow to change: every 10 seconds.
    Heavy,
    /// Very dear: every minute.
    Rare,
}

/// What the sampler must know of a module before it runs.
#[derive(Debug, Clone)]
pub struct Spec {
    /// `host.cpu`, `mysql.status`, ...: the key in the configuration.
    pub name: &'static str,
    /// Of several servers that are watched, the one that this module reads: label `instance` of its series. `None` where there
    /// is only one; its series carry the agent's own.
    pub instance: Option<Arc<str>>,
    /// The exporter's collector that this module stands in for: `cpu`, `collect.global_status`; empty for our own.
    pub collector: &'static str,
    /// Label `job` of all its series: `node` or `mysql`.
    pub job: &'static str,
    pub tier: Tier,
    /// What the configuration puts on all series of that server, as (name, value).
    pub labels: Vec<(String, String)>,
}

impl Spec {
    /// A module of the agent's own host or only server.
    pub const fn new(name: &'static str, collector: &'static str, job: &'static str, tier: Tier) -> Self {
        Self { name, instance: None, collector, job, tier, labels: Vec::new() }
    }

    /// Unique within the agent: the name, of several servers with the one that is read, as in `mysql.status@db1:3307`.
    pub fn id(&self) -> String {
        match &self.instance {
            Some(instance) => format!("{}@{instance}", self.name),
            None => self.name.to_owned(),
        }
    }
}

/// One reader of one source.
#[async_trait]
pub trait Module: Send {
    /// Every family that this module can emit and whose name is known beforehand.
    fn descs(&self) -> Vec<Desc>;

    /// Reads once. On an error nothing of `out` is used: the tick does not happen.
    async fn sample(&mut self, out: &mut Tick) -> Result<(), ModuleError>;
}

/// A module with what the sampler must know of it.
pub struct Entry {
    pub spec: Spec,
    pub module: Box<dyn Module>,
}

/// Why a tick did not happen.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// The source is not on this machine: normal, told once, and no failure (as `ErrNoData` of node_exporter).
    #[error("not on this machine: {what}")]
    Absent { what: String },
    /// The source has it and does not keep it, by a setting of its own: normal as well.
    #[error("switched off: {what}")]
    SwitchedOff { what: String },
    /// Left out, to spare the source or because the read before is not over: no further failure and no tick.
    #[error("left out")]
    Held,
    /// A fault of the module itself: its panic, caught, so that it is told like any other failure.
    #[error("the module broke: {detail}; please report this")]
    Broke { detail: String },
    /// No server to ask has been found; it is looked for again, and told once for all modules that would ask it.
    #[error("found no {what}; looking again")]
    NoServer { what: String },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is not what this module understands: {detail}", path.display())]
    Parse { path: PathBuf, detail: String },
    #[error("{statement}: {detail}")]
    Query { statement: String, detail: String },
    #[error("{server} does not let us in or does not answer: {detail}")]
    Connect { server: String, detail: String },
    /// Each read begins when the one before it is over, so this one did not.
    #[error("a read that began {} s ago has not come back", since.as_secs())]
    Stuck { since: std::time::Duration },
    #[error("took longer than its deadline of {deadline:?}")]
    TimedOut { deadline: std::time::Duration },
}

impl ModuleError {
    /// Normal on a machine that has no such thing; no failure.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Absent { .. } | Self::SwitchedOff { .. } | Self::NoServer { .. })
    }

    /// Several modules share a server; who keeps the connection logs its trouble once, and the modules need not.
    pub fn is_logged_by_its_source(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::NoServer { .. })
    }
}
