//! The store's own thread: decides what is sealed when, and what is too old to stay.

mod asked;
mod retain;
mod work;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use self::asked::Also;
pub(super) use self::asked::Asked;
use super::age::Age;
use super::compact::Compacted;
use super::core::Core;
use super::datadir::DataDir;
use super::group::Group;
use super::job::Job;
use super::seal::Sealer;
use super::thin::Thinned;

/// How often the thread looks around.
const ROUND: Duration = Duration::from_secs(1);

/// The same while the head is over its bound.
const ROUND_BEHIND: Duration = Duration::from_millis(20);

/// How often it is looked which groups are due, or wait because sealing failed: what gathers meanwhile shares values and flushes.
const GATHER: Duration = Duration::from_secs(10);

/// How often old data is looked for.
const RETAIN_EVERY: Duration = Duration::from_secs(60);

/// Parts of the head that are sealed one after another when it is full.
const SLICES: u64 = 8;

/// After a failed checkpoint.
const PAUSE: Duration = Duration::from_secs(5);

/// A compaction at work.
struct Compaction {
    from: Vec<u32>,
    into: u32,
    job: Job<Compacted>,
}

/// Lets nobody wait for a thread that has ended, by a panic too.
struct LastWords(Arc<Core>);

impl Drop for LastWords {
    fn drop(&mut self) {
        self.0.keeper.close();
    }
}

pub(super) struct Keeper {
    core: Arc<Core>,
    sealer: Sealer,
    dir: Arc<DataDir>,
    /// The head was over its bound when last looked at, and has since been sealed in part.
    is_behind: bool,
    /// When it was last looked which groups are due.
    looked: Instant,
    retained: Instant,
    age: Age,
    compaction: Option<Compaction>,
    /// What came of the last one, until it is published.
    compacted: Option<Compacted>,
    thinning: Option<Job<Thinned>>,
    /// The same of the tiers.
    thinned: Option<Thinned>,
    /// Groups that could not be read for them while this partition grew; tried again with the next one.
    unread: (u32, BTreeSet<u32>),
    /// What of these is still in use could not be read; not tried again before the next start.
    tried: BTreeSet<u32>,
}

impl Keeper {
    pub fn new(core: Arc<Core>, sealer: Sealer, dir: Arc<DataDir>) -> Self {
        let now = Instant::now();
        let (tried, unread) = (BTreeSet::new(), (0, BTreeSet::new()));
        let newest_ms = core.groups.read().all.iter().map(|group| group.state.lock().last_ms).max();
        let age = Age::new(core.options.clock.now_ms(), newest_ms.filter(|newest_ms| *newest_ms > i64::MIN));
        let (compaction, compacted, thinning, thinned) = (None, None, None, None);
        let (looked, retained) = (now, now);
        let is_behind = false;
        Self {
            core,
            sealer,
            dir,
            is_behind,
            looked,
            retained,
            age,
            compaction,
            compacted,
            thinning,
            thinned,
            unread,
            tried,
        }
    }

    /// Runs until it is told to close.
    pub fn run(mut self) {
        let _last_words = LastWords(self.core.clone());
        loop {
            let (asked, also, closing, moments) = {
                let mut requests = self.core.keeper.0.lock();
                if requests.asked == requests.done && !requests.closing && requests.moments.is_empty() {
                    self.core.keeper.1.wait_for(&mut requests, if self.is_behind { ROUND_BEHIND } else { ROUND });
                }
                let asked = (requests.asked > requests.done).then_some(requests.asked);
                let also = Also {
                    compact: std::mem::take(&mut requests.compact),
                    clean: std::mem::take(&mut requests.clean),
                    tend: std::mem::take(&mut requests.tend),
                };
                (asked, also, requests.closing, std::mem::take(&mut requests.moments))
            };
            if closing {
                return;
            }
            for waiting in moments {
                let moment = self.sealer.moment(&self.core, &self.dir.paths().log()).map_err(|error| error.to_string());
                // Whoever asked may have given up.
                let _ = waiting.send(moment);
            }
            self.look_at_disk();
            self.round(asked, also);
        }
    }

    fn look_at_disk(&self) {
        let is_full = self.dir.is_full();
        let was_full = self.core.disk_full.swap(is_full, Ordering::Relaxed);
        let dir = self.core.options.data_dir.display();
        match (was_full, is_full) {
            (false, true) => tracing::error!(
                "the disk of {dir} is full but for what is set aside: nothing is taken, and agents keep what they sample; \
                 make room, or shorten --retention"
            ),
            (true, false) => tracing::warn!("there is room again on the disk of {dir}; samples are taken"),
            _ => {}
        }
    }

    fn round(&mut self, asked: Option<u64>, also: Also) {
        let frozen = self.freeze(asked.is_some());
        let mut result = Ok(());
        if frozen || asked.is_some() {
            self.core.sealing.store(true, Ordering::Relaxed);
            result = self.sealer.checkpoint(&self.core);
            self.core.sealing.store(false, Ordering::Relaxed);
            self.looked = Instant::now();
        }
        if also.tend {
            // Time is simulated: how far it has gone says nothing about the clock.
            self.age = Age::new(self.core.options.clock.now_ms(), None);
        }
        // What is too old goes whether or not something can be sealed: on a full disk nothing else makes room.
        if asked.is_some() || self.retained.elapsed() >= RETAIN_EVERY {
            self.retained = Instant::now();
            let mut retained = self.retain();
            if matches!(&retained, Err(error) if error.kind() == std::io::ErrorKind::StorageFull)
                && self.dir.spend_reserve()
            {
                retained = self.retain();
            }
            result = result.and(retained);
            if result.is_ok() && asked.is_none() {
                result = self.begin_work();
            }
        }
        if result.is_ok() {
            result = match also {
                Also { compact: true, .. } => self.compact_now(),
                Also { tend: true, .. } => self.tend(),
                _ => self.end_work(),
            };
        }
        let mut is_clean = true;
        if result.is_ok() && also.clean {
            result = self.clean_now().map(|clean| is_clean = clean);
        }
        let mut requests = self.core.keeper.0.lock();
        requests.done = asked.unwrap_or(requests.done);
        if !is_clean {
            requests.failed = requests.done;
        }
        if let Err(error) = result {
            requests.failed = requests.done;
            self.core.keeper.1.notify_all();
            if requests.closing {
                return;
            }
            tracing::error!(%error, "cannot seal; samples stay in memory and log, and it is tried again");
            self.core.keeper.1.wait_for(&mut requests, PAUSE);
        }
        self.core.keeper.1.notify_all();
    }

    /// Freezes what is due; says whether something waits to be sealed.
    fn freeze(&mut self, all: bool) -> bool {
        let early = self.under_pressure();
        self.is_behind = !early.is_empty();
        let gathered = self.looked.elapsed() >= GATHER;
        // Mostly there is nothing to do, and a look at all groups of many servers takes as long as some of their ticks.
        if !all && !gathered && !self.is_behind {
            return false;
        }
        let core = &self.core;
        let groups: Vec<Arc<Group>> = core.groups.read().all.clone();
        let now_ms = core.options.clock.now_ms();
        let window_ms = core.options.seal_after().as_millis() as i64;
        let mut waits = false;
        for group in &groups {
            // Groups that began together, after a start, are sealed spread over a quarter of the window.
            let spread_ms = i64::from(group.id.0.wrapping_mul(0x9E37_79B9) >> 24) * (window_ms / 4) / 256;
            let mut state = group.state.lock();
            let due = gathered && state.is_due(now_ms, window_ms - spread_ms);
            if all || due || early.contains(&group.id.0) {
                state.freeze(group.mode);
            }
            waits |= !state.frozen.is_empty();
        }
        if gathered {
            self.looked = Instant::now();
        }
        waits
    }

    /// Groups to seal because memory or log are over their bounds: the fullest, and those that hold the log back.
    fn under_pressure(&self) -> std::collections::HashSet<u32> {
        let core = &self.core;
        let groups = || core.groups.read().all.clone();
        let mut early = std::collections::HashSet::new();
        let head = core.head_bytes.load(Ordering::Relaxed);
        let most = core.measure_head();
        if head > most {
            let mut full: Vec<(usize, u32)> =
                groups().iter().map(|group| (group.state.lock().bytes(), group.id.0)).collect();
            full.sort_unstable_by(|a, b| b.cmp(a));
            let mut freed = 0;
            for (bytes, group) in full {
                // A little at a time, so that what it takes to seal stays small, and the fullest are sealed each time.
                if freed >= head - most + most / SLICES {
                    break;
                }
                freed += bytes as u64;
                early.insert(group);
            }
        }
        if core.log.stats().bytes.load(Ordering::Relaxed) > core.options.log_bytes {
            let firsts: Vec<(u64, u32)> =
                groups().iter().filter_map(|group| Some((group.state.lock().first_lsn(&[])?, group.id.0))).collect();
            let oldest = firsts.iter().map(|(first, _)| *first).min().unwrap_or(0);
            let middle = oldest + (core.log.last_lsn().saturating_sub(oldest)) / 2;
            early.extend(firsts.into_iter().filter(|(first, _)| *first <= middle).map(|(_, group)| group));
        }
        early
    }
}
