//! The series that are known: their labels, where their samples lie, and what is known of their families.
//!
//! The same labels may lie in several groups, for example of an agent and of the one that took its place.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::ops::Deref;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::postings::Postings;
use super::{GroupId, Label, Labels, METRIC_NAME, Meta, Slot};

type Place = (GroupId, Slot);

/// Of an array of labels beside the labels: its counters, and what the allocator adds.
const ARRAY_BYTES: usize = 24;

#[derive(Debug)]
pub(super) struct Entry {
    pub labels: Labels,
    pub places: Places,
}

/// Where the samples of a series lie: mostly in one place, which then takes no memory of its own.
#[derive(Debug, Clone)]
pub(super) enum Places {
    One([Place; 1]),
    More(Box<[Place]>),
}

impl Deref for Places {
    type Target = [Place];

    fn deref(&self) -> &[Place] {
        match self {
            Self::One(place) => place,
            Self::More(places) => places,
        }
    }
}

impl Places {
    fn add(&mut self, place: Place) {
        match self {
            Self::One([first]) => *self = Self::More([*first, place].into()),
            Self::More(places) => *self = Self::More(places.iter().copied().chain([place]).collect()),
        }
    }

    /// `None` when nothing is left.
    fn without(&self, place: Place) -> Option<Self> {
        let left: Vec<Place> = self.iter().filter(|there| **there != place).copied().collect();
        match left[..] {
            [] => None,
            [last] => Some(Self::One([last])),
            _ => Some(Self::More(left.into())),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Index {
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    /// Numbers of the series by the hash of their labels, which are in `entries` and not here again.
    by_labels: HashTable<u32>,
    hasher: RandomState,
    /// Labels of all series.
    labels: usize,
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

    /// Memory that it takes, about.
    pub fn bytes(&self) -> usize {
        let lists = self.entries.capacity() * size_of::<Option<Entry>>() + self.free.capacity() * size_of::<u32>();
        let labels = self.len() * ARRAY_BYTES + self.labels * size_of::<Label>();
        lists + labels + self.by_labels.allocation_size() + self.postings.bytes()
    }

    fn find(&self, labels: &Labels) -> Option<u32> {
        let same = |series: &u32| self.get(*series).is_some_and(|entry| entry.labels == *labels);
        self.by_labels.find(self.hasher.hash_one(labels), same).copied()
    }

    /// The slot of these labels in a group.
    pub fn slot(&self, labels: &Labels, group: GroupId) -> Option<Slot> {
        let entry = self.get(self.find(labels)?)?;
        entry.places.iter().find(|(placed, _)| *placed == group).map(|(_, slot)| *slot)
    }

    pub fn place(&mut self, labels: &Labels, group: GroupId, slot: Slot) -> u32 {
        if let Some(series) = self.find(labels)
            && let Some(entry) = self.entries[series as usize].as_mut()
        {
            entry.places.add((group, slot));
            return series;
        }
        let series = self.free.pop().unwrap_or(self.entries.len() as u32);
        if series as usize == self.entries.len() {
            self.entries.push(None);
        }
        let labels = self.postings.add(series, labels);
        self.labels += labels.len();
        let hash = self.hasher.hash_one(&labels);
        self.entries[series as usize] = Some(Entry { labels, places: Places::One([(group, slot)]) });
        let Self { entries, hasher, by_labels, .. } = self;
        by_labels.insert_unique(hash, series, |series| {
            entries[*series as usize].as_ref().map_or(0, |entry| hasher.hash_one(&entry.labels))
        });
        series
    }

    /// Forgets one place; the series goes with its last one.
    pub fn displace(&mut self, series: u32, group: GroupId, slot: Slot) {
        let Some(Some(entry)) = self.entries.get_mut(series as usize) else { return };
        if let Some(places) = entry.places.without((group, slot)) {
            entry.places = places;
            return;
        }
        let hash = self.hasher.hash_one(&entry.labels);
        if let Ok(found) = self.by_labels.find_entry(hash, |known| *known == series) {
            found.remove();
        }
        if let Some(entry) = self.entries[series as usize].take() {
            self.labels -= entry.labels.len();
            self.postings.remove(series, &entry.labels);
            self.free.push(series);
            if let Some(metric) = entry.labels.metric()
                && !self.postings.has(METRIC_NAME, metric)
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
        let per_series = |series: u32| {
            let mut index = Index::default();
            (0..series).for_each(|at| {
                index.place(&labels("m", &format!("db{}", at % 10)), GroupId(at), Slot(0));
                index.place(&labels(&format!("m{at}"), "db1"), GroupId(0), Slot(at));
            });
            (index.bytes() / index.len(), index.len())
        };
        let (bytes, series) = per_series(10_000);
        assert!(series == 10_010 && (100..400).contains(&bytes), "{bytes} bytes for each of {series}");
    }
}
