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

use std::ops::Deref;
use std::sync::Arc;

use lampad_proto::v1::Histogram;
use lampad_proto::{Integer, Number, decimal};
use prost::Message as _;
use smallvec::SmallVec;

use super::bytes::{Put, Reader, put_bytes, put_signed, put_varint, unzigzag};
use super::{Sample, Value};

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

    /// Bytes of waypoints set since the column had so many bytes.
    pub fn waypoint_bytes_since(&self, bytes: usize) -> usize {
        let new = self.waypoints().iter().rev().take_while(|waypoint| waypoint.at as usize >= bytes).count();
        new * size_of::<Waypoint>()
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
        let (start, bytes) = self.tail_at(ticks.partition_point(|tick| *tick < from_ms));
        expand_points(Points::from(start, bytes), self.through, ticks, from_ms, to_ms, out)
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
        let since = self.bytes.len() - self.waypoints().last().map_or(0, |last| last.at as usize);
        if since >= WAYPOINT_BYTES && self.last == Last::Float {
            let waypoint =
                Waypoint { at: self.bytes.len() as u32, tick: self.tick, base: self.base, digits: self.digits };
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

/// What holds from a tick on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Point<'a> {
    Float(f64),
    Integer(Integer),
    Histogram(&'a [u8]),
    Absent,
    Ended,
}

/// A walk over the points of a column, whatever its codec.
pub(super) trait Walk<'a>: Iterator<Item = (u32, Point<'a>)> {
    /// Whether it ended early, at something that cannot be read.
    fn is_damaged(&self) -> bool;
}

impl<'a> Walk<'a> for Points<'a> {
    fn is_damaged(&self) -> bool {
        self.damaged
    }
}

/// Walks the points of a column; ends early at what it cannot read, and says so.
pub(super) struct Points<'a> {
    reader: Reader<'a>,
    tick: u32,
    base: f64,
    digits: u32,
    /// The mantissa of `base` at `digits`, where it is known.
    mantissa: Option<i64>,
    /// Magnitude of the point before, where that is a whole number of 2^53 and more.
    whole: u64,
    /// The waypoint's own point, which comes first.
    held: Option<f64>,
    pub damaged: bool,
}

impl<'a> Points<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            reader: Reader(bytes),
            tick: 0,
            base: 0.0,
            digits: 0,
            mantissa: None,
            whole: 0,
            held: None,
            damaged: false,
        }
    }

    /// Of the bytes from a waypoint on.
    pub fn from(start: Option<Waypoint>, bytes: &'a [u8]) -> Self {
        let points = Self::new(bytes);
        let Some(Waypoint { tick, base, digits, .. }) = start else { return points };
        let whole = whole_of(base).unwrap_or(0);
        Self { tick, base, digits: u32::from(digits), whole, held: Some(base), ..points }
    }

    /// The next point where it is one of most: a decimal of the digits in force, some ticks on. Nothing is read where it is not.
    #[inline(always)]
    fn read_quick(&mut self) -> Option<(u32, f64)> {
        let (mantissa, before) = (self.mantissa?, self.reader);
        let (head, delta) = self.reader.short_pair()?;
        let (next, tick) = (mantissa + unzigzag(delta), self.tick.checked_add(head as u32 >> 2));
        let value = decimal::value(next, self.digits);
        match (tick, value) {
            (Some(tick), Some(value))
                if head & 3 == DECIMAL && next.unsigned_abs() <= decimal::MANTISSA_KEPT as u64 =>
            {
                (self.tick, self.base, self.mantissa, self.whole) = (tick, value, Some(next), 0);
                Some((tick, value))
            }
            _ => {
                self.reader = before;
                None
            }
        }
    }

    fn next_slow(&mut self) -> Option<(u32, Point<'a>)> {
        if let Some(held) = self.held.take() {
            return Some((self.tick, Point::Float(held)));
        }
        if self.reader.is_empty() || self.damaged {
            return None;
        }
        let point = self.read();
        if point.is_none() {
            (self.damaged, self.mantissa) = (true, None);
        }
        point
    }

    /// A decimal of the digits in force.
    fn decimal(&mut self) -> Option<f64> {
        let delta = self.reader.signed()?;
        let next = self.mantissa.and_then(|mantissa| mantissa.checked_add(delta));
        if let Some(mantissa) = next.filter(|next| next.unsigned_abs() <= decimal::MANTISSA_KEPT as u64) {
            self.mantissa = Some(mantissa);
            return decimal::value(mantissa, self.digits);
        }
        let value = decimal::apply(decimal::base(self.base), self.digits, delta)?;
        self.mantissa = decimal::exact(value, self.digits).filter(|kept| kept.abs() <= decimal::MANTISSA_KEPT);
        Some(value)
    }

    fn read(&mut self) -> Option<(u32, Point<'a>)> {
        let head = self.reader.varint()?;
        self.tick = self.tick.checked_add(u32::try_from(head >> 2).ok()?)?;
        let float = match head & 3 {
            DECIMAL => self.decimal()?,
            DIGITS => {
                self.digits = u32::from(self.reader.u8()?);
                self.mantissa = None;
                self.decimal()?
            }
            RAW => {
                self.mantissa = None;
                f64::from_bits(self.reader.u64()?)
            }
            _ => {
                let point = match self.reader.u8()? {
                    ABSENT => Point::Absent,
                    ENDED => Point::Ended,
                    HISTOGRAM => Point::Histogram(self.reader.bytes()?),
                    what @ (WHOLE | NEGATIVE) => self.read_whole(what == NEGATIVE)?,
                    _ => return None,
                };
                if !matches!(point, Point::Float(_) | Point::Integer(_)) {
                    self.whole = 0;
                }
                return Some((self.tick, point));
            }
        };
        self.base = float;
        self.whole = whole_of(float).unwrap_or(0);
        Some((self.tick, Point::Float(float)))
    }

    fn read_whole(&mut self, negative: bool) -> Option<Point<'a>> {
        self.whole = self.whole.wrapping_add(self.reader.signed()? as u64);
        Some(match Number::whole(self.whole, negative) {
            Number::Integer(value) => Point::Integer(value),
            // A smaller one would be the base of no whole number that a writer makes.
            Number::Float(value) => {
                whole_of(value)?;
                (self.base, self.mantissa) = (value, None);
                Point::Float(value)
            }
        })
    }
}

impl<'a> Iterator for Points<'a> {
    type Item = (u32, Point<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self.read_quick() {
            Some((tick, value)) => Some((tick, Point::Float(value))),
            None => self.next_slow(),
        }
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

/// As [`expand_points`], of a whole column of codec 1.
#[cfg(test)]
pub(super) fn expand(bytes: &[u8], through: u32, ticks: &[i64], from_ms: i64, to_ms: i64, out: &mut Samples) -> bool {
    expand_points(Points::new(bytes), through, ticks, from_ms, to_ms, out)
}

/// Adds the samples of a column in `[from_ms, to_ms]`: one per tick while a point holds. Points may come out of any codec.
/// False when the bytes are damaged; what could be read is there.
pub(super) fn expand_points<'a>(
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
pub(super) fn value_at(bytes: &[u8], through: u32, tick: u32) -> Option<Value> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
        fn every_tick_comes_back(values in prop::collection::vec(value(), 1..300), from in 0i64..310, to in 0i64..310) {
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
