//! A checkpoint: frozen runs become blocks, the manifest names them, the log is released; in this order (rule 6).
//!
//! 1. blocks into the engine, flush;
//! 2. the log is flushed, so that nothing is in the manifest that a crash could take from the log;
//! 3. manifest entry, flush;
//! 4. segments of the log that nothing needs are deleted.
//!
//! A crash between any two leaves what was there before: values that no manifest names are written over, and the log is
//! replayed.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::backup::Moment;
use super::block::{Address, Packer, SealedRun};
use super::compact::{Compacted, CompactedGroup};
use super::core::{Core, Definition};
use super::disk::Engine;
use super::entry;
use super::group::{AHEAD_MS_MAX, FORGOTTEN, Frozen, Group, State, is_stale};
use super::index::Index;
use super::log;
use super::manifest::{Manifest, Transaction, present_payload};
use super::run::Run;
use super::thin::{Places, Thinned, ThinnedGroup};
use super::tier::{TIERS, raw_name, tier_of};
use super::{GroupId, Options, SeriesKey, Slot, WriteMode};

/// Longest wait for the log within a checkpoint.
const LOG_WITHIN: Duration = Duration::from_secs(30);

/// Sealed values are handed to the engine when they are so many bytes.
const PUT_BYTES: usize = 1024 * 1024;

/// Series definitions per record.
const SERIES_PER_RECORD: usize = 512;

/// Frozen data of a group with what became of it.
struct Sealing {
    group: Arc<Group>,
    frozen: Arc<Frozen>,
    runs: Vec<Arc<SealedRun>>,
    /// Who went on after it, for the manifest: without it a restart could not tell which series have ended meanwhile.
    present: Option<Arc<[u8]>>,
}

impl Sealing {
    fn new(group: &Arc<Group>, frozen: Arc<Frozen>) -> Self {
        let newest = frozen.runs.iter().find(|run| run.live);
        let present = newest.and_then(|run| {
            let last_ms = run.last_ms()?;
            let mut present = run.present();
            if group.mode == WriteMode::Stated {
                // One time is kept for all, and of these series nobody knows more than the samples that were stated.
                present.retain(|carried| carried.timestamp_ms == last_ms && !is_stale(&carried.value));
            }
            Some(present_payload(group.id, last_ms, &present).into())
        });
        Self { group: group.clone(), frozen, runs: Vec::new(), present }
    }
}

/// What the retention took from a group's memory.
pub(super) struct Forgotten {
    pub group: GroupId,
    pub slots: Vec<u32>,
    /// Who was present is too long ago to matter.
    pub present: bool,
    /// Tiers that are switched off: of this group nothing is built any more.
    pub tiers: Vec<usize>,
    /// Runs that are too old. Queries that began before may still read them.
    pub expired: Vec<Arc<SealedRun>>,
}

#[derive(Debug)]
pub(super) struct Sealer {
    pub engine: Arc<dyn Engine>,
    pub manifest: Manifest,
    /// Where new values go, and the next number there.
    pub partition: Option<(u32, u32)>,
    /// The same of each tier.
    pub tiers: Places,
    /// An earlier checkpoint took things out of memory's lists and failed: the next manifest must say everything.
    pub say_everything: bool,
    /// The manifest was damaged once: what it does not name may hold samples all the same.
    pub names_lost: bool,
    /// Partitions that came of compaction, with the name of the first of those that were folded into it.
    pub whole: BTreeMap<u32, u32>,
    /// Where a compaction writes; the manifest does not name it yet.
    pub compacting_into: Option<u32>,
    /// Where tiers are being built.
    pub building: Places,
    /// Runs that were folded into others or are too old. Queries that began before may still read them.
    pub retired: Vec<Arc<SealedRun>>,
}

impl Sealer {
    pub fn checkpoint(&mut self, core: &Core) -> io::Result<()> {
        let mut sealing = frozen_of(core);
        if !sealing.is_empty() {
            self.write_blocks(core, &mut sealing)?;
        }
        self.write_manifest(core, &sealing, Transaction::default())?;
        for Sealing { group, frozen, runs, present } in sealing {
            group.state.lock().publish(&frozen, runs, present);
            core.head_bytes.fetch_sub(frozen.bytes as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    fn write_blocks(&mut self, core: &Core, sealing: &mut [Sealing]) -> io::Result<()> {
        let (partition, number) = self.current_partition(core);
        let mut packer = Packer::new(partition, number);
        let mut written = Ok(());
        for Sealing { group, frozen, runs, .. } in sealing.iter_mut() {
            for run in &frozen.runs {
                let order = by_labels(core, group, run, |slot| slot);
                runs.extend(packer.run(group.id.0, run, &order).into_iter().map(Arc::new));
            }
            if packer.closed_bytes() >= PUT_BYTES {
                written = written.and_then(|()| self.put(core, partition, &mut packer));
            }
        }
        let next = packer.finish();
        written = written.and_then(|()| self.put(core, partition, &mut packer));
        if let Err(error) = written.and_then(|()| self.engine.flush(partition)) {
            // A damaged database would fail for ever; a full disk is no fault of the database, which the engine opens anew.
            if error.kind() != io::ErrorKind::StorageFull {
                self.partition = Some((self.free_name(partition), 0));
            }
            return Err(error);
        }
        self.partition = Some((partition, next));
        Ok(())
    }

    fn put(&self, core: &Core, partition: u32, packer: &mut Packer) -> io::Result<()> {
        let values = std::mem::take(&mut packer.values);
        self.engine.put(partition, &values)?;
        let bytes: usize = values.iter().map(|(_, value)| value.len()).sum();
        core.counters.sealed_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }

    fn current_partition(&self, core: &Core) -> (u32, u32) {
        let now_s = u32::try_from(core.options.clock.now_ms() / 1000).unwrap_or(0);
        let (_, span_s) = Self::spans_s(&core.options);
        match self.partition {
            // Begun while the clock was far ahead: it would grow until the clock gets there.
            Some((partition, _)) if partition.saturating_sub(now_s) > span_s => {
                (self.free_name(now_s.saturating_sub(1)), 0)
            }
            Some((partition, number)) if now_s.saturating_sub(partition) < span_s => (partition, number),
            Some((partition, _)) => (raw_name(now_s.max(partition + 1)), 0),
            None => (raw_name(now_s), 0),
        }
    }

    /// The name below which partitions of raw samples do not grow any more. One that has had its time is closed even though
    /// nothing has come since.
    pub fn closed_below(&mut self, core: &Core) -> u32 {
        if let Some((begun, _)) = self.partition
            && self.current_partition(core).0 != begun
        {
            self.close_partition();
        }
        self.partition.map_or(0, |(begun, _)| begun)
    }

    /// Where what is built of the tiers now goes.
    pub fn tier_places(&self, core: &Core) -> Places {
        let now_ms = core.options.clock.now_ms();
        std::array::from_fn(|tier| {
            let retention = core.options.tiers[tier]?;
            Some(TIERS[tier].partition(now_ms, self.tiers[tier], retention))
        })
    }

    /// Writes a manifest entry and releases the log. Of what is handed over in lists, a failure makes the next entry say
    /// everything instead.
    fn write_manifest(&mut self, core: &Core, sealing: &[Sealing], mut extra: Transaction) -> io::Result<()> {
        let everything = std::mem::replace(&mut self.say_everything, true) || self.manifest.wants_rewrite();
        let seen_lsn = core.log.last_lsn();
        let mut transaction = Transaction::default();
        let definitions = std::mem::take(&mut *core.definitions.lock());
        if !everything {
            say_new(core, definitions, &mut transaction);
        }
        let mut released_lsn = seen_lsn;
        let groups: Vec<Arc<Group>> = core.groups.read().all.clone();
        for group in &groups {
            let mut state = group.state.lock();
            let unsaved = std::mem::take(&mut state.marks_unsaved);
            if !everything && !unsaved.is_empty() {
                transaction.marks(group.id, &unsaved);
            }
            let of_group = sealing.iter().filter(|sealing| sealing.group.id == group.id);
            let of_group: Vec<Arc<Frozen>> = of_group.map(|sealing| sealing.frozen.clone()).collect();
            if let Some(first) = state.first_lsn(&of_group) {
                released_lsn = released_lsn.min(first.saturating_sub(1));
            }
        }
        for (agent, epochs) in core.sequences.all() {
            let mut epochs = epochs.lock();
            if std::mem::take(&mut epochs.unsaved) && !everything {
                transaction.frames(agent, &epochs);
            }
        }
        if everything {
            // After the lists were emptied: what comes in between is said here, and once more the next time.
            self.say_everything(core, &mut transaction);
        }
        for Sealing { group, frozen, runs, present } in sealing {
            runs.iter().for_each(|run| transaction.run(group.id, frozen.last_lsn, run));
            transaction.seen(group.id, &frozen.seen);
            present.iter().for_each(|present| transaction.present(present));
        }
        transaction.append(&mut extra);
        if !core.log.flush(LOG_WITHIN) {
            return Err(io::Error::other("the log does not become durable"));
        }
        if everything {
            self.manifest.rewrite(transaction, released_lsn)?;
        } else if !transaction.is_empty() {
            self.manifest.append(transaction, released_lsn)?;
        }
        self.say_everything = false;
        core.released_lsn.store(released_lsn, Ordering::Relaxed);
        core.log.release(released_lsn);
        Ok(())
    }

    /// How many seconds a partition that comes of compaction may span, and one that grows. The former: at most an eighth of the
    /// space waits for its neighbours to grow old. The latter is short, so that what was sealed early is soon folded.
    pub fn spans_s(options: &Options) -> (u32, u32) {
        const HOUR_S: u64 = 3600;
        let (whole, part) = match options.retention.as_secs() {
            0 => (24 * HOUR_S, 2 * HOUR_S),
            retention => {
                // See `Options::seal_after`.
                let least = HOUR_S.min(retention / 4).max(1);
                ((retention / 8).clamp(HOUR_S, 24 * HOUR_S), (retention / 96).clamp(least, 2 * HOUR_S))
            }
        };
        (whole as u32, part as u32)
    }

    /// The next checkpoint begins a partition, whose name this is; one name before it stays free.
    pub fn close_partition(&mut self) -> Option<u32> {
        self.partition = self.partition.map(|(begun, _)| (begun.saturating_add(2), 0));
        self.partition.map(|(begun, _)| begun)
    }

    /// The first name after this one that nothing has.
    fn free_name(&self, after: u32) -> u32 {
        let mut taken: HashSet<u32> = self.engine.partitions().unwrap_or_default().into_iter().collect();
        taken.extend(self.compacting_into);
        let free = |name: &u32| tier_of(*name).is_none() && !taken.contains(name);
        (after.saturating_add(1)..=u32::MAX).find(free).unwrap_or(u32::MAX)
    }

    /// A name for a partition that holds what lay in `from`: between these and the next one.
    pub fn name_after(&self, from: &[u32]) -> io::Result<u32> {
        let growing = self.tiers.iter().copied().chain([self.partition]).flatten().map(|(begun, _)| begun);
        let taken: HashSet<u32> = self.engine.partitions()?.into_iter().chain(growing).collect();
        let after = from.iter().max().map_or(0, |last| last.saturating_add(1));
        (after..=u32::MAX)
            .find(|name| !taken.contains(name))
            .ok_or_else(|| io::Error::other("no partition name is free"))
    }

    /// Makes what came of a compaction count. On failure nothing is known of what the manifest says, so the same must be
    /// published again.
    pub fn publish(&mut self, core: &Core, compacted: &Compacted) -> io::Result<()> {
        let mut transaction = Transaction::default();
        for CompactedGroup { group, old, new } in &compacted.groups {
            transaction.folded(group.id, old, new);
        }
        let begun = |name: &u32| self.whole.get(name).copied().unwrap_or(*name);
        let begun = compacted.from.iter().map(begun).min().unwrap_or(compacted.into);
        transaction.whole(compacted.into, begun);
        self.write_manifest(core, &[], transaction)?;
        for CompactedGroup { group, old, new } in &compacted.groups {
            let heads: HashSet<Address> = old.iter().map(|run| run.head).collect();
            group.state.lock().replace_sealed(&heads, new.clone());
            self.retired.extend(old.iter().cloned());
        }
        self.whole.insert(compacted.into, begun);
        self.compacting_into = None;
        Ok(())
    }

    /// Makes what was built of the tiers count; on failure as [`Self::publish`].
    pub fn publish_tiers(&mut self, core: &Core, thinned: &Thinned) -> io::Result<()> {
        let mut transaction = Transaction::default();
        for ThinnedGroup { group, tier, until_ms, runs } in &thinned.groups {
            runs.iter().for_each(|run| transaction.run(group.id, 0, run));
            transaction.tiered(group.id, *tier, *until_ms, thinned.through);
        }
        self.write_manifest(core, &[], transaction)?;
        for ThinnedGroup { group, tier, until_ms, runs } in &thinned.groups {
            let mut state = group.state.lock();
            let tiered = &mut state.tiers[*tier];
            Arc::make_mut(&mut tiered.runs).extend(runs.iter().cloned());
            (tiered.until_ms, tiered.through) = (*until_ms, thinned.through);
        }
        self.tiers = thinned.places;
        self.building = Places::default();
        Ok(())
    }

    /// All that a manifest says, but for what a checkpoint under way adds.
    fn say_everything(&self, core: &Core, transaction: &mut Transaction) {
        say_definitions(core, transaction);
        let groups: Vec<Arc<Group>> = core.groups.read().all.clone();
        for group in &groups {
            let state = group.state.lock();
            state.sealed.iter().for_each(|run| transaction.run(group.id, state.sealed_lsn, run));
            for (tier, tiered) in state.tiers.iter().enumerate().filter(|(_, tiered)| !tiered.is_unused()) {
                tiered.runs.iter().for_each(|run| transaction.run(group.id, 0, run));
                transaction.tiered(group.id, tier, tiered.until_ms, tiered.through);
            }
            transaction.seen(group.id, &state.all_seen());
            if !state.present.is_empty() {
                transaction.present(&state.present);
            }
            if !state.marks.is_empty() {
                transaction.marks(group.id, &state.marks);
            }
            for erased in state.erased.iter() {
                let mut payload = Vec::new();
                entry::put_erase(&mut payload, group.id, erased);
                transaction.raw(entry::ERASE, &payload);
            }
        }
        for (agent, epochs) in core.sequences.all() {
            transaction.frames(agent, &epochs.lock());
        }
        self.whole.iter().for_each(|(partition, begun)| transaction.whole(*partition, *begun));
    }

    /// The store between two checkpoints, for a backup. The files of the log are opened when all that the manifest says is
    /// durable in them; what they say beyond it is replayed.
    pub fn moment(&self, core: &Core, log: &Path) -> io::Result<Moment> {
        let mut transaction = Transaction::default();
        self.say_everything(core, &mut transaction);
        let groups: Vec<Arc<Group>> = core.groups.read().all.clone();
        // Who holds a run keeps its partition.
        let runs =
            groups.iter().flat_map(|group| group.state.lock().all_sealed().cloned().collect::<Vec<_>>()).collect();
        if !core.log.flush(LOG_WITHIN) {
            return Err(io::Error::other("the log does not become durable"));
        }
        let mut files = Vec::new();
        for (_, path, _) in log::segments(log)? {
            let file = File::open(&path)?;
            let length = file.metadata()?.len();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            files.push((name, file, length));
        }
        let released_lsn = core.released_lsn.load(Ordering::Relaxed);
        Ok(Moment { manifest: transaction.into_file(released_lsn), log: files, runs })
    }

    /// Makes durable what was forgotten, and deletes the partitions in which no run lies any more.
    pub fn drop_old(&mut self, core: &Core, mut forgotten: Vec<Forgotten>, oldest_ms: i64) -> io::Result<()> {
        forgotten.iter_mut().for_each(|group| self.retired.append(&mut group.expired));
        // Once nobody else holds a run, nobody will ask for its partition.
        self.retired.retain(|run| Arc::strong_count(run) > 1);
        let growing = self.tiers.iter().chain(&self.building).chain([&self.partition]).flatten();
        let mut used: HashSet<u32> = growing.map(|(partition, _)| *partition).collect();
        used.extend(self.compacting_into);
        used.extend(self.retired.iter().flat_map(|run| run.parts.iter().chain([&run.head])).map(|at| at.partition));
        for group in &core.groups.read().all {
            used.extend(group.state.lock().all_sealed().map(|run| run.head.partition));
        }
        let mut partitions = self.engine.partitions()?;
        partitions.sort_unstable();
        // All of a partition was sealed before the next one began, and so are its samples older than that. What a tier holds
        // that nobody names stays until a repair.
        let outlived = |partition: &u32| {
            let next = partitions.iter().find(|next| *next > partition).filter(|_| tier_of(*partition).is_none());
            next.is_some_and(|next| i64::from(*next) * 1000 + AHEAD_MS_MAX < oldest_ms)
        };
        let unused = partitions.iter().filter(|partition| !used.contains(partition));
        // A backup reads: what is too old waits for its end.
        let may = core.pins.load(Ordering::SeqCst) == 0;
        let old: Vec<u32> =
            unused.filter(|partition| may && (!self.names_lost || outlived(partition))).copied().collect();
        let mut transaction = Transaction::default();
        for Forgotten { group, slots, present, tiers, .. } in &forgotten {
            tiers.iter().for_each(|tier| transaction.tiered(*group, *tier, i64::MIN, 0));
            if !slots.is_empty() {
                let mut payload = Vec::new();
                entry::put_forget(&mut payload, *group, slots);
                transaction.raw(entry::FORGET, &payload);
            }
            if *present {
                transaction.present(&present_payload(*group, 0, &[]));
            }
        }
        if transaction.is_empty() && old.is_empty() {
            return Ok(());
        }
        for partition in &old {
            self.whole.remove(partition);
            transaction.dropped(*partition);
        }
        self.write_manifest(core, &[], transaction)?;
        for partition in old {
            tracing::info!(partition, "all samples of this partition are folded into another or too old; deleting it");
            self.engine.drop_partition(partition)?;
        }
        Ok(())
    }
}

fn frozen_of(core: &Core) -> Vec<Sealing> {
    let groups: Vec<Arc<Group>> = core.groups.read().all.clone();
    let mut found = Vec::new();
    for group in groups {
        let frozen = group.state.lock().frozen.clone();
        found.extend(frozen.into_iter().map(|frozen| Sealing::new(&group, frozen)));
    }
    found
}

/// The run's columns, by the labels of their series, whose slots `series_of` says: neighbours are read together.
pub(super) fn by_labels(core: &Core, group: &Group, run: &Run, series_of: impl Fn(u32) -> u32) -> Vec<usize> {
    let mut order: Vec<(u32, usize)> = {
        let state = group.state.lock();
        let series = |slot: u32| state.series.get(series_of(slot) as usize).copied().unwrap_or(FORGOTTEN);
        run.slots.iter().enumerate().map(|(column, slot)| (series(*slot), column)).collect()
    };
    let index = core.index.read();
    order.sort_unstable_by(|(a, at_a), (b, at_b)| index.compare(*a, *b).then(at_a.cmp(at_b)));
    drop(index);
    // A column without points was registered and never had a value.
    order.into_iter().map(|(_, column)| column).filter(|column| !run.columns[*column].bytes.is_empty()).collect()
}

/// What was defined since the last checkpoint.
fn say_new(core: &Core, definitions: Vec<Definition>, transaction: &mut Transaction) {
    let index = core.index.read();
    for definition in definitions {
        match definition {
            Definition::Record { kind, payload } => transaction.raw(kind, &payload),
            Definition::Series { group, slots } => {
                let Some(group) = core.groups.read().get(group).cloned() else { continue };
                put_series(&index, group.id, &group.state.lock(), slots, transaction);
            }
        }
    }
}

/// The series of a group in these slots; those that were forgotten meanwhile are left out.
fn put_series(index: &Index, group: GroupId, state: &State, slots: Range<u32>, transaction: &mut Transaction) {
    let slots: Vec<u32> = slots.collect();
    for some in slots.chunks(SERIES_PER_RECORD) {
        let series = some.iter().filter_map(|slot| {
            let labels = index.labels(*state.series.get(*slot as usize)?)?;
            let meta = labels.metric().and_then(|metric| index.meta.get(metric)).cloned();
            Some((Slot(*slot), SeriesKey { labels, meta }))
        });
        transaction.series(group, &series.collect::<Vec<_>>());
    }
}

/// All groups and series that are known.
fn say_definitions(core: &Core, transaction: &mut Transaction) {
    let index = core.index.read();
    let groups: Vec<Arc<Group>> = core.groups.read().all.clone();
    for group in &groups {
        let mut payload = Vec::new();
        entry::put_group(&mut payload, group.id, &group.key, group.mode);
        transaction.raw(entry::GROUP, &payload);
    }
    for group in &groups {
        let state = group.state.lock();
        put_series(&index, group.id, &state, 0..state.series.len() as u32, transaction);
        // So that the number of a slot that was the last one is not given out again.
        if state.series.last() == Some(&FORGOTTEN) {
            let mut payload = Vec::new();
            entry::put_forget(&mut payload, group.id, &[state.series.len() as u32 - 1]);
            transaction.raw(entry::FORGET, &payload);
        }
    }
}
