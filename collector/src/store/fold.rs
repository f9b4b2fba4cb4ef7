//! Folding: several sealed runs of one group become few.
//!
//! A group that is sealed every few minutes leaves hundreds of runs a day, each with ticks, a directory and a first value of
//! every series. They are joined point by point, in the order in which they were stored; nothing is expanded to samples.
//! Runs are joined when they follow one another in time, and when no run that was stored between them has times in common with
//! the one that would pass it: of two samples of one time the first stored one still counts.

use super::Value;
use super::column::{Link, Open, Point, Walk as _};
use super::piece::UnpackedColumn;
use super::run::Run;

/// Ticks of a folded run: a day of seconds. Reading any of them reads the ticks of all.
const TICKS_MAX: usize = 86_400;

/// Bytes of a folded column: what a query of a few minutes has to walk at most.
const COLUMN_BYTES_MAX: usize = 24 * 1024;

/// The same of a tier, where a series has up to eleven columns and a value of the engine holds them all.
const TIER_COLUMN_BYTES_MAX: usize = 6 * 1024;

/// A run as it was read from blocks.
#[derive(Debug)]
pub(super) struct Unpacked<'a> {
    pub live: bool,
    pub ticks: Vec<i64>,
    pub columns: Vec<UnpackedColumn<'a>>,
}

/// The runs that come of it, in the order in which they count.
#[derive(Debug)]
pub(super) struct Fold {
    pub runs: Vec<Run>,
    column_bytes: usize,
    /// The run of each kind, late and live, that may still grow.
    growing: [Option<usize>; 2],
}

impl Default for Fold {
    fn default() -> Self {
        Self { runs: Vec::new(), column_bytes: COLUMN_BYTES_MAX, growing: [None; 2] }
    }
}

impl Fold {
    pub fn of_tier() -> Self {
        Self { column_bytes: TIER_COLUMN_BYTES_MAX, ..Self::default() }
    }

    /// Adds the run that was stored next; `None` when a column of it is damaged, and then all of the fold is void.
    pub fn add(&mut self, run: &Unpacked<'_>) -> Option<()> {
        let (Some(first), Some(last)) = (run.ticks.first(), run.ticks.last()) else { return Some(()) };
        let kind = usize::from(run.live);
        if let Some(at) = self.growing[kind]
            && self.may_join(at, run, (*first, *last))
        {
            return self.runs[at].join(run);
        }
        self.growing[kind] = Some(self.runs.len());
        let mut new = Run::new();
        new.live = run.live;
        new.join(run)?;
        self.runs.push(new);
        Some(())
    }

    fn may_join(&self, at: usize, run: &Unpacked<'_>, (first, last): (i64, i64)) -> bool {
        let into = &self.runs[at];
        let passed = &self.runs[at + 1..];
        let free = passed.iter().filter_map(Run::span).all(|(min, max)| last < min || max < first);
        let longest = run.columns.iter().map(|column| {
            let before = into.column(column.slot).map_or(0, |column| column.chain.len());
            before + column.points_bytes()
        });
        into.last_ms() < Some(first)
            && free
            && into.ticks.len() + run.ticks.len() <= TICKS_MAX
            && longest.max().unwrap_or(0) <= self.column_bytes
    }
}

impl Run {
    /// Appends a run that begins after this one. A series that it says nothing of at its first tick is absent from there on.
    fn join(&mut self, next: &Unpacked<'_>) -> Option<()> {
        let offset = self.ticks.len() as u32;
        next.ticks.iter().for_each(|tick| _ = self.push_tick(*tick));
        let mut goes_on = vec![false; self.columns.len()];
        for column in &next.columns {
            let at = self.column_at(column.slot);
            self.write(at, |into| join(into, column, offset))?;
            if let Some(goes_on) = goes_on.get_mut(at) {
                *goes_on = true;
            }
        }
        for at in (0..goes_on.len()).filter(|at| !goes_on[*at]) {
            self.write(at, |column| {
                if column.is_present() {
                    let through = column.through.min(offset);
                    column.absent(through);
                }
            });
        }
        Some(())
    }
}

/// Appends a column whose ticks are counted from `offset` on.
fn join(into: &mut Open<'_, Link<'_>>, column: &UnpackedColumn<'_>, offset: u32) -> Option<()> {
    let mut points = column.points();
    let mut first = points.next();
    let through = into.through.min(offset);
    let follows = through == offset && first.is_some_and(|(tick, _)| tick == 0);
    if !follows && into.is_present() {
        into.absent(through);
    }
    while let Some((tick, point)) = first {
        let tick = offset.checked_add(tick)?;
        match point {
            Point::Absent if !into.is_present() => {}
            Point::Absent => into.absent(tick),
            Point::Ended => into.ended(tick),
            Point::Float(_) | Point::Integer(_) | Point::Histogram(_) => {
                let value = value_of(point)?;
                if !into.is_last(&value) {
                    into.set(tick, &value);
                }
            }
        }
        first = points.next();
    }
    into.through = offset.saturating_add(column.through);
    (!points.is_damaged()).then_some(())
}

/// `None` of what is no value, and of a histogram that cannot be read.
pub(super) fn value_of(point: Point<'_>) -> Option<Value> {
    match point {
        Point::Float(value) => Some(Value::Float(value)),
        Point::Integer(value) => Some(Value::Integer(value)),
        Point::Histogram(bytes) => {
            let histogram = <lampad_proto::v1::Histogram as prost::Message>::decode(bytes).ok()?;
            Some(Value::Histogram(histogram.into()))
        }
        Point::Absent | Point::Ended => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Slot;
    use crate::store::column::{OPEN, Samples, expand};
    use crate::store::piece::POINTS;
    use proptest::prelude::*;

    /// What the columns of a run say.
    fn bytes(run: &Run) -> Vec<Vec<u8>> {
        (0..run.columns.len()).map(|at| run.column_bytes(at).into_owned()).collect()
    }

    fn unpacked<'a>(run: &Run, bytes: &'a [Vec<u8>]) -> Unpacked<'a> {
        let columns = run.slots.iter().zip(&run.columns).zip(bytes);
        let columns = columns.map(|((slot, column), bytes)| UnpackedColumn {
            slot: *slot,
            codec: POINTS,
            through: column.pen.through,
            bytes,
        });
        Unpacked { live: run.live, ticks: run.ticks.list().into_owned(), columns: columns.collect() }
    }

    fn samples(runs: &[Run], slot: u32) -> Vec<(i64, u64)> {
        let mut found: Vec<(i64, u64)> = Vec::new();
        for run in runs {
            let mut more = Samples::default();
            assert!(run.expand(slot, i64::MIN, i64::MAX, &mut more));
            let more = more.floats.iter().map(|sample| (sample.timestamp_ms, sample.value.to_bits()));
            found.extend(
                more.filter(|(at_ms, _)| runs.len() == 1 || found.iter().all(|(there, _)| there != at_ms))
                    .collect::<Vec<_>>(),
            );
        }
        found.sort_by_key(|(at_ms, _)| *at_ms);
        found
    }

    const SLOTS: u32 = 4;

    /// Per tick: time to the next, and per series nothing said, a value, or its end.
    fn ticks() -> impl Strategy<Value = Vec<(i64, Vec<Option<Option<i8>>>)>> {
        let change = prop_oneof![3 => Just(None), 3 => (0i8..3).prop_map(|v| Some(Some(v))), 1 => Just(Some(None))];
        prop::collection::vec((1i64..3, prop::collection::vec(change, SLOTS as usize)), 1..6)
    }

    fn run(delta: bool, live: bool, start_ms: i64, ticks: &[(i64, Vec<Option<Option<i8>>>)]) -> Run {
        let mut run = Run::new();
        run.live = live;
        let mut at_ms = start_ms;
        for (step, changes) in ticks {
            let value = |change: i8| Value::Float(f64::from(change));
            if delta {
                let ended = || Value::Float(lampad_proto::stale());
                let values: Vec<(Slot, Value)> = (0..)
                    .map(Slot)
                    .zip(changes)
                    .filter_map(|(slot, change)| {
                        Some((slot, change.map_or_else(|| None, |change| Some(change.map_or_else(ended, value)))?))
                    })
                    .collect();
                run.delta_tick(at_ms, run.is_empty(), &values);
            } else if let Some(tick) = run.stated_tick(at_ms) {
                for (slot, change) in (0..).map(Slot).zip(changes) {
                    if let Some(change) = change.flatten() {
                        run.state(tick, slot, &value(change));
                    }
                }
            }
            at_ms += step;
        }
        run
    }

    proptest! {
        /// Runs one after another, and late ones over them: the fold gives the samples of all, the first stored one each.
        #[test]
        fn nothing_is_lost_and_nothing_is_made_up(
            delta: bool,
            parts in prop::collection::vec((prop::bool::weighted(0.7), 0i64..40, ticks()), 1..8),
        ) {
            let mut now_ms = 0;
            let mut runs = Vec::new();
            for (live, at_ms, ticks) in &parts {
                let start_ms = if *live { now_ms } else { *at_ms };
                runs.push(run(delta, *live, start_ms, ticks));
                if *live {
                    now_ms = runs.last().and_then(Run::last_ms).unwrap_or(now_ms) + 1;
                }
            }
            let mut fold = Fold::default();
            for run in &runs {
                prop_assert!(fold.add(&unpacked(run, &bytes(run))).is_some());
            }
            prop_assert!(fold.runs.len() <= runs.len());
            for slot in 0..SLOTS {
                prop_assert_eq!(samples(&fold.runs, slot), samples(&runs, slot), "slot {}", slot);
            }
            let live = runs.iter().all(|run| run.live);
            prop_assert!(!live || fold.runs.len() == 1, "{} runs of {}", fold.runs.len(), runs.len());
        }
    }

    #[test]
    fn what_does_not_change_costs_its_first_run_only() {
        let runs: Vec<Run> =
            (0..100).map(|n| run(true, true, n * 100, &[(1, vec![Some(Some(1)); 4]), (1, vec![None; 4])])).collect();
        let mut fold = Fold::default();
        runs.iter().for_each(|run| fold.add(&unpacked(run, &bytes(run))).unwrap());
        assert_eq!(fold.runs[0].column_bytes(0), runs[0].column_bytes(0));
        assert_eq!(samples(&fold.runs, 0).len(), 200);
    }

    #[test]
    fn a_column_does_not_grow_beyond_what_a_short_query_may_walk() {
        let noise: Vec<Run> = (0..8)
            .map(|n| {
                let mut run = Run::new();
                run.live = true;
                for tick in 0..1000 {
                    let value = f64::from_bits(0x9E37_79B9_7F4A_7C15u64.wrapping_mul(tick as u64 + 1) >> 2);
                    run.delta_tick(n * 1000 + tick, tick == 0, &[(Slot(0), Value::Float(value))]);
                }
                run
            })
            .collect();
        let mut fold = Fold::default();
        noise.iter().for_each(|run| fold.add(&unpacked(run, &bytes(run))).unwrap());
        assert_eq!(fold.runs.len(), 4);
        assert!(fold.runs.iter().all(|run| run.longest <= COLUMN_BYTES_MAX));
        assert_eq!(samples(&fold.runs, 0), samples(&noise, 0));
    }

    #[test]
    fn a_damaged_column_voids_the_fold() {
        let column = UnpackedColumn { slot: 0, codec: POINTS, through: OPEN, bytes: &[0xff] };
        assert!(!expand(column.bytes, OPEN, &[1], 0, 9, &mut Samples::default()));
        let run = Unpacked { live: true, ticks: vec![1], columns: vec![column] };
        assert!(Fold::default().add(&run).is_none());
    }
}
