//! The labels of a series, sorted by name, with the metric's name as label `__name__`.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The label that holds the metric's name.
pub const METRIC_NAME: &str = "__name__";

#[derive(Debug, Clone)]
pub struct Label {
    pub name: Arc<str>,
    pub value: Arc<str>,
}

/// As of the texts; series of one store share theirs, which mostly tells sooner.
fn compare(a: &Arc<str>, b: &Arc<str>) -> Ordering {
    if Arc::ptr_eq(a, b) { Ordering::Equal } else { a.cmp(b) }
}

impl PartialEq for Label {
    fn eq(&self, other: &Self) -> bool {
        let same = |a: &Arc<str>, b: &Arc<str>| Arc::ptr_eq(a, b) || a == b;
        same(&self.value, &other.value) && same(&self.name, &other.name)
    }
}

impl Eq for Label {}

impl Hash for Label {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
        self.value.hash(state);
    }
}

impl PartialOrd for Label {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Label {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.name, &other.name).then_with(|| compare(&self.value, &other.value))
    }
}

impl Label {
    /// A label that takes its texts from another one where they are the same.
    pub(super) fn like(other: Option<&Self>, name: &str, value: &str) -> Self {
        let text = |text: &str, other: Option<&Arc<str>>| match other {
            Some(other) if **other == *text => other.clone(),
            _ => text.into(),
        };
        Self { name: text(name, other.map(|other| &other.name)), value: text(value, other.map(|other| &other.value)) }
    }
}

/// Labels sorted by name, each name once, no empty value. Cheap to clone, and to be had without the first one: that mostly is
/// the metric's name, which most functions take away.
#[derive(Clone)]
pub struct Labels {
    list: Arc<[Label]>,
    headless: bool,
}

impl Labels {
    fn of(list: Arc<[Label]>) -> Self {
        Self { list, headless: false }
    }

    /// Whether both are in the same memory; equal ones need not be.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.list, &other.list) && self.headless == other.headless
    }

    fn as_slice(&self) -> &[Label] {
        &self.list[usize::from(self.headless)..]
    }

    /// Sorts; of a name that comes twice the last one counts; an empty value means that the label is not there.
    pub fn new(labels: impl IntoIterator<Item = Label>) -> Self {
        let mut labels: Vec<Label> = labels.into_iter().collect();
        if labels.is_sorted_by(|a, b| a.name < b.name) && labels.iter().all(|label| !label.value.is_empty()) {
            return Self::of(labels.into());
        }
        labels.sort_by(|a, b| a.name.cmp(&b.name));
        labels.dedup_by(|later, first| {
            let is_same = later.name == first.name;
            if is_same {
                std::mem::swap(later, first);
            }
            is_same
        });
        labels.retain(|label| !label.value.is_empty());
        Self::of(labels.into())
    }

    /// Of labels that are in order, each name once, no empty value.
    pub(super) fn sorted(labels: Vec<Label>) -> Self {
        debug_assert!(labels.is_sorted_by(|a, b| a.name < b.name));
        Self::of(labels.into())
    }

    /// Those that are to stay. Without sorting: they are sorted already.
    pub fn retained(&self, keep: impl Fn(&str) -> bool) -> Self {
        if let ([first, rest @ ..], false) = (self.as_slice(), self.headless)
            && !keep(&first.name)
            && rest.iter().all(|label| keep(&label.name))
        {
            return Self { headless: true, ..self.clone() };
        }
        Self::of(self.iter().filter(|label| keep(&label.name)).cloned().collect())
    }

    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self::new(pairs.into_iter().map(|(name, value)| Label { name: name.into(), value: value.into() }))
    }

    pub fn empty() -> Self {
        Self::of(Arc::from([]))
    }

    pub fn get(&self, name: &str) -> Option<&Arc<str>> {
        let labels = self.as_slice();
        let at = labels.binary_search_by(|label| (*label.name).cmp(name)).ok()?;
        Some(&labels[at].value)
    }

    pub fn metric(&self) -> Option<&Arc<str>> {
        match self.as_slice().first() {
            // Few names sort before it.
            Some(first) if *first.name == *METRIC_NAME => Some(&first.value),
            _ => self.get(METRIC_NAME),
        }
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Label> {
        self.as_slice().iter()
    }

    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        let same = Arc::ptr_eq(&self.list, &other.list) && self.headless == other.headless;
        same || self.as_slice() == other.as_slice()
    }
}

impl Eq for Labels {}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As PromQL writes it: `name{a="b"}`.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.metric() {
            f.write_str(name)?;
        }
        f.write_str("{")?;
        for (at, label) in self.iter().filter(|label| &*label.name != METRIC_NAME).enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{}={:?}", label.name, label.value)?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_its_head_a_list_is_as_if_it_were_made_so() {
        let all = Labels::from_pairs([(METRIC_NAME, "up"), ("host", "a"), ("job", "node")]);
        let short = all.retained(|name| name != METRIC_NAME);
        let made = Labels::from_pairs([("host", "a"), ("job", "node")]);
        assert!(short.headless && short == made && short.cmp(&made) == Ordering::Equal);
        assert_eq!(short.cmp(&all), made.cmp(&all));
        assert_eq!((short.len(), short.metric(), short.get("job")), (2, None, made.get("job")));
        let hash = |labels: &Labels| {
            let mut hasher = std::hash::DefaultHasher::new();
            labels.hash(&mut hasher);
            hasher.finish()
        };
        assert_eq!(hash(&short), hash(&made));
        assert_eq!(short.retained(|name| name != "host"), Labels::from_pairs([("job", "node")]));
        assert_eq!(short.retained(|_| false), Labels::empty());
    }
}
