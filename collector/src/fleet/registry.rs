//! The agents that have ever pushed here, and the lease of each one that pushes now.
//!
//! An agent is its id, not its address or its name. Of two live streams with one id the second is refused, because a copied
//! state directory would otherwise mix two servers into one; it may take over once the first has been silent for
//! [`TAKEOVER_AFTER`]. Two live ids with one `instance` would mix their series just the same and are refused likewise.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lampad_proto::v1::ModuleState;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::job::Job;
use crate::store::AgentId;

/// Silence after which an agent counts as down. Agents say something every second, so two of these may be lost; `up` is 0
/// within 3 s of an agent's death, with half a second to spare for the write.
pub const LEASE: Duration = Duration::from_millis(2_500);

/// Silence of a stream after which another one with the same id may take over.
pub const TAKEOVER_AFTER: Duration = Duration::from_secs(3);

/// Jobs of one agent: it has one or two, and as many more as there are servers for which it relays.
const JOBS_MAX: usize = 256;

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
    named: BTreeSet<Job>,
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
    waits: bool,
    /// Nor of the one before it, to its end: it comes again and again, and is not up for that.
    in_vain: bool,
    session: u64,
    cancel: CancellationToken,
}

/// One agent.
#[derive(Debug)]
pub struct Agent {
    pub id: AgentId,
    state: Mutex<State>,
    /// Its series were ended for silence: the next ticks must list everything.
    lapsed: AtomicBool,
}

impl Agent {
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

/// An agent's request to push.
#[derive(Debug)]
pub struct Attach {
    pub id: AgentId,
    pub hello: Hello,
    pub modules: Vec<ModuleState>,
    pub peer: SocketAddr,
    pub now_ms: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    #[error(
        "agent id {id} pushes already from {first} (this stream comes from {second}); if the state directory was copied, \
         empty the copy, and the agent takes a new id; otherwise this stream may take over when the other falls silent"
    )]
    SameId { id: String, first: SocketAddr, second: SocketAddr },
    #[error(
        "instance {instance:?} is the name of another live agent, {id} at {first} (this one comes from {second}); \
         start one of them with --instance NAME"
    )]
    SameInstance { instance: String, id: String, first: SocketAddr, second: SocketAddr },
    #[error("{0} agents are known already; raise limits.agents or forget old ones")]
    TooMany(usize),
}

/// All agents.
#[derive(Debug)]
pub struct Registry {
    agents: RwLock<HashMap<AgentId, Arc<Agent>>>,
    sessions: AtomicU64,
    agents_max: usize,
    /// Something about who lives has changed.
    changed: Notify,
    revision: AtomicU64,
    /// What the roster holds has changed since it was written.
    unsaved: AtomicBool,
}

impl Registry {
    pub fn new(agents_max: usize, known: impl IntoIterator<Item = (AgentId, State)>) -> Arc<Self> {
        let agent =
            |(id, state)| (id, Arc::new(Agent { id, state: Mutex::new(state), lapsed: AtomicBool::new(false) }));
        Arc::new(Self {
            agents: RwLock::new(known.into_iter().map(agent).collect()),
            sessions: AtomicU64::new(1),
            agents_max,
            changed: Notify::new(),
            revision: AtomicU64::new(0),
            unsaved: AtomicBool::new(false),
        })
    }

    /// All agents, by instance.
    pub fn agents(&self) -> Vec<Arc<Agent>> {
        let mut agents: Vec<_> = self.agents.read().values().cloned().collect();
        agents.sort_by_cached_key(|agent| (agent.state.lock().hello.instance.clone(), agent.id));
        agents
    }

    /// All agents, in any order: the same one for as long as the revision is the same.
    pub(super) fn unsorted(&self) -> Vec<Arc<Agent>> {
        self.agents.read().values().cloned().collect()
    }

    /// Goes up with everything that changes the labels or jobs of an agent, and with each that comes or goes.
    pub(super) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Waits until somebody came or went.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Whether the roster must be written, once.
    pub fn take_unsaved(&self) -> bool {
        self.unsaved.swap(false, Ordering::AcqRel)
    }

    pub fn forget(&self, id: AgentId) {
        self.agents.write().remove(&id);
        self.revision.fetch_add(1, Ordering::AcqRel);
        self.unsaved.store(true, Ordering::Release);
    }

    /// Lets an agent push, or says why not.
    pub fn attach(self: &Arc<Self>, attach: Attach) -> Result<Lease, AttachError> {
        let now = Instant::now();
        // Held over check and change, so that of two streams that come at once one is refused.
        let mut agents = self.agents.write();
        for other in agents.values() {
            let state = other.state.lock();
            let Some(first) = state.peer.filter(|_| state.streaming && state.silent(now) < TAKEOVER_AFTER) else {
                continue;
            };
            let second = attach.peer;
            if other.id == attach.id {
                return Err(AttachError::SameId { id: hex(attach.id), first, second });
            }
            if state.hello.instance == attach.hello.instance {
                let instance = attach.hello.instance;
                return Err(AttachError::SameInstance { instance, id: hex(other.id), first, second });
            }
        }
        let count = agents.len();
        if count >= self.agents_max && !agents.contains_key(&attach.id) {
            return Err(AttachError::TooMany(count));
        }
        let agent = agents.entry(attach.id).or_insert_with(|| {
            let state = Mutex::new(State::known(Hello::default(), BTreeSet::new(), BTreeMap::new(), 0));
            Arc::new(Agent { id: attach.id, state, lapsed: AtomicBool::new(false) })
        });
        let session = self.sessions.fetch_add(1, Ordering::Relaxed);
        let cancel = CancellationToken::new();
        let mut state = agent.state.lock();
        state.cancel.cancel();
        state.hello = attach.hello;
        state.modules.clear();
        state.tell(attach.modules);
        state.peer = Some(attach.peer);
        (state.streaming, state.ended) = (true, false);
        state.connected_ms = attach.now_ms;
        state.in_vain = state.waits;
        state.waits = true;
        state.heard(now);
        state.session = session;
        state.cancel = cancel.clone();
        drop(state);
        let lease = Lease { registry: self.clone(), agent: agent.clone(), session, cancel };
        drop(agents);
        self.touched();
        Ok(lease)
    }

    fn touched(&self) {
        self.revision.fetch_add(1, Ordering::AcqRel);
        self.unsaved.store(true, Ordering::Release);
        self.changed.notify_one();
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

    fn heard(&mut self, now: Instant) {
        if !self.in_vain || self.last_seen.is_none() {
            self.last_seen = Some(now);
        }
    }

    fn silent(&self, now: Instant) -> Duration {
        self.last_seen.map_or(Duration::MAX, |seen| now.duration_since(seen))
    }

    fn tell(&mut self, modules: Vec<ModuleState>) {
        for told in modules {
            // An agent's table of modules is short; more names than this are not modules.
            if self.modules.len() < 1024 || self.modules.contains_key(&told.name) {
                let ModuleState { name, interval_ms, up, error, absent } = told;
                self.modules.insert(name, Module { interval_ms, up, error, absent });
            }
        }
    }
}

/// The right of one stream to push for its agent. Dropping it gives it up as a broken link does.
#[derive(Debug)]
pub struct Lease {
    registry: Arc<Registry>,
    agent: Arc<Agent>,
    session: u64,
    cancel: CancellationToken,
}

impl Lease {
    pub fn agent(&self) -> &Arc<Agent> {
        &self.agent
    }

    /// Ends when another stream has taken over.
    pub fn taken_over(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// The agent has said something.
    pub fn seen(&self) {
        self.with(|state| state.heard(Instant::now()));
    }

    /// The agent has pushed a frame.
    pub fn pushed(&self, now_ms: i64, lag_ms: i64) {
        self.with(|state| {
            state.last_push_ms = now_ms;
            state.lag_ms = lag_ms;
            (state.waits, state.in_vain) = (false, false);
            state.heard(Instant::now());
        });
    }

    pub fn clock(&self, offset_ms: i64, shift_ms: i64) {
        self.with(|state| (state.clock_offset_ms, state.clock_shift_ms) = (offset_ms, shift_ms));
    }

    pub fn modules(&self, modules: Vec<ModuleState>) {
        if !modules.is_empty() {
            self.with(|state| state.tell(modules));
        }
    }

    /// The jobs of all groups that the agent has now; those that it had before have ended.
    pub fn jobs(&self, jobs: impl Iterator<Item = Job>) {
        let mut changed = false;
        self.with(|state| {
            let mut current: BTreeSet<Job> = jobs.collect();
            for job in &current {
                if state.named.len() < JOBS_MAX && !state.named.contains(job) {
                    state.named.insert(job.clone());
                }
            }
            current.retain(|job| state.named.contains(job));
            changed = state.jobs != current;
            state.jobs = current;
        });
        if changed {
            self.registry.touched();
        }
    }

    /// Whether the agent's series were ended for silence since this was last asked.
    pub fn take_lapsed(&self) -> bool {
        self.agent.lapsed.swap(false, Ordering::AcqRel)
    }

    /// The agent has ended its stream in good order.
    pub fn goodbye(&self) {
        self.with(|state| state.ended = true);
    }

    fn with(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.agent.state.lock();
        if state.session == self.session {
            change(&mut state);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.with(|state| state.streaming = false);
        self.registry.touched();
    }
}

/// An id as people see it.
pub fn hex(id: AgentId) -> String {
    id.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attach(id: u8, instance: &str, port: u16) -> Attach {
        let hello = Hello { instance: instance.into(), ..Hello::default() };
        let peer = SocketAddr::from(([127, 0, 0, 1], port));
        Attach { id: AgentId([id; 16]), hello, modules: vec![], peer, now_ms: 1 }
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_stream_is_refused_until_the_first_is_silent() {
        let registry = Registry::new(10, []);
        let first = registry.attach(attach(1, "db1", 1)).unwrap();
        let refused = registry.attach(attach(1, "db1", 2)).unwrap_err().to_string();
        assert!(refused.contains("127.0.0.1:1") && refused.contains("127.0.0.1:2"), "{refused}");

        tokio::time::advance(TAKEOVER_AFTER - Duration::from_millis(1)).await;
        assert!(registry.attach(attach(1, "db1", 2)).is_err());
        first.seen();
        tokio::time::advance(TAKEOVER_AFTER - Duration::from_millis(1)).await;
        assert!(registry.attach(attach(1, "db1", 2)).is_err(), "it has spoken since");

        tokio::time::advance(Duration::from_millis(1)).await;
        let second = registry.attach(attach(1, "db1", 2)).unwrap();
        assert!(first.taken_over().is_cancelled());
        first.goodbye();
        drop(first);
        let state = second.agent().state();
        assert!(state.streaming && !state.ended, "the old stream's end does not touch the new one's state");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_ended_frees_its_id_at_once() {
        let registry = Registry::new(10, []);
        drop(registry.attach(attach(1, "db1", 1)).unwrap());
        assert!(registry.attach(attach(1, "db1", 2)).is_ok());
    }

    /// On a full disk all agents came again twice a second, and all were told to be up.
    #[tokio::test(start_paused = true)]
    async fn who_comes_again_and_again_in_vain_is_not_up() {
        let registry = Registry::new(10, []);
        let is_up = || registry.agents()[0].is_up(Instant::now());
        let come = || {
            let lease = registry.attach(attach(1, "db1", 1)).unwrap();
            lease.seen();
            lease
        };
        come().pushed(1, 1);
        tokio::time::advance(LEASE - Duration::from_millis(1)).await;
        drop(come());
        tokio::time::advance(LEASE - Duration::from_millis(1)).await;
        drop(come());
        assert!(is_up(), "one stream that was cut short tells nothing yet");
        tokio::time::advance(Duration::from_millis(1)).await;
        let lease = come();
        assert!(!is_up());
        lease.pushed(2, 1);
        assert!(is_up());
    }

    /// `up` stayed 1 for a module that was switched off.
    #[tokio::test]
    async fn jobs_are_those_of_the_groups_now_and_not_without_end() {
        let registry = Registry::new(2, []);
        let lease = registry.attach(attach(1, "db1", 1)).unwrap();
        let say = |jobs: &[&str]| {
            lease.jobs(jobs.iter().map(|job| Job::at(job, None)));
            lease.agent().state().jobs.into_iter().map(|job| job.name).collect::<Vec<_>>()
        };
        assert_eq!(say(&["node", "mysql", "node"]), ["mysql", "node"]);
        assert_eq!(say(&["node"]), ["node"]);
        for at in 0..2 * JOBS_MAX {
            say(&[&format!("job{at}")]);
        }
        assert!(say(&["job7"]) == ["job7"] && say(&["late"]).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_has_one_live_agent() {
        let registry = Registry::new(2, []);
        let first = registry.attach(attach(1, "db1", 1)).unwrap();
        let refused = registry.attach(attach(2, "db1", 2)).unwrap_err().to_string();
        assert!(refused.contains("--instance NAME"), "{refused}");
        drop(first);
        let _second = registry.attach(attach(2, "db1", 2)).unwrap();
        assert_eq!(registry.attach(attach(3, "db3", 3)).unwrap_err(), AttachError::TooMany(2));
    }
}
