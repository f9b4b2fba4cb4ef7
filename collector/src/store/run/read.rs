//! Reading a run: its columns as they lie in memory, or some of them as they were when they were copied.

use std::borrow::Cow;
use std::ops::Range;

use crate::store::Slot;
use crate::store::column::{POINT_BYTES, Points, RunColumn, Samples, Waypoint, expand_points, ticks_in};

use super::Run;

impl Run {
    /// What is needed for samples from this time on.
    pub fn copy(&self, slots: &[Slot], from_ms: i64) -> RunCopy {
        let low = self.ticks.partition_point(|tick| tick < from_ms);
        let mut bytes = Vec::new();
        let column = |slot: &Slot| Some(self.tail(self.column(slot.0)?, low, &mut bytes));
        let columns = slots.iter().map(column).collect();
        RunCopy { ticks: self.ticks.list().into_owned(), columns, bytes }
    }

    /// Adds the bytes of a column from the last waypoint on whose point holds at this tick or before.
    fn tail(&self, RunColumn { chain, pen }: &RunColumn, tick: usize, out: &mut Vec<u8>) -> Tail {
        let (start, from) = (pen.waypoint_before(tick), out.len());
        let (at, place) = start.map_or((0, 0), |start| (start.at as usize, start.place));
        self.chunks.read_from(chain, at, place, out);
        Tail { start, bytes: from..out.len(), through: pen.through }
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
pub(in crate::store) struct Listed<'a> {
    run: &'a Run,
    pub ticks: Cow<'a, [i64]>,
}

impl Listed<'_> {
    /// Adds the samples of one series in `[from_ms, to_ms]`.
    pub fn expand(&self, slot: u32, from_ms: i64, to_ms: i64, out: &mut Samples) -> bool {
        let Some(column) = self.run.column(slot) else { return true };
        let (wanted, mut bytes) = (ticks_in(&self.ticks, from_ms, to_ms), Vec::new());
        self.run.tail(column, wanted.start, &mut bytes).expand(&bytes, &self.ticks, wanted, out)
    }
}

/// Ticks and some columns of a run as they were.
#[derive(Debug)]
pub(in crate::store) struct RunCopy {
    pub ticks: Vec<i64>,
    /// Of each wanted slot.
    columns: Vec<Option<Tail>>,
    /// Of all columns.
    bytes: Vec<u8>,
}

impl RunCopy {
    /// Adds the samples of the wanted slot at this place in `[from_ms, to_ms]`.
    pub fn expand(&self, at: usize, from_ms: i64, to_ms: i64, out: &mut Samples) -> bool {
        let Some(tail) = &self.columns[at] else { return true };
        tail.expand(&self.bytes, &self.ticks, ticks_in(&self.ticks, from_ms, to_ms), out)
    }
}

/// The end of a column, and which of the copied bytes are its.
#[derive(Debug)]
struct Tail {
    start: Option<Waypoint>,
    bytes: Range<usize>,
    through: u32,
}

impl Tail {
    fn expand(&self, bytes: &[u8], ticks: &[i64], wanted: Range<usize>, out: &mut Samples) -> bool {
        let bytes = &bytes[self.bytes.clone()];
        out.floats.begin(bytes.len() / POINT_BYTES, wanted.len());
        expand_points(Points::from(self.start, bytes), self.through, ticks, wanted, out)
    }
}

/// Whether some tick lies in `(after_ms, until_ms]`.
pub(in crate::store) fn has_tick_in(ticks: &[i64], after_ms: i64, until_ms: i64) -> bool {
    ticks.partition_point(|tick| *tick <= after_ms) < ticks.partition_point(|tick| *tick <= until_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Value;

    #[test]
    fn what_is_copied_from_a_time_on_is_the_end_of_the_column() {
        let float = |slot: u32, value: f64| (Slot(slot), Value::Float(value));
        let dated = |samples: &Samples| samples.floats.iter().map(|s| (s.timestamp_ms, s.value)).collect::<Vec<_>>();
        let mut run = Run::new();
        for tick in 0..1500 {
            let values = [float(0, f64::from(tick * tick % 997)), float(1, f64::from(tick % 5) / 4.0), float(2, 1.0)];
            run.delta_tick(tick.into(), tick == 0, &values);
        }
        assert!(run.column(0).unwrap().pen.waypoints().len() > 5);
        let all: Vec<Samples> = (0..3)
            .map(|slot| {
                let mut all = Samples::default();
                assert!(run.expand(slot, i64::MIN, i64::MAX, &mut all));
                all
            })
            .collect();
        for from_ms in (0..1500).step_by(7) {
            let copy = run.copy(&[0, 1, 2].map(Slot), from_ms);
            for slot in 0..3 {
                let (mut copied, mut read) = (Samples::default(), Samples::default());
                assert!(copy.expand(slot as usize, from_ms, i64::MAX, &mut copied));
                assert!(run.expand(slot, from_ms, i64::MAX, &mut read));
                assert_eq!(copied.floats, read.floats);
                assert_eq!(dated(&read), dated(&all[slot as usize])[from_ms as usize..]);
            }
        }
    }
}
