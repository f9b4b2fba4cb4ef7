//! Codec 2 of a column: change points in blocks, those of decimals packed to the width that their block needs.
//!
//! ```text
//! column  block*
//! block   u8 form: low four bits what the numbers are, bit 4 set where all gaps are 1
//!         what 0 to 9: mantissas of decimals with so many digits; 15: bits of doubles; then
//!             varint count - 1, varint ticks since the last one of the block before (since tick 0 at first)
//!             signed first number, less the last of the block before where that was of the same kind
//!             gaps, unless all are 1: a list (numbers.rs) of count - 1 numbers of ticks
//!             steps: a list of count - 1 differences
//!         what 14: varint length, a column of codec 1
//! ```
//! A point that repeats the value before it says nothing new: where nearly every tick has one, the missing ones are added, so
//! that no gaps need be written. Arithmetic wraps. Decimals are as in `lampad_proto::decimal`: a mantissa is below 2^53.

use lampad_proto::decimal;

use super::Value;
use super::bytes::{Reader, put_bytes, put_signed, put_varint};
use super::column::{Column, Point, Points, Walk};
use super::numbers::{LIST_MAX, List, read_list};

const BITS: u8 = 15;
const POINTS: u8 = 14;
const WHAT: u8 = 0x0f;
const EVERY_TICK: u8 = 0x10;

/// Points of one block: the width is chosen for so many, and its head is shared by them.
const BLOCK_POINTS: usize = 128;

/// Numbers of one block at most, added ones included.
const BLOCK_NUMBERS: usize = LIST_MAX;

/// Fewer are left to codec 1: the head of a block takes some eight bytes.
const POINTS_MIN: usize = 6;

/// Where the block before ended.
#[derive(Debug, Clone, Copy, Default)]
struct Before {
    tick: u32,
    /// What its numbers were, and the last of them.
    number: Option<(u8, i64)>,
}

/// A column of codec 1 in this codec; `None` where that is no shorter, or the column is damaged.
pub(super) fn pack(points: &[u8]) -> Option<Vec<u8>> {
    // What is so short has no block's worth of points.
    if points.len() < 2 * POINTS_MIN {
        return None;
    }
    let mut reader = Points::new(points);
    let all: Vec<(u32, Point<'_>)> = reader.by_ref().collect();
    if reader.damaged {
        return None;
    }
    let mut packer = Packer::default();
    let mut rest = all.as_slice();
    while !rest.is_empty() && packer.out.len() < points.len() {
        let (what, numbers) = alike(rest);
        let (some, others) = rest.split_at(numbers.len().max(1));
        if numbers.len() < POINTS_MIN {
            packer.others.extend_from_slice(some);
        } else {
            packer.block(what, some, &numbers)?;
        }
        rest = others;
    }
    packer.put_others();
    (packer.out.len() < points.len()).then_some(packer.out)
}

/// The numbers of the first points, as many as one block can hold; few or none where these are none, or not alike.
fn alike(points: &[(u32, Point<'_>)]) -> (u8, Vec<i64>) {
    let floats = points.iter().take(BLOCK_POINTS).map_while(|(_, point)| match point {
        Point::Float(value) => Some(*value),
        _ => None,
    });
    let floats: Vec<f64> = floats.collect();
    let mut digits = 0;
    let mut exact = 0;
    for value in &floats {
        let Some(more) = [digits, 1, 2, 3, 4, 5, 6, 7, 8, 9]
            .into_iter()
            .find(|more| *more >= digits && decimal::exact(*value, u32::from(*more)).is_some())
        else {
            break;
        };
        digits = more;
        exact += 1;
    }
    // With more digits a large value may not be exact any more.
    let numbers = floats[..exact].iter().map_while(|value| decimal::exact(*value, u32::from(digits)));
    let numbers: Vec<i64> = numbers.collect();
    if numbers.len() >= POINTS_MIN.min(points.len()) {
        return (digits, numbers);
    }
    let odd = |value: &&f64| decimal::exact(**value, 9).is_none();
    (BITS, floats.iter().take_while(odd).map(|value| value.to_bits() as i64).collect())
}

#[derive(Debug, Default)]
struct Packer<'a> {
    out: Vec<u8>,
    before: Before,
    /// Points that go to a block of codec 1.
    others: Vec<(u32, Point<'a>)>,
}

impl Packer<'_> {
    fn put_others(&mut self) {
        let Some((last, _)) = self.others.last() else { return };
        self.before = Before { tick: *last, number: None };
        let mut column = Column::default();
        for (tick, point) in self.others.drain(..) {
            match point {
                Point::Float(value) => column.set(tick, &Value::Float(value)),
                Point::Integer(value) => column.set(tick, &Value::Integer(value)),
                Point::Histogram(bytes) => column.set_histogram_bytes(tick, bytes),
                Point::Absent => column.absent(tick),
                Point::Ended => column.ended(tick),
            }
        }
        self.out.push(POINTS);
        put_bytes(&mut self.out, &column.bytes);
    }

    fn block(&mut self, what: u8, points: &[(u32, Point<'_>)], numbers: &[i64]) -> Option<()> {
        self.put_others();
        let ticks: Vec<u32> = points.iter().map(|(tick, _)| *tick).collect();
        let (first, last) = (*ticks.first()?, *ticks.last()?);
        // An earlier version could write two points at one tick. Codec 1 keeps them.
        if !ticks.is_sorted_by(|before, after| before < after) {
            return None;
        }
        let gaps: Vec<i64> = ticks.windows(2).map(|pair| i64::from(pair[1]) - i64::from(pair[0])).collect();
        let steps: Vec<i64> = numbers.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
        let sparse = (List::of(&gaps), List::of(&steps));
        let span = (last - first) as usize + 1;
        let dense = (span <= BLOCK_NUMBERS).then(|| List::of(&every_tick(&ticks, &steps)));
        let before = match self.before.number {
            Some((form, number)) if form == what => number,
            _ => 0,
        };
        let put_first = |out: &mut Vec<u8>, form: u8, count: usize| {
            out.push(form);
            put_varint(out, count as u64 - 1);
            put_varint(out, u64::from(first - self.before.tick));
            put_signed(out, numbers[0].wrapping_sub(before));
        };
        match dense.filter(|dense| dense.bytes <= sparse.0.bytes + sparse.1.bytes) {
            Some(steps) => {
                put_first(&mut self.out, what | EVERY_TICK, span);
                steps.put(&mut self.out);
            }
            None => {
                put_first(&mut self.out, what, points.len());
                sparse.0.put(&mut self.out);
                sparse.1.put(&mut self.out);
            }
        }
        self.before = Before { tick: last, number: Some((what, *numbers.last()?)) };
        Some(())
    }
}

/// The steps from tick to tick.
fn every_tick(ticks: &[u32], steps: &[i64]) -> Vec<i64> {
    let mut all = Vec::with_capacity(BLOCK_NUMBERS);
    for (pair, step) in ticks.windows(2).zip(steps) {
        all.resize(all.len() + (pair[1] - pair[0] - 1) as usize, 0);
        all.push(*step);
    }
    all
}

/// Walks the points of a column; ends early at what it cannot read, and says so.
pub(super) struct PackedPoints<'a> {
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

#[cfg(test)]
mod tests {
    use super::super::column::{Samples, expand_points, ticks_in};
    use super::*;
    use lampad_proto::Number;
    use proptest::prelude::*;

    /// A stretch of one kind of values: what a column is made of.
    fn stretch() -> impl Strategy<Value = Vec<Option<Value>>> {
        let float = |value: f64| Some(Value::Float(value));
        prop_oneof![
            (any::<i32>(), prop::collection::vec(0..100i64, 1..300)).prop_map(move |(from, steps)| {
                let sum = steps.iter().scan(i64::from(from), |sum, step| {
                    *sum += step;
                    Some(*sum)
                });
                sum.map(|sum| float(sum as f64 / 100.0)).collect()
            }),
            (any::<f64>(), 1..300usize).prop_map(move |(value, count)| vec![float(value); count]),
            prop::collection::vec(any::<u64>().prop_map(move |bits| float(f64::from_bits(bits))), 1..40),
            prop::collection::vec((-5000i64..5000).prop_map(move |value| float(value as f64)), 1..200),
            prop::collection::vec(prop_oneof![8 => Just(1i64), 1 => any::<i32>().prop_map(i64::from)], 1..200)
                .prop_map(move |values| values.into_iter().map(|value| float(value as f64)).collect()),
            prop::collection::vec((any::<u64>(), any::<bool>()), 1..10)
                .prop_map(|all| all.into_iter().map(|(m, negative)| Some(Number::whole(m, negative).into())).collect()),
            (1..20usize).prop_map(|count| vec![None; count]),
        ]
    }

    fn column(values: &[Option<Value>]) -> Column {
        let mut column = Column::default();
        for (tick, value) in (0..).zip(values) {
            match value {
                Some(value) if !column.is_last(value) => column.set(tick, value),
                None if column.is_present() => column.absent(tick),
                _ => {}
            }
        }
        column
    }

    /// Points that say something new, in a form that compares.
    fn said<'a>(points: impl Iterator<Item = (u32, Point<'a>)>) -> Vec<(u32, String)> {
        let text = |point: Point<'_>| match point {
            Point::Float(value) => format!("{:x}", value.to_bits()),
            other => format!("{other:?}"),
        };
        let mut said: Vec<(u32, String)> = points.map(|(tick, point)| (tick, text(point))).collect();
        said.dedup_by(|next, last| next.1 == last.1);
        said
    }

    proptest! {
        #[test]
        fn every_point_comes_back(stretches in prop::collection::vec(stretch(), 1..5)) {
            let column = column(&stretches.concat());
            if let Some(packed) = pack(&column.bytes) {
                let mut blocks = PackedPoints::new(&packed);
                prop_assert_eq!(said(blocks.by_ref()), said(Points::new(&column.bytes)));
                prop_assert!(!blocks.damaged);
            }
        }

        /// Whole blocks at once, and without those that end before the time that is asked for.
        #[test]
        fn samples_are_those_of_codec_one(
            stretches in prop::collection::vec(stretch(), 1..5),
            (from, to) in (0i64..700, 0i64..700),
            through in 0u32..900,
        ) {
            let values = stretches.concat();
            let column = column(&values);
            let ticks: Vec<i64> = (0..values.len() as i64).collect();
            // It is of the last point.
            let last = Points::new(&column.bytes).last().map_or(0, |(tick, _)| tick + 1);
            if let Some(packed) = pack(&column.bytes) {
                let (mut wanted, mut found) = (Samples::default(), Samples::default());
                let points = Points::new(&column.bytes);
                let span = ticks_in(&ticks, from, to);
                prop_assert!(expand_points(points, through.max(last), &ticks, span.clone(), &mut wanted));
                let points = PackedPoints::from(&packed, span.start as u32);
                prop_assert!(expand_points(points, through.max(last), &ticks, span, &mut found));
                let bits = |samples: &Samples| samples.floats.iter().map(|s| (s.timestamp_ms, s.value.to_bits())).collect::<Vec<_>>();
                prop_assert_eq!(bits(&found), bits(&wanted));
            }
        }

        #[test]
        fn garbage_never_panics(mut bytes: Vec<u8>, form in 0u8..0x40, from: u32) {
            PackedPoints::new(&bytes).for_each(drop);
            expand_points(PackedPoints::from(&bytes, from), 9, &[1, 2, 3, 4], 1..3, &mut Samples::default());
            bytes.insert(0, form);
            PackedPoints::new(&bytes).for_each(drop);
        }

        #[test]
        fn flipped_bits_never_panic(stretch in stretch(), at: prop::sample::Index, bit in 0..8u32) {
            if let Some(mut packed) = pack(&column(&stretch).bytes) {
                let at = at.index(packed.len());
                packed[at] ^= 1 << bit;
                PackedPoints::new(&packed).for_each(drop);
            }
        }
    }

    /// Two agents with one name made the collector's own metrics say a series twice in a tick: at the start of a block that
    /// ended the thread that seals.
    #[test]
    fn two_points_at_one_tick_are_left_to_codec_one() {
        for twice in [0, 100] {
            let mut column = Column::default();
            for tick in 0..200u32 {
                column.set(tick, &Value::Float(f64::from(tick)));
                if tick == twice {
                    column.set(tick, &Value::Float(0.5));
                }
            }
            assert_eq!(pack(&column.bytes), None);
        }
    }

    #[test]
    fn steps_of_seven_bits_take_seven_bits() {
        let mut sum = 0;
        let values = (0..1280u64).map(|at| {
            sum += at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 57;
            Some(Value::Float(sum as f64))
        });
        let column = column(&values.collect::<Vec<_>>());
        let packed = pack(&column.bytes).unwrap();
        assert!(packed.len() <= 1280 * 7 / 8 + 10 * 8, "{} bytes", packed.len());
        assert!(column.bytes.len() > 1280 * 2);
    }
}
