//! The handler over a real store: what is answered, and what is there afterwards.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request as HttpRequest;
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::wire::{Exemplar, Histogram, Label, Metadata, Span, TimeSeries, WireSample, WriteRequest};
use super::*;
use crate::auth::{Access, Rules};
use crate::clock::now_ms;
use crate::fleet::Registry;
use crate::limits::Limits;
use crate::logging::Repeats;
use crate::store::{Budget, GroupId, MatchOp, Matcher, Options, RealDisk, Select, Slot, Source, Store};

struct Site {
    store: Arc<Store>,
    ingest: Arc<Ingest>,
    router: Router,
    exemplars: Arc<Exemplars>,
    _dir: tempfile::TempDir,
}

impl Site {
    fn new(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { limits: limits.clone(), reserve_bytes: 0, ..Options::new(dir.path()) };
        let store = Store::open(options, Arc::new(RealDisk)).unwrap();
        let ingest = Arc::new(Ingest {
            sink: store.clone(),
            registry: Registry::new(100, []),
            telemetry: Arc::default(),
            limits: Arc::new(limits),
            access: Arc::new(Access::new(Rules::default())),
            repeats: Repeats::default(),
            symbols: Arc::default(),
            defining: Default::default(),
            shutdown: CancellationToken::new(),
        });
        let exemplars = Arc::<Exemplars>::default();
        Self { store, router: remote_write_router(ingest.clone(), exemplars.clone()), exemplars, ingest, _dir: dir }
    }

    async fn post(&self, headers: &[(&str, &str)], body: Vec<u8>) -> (u16, String) {
        let request = HttpRequest::post("/api/v1/write");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let reply = self.router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        let status = reply.status().as_u16();
        let text = axum::body::to_bytes(reply.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(text.to_vec()).unwrap())
    }

    async fn write(&self, timeseries: Vec<TimeSeries>) -> (u16, String) {
        self.send(WriteRequest { timeseries, metadata: Vec::new() }).await
    }

    async fn send(&self, request: WriteRequest) -> (u16, String) {
        self.post(&[], packed(&request.encode_to_vec())).await
    }

    /// Samples of a metric as (labels, time, bits of the value).
    fn stored(&self, metric: &str) -> Vec<(String, i64, u64)> {
        let metric = Matcher { name: "__name__".into(), op: MatchOp::Equal, value: metric.into() };
        let budget = Budget::new(u64::MAX, Instant::now() + Duration::from_secs(60));
        let select = Select::Range { from_ms: 0, to_ms: i64::MAX };
        let found = self.store.select(&[metric], select, &budget).unwrap();
        let samples = |series: crate::store::Series| {
            let labels = series.labels.to_string();
            let sample =
                move |sample: crate::store::Sample| (labels.clone(), sample.timestamp_ms, sample.value.to_bits());
            series.floats.iter().map(sample).collect::<Vec<_>>()
        };
        found.into_iter().flat_map(samples).collect()
    }
}

fn packed(message: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(message).unwrap()
}

fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> TimeSeries {
    let label = |(name, value): &(&str, &str)| Label { name: name.as_bytes().into(), value: value.as_bytes().into() };
    let sample = |(timestamp, value): &(i64, f64)| WireSample { timestamp: *timestamp, value: *value };
    TimeSeries {
        labels: labels.iter().map(label).collect(),
        samples: samples.iter().map(sample).collect(),
        ..TimeSeries::default()
    }
}

#[tokio::test]
async fn what_is_written_is_there_in_whatever_order_labels_and_samples_come() {
    let site = Site::new(Limits::default());
    let t = now_ms() - 60_000;
    let labels = [("__name__", "m"), ("instance", "a"), ("job", "j")];
    let turned = [labels[2], labels[0], labels[1]];
    let other = [("__name__", "m"), ("instance", "b"), ("job", "j")];
    let stale = lampad_proto::stale();
    for request in [
        vec![series(&labels, &[(t, 1.0)]), series(&other, &[(t, 2.0), (t + 1000, 3.0)])],
        vec![series(&turned, &[(t + 2000, 1.0), (t + 1000, 1.0)]), series(&other, &[(t + 2000, stale)])],
        vec![series(&labels, &[(t + 2000, 1.0)])],
        vec![],
    ] {
        assert_eq!(site.write(request).await, (204, String::new()));
    }
    let (a, b) = (r#"m{instance="a", job="j"}"#, r#"m{instance="b", job="j"}"#);
    let wanted: Vec<_> = [(a, 0, 1.0), (a, 1000, 1.0), (a, 2000, 1.0), (b, 0, 2.0), (b, 1000, 3.0), (b, 2000, stale)]
        .map(|(labels, at, value): (&str, i64, f64)| (labels.to_owned(), t + at, value.to_bits()))
        .into();
    assert_eq!(site.stored("m"), wanted);
}

#[tokio::test]
async fn of_a_request_that_is_partly_refused_the_rest_is_stored() {
    let limits = Limits { label_value_bytes: 40, series_per_writer: 2, ..Limits::default() };
    let site = Site::new(limits);
    let t = now_ms() - 60_000;
    let long = "x".repeat(41);
    let not_utf8 = TimeSeries {
        labels: vec![Label { name: b"__name__".to_vec(), value: vec![0xff] }],
        ..series(&[], &[(t, 1.0)])
    };
    let spans = vec![Span { offset: 0, length: 9 }];
    let histogram = Histogram { positive_spans: spans, timestamp: t, ..Histogram::default() };
    let (status, text) = site
        .write(vec![
            series(&[("__name__", "m"), ("a", &long)], &[(t, 1.0)]),
            not_utf8,
            series(&[("a", "no name")], &[(t, 1.0)]),
            series(&[("__name__", "m"), ("a", "1"), ("a", "2")], &[(t, 1.0)]),
            TimeSeries { histograms: vec![histogram], ..series(&[("__name__", "m"), ("a", "h")], &[]) },
            series(&[("__name__", "m")], &[(t, 5.0), (t, 6.0), (-7, 1.0), (t + 3_600_000, 1.0)]),
            series(&[("__name__", "m"), ("a", "over")], &[(t, 1.0)]),
        ])
        .await;
    assert_eq!(status, 400, "{text}");
    for part in [
        "9 of 10 samples are refused, the rest is stored:",
        "value of label a is 41 bytes long",
        "is no UTF-8",
        "without a metric name",
        "\"a\" comes twice",
        r#"m{a="h"}: histogram: positive spans name 9 buckets, 0 are there"#,
        "another value at",
        "-7 ms are before 1970",
        "10 minutes ahead",
        "the writer is at --limit-series-per-writer, 2",
    ] {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
    assert_eq!(site.stored("m"), [("m{}".to_owned(), t, 5f64.to_bits())]);
}

#[tokio::test]
async fn what_is_no_request_is_answered_as_the_protocol_says() {
    let site = Site::new(Limits { request_bytes: 1000, ..Limits::default() });
    let good = WriteRequest { timeseries: vec![series(&[("__name__", "m")], &[])], metadata: vec![] }.encode_to_vec();
    let kind = "content-type";
    for (headers, body, status, part) in [
        (&[][..], packed(&good), 204, ""),
        (&[(kind, "application/x-protobuf;proto=prometheus.WriteRequest")], packed(&good), 204, ""),
        (
            &[(kind, "application/x-protobuf;proto=io.prometheus.write.v2.Request")],
            packed(&good),
            415,
            "remote-write 1.0",
        ),
        (&[(kind, "application/json")], packed(&good), 415, "application/json"),
        (&[("content-encoding", "zstd")], packed(&good), 415, "send snappy"),
        (&[], Vec::new(), 400, "no snappy block"),
        (&[], vec![0xff; 40], 400, "no snappy block"),
        (&[], packed(&[0x0a, 0xff]), 400, "cut short"),
        (&[], packed(&[0; 2000]), 400, "at most 1000"),
    ] {
        let answer = site.post(headers, body).await;
        assert!(answer.0 == status && answer.1.contains(part), "{headers:?}: {answer:?}");
    }
}

#[tokio::test]
async fn metadata_may_come_after_the_series() {
    let site = Site::new(Limits::default());
    let part = || series(&[("__name__", "h_seconds_count")], &[(now_ms(), 1.0)]);
    assert_eq!(site.write(vec![part()]).await.0, 204);
    let family = Metadata { kind: 3, family: "h_seconds".into(), help: "How long.".into(), unit: "seconds".into() };
    let request = WriteRequest { timeseries: vec![], metadata: vec![family] };
    assert_eq!(site.send(request).await.0, 204);
    assert_eq!(site.write(vec![part()]).await.0, 204);
    let metadata = site.store.metadata(None);
    assert!(matches!(&metadata[..], [(name, meta)] if &**name == "h_seconds_count" && &*meta.help == "How long."));
}

#[tokio::test]
async fn a_series_that_was_forgotten_meanwhile_is_defined_anew() {
    let site = Site::new(Limits::default());
    let t = now_ms() - 1000;
    assert_eq!(site.write(vec![series(&[("__name__", "other")], &[(t, 1.0)])]).await.0, 204);
    let receiver = Receiver::new(site.ingest.clone(), Arc::default());
    let request = WriteRequest { timeseries: vec![series(&[("__name__", "m")], &[(t, 2.0)])], metadata: vec![] };
    let message = request.encode_to_vec();
    // As if the retention had taken the series: its place leads nowhere.
    let known = receiver.known.fingerprint(&Request::read(&message).unwrap().series[0].labels);
    receiver.known.add([(known, (GroupId(0), Slot(77)))]);
    let (lsn, refused) = receiver.store(&message).unwrap();
    assert!(lsn.is_some() && refused.is_none(), "{refused:?}");
    assert_eq!(site.stored("m"), [("m{}".to_owned(), t, 2f64.to_bits())]);
}

#[tokio::test]
async fn exemplars_are_kept_beside_the_samples() {
    let site = Site::new(Limits::default());
    let t = now_ms() - 60_000;
    let label = |name: &str, value: &str| Label { name: name.into(), value: value.into() };
    let exemplar = |trace: &str, timestamp| Exemplar { labels: vec![label("trace_id", trace)], value: 0.25, timestamp };
    let mut with = series(&[("__name__", "m_bucket"), ("le", "1")], &[(t, 1.0)]);
    with.exemplars = vec![exemplar("a", t), exemplar(&"x".repeat(200), t), exemplar("b", t + 1)];
    let without = series(&[("__name__", "other")], &[(t, 1.0)]);
    assert_eq!(site.write(vec![without, with]).await.0, 204);
    let of = |metric: &str| vec![Matcher { name: "__name__".into(), op: MatchOp::Equal, value: metric.into() }];
    let found = site.exemplars.select(&[of("m_bucket")], 0, i64::MAX);
    let traces: Vec<_> = found[0].1.iter().map(|e| (e.labels.to_string(), e.timestamp_ms)).collect();
    assert_eq!(found[0].0.to_string(), r#"m_bucket{le="1"}"#);
    assert_eq!(traces, [(r#"{trace_id="a"}"#.to_owned(), t), (r#"{trace_id="b"}"#.to_owned(), t + 1)]);
}
