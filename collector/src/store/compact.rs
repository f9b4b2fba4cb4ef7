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

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::block::{Packer, SealedRun};
use super::core::Core;
use super::disk::Engine;
use super::fold::{Fold, Unpacked};
use super::group::{FORGOTTEN, Group};
use super::job::Pace;
use super::seal::by_labels;
use super::tier::tier_of;
use super::unpack::Values;
use super::window;

/// Neighbours that are worth being joined.
const NEIGHBOURS_MIN: usize = 8;

/// Runs per group, on average, from which on a partition is folded by itself.
const RUNS_MANY: usize = 4;

/// Values that are handed to the engine at once.
const VALUES_PER_PUT: usize = 64;

/// What lies in a partition.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Usage {
    pub runs: usize,
    pub groups: usize,
}

/// What lies where, of raw samples or of a tier.
pub(super) fn usage(core: &Core, tier: Option<usize>) -> BTreeMap<u32, Usage> {
    let mut found: BTreeMap<u32, Usage> = BTreeMap::new();
    let groups: Vec<Arc<Group>> = core.groups.read().all.clone();
    for group in groups {
        let sealed = group.state.lock().sealed_of(tier).clone();
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

/// Folds partitions, of raw samples or of one tier, into a new one.
pub(super) fn compact(
    core: &Core,
    engine: &dyn Engine,
    from: Vec<u32>,
    into: u32,
    pace: &Pace,
) -> io::Result<Compacted> {
    let mut packer = Packer::new(into, 0);
    let mut values = Values::new(engine);
    let mut compacted = Compacted { from, into, groups: Vec::new(), bytes: 0 };
    let groups: Vec<Arc<Group>> = core.groups.read().all.clone();
    for group in groups {
        let begun = Instant::now();
        let sealed = group.state.lock().sealed_of(tier_of(into)).clone();
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
        pace.rest(begun)?;
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

/// The group's runs as few, without the columns of series that were forgotten; `None` when something of them cannot be read.
fn fold(
    core: &Core,
    group: &Group,
    old: &[Arc<SealedRun>],
    values: &mut Values<'_>,
    packer: &mut Packer,
) -> io::Result<Option<Vec<Arc<SealedRun>>>> {
    let is_tier = old.first().is_some_and(|run| tier_of(run.head.partition).is_some());
    let series_of: fn(u32) -> u32 = if is_tier { window::series_of } else { |slot| slot };
    let mut fold = if is_tier { Fold::of_tier() } else { Fold::default() };
    for run in old {
        let opened = values.open(group.id.0, run)?;
        let known = group.state.lock().series.clone();
        let stays = |slot: u32| match series_of(slot) {
            window::GROUP if is_tier => true,
            slot => known.get(slot as usize).is_some_and(|series| *series != FORGOTTEN),
        };
        let folded = opened.as_ref().and_then(|opened| {
            let mut columns = opened.columns(group.id.0)?;
            columns.retain(|column| stays(column.slot));
            fold.add(&Unpacked { live: opened.live, ticks: opened.ticks.clone(), columns })
        });
        if folded.is_none() {
            tracing::error!(group = &*group.key.name, "a sealed run cannot be read whole; this group is not compacted");
            return Ok(None);
        }
    }
    let mut new = Vec::new();
    for run in &fold.runs {
        let order = by_labels(core, group, run, series_of);
        new.extend(packer.run(group.id.0, run, &order).into_iter().map(Arc::new));
    }
    Ok(Some(new))
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
