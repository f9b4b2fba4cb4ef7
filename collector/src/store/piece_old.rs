//! Pieces as data formats 1 and 2 had them; read only.
//!
//! ```text
//! 1 head   varint group, varint count of ticks, signed first tick, signed first step, signed change of step each
//!          varint count of parts, per part: varint count of columns, signed slot difference each (the first from 0)
//! 3 head   varint group, ticks as in ticks.rs, parts as in 1
//! 2 part   varint group, varint count, per column: signed slot difference, u8 codec, varint through, varint length;
//!          then the columns' bytes one after another
//! ```

use super::bytes::Reader;
use super::piece::{Head, Place};
use super::ticks::read_ticks;

const PLAIN_HEAD: u8 = 1;
pub(super) const PART: u8 = 2;
const HEAD: u8 = 3;

/// What follows a head's group.
pub(super) fn read_head(kind: u8, reader: &mut Reader<'_>) -> Option<Head> {
    let ticks = match kind {
        PLAIN_HEAD => read_plain_ticks(reader)?,
        HEAD => read_ticks(reader)?,
        _ => return None,
    };
    let (mut slots, mut counts) = (Vec::new(), Vec::new());
    for _ in 0..reader.count()? {
        let mut slot = 0;
        let count = reader.count()?;
        for _ in 0..count {
            slots.push(read_slot(reader, &mut slot)?);
        }
        counts.push(count);
    }
    Some(Head::new(ticks, slots, &counts))
}

fn read_plain_ticks(reader: &mut Reader<'_>) -> Option<Vec<i64>> {
    let count = reader.count()?;
    let mut ticks = Vec::with_capacity(count);
    let (mut before, mut step) = (0i64, 0i64);
    for _ in 0..count {
        let next = reader.signed()?.wrapping_add(step);
        let tick = before.wrapping_add(next);
        ticks.push(tick);
        (before, step) = (tick, if before == 0 && step == 0 { 0 } else { next });
    }
    ticks.is_sorted().then_some(ticks)
}

/// What follows a part's group.
pub(super) fn read_directory(reader: &mut Reader<'_>) -> Option<Vec<Place>> {
    let mut slot = 0;
    let count = reader.count()?;
    let column = |_| {
        let slot = read_slot(reader, &mut slot)?;
        let (codec, through) = (reader.u8()?, reader.varint32()?);
        Some(Place { slot, codec, through, length: usize::try_from(reader.varint()?).ok()? })
    };
    (0..count).map(column).collect()
}

fn read_slot(reader: &mut Reader<'_>, slot: &mut i64) -> Option<u32> {
    *slot = slot.checked_add(reader.signed()?)?;
    u32::try_from(*slot).ok()
}

#[cfg(test)]
mod tests {
    use super::super::bytes::{put_signed, put_varint};
    use super::super::column::Samples;
    use super::super::piece::{self, POINTS};
    use super::super::run::Run;
    use super::super::{Slot, Value};

    /// As format 1 wrote it.
    fn head(run: &Run) -> Vec<u8> {
        let mut out = vec![super::PLAIN_HEAD, 3];
        put_varint(&mut out, run.ticks.len() as u64);
        let (mut before, mut step) = (0i64, 0i64);
        for tick in &*run.ticks.list() {
            let next = tick - before;
            put_signed(&mut out, next - step);
            (before, step) = (*tick, if before == 0 && step == 0 { 0 } else { next });
        }
        put_varint(&mut out, 1);
        put_varint(&mut out, run.slots.len() as u64);
        let mut before = 0;
        for slot in &run.slots {
            put_signed(&mut out, i64::from(slot - std::mem::replace(&mut before, *slot)));
        }
        out
    }

    fn part(run: &Run) -> Vec<u8> {
        let mut out = vec![super::PART, 3];
        put_varint(&mut out, run.slots.len() as u64);
        let mut before = 0;
        for (at, slot) in run.slots.iter().enumerate() {
            put_signed(&mut out, i64::from(slot - std::mem::replace(&mut before, *slot)));
            out.push(POINTS);
            put_varint(&mut out, u64::from(run.columns[at].pen.through));
            put_varint(&mut out, run.columns[at].chain.len() as u64);
        }
        (0..run.slots.len()).for_each(|at| out.extend_from_slice(&run.column_bytes(at)));
        out
    }

    #[test]
    fn what_format_1_sealed_is_read() {
        let mut run = Run::new();
        for (at, timestamp_ms) in [1_700_000_000_000, 1_700_000_001_000, 1_700_000_002_003].into_iter().enumerate() {
            let values: Vec<_> = [0, 2, 4].map(|slot| (Slot(slot), Value::Float(slot as f64 / 4.0 + at as f64))).into();
            run.delta_tick(timestamp_ms, at == 0, &values);
        }
        let head = piece::read_head(&head(&run), 3).unwrap();
        let parts: Vec<&[u32]> = head.parts().collect();
        let ticks = head.ticks.list();
        assert_eq!((&*ticks, &*parts), (&*run.ticks.list(), &[&[0, 2, 4][..]][..]));
        let mut seen = Vec::new();
        let read = piece::read_part(&part(&run), 3, parts[0], &ticks, (i64::MIN, i64::MAX), |slot, read| {
            let (mut found, mut wanted) = (Samples::default(), Samples::default());
            assert!(read(&mut found) && run.expand(slot, i64::MIN, i64::MAX, &mut wanted));
            assert_eq!(found.floats, wanted.floats);
            seen.push(slot);
            true
        });
        assert_eq!((read, seen), (Some(()), vec![0, 2, 4]));
    }
}
