//! Reading a packed column: its points one by one, or block by block.

use lampad_proto::decimal;

use super::{BITS, BLOCK_NUMBERS, Before, EVERY_TICK, POINTS, WHAT};
use crate::store::bytes::Reader;
use crate::store::column::{Point, Points, Walk};
use crate::store::numbers::read_list;

/// Walks the points of a column; ends early at what it cannot read, and says so.
pub struct PackedPoints<'a> {
    reader: Reader<'a>,
    before: Before,
    block: Block,
    at: usize,
    /// A block whose steps, one for each tick, are not read yet.
    dense: Option<Dense>,
    points: Option<Points<'a>>,
    /// Of what lies before this tick only the last point is wanted.
    from_tick: u32,
    pub damaged: bool,
}

/// What the head of a block says whose gaps are all 1.
#[derive(Clone, Copy)]
struct Dense {
    what: u8,
    count: usize,
    /// Of the first number.
    tick: u32,
    number: i64,
}

/// The numbers of a block as they were read.
#[derive(Default)]
struct Block {
    /// Of the first one.
    tick: u32,
    /// Ticks from the one before; none where all are 1.
    gaps: Vec<i64>,
    values: Vec<f64>,
}

impl<'a> PackedPoints<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self::from(bytes, 0)
    }

    /// Without most of the points before a tick: of blocks that end there or before only the last point is handed out.
    pub fn from(bytes: &'a [u8], from_tick: u32) -> Self {
        let (reader, before, block) = (Reader(bytes), Before::default(), Block::default());
        Self { reader, before, block, at: 0, dense: None, points: None, from_tick, damaged: false }
    }

    /// Reads the next block where nothing is left of the one before.
    fn load(&mut self) {
        while self.at >= self.block.values.len()
            && self.dense.is_none()
            && self.points.is_none()
            && !self.reader.is_empty()
            && !self.damaged
        {
            self.block.values.clear();
            self.at = 0;
            self.damaged = self.read_block().is_none();
        }
    }

    fn read_block(&mut self) -> Option<()> {
        let form = self.reader.u8()?;
        let what = form & WHAT;
        if what == POINTS {
            self.points = Some(Points::new(self.reader.bytes()?));
            return Some(());
        }
        if u32::from(what) > decimal::DIGITS_MAX && what != BITS {
            return None;
        }
        let count = usize::try_from(self.reader.varint()?).ok()?.checked_add(1).filter(|n| *n <= BLOCK_NUMBERS)?;
        let tick = self.before.tick.checked_add(self.reader.varint32()?)?;
        let before = match self.before.number {
            Some((form, number)) if form == what => number,
            _ => 0,
        };
        let number = before.wrapping_add(self.reader.signed()?);
        self.block.gaps.clear();
        let mut last = tick.checked_add(count as u32 - 1)?;
        if form & EVERY_TICK != 0 && last > self.from_tick {
            self.dense = Some(Dense { what, count, tick, number });
            return Some(());
        }
        if form & EVERY_TICK == 0 {
            self.block.gaps.resize(count - 1, 0);
            read_list(&mut self.reader, &mut self.block.gaps)?;
            last = end_of(tick, &self.block.gaps)?;
        }
        let mut steps = [0i64; BLOCK_NUMBERS];
        let steps = &mut steps[..count];
        read_list(&mut self.reader, &mut steps[1..])?;
        self.block.tick = tick;
        let number = match last <= self.from_tick {
            true => self.block.fill_last(what, (last, number), steps)?,
            false => fill(what, number, steps, &mut self.block.values)?,
        };
        self.before = Before { tick: last, number: Some((what, number)) };
        Some(())
    }

    /// Adds the values of a block to `out`, as far as they can be read.
    fn read_dense(&mut self, dense: Dense, out: &mut Vec<f64>) -> Option<()> {
        let Dense { what, count, tick, number } = dense;
        let mut steps = [0i64; BLOCK_NUMBERS];
        let steps = &mut steps[..count];
        read_list(&mut self.reader, &mut steps[1..])?;
        let number = fill(what, number, steps, out)?;
        self.before = Before { tick: tick.checked_add(count as u32 - 1)?, number: Some((what, number)) };
        Some(())
    }

    /// Reads the steps of a block whose values are wanted one by one.
    fn expand_dense(&mut self) {
        let Some(dense) = self.dense.take() else { return };
        let mut values = std::mem::take(&mut self.block.values);
        self.damaged = self.read_dense(dense, &mut values).is_none();
        (self.block.values, self.block.tick) = (values, dense.tick);
    }
}

/// The last tick behind so many gaps.
fn end_of(tick: u32, gaps: &[i64]) -> Option<u32> {
    gaps.iter().try_fold(tick, |tick, gap| tick.checked_add(u32::try_from(*gap).ok()?))
}

impl Block {
    /// The last value alone, which holds from `last` on.
    fn fill_last(&mut self, what: u8, (last, first): (u32, i64), steps: &[i64]) -> Option<i64> {
        let number = steps.iter().fold(first, |number, step| number.wrapping_add(*step));
        self.gaps.clear();
        self.tick = last;
        self.values.push(value(what, number)?);
        Some(number)
    }

    /// The value at this place, and its tick: `self.tick` goes along.
    fn take(&mut self, at: usize) -> Option<(u32, f64)> {
        let value = *self.values.get(at)?;
        if at > 0 {
            // They were added up when the block was read.
            self.tick = self.tick.wrapping_add(self.gaps.get(at - 1).map_or(1, |gap| *gap as u32));
        }
        Some((self.tick, value))
    }
}

/// Adds the values of the numbers that follow `first` by these steps, of which the first one is 0; says the last number. Those
/// before one that is outside the format are there all the same.
fn fill(what: u8, first: i64, steps: &[i64], out: &mut Vec<f64>) -> Option<i64> {
    let (mut number, mut widest, start) = (first, 0, out.len());
    out.extend(steps.iter().map(|step| {
        number = number.wrapping_add(*step);
        widest = number.unsigned_abs().max(widest);
        number as f64
    }));
    if what != BITS && value(what, widest as i64).is_some() {
        decimal::scale(&mut out[start..], u32::from(what));
        return Some(number);
    }
    out.truncate(start);
    let mut number = first;
    for step in steps {
        number = number.wrapping_add(*step);
        out.push(value(what, number)?);
    }
    Some(number)
}

#[inline]
fn value(what: u8, number: i64) -> Option<f64> {
    match what {
        BITS => Some(f64::from_bits(number as u64)),
        digits => decimal::value(number, u32::from(digits)),
    }
}

impl<'a> Walk<'a> for PackedPoints<'a> {
    fn is_damaged(&self) -> bool {
        self.damaged
    }

    fn run_from(&mut self) -> Option<u32> {
        self.load();
        self.dense.map(|dense| dense.tick)
    }

    fn run(&mut self, most: usize, out: &mut Vec<f64>) {
        let Some(dense) = self.dense.take() else { return };
        let start = out.len();
        self.damaged = self.read_dense(dense, out).is_none();
        out.truncate(start + most);
    }
}

impl<'a> Iterator for PackedPoints<'a> {
    type Item = (u32, Point<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.load();
            self.expand_dense();
            if let Some((tick, value)) = self.block.take(self.at) {
                self.at += 1;
                return Some((tick, Point::Float(value)));
            }
            let points = self.points.as_mut()?;
            if let Some((tick, point)) = points.next() {
                self.before = Before { tick, number: None };
                return Some((tick, point));
            }
            self.damaged |= points.damaged;
            self.points = None;
        }
    }
}
