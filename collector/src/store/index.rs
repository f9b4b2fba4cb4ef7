//! The series that are known: their labels, where their samples lie, and what is known of their families.
//!
//! The same labels may lie in several groups, for example of an agent and of the one that took its place.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::postings::Postings;
use super::{GroupId, Label, Labels, METRIC_NAME, Meta, Slot};

#[derive(Debug)]
pub(super) struct Entry {
    pub labels: Labels,
    /// Mostly one.
    pub places: Vec<(GroupId, Slot)>,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    by_labels: HashMap<Labels, u32>,
    pub postings: Postings,
    pub meta: BTreeMap<Arc<str>, Meta>,
}

impl Index {
    pub fn len(&self) -> usize {
        self.by_labels.len()
    }

    pub fn get(&self, series: u32) -> Option<&Entry> {
        self.entries.get(series as usize)?.as_ref()
    }

    /// The slot of these labels in a group.
    pub fn slot(&self, labels: &Labels, group: GroupId) -> Option<Slot> {
        let entry = self.get(*self.by_labels.get(labels)?)?;
        entry.places.iter().find(|(placed, _)| *placed == group).map(|(_, slot)| *slot)
    }

    pub fn place(&mut self, labels: &Labels, group: GroupId, slot: Slot) -> u32 {
        if let Some(series) = self.by_labels.get(labels).copied()
            && let Some(entry) = self.entries[series as usize].as_mut()
        {
            entry.places.push((group, slot));
            return series;
        }
        let labels = self.intern(labels);
        let series = self.free.pop().unwrap_or(self.entries.len() as u32);
        if series as usize == self.entries.len() {
            self.entries.push(None);
        }
        self.postings.add(series, &labels);
        self.by_labels.insert(labels.clone(), series);
        self.entries[series as usize] = Some(Entry { labels, places: vec![(group, slot)] });
        series
    }

    /// Forgets one place; the series goes with its last one.
    pub fn displace(&mut self, series: u32, group: GroupId, slot: Slot) {
        let Some(Some(entry)) = self.entries.get_mut(series as usize) else { return };
        entry.places.retain(|place| *place != (group, slot));
        if !entry.places.is_empty() {
            return;
        }
        if let Some(entry) = self.entries[series as usize].take() {
            self.postings.remove(series, &entry.labels);
            self.by_labels.remove(&entry.labels);
            self.free.push(series);
            if let Some(metric) = entry.labels.metric()
                && self.postings.symbols(METRIC_NAME, metric).1.is_none()
            {
                self.meta.remove(metric);
            }
        }
    }

    pub fn describe(&mut self, labels: &Labels, meta: &Meta) {
        let Some(metric) = labels.metric() else { return };
        if self.meta.get(metric) != Some(meta) {
            self.meta.insert(metric.clone(), meta.clone());
        }
    }

    /// The same labels, sharing their strings with those that are known.
    fn intern(&self, labels: &Labels) -> Labels {
        Labels::new(labels.iter().map(|label| {
            let (name, value) = self.postings.symbols(&label.name, &label.value);
            Label {
                name: name.unwrap_or_else(|| label.name.clone()),
                value: value.unwrap_or_else(|| label.value.clone()),
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{MatchOp, Matcher};

    #[test]
    fn postings_symbols_and_metadata_go_with_their_last_series() {
        let mut index = Index::default();
        let labels = |metric: &str, host: &str| Labels::from_pairs([(METRIC_NAME, metric), ("host", host)]);
        let regex = MatchOp::Match(regex::Regex::new("^(?:db.*)$").unwrap());
        let any = Matcher { name: "host".into(), op: regex, value: "db.*".into() };
        let meta = Meta { kind: lampad_proto::v1::MetricType::Gauge, help: "help".into(), unit: "".into() };
        for slot in 0..100 {
            let labels = labels("m", &format!("db{slot}"));
            index.describe(&labels, &meta);
            index.place(&labels, GroupId(0), Slot(slot));
        }
        index.place(&labels("m", "db0"), GroupId(1), Slot(0));
        let host: std::sync::Weak<str> = Arc::downgrade(index.postings.values("host").next().unwrap().0);
        assert_eq!(index.postings.all_of(std::slice::from_ref(&any)).len(), 100);
        for slot in 0..100 {
            index.displace(slot, GroupId(0), Slot(slot));
        }
        assert_eq!((index.len(), index.postings.values("host").count()), (1, 1), "db0 has another place");
        index.displace(0, GroupId(1), Slot(0));
        assert!(index.postings.names().next().is_none() && index.postings.all_of(&[]).is_empty());
        assert!(index.meta.is_empty());
        assert!(host.upgrade().is_none(), "the label's text is gone, from what regexes have matched too");
        assert_eq!(index.place(&labels("m", "db7"), GroupId(0), Slot(200)), 0, "numbers are given out again");
        assert_eq!(index.entries.len(), 100);
    }
}
