//! The pieces of a sealed run: its head and its parts.
//!
//! ```text
//! 5 head   varint group, ticks as in ticks.rs, varint count of parts, varint count of columns each; slot differences of all
//!          (the first from 0) as lists of numbers.rs
//! 4 part   varint group, varint count, per column in the head's order: u8 codec and bit 7 set where `through` follows,
//!          varint through, varint length; then the columns' bytes one after another
//! codec    1: points as in column.rs; 2: as in packed.rs
//! ```
//! `through` is left out where a column holds to the run's end. Kinds 1 to 3 are those of data format 2 and before, see
//! piece_old.rs.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::block::COLUMNS_MAX;
use super::bytes::{Reader, put_varint};
use super::column::{OPEN, POINT_BYTES, Point, Points, Samples, Walk, expand_points, ticks_in};
use super::numbers::{put_all, read_all};
use super::packed::{PackedPoints, pack};
use super::piece_old;
use super::run::Run;
use super::ticks::{Ticks, put_ticks, read_ticks};

const PART: u8 = 4;
const HEAD: u8 = 5;

pub(super) const POINTS: u8 = 1;
const PACKED: u8 = 2;
const THROUGH: u8 = 0x80;

/// A column in its final form.
#[derive(Debug)]
pub(super) struct SealedColumn<'a> {
    pub slot: u32,
    codec: u8,
    /// [`OPEN`] where it holds to the end.
    through: u32,
    pub bytes: Cow<'a, [u8]>,
}

impl<'a> SealedColumn<'a> {
    /// The column of a run by its place, in the shorter codec.
    pub fn of(run: &'a Run, at: usize) -> Self {
        let through = run.columns[at].pen.through;
        let through = if through as usize >= run.ticks.len() { OPEN } else { through };
        let bytes = run.column_bytes(at);
        let (codec, bytes) = match pack(&bytes) {
            Some(packed) => (PACKED, Cow::Owned(packed)),
            None => (POINTS, bytes),
        };
        Self { slot: run.slots[at], codec, through, bytes }
    }
}

pub(super) fn head_piece(group: u32, ticks: &[i64], parts: &[&[SealedColumn<'_>]]) -> Vec<u8> {
    let mut out = vec![HEAD];
    put_varint(&mut out, u64::from(group));
    put_ticks(&mut out, ticks);
    put_varint(&mut out, parts.len() as u64);
    parts.iter().for_each(|part| put_varint(&mut out, part.len() as u64));
    let mut before = 0;
    let slots = parts.iter().flat_map(|part| part.iter()).map(|column| i64::from(column.slot));
    let differences: Vec<i64> = slots.map(|slot| slot - std::mem::replace(&mut before, slot)).collect();
    put_all(&mut out, &differences);
    out
}

pub(super) fn part_piece(group: u32, part: &[SealedColumn<'_>]) -> Vec<u8> {
    let mut out = vec![PART];
    put_varint(&mut out, u64::from(group));
    put_varint(&mut out, part.len() as u64);
    for column in part {
        if column.through == OPEN {
            out.push(column.codec);
        } else {
            out.push(column.codec | THROUGH);
            put_varint(&mut out, u64::from(column.through));
        }
        put_varint(&mut out, column.bytes.len() as u64);
    }
    part.iter().for_each(|column| out.extend_from_slice(&column.bytes));
    out
}

/// A head as it is read.
#[derive(Debug, PartialEq)]
pub(super) struct Head {
    pub ticks: Ticks,
    /// Slots of all parts, one part after another.
    slots: Arc<[u32]>,
    /// Where each part ends in them.
    ends: Vec<u32>,
    /// Whether they ascend from part to part.
    ascends: bool,
}

impl Head {
    pub fn new(ticks: Vec<i64>, slots: Vec<u32>, counts: &[usize]) -> Self {
        let mut end = 0;
        let ends = counts.iter().map(|count| {
            end += *count as u32;
            end
        });
        let ascends = slots.is_sorted();
        Self { ticks: Ticks::of(ticks), ends: ends.collect(), slots: slots.into(), ascends }
    }

    /// The part that has a slot.
    pub fn part_of(&self, slot: u32) -> Option<usize> {
        let at = match self.ascends {
            true => self.slots.binary_search(&slot).ok()?,
            false => self.slots.iter().position(|of| *of == slot)?,
        };
        Some(self.ends.partition_point(|end| *end as usize <= at))
    }

    /// Slots of each part.
    pub fn parts(&self) -> impl Iterator<Item = &[u32]> {
        let mut from = 0;
        self.ends.iter().map(move |end| &self.slots[std::mem::replace(&mut from, *end as usize)..*end as usize])
    }

    /// The slots of all parts, and which of them are of one part.
    pub fn slots_of(&self, part: usize) -> (Arc<[u32]>, Range<usize>) {
        let end = |part: usize| self.ends.get(part).map_or(0, |end| *end as usize);
        (self.slots.clone(), part.checked_sub(1).map_or(0, end)..end(part))
    }

    /// Memory that it takes, without what it shares.
    pub fn bytes(&self) -> usize {
        let slots = if Arc::strong_count(&self.slots) > 1 { 0 } else { size_of_val(&*self.slots) };
        size_of::<Self>() + self.ticks.bytes() + size_of_val(&*self.ends) + slots
    }

    /// Has the slots in common with the run before, which mostly are the same.
    pub fn share_slots(&mut self, before: &Self) {
        if self.slots == before.slots {
            self.slots = before.slots.clone();
        }
    }
}

pub(super) fn read_head(piece: &[u8], group: u32) -> Option<Head> {
    let mut reader = Reader(piece);
    let kind = reader.u8()?;
    if reader.varint32()? != group {
        return None;
    }
    match kind {
        HEAD => read_new_head(&mut reader),
        kind => piece_old::read_head(kind, &mut reader),
    }
}

fn read_new_head(reader: &mut Reader<'_>) -> Option<Head> {
    let ticks = read_ticks(reader)?;
    let counts: Vec<usize> = (0..reader.count()?).map(|_| Some(reader.varint32()? as usize)).collect::<Option<_>>()?;
    let all = counts.iter().try_fold(0usize, |sum, count| sum.checked_add(*count))?;
    let mut slot = 0i64;
    let slots = read_all(reader, all, COLUMNS_MAX)?.into_iter().map(|difference| {
        slot = slot.checked_add(difference)?;
        u32::try_from(slot).ok()
    });
    Some(Head::new(ticks, slots.collect::<Option<_>>()?, &counts))
}

/// A column as it lies in its part.
#[derive(Debug, Clone, Copy)]
pub(super) struct UnpackedColumn<'a> {
    pub slot: u32,
    pub codec: u8,
    /// [`OPEN`] where it holds to the end.
    pub through: u32,
    pub bytes: &'a [u8],
}

impl<'a> UnpackedColumn<'a> {
    /// Its points; of a codec that is not known, none, and damaged.
    pub fn points(&self) -> AnyPoints<'a> {
        match self.codec {
            POINTS => AnyPoints::Points(Points::new(self.bytes)),
            PACKED => AnyPoints::Packed(Box::new(PackedPoints::new(self.bytes))),
            _ => AnyPoints::Unknown,
        }
    }

    /// Adds the samples in `[from_ms, to_ms]`; false when something cannot be read.
    pub fn expand(&self, ticks: &[i64], from_ms: i64, to_ms: i64, out: &mut Samples) -> bool {
        let wanted = ticks_in(ticks, from_ms, to_ms);
        out.floats.begin(self.bytes.len() / POINT_BYTES, wanted.len());
        match self.codec {
            POINTS => expand_points(Points::new(self.bytes), self.through, ticks, wanted, out),
            PACKED => {
                let points = PackedPoints::from(self.bytes, wanted.start as u32);
                expand_points(points, self.through, ticks, wanted, out)
            }
            _ => false,
        }
    }

    /// Bytes that its points take in codec 1, about.
    pub fn points_bytes(&self) -> usize {
        if self.codec == PACKED { 2 * self.bytes.len() } else { self.bytes.len() }
    }
}

/// The points of a column of any codec.
pub(super) enum AnyPoints<'a> {
    Points(Points<'a>),
    Packed(Box<PackedPoints<'a>>),
    Unknown,
}

impl<'a> Iterator for AnyPoints<'a> {
    type Item = (u32, Point<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Points(points) => points.next(),
            Self::Packed(points) => points.next(),
            Self::Unknown => None,
        }
    }
}

impl<'a> Walk<'a> for AnyPoints<'a> {
    fn is_damaged(&self) -> bool {
        match self {
            Self::Points(points) => points.is_damaged(),
            Self::Packed(points) => points.is_damaged(),
            Self::Unknown => true,
        }
    }
}

/// All columns of a part, whose slots the head says, as they lie there.
pub(super) fn read_columns<'a>(piece: &'a [u8], group: u32, slots: &[u32]) -> Option<Vec<UnpackedColumn<'a>>> {
    read_wanted(piece, group, slots, |_| true)
}

/// Those of its columns whose slots are wanted.
pub(super) fn read_wanted<'a>(
    piece: &'a [u8],
    group: u32,
    slots: &[u32],
    is_wanted: impl Fn(u32) -> bool,
) -> Option<Vec<UnpackedColumn<'a>>> {
    let mut reader = Reader(piece);
    let kind = reader.u8()?;
    if reader.varint32()? != group {
        return None;
    }
    let mut wanted: Vec<(Place, usize)> = Vec::new();
    let mut at = 0usize;
    let mut look = |place: Place| {
        if is_wanted(place.slot) {
            wanted.push((place, at));
        }
        at = at.checked_add(place.length)?;
        Some(())
    };
    match kind {
        PART => read_directory(&mut reader, slots, look)?,
        piece_old::PART => piece_old::read_directory(&mut reader)?.into_iter().try_for_each(&mut look)?,
        _ => return None,
    }
    let columns = reader.0;
    if columns.len() < at {
        return None;
    }
    let column = |(Place { slot, codec, through, length }, at): (Place, usize)| UnpackedColumn {
        slot,
        codec,
        through,
        bytes: &columns[at..at + length],
    };
    Some(wanted.into_iter().map(column).collect())
}

/// Hands out the columns of a part, whose slots the head says, that are wanted: `take` says for a slot where its samples go.
pub(super) fn read_part(
    piece: &[u8],
    group: u32,
    slots: &[u32],
    ticks: &[i64],
    (from_ms, to_ms): (i64, i64),
    mut take: impl FnMut(u32, &mut dyn FnMut(&mut Samples) -> bool) -> bool,
) -> Option<()> {
    let mut whole = true;
    for column in read_columns(piece, group, slots)? {
        whole &= take(column.slot, &mut |out| column.expand(ticks, from_ms, to_ms, out));
    }
    whole.then_some(())
}

/// A column in the directory of its part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub slot: u32,
    pub codec: u8,
    pub through: u32,
    pub length: usize,
}

fn read_directory(reader: &mut Reader<'_>, slots: &[u32], mut look: impl FnMut(Place) -> Option<()>) -> Option<()> {
    if reader.count()? != slots.len() {
        return None;
    }
    for slot in slots {
        let codec = reader.u8()?;
        let through = if codec & THROUGH == 0 { OPEN } else { reader.varint32()? };
        let length = usize::try_from(reader.varint()?).ok()?;
        look(Place { slot: *slot, codec: codec & !THROUGH, through, length })?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_share_the_slots_that_they_have_in_common() {
        let head = |slots: &[u32], counts: &[usize]| Head::new(vec![1, 2], slots.to_vec(), counts);
        let parts = |head: &Head| head.parts().map(<[u32]>::to_vec).collect::<Vec<_>>();
        let first = head(&[4, 5, 9], &[2, 1]);
        // Cut elsewhere, as columns of other lengths are.
        let (mut same, mut other) = (head(&[4, 5, 9], &[1, 2]), head(&[4, 5, 8], &[2, 1]));
        let alone = same.bytes();
        same.share_slots(&first);
        other.share_slots(&first);
        assert_eq!((parts(&first), parts(&same)), (vec![vec![4, 5], vec![9]], vec![vec![4], vec![5, 9]]));
        assert_eq!(parts(&other), [vec![4, 5], vec![8]]);
        assert_eq!((same.bytes(), other.bytes()), (alone - 3 * size_of::<u32>(), alone));
    }

    #[test]
    fn one_column_is_found_where_it_lies_among_all() {
        let column = |slot, through, bytes| SealedColumn { slot, codec: POINTS, through, bytes: Cow::Borrowed(bytes) };
        let part = [column(4, OPEN, &b"one"[..]), column(5, 7, b""), column(9, OPEN, b"three")];
        let (piece, slots) = (part_piece(3, &part), [4, 5, 9]);
        let all = read_columns(&piece, 3, &slots).unwrap();
        assert_eq!(all.iter().map(|column| column.bytes).collect::<Vec<_>>(), [&b"one"[..], b"", b"three"]);
        for (slot, through, bytes) in [(4, OPEN, &b"one"[..]), (5, 7, b""), (9, OPEN, b"three")] {
            let found = read_wanted(&piece, 3, &slots, |wanted| wanted == slot).unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!((found[0].slot, found[0].through, found[0].bytes), (slot, through, bytes));
        }
        assert!(read_wanted(&piece[..piece.len() - 1], 3, &slots, |slot| slot == 4).is_none(), "it was cut");
        assert!(read_wanted(&piece, 2, &slots, |_| true).is_none(), "another group's");
    }
}
