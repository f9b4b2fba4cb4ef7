//! A group in memory: the run that grows, late runs beside it, what is frozen and waits to be sealed, and where the sealed
//! runs lie. One lock per group; a select sees all of it in one state.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use roaring::RoaringBitmap;

use super::base::{Base, whole};
use super::block::{Address, SealedRun};
use super::column::{Samples, same_value};
use super::erase::Erased;
use super::run::{Carried, Run};
use super::tier::{TIERS, Tiered, tier_of};
use super::{GroupId, GroupKey, Run as Lane, Slot, TickBatch, Value, WriteMode};

/// Samples of a writer that states them may be this far ahead of the collector's clock.
pub(super) const AHEAD_MS_MAX: i64 = 10 * 60 * 1000;

/// Ticks of one run: with one byte for most, the head of a sealed run stays small.
const TICKS_MAX: usize = 7200;

/// Bytes of one column: a value of the engine holds it whole.
const COLUMN_BYTES_MAX: usize = 48 * 1024;

/// Overlays of a group in memory: each is looked at by every select of the group.
const OVERLAYS_MAX: usize = 64;

/// Late samples of a group in memory.
const LATE_MAX: usize = 200_000;

/// What a late sample takes in memory beside its value, about: its share of a node of the tree.
const LATE_BYTES: usize = 40;

/// Series number of a slot whose series is forgotten. Slots are not given out again.
pub(super) const FORGOTTEN: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Group {
    pub id: GroupId,
    pub key: GroupKey,
    pub mode: WriteMode,
    pub state: Mutex<State>,
}

/// The agent fell silent after tick `after_ms`; seen at `at_ms`. Holds while no tick lies in `(after_ms, at_ms]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub after_ms: i64,
    pub at_ms: i64,
}

/// What waits to be sealed.
#[derive(Debug)]
pub(super) struct Frozen {
    /// In the order in which they were begun: the first stored value of a timestamp wins.
    pub runs: Vec<Run>,
    /// Last log record with something of these runs.
    pub last_lsn: u64,
    pub first_lsn: u64,
    pub bytes: usize,
    /// What is new of slots since then, for the manifest.
    pub seen: Vec<(u32, Seen)>,
}

/// What is known of a slot beyond a restart: without it a series that ended would be kept as if it had just been seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// It has ended; it had samples until about then.
    Until(i64),
    /// It had ended, and goes on after all.
    GoesOn,
}

#[derive(Debug)]
pub(super) struct State {
    /// Series number of each slot, [`FORGOTTEN`] where it has none any more.
    pub series: Vec<u32>,
    /// Per slot, until when it had samples when last looked at.
    pub seen_ms: Vec<i64>,
    /// Slots of which the manifest says, or is about to say, that they had ended when they were last frozen.
    pub ended: RoaringBitmap,
    /// After a start it is not known which of the others went on: the first run that is frozen tells.
    unsure: bool,
    pub live: Run,
    /// Present when the last run was frozen; goes into the first tick of the next one.
    pub carried: Vec<Carried>,
    /// The same of the last run that was sealed, as the manifest has it. Empty when none was, or all of it is too old.
    pub present: Arc<[u8]>,
    pub overlays: Vec<Run>,
    /// What the next tick of the live lane builds on.
    live_base: Base,
    /// The same of the back-fill lane.
    late_base: Base,
    /// Late samples of a writer that states them: by slot and time.
    late: BTreeMap<(u32, i64), Value>,
    late_lsn: u64,
    /// What these take in memory, about, and their first and last time.
    late_bytes: usize,
    late_span: Option<(i64, i64)>,
    pub frozen: Vec<Arc<Frozen>>,
    pub sealed: Arc<Vec<Arc<SealedRun>>>,
    /// The same of each tier.
    pub tiers: [Tiered; TIERS.len()],
    /// What was deleted.
    pub erased: Arc<Vec<Erased>>,
    pub marks: Vec<Mark>,
    /// Those of them that are not in the manifest yet.
    pub marks_unsaved: Vec<Mark>,
    /// The collector's clock when the oldest of what is not frozen came; 0 while there is nothing.
    pub begun_ms: i64,
    /// Newest tick ever, sealed ones included.
    pub last_ms: i64,
    /// Last log record applied.
    pub lsn: u64,
    /// Up to this record all is in blocks.
    pub sealed_lsn: u64,
}

/// Why a sample was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reject {
    Undefined,
    TooOld,
    TooNew,
    Duplicate,
}

/// Times that samples may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub now_ms: i64,
    pub oldest_ms: i64,
    pub newest_ms: i64,
}

/// What came of a tick.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub rejected: Vec<(usize, Reject)>,
    /// The tick began a run or builds on another one: the log must say it like this, as a key tick.
    pub whole: Option<Vec<(Slot, Value)>>,
}

impl State {
    pub fn new() -> Self {
        Self {
            series: Vec::new(),
            seen_ms: Vec::new(),
            ended: RoaringBitmap::new(),
            unsure: false,
            live: Run::new(),
            carried: Vec::new(),
            present: Arc::default(),
            overlays: Vec::new(),
            live_base: Base::Newest,
            late_base: Base::Lost,
            late: BTreeMap::new(),
            late_lsn: 0,
            late_bytes: 0,
            late_span: None,
            frozen: Vec::new(),
            sealed: Arc::default(),
            tiers: Default::default(),
            erased: Arc::default(),
            marks: Vec::new(),
            marks_unsaved: Vec::new(),
            begun_ms: 0,
            last_ms: i64::MIN,
            lsn: 0,
            sealed_lsn: 0,
        }
    }

    pub fn add_slot(&mut self, series: u32, now_ms: i64) {
        self.series.push(series);
        self.seen_ms.push(now_ms);
    }

    /// Gives back what is kept free for more slots: most groups get theirs at once.
    pub fn fit(&mut self) {
        self.series.shrink_to_fit();
        self.seen_ms.shrink_to_fit();
    }

    pub fn is_defined(&self, slot: Slot) -> bool {
        self.series.get(slot.0 as usize).is_some_and(|series| *series != FORGOTTEN)
    }

    /// Stores a tick. `values` that are rejected are named by their place.
    pub fn tick(&mut self, mode: WriteMode, tick: &TickBatch, window: Window, lsn: u64) -> Outcome {
        self.lsn = self.lsn.max(lsn);
        if self.begun_ms == 0 {
            self.begun_ms = window.now_ms;
        }
        let mut rejected: Vec<(usize, Reject)> = Vec::new();
        for (at, (slot, _)) in tick.values.iter().enumerate() {
            if !self.is_defined(*slot) {
                rejected.push((at, Reject::Undefined));
            } else if mode == WriteMode::Delta && at > 0 && tick.values[at - 1].0 == *slot {
                // Two points at one tick: no column has a place for the second.
                rejected.push((at, Reject::Duplicate));
            }
        }
        match mode {
            WriteMode::Delta if !rejected.is_empty() => {
                let mut fewer = tick.clone();
                fewer.values.retain(|(slot, _)| self.is_defined(*slot));
                fewer.values.dedup_by_key(|(slot, _)| *slot);
                Outcome { rejected, ..self.delta_tick(&fewer, lsn) }
            }
            WriteMode::Delta => self.delta_tick(tick, lsn),
            WriteMode::Stated => {
                let mut outcome = Outcome { rejected, whole: None };
                self.stated_tick(tick, window, lsn, &mut outcome);
                outcome
            }
        }
    }

    fn base_mut(&mut self, lane: Lane) -> &mut Base {
        match lane {
            Lane::Live => &mut self.live_base,
            Lane::Backfill => &mut self.late_base,
        }
    }

    /// Whether only a key tick can be taken on this lane.
    pub fn needs_key(&self, lane: Lane) -> bool {
        let base = if lane == Lane::Live { &self.live_base } else { &self.late_base };
        matches!(base, Base::Lost)
    }

    /// What the next ticks build on is not known any more.
    pub fn lose_base(&mut self) {
        (self.live_base, self.late_base) = (Base::Lost, Base::Lost);
    }

    /// What was present in frozen overlays is too long ago to matter.
    pub fn forget_kept(&mut self) {
        for base in [&mut self.live_base, &mut self.late_base] {
            if let Base::Kept { present, .. } = base {
                present.clear();
            }
        }
    }

    /// What was present where the last tick of a lane went.
    fn present_at(&self, base: Base) -> Vec<Carried> {
        match base {
            Base::Lost => Vec::new(),
            Base::Newest if self.live.is_empty() => self.carried.clone(),
            Base::Newest => self.live.present(),
            Base::Overlay(at) => self.overlays[at].present(),
            Base::Kept { present, .. } => present,
        }
    }

    /// Bytes in the log, at most, of what completing the next tick of a lane adds to it; 0 where the tick is only appended.
    pub fn completion_bytes(&self, tick: &TickBatch) -> usize {
        let newer = tick.timestamp_ms > self.live.last_ms().unwrap_or(self.last_ms);
        let to_newest = tick.run == Lane::Live && newer;
        let base = if tick.run == Lane::Live { &self.live_base } else { &self.late_base };
        // A live tick in an overlay may be followed by one that is not, and that builds on it.
        let appends = match base {
            Base::Newest | Base::Lost if to_newest => !self.live.is_empty(),
            Base::Overlay(at) if tick.run == Lane::Backfill && !tick.key => {
                self.overlays[*at].last_ms() < Some(tick.timestamp_ms)
            }
            _ => tick.run == Lane::Backfill && tick.key,
        };
        if appends {
            return 0;
        }
        let of = |present: &[Carried]| {
            let value = |carried: &Carried| if tick.key { VALUE_BYTES } else { bytes_of_value(&carried.value) };
            present.iter().map(value).sum::<usize>()
        };
        let of_base = match base {
            Base::Lost | Base::Newest => 0,
            Base::Overlay(at) => of(&self.overlays[*at].present()),
            Base::Kept { present, .. } => of(present),
        };
        // The next tick of the lane may go to the other run, and is completed from this one then.
        2 * (of_base + if self.live.is_empty() { of(&self.carried) } else { of(&self.live.present()) })
    }

    /// One that is older than the retention is stored like others, because the next one builds on it. It is not selected.
    fn delta_tick(&mut self, tick: &TickBatch, lsn: u64) -> Outcome {
        // After a restart the sealed ticks count too, or two runs of the newest data would overlap.
        let newer = tick.timestamp_ms > self.live.last_ms().unwrap_or(self.last_ms);
        let base = std::mem::take(self.base_mut(tick.run));
        if tick.run == Lane::Live && newer {
            self.live_base = Base::Newest;
            return self.newest_tick(tick, base, lsn);
        }
        if let Base::Overlay(at) = base
            && !tick.key
            && self.overlays[at].last_ms() < Some(tick.timestamp_ms)
        {
            *self.base_mut(tick.run) = Base::Overlay(at);
            self.overlays[at].delta_tick(tick.timestamp_ms, false, &tick.values);
            return Outcome::default();
        }
        let whole = (!tick.key).then(|| whole(&[], &self.present_at(base), tick));
        let mut run = Run::new();
        run.first_lsn = lsn;
        run.delta_tick(tick.timestamp_ms, true, whole.as_ref().unwrap_or(&tick.values));
        *self.base_mut(tick.run) = Base::Overlay(self.overlays.len());
        self.overlays.push(run);
        Outcome { whole, ..Outcome::default() }
    }

    fn newest_tick(&mut self, tick: &TickBatch, base: Base, lsn: u64) -> Outcome {
        let begun = self.live.is_empty();
        if begun {
            self.live.first_lsn = lsn;
        }
        self.last_ms = self.last_ms.max(tick.timestamp_ms);
        if !begun && matches!(base, Base::Newest | Base::Lost) {
            self.live.delta_tick(tick.timestamp_ms, tick.key, &tick.values);
            return Outcome::default();
        }
        let before = self.present_at(Base::Newest);
        let values = whole(&before, &self.present_at(base), tick);
        self.carried = Vec::new();
        self.live.delta_tick(tick.timestamp_ms, true, &values);
        Outcome { whole: Some(values), ..Outcome::default() }
    }

    fn stated_tick(&mut self, tick: &TickBatch, window: Window, lsn: u64, outcome: &mut Outcome) {
        let at_ms = tick.timestamp_ms;
        let outside = match at_ms {
            _ if at_ms < window.oldest_ms => Some(Reject::TooOld),
            _ if at_ms > window.newest_ms => Some(Reject::TooNew),
            _ => None,
        };
        if let Some(reject) = outside {
            outcome.rejected = (0..tick.values.len()).map(|at| (at, reject)).collect();
            return;
        }
        // A tick before the first of this run may be sealed already: it is late, and never the run's first.
        let late = self.live.is_empty() && at_ms <= self.last_ms;
        let known = tick.values.iter().any(|(slot, _)| self.is_defined(*slot));
        let begun = self.live.is_empty() && !late && known;
        let number = if late || !known { None } else { self.live.stated_tick(at_ms) };
        if begun {
            self.live.first_lsn = lsn;
        }
        for (at, (slot, value)) in tick.values.iter().enumerate() {
            if !self.is_defined(*slot) {
                continue;
            }
            if number.is_some_and(|number| self.live.state(number, *slot, value)) {
                continue;
            }
            if let Err(reject) = self.late_sample(*slot, at_ms, value, lsn) {
                outcome.rejected.push((at, reject));
            }
        }
        // The log has the times of ticks of which nothing was taken too, and a replay must not go by these.
        if number.is_some() {
            self.last_ms = self.last_ms.max(at_ms);
        }
    }

    fn late_sample(&mut self, slot: Slot, at_ms: i64, value: &Value, lsn: u64) -> Result<(), Reject> {
        if let Some(there) = self.value_in_head(slot.0, at_ms) {
            return if same_value(&there, value) { Ok(()) } else { Err(Reject::Duplicate) };
        }
        if self.late.is_empty() {
            self.late_lsn = lsn;
        }
        self.late_bytes += LATE_BYTES + bytes_of_value(value);
        let (min_ms, max_ms) = self.late_span.unwrap_or((at_ms, at_ms));
        self.late_span = Some((min_ms.min(at_ms), max_ms.max(at_ms)));
        self.late.insert((slot.0, at_ms), value.clone());
        Ok(())
    }

    fn value_in_head(&self, slot: u32, at_ms: i64) -> Option<Value> {
        if let Some(value) = self.late.get(&(slot, at_ms)) {
            return Some(value.clone());
        }
        self.runs().find_map(|run| run.value_at(slot, at_ms))
    }

    /// Bytes that the group's unfrozen data takes.
    pub fn bytes(&self) -> usize {
        self.live.bytes + self.overlays.iter().map(|run| run.bytes).sum::<usize>() + self.late_bytes
    }

    /// First log record with something that is in no block, `sealing` taken as sealed.
    pub fn first_lsn(&self, sealing: &[Arc<Frozen>]) -> Option<u64> {
        let waits = |frozen: &&Arc<Frozen>| !sealing.iter().any(|sealing| Arc::ptr_eq(frozen, sealing));
        let frozen = self.frozen.iter().filter(waits).map(|frozen| frozen.first_lsn);
        self.unfrozen_lsns().chain(frozen).min()
    }

    fn unfrozen_lsns(&self) -> impl Iterator<Item = u64> + '_ {
        let runs = [&self.live].into_iter().chain(&self.overlays).filter(|run| !run.is_empty());
        runs.map(|run| run.first_lsn).chain((!self.late.is_empty()).then_some(self.late_lsn))
    }

    /// Takes what grew aside; the next tick begins a new run. `None` when nothing did.
    pub fn freeze(&mut self, mode: WriteMode) -> Option<Arc<Frozen>> {
        let first_lsn = self.unfrozen_lsns().min()?;
        let bytes = self.bytes();
        self.begun_ms = 0;
        let mut runs = Vec::new();
        let mut touched = Vec::new();
        let mut live = std::mem::replace(&mut self.live, Run::new());
        if !live.is_empty() {
            live.live = true;
            let mut carried = live.present();
            if mode == WriteMode::Stated {
                carried.retain(|carried| !is_stale(&carried.value));
            }
            touched.extend(std::mem::replace(&mut self.carried, carried).iter().map(|carried| carried.slot));
            runs.push(live);
            if std::mem::take(&mut self.unsure) {
                let known = (0..self.series.len() as u32).filter(|slot| self.is_defined(Slot(*slot)));
                touched.extend(known.filter(|slot| !self.ended.contains(*slot)));
            }
        }
        self.live_base.freeze(&self.overlays);
        self.late_base.freeze(&self.overlays);
        runs.append(&mut self.overlays);
        if !self.late.is_empty() {
            runs.push(late_run(std::mem::take(&mut self.late)));
            (self.late_bytes, self.late_span) = (0, None);
        }
        for run in &runs {
            let Some((_, max_ms)) = run.span() else { continue };
            for slot in &run.slots {
                let seen_ms = &mut self.seen_ms[*slot as usize];
                *seen_ms = max_ms.max(*seen_ms);
            }
            touched.extend_from_slice(&run.slots);
        }
        let seen = self.seen(touched);
        let frozen = Arc::new(Frozen { runs, first_lsn, last_lsn: self.lsn, bytes, seen });
        self.frozen.push(frozen.clone());
        Some(frozen)
    }

    /// What is new of these slots.
    fn seen(&mut self, mut slots: Vec<u32>) -> Vec<(u32, Seen)> {
        slots.sort_unstable();
        slots.dedup();
        let mut seen = Vec::new();
        for slot in slots {
            if self.carried.binary_search_by_key(&slot, |carried| carried.slot).is_err() {
                self.ended.insert(slot);
                seen.push((slot, Seen::Until(self.seen_ms[slot as usize])));
            } else if self.ended.remove(slot) {
                seen.push((slot, Seen::GoesOn));
            }
        }
        seen
    }

    /// All that the manifest must say of slots.
    pub fn all_seen(&self) -> Vec<(u32, Seen)> {
        self.ended.iter().map(|slot| (slot, Seen::Until(self.seen_ms[slot as usize]))).collect()
    }

    /// Takes what the manifest says.
    pub fn take_seen(&mut self, slot: u32, seen: Seen, now_ms: i64) {
        let Some(seen_ms) = self.seen_ms.get_mut(slot as usize) else { return };
        match seen {
            Seen::Until(ms) => {
                *seen_ms = ms;
                self.ended.insert(slot);
            }
            Seen::GoesOn => {
                *seen_ms = now_ms;
                self.ended.remove(slot);
            }
        }
    }

    /// After a start: of what the log did not bring back and is not said to have ended, no sample is newer than the newest that
    /// is sealed.
    pub fn bound_seen(&mut self) {
        let Some(newest_ms) = self.sealed.iter().map(|run| run.max_ms).max() else { return };
        self.unsure = true;
        for slot in 0..self.series.len() as u32 {
            if !self.ended.contains(slot) && self.runs().all(|run| run.column(slot).is_none()) {
                let seen_ms = &mut self.seen_ms[slot as usize];
                *seen_ms = newest_ms.min(*seen_ms);
            }
        }
    }

    /// Whether what grew is so much or so old that it should be sealed.
    pub fn is_due(&self, now_ms: i64, age_ms: i64) -> bool {
        let old = self.begun_ms != 0 && now_ms.saturating_sub(self.begun_ms) >= age_ms;
        let much = self.live.ticks.len() >= TICKS_MAX || self.live.longest >= COLUMN_BYTES_MAX;
        old || much || self.overlays.len() >= OVERLAYS_MAX || self.late.len() >= LATE_MAX
    }

    /// What is frozen lies in blocks now.
    pub fn publish(&mut self, frozen: &Arc<Frozen>, sealed: Vec<Arc<SealedRun>>, present: Option<Arc<[u8]>>) {
        self.present = present.unwrap_or_else(|| self.present.clone());
        self.frozen.retain(|waiting| !Arc::ptr_eq(waiting, frozen));
        let all = self.sealed.iter().cloned().chain(sealed);
        self.sealed = Arc::new(all.collect());
        self.sealed_lsn = self.sealed_lsn.max(frozen.last_lsn);
    }

    /// Puts the runs that others were folded into where the first of those stood.
    pub fn replace_sealed(&mut self, old: &HashSet<Address>, new: Vec<Arc<SealedRun>>) {
        let sealed = self.sealed_of_mut(old.iter().find_map(|head| tier_of(head.partition)));
        let Some(first) = sealed.iter().position(|run| old.contains(&run.head)) else { return };
        let (before, after) = sealed.split_at(first);
        let stay = after.iter().filter(|run| !old.contains(&run.head));
        *sealed = Arc::new(before.iter().cloned().chain(new).chain(stay.cloned()).collect());
    }

    /// Sealed runs of raw samples, or of a tier.
    pub fn sealed_of(&self, tier: Option<usize>) -> &Arc<Vec<Arc<SealedRun>>> {
        match tier {
            Some(tier) => &self.tiers[tier].runs,
            None => &self.sealed,
        }
    }

    pub fn sealed_of_mut(&mut self, tier: Option<usize>) -> &mut Arc<Vec<Arc<SealedRun>>> {
        match tier {
            Some(tier) => &mut self.tiers[tier].runs,
            None => &mut self.sealed,
        }
    }

    /// All sealed runs, those of the tiers too.
    pub fn all_sealed(&self) -> impl Iterator<Item = &Arc<SealedRun>> {
        self.sealed.iter().chain(self.tiers.iter().flat_map(|tiered| tiered.runs.iter()))
    }

    /// Whether a slot has anything in memory.
    pub fn is_in_head(&self, slot: u32) -> bool {
        self.runs().any(|run| run.column(slot).is_some())
            || self.carried.binary_search_by_key(&slot, |carried| carried.slot).is_ok()
            || self.live_base.keeps(slot)
            || self.late_base.keeps(slot)
            || self.late.range((slot, i64::MIN)..=(slot, i64::MAX)).next().is_some()
    }

    /// The last sample of a series that goes on, with no mark upon it.
    pub fn current(&self, slot: u32) -> Option<(i64, Value)> {
        let carried = || {
            let at = self.carried.binary_search_by_key(&slot, |carried| carried.slot).ok()?;
            Some((self.carried[at].timestamp_ms, self.carried[at].value.clone()))
        };
        let newest = self.live.current(slot).or_else(|| self.live.column(slot).is_none().then(carried).flatten())?;
        let silent = self.marks.iter().any(|mark| mark.after_ms >= newest.0);
        (!silent && !is_stale(&newest.1)).then_some(newest)
    }

    /// Whether late data lies beside the run that grows, so that the newest value needs a merge.
    pub fn is_plain(&self) -> bool {
        self.overlays.is_empty()
            && self.late.is_empty()
            && self.frozen.iter().flat_map(|frozen| &frozen.runs).all(|run| run.live)
    }

    /// Runs in memory in the order in which they were stored.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.frozen.iter().flat_map(|frozen| &frozen.runs).chain([&self.live]).chain(&self.overlays)
    }

    /// Those of them that still change.
    pub fn growing(&self) -> impl Iterator<Item = &Run> {
        [&self.live].into_iter().chain(&self.overlays)
    }

    /// Late samples of one series.
    pub fn late(&self, slot: u32, from_ms: i64, to_ms: i64, out: &mut Samples) {
        if from_ms > to_ms {
            return;
        }
        for ((_, timestamp_ms), value) in self.late.range((slot, from_ms)..=(slot, to_ms)) {
            match value {
                Value::Float(value) => out.floats.push(super::Sample { timestamp_ms: *timestamp_ms, value: *value }),
                Value::Integer(value) => {
                    out.floats.push(super::Sample { timestamp_ms: *timestamp_ms, value: value.as_f64() });
                }
                Value::Histogram(histogram) => out.histograms.push((*timestamp_ms, histogram.clone())),
            }
        }
    }

    /// Time of the first of the late samples.
    pub fn first_late_ms(&self) -> Option<i64> {
        self.late.keys().map(|(_, at_ms)| *at_ms).min()
    }

    /// Oldest and newest time of anything in the group, tiers included.
    pub fn reach(&self) -> Option<(i64, i64)> {
        let tiers = self.tiers.iter().flat_map(|tiered| tiered.runs.iter()).map(|run| (run.min_ms, run.max_ms));
        tiers.chain(self.span()).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    /// Oldest and newest time of raw samples in the group.
    pub fn span(&self) -> Option<(i64, i64)> {
        let sealed = self.sealed.iter().map(|run| (run.min_ms, run.max_ms));
        let spans = self.runs().filter_map(Run::span).chain(sealed).chain(self.late_span);
        spans.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }
}

fn late_run(late: BTreeMap<(u32, i64), Value>) -> Run {
    let mut by_time: BTreeMap<i64, Vec<(u32, Value)>> = BTreeMap::new();
    for ((slot, at_ms), value) in late {
        by_time.entry(at_ms).or_default().push((slot, value));
    }
    let mut run = Run::new();
    for (at_ms, values) in by_time {
        let Some(tick) = run.stated_tick(at_ms) else { continue };
        for (slot, value) in values {
            run.state(tick, Slot(slot), &value);
        }
    }
    run
}

/// Bytes of a number in the log, at most.
const VALUE_BYTES: usize = 24;

/// The same of any value.
pub(super) fn bytes_of_value(value: &Value) -> usize {
    match value {
        Value::Float(_) | Value::Integer(_) => VALUE_BYTES,
        Value::Histogram(histogram) => VALUE_BYTES + prost::Message::encoded_len(&**histogram),
    }
}

pub(super) fn is_stale(value: &Value) -> bool {
    matches!(value, Value::Float(value) if lampad_proto::is_stale(*value))
}
