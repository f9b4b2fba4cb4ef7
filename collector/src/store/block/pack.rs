//! Pieces find their places in values.
//!
//! Who asks for one series of a run reads its head and one part, and who asks for one metric of a fleet that part of each host. So
//! heads have values of their own, shorter ones, and of runs that are sealed together the parts lie in the order of their first
//! series: those of one metric side by side, whichever their host. Runs that are made one by one have their parts in a row. Only of
//! a run with a single part the head lies beside it.

use std::ops::RangeInclusive;

use crate::store::bytes::put_varint;
use crate::store::piece::{SealedColumn, head_piece, part_piece};
use crate::store::run::Run;
use crate::store::tier::tier_of;
use crate::store::window::series_of;

use super::{Address, COLUMNS_MAX, SealedRun, VERSION};

/// A part is closed before it grows beyond so many of its run's columns, on average, but within these bounds in bytes: a query of
/// one series reads all of a value, and each part takes memory that names it.
const PART_COLUMNS: usize = 6;
const PART_BYTES: RangeInclusive<usize> = 2 * 1024..=8 * 1024;

/// The least of a part that shares its value with those of other hosts.
const BATCH_PART_BYTES_MIN: usize = 512;

/// A value of such parts: with shorter ones the engine keeps more of its own, and who asks for one host reads them for nothing.
const BATCH_VALUE_BYTES: usize = 4 * 1024;

/// The same of a value of heads, most of which take less than 100 bytes, and of a wide group two for each series.
const HEADS_BYTES: usize = 1024;

/// The columns of a run, each with its series, in the order of their labels.
pub(in crate::store) type Order = Vec<(u32, usize)>;

/// A run in pieces that have no place yet.
#[derive(Debug)]
struct Pieces {
    min_ms: i64,
    max_ms: i64,
    live: bool,
    head: Vec<u8>,
    /// Each with its first series.
    parts: Vec<(u32, Vec<u8>)>,
    /// Bytes of a value that takes its parts, at most.
    value_bytes: usize,
}

/// Packs pieces into values.
#[derive(Debug)]
pub(in crate::store) struct Packer {
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

    /// Closes the last values; says the next free number.
    pub fn finish(&mut self) -> u32 {
        self.values.extend(self.parts.close());
        self.values.extend(self.heads.close());
        self.number
    }

    /// Adds a run by itself. A wide one is cut, so that every head fits into a value.
    pub fn run(&mut self, group: u32, run: &Run, order: &Order) -> Vec<SealedRun> {
        let is_tier = tier_of(self.partition).is_some();
        let mut alone = Batch::default();
        alone.put(0, pieces(group, run, order, is_tier, *PART_BYTES.start()));
        alone.place(self, |_| {}).into_iter().map(|(_, run)| run).collect()
    }
}

/// Runs that are sealed together.
#[derive(Debug, Default)]
pub(in crate::store) struct Batch {
    /// Each with the number of who brought it.
    runs: Vec<(usize, Pieces)>,
    pub bytes: usize,
}

impl Batch {
    pub fn add(&mut self, owner: usize, group: u32, run: &Run, order: &Order) {
        let pieces = pieces(group, run, order, false, BATCH_PART_BYTES_MIN);
        self.put(owner, pieces.into_iter().map(|pieces| Pieces { value_bytes: BATCH_VALUE_BYTES, ..pieces }));
    }

    fn put(&mut self, owner: usize, runs: impl IntoIterator<Item = Pieces>) {
        for pieces in runs {
            self.bytes += pieces.head.len() + pieces.parts.iter().map(|(_, part)| part.len()).sum::<usize>();
            self.runs.push((owner, pieces));
        }
    }

    /// Gives all pieces their places, parts as `sort` orders them by their first series; the runs come back in the order in which
    /// they were added.
    pub fn place(self, packer: &mut Packer, sort: impl FnOnce(&mut [Part])) -> Vec<(usize, SealedRun)> {
        let mut runs = self.runs;
        let parts_of = |(run, (_, pieces)): (usize, &(usize, Pieces))| {
            let part = |(part, (first, _)): (usize, &(u32, Vec<u8>))| Part { first: *first, run, part };
            pieces.parts.iter().enumerate().map(part).collect::<Vec<_>>()
        };
        let mut parts: Vec<Part> = runs.iter().enumerate().flat_map(parts_of).collect();
        sort(&mut parts);
        let unplaced = |(owner, Pieces { min_ms, max_ms, live, parts, .. }): &(usize, Pieces)| {
            let parts = vec![Address::LOST; parts.len()];
            (*owner, SealedRun { min_ms: *min_ms, max_ms: *max_ms, live: *live, head: Address::LOST, parts })
        };
        let mut placed: Vec<(usize, SealedRun)> = runs.iter().map(unplaced).collect();
        for Part { run, part, .. } in parts {
            let (pieces, sealed) = (&mut runs[run].1, &mut placed[run].1);
            sealed.parts[part] = packer.add(false, std::mem::take(&mut pieces.parts[part].1), pieces.value_bytes);
            if sealed.parts.len() == 1 {
                sealed.head = packer.add(false, std::mem::take(&mut pieces.head), pieces.value_bytes);
            }
        }
        for ((_, pieces), (_, sealed)) in
            runs.into_iter().zip(&mut placed).filter(|(_, (_, sealed))| sealed.parts.len() != 1)
        {
            sealed.head = packer.add(true, pieces.head, HEADS_BYTES);
        }
        placed
    }
}

/// A part that has no place yet.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Part {
    /// Its first series.
    pub first: u32,
    run: usize,
    part: usize,
}

/// The pieces of a run with parts of so many bytes at least, unless a column is longer than `PART_BYTES`; several heads where it
/// is wide.
fn pieces(group: u32, run: &Run, order: &Order, is_tier: bool, part_bytes_min: usize) -> Vec<Pieces> {
    // All columns of a series stay together: what a tier has of it is worth nothing without the rest.
    let series = |(_, column): &(u32, usize)| {
        if is_tier { series_of(run.slots[*column]) } else { run.slots[*column] }
    };
    let mut cut = Vec::new();
    let mut rest = order.as_slice();
    while !rest.is_empty() || cut.is_empty() {
        let mut many = rest.len().min(COLUMNS_MAX);
        while many < rest.len() && many > 1 && series(&rest[many]) == series(&rest[many - 1]) {
            many -= 1;
        }
        let (some, others) = rest.split_at(many);
        let Some(pieces) = narrow(group, run, some, part_bytes_min) else { break };
        cut.push(pieces);
        rest = others;
    }
    cut
}

fn narrow(group: u32, run: &Run, order: &[(u32, usize)], part_bytes_min: usize) -> Option<Pieces> {
    let (min_ms, max_ms) = run.span()?;
    let columns: Vec<SealedColumn<'_>> = order.iter().map(|(_, column)| SealedColumn::of(run, *column)).collect();
    let all: usize = columns.iter().map(|column| column.bytes.len() + 4).sum();
    let most = (PART_COLUMNS * all / columns.len().max(1)).clamp(part_bytes_min, *PART_BYTES.end());
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
        let (first, _) = order[order.len() - rest.len()];
        parts.push((first, part_piece(group, part)));
        lists.push(part);
        rest = others;
    }
    let head = head_piece(group, &run.ticks.list(), &lists);
    Some(Pieces { min_ms, max_ms, live: run.live, head, parts, value_bytes: most })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::store::block::piece;
    use crate::store::column::Samples;
    use crate::store::piece::{read_head, read_part};
    use crate::store::{Slot, Value};

    const HOSTS: u32 = 60;

    /// A host's run: series 1000 times their metric and the host's number, of which some hosts have fewer.
    fn host(number: u32, metrics: u32) -> (Run, Order) {
        let mut run = Run::new();
        for tick in 0..100 {
            let value = |slot: u32| f64::from((slot * 31 + number + tick * tick * 17) % 97);
            let values: Vec<(Slot, Value)> = (0..metrics).map(|slot| (Slot(slot), Value::Float(value(slot)))).collect();
            run.delta_tick(i64::from(tick) * 1000, tick == 0, &values);
        }
        let order = (0..metrics).map(|slot| (slot * 1000 + number, slot as usize)).collect();
        (run, order)
    }

    #[test]
    fn a_metric_of_many_hosts_lies_in_few_values_and_every_run_comes_back() {
        let metrics = |number: u32| if number % 7 == 3 { 2 } else { 120 };
        let hosts: Vec<(Run, Order)> = (0..HOSTS).map(|number| host(number, metrics(number))).collect();
        let (mut packer, mut batch) = (Packer::new(1, 5), Batch::default());
        for (number, (run, order)) in hosts.iter().enumerate() {
            batch.add(number, number as u32, run, order);
        }
        let placed = batch.place(&mut packer, |parts| parts.sort_by_key(|part| part.first));
        packer.finish();
        assert!(placed.iter().map(|(owner, _)| *owner).eq(0..HOSTS as usize));
        let value = |address: Address| &packer.values.iter().find(|(number, _)| *number == address.number).unwrap().1;
        let find = |address: Address| piece(value(address), address.piece).unwrap();
        let (mut of_metric, mut heads, mut own) = (BTreeSet::new(), BTreeSet::new(), 0);
        for (number, sealed) in &placed {
            let head = read_head(find(sealed.head), *number as u32).unwrap();
            let (run, mut seen) = (&hosts[*number].0, 0);
            for (address, slots) in sealed.parts.iter().zip(head.parts()) {
                let ticks = head.ticks.list();
                let read =
                    read_part(find(*address), *number as u32, slots, &ticks, (i64::MIN, i64::MAX), |slot, read| {
                        let (mut found, mut wanted) = (Samples::default(), Samples::default());
                        assert!(read(&mut found) && run.expand(slot, i64::MIN, i64::MAX, &mut wanted));
                        assert_eq!(found.floats, wanted.floats);
                        seen += 1;
                        true
                    });
                assert!(read.is_some());
                if slots.contains(&60) {
                    of_metric.insert(address.number);
                    own += run.column(60).unwrap().chain.len();
                }
            }
            assert_eq!(seen, metrics(*number as u32));
            heads.insert(sealed.head.number);
        }
        let bytes = |numbers: &BTreeSet<u32>| {
            let of = packer.values.iter().filter(|(number, _)| numbers.contains(number));
            of.map(|(_, value)| value.len()).sum::<usize>()
        };
        let (read, of_heads) = (bytes(&of_metric), bytes(&heads));
        assert!(read <= 9 * own, "{read} bytes are read for {own}, in {} values", of_metric.len());
        assert!(of_metric.len() <= HOSTS as usize / 3 && of_heads <= 60_000, "{} values, {of_heads}", of_metric.len());
        assert!(packer.values.iter().all(|(_, value)| value.len() <= BATCH_VALUE_BYTES + 64));
    }
}
