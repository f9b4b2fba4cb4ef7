//! A run: ticks of one group in ascending order, and per series the change points on them.
//!
//! The newest data of a group is one run; late data makes further ones. A run grows in memory, is then frozen, and is sealed
//! into blocks as it is. What silence means depends on the group's `WriteMode`.

use std::borrow::Cow;
use std::ops::Range;

use super::column::{
    Chunks, Link, Open, POINT_BYTES, Points, RunColumn, Samples, Waypoint, expand_points, ticks_in, value_at,
};
use super::ticks::Growing;
use super::{Slot, Value};

/// No column for this slot.
const NONE: u32 = u32::MAX;

/// Bytes that a column takes in memory beside its points.
const COLUMN_BYTES: usize = size_of::<RunColumn>() + 2 * size_of::<u32>();

#[derive(Debug)]
pub(super) struct Run {
    /// The newest data of its group, as opposed to an overlay.
    pub live: bool,
    pub ticks: Growing,
    /// Slot of each column.
    pub slots: Vec<u32>,
    pub columns: Vec<RunColumn>,
    /// What lies in no column itself.
    chunks: Chunks,
    /// Column of each slot, [`NONE`] where there is none.
    lookup: Vec<u32>,
    waypoint_bytes: usize,
    /// Longest column, in bytes.
    pub longest: usize,
    /// First log record with something of this run.
    pub first_lsn: u64,
}

impl Run {
    pub fn new() -> Self {
        Self {
            live: false,
            ticks: Growing::new(),
            slots: Vec::new(),
            columns: Vec::new(),
            chunks: Chunks::default(),
            lookup: Vec::new(),
            waypoint_bytes: 0,
            longest: 0,
            first_lsn: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.ticks.len() == 0
    }

    pub fn last_ms(&self) -> Option<i64> {
        self.ticks.last()
    }

    /// First and last tick.
    pub fn span(&self) -> Option<(i64, i64)> {
        Some((self.ticks.first()?, self.ticks.last()?))
    }

    /// Whether some of its ticks may lie in `[from_ms, to_ms]`.
    pub fn is_near(&self, from_ms: i64, to_ms: i64) -> bool {
        self.span().is_some_and(|(min_ms, max_ms)| max_ms >= from_ms && min_ms <= to_ms)
    }

    /// What it takes in memory, about.
    pub fn bytes(&self) -> usize {
        self.columns.len() * COLUMN_BYTES + self.chunks.bytes() + self.waypoint_bytes + self.ticks.bytes()
    }

    pub fn column(&self, slot: u32) -> Option<&RunColumn> {
        let at = *self.lookup.get(slot as usize)?;
        self.columns.get(at as usize)
    }

    /// The bytes of a column by its place.
    pub fn column_bytes(&self, at: usize) -> Cow<'_, [u8]> {
        self.chunks.read(&self.columns[at].chain)
    }

    /// A column by its place, to be written; [`Self::grown`] is told when that is done.
    pub(super) fn open(&mut self, at: usize) -> Open<'_, Link<'_>> {
        self.columns[at].open(&mut self.chunks)
    }

    pub(super) fn column_at(&mut self, slot: u32) -> usize {
        if self.lookup.len() <= slot as usize {
            self.lookup.reserve_exact(self.columns.capacity().saturating_sub(self.lookup.len()));
            self.lookup.resize(slot as usize + 1, NONE);
        }
        if self.lookup[slot as usize] == NONE {
            self.lookup[slot as usize] = self.columns.len() as u32;
            self.columns.push(RunColumn::default());
            self.slots.push(slot);
        }
        self.lookup[slot as usize] as usize
    }

    /// A column that had so many bytes was written.
    pub(super) fn grown(&mut self, at: usize, before: usize) {
        let column = &self.columns[at];
        self.waypoint_bytes += column.pen.waypoint_bytes_since(before);
        self.longest = self.longest.max(column.chain.len());
    }

    pub(super) fn push_tick(&mut self, timestamp_ms: i64) -> u32 {
        let tick = self.ticks.len() as u32;
        self.ticks.push(timestamp_ms);
        tick
    }

    /// Adds a tick on which all series go on except those in `values`; the stale marker ends one, in a key tick also one that
    /// was present in another run.
    pub fn delta_tick(&mut self, timestamp_ms: i64, key: bool, values: &[(Slot, Value)]) {
        let tick = self.push_tick(timestamp_ms);
        if self.columns.is_empty() {
            // Mostly these are all that will ever come.
            self.columns.reserve_exact(values.len());
            self.slots.reserve_exact(values.len());
        }
        for (slot, value) in values {
            let at = self.column_at(slot.0);
            self.go_on(at, tick, key, value);
        }
        if key && tick > 0 {
            self.end_unlisted(tick, values);
        }
    }

    /// Puts into a column what a tick that is there already said of it, unless that was put there before.
    pub fn catch_up(&mut self, tick: u32, slot: u32, value: f64) {
        let at = self.column_at(slot);
        if self.columns[at].is_behind(tick) {
            self.go_on(at, tick, false, &Value::Float(value));
        }
    }

    fn go_on(&mut self, at: usize, tick: u32, key: bool, value: &Value) {
        let before = self.columns[at].chain.len();
        let mut column = self.open(at);
        if matches!(value, Value::Float(value) if lampad_proto::is_stale(*value)) {
            if key || column.is_present() {
                column.ended(tick);
            }
        } else if !column.is_last(value) {
            column.set(tick, value);
        }
        column.hold();
        self.grown(at, before);
    }

    fn end_unlisted(&mut self, tick: u32, values: &[(Slot, Value)]) {
        let mut listed = vec![false; self.columns.len()];
        for (slot, _) in values {
            listed[self.lookup[slot.0 as usize] as usize] = true;
        }
        for at in (0..self.columns.len()).filter(|at| !listed[*at]) {
            let before = self.columns[at].chain.len();
            if self.columns[at].pen.is_present() {
                self.open(at).ended(tick);
                self.grown(at, before);
            }
        }
    }

    /// The number of the tick at this time, which is added when it is newer than all others; `None` when it would have to be
    /// put between two.
    pub fn stated_tick(&mut self, timestamp_ms: i64) -> Option<u32> {
        if self.last_ms().is_none_or(|last| timestamp_ms > last) {
            return Some(self.push_tick(timestamp_ms));
        }
        self.ticks.find(timestamp_ms).map(|tick| tick as u32)
    }

    /// The series has this value at this tick and nothing is said of later ones. False when it has something there or later.
    pub fn state(&mut self, tick: u32, slot: Slot, value: &Value) -> bool {
        let at = self.column_at(slot.0);
        let before = self.columns[at].chain.len();
        let mut column = self.open(at);
        if column.through > tick {
            return false;
        }
        if !column.is_last(value) || column.through < tick {
            if column.is_present() && column.through < tick {
                let through = column.through;
                column.absent(through);
            }
            column.set(tick, value);
        }
        column.through = tick + 1;
        self.grown(at, before);
        true
    }

    /// Slots that have a value at the end, ascending.
    pub fn present(&self) -> Vec<Carried> {
        let mut present: Vec<Carried> = Vec::with_capacity(self.columns.len());
        for (slot, column) in self.slots.iter().zip(&self.columns) {
            let through = (column.pen.through as usize).min(self.ticks.len());
            let last = through.checked_sub(1).and_then(|last| self.ticks.get(last));
            if let (Some(value), Some(timestamp_ms)) = (column.pen.last(), last) {
                present.push(Carried { slot: *slot, timestamp_ms, value });
            }
        }
        present.sort_unstable_by_key(|carried| carried.slot);
        present
    }

    /// The last sample of a series that goes on.
    pub fn current(&self, slot: u32) -> Option<(i64, Value)> {
        let pen = &self.column(slot)?.pen;
        let last = (pen.through as usize).min(self.ticks.len()).checked_sub(1)?;
        Some((self.ticks.get(last)?, pen.last()?))
    }

    /// What is needed for samples from this time on.
    pub fn copy(&self, slots: &[Slot], from_ms: i64) -> RunCopy {
        let low = self.ticks.partition_point(|tick| tick < from_ms);
        let mut bytes = Vec::new();
        let column = |slot: &Slot| {
            let (column, from) = (self.column(slot.0)?, bytes.len());
            let start = self.put_tail(column, low, &mut bytes);
            Some(Tail { start, bytes: from..bytes.len(), through: column.pen.through })
        };
        let columns = slots.iter().map(column).collect();
        RunCopy { ticks: self.ticks.list().into_owned(), columns, bytes }
    }

    /// Adds the bytes of a column from the last waypoint on whose point holds at this tick or before; says which that is.
    fn put_tail(&self, RunColumn { chain, pen }: &RunColumn, tick: usize, out: &mut Vec<u8>) -> Option<Waypoint> {
        let start = pen.waypoint_before(tick);
        let (at, place) = start.map_or((0, 0), |start| (start.at as usize, start.place));
        self.chunks.read_from(chain, at, place, out);
        start
    }

    /// What one series has at this time, to the last digit.
    pub fn value_at(&self, slot: u32, at_ms: i64) -> Option<Value> {
        let column = self.column(slot)?;
        let tick = self.ticks.find(at_ms)?;
        value_at(&self.chunks.read(&column.chain), column.pen.through, tick as u32)
    }

    pub fn listed(&self) -> Listed<'_> {
        Listed { run: self, ticks: self.ticks.list() }
    }

    #[cfg(test)]
    pub fn expand(&self, slot: u32, from_ms: i64, to_ms: i64, out: &mut Samples) -> bool {
        self.listed().expand(slot, from_ms, to_ms, out)
    }
}

/// A run with a list of its ticks, made once for all series that are read.
#[derive(Debug)]
pub(super) struct Listed<'a> {
    run: &'a Run,
    pub ticks: Cow<'a, [i64]>,
}

impl Listed<'_> {
    /// Adds the samples of one series in `[from_ms, to_ms]`.
    pub fn expand(&self, slot: u32, from_ms: i64, to_ms: i64, out: &mut Samples) -> bool {
        let Some(column) = self.run.column(slot) else { return true };
        let (wanted, mut bytes) = (ticks_in(&self.ticks, from_ms, to_ms), Vec::new());
        let start = self.run.put_tail(column, wanted.start, &mut bytes);
        out.floats.begin(bytes.len() / POINT_BYTES, wanted.len());
        expand_points(Points::from(start, &bytes), column.pen.through, &self.ticks, wanted, out)
    }
}

/// Ticks and some columns of a run as they were.
#[derive(Debug)]
pub(super) struct RunCopy {
    pub ticks: Vec<i64>,
    /// Of each wanted slot.
    columns: Vec<Option<Tail>>,
    /// Of all columns.
    bytes: Vec<u8>,
}

/// The end of a column as it was.
#[derive(Debug)]
struct Tail {
    start: Option<Waypoint>,
    bytes: Range<usize>,
    through: u32,
}

impl RunCopy {
    /// Adds the samples of the wanted slot at this place in `[from_ms, to_ms]`.
    pub fn expand(&self, at: usize, from_ms: i64, to_ms: i64, out: &mut Samples) -> bool {
        match &self.columns[at] {
            Some(Tail { start, bytes, through }) => {
                let (points, wanted) =
                    (Points::from(*start, &self.bytes[bytes.clone()]), ticks_in(&self.ticks, from_ms, to_ms));
                out.floats.begin(bytes.len() / POINT_BYTES, wanted.len());
                expand_points(points, *through, &self.ticks, wanted, out)
            }
            None => true,
        }
    }
}

/// Whether some tick lies in `(after_ms, until_ms]`.
pub(super) fn has_tick_in(ticks: &[i64], after_ms: i64, until_ms: i64) -> bool {
    ticks.partition_point(|tick| *tick <= after_ms) < ticks.partition_point(|tick| *tick <= until_ms)
}

/// A series' last sample, kept when its run is frozen.
#[derive(Debug, Clone)]
pub(super) struct Carried {
    pub slot: u32,
    pub timestamp_ms: i64,
    pub value: Value,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(run: &Run, slot: u32) -> Vec<(i64, f64)> {
        let mut out = Samples::default();
        assert!(run.expand(slot, i64::MIN, i64::MAX, &mut out));
        out.floats.iter().map(|sample| (sample.timestamp_ms, sample.value)).collect()
    }

    fn float(slot: u32, value: f64) -> (Slot, Value) {
        (Slot(slot), Value::Float(value))
    }

    #[test]
    fn silence_repeats_the_value_and_a_key_tick_ends_what_it_does_not_list() {
        let mut run = Run::new();
        run.delta_tick(10, true, &[float(0, 1.0), float(1, 2.0)]);
        run.delta_tick(20, false, &[float(1, 3.0)]);
        let bytes = run.bytes();
        run.delta_tick(30, true, &[float(1, 3.0)]);
        assert_eq!(floats(&run, 1), [(10, 2.0), (20, 3.0), (30, 3.0)]);
        let first = floats(&run, 0);
        assert_eq!(first[..2], [(10, 1.0), (20, 1.0)]);
        assert!(first.len() == 3 && first[2].0 == 30 && lampad_proto::is_stale(first[2].1));
        assert_eq!(
            run.bytes(),
            bytes,
            "the tick is in step, the end has room in the column, the unchanged value is silent"
        );
    }

    #[test]
    fn what_is_copied_from_a_time_on_is_the_end_of_the_column() {
        let mut run = Run::new();
        for tick in 0..1500 {
            let values = [float(0, f64::from(tick * tick % 997)), float(1, f64::from(tick % 5) / 4.0), float(2, 1.0)];
            run.delta_tick(tick.into(), tick == 0, &values);
        }
        assert!(run.column(0).unwrap().pen.waypoints().len() > 5);
        for from_ms in (0..1500).step_by(7) {
            let copy = run.copy(&[0, 1, 2].map(Slot), from_ms);
            for slot in 0..3 {
                let (mut copied, mut read) = (Samples::default(), Samples::default());
                assert!(copy.expand(slot as usize, from_ms, i64::MAX, &mut copied));
                assert!(run.expand(slot, from_ms, i64::MAX, &mut read));
                assert_eq!(copied.floats, read.floats);
                let found: Vec<(i64, f64)> =
                    read.floats.iter().map(|sample| (sample.timestamp_ms, sample.value)).collect();
                assert_eq!(found, floats(&run, slot)[from_ms as usize..]);
            }
        }
    }

    #[test]
    fn of_stated_series_silence_is_absence() {
        let mut run = Run::new();
        for (timestamp_ms, slots) in [(10, &[0, 1][..]), (20, &[1]), (30, &[0, 1]), (40, &[1])] {
            let tick = run.stated_tick(timestamp_ms).unwrap();
            for slot in slots {
                assert!(run.state(tick, Slot(*slot), &Value::Float(5.0)));
            }
        }
        assert_eq!(floats(&run, 0), [(10, 5.0), (30, 5.0)]);
        assert_eq!(floats(&run, 1), [(10, 5.0), (20, 5.0), (30, 5.0), (40, 5.0)]);
        let tick = run.stated_tick(40).unwrap();
        assert!(run.state(tick, Slot(0), &Value::Float(5.0)), "late, yet nothing is there");
        assert!(!run.state(tick, Slot(0), &Value::Float(5.0)), "something is there now");
        assert_eq!(run.stated_tick(25), None);
    }
}
