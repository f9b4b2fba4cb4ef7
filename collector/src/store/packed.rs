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

mod walk;

use lampad_proto::decimal;

use super::Value;
use super::bytes::{put_bytes, put_signed, put_varint};
use super::column::{Column, POINT_BYTES, Point, Points};
use super::numbers::{LIST_MAX, List};

pub(super) use self::walk::PackedPoints;

const BITS: u8 = 15;
const POINTS: u8 = 14;
/// Of a form, what its numbers are.
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
    let mut all: Vec<(u32, Point<'_>)> = Vec::with_capacity(points.len() / POINT_BYTES);
    all.extend(reader.by_ref());
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
    let (mut digits, mut numbers) = (0, Vec::with_capacity(points.len().min(BLOCK_POINTS)));
    let mut again = false;
    for value in floats.clone() {
        let exact = |digits| Some((digits, decimal::exact(value, u32::from(digits))?));
        let Some((needed, number)) = (digits..=9).find_map(exact) else { break };
        again |= needed > digits && !numbers.is_empty();
        digits = needed;
        numbers.push(number);
    }
    if again {
        // With more digits a large value may not be exact any more.
        let exact = |value| decimal::exact(value, u32::from(digits));
        numbers = floats.clone().take(numbers.len()).map_while(exact).collect();
    }
    if numbers.len() >= POINTS_MIN.min(points.len()) {
        return (digits, numbers);
    }
    let odd = |value: &f64| decimal::exact(*value, 9).is_none();
    (BITS, floats.take_while(odd).map(|value| value.to_bits() as i64).collect())
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
        let mut open = column.open();
        for (tick, point) in self.others.drain(..) {
            match point {
                Point::Float(value) => open.set(tick, &Value::Float(value)),
                Point::Integer(value) => open.set(tick, &Value::Integer(value)),
                Point::Histogram(bytes) => open.histogram(tick, bytes),
                Point::Absent => open.absent(tick),
                Point::Ended => open.ended(tick),
            }
        }
        self.out.push(POINTS);
        put_bytes(&mut self.out, &column.bytes);
    }

    fn block(&mut self, what: u8, points: &[(u32, Point<'_>)], numbers: &[i64]) -> Option<()> {
        self.put_others();
        let (first, last) = (points.first()?.0, points.last()?.0);
        // An earlier version could write two points at one tick. Codec 1 keeps them.
        if !points.is_sorted_by(|(before, _), (after, _)| before < after) {
            return None;
        }
        let steps: Vec<i64> = numbers.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
        let span = (last - first) as usize + 1;
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
        let put_dense = |out: &mut Vec<u8>, steps: &List| {
            put_first(out, what | EVERY_TICK, span);
            steps.put(out);
        };
        if span == points.len() {
            put_dense(&mut self.out, &List::of(&steps));
        } else {
            let gaps: Vec<i64> = points.windows(2).map(|pair| i64::from(pair[1].0) - i64::from(pair[0].0)).collect();
            let sparse = (List::of(&gaps), List::of(&steps));
            let dense = (span <= BLOCK_NUMBERS).then(|| List::of(&every_tick(points, &steps)));
            match dense.filter(|dense| dense.bytes <= sparse.0.bytes + sparse.1.bytes) {
                Some(steps) => put_dense(&mut self.out, &steps),
                None => {
                    put_first(&mut self.out, what, points.len());
                    sparse.0.put(&mut self.out);
                    sparse.1.put(&mut self.out);
                }
            }
        }
        self.before = Before { tick: last, number: Some((what, *numbers.last()?)) };
        Some(())
    }
}

/// The steps from tick to tick.
fn every_tick(points: &[(u32, Point<'_>)], steps: &[i64]) -> Vec<i64> {
    let mut all = Vec::with_capacity(BLOCK_NUMBERS);
    for (pair, step) in points.windows(2).zip(steps) {
        all.resize(all.len() + (pair[1].0 - pair[0].0 - 1) as usize, 0);
        all.push(*step);
    }
    all
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
        let mut open = column.open();
        for (tick, value) in (0..).zip(values) {
            match value {
                Some(value) if !open.is_last(value) => open.set(tick, value),
                None if open.is_present() => open.absent(tick),
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
            let mut open = column.open();
            for tick in 0..200u32 {
                open.set(tick, &Value::Float(f64::from(tick)));
                if tick == twice {
                    open.set(tick, &Value::Float(0.5));
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
