//! Prometheus' protobuf exposition, by the field numbers of its public protocol (`io.prometheus.client`): families one after
//! the other, each with its length in front. The only format that carries native histograms.

use lampad_proto::v1;
use prost::Message;

use super::escape::Escaping;
use crate::store::{Labels, METRIC_NAME};

#[derive(Clone, PartialEq, Message)]
pub struct MetricFamily {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, optional, tag = "2")]
    pub help: Option<String>,
    #[prost(enumeration = "Type", optional, tag = "3")]
    pub kind: Option<i32>,
    #[prost(message, repeated, tag = "4")]
    pub metrics: Vec<Metric>,
    #[prost(string, optional, tag = "5")]
    pub unit: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Type {
    Counter = 0,
    Gauge = 1,
    Summary = 2,
    Untyped = 3,
    Histogram = 4,
    GaugeHistogram = 5,
}

#[derive(Clone, PartialEq, Message)]
pub struct Metric {
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    pub gauge: Option<Number>,
    #[prost(message, optional, tag = "3")]
    pub counter: Option<Number>,
    #[prost(message, optional, tag = "4")]
    pub summary: Option<Summary>,
    #[prost(message, optional, tag = "5")]
    pub untyped: Option<Number>,
    #[prost(int64, optional, tag = "6")]
    pub timestamp_ms: Option<i64>,
    #[prost(message, optional, tag = "7")]
    pub histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
pub struct LabelPair {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Number {
    #[prost(double, optional, tag = "1")]
    pub value: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Summary {
    #[prost(uint64, tag = "1")]
    pub count: u64,
    #[prost(double, tag = "2")]
    pub sum: f64,
    #[prost(message, repeated, tag = "3")]
    pub quantiles: Vec<Quantile>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Quantile {
    #[prost(double, tag = "1")]
    pub quantile: f64,
    #[prost(double, tag = "2")]
    pub value: f64,
}

/// Classic buckets, native ones, or both. Counts are whole numbers or floats, and only one of the two is there.
#[derive(Clone, PartialEq, Message)]
pub struct Histogram {
    #[prost(uint64, optional, tag = "1")]
    pub count: Option<u64>,
    #[prost(double, tag = "2")]
    pub sum: f64,
    #[prost(message, repeated, tag = "3")]
    pub buckets: Vec<Bucket>,
    #[prost(double, optional, tag = "4")]
    pub count_float: Option<f64>,
    #[prost(sint32, optional, tag = "5")]
    pub schema: Option<i32>,
    #[prost(double, optional, tag = "6")]
    pub zero_threshold: Option<f64>,
    #[prost(uint64, optional, tag = "7")]
    pub zero_count: Option<u64>,
    #[prost(double, optional, tag = "8")]
    pub zero_count_float: Option<f64>,
    #[prost(message, repeated, tag = "9")]
    pub negative_spans: Vec<Span>,
    #[prost(sint64, repeated, packed = "false", tag = "10")]
    pub negative_deltas: Vec<i64>,
    #[prost(double, repeated, packed = "false", tag = "11")]
    pub negative_counts: Vec<f64>,
    #[prost(message, repeated, tag = "12")]
    pub positive_spans: Vec<Span>,
    #[prost(sint64, repeated, packed = "false", tag = "13")]
    pub positive_deltas: Vec<i64>,
    #[prost(double, repeated, packed = "false", tag = "14")]
    pub positive_counts: Vec<f64>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Bucket {
    #[prost(uint64, optional, tag = "1")]
    pub count: Option<u64>,
    #[prost(double, tag = "2")]
    pub upper: f64,
    #[prost(double, optional, tag = "4")]
    pub count_float: Option<f64>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Span {
    #[prost(sint32, optional, tag = "1")]
    pub offset: Option<i32>,
    #[prost(uint32, optional, tag = "2")]
    pub length: Option<u32>,
}

impl Metric {
    /// A number of a family of this type.
    pub fn number(kind: Type, labels: Vec<LabelPair>, value: f64) -> Self {
        let mut metric = Self { labels, ..Self::default() };
        let number = Some(Number { value: Some(value) });
        match kind {
            Type::Counter => metric.counter = number,
            Type::Gauge => metric.gauge = number,
            Type::Untyped | Type::Summary | Type::Histogram | Type::GaugeHistogram => metric.untyped = number,
        }
        metric
    }
}

/// Labels but for the name and those left out.
pub fn pairs(labels: &Labels, left_out: &str, escaping: Escaping) -> Vec<LabelPair> {
    let kept = labels.iter().filter(|label| *label.name != *METRIC_NAME && *label.name != *left_out);
    kept.map(|label| LabelPair { name: escaping.escape(&label.name).into_owned(), value: label.value.to_string() })
        .collect()
}

/// A native histogram; whether it is a gauge, too. Custom buckets have no form of their own and become classic ones.
pub fn native(stored: &v1::Histogram) -> (Histogram, bool) {
    let is_gauge = stored.reset_hint() == v1::ResetHint::Gauge;
    let mut histogram = Histogram { sum: stored.sum, ..Histogram::default() };
    if stored.is_float {
        histogram.count_float = Some(stored.count_float);
    } else {
        histogram.count = Some(stored.count);
    }
    if stored.schema == CUSTOM_SCHEMA {
        histogram.buckets = custom_buckets(stored);
        return (histogram, is_gauge);
    }
    let spans = |spans: &[v1::BucketSpan]| {
        let span = |span: &v1::BucketSpan| Span { offset: Some(span.offset), length: Some(span.length) };
        spans.iter().map(span).collect::<Vec<_>>()
    };
    histogram.schema = Some(stored.schema);
    histogram.zero_threshold = Some(stored.zero_threshold);
    histogram.negative_spans = spans(&stored.negative_spans);
    histogram.positive_spans = spans(&stored.positive_spans);
    if stored.is_float {
        histogram.zero_count_float = Some(stored.zero_count_float);
        histogram.negative_counts = stored.negative_counts.clone();
        histogram.positive_counts = stored.positive_counts.clone();
    } else {
        histogram.zero_count = Some(stored.zero_count);
        histogram.negative_deltas = stored.negative_deltas.clone();
        histogram.positive_deltas = stored.positive_deltas.clone();
    }
    if histogram.negative_spans.is_empty() && histogram.positive_spans.is_empty() {
        // By a span readers know that it is native.
        histogram.positive_spans.push(Span { offset: Some(0), length: Some(0) });
    }
    (histogram, is_gauge)
}

const CUSTOM_SCHEMA: i32 = -53;

fn custom_buckets(stored: &v1::Histogram) -> Vec<Bucket> {
    let counts = crate::query::Histogram::new(stored).buckets();
    let below = |upper: f64| counts.iter().filter(|bucket| bucket.upper <= upper).map(|bucket| bucket.count).sum();
    let bucket = |upper: f64| {
        let count: f64 = below(upper);
        let (whole, float) = if stored.is_float { (None, Some(count)) } else { (Some(count as u64), None) };
        Bucket { count: whole, upper, count_float: float }
    };
    stored.custom_values.iter().copied().chain([f64::INFINITY]).map(bucket).collect()
}
