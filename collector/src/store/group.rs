//! A group in memory: the run that grows, late runs beside it, what is frozen and waits to be sealed, and where the sealed
//! runs lie. One lock per group; a select sees all of it in one state.

mod freeze;
mod intake;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use roaring::RoaringBitmap;

pub(super) use self::intake::bytes_of_value;
use super::base::Base;
use super::block::SealedRun;
use super::column::Samples;
use super::erase::Erased;
use super::newest::Newest;
use super::run::{Carried, Run};
use super::tier::{TIERS, Tiered};
use super::{GroupId, GroupKey, Slot, Value, WriteMode};

/// Samples of a writer that states them may be this far ahead of the collector's clock.
pub(super) const AHEAD_MS_MAX: i64 = 10 * 60 * 1000;

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
    /// Whether any is: mostly none, and then a slot is known by its number.
    has_forgotten: bool,
    /// Per slot, until when it had samples when last looked at.
    pub seen_ms: Vec<i64>,
    /// Slots of which the manifest says, or is about to say, that they had ended when they were last frozen.
    pub ended: RoaringBitmap,
    /// After a start it is not known which of the others went on: the first run that is frozen tells.
    unsure: bool,
    pub live: Newest,
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
    /// Bytes of what is not frozen, as the store has counted them.
    counted_bytes: usize,
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
            has_forgotten: false,
            seen_ms: Vec::new(),
            ended: RoaringBitmap::new(),
            unsure: false,
            live: Newest::new(),
            carried: Vec::new(),
            present: Arc::default(),
            overlays: Vec::new(),
            live_base: Base::Newest,
            late_base: Base::Lost,
            late: BTreeMap::new(),
            late_lsn: 0,
            late_bytes: 0,
            late_span: None,
            counted_bytes: 0,
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
        self.has_forgotten |= series == FORGOTTEN;
        self.seen_ms.push(now_ms);
    }

    /// Gives back what is kept free for more slots: most groups get theirs at once.
    pub fn fit(&mut self) {
        self.series.shrink_to_fit();
        self.seen_ms.shrink_to_fit();
    }

    /// Takes a slot's series away, and says which it was.
    pub fn forget(&mut self, slot: Slot) -> Option<u32> {
        let series = self.series.get_mut(slot.0 as usize).filter(|series| **series != FORGOTTEN)?;
        self.has_forgotten = true;
        Some(std::mem::replace(series, FORGOTTEN))
    }

    pub fn is_defined(&self, slot: Slot) -> bool {
        let slot = slot.0 as usize;
        slot < self.series.len() && (!self.has_forgotten || self.series[slot] != FORGOTTEN)
    }

    /// Bytes that the group's unfrozen data takes.
    pub fn bytes(&self) -> usize {
        self.live.bytes() + self.overlays.iter().map(Run::bytes).sum::<usize>() + self.late_bytes
    }

    /// By how much these have grown since last asked.
    pub fn grown_bytes(&mut self) -> isize {
        let bytes = self.bytes();
        bytes as isize - std::mem::replace(&mut self.counted_bytes, bytes) as isize
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
    pub fn is_in_head(&mut self, slot: u32) -> bool {
        self.live.settled_for(&[Slot(slot)]);
        self.runs().any(|run| run.column(slot).is_some())
            || self.carried.binary_search_by_key(&slot, |carried| carried.slot).is_ok()
            || self.live_base.keeps(slot)
            || self.late_base.keeps(slot)
            || self.late.range((slot, i64::MIN)..=(slot, i64::MAX)).next().is_some()
    }

    /// The last sample of a series that goes on, with no mark upon it.
    pub fn current(&mut self, slot: u32) -> Option<(i64, Value)> {
        let live = self.live.settled_for(&[Slot(slot)]);
        let carried = || {
            let at = self.carried.binary_search_by_key(&slot, |carried| carried.slot).ok()?;
            Some((self.carried[at].timestamp_ms, self.carried[at].value.clone()))
        };
        let newest = live.current(slot).or_else(|| live.column(slot).is_none().then(carried).flatten())?;
        let silent = self.marks.iter().any(|mark| mark.after_ms >= newest.0);
        (!silent && !is_stale(&newest.1)).then_some(newest)
    }

    /// Whether late data lies beside the run that grows, so that the newest value needs a merge.
    pub fn is_plain(&self) -> bool {
        self.overlays.is_empty()
            && self.late.is_empty()
            && self.frozen.iter().flat_map(|frozen| &frozen.runs).all(|run| run.live)
    }

    /// Runs in memory in the order in which they were stored. In the columns of the newest one some points may lack.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.frozen.iter().flat_map(|frozen| &frozen.runs).chain([self.live.unsettled()]).chain(&self.overlays)
    }

    /// Those of them that still change, with all points of these slots.
    pub fn growing(&mut self, slots: &[Slot]) -> impl Iterator<Item = &Run> {
        [self.live.settled_for(slots)].into_iter().chain(&self.overlays)
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
        self.late_span.map(|(first_ms, _)| first_ms)
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

pub(super) fn is_stale(value: &Value) -> bool {
    matches!(value, Value::Float(value) if lampad_proto::is_stale(*value))
}
