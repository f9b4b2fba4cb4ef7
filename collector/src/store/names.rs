//! Series definitions as log and manifest keep them: each says only what differs from the one before it.
//!
//! ```text
//! record  varint group, varint count, count x series
//! series  signed slot, less the slot before and 1; varint labels; labels x label; meta
//! label   string name, string value: less the name and value at the same place of the series before
//! meta    u8 0 none; 1 the last one that was said in this record; 2 varint type, string help, string unit
//! string  varint bytes in common with its predecessor at the front, varint length of the rest, the rest
//! ```
//! Neighbours differ in a word or two: some fifteen bytes each, where names, labels and help texts have a hundred and more.

use std::sync::Arc;

use lampad_proto::v1::MetricType;

use super::bytes::{Reader, put_bytes, put_signed, put_varint};
use super::entry::Entry;
use super::{GroupId, Label, Labels, Meta, SeriesKey, Slot};

/// Longest text that is put together on reading; a damaged record could ask for any.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// The series of one record, put one after another.
#[derive(Debug)]
pub(super) struct Names<'a> {
    bytes: Vec<u8>,
    count: u64,
    /// Slot of the series before, -1 at first.
    before: i64,
    labels: Option<&'a Labels>,
    meta: Option<&'a Meta>,
}

impl<'a> Names<'a> {
    pub fn new() -> Self {
        Self { bytes: Vec::new(), count: 0, before: -1, labels: None, meta: None }
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn put(&mut self, slot: Slot, labels: &'a Labels, meta: Option<&'a Meta>) {
        let out = &mut self.bytes;
        self.count += 1;
        put_signed(out, i64::from(slot.0) - self.before - 1);
        self.before = i64::from(slot.0);
        put_varint(out, labels.len() as u64);
        let mut predecessors = self.labels.replace(labels).into_iter().flat_map(Labels::iter);
        for label in labels.iter() {
            let before = predecessors.next();
            put_text(out, before.map(|before| &before.name), &label.name);
            put_text(out, before.map(|before| &before.value), &label.value);
        }
        match meta {
            None => out.push(0),
            same if same == self.meta => out.push(1),
            Some(new) => {
                out.push(2);
                put_varint(out, new.kind as u64);
                put_bytes(out, new.help.as_bytes());
                put_bytes(out, new.unit.as_bytes());
                self.meta = Some(new);
            }
        }
    }

    /// The record; `None` where nothing was put.
    pub fn record(self, group: GroupId) -> Option<Vec<u8>> {
        let mut record = Vec::with_capacity(self.bytes.len() + 10);
        put_varint(&mut record, u64::from(group.0));
        put_varint(&mut record, self.count);
        record.extend_from_slice(&self.bytes);
        (self.count > 0).then_some(record)
    }
}

fn put_text(out: &mut Vec<u8>, before: Option<&Arc<str>>, text: &Arc<str>) {
    let common = match before {
        None => 0,
        // Texts are kept once, so mostly this is all that is looked at.
        Some(before) if Arc::ptr_eq(before, text) => text.len(),
        Some(before) => {
            let common = before.bytes().zip(text.bytes()).take_while(|(a, b)| a == b).count();
            // Not within a letter, so that the rest is text too.
            (0..=common).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
        }
    };
    put_varint(out, common as u64);
    put_bytes(out, &text.as_bytes()[common..]);
}

pub(super) fn read(reader: &mut Reader<'_>) -> Option<Entry> {
    let group = GroupId(reader.varint32()?);
    let mut series = Vec::new();
    let mut before = -1;
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut meta: Option<Meta> = None;
    for _ in 0..reader.count()? {
        before = reader.signed()?.checked_add(before)?.checked_add(1)?;
        let count = reader.count()?;
        pairs.resize_with(count, Default::default);
        for (name, value) in &mut pairs {
            read_text(reader, name)?;
            read_text(reader, value)?;
        }
        let mut predecessors = series.last().into_iter().flat_map(|(_, key): &(Slot, SeriesKey)| key.labels.iter());
        let labels = pairs.iter().map(|(name, value)| Label::like(predecessors.next(), name, value));
        let labels = Labels::new(labels.collect::<Vec<_>>());
        let of_series = match reader.u8()? {
            0 => None,
            1 => Some(meta.clone()?),
            2 => {
                let kind = MetricType::try_from(i32::try_from(reader.varint()?).ok()?).unwrap_or(MetricType::Unknown);
                meta = Some(Meta { kind, help: reader.str()?.into(), unit: reader.str()?.into() });
                meta.clone()
            }
            _ => return None,
        };
        series.push((Slot(u32::try_from(before).ok()?), SeriesKey { labels, meta: of_series }));
    }
    Some(Entry::Series { group, series })
}

/// Makes of the predecessor what follows it.
fn read_text(reader: &mut Reader<'_>, text: &mut String) -> Option<()> {
    let common = usize::try_from(reader.varint()?).ok()?;
    if common > text.len() || !text.is_char_boundary(common) {
        return None;
    }
    text.truncate(common);
    text.push_str(reader.str()?);
    (text.len() <= TEXT_BYTES_MAX).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn series() -> impl Strategy<Value = (Slot, SeriesKey)> {
        let labels = prop::collection::vec(("[a-dä]{1,4}", "[a-cß]{1,5}"), 0..4);
        let meta = prop::option::of((0i32..4, "[ab]{0,2}"));
        (0u32..50, labels, meta).prop_map(|(slot, labels, meta)| {
            let labels = Labels::from_pairs(labels.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            let meta = meta.map(|(kind, help)| Meta {
                kind: MetricType::try_from(kind).unwrap(),
                help: help.as_str().into(),
                unit: "s".into(),
            });
            (Slot(slot), SeriesKey { labels, meta })
        })
    }

    proptest! {
        #[test]
        fn definitions_come_back(wanted in prop::collection::vec(series(), 0..30), group: u32) {
            let mut names = Names::new();
            wanted.iter().for_each(|(slot, key)| names.put(*slot, &key.labels, key.meta.as_ref()));
            let Some(out) = names.record(GroupId(group)) else { return Ok(()) };
            let Some(Entry::Series { group: found, series }) = read(&mut Reader(&out)) else { panic!("not read") };
            prop_assert_eq!(found, GroupId(group));
            let parts = |all: &[(Slot, SeriesKey)]| -> Vec<_> {
                all.iter().map(|(slot, key)| (*slot, key.labels.clone(), key.meta.clone())).collect()
            };
            prop_assert_eq!(parts(&series), parts(&wanted));
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            read(&mut Reader(&bytes));
        }
    }
}
