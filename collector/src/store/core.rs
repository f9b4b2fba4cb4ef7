//! The store: groups, index and log put together, and what ingest defines there. How a batch is taken is in append.rs.
//!
//! Order of locks: an agent's epochs, the index, groups by ascending number, admission, the log's queue.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::watch;

use super::admit::{Admission, is_own};
use super::blocks::Blocks;
use super::entry;
use super::group::{Group, Mark, State};
use super::index::Index;
use super::keeper::Asked;
use super::log::Log;
use super::names::Names;
use super::sequences::Sequences;
use super::tier::TIERS;
use super::{AgentId, AppendError, GroupId, GroupKey, Lsn, Options, Refused, SequenceSet, SeriesKey, Slot, WriteMode};

/// Silence marks kept per group; a group that falls silent more often within the retention forgets the oldest.
const MARKS_MAX: usize = 4096;

/// The head may be over its bound by one part of so many before those who push are asked to wait.
const HEAD_OVER: u64 = 4;

/// A record of definitions is closed when it is longer; with the last series in it, however many labels that has, it stays
/// far below what a record may have.
const DEFINITIONS_BYTES: usize = 1 << 20;

/// Figures for the collector's own metrics.
#[derive(Debug, Clone, Default)]
pub struct StoreStats {
    pub series: u64,
    /// What names, labels and postings of these take in memory, about.
    pub index_bytes: u64,
    pub groups: u64,
    pub head_bytes: u64,
    pub log_bytes: u64,
    pub log_written_bytes: u64,
    pub log_behind_bytes: u64,
    pub flushes: u64,
    pub flush_seconds: f64,
    pub flush_failures: u64,
    pub refused_samples: u64,
    pub duplicate_frames: u64,
    pub sealed_bytes: u64,
    /// Bytes of the values into which compaction has folded others.
    pub folded_bytes: u64,
    /// Bytes of sealed values that were read.
    pub read_bytes: u64,
    /// Of these, bytes that are kept in memory.
    pub cached_bytes: u64,
    /// Damaged records and values that were stepped over since the start.
    pub damaged: u64,
    pub disk_full: bool,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub refused: AtomicU64,
    pub duplicates: AtomicU64,
    pub damaged: AtomicU64,
    pub sealed_bytes: AtomicU64,
    pub folded_bytes: AtomicU64,
}

/// A definition that is in the log and not in the manifest yet.
#[derive(Debug)]
pub(super) enum Definition {
    Record {
        kind: u8,
        payload: Vec<u8>,
    },
    /// Series by their slots; what they are is in the index, and not here again.
    Series {
        group: GroupId,
        slots: Range<u32>,
    },
}

/// All in memory; the threads share it.
#[derive(Debug)]
pub(super) struct Core {
    pub options: Options,
    pub index: RwLock<Index>,
    pub groups: RwLock<Groups>,
    pub sequences: Sequences,
    pub log: Log,
    pub admission: Mutex<Admission>,
    pub definitions: Mutex<Vec<Definition>>,
    pub counters: Counters,
    /// Bytes of unfrozen and frozen runs.
    pub head_bytes: AtomicU64,
    /// Over so many of them groups are sealed early.
    pub head_most: AtomicU64,
    /// Runs are being sealed at this moment.
    pub sealing: AtomicBool,
    pub blocks: Blocks,
    pub keeper: Asked,
    /// The log is not needed up to this record.
    pub released_lsn: AtomicU64,
    /// Backups that are being made.
    pub pins: AtomicU64,
    /// End of the first window of each tier, [`i64::MAX`] where there is none.
    pub tier_first_ms: [AtomicI64; TIERS.len()],
    pub disk_full: AtomicBool,
    pub closed: AtomicBool,
}

#[derive(Debug, Default)]
pub(super) struct Groups {
    pub all: Vec<Arc<Group>>,
    by_key: std::collections::HashMap<GroupKey, GroupId>,
}

impl Groups {
    pub fn get(&self, group: GroupId) -> Option<&Arc<Group>> {
        self.all.get(group.0 as usize)
    }

    /// The number of a group that is defined already.
    fn known(&self, key: &GroupKey, mode: WriteMode) -> Option<Result<GroupId, Refused>> {
        let known = self.get(*self.by_key.get(key)?)?;
        if known.mode == mode {
            return Some(Ok(known.id));
        }
        let name = &key.name;
        let text = format!("group {name} was defined with writers of the other kind; use another name");
        Some(Err(Refused::Invalid(text)))
    }

    /// Groups are numbered from 0 without a gap.
    pub fn add(&mut self, key: GroupKey, mode: WriteMode) -> GroupId {
        let id = GroupId(self.all.len() as u32);
        self.by_key.insert(key.clone(), id);
        self.all.push(Arc::new(Group { id, key, mode, state: Mutex::new(State::new()) }));
        id
    }
}

impl Core {
    pub fn define_group(&self, key: GroupKey, mode: WriteMode) -> Result<GroupId, Refused> {
        // Most are known, and those must not wait for a writer's turn.
        if let Some(known) = self.groups.read().known(&key, mode) {
            return known;
        }
        let mut groups = self.groups.write();
        if let Some(known) = groups.known(&key, mode) {
            return known;
        }
        self.may_define(is_own(&key, mode))?;
        self.admission.lock().admit_group(&self.options.limits, &key, mode)?;
        let mut payload = Vec::new();
        entry::put_group(&mut payload, GroupId(groups.all.len() as u32), &key, mode);
        self.define(entry::GROUP, payload);
        Ok(groups.add(key, mode))
    }

    fn may_define(&self, own: bool) -> Result<(), Refused> {
        self.may_append(own).map_err(|error| Refused::Unavailable(error.to_string()))
    }

    /// Whether anything is taken now. What the collector says of itself is taken on a disk that is getting full too: it is little,
    /// and tells of just that.
    pub fn may_append(&self, own: bool) -> Result<(), AppendError> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(AppendError::Closed);
        }
        if !own && self.disk_full.load(Ordering::Relaxed) {
            return Err(AppendError::DiskFull);
        }
        if self.log.is_full() {
            return Err(AppendError::Behind { bytes: self.log.behind_bytes() });
        }
        // While nothing can be sealed neither of the two gets shorter, whatever the reason.
        let head = self.head_bytes.load(Ordering::Relaxed);
        let log = self.log.stats().bytes.load(Ordering::Relaxed);
        let head_most = self.head_most.load(Ordering::Relaxed);
        for (what, bytes, most) in [("memory", head, head_most), ("log", log, self.options.log_bytes)] {
            if bytes > most.saturating_add(self.options.unsealed_bytes) {
                return Err(AppendError::Unsealed { what, bytes });
            }
        }
        Ok(())
    }

    /// Whether the head is full while it is being sealed. Where sealing fails there is nothing to wait for: samples are taken until
    /// [`Self::may_append`] says no.
    pub fn is_sealing_behind(&self) -> bool {
        let head_most = self.head_most.load(Ordering::Relaxed);
        let most = head_most.saturating_add(head_most / HEAD_OVER);
        self.sealing.load(Ordering::Relaxed) && self.head_bytes.load(Ordering::Relaxed) > most
    }

    pub fn define(&self, kind: u8, payload: Vec<u8>) {
        let mut definitions = self.definitions.lock();
        self.log.push(kind, &payload, true);
        definitions.push(Definition::Record { kind, payload });
    }

    /// `payload` defines series that have these slots.
    fn define_slots(&self, group: GroupId, slots: Range<u32>, payload: Vec<u8>) {
        let mut definitions = self.definitions.lock();
        self.log.push(entry::NAMES, &payload, true);
        match definitions.last_mut() {
            Some(Definition::Series { group: last, slots: before }) if *last == group && before.end == slots.start => {
                before.end = slots.end;
            }
            _ => definitions.push(Definition::Series { group, slots }),
        }
    }

    pub fn define_series(&self, group: GroupId, series: &[SeriesKey]) -> Vec<Result<Slot, Refused>> {
        let known = self.groups.read().get(group).cloned();
        let refuse = |refused: Refused| series.iter().map(|_| Err(refused.clone())).collect();
        let Some(group) = known else {
            return refuse(Refused::Invalid(format!("group {} is not defined; define it first", group.0)));
        };
        // What is known already is answered whatever the disk does.
        let may_define = self.may_define(is_own(&group.key, group.mode));
        let mut index = self.index.write();
        let mut state = group.state.lock();
        let mut found = Vec::with_capacity(series.len());
        let mut new = Names::new();
        let mut admission = self.admission.lock();
        let now_ms = self.options.clock.now_ms();
        let mut begun = state.series.len() as u32;
        let mut before: Option<&SeriesKey> = None;
        for key in series {
            let is_described = |before: &SeriesKey| before.is_of_family(key);
            if let Some(meta) = key.meta.as_ref().filter(|_| !before.replace(key).is_some_and(is_described)) {
                index.describe(&key.labels, meta);
            }
            let known = index.look_up(&key.labels);
            if let Some(slot) = index.slot(known, group.id) {
                found.push(Ok(slot));
                continue;
            }
            let admitted = may_define.clone().and_then(|()| {
                admission.admit(&self.options.limits, (&group.key, group.mode), key, index.len(), now_ms)
            });
            found.push(admitted.map(|()| {
                let slot = Slot(state.series.len() as u32);
                let series = index.add(known, &key.labels, group.id, slot);
                state.add_slot(series, now_ms);
                new.put(slot, &key.labels, key.meta.as_ref());
                slot
            }));
            if new.len() >= DEFINITIONS_BYTES {
                let names = std::mem::replace(&mut new, Names::new());
                self.define_some(group.id, &mut begun, &state, names);
            }
        }
        self.define_some(group.id, &mut begun, &state, new);
        drop(admission);
        state.fit();
        found
    }

    /// Says what was defined from slot `begun` on.
    fn define_some(&self, group: GroupId, begun: &mut u32, state: &State, names: Names<'_>) {
        let slots = std::mem::replace(begun, state.series.len() as u32)..state.series.len() as u32;
        if let Some(record) = names.record(group) {
            self.define_slots(group, slots, record);
        }
    }

    /// Looks anew how many bytes of samples may be in memory before groups are sealed early.
    pub fn measure_head(&self) -> u64 {
        let of_series = self.options.head_bytes_per_series * self.index.read().len() as u64;
        let most = self.options.head_bytes + of_series;
        self.head_most.store(most, Ordering::Relaxed);
        most
    }

    /// Samples before this are gone.
    pub fn oldest_ms(&self, now_ms: i64) -> i64 {
        match self.options.retention {
            Duration::ZERO => i64::MIN,
            retention => now_ms.saturating_sub(i64::try_from(retention.as_millis()).unwrap_or(i64::MAX)),
        }
    }

    pub fn silence(&self, agent: AgentId, at_ms: i64) {
        let groups: Vec<Arc<Group>> = {
            let groups = self.groups.read();
            let of_agent = |group: &&Arc<Group>| group.key.agent == agent && group.mode == WriteMode::Delta;
            groups.all.iter().filter(of_agent).cloned().collect()
        };
        let mut states: Vec<(GroupId, MutexGuard<'_, State>)> =
            groups.iter().map(|group| (group.id, group.state.lock())).collect();
        states.retain(|(_, state)| state.may_mark());
        if states.is_empty() {
            return;
        }
        // The mark stands behind the last tick also where the agent's clock is ahead of ours.
        let mut by_time: BTreeMap<i64, Vec<(GroupId, i64)>> = BTreeMap::new();
        for (id, state) in &states {
            by_time.entry(at_ms.max(state.last_ms.saturating_add(1))).or_default().push((*id, state.last_ms));
        }
        let mut lsn = 0;
        for (at_ms, marked) in &by_time {
            let mut payload = Vec::new();
            entry::put_silence(&mut payload, *at_ms, marked);
            lsn = self.log.push(entry::SILENCE, &payload, true);
        }
        for (_, state) in &mut states {
            let after_ms = state.last_ms;
            state.mark(Mark { after_ms, at_ms: at_ms.max(after_ms.saturating_add(1)) }, lsn);
        }
    }

    pub fn stored(&self, agent: AgentId, epoch: u64) -> SequenceSet {
        self.sequences.stored(agent, epoch)
    }

    pub fn durable(&self) -> watch::Receiver<Lsn> {
        self.log.durable()
    }

    pub fn stats(&self) -> StoreStats {
        let log = self.log.stats();
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let groups = self.groups.read().all.len();
        let (series, index_bytes) = {
            let index = self.index.read();
            (index.len(), index.bytes())
        };
        StoreStats {
            series: series as u64,
            index_bytes: index_bytes as u64,
            groups: groups as u64,
            head_bytes: get(&self.head_bytes),
            log_bytes: get(&log.bytes),
            log_written_bytes: get(&log.written_bytes),
            log_behind_bytes: self.log.behind_bytes(),
            flushes: get(&log.flushes),
            flush_seconds: get(&log.flush_micros) as f64 / 1e6,
            flush_failures: get(&log.failures),
            refused_samples: get(&self.counters.refused),
            duplicate_frames: get(&self.counters.duplicates),
            sealed_bytes: get(&self.counters.sealed_bytes),
            folded_bytes: get(&self.counters.folded_bytes),
            read_bytes: self.blocks.read_bytes(),
            cached_bytes: self.blocks.cached_bytes() as u64,
            damaged: get(&self.counters.damaged) + self.blocks.damaged(),
            disk_full: self.disk_full.load(Ordering::Relaxed),
        }
    }
}

impl State {
    /// Whether a mark says something new: the group has ticks, and none of its marks stands after the last one.
    fn may_mark(&self) -> bool {
        self.last_ms != i64::MIN && self.marks.iter().all(|mark| mark.after_ms != self.last_ms)
    }

    pub fn mark(&mut self, mark: Mark, lsn: u64) {
        // The manifest may have brought back more.
        if self.marks.len() >= MARKS_MAX {
            self.marks.drain(..=self.marks.len() - MARKS_MAX);
        }
        self.marks.push(mark);
        self.marks_unsaved.push(mark);
        self.lsn = self.lsn.max(lsn);
    }
}
