//! From points to samples: one per tick for as long as a point holds.

use std::ops::Range;
use std::sync::Arc;

use lampad_proto::v1::Histogram;
use prost::Message as _;

use crate::store::{Floats, Sample, Value};

use super::{Point, Points, Walk};

/// Samples of one series, ascending within each list.
#[derive(Debug, Default, Clone)]
pub struct Samples {
    pub floats: Floats,
    pub histograms: Vec<(i64, Arc<Histogram>)>,
}

impl Samples {
    pub fn len(&self) -> usize {
        self.floats.len() + self.histograms.len()
    }

    /// Keeps the memory for others.
    pub fn clear(&mut self) {
        self.floats.clear();
        self.histograms.clear();
    }

    pub fn last_ms(&self) -> Option<i64> {
        let float = self.floats.last().map(|sample| sample.timestamp_ms);
        float.max(self.histograms.last().map(|(at_ms, _)| *at_ms))
    }
}

/// As [`expand_points`], of a whole column of codec 1.
#[cfg(test)]
pub fn expand(bytes: &[u8], through: u32, ticks: &[i64], from_ms: i64, to_ms: i64, out: &mut Samples) -> bool {
    expand_points(Points::new(bytes), through, ticks, ticks_in(ticks, from_ms, to_ms), out)
}

/// Numbers of the ticks in `[from_ms, to_ms]`.
pub fn ticks_in(ticks: &[i64], from_ms: i64, to_ms: i64) -> Range<usize> {
    // Of several runs mostly all are wanted of all but the first and the last.
    let all = ticks.first().is_some_and(|first| *first >= from_ms) && ticks.last().is_some_and(|last| *last <= to_ms);
    if all {
        return 0..ticks.len();
    }
    ticks.partition_point(|tick| *tick < from_ms)..ticks.partition_point(|tick| *tick <= to_ms)
}

/// Adds the samples of a column at the wanted ticks: one per tick while a point holds. Points may come out of any codec. False
/// when the bytes are damaged; what could be read is there.
pub fn expand_points<'a>(
    mut points: impl Walk<'a>,
    through: u32,
    ticks: &[i64],
    wanted: Range<usize>,
    out: &mut Samples,
) -> bool {
    let (low, high) = (wanted.start, wanted.end);
    let end = (through as usize).min(ticks.len()).min(high);
    let mut filling = Filling { ticks: &ticks[..high], low, out };
    filling.make_room(end);
    let held_by_changes = filling.out.floats.is_held();
    // What holds until the next point.
    let mut held: Option<(u32, Point<'a>)> = None;
    loop {
        // What is held has no use for values that are told one by one.
        if !held_by_changes && let Some(first) = points.run_from() {
            let is_before = |held: &mut (u32, Point<'a>)| held.0 < first;
            if let Some((tick, point)) = held.take_if(is_before)
                && !filling.hold(tick, point, first as usize)
            {
                return false;
            }
            if let Some((last, value)) = filling.each(first, |most, out| points.run(most, out)) {
                held = Some((last, Point::Float(value)));
                if last as usize >= high {
                    return true;
                }
                continue;
            }
        }
        let Some((tick, point)) = points.next() else { break };
        if held.replace((tick, point)).is_some_and(|(before, point)| !filling.hold(before, point, tick as usize)) {
            return false;
        }
        if tick as usize >= high {
            return true;
        }
    }
    held.is_none_or(|(tick, point)| filling.hold(tick, point, end)) && !points.is_damaged()
}

/// Samples that are put out tick by tick.
struct Filling<'a> {
    /// Up to the last that is wanted.
    ticks: &'a [i64],
    /// The first that is wanted.
    low: usize,
    out: &'a mut Samples,
}

impl Filling<'_> {
    /// Of columns nearly all are floats at most of their ticks.
    fn make_room(&mut self, end: usize) {
        self.out.floats.reserve(end.saturating_sub(self.low));
    }

    /// One sample for each of the values that are put out, the first of which is at tick `at`; the last one, which may hold for
    /// longer, is left to what follows. None where there are no values.
    fn each(&mut self, at: u32, put: impl FnOnce(usize, &mut Vec<f64>)) -> Option<(u32, f64)> {
        let first = at as usize;
        // One beyond, so that it is seen that there is no more to read.
        let most = (self.ticks.len() + 1).saturating_sub(first);
        self.out.floats.extend_dated(|values| {
            let before = values.len();
            put(most, values);
            let held = (values.len() - before).checked_sub(1)?;
            let value = values.pop()?;
            let early = self.low.saturating_sub(first).min(held);
            values.drain(before..before + early);
            let times = self.ticks.get(first + early..).unwrap_or_default();
            Some((&times[..times.len().min(held - early)], (at.saturating_add(held as u32), value)))
        })
    }

    /// The samples of a point that holds from a tick until before another one. False where it cannot be read.
    #[inline]
    fn hold(&mut self, tick: u32, point: Point<'_>, until: usize) -> bool {
        let tick = tick as usize;
        let span = tick.max(self.low)..until.min(self.ticks.len());
        match point {
            Point::Absent => {}
            Point::Ended => {
                if let Some(at_ms) = self.ticks.get(tick).filter(|_| tick >= self.low) {
                    self.out.floats.push(Sample { timestamp_ms: *at_ms, value: lampad_proto::stale() });
                }
            }
            _ if span.is_empty() => {}
            Point::Float(value) => self.floats(span, value),
            Point::Integer(value) => self.floats(span, value.as_f64()),
            Point::Histogram(bytes) => {
                let Ok(histogram) = Histogram::decode(bytes) else { return false };
                let histogram = Arc::new(histogram);
                let samples = self.ticks[span].iter().map(|tick| (*tick, histogram.clone()));
                self.out.histograms.extend(samples);
            }
        }
        true
    }

    #[inline]
    fn floats(&mut self, span: Range<usize>, value: f64) {
        if span.len() == 1 {
            return self.out.floats.push(Sample { timestamp_ms: self.ticks[span.start], value });
        }
        self.out.floats.extend_held(&self.ticks[span], value);
    }
}

/// The value at a tick to the last digit, which [`expand`] rounds; `None` where there is none. The stale marker is a value.
pub fn value_at(bytes: &[u8], through: u32, tick: u32) -> Option<Value> {
    let mut found = None;
    for (from, point) in Points::new(bytes).take_while(|(from, _)| *from <= tick) {
        found = match point {
            Point::Ended => (from == tick).then(|| Value::Float(lampad_proto::stale())),
            Point::Absent => None,
            Point::Float(value) if tick < through => Some(Value::Float(value)),
            Point::Integer(value) if tick < through => Some(Value::Integer(value)),
            Point::Histogram(bytes) if tick < through => {
                Some(Value::Histogram(Arc::new(Histogram::decode(bytes).ok()?)))
            }
            Point::Float(_) | Point::Integer(_) | Point::Histogram(_) => None,
        };
    }
    found
}
