//! What the log's records say. Names: group and slot are the store's own numbers, values are absolute.
//!
//! ```text
//! payload   u64 LE lsn, then by kind
//! 1 group   varint group, 16 bytes agent, u8 mode (0 delta, 1 stated), string name
//! 2 series  varint group, varint count, count x (varint slot, labels, meta): of data formats up to 5, and read
//!           labels  varint count, count x (string name, string value)
//!           meta    u8 0, or u8 1, varint type, string help, string unit
//! 3 batch   u8 0, or u8 1, 16 bytes agent, u64 epoch, u64 sequence; varint count, count x tick
//!           tick    varint group, signed timestamp, u8 flags (1 back-fill, 2 key), varint count, count x value
//!           value   varint zigzag(slot - slot before) << 2 | class
//!                   class 0 u64 LE bits; class 1 signed whole number; class 2 varint length, Histogram;
//!                   class 3 u8 what (0 integer, 1 integer below 0), u64 LE magnitude
//! 4 silence signed time, varint count, count x (varint group, signed last tick)
//! 5 forget  varint group, varint count, count x varint slot
//! 6 erase   varint group, signed first and last time that is deleted, the slots as a roaring bitmap (its portable form)
//! 7 names   series, as in names.rs
//! ```
//! The first tick of a run lies in the log as a key tick of all that is present, whatever its writer sent, so that a replay
//! that begins there needs nothing older. Kinds 1, 2 and 5 lie in the manifest too, in the same form.

use std::sync::Arc;

use lampad_proto::Number;
use lampad_proto::v1::{Histogram, MetricType};
use prost::Message as _;
use roaring::RoaringBitmap;

use super::bytes::{Few, Put, Reader, put_bytes, put_signed, put_varint, zigzag};
use super::erase::Erased;
use super::group::Mark;
use super::names;
use super::{
    AgentId, FrameId, GroupId, GroupKey, Label, Labels, Meta, Run, SeriesKey, Slot, TickBatch, Value, WriteMode,
};

pub(super) const GROUP: u8 = 1;
/// Nobody writes it any more.
const SERIES: u8 = 2;
pub(super) const BATCH: u8 = 3;
pub(super) const SILENCE: u8 = 4;
pub(super) const FORGET: u8 = 5;
pub(super) const ERASE: u8 = 6;
pub(super) const NAMES: u8 = 7;

/// Kinds are 1 to this.
pub(super) const KIND_MAX: u8 = NAMES;

const RAW: u64 = 0;
const WHOLE: u64 = 1;
const HISTOGRAM: u64 = 2;
const OTHER: u64 = 3;

const INTEGER: u8 = 0;
const NEGATIVE: u8 = 1;

const BACKFILL: u8 = 1;
const KEY: u8 = 2;

/// A record as it is read back.
#[derive(Debug)]
pub(super) enum Entry {
    Group { group: GroupId, key: GroupKey, mode: WriteMode },
    Series { group: GroupId, series: Vec<(Slot, SeriesKey)> },
    Batch { frame: Option<FrameId>, ticks: Vec<TickBatch> },
    Silence { marks: Vec<(GroupId, Mark)> },
    Forget { group: GroupId, slots: Vec<Slot> },
    Erase { group: GroupId, erased: Erased },
}

pub(super) fn put_group(out: &mut Vec<u8>, group: GroupId, key: &GroupKey, mode: WriteMode) {
    put_varint(out, u64::from(group.0));
    out.extend_from_slice(&key.agent.0);
    out.push(u8::from(mode == WriteMode::Stated));
    put_bytes(out, key.name.as_bytes());
}

pub(super) fn put_batch_head(out: &mut Vec<u8>, frame: Option<&FrameId>, ticks: usize) {
    out.push(u8::from(frame.is_some()));
    if let Some(frame) = frame {
        out.extend_from_slice(&frame.agent.0);
        out.extend_from_slice(&frame.epoch.to_le_bytes());
        out.extend_from_slice(&frame.sequence.to_le_bytes());
    }
    put_varint(out, ticks as u64);
}

pub(super) fn put_tick_head(out: &mut Vec<u8>, tick: &TickBatch, key: bool, values: usize) {
    put_varint(out, u64::from(tick.group.0));
    put_signed(out, tick.timestamp_ms);
    out.push(if tick.run == Run::Backfill { BACKFILL } else { 0 } | if key { KEY } else { 0 });
    put_varint(out, values as u64);
}

/// `before` is the slot of the value before, 0 at first.
#[inline]
fn put_value(out: &mut Vec<u8>, before: u32, slot: u32, value: &Value) {
    let gap = i64::from(slot) - i64::from(before);
    let gap = (((gap << 1) ^ (gap >> 63)) as u64) << 2;
    match value {
        Value::Float(value) => {
            let whole = *value as i64;
            let few = if (whole as f64).to_bits() == value.to_bits() {
                Few::of_two(gap | WHOLE, zigzag(whole))
            } else {
                let mut few = Few::default();
                put_varint(&mut few, gap | RAW);
                few.put_u64(value.to_bits());
                few
            };
            out.put_few(&few);
        }
        Value::Integer(value) => {
            put_varint(out, gap | OTHER);
            out.push(if value.is_negative() { NEGATIVE } else { INTEGER });
            out.extend_from_slice(&value.magnitude().to_le_bytes());
        }
        Value::Histogram(histogram) => {
            put_varint(out, gap | HISTOGRAM);
            put_bytes(out, &histogram.encode_to_vec());
        }
    }
}

/// Values ascending by slot.
pub(super) fn put_values<'a>(out: &mut Vec<u8>, values: impl Iterator<Item = (u32, &'a Value)>) {
    let mut before = 0;
    for (slot, value) in values {
        put_value(out, before, slot, value);
        before = slot;
    }
}

pub(super) fn put_silence(out: &mut Vec<u8>, at_ms: i64, groups: &[(GroupId, i64)]) {
    put_signed(out, at_ms);
    put_varint(out, groups.len() as u64);
    for (group, after_ms) in groups {
        put_varint(out, u64::from(group.0));
        put_signed(out, *after_ms);
    }
}

pub(super) fn put_forget(out: &mut Vec<u8>, group: GroupId, slots: &[u32]) {
    put_varint(out, u64::from(group.0));
    put_varint(out, slots.len() as u64);
    slots.iter().for_each(|slot| put_varint(out, u64::from(*slot)));
}

pub(super) fn put_erase(out: &mut Vec<u8>, group: GroupId, erased: &Erased) {
    put_varint(out, u64::from(group.0));
    put_signed(out, erased.from_ms);
    put_signed(out, erased.to_ms);
    // Writing to a vector cannot fail.
    let _ = erased.slots.serialize_into(out);
}

/// Reads the payload behind its LSN.
pub(super) fn read(kind: u8, reader: &mut Reader<'_>) -> Option<Entry> {
    match kind {
        GROUP => read_group(reader),
        SERIES => {
            let group = GroupId(reader.varint32()?);
            let mut series: Vec<(Slot, SeriesKey)> = Vec::new();
            for _ in 0..reader.count()? {
                series.push(read_series(reader, series.last())?);
            }
            Some(Entry::Series { group, series })
        }
        BATCH => read_batch(reader),
        SILENCE => {
            let at_ms = reader.signed()?;
            let count = reader.count()?;
            let mut mark = || Some((GroupId(reader.varint32()?), Mark { after_ms: reader.signed()?, at_ms }));
            let marks = (0..count).map(|_| mark()).collect::<Option<_>>()?;
            Some(Entry::Silence { marks })
        }
        FORGET => {
            let group = GroupId(reader.varint32()?);
            let slots = (0..reader.count()?).map(|_| reader.varint32().map(Slot)).collect::<Option<_>>()?;
            Some(Entry::Forget { group, slots })
        }
        ERASE => {
            let group = GroupId(reader.varint32()?);
            let (from_ms, to_ms) = (reader.signed()?, reader.signed()?);
            let slots = RoaringBitmap::deserialize_from(reader.0).ok()?;
            Some(Entry::Erase { group, erased: Erased { slots, from_ms, to_ms } })
        }
        NAMES => names::read(reader),
        _ => None,
    }
}

fn read_group(reader: &mut Reader<'_>) -> Option<Entry> {
    let group = GroupId(reader.varint32()?);
    let agent = AgentId(reader.id()?);
    let mode = match reader.u8()? {
        0 => WriteMode::Delta,
        1 => WriteMode::Stated,
        _ => return None,
    };
    Some(Entry::Group { group, key: GroupKey { agent, name: reader.str()?.into() }, mode })
}

/// `before` is the series before: what both have in common is kept once.
fn read_series(reader: &mut Reader<'_>, before: Option<&(Slot, SeriesKey)>) -> Option<(Slot, SeriesKey)> {
    let slot = Slot(reader.varint32()?);
    let mut predecessors = before.iter().flat_map(|(_, key)| key.labels.iter());
    let mut labels = Vec::new();
    for _ in 0..reader.count()? {
        let (name, value) = (reader.str()?, reader.str()?);
        labels.push(Label::like(predecessors.next(), name, value));
    }
    let labels = Labels::new(labels);
    let meta = match reader.u8()? {
        0 => None,
        _ => Some(read_meta(reader, before.and_then(|(_, key)| key.meta.as_ref()))?),
    };
    Some((slot, SeriesKey { labels, meta }))
}

fn read_meta(reader: &mut Reader<'_>, before: Option<&Meta>) -> Option<Meta> {
    let kind = MetricType::try_from(i32::try_from(reader.varint()?).ok()?).unwrap_or(MetricType::Unknown);
    let (help, unit) = (reader.str()?, reader.str()?);
    match before {
        Some(same) if same.kind == kind && *same.help == *help && *same.unit == *unit => Some(same.clone()),
        _ => Some(Meta { kind, help: help.into(), unit: unit.into() }),
    }
}

fn read_batch(reader: &mut Reader<'_>) -> Option<Entry> {
    let frame = match reader.u8()? {
        0 => None,
        _ => Some(FrameId { agent: AgentId(reader.id()?), epoch: reader.u64()?, sequence: reader.u64()? }),
    };
    let ticks = (0..reader.count()?).map(|_| read_tick(reader)).collect::<Option<_>>()?;
    Some(Entry::Batch { frame, ticks })
}

fn read_tick(reader: &mut Reader<'_>) -> Option<TickBatch> {
    let group = GroupId(reader.varint32()?);
    let timestamp_ms = reader.signed()?;
    let flags = reader.u8()?;
    let count = reader.count()?;
    let values = read_values(reader, count)?;
    let run = if flags & BACKFILL != 0 { Run::Backfill } else { Run::Live };
    Some(TickBatch { group, timestamp_ms, run, key: flags & KEY != 0, values })
}

pub(super) fn read_values(reader: &mut Reader<'_>, count: usize) -> Option<Vec<(Slot, Value)>> {
    let mut values = Vec::with_capacity(count);
    let mut slot = 0;
    for _ in 0..count {
        let head = reader.varint()?;
        let gap = (head >> 3) as i64 ^ -((head >> 2 & 1) as i64);
        slot = u32::try_from(i64::from(slot).checked_add(gap)?).ok()?;
        let value = match head & 3 {
            RAW => Value::Float(f64::from_bits(reader.u64()?)),
            WHOLE => Value::Float(reader.signed()? as f64),
            HISTOGRAM => Value::Histogram(Arc::new(Histogram::decode(reader.bytes()?).ok()?)),
            _ => {
                let negative = match reader.u8()? {
                    INTEGER => false,
                    NEGATIVE => true,
                    _ => return None,
                };
                Number::whole(reader.u64()?, negative).into()
            }
        };
        values.push((Slot(slot), value));
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a log of data format 5 may hold at the first start of a newer build.
    #[test]
    fn series_with_their_whole_names_are_read() {
        let mut record = vec![7, 2];
        for (slot, host) in [(0, "a"), (3, "b")] {
            record.extend([slot, 2]);
            for text in ["__name__", "up", "host", host] {
                put_bytes(&mut record, text.as_bytes());
            }
            record.extend([1, MetricType::Gauge as u8]);
            put_bytes(&mut record, b"Whether it is there.");
            put_bytes(&mut record, b"");
        }
        let Some(Entry::Series { group, series }) = read(SERIES, &mut Reader(&record)) else { panic!("not read") };
        let read: Vec<_> = series.iter().map(|(slot, key)| (slot.0, key.labels.to_string())).collect();
        assert_eq!(group, GroupId(7));
        assert_eq!(read, [(0, r#"up{host="a"}"#.to_owned()), (3, r#"up{host="b"}"#.to_owned())]);
        let meta = Meta { kind: MetricType::Gauge, help: "Whether it is there.".into(), unit: "".into() };
        assert!(series.iter().all(|(_, key)| key.meta.as_ref() == Some(&meta)));
    }
}
