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
//!                          3 whole      signed difference of magnitude, modulo 2^64
//!                          4 whole, negative
//! ```
//! A decimal counts from the float before in this column (0 at first), see `lampad_proto::decimal`. A whole number of this
//! form is 2^53 at least and counts from the point before, from 0 where that is no such number; what a double holds exactly
//! is a float. A point holds until the next one; the last holds until `through`, a tick number that is kept beside the bytes.

mod points;
mod samples;

use std::ops::Deref;
use std::sync::Arc;

use lampad_proto::decimal;
use lampad_proto::v1::Histogram;
use prost::Message as _;
use smallvec::SmallVec;

pub(super) use self::points::{Point, Points, Walk};
#[cfg(test)]
pub(super) use self::samples::expand;
pub(super) use self::samples::{Samples, expand_points, ticks_in, value_at};
use super::Value;
use super::bytes::{Put, put_bytes, put_signed, put_varint};

const DECIMAL: u64 = 0;
const DIGITS: u64 = 1;
const RAW: u64 = 2;
const OTHER: u64 = 3;

const ABSENT: u8 = 0;
const ENDED: u8 = 1;
const HISTOGRAM: u8 = 2;
const WHOLE: u8 = 3;
const NEGATIVE: u8 = 4;

/// `through` of a series that is present for as long as its run has ticks.
pub(super) const OPEN: u32 = u32::MAX;

/// Bytes of a point, at least.
pub(super) const POINT_BYTES: usize = 2;

/// Bytes of a column that lie in the column itself: most series change rarely, and never need more.
const INLINE_BYTES: usize = 16;

/// The bytes of a column that grows. By a quarter at a time: there are many, and twice as much would stand empty on average.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ColumnBytes(SmallVec<[u8; INLINE_BYTES]>);

impl Put for ColumnBytes {
    fn put(&mut self, bytes: &[u8]) {
        let (length, room) = (self.0.len() + bytes.len(), self.0.capacity());
        if length > room {
            self.0.grow((room + room / 4).max(length).next_multiple_of(INLINE_BYTES));
        }
        self.0.extend_from_slice(bytes);
    }
}

impl Deref for ColumnBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// What a column of so many bytes takes beside itself, about.
pub(super) fn heap_bytes(length: usize) -> usize {
    // What is kept free, and the allocator's own.
    if length <= INLINE_BYTES { 0 } else { length + length / 8 + 16 }
}

/// A column that grows. There is one per series and run, so every byte counts.
#[derive(Debug, Default)]
pub(super) struct Column {
    pub bytes: ColumnBytes,
    /// First tick number at which the last point no longer holds.
    pub through: u32,
    tick: u32,
    /// Base of the next decimal.
    base: f64,
    more: Option<Box<More>>,
    /// Bytes before the last waypoint, 0 while there is none: with it a point is appended without a look at `more`.
    waypoint_at: u32,
    last: Last,
    digits: u8,
}

/// What few columns have.
#[derive(Debug, Default)]
struct More {
    /// The last value, where that is no float.
    other: Option<Value>,
    waypoints: Vec<Waypoint>,
}

/// A place from which a growing column can be read without what lies before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waypoint {
    /// Bytes before the next point.
    at: u32,
    /// The point before, a float: it holds there.
    tick: u32,
    base: f64,
    digits: u8,
}

/// Bytes between waypoints: queries mostly want the newest minutes, and a waypoint takes an eighth of this.
const WAYPOINT_BYTES: usize = 192;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Last {
    #[default]
    Absent,
    /// It is `base`.
    Float,
    /// An integer or a histogram.
    Other,
}

impl Column {
    /// The value that holds at the end, if any.
    pub fn last(&self) -> Option<Value> {
        match self.last {
            Last::Absent => None,
            Last::Float => Some(Value::Float(self.base)),
            Last::Other => self.other().cloned(),
        }
    }

    fn other(&self) -> Option<&Value> {
        self.more.as_ref()?.other.as_ref().filter(|_| self.last == Last::Other)
    }

    fn set_other(&mut self, value: Value) {
        self.last = Last::Other;
        self.more.get_or_insert_default().other = Some(value);
    }

    fn waypoints(&self) -> &[Waypoint] {
        self.more.as_ref().map_or(&[], |more| &more.waypoints)
    }

    /// Bytes of the waypoint that was set since the column had so many bytes, one point or two ago: they are too short for more.
    pub fn waypoint_bytes_since(&self, bytes: usize) -> usize {
        let is_new = self.waypoint_at > 0 && self.waypoint_at as usize >= bytes;
        usize::from(is_new) * size_of::<Waypoint>()
    }

    /// The last waypoint whose point holds at this tick or before, and the bytes from there on.
    pub fn tail_at(&self, tick: usize) -> (Option<Waypoint>, &[u8]) {
        let next = self.waypoints().partition_point(|waypoint| waypoint.tick as usize <= tick);
        match next.checked_sub(1).map(|at| self.waypoints()[at]) {
            Some(waypoint) => (Some(waypoint), &self.bytes[waypoint.at as usize..]),
            None => (None, &self.bytes),
        }
    }

    /// As [`expand_points`], from the last waypoint before.
    pub fn expand(&self, ticks: &[i64], from_ms: i64, to_ms: i64, out: &mut Samples) -> bool {
        let wanted = ticks_in(ticks, from_ms, to_ms);
        let (start, bytes) = self.tail_at(wanted.start);
        out.floats.begin(bytes.len() / POINT_BYTES, wanted.len());
        expand_points(Points::from(start, bytes), self.through, ticks, wanted, out)
    }

    /// Whether all its points are before this tick.
    pub fn is_behind(&self, tick: u32) -> bool {
        self.bytes.is_empty() || self.tick < tick
    }

    pub fn is_present(&self) -> bool {
        self.last != Last::Absent
    }

    pub fn is_last(&self, value: &Value) -> bool {
        match (self.last, value) {
            (Last::Float, Value::Float(value)) => self.base.to_bits() == value.to_bits(),
            _ => self.other().is_some_and(|last| same_value(last, value)),
        }
    }

    fn gap(&mut self, tick: u32, class: u64) {
        let since = self.bytes.len() - self.waypoint_at as usize;
        if since >= WAYPOINT_BYTES && self.last == Last::Float {
            self.waypoint_at = self.bytes.len() as u32;
            let waypoint = Waypoint { at: self.waypoint_at, tick: self.tick, base: self.base, digits: self.digits };
            self.more.get_or_insert_default().waypoints.push(waypoint);
        }
        put_varint(&mut self.bytes, u64::from(tick - self.tick) << 2 | class);
        self.tick = tick;
    }

    /// The series has this value from `tick` on. Ticks ascend.
    pub fn set(&mut self, tick: u32, value: &Value) {
        match value {
            Value::Float(value) => self.set_float(tick, *value),
            Value::Integer(value) => {
                self.set_whole(tick, value.magnitude(), value.is_negative());
                self.set_other(Value::Integer(*value));
            }
            Value::Histogram(histogram) => {
                self.gap(tick, OTHER);
                self.bytes.put(&[HISTOGRAM]);
                put_bytes(&mut self.bytes, &histogram.encode_to_vec());
                self.set_other(Value::Histogram(histogram.clone()));
            }
        }
    }

    /// A histogram in its encoded form, out of another column.
    pub fn set_histogram_bytes(&mut self, tick: u32, bytes: &[u8]) {
        self.gap(tick, OTHER);
        self.bytes.put(&[HISTOGRAM]);
        put_bytes(&mut self.bytes, bytes);
        self.last = Last::Absent;
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
                self.bytes.put(&[self.digits]);
                put_signed(&mut self.bytes, delta);
            }
            None => match whole_of(value) {
                // A counter that has passed 2^53 is an integer at one tick and a float at the next.
                Some(magnitude) => self.set_whole(tick, magnitude, value < 0.0),
                None => {
                    self.gap(tick, RAW);
                    self.bytes.put(&value.to_bits().to_le_bytes());
                }
            },
        }
        self.base = value;
        self.last = Last::Float;
    }

    fn set_whole(&mut self, tick: u32, magnitude: u64, negative: bool) {
        let before = match (self.last, self.other()) {
            (Last::Float, _) => whole_of(self.base).unwrap_or(0),
            (_, Some(Value::Integer(value))) => value.magnitude(),
            _ => 0,
        };
        self.gap(tick, OTHER);
        self.bytes.put(&[if negative { NEGATIVE } else { WHOLE }]);
        put_signed(&mut self.bytes, magnitude.wrapping_sub(before) as i64);
    }

    /// No sample from `tick` on; nobody said that the series ended.
    pub fn absent(&mut self, tick: u32) {
        self.gap(tick, OTHER);
        self.bytes.put(&[ABSENT]);
        self.last = Last::Absent;
    }

    /// The series ended: a stale marker at `tick`, nothing after it.
    pub fn ended(&mut self, tick: u32) {
        self.gap(tick, OTHER);
        self.bytes.put(&[ENDED]);
        self.last = Last::Absent;
    }
}

/// The magnitude of a double that is a whole number of 2^53 and more, and fits 64 bits.
fn whole_of(value: f64) -> Option<u64> {
    const TOO_LARGE: f64 = 18_446_744_073_709_551_616.0;
    (9_007_199_254_740_992.0..TOO_LARGE).contains(&value.abs()).then_some(value.abs() as u64)
}

/// Equal by the bits of every number in it.
pub(super) fn same_histogram(a: &Arc<Histogram>, b: &Arc<Histogram>) -> bool {
    Arc::ptr_eq(a, b) || a.encode_to_vec() == b.encode_to_vec()
}

/// Equal by bits.
pub(super) fn same_value(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        (Value::Integer(a), Value::Integer(b)) => a == b,
        (Value::Histogram(a), Value::Histogram(b)) => same_histogram(a, b),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use lampad_proto::Number;
    use proptest::prelude::*;

    use super::*;
    use crate::store::Floats;

    fn value() -> impl Strategy<Value = Option<Number>> {
        prop_oneof![
            Just(None),
            (0..1000i64).prop_map(|v| Some(Number::Float(v as f64))),
            (0..100_000i64).prop_map(|v| Some(Number::Float(v as f64 / 100.0))),
            any::<u64>().prop_map(|bits| Some(Number::Float(f64::from_bits(bits)))),
            ((1u64 << 53) - 1..(1 << 53) + 9, any::<bool>()).prop_map(|(v, negative)| Some(Number::whole(v, negative))),
            (any::<u64>(), any::<bool>()).prop_map(|(v, negative)| Some(Number::whole(v, negative))),
        ]
    }

    proptest! {
        #[test]
        fn every_tick_comes_back(values in prop_oneof![
            prop::collection::vec(value(), 1..300),
            prop::collection::vec((value(), 1usize..60), 1..9)
                .prop_map(|stretches| stretches.into_iter().flat_map(|(value, count)| vec![value; count]).collect()),
        ], from in 0i64..310, to in 0i64..310) {
            let mut column = Column::default();
            let ticks: Vec<i64> = (0..values.len() as i64).collect();
            for (tick, value) in values.iter().enumerate() {
                match value {
                    Some(value) if !column.is_last(&Value::from(*value)) => column.set(tick as u32, &Value::from(*value)),
                    None if column.is_present() => column.absent(tick as u32),
                    _ => {}
                }
            }
            let mut out = Samples::default();
            prop_assert!(expand(&column.bytes, OPEN, &ticks, from, to, &mut out));
            let mut near = Samples::default();
            column.through = OPEN;
            prop_assert!(column.expand(&ticks, from, to, &mut near));
            let bits = |samples: &Samples| samples.floats.iter().map(|s| (s.timestamp_ms, s.value.to_bits())).collect::<Vec<_>>();
            prop_assert_eq!(bits(&near), bits(&out));
            let mut held = Samples { floats: Floats::of_changes(true), ..Samples::default() };
            prop_assert!(column.expand(&ticks, from, to, &mut held));
            prop_assert_eq!(bits(&held), bits(&out));
            held.floats.spread();
            prop_assert_eq!(bits(&held), bits(&out));
            let wanted: Vec<(i64, u64)> = values.iter().enumerate()
                .filter_map(|(tick, value)| value.map(|value| (tick as i64, value.as_f64().to_bits())))
                .filter(|(tick, _)| (from..=to).contains(tick)).collect();
            let found: Vec<(i64, u64)> = out.floats.iter().map(|s| (s.timestamp_ms, s.value.to_bits())).collect();
            prop_assert_eq!(found, wanted);
            for (tick, value) in values.iter().enumerate() {
                let found = value_at(&column.bytes, OPEN, tick as u32);
                let wanted = value.map(Value::from);
                let same = match (&found, &wanted) {
                    (Some(found), Some(wanted)) => same_value(found, wanted),
                    (found, wanted) => found.is_none() && wanted.is_none(),
                };
                prop_assert!(same, "{found:?} at tick {tick}, not {wanted:?}");
            }
        }

        #[test]
        fn a_counter_beyond_2_to_the_53_costs_three_bytes_a_step(from in (1u64 << 53)..u64::MAX - 1000) {
            let mut column = Column::default();
            (0..20).for_each(|tick| column.set(tick, &Number::from(from + u64::from(tick) * 3).into()));
            prop_assert!(column.bytes.len() <= 12 + 19 * 3, "{} bytes", column.bytes.len());
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>, through: u32) {
            expand(&bytes, through, &[1, 2, 3, 4], 0, 9, &mut Samples::default());
        }
    }

    /// A run of points ends where mantissas are not kept any more, and goes on behind it.
    #[test]
    fn counters_that_pass_what_is_kept_come_back() {
        let far = decimal::MANTISSA_KEPT - 1000;
        let values: Vec<f64> = (0..1500).map(|tick: i64| (far + 3 * (tick - 2 * (tick - 700).max(0))) as f64).collect();
        let mut column = Column { through: OPEN, ..Column::default() };
        values.iter().zip(0..).for_each(|(value, tick)| column.set(tick, &Value::Float(*value)));
        let ticks: Vec<i64> = (0..values.len() as i64).collect();
        let mut out = Samples::default();
        assert!(column.expand(&ticks, 0, i64::MAX, &mut out));
        assert_eq!(out.floats.values(), values);
    }

    #[test]
    fn each_waypoint_is_counted_once() {
        let (mut column, mut bytes) = (Column::default(), 0);
        for tick in 0..1000 {
            let before = column.bytes.len();
            column.set(tick, &Value::Float(f64::from(tick % 7)));
            bytes += column.waypoint_bytes_since(before);
        }
        assert!(column.waypoints().len() > 5);
        assert_eq!(bytes, size_of_val(column.waypoints()));
    }

    #[test]
    fn a_column_that_hardly_changes_takes_56_bytes() {
        let mut column = Column::default();
        [1e6, 17.25, 18.25].iter().zip(0..).for_each(|(value, tick)| column.set(tick, &Value::Float(*value)));
        assert!(size_of::<Column>() == 56 && !column.bytes.0.spilled() && column.more.is_none());
        assert_eq!(heap_bytes(column.bytes.len()), 0);
        (3..1000).for_each(|tick| column.set(tick, &Value::Float(f64::from(tick % 7))));
        let taken = column.bytes.0.capacity();
        assert!(heap_bytes(column.bytes.len()).abs_diff(taken) <= taken / 5, "{taken}");
    }
}
