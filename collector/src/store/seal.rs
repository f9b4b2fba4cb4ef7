//! A checkpoint: frozen runs become blocks, the manifest names them, the log is released; in this order (rule 6).
//!
//! 1. blocks into the engine, flush;
//! 2. the log is flushed, so that nothing is in the manifest that a crash could take from the log;
//! 3. manifest entry, flush;
//! 4. segments of the log that nothing needs are deleted.
//!
//! A crash between any two leaves what was there before: values that no manifest names are written over, and the log is
//! replayed.

mod places;
mod publish;
mod say;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub(super) use self::publish::Forgotten;
use self::say::say_new;
use super::block::{Batch, Order, Packer, Part, SealedRun};
use super::core::Core;
use super::disk::Engine;
use super::group::{FORGOTTEN, Frozen, Group, is_stale};
use super::manifest::{Manifest, Transaction, present_payload};
use super::run::Run;
use super::thin::Places;
use super::{GroupId, WriteMode};

/// Longest wait for the log within a checkpoint.
const LOG_WITHIN: Duration = Duration::from_secs(30);

/// Pieces of groups that are placed together, about: of a fleet so many that the parts of a metric fill values of their own. The
/// values are handed to the engine then.
const BATCH_BYTES: usize = 2 * 1024 * 1024;

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
        let mut batch = Batch::default();
        for at in 0..sealing.len() {
            let Sealing { group, frozen, .. } = &sealing[at];
            for run in &frozen.runs {
                batch.add(at, group.id.0, run, &by_labels(core, group, run, |slot| slot));
            }
            if batch.bytes < BATCH_BYTES && at + 1 < sealing.len() {
                continue;
            }
            let sort = |parts: &mut [Part]| {
                let index = core.index.read();
                parts.sort_by(|a, b| index.compare(a.first, b.first));
            };
            for (owner, run) in std::mem::take(&mut batch).place(&mut packer, sort) {
                sealing[owner].runs.push(Arc::new(run));
            }
            written = written.and_then(|()| self.put(core, partition, &mut packer));
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
        let frozen = by_group(sealing);
        let groups: Vec<Arc<Group>> = core.groups.read().all.clone();
        for group in &groups {
            let mut state = group.state.lock();
            let unsaved = std::mem::take(&mut state.marks_unsaved);
            if !everything && !unsaved.is_empty() {
                transaction.marks(group.id, &unsaved);
            }
            let of_group = frozen.get(&group.id).map_or(&[][..], Vec::as_slice);
            if let Some(first) = state.first_lsn(of_group) {
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
}

/// What is frozen of each group.
fn by_group(sealing: &[Sealing]) -> HashMap<GroupId, Vec<Arc<Frozen>>> {
    let mut frozen: HashMap<GroupId, Vec<Arc<Frozen>>> = HashMap::new();
    for of_group in sealing {
        frozen.entry(of_group.group.id).or_default().push(of_group.frozen.clone());
    }
    frozen
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
pub(super) fn by_labels(core: &Core, group: &Group, run: &Run, series_of: impl Fn(u32) -> u32) -> Order {
    let mut order: Order = {
        let state = group.state.lock();
        let series = |slot: u32| state.series.get(series_of(slot) as usize).copied().unwrap_or(FORGOTTEN);
        run.slots.iter().enumerate().map(|(column, slot)| (series(*slot), column)).collect()
    };
    let index = core.index.read();
    order.sort_unstable_by(|(a, at_a), (b, at_b)| index.compare(*a, *b).then(at_a.cmp(at_b)));
    drop(index);
    // A column without points was registered and never had a value.
    order.retain(|(_, column)| !run.columns[*column].is_empty());
    order
}
