//! How sealed runs lie in the engine's values.
//!
//! ```text
//! value    u8 version (1), u32 LE CRC-32 of the rest, varint count, count x varint length, then the pieces
//! piece    u8 kind, then by kind: see piece.rs
//! ```
//! A run is one head and its parts. Its columns are sorted by their series' labels and cut into parts, so that neighbours
//! share a piece; small pieces are packed into one value, see pack.rs. The manifest names every piece.

mod pack;

pub(super) use self::pack::{Batch, Order, Packer, Part};
use super::bytes::Reader;

const VERSION: u8 = 1;

/// Columns of a sealed run: with three bytes for most, the slots and 7200 ticks stay below 64 KiB in the head.
pub(super) const COLUMNS_MAX: usize = 8192;

/// Where a piece lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Address {
    pub partition: u32,
    pub number: u32,
    pub piece: u32,
}

impl Address {
    /// Where a part lay that a repair has given up.
    pub const LOST: Self = Self { partition: 0, number: u32::MAX, piece: u32::MAX };

    pub fn is_lost(self) -> bool {
        self == Self::LOST
    }
}

/// A run that lies in blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SealedRun {
    pub min_ms: i64,
    pub max_ms: i64,
    /// The newest data of its group at its time, as opposed to an overlay.
    pub live: bool,
    pub head: Address,
    pub parts: Vec<Address>,
}

/// A piece of a value, after the value's checksum was found right.
pub(super) fn piece(value: &[u8], number: u32) -> Option<&[u8]> {
    if is_whole(value) { piece_of(value, number) } else { None }
}

/// Whether a value is one, and its checksum is right.
pub(super) fn is_whole(value: &[u8]) -> bool {
    let mut reader = Reader(value);
    let head = reader.u8().zip(reader.u32());
    head.is_some_and(|(version, check)| version == VERSION && check == crc32fast::hash(reader.0))
}

/// A piece of a value that is whole.
pub(super) fn piece_of(value: &[u8], number: u32) -> Option<&[u8]> {
    let mut reader = Reader(value.get(5..)?);
    let count = reader.count()?;
    let mut lengths = Vec::with_capacity(count);
    for _ in 0..count {
        lengths.push(usize::try_from(reader.varint()?).ok()?);
    }
    let number = number as usize;
    let before = lengths.get(..number)?.iter().try_fold(0usize, |sum, length| sum.checked_add(*length))?;
    reader.take(before)?;
    reader.take(*lengths.get(number)?)
}

#[cfg(test)]
mod tests {
    use super::super::column::Samples;
    use super::super::piece::{read_head, read_part};
    use super::super::run::Run;
    use super::*;
    use crate::store::{Slot, Value};
    use proptest::prelude::*;

    fn packed(ticks: &[i64], series: u32) -> (Run, Packer, SealedRun) {
        let mut run = Run::new();
        for tick in ticks {
            let values: Vec<(Slot, Value)> =
                (0..series).map(|slot| (Slot(slot), Value::Float((i64::from(slot) * 7 + tick % 100) as f64))).collect();
            run.delta_tick(*tick, false, &values);
        }
        let order: Vec<(u32, usize)> = (0..series as usize).rev().map(|column| (0, column)).collect();
        let mut packer = Packer::new(1, 5);
        let sealed = packer.run(3, &run, &order).remove(0);
        packer.finish();
        (run, packer, sealed)
    }

    fn find(packer: &Packer, address: Address) -> &[u8] {
        let value = packer.values.iter().find(|(number, _)| *number == address.number);
        piece(&value.unwrap().1, address.piece).unwrap()
    }

    proptest! {
        #[test]
        fn a_run_comes_back(mut ticks in prop::collection::btree_set(any::<i64>(), 1..300), series in 1u32..200) {
            ticks.insert(0);
            let ticks: Vec<i64> = ticks.into_iter().collect();
            let (run, packer, sealed) = packed(&ticks, series);
            let head = read_head(find(&packer, sealed.head), 3).unwrap();
            prop_assert_eq!(&*head.ticks.list(), &*ticks);
            prop_assert!(packer.values.iter().all(|(_, value)| value.len() <= 64 * 1024));
            let mut seen = 0;
            for (address, slots) in sealed.parts.iter().zip(head.parts()) {
                read_part(find(&packer, *address), 3, slots, &ticks, (i64::MIN, i64::MAX), |slot, read| {
                    assert!(slots.contains(&slot));
                    let (mut found, mut wanted) = (Samples::default(), Samples::default());
                    assert!(read(&mut found) && run.expand(slot, i64::MIN, i64::MAX, &mut wanted));
                    assert_eq!(found.floats, wanted.floats);
                    seen += 1;
                    true
                }).unwrap();
            }
            prop_assert_eq!(seen, series);
        }

        #[test]
        fn garbage_is_none(bytes: Vec<u8>) {
            prop_assert_eq!(piece(&bytes, 0), None);
            for kind in 0..5 {
                let bytes = [&[kind, 0], &*bytes].concat();
                read_head(&bytes, 0);
                read_part(&bytes, 0, &[1, 2, 3], &[1, 2], (0, 9), |_, read| read(&mut Samples::default()));
            }
        }
    }

    #[test]
    fn a_wide_run_is_cut_so_that_no_value_grows_too_large() {
        let mut run = Run::new();
        let values: Vec<(Slot, Value)> = (0..50_000).map(|slot| (Slot(slot), Value::Float(1.0))).collect();
        (0..100).for_each(|tick| run.delta_tick(tick * 1000, tick == 0, if tick == 0 { &values } else { &[] }));
        // Neighbours by label are far apart by slot.
        let order: Vec<(u32, usize)> = (0..50_000).map(|at| (0, at * 7919 % 50_000)).collect();
        let mut packer = Packer::new(1, 5);
        let sealed = packer.run(3, &run, &order);
        packer.finish();
        assert!(packer.values.iter().all(|(_, value)| value.len() <= 64 * 1024));
        let heads = sealed.iter().map(|sealed| read_head(find(&packer, sealed.head), 3).unwrap());
        let slots: std::collections::BTreeSet<u32> =
            heads.flat_map(|head| head.parts().flatten().copied().collect::<Vec<_>>()).collect();
        assert_eq!(slots.len(), 50_000);
    }

    #[test]
    fn one_series_of_a_wide_run_is_read_without_many_others() {
        for (ticks, series, most) in [(7200, 60, 4), (720, 600, 10)] {
            let mut run = Run::new();
            for tick in 0..ticks {
                let value = |slot: u32| f64::from((u64::from(slot) * 31 + tick * tick * 17) as u32 % 997);
                let values: Vec<(Slot, Value)> =
                    (0..series).map(|slot| (Slot(slot), Value::Float(value(slot)))).collect();
                run.delta_tick(tick as i64 * 1000, tick == 0, &values);
            }
            let order: Vec<(u32, usize)> = (0..series as usize).map(|column| (0, column)).collect();
            let mut packer = Packer::new(1, 0);
            let sealed = packer.run(3, &run, &order).remove(0);
            packer.finish();
            let bytes = |at: Address| packer.values.iter().find(|(number, _)| *number == at.number).unwrap().1.len();
            let all: usize = packer.values.iter().map(|(_, value)| value.len()).sum();
            let own = all / series as usize;
            for part in &sealed.parts {
                let read = bytes(sealed.head) + bytes(*part);
                assert!(read <= most * own, "{read} bytes for {own}, {ticks} ticks");
            }
        }
    }

    #[test]
    fn a_flipped_bit_is_found() {
        let (_, packer, _) = packed(&[1000, 2000, 3000], 4);
        let value = &packer.values[0].1;
        for bit in 0..value.len() * 8 {
            let mut bad = value.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(piece(&bad, 0), None, "bit {bit}");
        }
    }
}
