//! The labels of a series, sorted by name, with the metric's name as label `__name__`.

use std::fmt;
use std::sync::Arc;

/// The label that holds the metric's name.
pub const METRIC_NAME: &str = "__name__";

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label {
    pub name: Arc<str>,
    pub value: Arc<str>,
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

/// Labels sorted by name, each name once, no empty value. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels(Arc<[Label]>);

impl Labels {
    /// Sorts; of a name that comes twice the last one counts; an empty value means that the label is not there.
    pub fn new(labels: impl IntoIterator<Item = Label>) -> Self {
        let mut labels: Vec<Label> = labels.into_iter().collect();
        if labels.is_sorted_by(|a, b| a.name < b.name) && labels.iter().all(|label| !label.value.is_empty()) {
            return Self(labels.into());
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
        Self(labels.into())
    }

    /// Of labels that are in order, each name once, no empty value.
    pub(super) fn sorted(labels: Vec<Label>) -> Self {
        debug_assert!(labels.is_sorted_by(|a, b| a.name < b.name));
        Self(labels.into())
    }

    /// Those that are to stay. Without sorting: they are sorted already.
    pub fn retained(&self, keep: impl Fn(&str) -> bool) -> Self {
        Self(self.0.iter().filter(|label| keep(&label.name)).cloned().collect())
    }

    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self::new(pairs.into_iter().map(|(name, value)| Label { name: name.into(), value: value.into() }))
    }

    pub fn empty() -> Self {
        Self(Arc::from([]))
    }

    pub fn get(&self, name: &str) -> Option<&Arc<str>> {
        let at = self.0.binary_search_by(|label| (*label.name).cmp(name)).ok()?;
        Some(&self.0[at].value)
    }

    pub fn metric(&self) -> Option<&Arc<str>> {
        match self.0.first() {
            // Few names sort before it.
            Some(first) if *first.name == *METRIC_NAME => Some(&first.value),
            _ => self.get(METRIC_NAME),
        }
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Label> {
        self.0.iter()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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
