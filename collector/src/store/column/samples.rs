//! From points to samples: one per tick for as long as a point holds.

use std::sync::Arc;

use lampad_proto::v1::Histogram;
use prost::Message as _;

use crate::store::{Sample, Value};

use super::{Point, Points, Walk};

/// Samples of one series, ascending within each list.
#[derive(Debug, Default, Clone)]
pub struct Samples {
    pub floats: Vec<Sample>,
    pub histograms: Vec<(i64, Arc<Histogram>)>,
}

impl Samples {
    pub fn len(&self) -> usize {
        self.floats.len() + self.histograms.len()
    }
}

/// As [`expand_points`], of a whole column of codec 1.
#[cfg(test)]
pub fn expand(bytes: &[u8], through: u32, ticks: &[i64], from_ms: i64, to_ms: i64, out: &mut Samples) -> bool {
    expand_points(Points::new(bytes), through, ticks, from_ms, to_ms, out)
}

/// Adds the samples of a column in `[from_ms, to_ms]`: one per tick while a point holds. Points may come out of any codec.
/// False when the bytes are damaged; what could be read is there.
pub fn expand_points<'a>(
    mut points: impl Walk<'a>,
    through: u32,
    ticks: &[i64],
    from_ms: i64,
    to_ms: i64,
    out: &mut Samples,
) -> bool {
    let low = ticks.partition_point(|tick| *tick < from_ms);
    let high = ticks.partition_point(|tick| *tick <= to_ms);
    let end = (through as usize).min(ticks.len()).min(high);
    let mut next = points.next();
    while let Some((tick, point)) = next {
        if tick as usize >= high {
            return true;
        }
        next = points.next();
        let until = next.map_or(end, |(tick, _)| (tick as usize).min(high));
        let span = (tick as usize).max(low)..until;
        match point {
            Point::Absent => {}
            Point::Ended => {
                let tick = tick as usize;
                if (low..high).contains(&tick) {
                    out.floats.push(Sample { timestamp_ms: ticks[tick], value: lampad_proto::stale() });
                }
            }
            _ if span.is_empty() => {}
            Point::Float(value) => {
                if out.floats.is_empty() {
                    out.floats.reserve(end.saturating_sub(span.start));
                }
                if span.len() == 1 {
                    out.floats.push(Sample { timestamp_ms: ticks[span.start], value });
                    continue;
                }
                out.floats.extend(ticks[span].iter().map(|tick| Sample { timestamp_ms: *tick, value }));
            }
            Point::Integer(value) => {
                let value = value.as_f64();
                out.floats.extend(ticks[span].iter().map(|tick| Sample { timestamp_ms: *tick, value }));
            }
            Point::Histogram(bytes) => {
                let Ok(histogram) = Histogram::decode(bytes) else { return false };
                let histogram = Arc::new(histogram);
                out.histograms.extend(ticks[span].iter().map(|tick| (*tick, histogram.clone())));
            }
        }
    }
    !points.is_damaged()
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
