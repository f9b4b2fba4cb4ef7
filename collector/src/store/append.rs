//! A batch on its way into memory and log: which of its samples are taken, and the record that says so.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use super::admit::is_own;
use super::core::Core;
use super::entry;
use super::group::{AHEAD_MS_MAX, Group, Reject, State, Window, bytes_of_value};
use super::{AppendError, Batch, GroupId, Lsn, Refused, Run, Slot, TickBatch, WriteMode};

/// Longest record that a batch may make. Half of what a record may have at most: a tick that is completed grows.
const RECORD_BYTES_MAX: usize = lampad_proto::record::PAYLOAD_BYTES_MAX / 2;

/// Bytes of a tick in a record beside those of its values, at most.
const TICK_BYTES: usize = 32;

/// What came of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Appended {
    /// Once the durable position has reached this, the batch survives a crash.
    pub lsn: Lsn,
    /// The frame was stored before; nothing was stored now.
    pub duplicate: bool,
    pub refused: Vec<(GroupId, Slot, Refused)>,
}

impl Core {
    pub fn append(&self, batch: &Batch) -> Result<Appended, AppendError> {
        let is_own = self.is_own(batch);
        self.may_append(is_own)?;
        let bytes = bytes_of(batch);
        let Some(frame) = batch.frame else { return self.store_cut(batch, bytes, is_own) };
        if bytes > RECORD_BYTES_MAX && !self.is_stated(batch) {
            return Err(AppendError::TooLarge { bytes, most: RECORD_BYTES_MAX });
        }
        let epochs = self.sequences.agent(frame.agent, frame.epoch);
        let mut epochs = epochs.lock();
        if epochs.contains(frame.epoch, frame.sequence) {
            self.counters.duplicates.fetch_add(1, Ordering::Relaxed);
            return Ok(Appended { lsn: Lsn(self.log.last_lsn()), duplicate: true, refused: Vec::new() });
        }
        let appended = self.store_cut(batch, bytes, false)?;
        epochs.insert(frame.epoch, frame.sequence, frame.sequence);
        Ok(appended)
    }

    /// Whether the collector itself says this. Frames are others'.
    fn is_own(&self, batch: &Batch) -> bool {
        if batch.frame.is_some() || batch.ticks.is_empty() {
            return false;
        }
        let groups = self.groups.read();
        batch.ticks.iter().all(|tick| groups.get(tick.group).is_some_and(|group| is_own(&group.key, group.mode)))
    }

    fn is_stated(&self, batch: &Batch) -> bool {
        let groups = self.groups.read();
        batch.ticks.iter().all(|tick| groups.get(tick.group).is_none_or(|group| group.mode == WriteMode::Stated))
    }

    /// Stores a batch, in several records where one would be too long. The last one says whose frame it was: where only some are
    /// durable before a crash, the frame comes again, and what is stated twice is stored once.
    fn store_cut(&self, batch: &Batch, bytes: usize, is_own: bool) -> Result<Appended, AppendError> {
        if bytes <= RECORD_BYTES_MAX {
            return self.store(batch, bytes, is_own);
        }
        let mut refused = Vec::new();
        let mut part = Batch::default();
        let mut bytes = 0;
        for tick in &batch.ticks {
            let stated = self.groups.read().get(tick.group).is_some_and(|group| group.mode == WriteMode::Stated);
            // Samples that are stated may come in two ticks of one time.
            for values in tick.values.chunks(if stated { 1 } else { usize::MAX }) {
                let more = values.iter().map(|(_, value)| bytes_of_value(value)).sum::<usize>();
                if TICK_BYTES + more > RECORD_BYTES_MAX {
                    // No record can hold it: it would be refused for ever, and all beside it.
                    refused.extend(values.iter().map(|(slot, _)| self.oversized(tick.group, *slot, more)));
                    continue;
                }
                if bytes + TICK_BYTES + more > RECORD_BYTES_MAX {
                    refused.extend(self.store(&std::mem::take(&mut part), bytes, is_own)?.refused);
                    bytes = 0;
                }
                if !part.ticks.last().is_some_and(|last| stated && last.is_beside(tick)) {
                    part.ticks.push(tick.clone_head());
                    bytes += TICK_BYTES;
                }
                let last = part.ticks.last_mut().into_iter();
                last.for_each(|last| last.values.extend_from_slice(values));
                bytes += more;
            }
        }
        part.frame = batch.frame;
        let appended = self.store(&part, bytes, is_own)?;
        refused.extend(appended.refused);
        Ok(Appended { refused, ..appended })
    }

    fn oversized(&self, group: GroupId, slot: Slot, bytes: usize) -> (GroupId, Slot, Refused) {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        let reason = format!("{bytes} bytes in one tick are too many; send histograms of fewer buckets");
        (group, slot, Refused::Limit { series: self.labels_text(group, slot), reason })
    }

    /// `bytes` is what it takes in the log at most.
    fn store(&self, batch: &Batch, bytes: usize, is_own: bool) -> Result<Appended, AppendError> {
        let groups = self.groups_of(batch)?;
        let mut states: Vec<(GroupId, &Group, MutexGuard<'_, State>)> =
            groups.iter().map(|group| (group.id, &**group, group.state.lock())).collect();
        check_bases(batch, &states)?;
        check_completion(batch, bytes, &mut states)?;
        let now_ms = self.options.clock.now_ms();
        let window =
            Window { now_ms, oldest_ms: self.oldest_ms(now_ms), newest_ms: now_ms.saturating_add(AHEAD_MS_MAX) };
        // Records are numbered under the groups' locks, so the log has the order in which each group saw its ticks. The
        // number is not known before; one that is too low only keeps the log longer.
        let floor = self.log.last_lsn() + 1;
        let mut payload =
            Vec::with_capacity(64 + batch.ticks.iter().map(|tick| 16 + tick.values.len() * 8).sum::<usize>());
        entry::put_batch_head(&mut payload, batch.frame.as_ref(), batch.ticks.len());
        let mut rejected = Vec::new();
        for tick in &batch.ticks {
            let Ok(at) = states.binary_search_by_key(&tick.group, |(id, ..)| *id) else { continue };
            let (_, group, state) = &mut states[at];
            let outcome = state.tick(group.mode, tick, window, floor);
            // Less where what waited takes less in its columns: as two's complement the sum is right all the same.
            self.head_bytes.fetch_add(state.grown_bytes() as u64, Ordering::Relaxed);
            if let Some(whole) = &outcome.whole {
                entry::put_tick_head(&mut payload, tick, true, whole.len());
                entry::put_values(&mut payload, whole.iter().map(|(slot, value)| (slot.0, value)));
            } else {
                put_tick(&mut payload, tick, &outcome.rejected);
            }
            rejected.extend(outcome.rejected.into_iter().map(|(value, reject)| (tick, value, reject)));
        }
        let lsn = self.log.push(entry::BATCH, &payload, !is_own);
        for (_, _, state) in &mut states {
            state.lsn = lsn;
        }
        drop(states);
        let refused = rejected.into_iter().map(|(tick, value, reject)| self.refused(tick, value, reject)).collect();
        Ok(Appended { lsn: Lsn(lsn), duplicate: false, refused })
    }

    /// The batch's groups, ascending, each once.
    fn groups_of(&self, batch: &Batch) -> Result<Vec<Arc<Group>>, AppendError> {
        let mut ids: Vec<GroupId> = batch.ticks.iter().map(|tick| tick.group).collect();
        ids.sort_unstable();
        ids.dedup();
        let groups = self.groups.read();
        ids.into_iter().map(|id| groups.get(id).cloned().ok_or(AppendError::UnknownGroup(id.0))).collect()
    }

    fn refused(&self, tick: &TickBatch, value: usize, reject: Reject) -> (GroupId, Slot, Refused) {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        let slot = tick.values[value].0;
        let timestamp_ms = tick.timestamp_ms;
        let series = self.labels_text(tick.group, slot);
        let refused = match reject {
            Reject::Undefined => Refused::Invalid(format!(
                "slot {} of group {} names no series (any more); define the series first",
                slot.0, tick.group.0
            )),
            Reject::TooOld => Refused::TooOld { series, timestamp_ms },
            Reject::TooNew => Refused::TooNew { series, timestamp_ms },
            Reject::Duplicate => Refused::Duplicate { series, timestamp_ms },
        };
        (tick.group, slot, refused)
    }

    fn labels_text(&self, group: GroupId, slot: Slot) -> String {
        let group = self.groups.read().get(group).cloned();
        let series = group.and_then(|group| group.state.lock().series.get(slot.0 as usize).copied());
        let index = self.index.read();
        match series.and_then(|series| index.labels(series)) {
            Some(labels) => labels.to_string(),
            None => "an unknown series".to_owned(),
        }
    }
}

fn bytes_of(batch: &Batch) -> usize {
    batch.ticks.iter().map(bytes_of_tick).sum()
}

/// Bytes of a tick in the log, at most.
fn bytes_of_tick(tick: &TickBatch) -> usize {
    TICK_BYTES + tick.values.iter().map(|(_, value)| bytes_of_value(value)).sum::<usize>()
}

/// The first tick of a lane in a batch must be a key tick where the store lacks what it builds on.
fn check_bases(batch: &Batch, states: &[(GroupId, &Group, MutexGuard<'_, State>)]) -> Result<(), AppendError> {
    for (at, tick) in batch.ticks.iter().enumerate().filter(|(_, tick)| !tick.key) {
        let Ok(found) = states.binary_search_by_key(&tick.group, |(id, ..)| *id) else { continue };
        let (_, group, state) = &states[found];
        let of_lane = |other: &TickBatch| other.group == tick.group && other.run == tick.run;
        if group.mode == WriteMode::Delta && state.needs_key(tick.run) && !batch.ticks[..at].iter().any(of_lane) {
            return Err(AppendError::NeedsKey(group.key.name.clone()));
        }
    }
    Ok(())
}

/// Ticks of one group and lane ascend, so that at most two of them are completed; and with what is added then the record stays
/// within what a replay reads. Asked before anything is changed: what is in memory and not in the log would be acked.
fn check_completion(
    batch: &Batch,
    mut bytes: usize,
    states: &mut [(GroupId, &Group, MutexGuard<'_, State>)],
) -> Result<(), AppendError> {
    let mut last_ms: HashMap<(GroupId, Run), i64, foldhash::fast::RandomState> = HashMap::default();
    for tick in &batch.ticks {
        let Ok(found) = states.binary_search_by_key(&tick.group, |(id, ..)| *id) else { continue };
        let (_, group, state) = &mut states[found];
        if group.mode != WriteMode::Delta {
            continue;
        }
        match last_ms.insert((tick.group, tick.run), tick.timestamp_ms) {
            None => bytes += state.completion_bytes(tick),
            Some(last_ms) if last_ms < tick.timestamp_ms => {}
            Some(_) => return Err(AppendError::Unordered(group.key.name.clone())),
        }
        if bytes > lampad_proto::record::PAYLOAD_BYTES_MAX - (1 << 20) {
            // A key tick says what there is room for, and the rest is refused by name.
            return Err(AppendError::NeedsKey(group.key.name.clone()));
        }
    }
    Ok(())
}

fn put_tick(out: &mut Vec<u8>, tick: &TickBatch, rejected: &[(usize, Reject)]) {
    // A Stated tick of which nothing was taken must not come back as a tick either; neither must one that is too old.
    entry::put_tick_head(out, tick, tick.key, tick.values.len() - rejected.len());
    if rejected.is_empty() {
        return entry::put_values(out, tick.values.iter().map(|(slot, value)| (slot.0, value)));
    }
    let rejected: std::collections::HashSet<usize> = rejected.iter().map(|(at, _)| *at).collect();
    let kept = tick.values.iter().enumerate().filter(|(at, _)| !rejected.contains(at));
    entry::put_values(out, kept.map(|(_, (slot, value))| (slot.0, value)));
}
