//! The right of one stream to speak for its agent.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lampad_proto::v1::ModuleState;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::agent::{Agent, State};
use super::job::Job;
use super::registry::Registry;

/// Jobs of one agent: it has one or two, and as many more as there are servers for which it relays.
pub(super) const JOBS_MAX: usize = 256;

/// The right of one stream to push for its agent. Dropping it gives it up as a broken link does.
#[derive(Debug)]
pub struct Lease {
    pub(super) registry: Arc<Registry>,
    pub(super) agent: Arc<Agent>,
    pub(super) session: u64,
    pub(super) cancel: CancellationToken,
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
