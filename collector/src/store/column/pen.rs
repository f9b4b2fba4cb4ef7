//! Where a column is written next: what the point before leaves to the one that follows, and the places to read from.

use lampad_proto::decimal;
use lampad_proto::v1::Histogram;
use prost::Message as _;

use crate::store::Value;
use crate::store::bytes::{Few, Put, put_bytes, put_signed, put_varint, zigzag};

use super::{ABSENT, DECIMAL, DIGITS, ENDED, HISTOGRAM, NEGATIVE, OPEN, OTHER, RAW, WHOLE, same_value, whole_of};

/// Bytes that grow, and say where they end.
pub trait Grow: Put {
    fn length(&self) -> usize;

    /// Where the last of them lies, for who reads on from there.
    fn place(&self) -> u32 {
        0
    }
}

impl Grow for &mut Vec<u8> {
    fn length(&self) -> usize {
        self.len()
    }
}

/// A column's end. There is one per series and run, so every byte counts.
#[derive(Debug, Default)]
pub struct Pen {
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
pub struct Waypoint {
    /// Bytes before the next point.
    pub at: u32,
    /// Where the last of these lies.
    pub place: u32,
    /// The point before, a float: it holds there.
    pub tick: u32,
    pub base: f64,
    pub digits: u8,
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

impl Pen {
    /// The value that holds at the end, if any.
    pub fn last(&self) -> Option<Value> {
        match self.last {
            Last::Absent => None,
            Last::Float => Some(Value::Float(self.base)),
            Last::Other => self.other().cloned(),
        }
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

    /// Whether it has written nothing at this tick or later ones, where it has written anything.
    pub fn is_behind(&self, tick: u32) -> bool {
        self.tick < tick
    }

    /// From here on the column holds for as long as its run has ticks.
    pub fn hold(&mut self) {
        self.through = OPEN;
    }

    fn other(&self) -> Option<&Value> {
        self.more.as_ref()?.other.as_ref().filter(|_| self.last == Last::Other)
    }

    fn set_other(&mut self, value: Value) {
        self.last = Last::Other;
        self.more.get_or_insert_default().other = Some(value);
    }

    pub fn waypoints(&self) -> &[Waypoint] {
        self.more.as_ref().map_or(&[], |more| &more.waypoints)
    }

    /// Bytes of the waypoint that was set since the column had so many bytes, one point or two ago: they are too short for more.
    pub fn waypoint_bytes_since(&self, bytes: usize) -> usize {
        let is_new = self.waypoint_at > 0 && self.waypoint_at as usize >= bytes;
        usize::from(is_new) * size_of::<Waypoint>()
    }

    /// The last waypoint whose point holds at this tick or before.
    pub fn waypoint_before(&self, tick: usize) -> Option<Waypoint> {
        let next = self.waypoints().partition_point(|waypoint| waypoint.tick as usize <= tick);
        next.checked_sub(1).map(|at| self.waypoints()[at])
    }
}

/// A column that is written: its end, and where its bytes go.
#[derive(Debug)]
pub struct Open<'a, B> {
    pub pen: &'a mut Pen,
    pub bytes: B,
}

impl<B: Grow> Open<'_, B> {
    /// The series has this value from `tick` on. Ticks ascend.
    #[inline]
    pub fn set(&mut self, tick: u32, value: &Value) {
        match value {
            Value::Float(value) => self.float(tick, *value),
            Value::Integer(value) => {
                self.whole(tick, value.magnitude(), value.is_negative());
                self.pen.set_other(Value::Integer(*value));
            }
            Value::Histogram(histogram) => {
                self.histogram(tick, &Histogram::encode_to_vec(histogram));
                self.pen.set_other(Value::Histogram(histogram.clone()));
            }
        }
    }

    /// A histogram in its encoded form, which is not kept as the last value.
    pub fn histogram(&mut self, tick: u32, bytes: &[u8]) {
        let mut point = self.begin(tick, OTHER);
        point.put_byte(HISTOGRAM);
        self.bytes.put_few(&point);
        put_bytes(&mut self.bytes, bytes);
        self.pen.last = Last::Absent;
    }

    /// No sample from `tick` on; nobody said that the series ended.
    pub fn absent(&mut self, tick: u32) {
        self.gone(tick, ABSENT);
    }

    /// The series ended: a stale marker at `tick`, nothing after it.
    pub fn ended(&mut self, tick: u32) {
        self.gone(tick, ENDED);
    }

    fn gone(&mut self, tick: u32, what: u8) {
        let mut point = self.begin(tick, OTHER);
        point.put_byte(what);
        self.bytes.put_few(&point);
        self.pen.last = Last::Absent;
    }

    #[inline]
    fn float(&mut self, tick: u32, value: f64) {
        let base = decimal::base(self.pen.base);
        let Some((digits, delta)) = decimal::delta(base, value, u32::from(self.pen.digits)) else {
            return self.other_float(tick, value);
        };
        let point = if digits as u8 == self.pen.digits {
            Few::of_two(self.head(tick, DECIMAL), zigzag(delta))
        } else {
            let mut point = self.begin(tick, DIGITS);
            self.pen.digits = digits as u8;
            point.put_byte(digits as u8);
            put_signed(&mut point, delta);
            point
        };
        self.bytes.put_few(&point);
        (self.pen.base, self.pen.last) = (value, Last::Float);
    }

    fn other_float(&mut self, tick: u32, value: f64) {
        match whole_of(value) {
            // A counter that has passed 2^53 is an integer at one tick and a float at the next.
            Some(magnitude) => self.whole(tick, magnitude, value < 0.0),
            None => {
                let mut point = self.begin(tick, RAW);
                point.put_u64(value.to_bits());
                self.bytes.put_few(&point);
            }
        }
        (self.pen.base, self.pen.last) = (value, Last::Float);
    }

    fn whole(&mut self, tick: u32, magnitude: u64, negative: bool) {
        let before = match (self.pen.last, self.pen.other()) {
            (Last::Float, _) => whole_of(self.pen.base).unwrap_or(0),
            (_, Some(Value::Integer(value))) => value.magnitude(),
            _ => 0,
        };
        let mut point = self.begin(tick, OTHER);
        point.put_byte(if negative { NEGATIVE } else { WHOLE });
        put_signed(&mut point, magnitude.wrapping_sub(before) as i64);
        self.bytes.put_few(&point);
    }

    /// The first bytes of a point. It is put together before it goes to its column, which is written once for each.
    fn begin(&mut self, tick: u32, class: u64) -> Few {
        let mut point = Few::default();
        put_varint(&mut point, self.head(tick, class));
        point
    }

    /// The number that a point begins with.
    #[inline]
    fn head(&mut self, tick: u32, class: u64) -> u64 {
        if self.bytes.length() - self.pen.waypoint_at as usize >= WAYPOINT_BYTES && self.pen.last == Last::Float {
            self.put_waypoint();
        }
        let ticks = tick - std::mem::replace(&mut self.pen.tick, tick);
        u64::from(ticks) << 2 | class
    }

    #[inline(never)]
    fn put_waypoint(&mut self) {
        let pen = &mut *self.pen;
        pen.waypoint_at = self.bytes.length() as u32;
        let (at, place) = (pen.waypoint_at, self.bytes.place());
        let waypoint = Waypoint { at, place, tick: pen.tick, base: pen.base, digits: pen.digits };
        pen.more.get_or_insert_default().waypoints.push(waypoint);
    }
}

impl<B> std::ops::Deref for Open<'_, B> {
    type Target = Pen;

    fn deref(&self) -> &Pen {
        self.pen
    }
}

impl<B> std::ops::DerefMut for Open<'_, B> {
    fn deref_mut(&mut self) -> &mut Pen {
        self.pen
    }
}
