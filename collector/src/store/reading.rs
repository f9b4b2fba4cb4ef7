//! The samples of one group, series by series: what its lock guards is copied, the rest is read and decoded without it.
//!
//! Places of one series are in blocks, in frozen runs, in runs that grow and among late samples, in the order in which they
//! were stored: of two samples with one time the first counts.

use std::sync::Arc;

use super::blocks::{self, OpenRun, ReadAhead};
use super::column::{Samples, ticks_in};
use super::core::Core;
use super::erase::{Erased, hide};
use super::group::{Frozen, Group, Mark, State};
use super::read::{finish, merge};
use super::run::{Listed, Run, RunCopy, has_tick_in};
use super::{Budget, Floats, Sample, SelectError, Slot, Value};

/// Samples of one wanted series from one group.
pub(super) type Wanted = (usize, Slot);

/// Takes a series' samples, of which there is one at least, and leaves whatever it likes.
pub(super) type Take<'a> = &'a mut dyn FnMut(usize, &mut Samples);

/// Samples for which room is made before it is known whether they are there.
const ROOM_MAX: usize = 1 << 16;

/// Which samples of a group are wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub from_ms: i64,
    pub to_ms: i64,
    /// Of each series only the last one counts.
    pub last: bool,
    /// Values may be held.
    pub changes: bool,
}

impl Asked {
    /// Every sample, each with a value of its own.
    pub fn all(from_ms: i64, to_ms: i64) -> Self {
        Self { from_ms, to_ms, last: false, changes: false }
    }
}

/// A group as it was under its lock.
struct Seen {
    /// Series whose last sample is known without reading.
    current: Vec<(usize, i64, Value)>,
    rest: Vec<Wanted>,
    slots: Vec<Slot>,
    /// Samples from here on are read: who was present when the agent fell silent is told by the sample at that tick.
    low_ms: i64,
    frozen: Vec<Arc<Frozen>>,
    growing: Vec<RunCopy>,
    /// Of each slot, where there are any at all.
    late: Vec<Samples>,
    marks: Vec<Mark>,
    sealed: Arc<Vec<Arc<super::block::SealedRun>>>,
    erased: Arc<Vec<Erased>>,
}

impl Core {
    /// Hands out the samples of the wanted series, ascending.
    pub(super) fn read_group(
        &self,
        group: &Group,
        wanted: &[Wanted],
        asked: Asked,
        budget: &Budget,
        ahead: ReadAhead<'_>,
        take: Take<'_>,
    ) -> Result<(), SelectError> {
        let oldest_ms = self.oldest_ms(self.options.clock.now_ms());
        let Some(seen) = Seen::of(&mut group.state.lock(), wanted, asked, oldest_ms) else { return Ok(()) };
        budget.take(seen.current.len() as u64)?;
        for (series, at_ms, value) in &seen.current {
            take(*series, &mut one(*at_ms, value.clone()));
        }
        self.read_seen(group, seen, asked, budget, ahead, take)
    }

    fn read_seen(
        &self,
        group: &Group,
        mut seen: Seen,
        asked: Asked,
        budget: &Budget,
        ahead: ReadAhead<'_>,
        take: Take<'_>,
    ) -> Result<(), SelectError> {
        let wanted = blocks::Wanted { group: group.id, slots: &seen.slots, from_ms: seen.low_ms, to_ms: asked.to_ms };
        let sealed = self.blocks.open(&wanted, &seen.sealed, budget, ahead)?;
        for run in &sealed {
            seen.marks.retain(|mark| !has_tick_in(run.ticks(), mark.after_ms, mark.at_ms));
        }
        let samples = Samples { floats: Floats::of_changes(asked.changes), histograms: Vec::new() };
        let mut adding = Adding { samples, from_ms: seen.low_ms, to_ms: asked.to_ms, budget, last: asked.last };
        // Once for all series of the group: a column that grew run by run would be copied as often as it is doubled.
        let ticks = |run: &OpenRun| ticks_in(run.ticks(), adding.from_ms, adding.to_ms).len();
        let room: usize = sealed.iter().map(ticks).sum();
        adding.samples.floats.reserve(room.min(ROOM_MAX));
        let frozen = seen.frozen.iter().flat_map(|frozen| &frozen.runs);
        let frozen: Vec<Listed<'_>> =
            frozen.filter(|run| run.is_near(adding.from_ms, adding.to_ms)).map(Run::listed).collect();
        for (at, (series, slot)) in seen.rest.iter().enumerate() {
            self.add_sealed(&mut adding, &sealed, at)?;
            seen.add_head(&mut adding, &frozen, at)?;
            let samples = &mut adding.samples;
            // Before the marks, because a deleted sample does not end, and after them, because their own times may be deleted.
            hide(&seen.erased, slot.0, samples);
            finish(samples, &seen.marks, asked.from_ms);
            hide(&seen.erased, slot.0, samples);
            if samples.len() > 0 {
                take(*series, samples);
                samples.clear();
            }
        }
        Ok(())
    }

    fn add_sealed(&self, adding: &mut Adding<'_>, sealed: &[OpenRun], at: usize) -> Result<(), SelectError> {
        for run in sealed {
            let Some(column) = run.column(at) else { continue };
            let mut whole = true;
            adding.add(run.ticks().first(), |from_ms, to_ms, out| {
                whole = column.expand(run.ticks(), from_ms, to_ms, out)
            })?;
            if !whole {
                self.blocks.report_column(column);
            }
        }
        Ok(())
    }
}

impl Seen {
    /// `None` where the group has nothing of that time.
    fn of(state: &mut State, wanted: &[Wanted], asked: Asked, oldest_ms: i64) -> Option<Self> {
        let Asked { from_ms, to_ms, last, .. } = asked;
        let (min_ms, max_ms) = state.span()?;
        if from_ms > to_ms || max_ms.max(state.last_mark_ms()) < from_ms || min_ms > to_ms {
            return None;
        }
        let near = |mark: &&Mark| (from_ms..=to_ms).contains(&mark.at_ms) && mark.after_ms >= oldest_ms;
        let marks: Vec<Mark> = state.marks.iter().filter(near).copied().collect();
        let (current, rest) = match last && marks.is_empty() && state.is_plain() {
            true => current(state, wanted, asked),
            false => (Vec::new(), wanted.to_vec()),
        };
        let low_ms = marks.iter().map(|mark| mark.after_ms).fold(from_ms, i64::min);
        let slots: Vec<Slot> = rest.iter().map(|(_, slot)| *slot).collect();
        // Only bytes are copied under the lock, or a wide query would hold up those who append.
        let near = |run: &&Run| run.is_near(low_ms, to_ms);
        let growing = match slots.is_empty() {
            true => Vec::new(),
            false => state.growing(&slots).filter(near).map(|run| run.copy(&slots, low_ms)).collect(),
        };
        let has_late = state.first_late_ms().is_some_and(|first_ms| first_ms <= to_ms);
        let late = |slot: &Slot| {
            let mut late = Samples::default();
            state.late(slot.0, low_ms, to_ms, &mut late);
            late
        };
        Some(Self {
            growing,
            late: if has_late { slots.iter().map(late).collect() } else { Vec::new() },
            marks: marks.into_iter().filter(|mark| state.is_silent(mark)).collect(),
            frozen: state.frozen.clone(),
            sealed: state.sealed.clone(),
            erased: state.erased.clone(),
            current,
            rest,
            slots,
            low_ms,
        })
    }

    fn add_head(&self, adding: &mut Adding<'_>, frozen: &[Listed<'_>], at: usize) -> Result<(), SelectError> {
        let slot = self.slots[at].0;
        for run in frozen {
            adding.add(run.ticks.first(), |from_ms, to_ms, out| _ = run.expand(slot, from_ms, to_ms, out))?;
        }
        for run in &self.growing {
            adding.add(run.ticks.first(), |from_ms, to_ms, out| _ = run.expand(at, from_ms, to_ms, out))?;
        }
        if let Some(late) = self.late.get(at) {
            adding.budget.take_read(late, adding.last)?;
            merge(&mut adding.samples, late.clone());
        }
        Ok(())
    }
}

/// Which of the wanted series have their last sample in memory, and those that must be read.
fn current(state: &mut State, wanted: &[Wanted], asked: Asked) -> (Vec<(usize, i64, Value)>, Vec<Wanted>) {
    let late_ms = state.sealed.iter().filter(|run| !run.live).map(|run| run.max_ms).max();
    let (mut current, mut rest) = (Vec::with_capacity(wanted.len()), Vec::new());
    state.live.expect(wanted.len());
    for (series, slot) in wanted {
        let near =
            |at_ms: i64| (asked.from_ms..=asked.to_ms).contains(&at_ms) && late_ms.is_none_or(|late| late < at_ms);
        match state.current(slot.0).filter(|(at_ms, _)| near(*at_ms)) {
            Some((at_ms, value)) if !state.is_erased(slot.0, at_ms) => current.push((*series, at_ms, value)),
            _ => rest.push((*series, *slot)),
        }
    }
    (current, rest)
}

/// Puts together the samples of one series after another.
struct Adding<'a> {
    samples: Samples,
    from_ms: i64,
    to_ms: i64,
    budget: &'a Budget,
    last: bool,
}

impl Adding<'_> {
    /// Adds what `expand` finds in a run that begins there: behind what is there already, unless that is as new.
    fn add(&mut self, first_ms: Option<&i64>, expand: impl FnOnce(i64, i64, &mut Samples)) -> Result<(), SelectError> {
        let Some(first_ms) = first_ms.map(|first_ms| *first_ms.max(&self.from_ms)) else { return Ok(()) };
        let before = (self.samples.floats.len(), self.samples.histograms.len());
        if self.samples.last_ms().is_none_or(|last_ms| last_ms < first_ms) {
            expand(self.from_ms, self.to_ms, &mut self.samples);
            return self.budget.take_added(&self.samples, before, self.last);
        }
        let mut more = Samples::default();
        expand(self.from_ms, self.to_ms, &mut more);
        self.budget.take_read(&more, self.last)?;
        merge(&mut self.samples, more);
        Ok(())
    }
}

fn one(timestamp_ms: i64, value: Value) -> Samples {
    let float =
        |value| Samples { floats: [Sample { timestamp_ms, value }].into_iter().collect(), histograms: Vec::new() };
    match value {
        Value::Float(value) => float(value),
        Value::Integer(value) => float(value.as_f64()),
        Value::Histogram(histogram) => {
            Samples { floats: Floats::default(), histograms: vec![(timestamp_ms, histogram)] }
        }
    }
}
