//! Compaction: what lies in closed partitions is folded into a new one, and the old ones are deleted.
//!
//! ```text
//! closed partitions -> per group: unpack -> fold -> pack -> new partition, flush -> manifest -> old directories go
//! ```
//! Done for a partition of which the groups have many runs each (memory or log were short, so it was sealed early), and for
//! neighbours that together span no more than one partition shall. It runs in a thread of its own, leaves most of that core to
//! others, and changes nothing until the store's keeper publishes what came of it: a crash before that leaves a directory that
//! the manifest does not name, and nothing lost. A run with a damaged value stays as it is, where it is.
//!
//! Queries that began before go on in the old runs: a partition is deleted once nobody holds a run of it any more.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::block::{Packer, SealedRun};
use super::core::Core;
use super::cut::{CutColumn, without};
use super::disk::Engine;
use super::erase::Erased;
use super::fold::{Fold, Unpacked};
use super::group::{FORGOTTEN, Group};
use super::job::Pace;
use super::piece::UnpackedColumn;
use super::seal::by_labels;
use super::tier::{TIERS, tier_of};
use super::unpack::{Opened, Values};
use super::window;

/// Neighbours that are worth being joined. Where the retention is so short that the result may not span as many, all that it may
/// span: each is rewritten once, and of a small one half of the disk is the engine's.
const NEIGHBOURS_MIN: usize = 8;
const NEIGHBOURS_LEAST: usize = 3;

/// Runs per group, on average, from which on a partition is folded by itself.
const RUNS_MANY: usize = 4;

/// Values that are handed to the engine at once.
const VALUES_PER_PUT: usize = 128;

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
/// compaction, with when the first of what they hold was begun; `span_s` is how much time the result may span, `part_s` how much
/// the others do.
pub(super) fn plan(
    usage: &BTreeMap<u32, Usage>,
    current: Option<u32>,
    folded: &BTreeMap<u32, u32>,
    (span_s, part_s): (u32, u32),
) -> Vec<u32> {
    let neighbours_min = ((span_s / part_s.max(1)) as usize).clamp(NEIGHBOURS_LEAST, NEIGHBOURS_MIN);
    let closed = usage.range(..current.unwrap_or(u32::MAX));
    let closed: Vec<(u32, Usage)> = closed.map(|(begun, usage)| (*begun, *usage)).collect();
    let many = |(begun, usage): &&(u32, Usage)| !folded.contains_key(begun) && usage.runs > usage.groups * RUNS_MANY;
    if let Some((begun, _)) = closed.iter().find(many) {
        return vec![*begun];
    }
    let names: Vec<u32> = closed.iter().map(|(name, _)| *name).collect();
    let end = |at: usize| names.get(at + 1).copied().or(current).unwrap_or(u32::MAX);
    for first in 0..names.len() {
        // What was folded bears the name of its end: by that alone it would be folded again with all that follows, for ever.
        let mut begun = names[first];
        let near = (first..names.len()).take_while(|at| {
            begun = begun.min(folded.get(&names[*at]).copied().unwrap_or(names[*at]));
            end(*at) - begun <= span_s
        });
        let near = near.count();
        if near >= neighbours_min {
            return names[first..first + near].to_vec();
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
        let (stretches, series_of) = fold(&group, &old, &mut values, pace)?;
        for Stretch { old, fold } in stretches {
            let mut new = Vec::new();
            for run in fold.runs {
                pace.go_on()?;
                let order = by_labels(core, &group, &run, series_of);
                new.extend(packer.run(group.id.0, &run, &order).into_iter().map(Arc::new));
                // Run by run, so that of a wide group not all is in memory twice.
                drop(run);
                if packer.values.len() >= VALUES_PER_PUT {
                    compacted.bytes += put(engine, into, &mut packer)?;
                }
            }
            compacted.groups.push(CompactedGroup { group: group.clone(), old, new });
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

/// The series of a column, by its slot.
type SeriesOf = fn(u32) -> u32;

/// Runs that were stored one after another and can all be read, and what comes of them.
struct Stretch {
    old: Vec<Arc<SealedRun>>,
    fold: Fold,
}

/// The group's runs as few, without the columns of series that were forgotten and without what is deleted. What cannot be read
/// stays where it is, and what was stored before it and after it is folded apart: of two samples of one time the first still counts.
fn fold(
    group: &Group,
    old: &[Arc<SealedRun>],
    values: &mut Values<'_>,
    pace: &Pace,
) -> io::Result<(Vec<Stretch>, SeriesOf)> {
    let tier = old.first().and_then(|run| tier_of(run.head.partition));
    let (is_tier, window_ms) = (tier.is_some(), tier.map(|tier| TIERS[tier].window_ms));
    let series_of: SeriesOf = if is_tier { window::series_of } else { |slot| slot };
    let begin = || Stretch { old: Vec::new(), fold: if is_tier { Fold::of_tier() } else { Fold::default() } };
    let mut stretches = vec![begin()];
    // What was one run and too wide for a head lies as several with the same ticks.
    for cuts in old.chunk_by(|a, b| (a.live, a.min_ms, a.max_ms) == (b.live, b.min_ms, b.max_ms)) {
        pace.go_on()?;
        let opened: io::Result<Option<Vec<Opened>>> = cuts.iter().map(|run| values.open(group.id.0, run)).collect();
        // A bad place of the disk is like damage to this one run.
        let opened = opened.unwrap_or_else(|error| {
            tracing::error!(group = &*group.key.name, %error, "cannot read a sealed run");
            None
        });
        let (known, erased) = {
            let state = group.state.lock();
            (state.series.clone(), state.erased.clone())
        };
        let stays = |slot: u32| match series_of(slot) {
            window::GROUP if is_tier => true,
            slot => known.get(slot as usize).is_some_and(|series| *series != FORGOTTEN),
        };
        let Some(stretch) = stretches.last_mut() else { continue };
        let folded = opened.as_ref().map(|opened| {
            for (run, mut columns) in side_by_side(opened, group.id.0)? {
                columns.retain(|column| stays(column.slot));
                let cut = cut_erased(&mut columns, &run.ticks, &erased, series_of, window_ms)?;
                columns.extend(cut.iter().map(CutColumn::unpacked));
                stretch.fold.add(&Unpacked { live: run.live, ticks: run.ticks.clone(), columns })?;
            }
            Some(())
        });
        match folded {
            Some(Some(())) => stretch.old.extend(cuts.iter().cloned()),
            // What was begun with a damaged column is void.
            Some(None) => *stretch = begin(),
            None => stretches.push(begin()),
        }
        if !matches!(folded, Some(Some(()))) {
            tracing::error!(group = &*group.key.name, "a sealed run cannot be read whole; it is not compacted");
        }
    }
    stretches.retain(|stretch| !stretch.old.is_empty());
    Ok((stretches, series_of))
}

/// The columns of runs, those of cuts of one run together; `None` when something is damaged.
fn side_by_side(opened: &[Opened], group: u32) -> Option<Vec<(&Opened, Vec<UnpackedColumn<'_>>)>> {
    let mut found: Vec<(&Opened, Vec<UnpackedColumn<'_>>)> = Vec::new();
    for run in opened {
        let columns = run.columns(group)?;
        match found.last_mut() {
            Some((first, all)) if first.ticks == run.ticks && are_apart(all, &columns) => all.extend(columns),
            _ => found.push((run, columns)),
        }
    }
    Some(found)
}

/// Whether no series has columns in both.
fn are_apart(a: &[UnpackedColumn<'_>], b: &[UnpackedColumn<'_>]) -> bool {
    let slots: HashSet<u32> = a.iter().map(|column| column.slot).collect();
    b.iter().all(|column| !slots.contains(&column.slot))
}

/// Whether a run may hold something of what is deleted; that it has none of the series is told by its columns only.
fn is_hit(run: &SealedRun, erased: &[Erased]) -> bool {
    let window_ms = tier_of(run.head.partition).map(|tier| TIERS[tier].window_ms);
    erased.iter().any(|erased| erased.touches(run.min_ms, run.max_ms, window_ms))
}

/// The partitions, of raw samples or of a tier, in which something deleted may lie, ascending.
pub(super) fn partitions_of_erased(groups: &[(Arc<Group>, Arc<Vec<Erased>>)], tier: Option<usize>) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    for (group, erased) in groups {
        let state = group.state.lock();
        found.extend(state.sealed_of(tier).iter().filter(|run| is_hit(run, erased)).map(|run| run.head.partition));
    }
    found
}

/// Takes the columns of which something is deleted out of the list; what is left of them comes back. `None` when one cannot be
/// read. `window_ms` is set of a tier, whose windows go as a whole.
fn cut_erased(
    columns: &mut Vec<UnpackedColumn<'_>>,
    ticks: &[i64],
    erased: &[Erased],
    series_of: SeriesOf,
    window_ms: Option<i64>,
) -> Option<Vec<CutColumn>> {
    let span = ticks.first().zip(ticks.last());
    let near = |erased: &&Erased| span.is_some_and(|(first, last)| erased.touches(*first, *last, window_ms));
    let near: Vec<&Erased> = erased.iter().filter(near).collect();
    let mut cut = Vec::new();
    for column in
        columns.extract_if(.., |column| near.iter().any(|erased| erased.slots.contains(series_of(column.slot))))
    {
        let slot = series_of(column.slot);
        let of_slot: Vec<&Erased> = near.iter().filter(|erased| erased.slots.contains(slot)).copied().collect();
        let gone = |at_ms: i64| of_slot.iter().any(|erased| erased.touches(at_ms, at_ms, window_ms));
        cut.push(CutColumn { slot: column.slot, column: without(&column, ticks, gone)? });
    }
    Some(cut)
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
        assert_eq!(plan(&usage, current, &BTreeMap::new(), (24 * HOUR_S, 2 * HOUR_S)), [4 * HOUR_S]);
        assert_eq!(
            plan(&usage, current, &BTreeMap::from([(4 * HOUR_S, 4 * HOUR_S)]), (24 * HOUR_S, 2 * HOUR_S)),
            [0; 0]
        );
    }

    #[test]
    fn neighbours_are_joined_up_to_the_span() {
        let hours: Vec<(u32, usize)> = (1..=13).map(|at| (at * 2, 10)).collect();
        let usage = usage(&hours);
        let current = Some(26 * HOUR_S);
        let all: Vec<u32> = (1..=12).map(|at| at * 2 * HOUR_S).collect();
        assert_eq!(plan(&usage, current, &BTreeMap::new(), (24 * HOUR_S, 2 * HOUR_S)), all);
        assert_eq!(plan(&usage, current, &BTreeMap::new(), (17 * HOUR_S, 2 * HOUR_S)), all[..8]);
        assert_eq!(plan(&usage, current, &BTreeMap::new(), (15 * HOUR_S, HOUR_S)), [0; 0], "too few to be worth it");
        let short = plan(&usage, current, &BTreeMap::new(), (9 * HOUR_S, 2 * HOUR_S));
        assert_eq!(short, all[..4], "more may never be joined");
        assert_eq!(plan(&usage, current, &BTreeMap::new(), (4 * HOUR_S, 2 * HOUR_S)), [0; 0]);
    }

    /// As it goes on for a month: what is folded once is left alone.
    #[test]
    fn no_sample_is_written_again_and_again() {
        let mut folded: BTreeMap<u32, u32> = BTreeMap::new();
        let mut there: BTreeMap<u32, Usage> = BTreeMap::new();
        let (mut written, mut rewritten) = (0, 0);
        for hour in (2..30 * 24).step_by(2) {
            there.insert(hour * HOUR_S, Usage { runs: 10, groups: 10 });
            written += 1;
            let current = Some((hour + 2) * HOUR_S);
            let from = plan(&there, current, &folded, (24 * HOUR_S, 2 * HOUR_S));
            let Some(last) = from.last() else { continue };
            let begun = from.iter().map(|name| folded.get(name).copied().unwrap_or(*name)).min();
            let hours = (last + 2 * HOUR_S - begun.unwrap()) / HOUR_S;
            assert!(hours <= 24, "{hours} hours");
            rewritten += hours / 2;
            from.iter().for_each(|name| _ = (there.remove(name), folded.remove(name)));
            there.insert(last + 1, Usage { runs: 10, groups: 10 });
            folded.insert(last + 1, begun.unwrap());
        }
        assert!(rewritten <= 2 * written, "{rewritten} for {written}");
        assert!(there.len() <= 30 * 24 / 16 + 8, "{} are left", there.len());
    }
}
