//! The store's own thread: decides what is sealed when, and what is too old to stay.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::admit::count_live;
use super::age::Age;
use super::backup::Moment;
use super::block::SealedRun;
use super::compact::{self, Compacted, CompactedGroup};
use super::core::Core;
use super::datadir::DataDir;
use super::erase::Erased;
use super::group::{FORGOTTEN, Group};
use super::job::{Job, Pace};
use super::seal::{Forgotten, Sealer};
use super::thin::{self, Places, Thinned, needs};
use super::tier::TIERS;

/// How often the thread looks around.
const ROUND: Duration = Duration::from_secs(1);

/// The same while the head is over its bound.
const ROUND_BEHIND: Duration = Duration::from_millis(20);

/// What is due is gathered for this long, so that small groups share values and flushes.
const GATHER: Duration = Duration::from_secs(10);

/// How often old data is looked for.
const RETAIN_EVERY: Duration = Duration::from_secs(60);

/// Parts of the head that are sealed one after another when it is full.
const SLICES: u64 = 8;

/// Work that is done at once, where somebody waits for it: what fails would be begun again and again.
const WORKS_MAX: usize = 16;

/// After a failed checkpoint.
const PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct Requests {
    asked: u64,
    done: u64,
    /// The last of those done that failed.
    failed: u64,
    closing: bool,
    /// Those that wait want all compacted too.
    compact: bool,
    /// They want what is deleted off the disk.
    clean: bool,
    /// They want done what the thread does by itself now and then.
    tend: bool,
    /// Those who wait for a moment of the store.
    moments: Vec<SyncSender<Result<Moment, String>>>,
}

/// What others ask of the thread.
#[derive(Debug, Default)]
pub(super) struct Asked(Mutex<Requests>, Condvar);

impl Asked {
    /// Has everything sealed and old data dropped; false when that fails or takes longer.
    pub fn seal_all(&self, within: Duration) -> bool {
        self.ask(within, |_| {})
    }

    /// The same, and has all that lies in closed partitions folded.
    pub fn compact_all(&self, within: Duration) -> bool {
        self.ask(within, |requests| requests.compact = true)
    }

    /// The same as `seal_all`, and takes what is deleted off the disk.
    pub fn clean(&self, within: Duration) -> bool {
        self.ask(within, |requests| requests.clean = true)
    }

    /// The same as `seal_all`, and has done what is worth doing of tiers and compaction, as it is every minute.
    pub fn tend(&self, within: Duration) -> bool {
        self.ask(within, |requests| requests.tend = true)
    }

    fn ask(&self, within: Duration, also: impl FnOnce(&mut Requests)) -> bool {
        let mut requests = self.0.lock();
        requests.asked += 1;
        also(&mut requests);
        let number = requests.asked;
        self.1.notify_all();
        let deadline = Instant::now() + within;
        let waits = |requests: &Requests| requests.done < number && !requests.closing;
        while waits(&requests) && !self.1.wait_until(&mut requests, deadline).timed_out() {}
        requests.done >= number && requests.failed < number
    }

    /// What a backup of this moment consists of.
    pub fn moment(&self, within: Duration) -> Result<Moment, String> {
        let (sender, receiver) = sync_channel(1);
        {
            let mut requests = self.0.lock();
            if requests.closing {
                return Err("the store is closed".into());
            }
            requests.moments.push(sender);
            self.1.notify_all();
        }
        receiver.recv_timeout(within).map_err(|_| format!("nothing came of it within {within:?}"))?
    }

    pub fn close(&self) {
        self.0.lock().closing = true;
        self.1.notify_all();
    }
}

/// What those who wait want beside a checkpoint.
#[derive(Debug, Clone, Copy)]
struct Also {
    compact: bool,
    clean: bool,
    tend: bool,
}

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
    checkpointed: Instant,
    retained: Instant,
    age: Age,
    compaction: Option<Compaction>,
    /// What came of the last one, until it is published.
    compacted: Option<Compacted>,
    thinning: Option<Job<Thinned>>,
    /// The same of the tiers.
    thinned: Option<Thinned>,
    /// What of these is still in use could not be read; not tried again before the next start.
    tried: BTreeSet<u32>,
}

impl Keeper {
    pub fn new(core: Arc<Core>, sealer: Sealer, dir: Arc<DataDir>) -> Self {
        let now = Instant::now();
        let tried = BTreeSet::new();
        let newest_ms = core.groups.read().all.iter().map(|group| group.state.lock().last_ms).max();
        let age = Age::new(core.options.clock.now_ms(), newest_ms.filter(|newest_ms| *newest_ms > i64::MIN));
        let (compaction, compacted, thinning, thinned) = (None, None, None, None);
        let (checkpointed, retained) = (now, now);
        let is_behind = false;
        Self {
            core,
            sealer,
            dir,
            is_behind,
            checkpointed,
            retained,
            age,
            compaction,
            compacted,
            thinning,
            thinned,
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
            self.checkpointed = Instant::now();
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
        let core = &self.core;
        let groups: Vec<Arc<Group>> = core.groups.read().all.clone();
        let now_ms = core.options.clock.now_ms();
        let window_ms = core.options.window.as_millis() as i64;
        let gathered = self.checkpointed.elapsed() >= GATHER;
        let mut waits = false;
        let early = self.under_pressure(&groups);
        self.is_behind = !early.is_empty();
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
        waits
    }

    /// Groups to seal because memory or log are over their bounds: the fullest, and those that hold the log back.
    fn under_pressure(&self, groups: &[Arc<Group>]) -> std::collections::HashSet<u32> {
        let core = &self.core;
        let mut early = std::collections::HashSet::new();
        let head = core.head_bytes.load(Ordering::Relaxed);
        let most = core.measure_head();
        if head > most {
            let mut full: Vec<(usize, u32)> =
                groups.iter().map(|group| (group.state.lock().bytes(), group.id.0)).collect();
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
                groups.iter().filter_map(|group| Some((group.state.lock().first_lsn(&[])?, group.id.0))).collect();
            let oldest = firsts.iter().map(|(first, _)| *first).min().unwrap_or(0);
            let middle = oldest + (core.log.last_lsn().saturating_sub(oldest)) / 2;
            early.extend(firsts.into_iter().filter(|(first, _)| *first <= middle).map(|(_, group)| group));
        }
        early
    }

    /// Begins to build the tiers or to fold what is worth it, if nothing of that kind goes on.
    fn begin_work(&mut self) -> std::io::Result<()> {
        let compacts = self.compaction.is_some() || self.compacted.is_some();
        let thins = self.thinning.is_some() || self.thinned.is_some();
        if compacts || thins || self.core.disk_full.load(Ordering::Relaxed) {
            return Ok(());
        }
        let current = self.sealer.closed_below(&self.core);
        // First, so that nothing is folded that the tiers have not seen: they would take it for new.
        if self.core.has_tiers() && thin::is_due(&self.core, current) {
            let places = self.sealer.tier_places(&self.core);
            let (core, engine) = (self.core.clone(), self.sealer.engine.clone());
            self.sealer.building = places;
            let work = move |pace: &Pace| thin::thin(&core, &*engine, current, places, pace);
            self.thinning = Some(Job::start("store-tiers", work)?);
            return Ok(());
        }
        let Some(from) = self.worth_folding() else { return Ok(()) };
        let into = self.sealer.name_after(&from)?;
        let (core, engine, partitions) = (self.core.clone(), self.sealer.engine.clone(), from.clone());
        let work = move |pace: &Pace| compact::compact(&core, &*engine, partitions, into, pace);
        let job = Job::start("store-compact", work)?;
        self.sealer.compacting_into = Some(into);
        self.compaction = Some(Compaction { from, into, job });
        Ok(())
    }

    /// Does what is worth doing, one after another, and waits for it.
    fn tend(&mut self) -> std::io::Result<()> {
        for _ in 0..WORKS_MAX {
            self.begin_work()?;
            if self.thinning.is_none() && self.compaction.is_none() {
                break;
            }
            while self.thinning.is_some() || self.compaction.is_some() {
                std::thread::sleep(Duration::from_millis(1));
                self.end_work()?;
            }
        }
        self.retain()
    }

    /// Partitions to fold next, of raw samples or of one tier.
    fn worth_folding(&self) -> Option<Vec<u32>> {
        let families = [None].into_iter().chain((0..TIERS.len()).map(Some));
        let plans = families.map(|tier| {
            let mut usage = compact::usage(&self.core, tier);
            usage.retain(|partition, _| !self.tried.contains(partition));
            let growing = tier.map_or(self.sealer.partition, |tier| self.sealer.tiers[tier]);
            // A tier's partitions are folded each by itself.
            let spans = if tier.is_none() { Sealer::spans_s(&self.core) } else { (0, 0) };
            compact::plan(&usage, growing.map(|(begun, _)| begun), &self.sealer.whole, spans)
        });
        plans.into_iter().find(|from| !from.is_empty())
    }

    /// Publishes what came of work that is done.
    fn end_work(&mut self) -> std::io::Result<()> {
        let finished = self.compaction.as_ref().and_then(|compaction| compaction.job.finished());
        if let Some(result) = finished
            && let Some(Compaction { from, into, .. }) = self.compaction.take()
        {
            self.take_compacted(result, &from, into);
        }
        if let Some(result) = self.thinning.as_ref().and_then(Job::finished) {
            self.thinning = None;
            self.take_thinned(result);
        }
        self.publish()
    }

    /// Ends the work that goes on, published or not.
    fn drop_work(&mut self) -> std::io::Result<()> {
        // What is done and not yet published keeps its place: to the retention it would be a left-over.
        if self.compaction.take().is_some() {
            self.sealer.compacting_into = None;
        }
        if self.thinning.take().is_some() {
            self.sealer.building = Places::default();
        }
        self.publish()
    }

    /// Folds partitions, here and now.
    fn fold_now(&mut self, from: Vec<u32>) -> std::io::Result<()> {
        let into = self.sealer.name_after(&from)?;
        let result = compact::compact(&self.core, &*self.sealer.engine, from.clone(), into, &Pace::default());
        self.take_compacted(result, &from, into);
        self.publish()
    }

    /// What is built next of a tier goes to a partition of its own, behind what comes of those that are there.
    fn close_tier(&mut self, tier: Option<usize>) {
        if let Some(place) = tier.and_then(|tier| self.sealer.tiers[tier].as_mut()) {
            *place = (place.0.saturating_add(2), 0);
        }
    }

    /// Folds the partitions in which something is deleted, and drops the records of what is gone with that; false where something
    /// is left.
    fn clean_now(&mut self) -> std::io::Result<bool> {
        self.drop_work()?;
        let groups: Vec<Arc<Group>> = self.core.groups.read().all.clone();
        let of_group = |group: &Arc<Group>| (group.clone(), group.state.lock().erased.clone());
        let mut erased: Vec<(Arc<Group>, Arc<Vec<Erased>>)> = groups.iter().map(of_group).collect();
        erased.retain(|(_, erased)| !erased.is_empty());
        if erased.is_empty() {
            return Ok(true);
        }
        self.sealer.close_partition();
        let mut folded = BTreeSet::new();
        for tier in [None].into_iter().chain((0..TIERS.len()).map(Some)) {
            self.close_tier(tier);
            for partition in compact::partitions_of_erased(&erased, tier) {
                self.fold_now(vec![partition])?;
                folded.insert(partition);
            }
        }
        let mut is_clean = true;
        for (group, erased) in &erased {
            let mut state = group.state.lock();
            // A group that could not be read stays where it was.
            let is_left = state.all_sealed().any(|run| folded.contains(&run.head.partition));
            is_clean &= !is_left;
            // A manifest that is written anew says only what there is.
            self.sealer.say_everything |= !is_left && state.forget_cleaned(erased);
        }
        self.retain()?;
        if self.sealer.say_everything {
            self.sealer.checkpoint(&self.core)?;
        }
        Ok(is_clean)
    }

    /// Closes the partition that grows, builds the tiers and folds all, here and now.
    fn compact_now(&mut self) -> std::io::Result<()> {
        self.drop_work()?;
        let current = self.sealer.close_partition();
        self.thin_now()?;
        for tier in [None].into_iter().chain((0..TIERS.len()).map(Some)) {
            self.close_tier(tier);
            let used = compact::usage(&self.core, tier).into_keys();
            let from: Vec<u32> = used.filter(|begun| Some(*begun) != current).collect();
            if from.is_empty() {
                continue;
            }
            self.fold_now(from)?;
        }
        self.retain()
    }

    /// Builds what the closed partitions have for the tiers, here and now.
    fn thin_now(&mut self) -> std::io::Result<()> {
        let current = self.sealer.partition.map_or(0, |(begun, _)| begun);
        if !self.core.has_tiers() || !thin::is_due(&self.core, current) {
            return Ok(());
        }
        let places = self.sealer.tier_places(&self.core);
        self.sealer.building = places;
        let thinned = thin::thin(&self.core, &*self.sealer.engine, current, places, &Pace::default());
        self.take_thinned(thinned);
        self.publish()
    }

    fn take_thinned(&mut self, result: std::io::Result<Thinned>) {
        match result {
            Ok(thinned) => {
                let runs: usize = thinned.groups.iter().map(|group| group.runs.len()).sum();
                tracing::info!(runs, thinned.bytes, through = thinned.through, "tiers are built");
                self.thinned = Some(thinned);
            }
            Err(error) => {
                self.sealer.building = Places::default();
                self.retained = Instant::now();
                tracing::error!(%error, "cannot build the tiers; raw samples stay until it is done, and it is tried again");
            }
        }
    }

    fn take_compacted(&mut self, result: std::io::Result<Compacted>, from: &[u32], into: u32) {
        match result {
            Ok(compacted) => {
                // A group that could not be read stays, and would be tried again and again.
                self.tried.extend(from);
                let runs = |of: fn(&CompactedGroup) -> usize| compacted.groups.iter().map(of).sum::<usize>();
                let (before, after) = (runs(|group| group.old.len()), runs(|group| group.new.len()));
                tracing::info!(partitions = from.len(), into, before, after, compacted.bytes, "runs are folded");
                self.core.counters.folded_bytes.fetch_add(compacted.bytes, Ordering::Relaxed);
                self.sealer.compacting_into = Some(into);
                self.compacted = Some(compacted);
            }
            Err(error) => {
                self.tried.extend(from);
                self.sealer.compacting_into = None;
                tracing::error!(%error, "cannot compact {from:?}; all stays where it is until the next start");
            }
        }
    }

    fn publish(&mut self) -> std::io::Result<()> {
        if let Some(compacted) = &self.compacted {
            self.sealer.publish(&self.core, compacted)?;
            self.compacted = None;
        }
        if let Some(thinned) = &self.thinned {
            self.sealer.publish_tiers(&self.core, thinned)?;
            self.thinned = None;
            self.core.note_tiers();
        }
        Ok(())
    }

    /// Drops what is older than the retention: runs, marks, series without samples, and partitions without runs.
    fn retain(&mut self) -> std::io::Result<()> {
        let core = &self.core;
        let now_ms = self.age.now_ms(core.options.clock.now_ms());
        let oldest_ms = core.oldest_ms(now_ms);
        let groups: Vec<Arc<Group>> = core.groups.read().all.clone();
        let mut forgotten = Vec::new();
        for group in &groups {
            forgotten.push(forget_old(core, group, now_ms));
        }
        let live = count_live(&groups, core.options.live_since_ms());
        core.admission.lock().set_live(live);
        core.note_tiers();
        self.sealer.drop_old(core, forgotten, oldest_ms)
    }
}

/// Forgets raw samples from before `oldest_ms` that no tier needs any more, what tiers have of too long ago, the series that
/// are in neither, and that they went on when last heard of.
fn forget_old(core: &Core, group: &Group, now_ms: i64) -> Forgotten {
    let oldest_ms = core.oldest_ms(now_ms);
    let mut index = core.index.write();
    let mut state = group.state.lock();
    let stays = |run: &Arc<SealedRun>| run.max_ms >= oldest_ms || needs(core, &state, run);
    let (kept, mut expired): (Vec<_>, Vec<_>) = state.sealed.iter().cloned().partition(stays);
    if !expired.is_empty() {
        state.sealed = Arc::new(kept);
    }
    let mut off = Vec::new();
    for tier in 0..TIERS.len() {
        let tiered = &mut state.tiers[tier];
        match core.tier_oldest_ms(tier, now_ms) {
            Some(oldest_ms) if tiered.runs.iter().any(|run| run.max_ms < oldest_ms) => {
                let runs = Arc::make_mut(&mut tiered.runs);
                expired.extend(runs.extract_if(.., |run| run.max_ms < oldest_ms));
            }
            None if !tiered.is_unused() => {
                expired.extend(std::mem::take(tiered).runs.iter().cloned());
                off.push(tier);
            }
            _ => {}
        }
    }
    let kept_ms = core.oldest_kept_ms(now_ms);
    // A tier that is yet to be built wants to know who fell silent when.
    let built = |tier: usize| core.options.tiers[tier].is_none() || state.tiers[tier].until_ms >= oldest_ms;
    let all_built = (0..TIERS.len()).all(built);
    if all_built {
        state.marks.retain(|mark| mark.at_ms >= oldest_ms);
    }
    state.forget_erased(kept_ms);
    state.carried.retain(|carried| carried.timestamp_ms >= oldest_ms);
    if state.last_ms < oldest_ms {
        state.forget_kept();
    }
    let present = !state.present.is_empty() && state.last_ms < oldest_ms;
    if present {
        state.present = Arc::default();
    }
    let slots = 0..state.series.len() as u32;
    let old = |slot: &u32| {
        state.series[*slot as usize] != FORGOTTEN && state.seen_ms[*slot as usize] < kept_ms && !state.is_in_head(*slot)
    };
    let old: Vec<u32> = slots.filter(old).collect();
    for slot in &old {
        let series = std::mem::replace(&mut state.series[*slot as usize], FORGOTTEN);
        state.ended.remove(*slot);
        index.displace(series, group.id, super::Slot(*slot));
    }
    Forgotten { group: group.id, slots: old, present, expired, tiers: off }
}
