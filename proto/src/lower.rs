//! Frames for a reader of protocol 1.

use crate::number::Number;
use crate::v1::{Frame, GroupTick};

/// Makes floats, the nearest doubles, of all integers in a frame: protocol 1 knows none.
///
/// Needs no state: integers are absolute, and a decimal never counts from a number beyond 2^53.
pub fn lower(frame: &mut Frame) {
    frame.ticks.iter_mut().filter(|tick| !tick.integers.is_empty()).for_each(lower_tick);
}

fn lower_tick(tick: &mut GroupTick) {
    let mut floats: Vec<(u32, u64)> = absolute(&tick.float_refs).zip(tick.float_bits.iter().copied()).collect();
    for column in std::mem::take(&mut tick.integers) {
        let bits =
            column.magnitudes.iter().map(|magnitude| Number::whole(*magnitude, column.negative).as_f64().to_bits());
        floats.extend(absolute(&column.refs).zip(bits));
    }
    floats.sort_unstable_by_key(|(reference, _)| *reference);
    let mut last = 0;
    // Wrapping: a frame that was damaged on its way here is refused by its reader, as it would have been.
    let gap = |(reference, _): &(u32, u64)| reference.wrapping_sub(std::mem::replace(&mut last, *reference));
    tick.float_refs = floats.iter().map(gap).collect();
    tick.float_bits = floats.into_iter().map(|(_, bits)| bits).collect();
}

/// References out of the first one and the gaps.
fn absolute(gaps: &[u32]) -> impl Iterator<Item = u32> {
    gaps.iter().scan(0u32, |last, gap| {
        *last = last.wrapping_add(*gap);
        Some(*last)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::IntegerColumn;

    #[test]
    fn integers_become_floats_among_the_floats() {
        let column = |negative, refs: &[u32], magnitudes: &[u64]| IntegerColumn {
            negative,
            refs: refs.to_vec(),
            magnitudes: magnitudes.to_vec(),
        };
        let tick = GroupTick {
            float_refs: vec![2, 5],
            float_bits: vec![1.5f64.to_bits(), 2.5f64.to_bits()],
            integers: vec![column(false, &[1, 8], &[(1 << 53) + 1, u64::MAX]), column(true, &[4], &[(1 << 60) + 1])],
            ..GroupTick::default()
        };
        let mut frame = Frame { ticks: vec![tick], ..Frame::default() };
        lower(&mut frame);
        let tick = &frame.ticks[0];
        let floats: Vec<(u32, f64)> =
            absolute(&tick.float_refs).zip(tick.float_bits.iter().map(|bits| f64::from_bits(*bits))).collect();
        let expected = [(1, 2f64.powi(53)), (2, 1.5), (4, -(2f64.powi(60))), (7, 2.5), (9, 2f64.powi(64))];
        assert_eq!(floats, expected);
        assert!(tick.integers.is_empty());
    }
}
