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

pub(super) struct Out<'a> {
    pub own: &'a [Label],
    /// Samples of the last time: mostly the same series in the same places, whose labels need not be made again.
    pub before: &'a [OwnSample],
    /// What comes now was there the last time, in the same places.
    pub is_known: bool,
    pub samples: Vec<OwnSample>,
}

impl Out<'_> {
    pub fn push(&mut self, family: &Family, suffix: &str, labels: &[(&str, &str)], value: f64) {
        let known = self.before.get(self.samples.len()).map(|before| &before.labels);
        let labels = match known.filter(|known| self.is_known || self.is(known, family, suffix, labels)) {
            Some(known) => known.clone(),
            None => self.labels(family, suffix, labels),
        };
        self.samples.push(OwnSample { labels, meta: family.meta.clone(), value });
    }

    fn labels(&self, family: &Family, suffix: &str, labels: &[(&str, &str)]) -> Labels {
        let label = |(name, value): &(&str, &str)| Label { name: (*name).into(), value: (*value).into() };
        let name = Label { name: METRIC_NAME.into(), value: format!("{PREFIX}{}{suffix}", family.name).into() };
        Labels::new(self.own.iter().cloned().chain(labels.iter().map(label)).chain([name]))
    }

    /// Whether [`Self::labels`] would make these.
    fn is(&self, known: &Labels, family: &Family, suffix: &str, labels: &[(&str, &str)]) -> bool {
        let own = self.own.iter().map(|label| (&*label.name, &*label.value));
        let is_named =
            known.metric().and_then(|name| name.strip_prefix(PREFIX)?.strip_prefix(family.name)) == Some(suffix);
        is_named
            && known.len() == self.own.len() + labels.len() + 1
            && own.chain(labels.iter().copied()).all(|(name, value)| known.get(name).is_some_and(|is| **is == *value))
    }

    pub fn histogram(&mut self, family: &Family, labels: &[(&str, &str)], histogram: &Histogram) {
        let mut count = 0;
        for (at, bucket) in histogram.buckets.iter().enumerate() {
            count += bucket.load(Ordering::Relaxed);
            let labels: Vec<_> = labels.iter().copied().chain([("le", BOUND_TEXTS[at])]).collect();
            self.push(family, "_bucket", &labels, count as f64);
        }
        self.push(family, "_count", labels, count as f64);
        self.push(family, "_sum", labels, histogram.sum_us.load(Ordering::Relaxed) as f64 / 1e6);
    }
}
