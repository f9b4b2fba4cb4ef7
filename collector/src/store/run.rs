//! A run: ticks of one group in ascending order, and per series the change points on them.
//!
//! The newest data of a group is one run; late data makes further ones. A run grows in memory, is then frozen, and is sealed
//! into blocks as it is. What silence means depends on the group's `WriteMode`.

mod read;

use std::borrow::Cow;

pub(super) use self::read::{Listed, RunCopy, has_tick_in};
use super::column::{Chunks, Link, Open, RunColumn, value_at};
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

    /// Has a column written, by its place.
    #[inline]
    pub(super) fn write<T>(&mut self, at: usize, write: impl FnOnce(&mut Open<'_, Link<'_>>) -> T) -> T {
        let column = &mut self.columns[at];
        let before = column.chain.len();
        let written = write(&mut column.open(&mut self.chunks));
        self.waypoint_bytes += column.pen.waypoint_bytes_since(before);
        self.longest = self.longest.max(column.chain.len());
        written
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
        self.write(at, |column| {
            if matches!(value, Value::Float(value) if lampad_proto::is_stale(*value)) {
                if key || column.is_present() {
                    column.ended(tick);
                }
            } else if !column.is_last(value) {
                column.set(tick, value);
            }
            column.hold();
        });
    }

    fn end_unlisted(&mut self, tick: u32, values: &[(Slot, Value)]) {
        let mut listed = vec![false; self.columns.len()];
        for (slot, _) in values {
            listed[self.lookup[slot.0 as usize] as usize] = true;
        }
        for at in (0..self.columns.len()).filter(|at| !listed[*at]) {
            if self.columns[at].pen.is_present() {
                self.write(at, |column| column.ended(tick));
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
        self.write(at, |column| {
            let through = column.through;
            if through > tick {
                return false;
            }
            if !column.is_last(value) || through < tick {
                if column.is_present() && through < tick {
                    column.absent(through);
                }
                column.set(tick, value);
            }
            column.through = tick + 1;
            true
        })
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

    /// What one series has at this time, to the last digit.
    pub fn value_at(&self, slot: u32, at_ms: i64) -> Option<Value> {
        let column = self.column(slot)?;
        let tick = self.ticks.find(at_ms)?;
        value_at(&self.chunks.read(&column.chain), column.pen.through, tick as u32)
    }
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
    use crate::store::column::Samples;

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
