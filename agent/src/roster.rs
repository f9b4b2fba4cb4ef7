//! Which modules run: starts, stops and restarts their samplers as the configuration says.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Config;
use crate::delta::{Catalog, Group};
use crate::module::Entry;
use crate::sampler::{self, ModuleHealth, Remains, Sampled, Sampler, Told};
use crate::schedule::{self, Schedule};
use crate::stats::Shared;

/// What samplers need.
pub struct Surroundings {
    pub agent_id: [u8; 16],
    pub clock: Arc<Clock>,
    pub catalog: Arc<RwLock<Catalog>>,
    pub out: mpsc::Sender<Sampled>,
    pub shared: Shared,
}

/// All modules, running or not, by [`crate::module::Spec::id`].
pub struct Roster {
    around: Surroundings,
    told: Arc<Told>,
    running: BTreeMap<String, Running>,
    /// Of modules that are off: their groups' numbers must not be given again.
    retired: BTreeMap<String, Remains>,
}

struct Running {
    schedule: Schedule,
    stop: CancellationToken,
    task: JoinHandle<(Entry, Remains)>,
    health: Arc<ModuleHealth>,
}

impl Roster {
    pub fn new(around: Surroundings) -> Self {
        Self { around, told: Arc::default(), running: BTreeMap::new(), retired: BTreeMap::new() }
    }

    /// Makes the running modules those of `entries`: all modules of the sections that are new or have changed. Modules whose
    /// names begin with `prefix` and that are not among them are ended.
    pub async fn replace(&mut self, prefix: &str, entries: Vec<Entry>, config: &Config) {
        let old: Vec<_> = self.running.keys().filter(|id| id.starts_with(prefix)).cloned().collect();
        for id in old {
            self.stop(&id).await;
        }
        for entry in entries {
            if let Some(schedule) = config.schedule(&entry.spec) {
                self.start(entry, schedule);
            }
        }
        let gone: Vec<_> = self.retired.keys().filter(|id| id.starts_with(prefix)).cloned().collect();
        for id in gone {
            self.end(&id).await;
        }
        self.publish();
        let begun = self.running.iter().filter(|(id, _)| id.starts_with(prefix));
        tokio::spawn(tell_absent(begun.map(|(_, running)| running.health.clone()).collect()));
    }

    /// Begins modules of which there were none before; the others go on.
    pub fn add(&mut self, entries: Vec<Entry>, config: &Config) {
        for entry in entries {
            if let Some(schedule) = config.schedule(&entry.spec) {
                self.start(entry, schedule);
            }
        }
        self.publish();
    }

    /// Restarts modules whose schedule has changed, and ends those that were switched off; a module itself goes on, with its
    /// connections. Returns whether there were any.
    pub async fn reschedule(&mut self, config: &Config) -> bool {
        let changed: Vec<_> = self
            .running
            .iter()
            .filter_map(|(id, running)| {
                let schedule = config.schedule(&running.health.spec);
                (schedule != Some(running.schedule)).then_some((id.clone(), schedule))
            })
            .collect();
        for (id, schedule) in &changed {
            let Some(entry) = self.stop(id).await else { continue };
            match schedule {
                Some(schedule) => self.start(entry, *schedule),
                None => self.end(id).await,
            }
        }
        self.publish();
        !changed.is_empty()
    }

    /// Whether this module runs.
    pub fn runs(&self, id: &str) -> bool {
        self.running.contains_key(id)
    }

    fn start(&mut self, entry: Entry, schedule: Schedule) {
        let group = self.group(&entry, schedule);
        let health = Arc::new(ModuleHealth::new(entry.spec.clone(), schedule));
        let remains = self.retired.remove(&health.id).unwrap_or_default();
        let around = &self.around;
        let phase = phase(&around.agent_id).wrapping_add(schedule::place(&entry.spec).as_micros() as u64);
        let sampler = Sampler::new(
            entry,
            group,
            health.clone(),
            around.clock.clone(),
            around.out.clone(),
            self.told.clone(),
            remains,
        );
        let stop = CancellationToken::new();
        let task = tokio::spawn(sampler.run(phase, stop.clone()));
        self.running.insert(health.id.clone(), Running { schedule, stop, task, health });
    }

    /// The number of the module's group; a restarted module keeps its own.
    fn group(&self, entry: &Entry, schedule: Schedule) -> u32 {
        let mut catalog = self.around.catalog.write().unwrap_or_else(PoisonError::into_inner);
        let interval_ms = schedule.interval.as_millis() as u32;
        let id = entry.spec.id();
        match catalog.find(&id) {
            Some(number) => {
                if let Some(group) = catalog.group_mut(number) {
                    let Group { labels, interval_ms, .. } = Group::of(&entry.spec, interval_ms);
                    (group.labels, group.interval_ms) = (labels, interval_ms);
                }
                number
            }
            None => catalog.add(Group::of(&entry.spec, interval_ms)),
        }
    }

    /// Ends a module's sampler. One that blocks in the kernel is left behind, with its group: it may still tick once.
    async fn stop(&mut self, id: &str) -> Option<Entry> {
        let running = self.running.remove(id)?;
        running.stop.cancel();
        match timeout(STOP_MAX, running.task).await {
            Ok(Ok((entry, remains))) => {
                self.retired.insert(id.to_owned(), remains);
                return Some(entry);
            }
            Ok(Err(error)) => tracing::error!(module = id, %error, "module broke"),
            Err(_) => tracing::error!(module = id, "module does not come back from its read and is left behind"),
        }
        let mut catalog = self.around.catalog.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = catalog.find(id) {
            catalog.retire(number);
        }
        None
    }

    async fn end(&mut self, id: &str) {
        let number = self.around.catalog.read().unwrap_or_else(PoisonError::into_inner).find(id);
        if let Some(remains) = self.retired.get_mut(id)
            && let Some(group) = number
        {
            sampler::end(group, remains, &self.around.clock, &self.around.out).await;
        }
    }

    fn publish(&self) {
        self.around.shared.set_modules(self.running.values().map(|running| running.health.clone()).collect());
    }

    /// Stops all samplers. Nothing is ended: the series live on when the agent comes back.
    pub async fn shut_down(mut self) {
        self.running.values().for_each(|running| running.stop.cancel());
        let until = Instant::now() + STOP_MAX;
        for (id, running) in std::mem::take(&mut self.running) {
            if timeout_at(until, running.task).await.is_err() {
                tracing::error!(module = id, "module does not come back from its read; the agent ends without it");
            }
        }
    }
}

/// How long a module may take to stop. Only a read that blocks where nothing can end it takes longer than a moment.
const STOP_MAX: Duration = Duration::from_secs(2);

/// How long a module's first read may take before the line of absent ones goes without it.
const FIRST_READS: Duration = Duration::from_secs(3);

/// One line for all sources that are not on this machine, once their modules have been read.
async fn tell_absent(modules: Vec<Arc<ModuleHealth>>) {
    let unread = || modules.iter().any(|module| module.reads.load(Ordering::Relaxed) == 0);
    let until = Instant::now() + FIRST_READS;
    while unread() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let absent = modules.iter().filter(|module| module.is_absent());
    let names: Vec<_> = absent.map(|module| module.id.as_str()).collect();
    if !names.is_empty() {
        tracing::info!(modules = names.join(" "), "not on this machine; each is looked for again");
    }
}

/// When, within an interval, this agent ticks: spread over the fleet, the same after a restart.
fn phase(agent_id: &[u8; 16]) -> u64 {
    let mut hasher = DefaultHasher::new();
    agent_id.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
#[path = "roster_tests.rs"]
mod tests;
