//! Compaction: what lies in closed partitions is folded into a new one, and the old ones are deleted.
//!
//! ```text
//! closed partitions -> per group: unpack -> fold -> pack -> new partition, flush -> manifest -> old directories go
//! ```
//! Done for a partition of which the groups have many runs each (memory or log were short, so it was sealed early), and for
//! neighbours that together span no more than one partition shall. It runs in a thread of its own, leaves most of that core to
//! others, and changes nothing until the store's keeper publishes what came of it: a crash before that leaves a directory that
//! the manifest does not name, and nothing lost. A group with a damaged value stays as it is, where it is.
//!
//! Queries that began before go on in the old runs: a partition is deleted once nobody holds a run of it any more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::block::{Address, Packer, SealedRun, piece};
use super::core::Core;
use super::disk::Engine;
use super::fold::{Fold, Unpacked};
use super::group::{FORGOTTEN, Group};
use super::piece::{read_columns, read_head};
use super::seal::by_labels;

/// Neighbours that are worth being joined.
const NEIGHBOURS_MIN: usize = 8;

/// Runs per group, on average, from which on a partition is folded by itself.
const RUNS_MANY: usize = 4;

/// Values of the old partitions that are kept at hand: neighbouring groups share them.
const VALUES_MAX: usize = 256;

/// Values that are handed to the engine at once.
const VALUES_PER_PUT: usize = 64;

/// After each group the thread rests so many times as long as it worked.
const REST: u32 = 3;

/// The longest such rest.
const REST_MAX: Duration = Duration::from_millis(200);

/// What lies in a partition.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Usage {
    pub runs: usize,
    pub groups: usize,
}

/// What lies where.
pub(super) fn usage(core: &Core) -> BTreeMap<u32, Usage> {
    let mut found: BTreeMap<u32, Usage> = BTreeMap::new();
    let groups: Vec<Arc<Group>> = core.groups.read().all.clone();
    for group in groups {
        let sealed = group.state.lock().sealed.clone();
        let mut last = None;
        for run in sealed.iter() {
            let usage = found.entry(run.head.partition).or_default();
            usage.runs += 1;
            usage.groups += usize::from(last.replace(run.head.partition) != Some(run.head.partition));
        }
    }
    found
}

/// The partitions to fold next, neighbours, ascending; empty when none is worth it. `current` still grows, `folded` came of
/// compaction, `span_s` is how much time the result may span.
pub(super) fn plan(
    usage: &BTreeMap<u32, Usage>,
    current: Option<u32>,
    folded: &BTreeSet<u32>,
    span_s: u32,
) -> Vec<u32> {
    let closed = usage.range(..current.unwrap_or(u32::MAX));
    let closed: Vec<(u32, Usage)> = closed.map(|(begun, usage)| (*begun, *usage)).collect();
    let many = |(begun, usage): &&(u32, Usage)| !folded.contains(begun) && usage.runs > usage.groups * RUNS_MANY;
    if let Some((begun, _)) = closed.iter().find(many) {
        return vec![*begun];
    }
    let begun: Vec<u32> = closed.iter().map(|(begun, _)| *begun).collect();
    let end = |at: usize| begun.get(at + 1).copied().or(current).unwrap_or(u32::MAX);
    for first in 0..begun.len() {
        let near = (first..begun.len()).take_while(|at| end(*at) - begun[first] <= span_s).count();
        if near >= NEIGHBOURS_MIN {
            return begun[first..first + near].to_vec();
        }
    }
    Vec::new()
}

/// What came of a compaction.
#[derive(Debug)]
pub(super) struct Compacted {
    pub from: Vec<u32>,
    pub into: u32,
    pub groups: Vec<CompactedGroup>,
    pub bytes: u64,
}

#[derive(Debug)]
pub(super) struct CompactedGroup {
    pub group: Arc<Group>,
    /// In the order in which they were stored.
    pub old: Vec<Arc<SealedRun>>,
    pub new: Vec<Arc<SealedRun>>,
}

/// A compaction at work.
#[derive(Debug)]
pub(super) struct Compaction {
    pub from: Vec<u32>,
    pub into: u32,
    stop: Arc<AtomicBool>,
    result: Receiver<io::Result<Compacted>>,
    thread: Option<JoinHandle<()>>,
}

impl Compaction {
    pub fn start(core: Arc<Core>, engine: Arc<dyn Engine>, from: Vec<u32>, into: u32) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (done, result) = sync_channel(1);
        let (of_thread, partitions) = (stop.clone(), from.clone());
        let thread = std::thread::Builder::new().name("store-compact".into()).spawn(move || {
            // Whoever asked may be gone.
            let _ = done.send(compact(&core, &*engine, partitions, into, Some(&of_thread)));
        })?;
        Ok(Self { from, into, stop, result, thread: Some(thread) })
    }

    /// What came of it, once it is done.
    pub fn finished(&self) -> Option<io::Result<Compacted>> {
        match self.result.try_recv() {
            Ok(result) => Some(result),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(io::Error::other("the thread that compacts has panicked"))),
        }
    }
}

impl Drop for Compaction {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that compacts has panicked; nothing of what is stored was changed");
        }
    }
}

/// Folds partitions into a new one. With `stop` it rests between groups, and ends with an error when that is set.
pub(super) fn compact(
    core: &Core,
    engine: &dyn Engine,
    from: Vec<u32>,
    into: u32,
    stop: Option<&AtomicBool>,
) -> io::Result<Compacted> {
    let mut packer = Packer::new(into, 0);
    let mut values = Values { engine, at_hand: HashMap::new() };
    let mut compacted = Compacted { from, into, groups: Vec::new(), bytes: 0 };
    let groups: Vec<Arc<Group>> = core.groups.read().all.clone();
    for group in groups {
        let begun = Instant::now();
        let sealed = group.state.lock().sealed.clone();
        let old = sealed.iter().filter(|run| compacted.from.contains(&run.head.partition));
        let old: Vec<Arc<SealedRun>> = old.cloned().collect();
        if old.is_empty() {
            continue;
        }
        if let Some(new) = fold(core, &group, &old, &mut values, &mut packer)? {
            compacted.groups.push(CompactedGroup { group, old, new });
        }
        if packer.values.len() >= VALUES_PER_PUT {
            compacted.bytes += put(engine, into, &mut packer)?;
        }
        if let Some(stop) = stop {
            std::thread::sleep((begun.elapsed() * REST).min(REST_MAX));
            if stop.load(Ordering::Relaxed) {
                return Err(io::Error::new(io::ErrorKind::Interrupted, "the store is closing"));
            }
        }
    }
    packer.finish();
    compacted.bytes += put(engine, into, &mut packer)?;
    engine.flush(into)?;
    Ok(compacted)
}

fn put(engine: &dyn Engine, partition: u32, packer: &mut Packer) -> io::Result<u64> {
    engine.put(partition, &packer.values)?;
    Ok(packer.values.drain(..).map(|(_, value)| value.len() as u64).sum())
}

/// The group's runs as few; `None` when something of them cannot be read.
fn fold(
    core: &Core,
    group: &Group,
    old: &[Arc<SealedRun>],
    values: &mut Values<'_>,
    packer: &mut Packer,
) -> io::Result<Option<Vec<Arc<SealedRun>>>> {
    let mut fold = Fold::default();
    for run in old {
        if values.add(group, run, &mut fold)?.is_none() {
            tracing::error!(group = &*group.key.name, "a sealed run cannot be read whole; this group is not compacted");
            return Ok(None);
        }
    }
    let mut new = Vec::new();
    for run in &fold.runs {
        let order = by_labels(core, group, run);
        new.extend(packer.run(group.id.0, run, &order).into_iter().map(Arc::new));
    }
    Ok(Some(new))
}

/// The values that are read.
struct Values<'a> {
    engine: &'a dyn Engine,
    at_hand: HashMap<(u32, u32), Arc<[u8]>>,
}

impl Values<'_> {
    fn value(&mut self, address: Address) -> io::Result<Option<Arc<[u8]>>> {
        let key = (address.partition, address.number);
        if let Some(value) = self.at_hand.get(&key) {
            return Ok(Some(value.clone()));
        }
        let read = match self.engine.get(key.0, key.1) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => None,
            read => read?,
        };
        let Some(value) = read else { return Ok(None) };
        if self.at_hand.len() >= VALUES_MAX {
            self.at_hand.clear();
        }
        let value: Arc<[u8]> = value.into();
        self.at_hand.insert(key, value.clone());
        Ok(Some(value))
    }

    /// Reads a run and folds it in. Columns of series that were forgotten are left out.
    fn add(&mut self, group: &Group, run: &SealedRun, fold: &mut Fold) -> io::Result<Option<()>> {
        let Some(head) = self.value(run.head)? else { return Ok(None) };
        let Some(head) = piece(&head, run.head.piece).and_then(|piece| read_head(piece, group.id.0)) else {
            return Ok(None);
        };
        let mut parts = Vec::with_capacity(run.parts.len());
        for (address, slots) in run.parts.iter().zip(&head.parts).filter(|(address, _)| !address.is_lost()) {
            let Some(value) = self.value(*address)? else { return Ok(None) };
            parts.push((value, address.piece, slots));
        }
        let mut columns = Vec::new();
        for (value, number, slots) in &parts {
            let of_part = piece(value, *number).and_then(|piece| read_columns(piece, group.id.0, slots));
            let Some(of_part) = of_part else {
                return Ok(None);
            };
            columns.extend(of_part);
        }
        let known = group.state.lock().series.clone();
        columns.retain(|column| known.get(column.slot as usize).is_some_and(|series| *series != FORGOTTEN));
        Ok(fold.add(&Unpacked { live: run.live, ticks: head.ticks, columns }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_S: u32 = 3600;

    fn usage(partitions: &[(u32, usize)]) -> BTreeMap<u32, Usage> {
        partitions.iter().map(|(hour, runs)| (hour * HOUR_S, Usage { runs: *runs, groups: 10 })).collect()
    }

    #[test]
    fn what_is_cut_small_is_folded_first_and_once() {
        let usage = usage(&[(2, 10), (4, 41), (6, 500)]);
        let current = Some(6 * HOUR_S);
        assert_eq!(plan(&usage, current, &BTreeSet::new(), 24 * HOUR_S), [4 * HOUR_S]);
        assert_eq!(plan(&usage, current, &BTreeSet::from([4 * HOUR_S]), 24 * HOUR_S), [0; 0]);
    }

    #[test]
    fn neighbours_are_joined_up_to_the_span() {
        let hours: Vec<(u32, usize)> = (1..=13).map(|at| (at * 2, 10)).collect();
        let usage = usage(&hours);
        let current = Some(26 * HOUR_S);
        let all: Vec<u32> = (1..=12).map(|at| at * 2 * HOUR_S).collect();
        assert_eq!(plan(&usage, current, &BTreeSet::new(), 24 * HOUR_S), all);
        assert_eq!(plan(&usage, current, &BTreeSet::new(), 17 * HOUR_S), all[..8]);
        assert_eq!(plan(&usage, current, &BTreeSet::new(), 15 * HOUR_S), [0; 0], "too few to be worth it");
    }
}
