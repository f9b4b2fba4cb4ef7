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
use parking_lot::RwLock;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::agent::{Agent, Hello, State, hex};
use super::lease::Lease;
use crate::store::AgentId;

/// Silence of a stream after which another one with the same id may take over.
pub const TAKEOVER_AFTER: Duration = Duration::from_secs(3);

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
        let agent = |(id, state)| (id, Agent::new(id, state));
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
    pub fn revision(&self) -> u64 {
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
            Agent::new(attach.id, State::known(Hello::default(), BTreeSet::new(), BTreeMap::new(), 0))
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

    pub(super) fn touched(&self) {
        self.revision.fetch_add(1, Ordering::AcqRel);
        self.unsaved.store(true, Ordering::Release);
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::agent::LEASE;
    use crate::fleet::job::Job;
    use crate::fleet::lease::JOBS_MAX;

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
