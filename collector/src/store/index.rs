//! The series that are known: their labels, where their samples lie, and what is known of their families.
//!
//! The same labels may lie in several groups, for example of an agent and of the one that took its place.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::postings::Postings;
use super::tuples::{Tuple, Tuples, make_room};
use super::{GroupId, Label, Labels, METRIC_NAME, Meta, Slot};

type Place = (GroupId, Slot);

/// There is one per series, so every byte counts.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Numbers of the labels, sorted by their names.
    labels: Tuple,
    /// Where its samples lie; further places are in [`Index::more_places`].
    place: Place,
    /// Of the labels' hash: a table that grows need not read all labels again.
    hash: u32,
}

/// The answer of [`Index::look_up`].
#[derive(Debug, Clone, Copy)]
pub(super) struct LookedUp {
    hash: u32,
    series: Option<u32>,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    /// Numbers of the series by the hash of their labels, which are in `entries` and not here again.
    by_labels: HashTable<u32>,
    hasher: RandomState,
    labels: Tuples,
    more_places: HashMap<u32, Vec<Place>>,
    pub postings: Postings,
    pub meta: BTreeMap<Arc<str>, Meta>,
}

/// A table's hash of the 32 bits that are kept.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl Index {
    pub fn len(&self) -> usize {
        self.by_labels.len()
    }

    fn get(&self, series: u32) -> Option<&Entry> {
        self.entries.get(series as usize)?.as_ref()
    }

    fn labels_of(&self, entry: &Entry) -> impl Iterator<Item = &Label> {
        self.labels.get(entry.labels).iter().filter_map(|number| self.postings.label(*number))
    }

    /// The labels of a series, put together.
    pub fn labels(&self, series: u32) -> Option<Labels> {
        let entry = self.get(series)?;
        Some(Labels::sorted(self.labels_of(entry).cloned().collect()))
    }

    /// Numbers of the labels of a series, sorted by their names.
    pub fn label_numbers(&self, series: u32) -> &[u32] {
        self.get(series).map_or(&[], |entry| self.labels.get(entry.labels))
    }

    /// The value of one label of a series.
    pub fn label(&self, series: u32, name: &str) -> Option<&Arc<str>> {
        self.labels_of(self.get(series)?).find(|label| &*label.name == name).map(|label| &label.value)
    }

    /// Where the samples of a series lie.
    pub fn places(&self, series: u32) -> impl Iterator<Item = Place> {
        let first = self.get(series).map(|entry| entry.place);
        let more = self.more_places.get(&series).into_iter().flatten().copied();
        first.into_iter().chain(more)
    }

    /// Orders series by their labels.
    pub fn compare(&self, a: u32, b: u32) -> Ordering {
        let (a, b) = (self.label_numbers(a), self.label_numbers(b));
        match a.iter().zip(b).find(|(a, b)| a != b) {
            Some((a, b)) => self.postings.label(*a).cmp(&self.postings.label(*b)),
            None => a.len().cmp(&b.len()),
        }
    }

    /// Memory that it takes, about.
    pub fn bytes(&self) -> usize {
        let lists = self.entries.capacity() * size_of::<Option<Entry>>() + self.free.capacity() * size_of::<u32>();
        // A place in a list of its own, in a table.
        let more = self.more_places.len() * 64;
        lists + more + self.labels.bytes() + self.by_labels.allocation_size() + self.postings.bytes()
    }

    fn hash(&self, labels: &Labels) -> u32 {
        self.hasher.hash_one(labels) as u32
    }

    fn find(&self, labels: &Labels, hash: u32) -> Option<u32> {
        let same = |series: &u32| {
            let entry = self.get(*series).filter(|entry| entry.hash == hash);
            entry.is_some_and(|entry| self.labels_of(entry).eq(labels.iter()))
        };
        self.by_labels.find(spread(hash), same).copied()
    }

    /// What is known of these labels, for [`Self::add`].
    pub fn look_up(&self, labels: &Labels) -> LookedUp {
        let hash = self.hash(labels);
        LookedUp { hash, series: self.find(labels, hash) }
    }

    /// The slot of what was looked up in a group.
    pub fn slot(&self, found: LookedUp, group: GroupId) -> Option<Slot> {
        self.places(found.series?).find(|(placed, _)| *placed == group).map(|(_, slot)| slot)
    }

    pub fn place(&mut self, labels: &Labels, group: GroupId, slot: Slot) -> u32 {
        let found = self.look_up(labels);
        self.add(found, labels, group, slot)
    }

    /// Adds a place to what was looked up just before.
    pub fn add(&mut self, found: LookedUp, labels: &Labels, group: GroupId, slot: Slot) -> u32 {
        let LookedUp { hash, series } = found;
        if let Some(series) = series {
            self.more_places.entry(series).or_default().push((group, slot));
            return series;
        }
        let series = self.free.pop().unwrap_or(self.entries.len() as u32);
        if series as usize == self.entries.len() {
            make_room(&mut self.entries, 1);
            self.entries.push(None);
        }
        let labels = self.labels.add(&self.postings.add(series, labels));
        self.entries[series as usize] = Some(Entry { labels, place: (group, slot), hash });
        let entries = &self.entries;
        self.by_labels.insert_unique(spread(hash), series, |series| {
            entries[*series as usize].as_ref().map_or(0, |entry| spread(entry.hash))
        });
        series
    }

    /// Forgets one place; the series goes with its last one.
    pub fn displace(&mut self, series: u32, group: GroupId, slot: Slot) {
        let Some(Some(entry)) = self.entries.get_mut(series as usize) else { return };
        let mut left = self.more_places.remove(&series).unwrap_or_default();
        left.insert(0, entry.place);
        left.retain(|place| *place != (group, slot));
        if !left.is_empty() {
            entry.place = left.remove(0);
            if !left.is_empty() {
                self.more_places.insert(series, left);
            }
            return;
        }
        let entry = *entry;
        self.entries[series as usize] = None;
        if let Ok(found) = self.by_labels.find_entry(spread(entry.hash), |known| *known == series) {
            found.remove();
        }
        let numbers = self.labels.get(entry.labels).to_vec();
        self.labels.remove(entry.labels);
        let of_metric = |number: &u32| self.postings.label(*number).filter(|label| &*label.name == METRIC_NAME);
        let metric = numbers.iter().find_map(of_metric).map(|label| label.value.clone());
        self.postings.remove(series, &numbers);
        self.free.push(series);
        if let Some(metric) = metric
            && !self.postings.has(METRIC_NAME, &metric)
        {
            self.meta.remove(&metric);
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
        assert_eq!(index.postings.all_of(std::slice::from_ref(&any), &Default::default()).len(), 100);
        for slot in 0..100 {
            index.displace(slot, GroupId(0), Slot(slot));
        }
        assert_eq!((index.len(), index.postings.values("host").count()), (1, 1), "db0 has another place");
        index.displace(0, GroupId(1), Slot(0));
        assert!(index.postings.names().next().is_none() && index.postings.all_of(&[], &Default::default()).is_empty());
        assert!(index.meta.is_empty());
        assert!(host.upgrade().is_none(), "the label's text is gone, from what regexes have matched too");
        assert_eq!(index.place(&labels("m", "db7"), GroupId(0), Slot(200)), 0, "numbers are given out again");
        assert_eq!(index.entries.len(), 100);
        assert_eq!(index.labels(0), Some(labels("m", "db7")));
        let per_series = |series: u32| {
            let mut index = Index::default();
            (0..series).for_each(|at| {
                index.place(&labels("m", &format!("db{}", at % 10)), GroupId(at), Slot(0));
                index.place(&labels(&format!("m{at}"), "db1"), GroupId(0), Slot(at));
            });
            (index.bytes() / index.len(), index.len())
        };
        let (bytes, series) = per_series(10_000);
        assert!(series == 10_010 && (60..300).contains(&bytes), "{bytes} bytes for each of {series}");
    }
    #[test]
    fn series_are_ordered_as_their_labels_are() {
        let mut index = Index::default();
        let lists: Vec<Labels> =
            [&[("a", "1")][..], &[("a", "1"), ("b", "1")], &[("a", "2")], &[("b", "0")], &[("a", "10")], &[]]
                .iter()
                .map(|pairs| Labels::from_pairs(pairs.iter().copied()))
                .collect();
        let series: Vec<u32> = lists.iter().map(|labels| index.place(labels, GroupId(0), Slot(0))).collect();
        for (a, of_a) in series.iter().zip(&lists) {
            for (b, of_b) in series.iter().zip(&lists) {
                assert_eq!(index.compare(*a, *b), of_a.cmp(of_b), "{of_a} {of_b}");
            }
        }
    }
}
