//! Walking the points of a column: bytes are read once, forward, and what cannot be read ends the walk.

use lampad_proto::{Integer, Number, decimal};

use crate::store::bytes::{Reader, unzigzag};

use super::{ABSENT, DECIMAL, DIGITS, ENDED, HISTOGRAM, NEGATIVE, RAW, WHOLE, Waypoint, whole_of};

/// What holds from a tick on.
#[derive(Debug, Clone, Copy)]
pub enum Point<'a> {
    Float(f64),
    Integer(Integer),
    Histogram(&'a [u8]),
    Absent,
    Ended,
}

/// A walk over the points of a column, whatever its codec.
pub trait Walk<'a>: Iterator<Item = (u32, Point<'a>)> {
    /// Whether it ended early, at something that cannot be read.
    fn is_damaged(&self) -> bool;

    /// The tick from which on [`Self::run`] may have floats of one tick after the other: that of the last point, which is the
    /// first of them then, or a later one. Where nothing is said, points come one by one.
    fn run_from(&mut self) -> Option<u32> {
        None
    }

    /// Adds these floats, so many at most, or none; the points that they come from are not handed out any more.
    fn run(&mut self, _most: usize, _out: &mut Vec<f64>) {}
}

/// Ticks that are read at once, at most: the deltas of so many, which have 28 bits at most, do not wrap.
const RUN_TICKS: usize = 1 << 12;

/// Values that are made without a look at how much room there is.
const AT_ONCE: usize = 64;

/// A decimal one tick on.
const NEXT_DECIMAL: u8 = 1 << 2 | DECIMAL as u8;

impl<'a> Walk<'a> for Points<'a> {
    fn is_damaged(&self) -> bool {
        self.damaged
    }

    fn run_from(&mut self) -> Option<u32> {
        self.mantissa.map(|_| self.tick)
    }

    /// Nearly all points are decimals of the digits in force: nothing but sums of what is read.
    fn run(&mut self, most: usize, out: &mut Vec<f64>) {
        let Some(mut mantissa) = self.mantissa else { return };
        let (mut reader, start) = (self.reader, out.len());
        let end = start + most.min(RUN_TICKS);
        let mut some = [0.0; AT_ONCE];
        out.push(mantissa as f64);
        while out.len() < end {
            let (before, length, mantissa_before) = (reader, out.len(), mantissa);
            let mut next = |delta: u64| {
                mantissa += unzigzag(delta);
                mantissa as f64
            };
            let mut count = 0;
            for pair in some[..(end - length).min(AT_ONCE)].chunks_exact_mut(2) {
                let Some([delta, further]) = reader.two_tiny(NEXT_DECIMAL) else { break };
                (pair[0], pair[1]) = (next(delta), next(further));
                count += 2;
            }
            out.extend_from_slice(&some[..count]);
            let (tiny, room) = (reader, end - out.len());
            let is_read = match reader.short_pair() {
                Some((head, delta)) if head & 3 == DECIMAL && (1..=room).contains(&(head as usize >> 2)) => {
                    // The value before holds until there.
                    out.resize(out.len() + (head as usize >> 2) - 1, next(0));
                    out.push(next(delta));
                    true
                }
                _ => false,
            };
            if !out[length..].iter().all(|mantissa| mantissa.abs() <= decimal::MANTISSA_KEPT as f64) {
                // Only so many are read again, one by one.
                (reader, mantissa) = (before, mantissa_before);
                out.truncate(length);
                break;
            }
            if !is_read {
                reader = tiny;
                break;
            }
        }
        let last = self.tick.checked_add((out.len() - start - 1) as u32);
        let Some(tick) = last.filter(|tick| *tick > self.tick) else { return out.truncate(start) };
        decimal::scale(&mut out[start..], self.digits);
        self.base = out.last().copied().unwrap_or(self.base);
        (self.reader, self.tick, self.mantissa, self.whole) = (reader, tick, Some(mantissa), 0);
    }
}

/// Walks the points of a column; ends early at what it cannot read, and says so.
pub struct Points<'a> {
    reader: Reader<'a>,
    tick: u32,
    base: f64,
    digits: u32,
    /// The mantissa of `base` at `digits`, where it is known and `base` is what holds.
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
                // It does not hold any more, and a run begins with what holds.
                self.mantissa = None;
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
