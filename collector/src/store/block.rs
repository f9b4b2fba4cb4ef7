//! How sealed runs lie in the engine's values.
//!
//! ```text
//! value    u8 version (1), u32 LE CRC-32 of the rest, varint count, count x varint length, then the pieces
//! piece    u8 kind, then by kind: see piece.rs
//! ```
//! A run is one head and its parts. Its columns are sorted by their series' labels and cut into parts, so that neighbours
//! share a value; small pieces, of several groups too, are packed into one value. The manifest names every piece. Heads have
//! values of their own, shorter ones, because who asks for one series of a run reads its head and one part; only of a run with
//! a single part they lie side by side.

use std::ops::RangeInclusive;

use super::bytes::{Reader, put_varint};
use super::piece::{SealedColumn, head_piece, part_piece};
use super::run::Run;
use super::tier::tier_of;
use super::window::series_of;

const VERSION: u8 = 1;

/// A part is closed before it grows beyond so many of its run's columns, on average, but within these bounds in bytes: a query of
/// one series reads all of a value, and each value takes memory that names it.
const PART_COLUMNS: usize = 6;
const PART_BYTES: RangeInclusive<usize> = 2 * 1024..=8 * 1024;

/// The same of a value of heads, most of which take less than 100 bytes, and of a wide group two for each series.
const HEADS_BYTES: usize = 1024;

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

/// Packs pieces into values.
#[derive(Debug)]
pub(super) struct Packer {
    partition: u32,
    /// The next one that is free.
    number: u32,
    parts: Growing,
    heads: Growing,
    pub values: Vec<(u32, Vec<u8>)>,
}

/// A value that takes pieces.
#[derive(Debug, Default)]
struct Growing {
    number: u32,
    pieces: Vec<Vec<u8>>,
    bytes: usize,
}

impl Growing {
    /// The value, if it has any pieces; what comes next begins another.
    fn close(&mut self) -> Option<(u32, Vec<u8>)> {
        if self.pieces.is_empty() {
            return None;
        }
        let mut value = vec![VERSION, 0, 0, 0, 0];
        put_varint(&mut value, self.pieces.len() as u64);
        self.pieces.iter().for_each(|piece| put_varint(&mut value, piece.len() as u64));
        self.pieces.drain(..).for_each(|piece| value.extend_from_slice(&piece));
        let check = crc32fast::hash(&value[5..]);
        value[1..5].copy_from_slice(&check.to_le_bytes());
        self.bytes = 0;
        Some((self.number, value))
    }
}

impl Packer {
    /// `number` is the first that is free in the partition.
    pub fn new(partition: u32, number: u32) -> Self {
        Self { partition, number, parts: Growing::default(), heads: Growing::default(), values: Vec::new() }
    }

    /// Adds a piece to a value that has room for it within `most`; a longer one is a value of its own.
    fn add(&mut self, is_head: bool, piece: Vec<u8>, most: usize) -> Address {
        let into = if is_head { &mut self.heads } else { &mut self.parts };
        if into.bytes + piece.len() > most {
            self.values.extend(into.close());
        }
        if into.pieces.is_empty() {
            into.number = self.number;
            self.number += 1;
        }
        into.bytes += piece.len();
        into.pieces.push(piece);
        Address { partition: self.partition, number: into.number, piece: into.pieces.len() as u32 - 1 }
    }

    /// Bytes of the values that are closed.
    pub fn closed_bytes(&self) -> usize {
        self.values.iter().map(|(_, value)| value.len()).sum()
    }

    /// Closes the last values; says the next free number.
    pub fn finish(&mut self) -> u32 {
        self.values.extend(self.parts.close());
        self.values.extend(self.heads.close());
        self.number
    }

    /// Adds a run, its columns in this order (numbers of columns). A wide one is cut, so that every head fits into a value.
    pub fn run(&mut self, group: u32, run: &Run, order: &[usize]) -> Vec<SealedRun> {
        if order.len() <= COLUMNS_MAX {
            return self.narrow_run(group, run, order).into_iter().collect();
        }
        // All columns of a series stay together: what a tier has of it is worth nothing without the rest.
        let is_tier = tier_of(self.partition).is_some();
        let series = |column: usize| if is_tier { series_of(run.slots[column]) } else { run.slots[column] };
        let mut cut = Vec::new();
        let mut rest = order;
        while !rest.is_empty() {
            let mut many = rest.len().min(COLUMNS_MAX);
            while many < rest.len() && many > 1 && series(rest[many]) == series(rest[many - 1]) {
                many -= 1;
            }
            let (some, others) = rest.split_at(many);
            cut.extend(self.narrow_run(group, run, some));
            rest = others;
        }
        cut
    }

    fn narrow_run(&mut self, group: u32, run: &Run, order: &[usize]) -> Option<SealedRun> {
        let (min_ms, max_ms) = run.span()?;
        let columns: Vec<SealedColumn<'_>> = order.iter().map(|column| SealedColumn::of(run, *column)).collect();
        let all: usize = columns.iter().map(|column| column.bytes.len() + 4).sum();
        let most = (PART_COLUMNS * all / columns.len().max(1)).clamp(*PART_BYTES.start(), *PART_BYTES.end());
        let mut parts = Vec::new();
        let mut lists = Vec::new();
        let mut rest = columns.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|column| {
                bytes += column.bytes.len() + 4;
                bytes <= most
            });
            let (part, others) = rest.split_at(fits.count().max(1));
            rest = others;
            parts.push(self.add(false, part_piece(group, part), most));
            lists.push(part);
        }
        let head = head_piece(group, &run.ticks, &lists);
        let head = if parts.len() > 1 { self.add(true, head, HEADS_BYTES) } else { self.add(false, head, most) };
        Some(SealedRun { min_ms, max_ms, live: run.live, head, parts })
    }
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
        let order: Vec<usize> = (0..series as usize).rev().collect();
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
        let order: Vec<usize> = (0..50_000).map(|at| at * 7919 % 50_000).collect();
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
            let order: Vec<usize> = (0..series as usize).collect();
            let mut packer = Packer::new(1, 0);
            let sealed = packer.run(3, &run, &order).remove(0);
            packer.finish();
            let bytes = |at: Address| packer.values.iter().find(|(number, _)| *number == at.number).unwrap().1.len();
            let own = packer.closed_bytes() / series as usize;
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
