//! Families and samples of the collector's own metrics, as they are written.

use std::sync::atomic::Ordering;

use lampad_proto::v1::MetricType;

use super::{BOUND_TEXTS, Histogram};
use crate::own::OwnSample;
use crate::store::{Label, Labels, METRIC_NAME, Meta};

/// Of the names of all these metrics.
const PREFIX: &str = "lampad_collector_";

pub(super) struct Family {
    name: &'static str,
    meta: Meta,
}

fn family(name: &'static str, kind: MetricType, help: &str) -> Family {
    let unit = if name.ends_with("_seconds") { "seconds" } else { "" };
    Family { name, meta: Meta { kind, help: help.into(), unit: unit.into() } }
}

pub(super) fn counter(name: &'static str, help: &str) -> Family {
    family(name, MetricType::Counter, help)
}

pub(super) fn gauge(name: &'static str, help: &str) -> Family {
    family(name, MetricType::Gauge, help)
}

pub(super) fn histogram(name: &'static str, help: &str) -> Family {
    family(name, MetricType::Histogram, help)
}

/// Series of a histogram.
const HISTOGRAM_SERIES: usize = BOUND_TEXTS.len() + 2;

/// Samples are written over those of the last time: mostly they are of the same series, in the same places.
pub(super) struct Out<'a> {
    own: &'a [Label],
    samples: &'a mut Vec<OwnSample>,
    /// Where the next one goes.
    next: usize,
    /// What comes now was there the last time, in the same places.
    pub is_known: bool,
}

impl<'a> Out<'a> {
    /// `own` labels are on all of them.
    pub fn over(samples: &'a mut Vec<OwnSample>, own: &'a [Label]) -> Self {
        Self { own, samples, next: 0, is_known: false }
    }

    pub fn push(&mut self, family: &Family, suffix: &str, labels: &[(&str, &str)], value: f64) {
        self.put(family, suffix, || labels.to_vec(), value);
    }

    fn put<'t>(&mut self, family: &Family, suffix: &str, labels: impl FnOnce() -> Vec<(&'t str, &'t str)>, value: f64) {
        let at = self.next;
        self.next += 1;
        if self.is_known && at < self.samples.len() {
            self.samples[at].value = value;
            return;
        }
        let labels = labels();
        if let Some(there) = self.samples.get_mut(at)
            && is_of(&there.labels, self.own, family, suffix, &labels)
        {
            there.value = value;
            return;
        }
        let sample = OwnSample { labels: self.labels(family, suffix, &labels), meta: family.meta.clone(), value };
        match self.samples.get_mut(at) {
            Some(there) => *there = sample,
            None => self.samples.push(sample),
        }
    }

    /// Leaves a histogram that is known as it was.
    pub fn keep_histogram(&mut self) {
        self.next += HISTOGRAM_SERIES;
    }

    /// Nothing comes behind these.
    pub fn end(self) {
        self.samples.truncate(self.next);
    }

    fn labels(&self, family: &Family, suffix: &str, labels: &[(&str, &str)]) -> Labels {
        let label = |(name, value): &(&str, &str)| Label { name: (*name).into(), value: (*value).into() };
        let name = Label { name: METRIC_NAME.into(), value: format!("{PREFIX}{}{suffix}", family.name).into() };
        Labels::new(self.own.iter().cloned().chain(labels.iter().map(label)).chain([name]))
    }

    pub fn histogram(&mut self, family: &Family, labels: &[(&str, &str)], histogram: &Histogram) {
        let mut count = 0;
        for (bucket, bound) in histogram.buckets.iter().zip(BOUND_TEXTS) {
            count += bucket.load(Ordering::Relaxed);
            let labels = || labels.iter().copied().chain([("le", bound)]).collect();
            self.put(family, "_bucket", labels, count as f64);
        }
        self.push(family, "_count", labels, count as f64);
        self.push(family, "_sum", labels, histogram.sum_us.load(Ordering::Relaxed) as f64 / 1e6);
    }
}

/// Whether [`Out::labels`] would make these.
fn is_of(known: &Labels, own: &[Label], family: &Family, suffix: &str, labels: &[(&str, &str)]) -> bool {
    let is_named = known.metric().and_then(|name| name.strip_prefix(PREFIX)?.strip_prefix(family.name)) == Some(suffix);
    let mut all = own.iter().map(|label| (&*label.name, &*label.value)).chain(labels.iter().copied());
    is_named
        && known.len() == own.len() + labels.len() + 1
        && all.all(|(name, value)| known.get(name).is_some_and(|is| **is == *value))
}
