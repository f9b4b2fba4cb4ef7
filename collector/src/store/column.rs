//! One series of a run: its change points, each `(tick number, value)`, as bytes (codec 1 of a sealed block too).
//!
//! ```text
//! column  point*
//! point   varint  gap << 2 | class     ticks since the point before (since tick 0 for the first)
//!         class 0 signed delta          decimal with the digits of the decimal before (0 at first)
//!         class 1 u8 digits, signed delta
//!         class 2 u64 LE bits           any double
//!         class 3 u8 what: 0 absent     no sample from this tick on
//!                          1 ended      a stale marker at this tick, no sample after it
//!                          2 histogram  varint length, lampad.v1.Histogram
//! ```
//! A decimal counts from the float before in this column (0 at first), see `lampad_proto::decimal`. A point holds until the
//! next one; the last holds until `through`, a tick number that is kept beside the bytes.

use std::sync::Arc;

use lampad_proto::decimal;
use lampad_proto::v1::Histogram;
use prost::Message as _;

use super::bytes::{Reader, put_bytes, put_signed, put_varint};
use super::{Sample, Value};

const DECIMAL: u64 = 0;
const DIGITS: u64 = 1;
const RAW: u64 = 2;
const OTHER: u64 = 3;

const ABSENT: u8 = 0;
const ENDED: u8 = 1;
const HISTOGRAM: u8 = 2;

/// `through` of a series that is present for as long as its run has ticks.
pub(super) const OPEN: u32 = u32::MAX;

/// A column that grows.
#[derive(Debug, Default)]
pub(super) struct Column {
    pub bytes: Vec<u8>,
    /// First tick number at which the last point no longer holds.
    pub through: u32,
    tick: u32,
    last: Last,
    /// Base of the next decimal.
    base: f64,
    digits: u8,
}

#[derive(Debug, Default, Clone)]
enum Last {
    #[default]
    Absent,
    Float,
    Histogram(Arc<Histogram>),
}

impl Column {
    /// The value that holds at the end, if any.
    pub fn last(&self) -> Option<Value> {
        match &self.last {
            Last::Absent => None,
            Last::Float => Some(Value::Float(self.base)),
            Last::Histogram(histogram) => Some(Value::Histogram(histogram.clone())),
        }
    }

    pub fn is_present(&self) -> bool {
        !matches!(self.last, Last::Absent)
    }

    pub fn is_last(&self, value: &Value) -> bool {
        match (&self.last, value) {
            (Last::Float, Value::Float(value)) => self.base.to_bits() == value.to_bits(),
            (Last::Histogram(last), Value::Histogram(value)) => same_histogram(last, value),
            _ => false,
        }
    }

    fn gap(&mut self, tick: u32, class: u64) {
        put_varint(&mut self.bytes, u64::from(tick - self.tick) << 2 | class);
        self.tick = tick;
    }

    /// The series has this value from `tick` on. Ticks ascend.
    pub fn set(&mut self, tick: u32, value: &Value) {
        match value {
            Value::Float(value) => self.set_float(tick, *value),
            Value::Histogram(histogram) => {
                self.gap(tick, OTHER);
                self.bytes.push(HISTOGRAM);
                put_bytes(&mut self.bytes, &histogram.encode_to_vec());
                self.last = Last::Histogram(histogram.clone());
            }
        }
    }

    fn set_float(&mut self, tick: u32, value: f64) {
        match decimal::delta(decimal::base(self.base), value, u32::from(self.digits)) {
            Some((digits, delta)) if digits as u8 == self.digits => {
                self.gap(tick, DECIMAL);
                put_signed(&mut self.bytes, delta);
            }
            Some((digits, delta)) => {
                self.gap(tick, DIGITS);
                self.digits = digits as u8;
                self.bytes.push(self.digits);
                put_signed(&mut self.bytes, delta);
            }
            None => {
                self.gap(tick, RAW);
                self.bytes.extend_from_slice(&value.to_bits().to_le_bytes());
            }
        }
        self.base = value;
        self.last = Last::Float;
    }

    /// No sample from `tick` on; nobody said that the series ended.
    pub fn absent(&mut self, tick: u32) {
        self.gap(tick, OTHER);
        self.bytes.push(ABSENT);
        self.last = Last::Absent;
    }

    /// The series ended: a stale marker at `tick`, nothing after it.
    pub fn ended(&mut self, tick: u32) {
        self.gap(tick, OTHER);
        self.bytes.push(ENDED);
        self.last = Last::Absent;
    }
}

/// Equal by the bits of every number in it.
pub(super) fn same_histogram(a: &Arc<Histogram>, b: &Arc<Histogram>) -> bool {
    Arc::ptr_eq(a, b) || a.encode_to_vec() == b.encode_to_vec()
}

/// Equal by bits.
pub(super) fn same_value(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        (Value::Histogram(a), Value::Histogram(b)) => same_histogram(a, b),
        _ => false,
    }
}

/// What holds from a tick on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Point<'a> {
    Float(f64),
    Histogram(&'a [u8]),
    Absent,
    Ended,
}

/// Walks the points of a column; ends early at what it cannot read, and says so.
pub(super) struct Points<'a> {
    reader: Reader<'a>,
    tick: u32,
    base: f64,
    digits: u32,
    pub damaged: bool,
}

impl<'a> Points<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { reader: Reader(bytes), tick: 0, base: 0.0, digits: 0, damaged: false }
    }

    fn read(&mut self) -> Option<(u32, Point<'a>)> {
        let head = self.reader.varint()?;
        self.tick = self.tick.checked_add(u32::try_from(head >> 2).ok()?)?;
        let float = match head & 3 {
            DECIMAL => decimal::apply(decimal::base(self.base), self.digits, self.reader.signed()?)?,
            DIGITS => {
                self.digits = u32::from(self.reader.u8()?);
                decimal::apply(decimal::base(self.base), self.digits, self.reader.signed()?)?
            }
            RAW => f64::from_bits(self.reader.u64()?),
            _ => {
                let point = match self.reader.u8()? {
                    ABSENT => Point::Absent,
                    ENDED => Point::Ended,
                    HISTOGRAM => Point::Histogram(self.reader.bytes()?),
                    _ => return None,
                };
                return Some((self.tick, point));
            }
        };
        self.base = float;
        Some((self.tick, Point::Float(float)))
    }
}

impl<'a> Iterator for Points<'a> {
    type Item = (u32, Point<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() || self.damaged {
            return None;
        }
        let point = self.read();
        self.damaged = point.is_none();
        point
    }
}

/// Samples of one series, ascending within each list.
#[derive(Debug, Default, Clone)]
pub(super) struct Samples {
    pub floats: Vec<Sample>,
    pub histograms: Vec<(i64, Arc<Histogram>)>,
}

impl Samples {
    pub fn len(&self) -> usize {
        self.floats.len() + self.histograms.len()
    }
}

/// Adds the samples of a column in `[from_ms, to_ms]`: one per tick while a point holds. False when the bytes are damaged;
/// what could be read is there.
pub(super) fn expand(bytes: &[u8], through: u32, ticks: &[i64], from_ms: i64, to_ms: i64, out: &mut Samples) -> bool {
    let low = ticks.partition_point(|tick| *tick < from_ms);
    let high = ticks.partition_point(|tick| *tick <= to_ms);
    let end = (through as usize).min(ticks.len()).min(high);
    let mut points = Points::new(bytes);
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
                out.floats.extend(ticks[span].iter().map(|tick| Sample { timestamp_ms: *tick, value }));
            }
            Point::Histogram(bytes) => {
                let Ok(histogram) = Histogram::decode(bytes) else { return false };
                let histogram = Arc::new(histogram);
                out.histograms.extend(ticks[span].iter().map(|tick| (*tick, histogram.clone())));
            }
        }
    }
    !points.damaged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Option<f64>> {
        prop_oneof![
            Just(None),
            (0..1000i64).prop_map(|v| Some(v as f64)),
            (0..100_000i64).prop_map(|v| Some(v as f64 / 100.0)),
            any::<u64>().prop_map(|bits| Some(f64::from_bits(bits))),
        ]
    }

    proptest! {
        #[test]
        fn every_tick_comes_back(values in prop::collection::vec(value(), 1..60), from in 0i64..70, to in 0i64..70) {
            let mut column = Column::default();
            let ticks: Vec<i64> = (0..values.len() as i64).collect();
            for (tick, value) in values.iter().enumerate() {
                match value {
                    Some(value) if !column.is_last(&Value::Float(*value)) => column.set(tick as u32, &Value::Float(*value)),
                    None if column.is_present() => column.absent(tick as u32),
                    _ => {}
                }
            }
            let mut out = Samples::default();
            prop_assert!(expand(&column.bytes, OPEN, &ticks, from, to, &mut out));
            let wanted: Vec<(i64, u64)> = values.iter().enumerate()
                .filter_map(|(tick, value)| value.map(|value| (tick as i64, value.to_bits())))
                .filter(|(tick, _)| (from..=to).contains(tick)).collect();
            let found: Vec<(i64, u64)> = out.floats.iter().map(|s| (s.timestamp_ms, s.value.to_bits())).collect();
            prop_assert_eq!(found, wanted);
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>, through: u32) {
            expand(&bytes, through, &[1, 2, 3, 4], 0, 9, &mut Samples::default());
        }
    }
}
