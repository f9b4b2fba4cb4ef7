//! `/metrics` as protobuf, family by family, in pieces.
//!
//! As in the text formats the parts of a classic histogram or summary (`x_bucket`, `x_count`, `x_sum`) are gathered until no
//! more of them can come; here they make one metric per set of labels, with the native histogram of the same name if there is
//! one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::body::Bytes;
use lampad_proto::v1::MetricType;
use prost::Message as _;

use super::exposition::{NO_HELP, PIECE_BYTES, Send, family_of, is_whole};
use crate::api::Escaping;
use crate::api::protobuf::{Bucket, Histogram, Metric, MetricFamily, Quantile, Summary, Type, native, pairs};
use crate::store::{Labels, Latest, METRIC_NAME, Meta, Value};

pub struct Families<'a> {
    escaping: Escaping,
    metas: HashMap<Arc<str>, Meta>,
    held: BTreeMap<String, Held>,
    bytes: Vec<u8>,
    send: Send<'a>,
    goes_on: bool,
}

/// A histogram or summary that is not whole yet.
struct Held {
    meta: Meta,
    is_gauge: bool,
    metrics: BTreeMap<Labels, Parts>,
}

#[derive(Default)]
struct Parts {
    native: Option<Histogram>,
    count: f64,
    sum: f64,
    /// `le` or `quantile`, and the number.
    steps: Vec<(f64, f64)>,
}

impl<'a> Families<'a> {
    pub fn new(escaping: Escaping, metas: Vec<(Arc<str>, Meta)>, send: Send<'a>) -> Self {
        let metas = metas.into_iter().collect();
        Self { escaping, metas, held: BTreeMap::new(), bytes: Vec::new(), send, goes_on: true }
    }

    /// Writes the series of one name; false once nobody reads any more.
    pub fn write(&mut self, name: &str, series: &[(Labels, Latest)]) -> bool {
        self.release(Some(name));
        let (family, meta) = family_of(&self.metas, name);
        let is_native = series.iter().any(|(_, latest)| matches!(latest.value, Value::Histogram(_)));
        if is_native || matches!(meta.kind, MetricType::Histogram | MetricType::Summary) {
            let family = if is_native { name.to_owned() } else { family.into_owned() };
            let mut meta = meta;
            if is_native {
                meta.kind = MetricType::Histogram;
            }
            let held = self.held.entry(family.clone());
            let held = held.or_insert_with(|| Held { meta, is_gauge: false, metrics: BTreeMap::new() });
            let part = name.strip_prefix(&family).unwrap_or_default();
            series.iter().for_each(|(labels, latest)| held.add(part, labels, &latest.value));
            return self.goes_on;
        }
        let kind = match meta.kind {
            MetricType::Counter => Type::Counter,
            MetricType::Gauge | MetricType::Info | MetricType::Stateset => Type::Gauge,
            MetricType::Unknown | MetricType::Histogram | MetricType::Summary => Type::Untyped,
        };
        let metric = |(labels, latest): &(Labels, Latest)| {
            let value = match &latest.value {
                Value::Float(value) => *value,
                // The format has doubles only.
                Value::Integer(value) => value.as_f64(),
                Value::Histogram(histogram) => histogram.count as f64,
            };
            Metric::number(kind, pairs(labels, "", self.escaping), value)
        };
        let metrics = series.iter().map(metric).collect();
        self.push(name, &meta, kind, metrics)
    }

    /// Writes what was held back and hands on the rest.
    pub fn finish(mut self) {
        self.release(None);
        self.pass();
    }

    fn release(&mut self, next: Option<&str>) {
        let ready: Vec<String> = self.held.keys().filter(|family| is_whole(family, next)).cloned().collect();
        for name in ready {
            let Some(held) = self.held.remove(&name) else { continue };
            let kind = match (held.meta.kind, held.is_gauge) {
                (MetricType::Summary, _) => Type::Summary,
                (_, true) => Type::GaugeHistogram,
                (_, false) => Type::Histogram,
            };
            let metrics = held.metrics.into_iter().map(|(labels, parts)| {
                let mut metric = Metric { labels: pairs(&labels, "", self.escaping), ..Metric::default() };
                match kind {
                    Type::Summary => metric.summary = Some(parts.summary()),
                    _ => metric.histogram = Some(parts.histogram()),
                }
                metric
            });
            let metrics = metrics.collect();
            self.push(&name, &held.meta, kind, metrics);
        }
    }

    fn push(&mut self, name: &str, meta: &Meta, kind: Type, metrics: Vec<Metric>) -> bool {
        let help = if meta.help.is_empty() { NO_HELP } else { &meta.help };
        let family = MetricFamily {
            name: self.escaping.escape(name).into_owned(),
            help: Some(help.to_owned()),
            kind: Some(kind.into()),
            metrics,
            unit: Some(meta.unit.to_string()).filter(|unit| !unit.is_empty()),
        };
        self.bytes.extend(family.encode_length_delimited_to_vec());
        if self.bytes.len() >= PIECE_BYTES { self.pass() } else { self.goes_on }
    }

    fn pass(&mut self) -> bool {
        if self.goes_on && !self.bytes.is_empty() {
            self.goes_on = (self.send)(Bytes::from(std::mem::take(&mut self.bytes)));
        }
        self.goes_on
    }
}

impl Held {
    /// A series of the family whose name ends with `part`.
    fn add(&mut self, part: &str, labels: &Labels, value: &Value) {
        let step = if self.meta.kind == MetricType::Summary { "quantile" } else { "le" };
        let own = labels.iter().filter(|label| *label.name != *METRIC_NAME && *label.name != *step);
        let parts = self.metrics.entry(Labels::new(own.cloned())).or_default();
        let number = match value {
            Value::Float(value) => *value,
            Value::Integer(value) => value.as_f64(),
            Value::Histogram(histogram) => {
                let (histogram, is_gauge) = native(histogram);
                self.is_gauge |= is_gauge;
                parts.native = Some(histogram);
                return;
            }
        };
        match part {
            "_count" => parts.count = number,
            "_sum" => parts.sum = number,
            _ => {
                let at = labels.get(step).and_then(|at| at.parse().ok());
                parts.steps.extend(at.map(|at| (at, number)));
            }
        }
    }
}

impl Parts {
    fn histogram(mut self) -> Histogram {
        self.steps.sort_by(|a, b| a.0.total_cmp(&b.0));
        let is_whole = |value: f64| value >= 0.0 && value.fract() == 0.0;
        let whole = is_whole(self.count) && self.steps.iter().all(|(_, count)| is_whole(*count));
        let counts = |count: f64| if whole { (Some(count as u64), None) } else { (None, Some(count)) };
        let mut histogram = self.native.unwrap_or_else(|| {
            let (count, count_float) = counts(self.count);
            Histogram { count, count_float, sum: self.sum, ..Histogram::default() }
        });
        histogram.buckets.extend(self.steps.into_iter().map(|(upper, number)| {
            let (count, count_float) = counts(number);
            Bucket { count, upper, count_float }
        }));
        histogram
    }

    fn summary(mut self) -> Summary {
        self.steps.sort_by(|a, b| a.0.total_cmp(&b.0));
        let quantiles = self.steps.into_iter().map(|(quantile, value)| Quantile { quantile, value }).collect();
        Summary { count: self.count as u64, sum: self.sum, quantiles }
    }
}

#[cfg(test)]
mod tests {
    use lampad_proto::v1;

    use super::*;

    #[test]
    fn parts_make_one_metric_and_native_histograms_keep_their_buckets() {
        let meta = |kind| Meta { kind, help: "H.".into(), unit: "".into() };
        let metas = vec![
            ("a_total".into(), meta(MetricType::Counter)),
            ("h".into(), meta(MetricType::Histogram)),
            ("s".into(), meta(MetricType::Summary)),
        ];
        let mut bytes = Vec::new();
        let mut send = |piece: Bytes| {
            bytes.extend(piece);
            true
        };
        let mut families = Families::new(Escaping::Underscores, metas, &mut send);
        let native = v1::Histogram {
            count: 3,
            sum: 2.5,
            schema: 1,
            positive_spans: vec![v1::BucketSpan { offset: -1, length: 2 }],
            positive_deltas: vec![1, 1],
            ..v1::Histogram::default()
        };
        let float = |name: &str, labels: &[(&str, &str)], value: f64| {
            let labels = Labels::from_pairs([("__name__", name)].into_iter().chain(labels.iter().copied()));
            (labels, Latest { timestamp_ms: 1, value: Value::Float(value) })
        };
        let histogram = Latest { timestamp_ms: 1, value: Value::Histogram(Arc::new(native)) };
        for (name, series) in [
            ("a_total", vec![float("a_total", &[("l.x", "v")], 1.0)]),
            ("h_bucket", vec![float("h_bucket", &[("le", "+Inf")], 4.0), float("h_bucket", &[("le", "0.5")], 1.0)]),
            ("h_count", vec![float("h_count", &[], 4.0)]),
            ("h_sum", vec![float("h_sum", &[], 7.5)]),
            ("n", vec![(Labels::from_pairs([("__name__", "n")]), histogram)]),
            ("s", vec![float("s", &[("quantile", "0.5")], 2.0)]),
            ("s_count", vec![float("s_count", &[], 9.0)]),
        ] {
            assert!(families.write(name, &series));
        }
        families.finish();
        let mut rest = &bytes[..];
        let mut read = Vec::new();
        while !rest.is_empty() {
            read.push(MetricFamily::decode_length_delimited(&mut rest).unwrap());
        }
        let kinds: Vec<_> = read.iter().map(|family| (family.name.as_str(), family.kind())).collect();
        assert_eq!(
            kinds,
            [("a_total", Type::Counter), ("h", Type::Histogram), ("n", Type::Histogram), ("s", Type::Summary)]
        );
        assert_eq!(read[0].metrics[0].labels[0].name, "l_x");
        let classic = read[1].metrics[0].histogram.as_ref().unwrap();
        let buckets: Vec<_> = classic.buckets.iter().map(|bucket| (bucket.upper, bucket.count)).collect();
        assert_eq!((classic.count, classic.sum), (Some(4), 7.5));
        assert_eq!(buckets, [(0.5, Some(1)), (f64::INFINITY, Some(4))]);
        let native = read[2].metrics[0].histogram.as_ref().unwrap();
        assert_eq!((native.schema, &native.positive_deltas[..], native.count), (Some(1), &[1, 1][..], Some(3)));
        assert_eq!(read[3].metrics[0].summary.as_ref().unwrap().quantiles[0], Quantile { quantile: 0.5, value: 2.0 });
    }
}
