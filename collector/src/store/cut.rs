//! A column without some of its samples: what is deleted leaves the disk when its run is folded.

use super::column::{Column, Point, Walk as _};
use super::fold::value_of;
use super::piece::{POINTS, UnpackedColumn};

/// What is left of a column.
#[derive(Debug)]
pub(super) struct CutColumn {
    pub slot: u32,
    pub column: Column,
}

impl CutColumn {
    pub fn unpacked(&self) -> UnpackedColumn<'_> {
        UnpackedColumn { slot: self.slot, codec: POINTS, through: self.column.pen.through, bytes: &self.column.bytes }
    }
}

/// The column without its samples at the times that are `gone`; `None` when it cannot be read.
pub(super) fn without(column: &UnpackedColumn<'_>, ticks: &[i64], gone: impl Fn(i64) -> bool) -> Option<Column> {
    let mut points = column.points();
    let mut next = points.next();
    let mut held = Point::Absent;
    let mut cut = Column::default();
    let mut left = cut.open();
    for (tick, at_ms) in (0u32..).zip(ticks) {
        let mut is_new = false;
        while let Some((_, point)) = next.filter(|(at, _)| *at <= tick) {
            (held, is_new) = (point, true);
            next = points.next();
        }
        match held {
            Point::Ended if is_new && !gone(*at_ms) => left.ended(tick),
            Point::Absent | Point::Ended if left.is_present() => left.absent(tick),
            Point::Absent | Point::Ended => {}
            // What holds ends there by itself; a marker may still come.
            _ if tick >= column.through => {}
            _ if gone(*at_ms) && left.is_present() => left.absent(tick),
            _ if gone(*at_ms) => {}
            held if is_new || !left.is_present() => left.set(tick, &value_of(held)?),
            _ => {}
        }
    }
    left.through = column.through;
    (!points.is_damaged()).then_some(cut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Value;
    use crate::store::column::{OPEN, Samples};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_left_is_all_but_what_is_gone(
            steps in prop::collection::vec(prop_oneof![
                4 => Just(None),
                4 => (0i8..3).prop_map(|value| Some(Some(value))),
                1 => Just(Some(None)),
            ], 1..40),
            through in 0u32..50,
            (from, length) in (0i64..45, 0i64..20),
        ) {
            let ticks: Vec<i64> = (0..steps.len() as i64).collect();
            let mut column = Column::default();
            let mut open = column.open();
            for (tick, step) in (0u32..).zip(&steps) {
                match step {
                    Some(Some(value)) => open.set(tick, &Value::Float(f64::from(*value))),
                    Some(None) if open.is_present() => open.ended(tick),
                    _ => {}
                }
            }
            // It is of the last point.
            let last = steps.iter().rposition(Option::is_some).map_or(0, |last| last as u32 + 1);
            let through = if through as usize >= steps.len() { OPEN } else { through.max(last) };
            let unpacked = UnpackedColumn { slot: 7, codec: POINTS, through, bytes: &column.bytes };
            let samples = |column: &UnpackedColumn<'_>| {
                let mut found = Samples::default();
                assert!(column.expand(&ticks, i64::MIN, i64::MAX, &mut found));
                found.floats.iter().map(|sample| (sample.timestamp_ms, sample.value.to_bits())).collect::<Vec<_>>()
            };
            let gone = |at_ms: i64| (from..from + length).contains(&at_ms);
            let wanted: Vec<_> = samples(&unpacked).into_iter().filter(|(at_ms, _)| !gone(*at_ms)).collect();
            let left = CutColumn { slot: 7, column: without(&unpacked, &ticks, gone).unwrap() };
            prop_assert_eq!(samples(&left.unpacked()), wanted);
        }
    }

    #[test]
    fn a_damaged_column_is_not_cut() {
        let column = UnpackedColumn { slot: 0, codec: POINTS, through: OPEN, bytes: &[0xff] };
        assert!(without(&column, &[1, 2], |_| true).is_none());
    }
}
