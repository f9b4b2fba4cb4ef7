//! What is known of one agent: what it said of itself, its modules and jobs, and whether it lives.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lampad_proto::v1::ModuleState;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::job::Job;
use crate::store::AgentId;

/// Silence after which an agent counts as down. Agents say something every second, so two of these may be lost; `up` is 0
/// within 3 s of an agent's death, with half a second to spare for the write.
pub const LEASE: Duration = Duration::from_millis(2_500);

/// What an agent said of itself when its stream began.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello {
    pub epoch: u64,
    pub instance: String,
    pub hostname: String,
    pub version: String,
    pub labels: BTreeMap<String, String>,
}

/// A module as the agent last told it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Module {
    pub interval_ms: u32,
    pub up: bool,
    pub error: String,
    /// Not up because there is no such thing where the agent is.
    pub absent: bool,
}

impl Module {
    pub fn is_failing(&self) -> bool {
        !self.up && !self.absent
    }
}

/// What is known of an agent. Times of the wall clock are milliseconds since 1970.
#[derive(Debug, Clone)]
pub struct State {
    pub hello: Hello,
    /// Those of its groups now.
    pub jobs: BTreeSet<Job>,
    /// All that it has ever named, as far as there is room: each makes a series, and nobody else counts these.
    pub(super) named: BTreeSet<Job>,
    pub modules: BTreeMap<String, Module>,
    /// Address of its stream; `None` where there has been none since this collector started.
    pub peer: Option<SocketAddr>,
    /// Whether a stream is open.
    pub streaming: bool,
    /// Whether the last stream ended in good order: the agent was stopped.
    pub ended: bool,
    pub connected_ms: i64,
    pub last_seen: Option<Instant>,
    pub last_push_ms: i64,
    /// From the moment a frame was built to its arrival, clock distance taken out.
    pub lag_ms: i64,
    pub clock_offset_ms: i64,
    pub clock_shift_ms: i64,
    /// Nothing was taken of the stream so far.
    pub(super) waits: bool,
    /// Nor of the one before it, to its end: it comes again and again, and is not up for that.
    pub(super) in_vain: bool,
    pub(super) session: u64,
    pub(super) cancel: CancellationToken,
}

/// One agent.
#[derive(Debug)]
pub struct Agent {
    pub id: AgentId,
    pub(super) state: Mutex<State>,
    /// Its series were ended for silence: the next ticks must list everything.
    pub(super) lapsed: AtomicBool,
}

impl Agent {
    pub(super) fn new(id: AgentId, state: State) -> Arc<Self> {
        Arc::new(Self { id, state: Mutex::new(state), lapsed: AtomicBool::new(false) })
    }

    pub fn state(&self) -> State {
        self.state.lock().clone()
    }

    /// A look at the state without a copy of it. Short: the agent's stream waits meanwhile.
    pub fn with<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock())
    }

    /// Whether the lease holds at `now`.
    pub fn is_up(&self, now: Instant) -> bool {
        let state = self.state.lock();
        !state.ended && state.last_seen.is_some_and(|seen| now.duration_since(seen) < LEASE)
    }

    /// When it must be looked at again: it is up until then, or down and may be up at any moment.
    pub(super) fn look_again(&self, now: Instant) -> Option<Instant> {
        let state = self.state.lock();
        let ends = state.last_seen.map(|seen| seen + LEASE).filter(|ends| *ends > now && !state.ended);
        ends.or(state.streaming.then_some(now))
    }

    /// Whether there has been a stream since this collector started.
    pub fn was_seen(&self) -> bool {
        self.state.lock().last_seen.is_some()
    }

    /// How long there has been neither a stream nor a push, over restarts of the collector.
    pub(super) fn idle(&self, now: Instant, now_ms: i64) -> Duration {
        let state = self.state.lock();
        if state.streaming {
            return Duration::ZERO;
        }
        let pushed = Duration::from_millis(now_ms.saturating_sub(state.last_push_ms).max(0).unsigned_abs());
        state.silent(now).min(pushed)
    }

    pub(super) fn lapse(&self) {
        self.lapsed.store(true, Ordering::Release);
    }

    /// The labels of the agent's `up` series, which are those of all its series, and its jobs.
    pub(super) fn jobs(&self) -> (BTreeMap<String, String>, Vec<Job>) {
        let state = self.state.lock();
        let mut labels = state.hello.labels.clone();
        labels.insert("instance".to_owned(), state.hello.instance.clone());
        (labels, state.jobs.iter().cloned().collect())
    }
}

impl State {
    /// An agent that is known and has no stream.
    pub fn known(hello: Hello, jobs: BTreeSet<Job>, modules: BTreeMap<String, Module>, last_push_ms: i64) -> Self {
        Self {
            hello,
            named: jobs.clone(),
            jobs,
            modules,
            last_push_ms,
            peer: None,
            streaming: false,
            ended: false,
            connected_ms: 0,
            last_seen: None,
            lag_ms: 0,
            clock_offset_ms: 0,
            clock_shift_ms: 0,
            waits: false,
            in_vain: false,
            session: 0,
            cancel: CancellationToken::new(),
        }
    }

    pub(super) fn heard(&mut self, now: Instant) {
        if !self.in_vain || self.last_seen.is_none() {
            self.last_seen = Some(now);
        }
    }

    pub(super) fn silent(&self, now: Instant) -> Duration {
        self.last_seen.map_or(Duration::MAX, |seen| now.duration_since(seen))
    }

    pub(super) fn tell(&mut self, modules: Vec<ModuleState>) {
        for told in modules {
            // An agent's table of modules is short; more names than this are not modules.
            if self.modules.len() < 1024 || self.modules.contains_key(&told.name) {
                let ModuleState { name, interval_ms, up, error, absent } = told;
                self.modules.insert(name, Module { interval_ms, up, error, absent });
            }
        }
    }
}

/// An id as people see it.
pub fn hex(id: AgentId) -> String {
    id.0.iter().map(|byte| format!("{byte:02x}")).collect()
}
