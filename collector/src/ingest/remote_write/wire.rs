//! The messages of Prometheus' remote-write 1.0 that are rare enough to be decoded as a whole, by the field numbers of its
//! public protocol. The frequent ones are read where they lie, see `request`.

use lampad_proto::v1;

#[derive(Clone, PartialEq, prost::Message)]
pub struct Metadata {
    /// 0 unknown, 1 counter, 2 gauge, 3 histogram, 4 gauge histogram, 5 summary, 6 info, 7 state set.
    #[prost(int32, tag = "1")]
    pub kind: i32,
    #[prost(string, tag = "2")]
    pub family: String,
    #[prost(string, tag = "4")]
    pub help: String,
    #[prost(string, tag = "5")]
    pub unit: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Exemplar {
    /// Of the exemplar, not of its series.
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    #[prost(double, tag = "2")]
    pub value: f64,
    #[prost(int64, tag = "3")]
    pub timestamp: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Label {
    #[prost(bytes = "vec", tag = "1")]
    pub name: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Histogram {
    /// Either this or `count_float`, which makes it a histogram of floats.
    #[prost(uint64, optional, tag = "1")]
    pub count_int: Option<u64>,
    #[prost(double, optional, tag = "2")]
    pub count_float: Option<f64>,
    #[prost(double, tag = "3")]
    pub sum: f64,
    #[prost(sint32, tag = "4")]
    pub schema: i32,
    #[prost(double, tag = "5")]
    pub zero_threshold: f64,
    #[prost(uint64, optional, tag = "6")]
    pub zero_count_int: Option<u64>,
    #[prost(double, optional, tag = "7")]
    pub zero_count_float: Option<f64>,
    #[prost(message, repeated, tag = "8")]
    pub negative_spans: Vec<Span>,
    #[prost(sint64, repeated, tag = "9")]
    pub negative_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "10")]
    pub negative_counts: Vec<f64>,
    #[prost(message, repeated, tag = "11")]
    pub positive_spans: Vec<Span>,
    #[prost(sint64, repeated, tag = "12")]
    pub positive_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "13")]
    pub positive_counts: Vec<f64>,
    /// 0 unknown, 1 yes, 2 no, 3 gauge.
    #[prost(int32, tag = "14")]
    pub reset_hint: i32,
    #[prost(int64, tag = "15")]
    pub timestamp: i64,
    #[prost(double, repeated, tag = "16")]
    pub custom_values: Vec<f64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Span {
    #[prost(sint32, tag = "1")]
    pub offset: i32,
    #[prost(uint32, tag = "2")]
    pub length: u32,
}

impl Histogram {
    pub fn stored(&self) -> v1::Histogram {
        let spans = |spans: &[Span]| {
            spans.iter().map(|span| v1::BucketSpan { offset: span.offset, length: span.length }).collect()
        };
        v1::Histogram {
            is_float: self.count_float.is_some(),
            count: self.count_int.unwrap_or_default(),
            count_float: self.count_float.unwrap_or_default(),
            sum: self.sum,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count_int.unwrap_or_default(),
            zero_count_float: self.zero_count_float.unwrap_or_default(),
            negative_spans: spans(&self.negative_spans),
            negative_deltas: self.negative_deltas.clone(),
            negative_counts: self.negative_counts.clone(),
            positive_spans: spans(&self.positive_spans),
            positive_deltas: self.positive_deltas.clone(),
            positive_counts: self.positive_counts.clone(),
            reset_hint: self.reset_hint,
            custom_values: self.custom_values.clone(),
        }
    }
}

impl Metadata {
    pub fn kind(&self) -> v1::MetricType {
        match self.kind {
            1 => v1::MetricType::Counter,
            2 => v1::MetricType::Gauge,
            3 | 4 => v1::MetricType::Histogram,
            5 => v1::MetricType::Summary,
            6 => v1::MetricType::Info,
            7 => v1::MetricType::Stateset,
            _ => v1::MetricType::Unknown,
        }
    }
}

#[cfg(test)]
pub use whole::{TimeSeries, WireSample, WriteRequest};

/// The other messages, for tests that write requests.
#[cfg(test)]
mod whole {
    use super::{Exemplar, Histogram, Label, Metadata};

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct WriteRequest {
        #[prost(message, repeated, tag = "1")]
        pub timeseries: Vec<TimeSeries>,
        #[prost(message, repeated, tag = "3")]
        pub metadata: Vec<Metadata>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct TimeSeries {
        #[prost(message, repeated, tag = "1")]
        pub labels: Vec<Label>,
        #[prost(message, repeated, tag = "2")]
        pub samples: Vec<WireSample>,
        #[prost(message, repeated, tag = "3")]
        pub exemplars: Vec<Exemplar>,
        #[prost(message, repeated, tag = "4")]
        pub histograms: Vec<Histogram>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct WireSample {
        #[prost(double, tag = "1")]
        pub value: f64,
        #[prost(int64, tag = "2")]
        pub timestamp: i64,
    }
}
