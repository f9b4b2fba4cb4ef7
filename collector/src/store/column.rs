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

mod chain;
mod pen;
mod points;
mod samples;

use std::sync::Arc;

use lampad_proto::v1::Histogram;
use prost::Message as _;

pub(super) use self::chain::{Chain, Chunks, Link};
pub(super) use self::pen::{Open, Pen, Waypoint};
pub(super) use self::points::{Point, Points, Walk};
#[cfg(test)]
pub(super) use self::samples::expand;
pub(super) use self::samples::{Samples, expand_points, ticks_in, value_at};
use super::Value;

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

/// A column by itself, as opposed to one of a run.
#[derive(Debug, Default)]
pub(super) struct Column {
    pub bytes: Vec<u8>,
    pub pen: Pen,
}

impl Column {
    pub fn open(&mut self) -> Open<'_, &mut Vec<u8>> {
        Open { pen: &mut self.pen, bytes: &mut self.bytes }
    }
}

/// A column of a run, whose chunks its bytes lie in.
#[derive(Debug, Default)]
pub(super) struct RunColumn {
    pub chain: Chain,
    pub pen: Pen,
}

impl RunColumn {
    pub fn open<'a>(&'a mut self, chunks: &'a mut Chunks) -> Open<'a, Link<'a>> {
        Open { pen: &mut self.pen, bytes: Link { chain: &mut self.chain, chunks } }
    }

    pub fn is_empty(&self) -> bool {
        self.chain.is_empty()
    }

    /// Whether all its points are before this tick.
    pub fn is_behind(&self, tick: u32) -> bool {
        self.chain.is_empty() || self.pen.is_behind(tick)
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
    use lampad_proto::{Number, decimal};
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

    /// As [`expand_points`], from the last waypoint before.
    fn expand_near(column: &Column, ticks: &[i64], from_ms: i64, to_ms: i64, out: &mut Samples) -> bool {
        let wanted = ticks_in(ticks, from_ms, to_ms);
        let start = column.pen.waypoint_before(wanted.start);
        let bytes = &column.bytes[start.map_or(0, |start| start.at as usize)..];
        out.floats.begin(bytes.len() / POINT_BYTES, wanted.len());
        expand_points(Points::from(start, bytes), OPEN, ticks, wanted, out)
    }

    proptest! {
        #[test]
        fn every_tick_comes_back(values in prop_oneof![
            prop::collection::vec(value(), 1..300),
            prop::collection::vec((value(), 1usize..60), 1..9)
                .prop_map(|stretches| stretches.into_iter().flat_map(|(value, count)| vec![value; count]).collect()),
        ], from in 0i64..310, to in 0i64..310) {
            let mut column = Column::default();
            let mut open = column.open();
            let ticks: Vec<i64> = (0..values.len() as i64).collect();
            for (tick, value) in values.iter().enumerate() {
                match value {
                    Some(value) if !open.is_last(&Value::from(*value)) => open.set(tick as u32, &Value::from(*value)),
                    None if open.is_present() => open.absent(tick as u32),
                    _ => {}
                }
            }
            let mut out = Samples::default();
            prop_assert!(expand(&column.bytes, OPEN, &ticks, from, to, &mut out));
            let mut near = Samples::default();
            prop_assert!(expand_near(&column, &ticks, from, to, &mut near));
            let bits = |samples: &Samples| samples.floats.iter().map(|s| (s.timestamp_ms, s.value.to_bits())).collect::<Vec<_>>();
            prop_assert_eq!(bits(&near), bits(&out));
            let mut held = Samples { floats: Floats::of_changes(true), ..Samples::default() };
            prop_assert!(expand_near(&column, &ticks, from, to, &mut held));
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
            (0..20).for_each(|tick| column.open().set(tick, &Number::from(from + u64::from(tick) * 3).into()));
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
        let mut column = Column::default();
        values.iter().zip(0..).for_each(|(value, tick)| column.open().set(tick, &Value::Float(*value)));
        let ticks: Vec<i64> = (0..values.len() as i64).collect();
        let mut out = Samples::default();
        assert!(expand_near(&column, &ticks, 0, i64::MAX, &mut out));
        assert_eq!(out.floats.values(), values);
    }

    #[test]
    fn each_waypoint_is_counted_once() {
        let (mut column, mut bytes) = (Column::default(), 0);
        for tick in 0..1000 {
            let before = column.bytes.len();
            column.open().set(tick, &Value::Float(f64::from(tick % 7)));
            bytes += column.pen.waypoint_bytes_since(before);
        }
        assert!(column.pen.waypoints().len() > 5);
        assert_eq!(bytes, size_of_val(column.pen.waypoints()));
    }

    #[test]
    fn a_column_that_hardly_changes_takes_56_bytes() {
        let (mut column, mut chunks) = (RunColumn::default(), Chunks::default());
        for (value, tick) in [1e6, 17.25].iter().zip(0..) {
            column.open(&mut chunks).set(tick, &Value::Float(*value));
        }
        assert_eq!((size_of::<RunColumn>(), chunks.bytes()), (56, 0));
        (2..1000).for_each(|tick| column.open(&mut chunks).set(tick, &Value::Float(f64::from(tick % 7))));
        let (taken, length) = (chunks.bytes(), column.chain.len());
        assert!((length * 8 / 7..length * 2).contains(&taken), "{taken} for {length}");
    }
}
