//! Builds the tiers: what lies in closed partitions of raw samples is cut into windows, and these are written beside it.
//!
//! ```text
//! closed raw partitions -> per group and tier: unpack -> samples -> windows -> the tier's partition, flush -> manifest
//! ```
//! A group's windows are built up to a time before which all it has lies in closed partitions. Samples that came late, for
//! windows that were built before, have these built once more, from all raw samples there are; the newer ones count. Raw
//! samples go only after that, see `keeper.rs`, so a tier is never late. As with compaction nothing is changed until the
//! keeper publishes what came of it, and a crash before that leaves values that no manifest names and that are written over.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::block::{Packer, SealedRun};
use super::column::Samples;
use super::core::Core;
use super::disk::Engine;
use super::erase::hide;
use super::group::{AHEAD_MS_MAX, FORGOTTEN, Group, Mark, State};
use super::job::Pace;
use super::piece::UnpackedColumn;
use super::read::{finish, merge};
use super::run::{Run, has_tick_in};
use super::seal::by_labels;
use super::tier::{TIERS, Tier};
use super::unpack::{Opened, Values};
use super::window::{Sheet, beats, cut, series_of};

/// Windows of one run: a column of as many noisy values stays far below what a value of the engine may hold.
const WINDOWS_MAX: i64 = 720;

/// Values that are handed to the engine at once.
const VALUES_PER_PUT: usize = 128;

/// Where each tier that is on is written to: its partition and the first number that is free there.
pub(super) type Places = [Option<(u32, u32)>; TIERS.len()];

/// What came of it.
#[derive(Debug)]
pub(super) struct Thinned {
    /// All raw samples in partitions below this were looked at.
    pub through: u32,
    /// Groups of which something could not be read, and nothing was built.
    pub unread: BTreeSet<u32>,
    /// As [`Places`], behind what was written.
    pub places: Places,
    pub groups: Vec<ThinnedGroup>,
    pub bytes: u64,
}

#[derive(Debug)]
pub(super) struct ThinnedGroup {
    pub group: Arc<Group>,
    pub tier: usize,
    pub until_ms: i64,
    pub runs: Vec<Arc<SealedRun>>,
}

/// Whether raw samples lie in partitions below `current`, which still grows, that a tier has not seen; those of groups that could
/// not be read do not count.
pub(super) fn is_due(core: &Core, current: u32, unread: &BTreeSet<u32>) -> bool {
    let mut groups: Vec<Arc<Group>> = core.groups.read().all.clone();
    groups.retain(|group| !unread.contains(&group.id.0));
    let due = |group: &Arc<Group>, tier: usize| {
        core.options.tiers[tier].is_some() && Source::of(core, group, tier, current).is_some()
    };
    groups.iter().any(|group| (0..TIERS.len()).any(|tier| due(group, tier)))
}

/// Builds what the partitions below `current`, which still grows, have for the tiers.
pub(super) fn thin(core: &Core, engine: &dyn Engine, current: u32, places: Places, pace: &Pace) -> io::Result<Thinned> {
    let mut thinned = Thinned { through: current, unread: BTreeSet::new(), places, groups: Vec::new(), bytes: 0 };
    let groups: Vec<Arc<Group>> = core.groups.read().all.clone();
    let mut values = Values::new(engine);
    for (tier, place) in places.iter().enumerate() {
        let Some((partition, number)) = *place else { continue };
        let mut packer = Packer::new(partition, number);
        for group in &groups {
            let begun = Instant::now();
            let Some(source) = Source::of(core, group, tier, current) else {
                thinned.groups.extend(seen_all(group, tier, current));
                continue;
            };
            let runs = match source.build(core, &mut values, &mut packer, pace) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    // A bad place of the disk keeps no other group from its windows; this one's raw samples stay until it is read.
                    tracing::error!(group = &*group.key.name, %error, "cannot read a group for its tiers; the others go on");
                    thinned.unread.insert(group.id.0);
                    continue;
                }
                built => built?,
            };
            thinned.groups.push(ThinnedGroup { group: group.clone(), tier, until_ms: source.until_ms, runs });
            if packer.values.len() >= VALUES_PER_PUT {
                thinned.bytes += put(engine, partition, &mut packer)?;
            }
            pace.rest(begun)?;
        }
        thinned.places[tier] = Some((partition, packer.finish()));
        thinned.bytes += put(engine, partition, &mut packer)?;
        engine.flush(partition)?;
    }
    Ok(thinned)
}

/// Of a group that has nothing new, that this was looked at: else, once its runs are folded together with others' newer ones, they
/// would be taken for new, and windows that are there be built again.
fn seen_all(group: &Arc<Group>, tier: usize, current: u32) -> Option<ThinnedGroup> {
    let state = group.state.lock();
    let tiered = &state.tiers[tier];
    let is_behind = tiered.through < current && tiered.until_ms > i64::MIN && !state.sealed.is_empty();
    is_behind.then(|| ThinnedGroup { group: group.clone(), tier, until_ms: tiered.until_ms, runs: Vec::new() })
}

fn put(engine: &dyn Engine, partition: u32, packer: &mut Packer) -> io::Result<u64> {
    engine.put(partition, &packer.values)?;
    Ok(packer.values.drain(..).map(|(_, value)| value.len() as u64).sum())
}

/// A group as it was when its windows were begun.
struct Source<'a> {
    group: &'a Group,
    tier: &'static Tier,
    /// All that is sealed, in the order in which it was stored.
    sealed: Arc<Vec<Arc<SealedRun>>>,
    /// Those of it that the tier has not seen.
    new: Vec<Arc<SealedRun>>,
    erased: Arc<Vec<super::erase::Erased>>,
    marks: Vec<Mark>,
    /// Windows up to here were built before.
    from_ms: i64,
    /// Windows up to here are built now.
    until_ms: i64,
    /// Raw samples before this may be gone already: what was made of them is not made anew.
    oldest_ms: i64,
}

impl<'a> Source<'a> {
    /// `None` where there is nothing to build.
    fn of(core: &Core, group: &'a Group, tier: usize, current: u32) -> Option<Self> {
        let now_ms = core.options.clock.now_ms();
        let state = group.state.lock();
        let tiered = &state.tiers[tier];
        // The clock had leapt ahead and is right again: what was looked at then is not known by the names of partitions.
        let through = if tiered.through > current { 0 } else { tiered.through };
        let unseen = |run: &&Arc<SealedRun>| (through..current).contains(&run.head.partition);
        let new: Vec<Arc<SealedRun>> = state.sealed.iter().filter(unseen).cloned().collect();
        let definition = &TIERS[tier];
        let from_ms = tiered.until_ms;
        let complete_ms = match state.complete_ms(current) {
            // Nothing grows. No further than what there is, whatever the clock says: what comes is then never taken for seen.
            None => definition.end_of(state.newest_ms()),
            Some(complete_ms) => complete_ms,
        };
        let complete_ms = complete_ms.min(now_ms.saturating_sub(AHEAD_MS_MAX));
        let until_ms = definition.floor(complete_ms).max(from_ms);
        // Of a group that has ended, the last windows are complete only when some time has gone.
        let more = state.sealed.iter().any(|run| run.max_ms > from_ms && run.min_ms <= until_ms);
        if new.is_empty() && (until_ms == from_ms || !more) {
            return None;
        }
        Some(Self {
            group,
            tier: definition,
            sealed: state.sealed.clone(),
            new,
            erased: state.erased.clone(),
            marks: state.marks.clone(),
            from_ms,
            until_ms,
            oldest_ms: core.oldest_ms(now_ms),
        })
    }

    fn build(
        &self,
        core: &Core,
        values: &mut Values<'_>,
        packer: &mut Packer,
        pace: &Pace,
    ) -> io::Result<Vec<Arc<SealedRun>>> {
        let mut built = Vec::new();
        let again = self.touched(values)?;
        let mut rest = again.as_slice();
        while let [first, ..] = rest {
            pace.go_on()?;
            // What lies between two of them is built again too: few runs are read sooner than many.
            let near = rest.partition_point(|end| end - first < WINDOWS_MAX * self.tier.window_ms);
            let (some, others) = rest.split_at(near);
            rest = others;
            let last = some.last().unwrap_or(first);
            self.span(core, values, packer, (first - self.tier.window_ms, *last), true, &mut built)?;
        }
        let mut from_ms = self.from_ms;
        while let Some(next_ms) = self.next_sample(from_ms) {
            pace.go_on()?;
            // Where nothing was for long, nothing is looked for.
            from_ms = self.tier.floor(next_ms.saturating_sub(1)).max(from_ms);
            if from_ms >= self.until_ms {
                break;
            }
            let to_ms = (from_ms + WINDOWS_MAX * self.tier.window_ms).min(self.until_ms);
            self.span(core, values, packer, (from_ms, to_ms), false, &mut built)?;
            from_ms = to_ms;
        }
        Ok(built)
    }

    /// The time of the first sample after this, or one before it.
    fn next_sample(&self, after_ms: i64) -> Option<i64> {
        let runs = self.sealed.iter().filter(|run| run.max_ms > after_ms);
        let marks = self.marks.iter().map(|mark| mark.at_ms).filter(|at_ms| *at_ms > after_ms);
        runs.map(|run| run.min_ms.max(after_ms.saturating_add(1))).chain(marks).min()
    }

    /// Ends of windows that were built before and that new samples belong to.
    fn touched(&self, values: &mut Values<'_>) -> io::Result<Vec<i64>> {
        let mut touched = BTreeSet::new();
        for run in self.new.iter().filter(|run| run.min_ms <= self.from_ms) {
            let Some(opened) = values.open(self.group.id.0, run)? else { continue };
            let old = opened.ticks.iter().take_while(|tick| **tick <= self.from_ms);
            touched.extend(old.map(|tick| self.tier.end_of(*tick)));
            // The agent was not silent after all.
            let undone = self.marks.iter().filter(|mark| has_tick_in(&opened.ticks, mark.after_ms, mark.at_ms));
            touched.extend(undone.map(|mark| self.tier.end_of(mark.at_ms)));
        }
        let whole = |end: &i64| *end <= self.from_ms && end - self.tier.window_ms >= self.oldest_ms;
        Ok(touched.into_iter().filter(whole).collect())
    }

    /// Builds the windows of one span.
    fn span(
        &self,
        core: &Core,
        values: &mut Values<'_>,
        packer: &mut Packer,
        (from_ms, to_ms): (i64, i64),
        again: bool,
        built: &mut Vec<Arc<SealedRun>>,
    ) -> io::Result<()> {
        let mut marks: Vec<Mark> =
            self.marks.iter().filter(|mark| mark.at_ms > from_ms && mark.at_ms <= to_ms).copied().collect();
        // Who was present when the agent fell silent is told by the sample at that tick.
        let low_ms = marks.iter().map(|mark| mark.after_ms).fold(from_ms.saturating_add(1), i64::min);
        let mut opened: Vec<Opened> = Vec::new();
        for run in self.sealed.iter().filter(|run| run.max_ms >= low_ms && run.min_ms <= to_ms) {
            match values.open(self.group.id.0, run)? {
                Some(run) => opened.push(run),
                None => tracing::error!(
                    group = &*self.group.key.name,
                    tier = self.tier.name,
                    "a sealed run cannot be read; the tier is built without it"
                ),
            }
        }
        marks.retain(|mark| !opened.iter().any(|run| has_tick_in(&run.ticks, mark.after_ms, mark.at_ms)));
        let mut ticks: Vec<i64> = opened.iter().flat_map(|run| &run.ticks).copied().collect();
        ticks.retain(|tick| *tick > from_ms && *tick <= to_ms);
        ticks.sort_unstable();
        ticks.dedup();
        let mut silences: Vec<i64> = marks.iter().map(|mark| self.tier.end_of(mark.at_ms)).collect();
        silences.sort_unstable();
        let mut sheet = Sheet::new(beats(&ticks, &silences, self.tier), self.tier, again);
        if sheet.run.is_empty() {
            return Ok(());
        }
        let series = self.group.state.lock().series.clone();
        let known = |slot: u32| series.get(slot as usize).is_some_and(|series| *series != FORGOTTEN);
        let mut by_slot: BTreeMap<u32, Vec<(&[i64], UnpackedColumn<'_>)>> = BTreeMap::new();
        for run in &opened {
            let Some(columns) = run.columns(self.group.id.0) else { continue };
            for column in columns.into_iter().filter(|column| known(column.slot)) {
                by_slot.entry(column.slot).or_default().push((&run.ticks, column));
            }
        }
        if again {
            // Of a series that has nothing there any more, this too must be said.
            (0..series.len() as u32).filter(|slot| known(*slot)).for_each(|slot| _ = by_slot.entry(slot).or_default());
        }
        for (slot, columns) in by_slot {
            let mut samples = Samples::default();
            for (ticks, column) in columns {
                let mut more = Samples::default();
                column.expand(ticks, low_ms, to_ms, &mut more);
                merge(&mut samples, more);
            }
            hide(&self.erased, slot, &mut samples);
            finish(&mut samples, &marks, from_ms.saturating_add(1));
            hide(&self.erased, slot, &mut samples);
            sheet.add(slot, &cut(&samples, self.tier));
        }
        built.extend(pack(core, self.group, &sheet.run, packer));
        Ok(())
    }
}

fn pack(core: &Core, group: &Group, run: &Run, packer: &mut Packer) -> Vec<Arc<SealedRun>> {
    let order = by_labels(core, group, run, series_of);
    packer.run(group.id.0, run, &order).into_iter().map(Arc::new).collect()
}

impl State {
    /// Up to here all samples that follow one another lie in partitions that do not grow; `None` where all of them do.
    fn complete_ms(&self, current: u32) -> Option<i64> {
        // One behind it was begun while the clock was ahead.
        let sealed = self.sealed.iter().filter(|run| run.live && run.head.partition == current);
        let sealed = sealed.map(|run| run.min_ms);
        let frozen = self.frozen.iter().flat_map(|frozen| &frozen.runs).filter(|run| run.live);
        let growing = frozen.chain([self.live.unsettled()]).filter_map(Run::span).map(|(min_ms, _)| min_ms);
        sealed.chain(growing).min().map(|first_ms| first_ms.saturating_sub(1))
    }

    /// The last that is known of its series: a sample, or that they fell silent.
    fn newest_ms(&self) -> i64 {
        let marks = self.marks.iter().map(|mark| mark.at_ms);
        self.sealed.iter().map(|run| run.max_ms).chain(marks).max().unwrap_or(i64::MIN)
    }

    /// From here on samples count that a tier has not seen, those that came late among them.
    pub fn unseen_ms(&self, tier: usize) -> i64 {
        let through = self.tiers[tier].through;
        let sealed = self.sealed.iter().filter(|run| run.head.partition >= through).map(|run| run.min_ms);
        let head = self.runs().filter_map(Run::span).map(|(min_ms, _)| min_ms);
        sealed.chain(head).chain(self.first_late_ms()).min().unwrap_or(i64::MAX)
    }
}

/// Whether a tier is so far behind that a run of raw samples must stay.
pub(super) fn needs(core: &Core, state: &State, run: &SealedRun) -> bool {
    (0..TIERS.len())
        .filter(|tier| core.options.tiers[*tier].is_some_and(|kept| kept.is_zero() || outlives(core, kept)))
        .any(|tier| {
            let tiered = &state.tiers[tier];
            run.head.partition >= tiered.through || run.max_ms > tiered.until_ms
        })
}

/// Whether a tier keeps for longer than raw samples are kept: one that does not needs none that are too old.
fn outlives(core: &Core, kept: Duration) -> bool {
    !core.options.retention.is_zero() && kept > core.options.retention
}
