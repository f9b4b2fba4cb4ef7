//! Which series meet which conditions: label name -> value -> bitmap of series numbers.
//!
//! A missing label counts as the empty string, so a condition that the empty string meets also takes the series without
//! the label. What a regex matches of a label's values is kept until these change.

mod name;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use roaring::RoaringBitmap;

use self::name::{Name, Names};
use super::tested::{Key, Split, Tested, Untested, is_regex, key};
use super::{Label, Labels, MatchOp, Matcher};

/// Kept regex results; when full all are dropped, which costs one evaluation each.
const CACHED_MAX: usize = 256;

#[derive(Debug)]
struct Known {
    label: Label,
    /// Number of its name.
    name: u32,
    series: RoaringBitmap,
}

#[derive(Debug, Default)]
pub(super) struct Postings {
    names: Names,
    /// Every label once, by number; who has many series says numbers.
    labels: Vec<Option<Known>>,
    free: Vec<u32>,
    /// Labels of the series that was added last: neighbours have most of them in common.
    last: Vec<u32>,
    all: RoaringBitmap,
    cached: Mutex<HashMap<Key, Split>>,
    /// What texts and bitmaps take, about.
    bytes: usize,
}

/// A label with its bitmap: the text's counters, its part of a node, the bitmap with its first container, its number.
const VALUE_BYTES: usize = 160;

/// A series in two bitmaps, of the value and of the name.
const MEMBER_BYTES: usize = 4;

impl Postings {
    /// Adds a series; says the numbers of its labels, in their order.
    pub fn add(&mut self, series: u32, labels: &Labels) -> Vec<u32> {
        self.all.insert(series);
        let before = std::mem::take(&mut self.last);
        let number = |(at, label): (usize, &Label)| {
            let same = before.get(at).copied().filter(|number| self.label(*number) == Some(label));
            let like = || before.get(at).and_then(|number| self.known(*number)).map(|known| known.name);
            let number = match same {
                Some(number) => number,
                None => self.number(label, like()),
            };
            self.bytes += MEMBER_BYTES;
            if let Some(Some(known)) = self.labels.get_mut(number as usize) {
                known.series.insert(series);
                self.names.by_number(known.name).into_iter().for_each(|name| _ = name.any.insert(series));
            }
            number
        };
        self.last = labels.iter().enumerate().map(number).collect();
        self.last.clone()
    }

    /// The number of a label, a new one where there is none; `like` is the number of a name that may be its own.
    fn number(&mut self, label: &Label, like: Option<u32>) -> u32 {
        let of_name = self.names.number(&label.name, like);
        let shared_name = self.names.text(of_name);
        let Some(name) = self.names.by_number(of_name) else { return u32::MAX };
        if let Some(there) = name.values.get(&label.value) {
            return *there;
        }
        let number = self.free.pop().unwrap_or(self.labels.len() as u32);
        name.version += 1;
        name.values.insert(label.value.clone(), number);
        self.bytes += VALUE_BYTES + label.value.len();
        let label = Label { name: shared_name, value: label.value.clone() };
        let known = Some(Known { label, name: of_name, series: RoaringBitmap::new() });
        match self.labels.get_mut(number as usize) {
            Some(place) => *place = known,
            None => self.labels.push(known),
        }
        number
    }

    fn known(&self, number: u32) -> Option<&Known> {
        self.labels.get(number as usize)?.as_ref()
    }

    /// The label with this number.
    pub fn label(&self, number: u32) -> Option<&Label> {
        Some(&self.known(number)?.label)
    }

    /// `numbers` are those of the series' labels.
    pub fn remove(&mut self, series: u32, numbers: &[u32]) {
        self.all.remove(series);
        for number in numbers {
            let Some(Some(known)) = self.labels.get_mut(*number as usize) else { continue };
            self.bytes = self.bytes.saturating_sub(MEMBER_BYTES);
            known.series.remove(series);
            let of_name = known.name;
            let Some(name) = self.names.by_number(of_name) else { continue };
            name.any.remove(series);
            if known.series.is_empty() {
                let Label { name: of, value } = known.label.clone();
                name.values.remove(&value);
                name.version += 1;
                if name.values.is_empty() {
                    self.names.remove(of_name);
                }
                self.bytes = self.bytes.saturating_sub(VALUE_BYTES + value.len());
                self.labels[*number as usize] = None;
                self.free.push(*number);
                // What a regex has matched would keep the text for as long as nobody asks again.
                self.cached.get_mut().retain(|(cached, _), _| **cached != *of);
            }
        }
    }

    /// Memory that it takes, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether any series has this label.
    pub fn has(&self, name: &str, value: &str) -> bool {
        self.names.get(name).is_some_and(|name| name.values.contains_key(value))
    }

    /// How many values a label has.
    pub fn count(&self, name: &str) -> usize {
        self.names.get(name).map_or(0, |name| name.values.len())
    }

    pub fn values(&self, name: &str) -> impl Iterator<Item = (&Arc<str>, &RoaringBitmap)> {
        let values = self.names.get(name).into_iter().flat_map(|name| &name.values);
        values.filter_map(|(text, number)| Some((text, &self.known(*number)?.series)))
    }

    /// The names of labels, and the series that have them.
    pub fn names(&self) -> impl Iterator<Item = (&Arc<str>, &RoaringBitmap)> {
        self.names.iter().map(|(key, name)| (key, &name.any))
    }

    /// Series with this very label.
    pub fn of(&self, name: &str, value: &str) -> RoaringBitmap {
        self.names.get(name).and_then(|name| self.with(name, value)).cloned().unwrap_or_default()
    }

    fn with(&self, name: &Name, value: &str) -> Option<&RoaringBitmap> {
        Some(&self.known(*name.values.get(value)?)?.series)
    }

    /// Series that meet any of the lists; all where there is none.
    pub fn any_of(&self, lists: &[impl AsRef<[Matcher]>], tested: &Tested) -> RoaringBitmap {
        if lists.is_empty() {
            return self.all.clone();
        }
        lists.iter().fold(RoaringBitmap::new(), |found, matchers| found | self.all_of(matchers.as_ref(), tested))
    }

    /// Series that meet every condition. What `tested` lacks is tested here and now.
    pub fn all_of(&self, matchers: &[Matcher], tested: &Tested) -> RoaringBitmap {
        let plain = matchers.iter().filter(|matcher| !is_regex(matcher)).map(|matcher| self.one(matcher));
        let mut found: Option<RoaringBitmap> = None;
        let mut without = Vec::new();
        for (set, excludes) in plain.chain(by_name(matchers).map(|conditions| self.regexes(&conditions, tested))) {
            match (excludes, &mut found) {
                (true, _) => without.push(set),
                (false, Some(found)) => *found &= set,
                (false, None) => found = Some(set),
            }
            if found.as_ref().is_some_and(RoaringBitmap::is_empty) {
                return RoaringBitmap::new();
            }
        }
        let mut found = found.unwrap_or_else(|| self.all.clone());
        without.into_iter().for_each(|set| found -= set);
        found
    }

    /// The series that meet a condition, or (true) those that do not: whichever does not need the series without the label.
    fn one(&self, matcher: &Matcher) -> (RoaringBitmap, bool) {
        let Some(name) = self.names.get(matcher.name.as_str()) else {
            return (RoaringBitmap::new(), matcher.matches(""));
        };
        let value = |value: &str| self.with(name, value).cloned().unwrap_or_default();
        match &matcher.op {
            MatchOp::Equal if matcher.value.is_empty() => (name.any.clone(), true),
            MatchOp::Equal => (value(&matcher.value), false),
            MatchOp::NotEqual if matcher.value.is_empty() => (name.any.clone(), false),
            MatchOp::NotEqual => (value(&matcher.value), true),
            MatchOp::Match(_) | MatchOp::NoMatch(_) => self.regexes(&[matcher], &Tested::default()),
        }
    }

    /// As [`Self::one`], for all conditions by regex on one label.
    fn regexes(&self, conditions: &[&Matcher], tested: &Tested) -> (RoaringBitmap, bool) {
        let meets_empty = conditions.iter().all(|matcher| matcher.matches(""));
        let Some(name) = conditions.first().and_then(|matcher| self.names.get(matcher.name.as_str())) else {
            return (RoaringBitmap::new(), meets_empty);
        };
        if let Some(alternatives) = plain_texts(conditions) {
            let sets = alternatives.filter_map(|value| self.with(name, value));
            return (sets.fold(RoaringBitmap::new(), |found, set| found | set), meets_empty);
        }
        let key = key(conditions);
        let ready = tested.of.get(&key).filter(|split| split.version == name.version);
        let here = || self.cached.lock().get(&key).filter(|split| split.version == name.version).cloned();
        let split = ready.cloned().or_else(here).unwrap_or_else(|| {
            let values: Arc<[Arc<str>]> = name.values.keys().cloned().collect();
            Split::now(name.version, values, conditions)
        });
        let chosen = split.chosen.iter().filter_map(|value| self.with(name, value));
        let union = chosen.fold(RoaringBitmap::new(), |found, set| found | set);
        // A series has one value of the label, so what does not pass is the rest of those that have it.
        let set = if split.passing == meets_empty { &name.any - &union } else { union };
        (set, meets_empty)
    }

    /// What must be tested before the lists can be answered without delay.
    pub fn untested(&self, lists: &[impl AsRef<[Matcher]>], tested: &mut Tested) -> Vec<Untested> {
        let mut untested = Vec::new();
        let mut values: HashMap<&str, Arc<[Arc<str>]>> = HashMap::new();
        for matchers in lists.iter().map(AsRef::as_ref) {
            // Where nothing can be found, nothing needs to be tested.
            let lacks = |matcher: &Matcher| {
                matches!(matcher.op, MatchOp::Equal)
                    && !matcher.value.is_empty()
                    && !self.has(&matcher.name, &matcher.value)
            };
            if !matchers.iter().any(is_regex) || matchers.iter().any(lacks) {
                continue;
            }
            for conditions in by_name(matchers) {
                let of = conditions[0].name.as_str();
                let Some(name) = self.names.get(of).filter(|_| plain_texts(&conditions).is_none()) else { continue };
                let key = key(&conditions);
                if tested.of.get(&key).is_some_and(|split| split.version == name.version) {
                    continue;
                }
                let cached = self.cached.lock().get(&key).filter(|split| split.version == name.version).cloned();
                if let Some(cached) = cached {
                    tested.of.insert(key, cached);
                    continue;
                }
                let values = values.entry(of).or_insert_with(|| name.values.keys().cloned().collect()).clone();
                untested.push(Untested::new(key, &conditions, name.version, values, tested));
            }
        }
        untested
    }

    /// Keeps what was tested for those who ask the same.
    pub fn keep(&self, tested: &Tested) {
        let mut cached = self.cached.lock();
        for (key, split) in &tested.of {
            let is_now = self.names.get(key.0.as_str()).is_some_and(|name| name.version == split.version);
            if is_now && cached.get(key).is_none_or(|there| there.version != split.version) {
                if cached.len() >= CACHED_MAX {
                    cached.clear();
                }
                cached.insert(key.clone(), split.without_values());
            }
        }
    }
}

/// The conditions by regex, those on one label together.
fn by_name(matchers: &[Matcher]) -> impl Iterator<Item = Vec<&Matcher>> {
    let mut groups: Vec<Vec<&Matcher>> = Vec::new();
    for matcher in matchers.iter().filter(|matcher| is_regex(matcher)) {
        match groups.iter_mut().find(|group| group[0].name == matcher.name) {
            Some(group) => group.push(matcher),
            None => groups.push(vec![matcher]),
        }
    }
    groups.into_iter()
}

/// The values that alone can match, where a single pattern names them: they are looked up, and nothing is tested.
fn plain_texts<'a>(conditions: &[&'a Matcher]) -> Option<impl Iterator<Item = &'a str> + use<'a>> {
    match conditions {
        // An empty text among them is met by series without the label.
        [Matcher { op: MatchOp::Match(regex) | MatchOp::NoMatch(regex), value, .. }] if !regex.is_match("") => {
            literals(value)
        }
        _ => None,
    }
}

/// The alternatives of a regex that is plain strings between bars.
fn literals(regex: &str) -> Option<impl Iterator<Item = &str>> {
    let plain = |c: char| c.is_alphanumeric() || "_-:/ |,".contains(c);
    (!regex.is_empty() && regex.chars().all(plain)).then(|| regex.split('|'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matcher(name: &str, op: u8, value: &str) -> Matcher {
        let regex = || regex::Regex::new(&format!("^(?s:{value})$")).unwrap();
        let op = match op {
            0 => MatchOp::Equal,
            1 => MatchOp::NotEqual,
            2 => MatchOp::Match(regex()),
            _ => MatchOp::NoMatch(regex()),
        };
        Matcher { name: name.into(), op, value: value.into() }
    }

    proptest! {
        /// Against the definition: every matcher holds for the label's value, or for "" where it is missing.
        #[test]
        fn postings_agree_with_the_matchers(
            series in prop::collection::vec(prop::collection::btree_map("[ab]", "[xy]{0,2}", 0..3), 1..12),
            conditions in prop::collection::vec(("[abc]", 0u8..4, "(|x|y|xy|x\\||x\\|xy|\\.\\*|\\.\\+|x\\.\\*|\\[xy\\]|\\(x\\|\\))"), 0..4),
            removed in 0usize..3,
        ) {
            let matchers: Vec<Matcher> = conditions.iter().map(|(name, op, value)| matcher(name, *op, value)).collect();
            let mut postings = Postings::default();
            let labels: Vec<Labels> = series.iter()
                .map(|pairs| Labels::from_pairs(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())))).collect();
            let added: Vec<Vec<u32>> =
                labels.iter().enumerate().map(|(at, labels)| postings.add(at as u32, labels)).collect();
            for (labels, numbers) in labels.iter().zip(&added) {
                prop_assert!(labels.iter().eq(numbers.iter().filter_map(|number| postings.label(*number))));
            }
            postings.all_of(&matchers, &Tested::default());
            for (at, numbers) in added.iter().enumerate().take(removed) {
                postings.remove(at as u32, numbers);
            }
            let wanted: Vec<u32> = (removed..labels.len())
                .filter(|at| matchers.iter().all(|m| m.matches(labels[*at].get(&m.name).map_or("", |v| v))))
                .map(|at| at as u32).collect();
            prop_assert_eq!(postings.all_of(&matchers, &Tested::default()).iter().collect::<Vec<_>>(), wanted);
        }
    }
}
