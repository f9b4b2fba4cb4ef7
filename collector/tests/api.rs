//! Replies of the read API, byte by byte where clients depend on it.
#![allow(clippy::unwrap_used)]

mod promql_support {
    #![allow(dead_code)]
    pub mod memory;
}

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use lampad_collector::api::{ApiState, BuildInfo, Settings, router};
use lampad_collector::query::{Engine, Features, Limits};
use lampad_collector::store::{Exemplar, Exemplars, Labels};
use tower::ServiceExt;

use lampad_proto::v1::{BucketSpan, Histogram};
use promql_support::memory::Memory;

fn app() -> axum::Router {
    let mut memory = Memory::default();
    for (host, start) in [("a", 0.0), ("b", 100.0)] {
        let jobs = Labels::from_pairs([("__name__", "jobs_total"), ("host", host), ("http.path", "/ä\"x")]);
        let load = Labels::from_pairs([("__name__", "load"), ("host", host)]);
        for tick in 0..10 {
            memory.push(&jobs, tick * 10_000, start + tick as f64);
            memory.push(&load, tick * 10_000, 0.5);
        }
    }
    let waits = Labels::from_pairs([("__name__", "waits")]);
    for tick in 0..3 {
        let histogram = Histogram {
            count: 7,
            sum: 0.5,
            zero_threshold: 0.001,
            zero_count: 2,
            negative_spans: vec![BucketSpan { offset: 0, length: 1 }],
            negative_deltas: vec![1],
            positive_spans: vec![BucketSpan { offset: -1, length: 1 }, BucketSpan { offset: 1, length: 1 }],
            positive_deltas: vec![3, -2],
            ..Histogram::default()
        };
        memory.push_histogram(&waits, tick * 10_000, histogram);
    }
    let state = ApiState {
        source: Arc::new(memory),
        exemplars: exemplars(),
        engine: Engine::new(Limits::default(), Features::default()),
        build: Arc::new(BuildInfo { version: "3.5.0".into(), ..BuildInfo::default() }),
        settings: Settings::default(),
        started: jiff::Timestamp::UNIX_EPOCH,
        arrivals: tokio::sync::watch::channel(lampad_collector::store::Lsn(0)).1,
        live: Arc::new(tokio::sync::Semaphore::new(1)),
    };
    router(state)
}

fn exemplars() -> Arc<Exemplars> {
    let exemplars = Exemplars::default();
    for (host, trace, timestamp_ms) in [("b", "t1", 5_000), ("a", "t2", 10_500), ("a", "t3", 90_000)] {
        let series = Labels::from_pairs([("__name__", "load"), ("host", host)]);
        let labels = Labels::from_pairs([("trace_id", trace)]);
        exemplars.keep(&series, Exemplar { labels, value: 0.25, timestamp_ms }).unwrap();
    }
    Arc::new(exemplars)
}

async fn send(request: Request<Body>) -> (StatusCode, String) {
    let response = app().oneshot(request).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn get(path: &str) -> String {
    let (status, body) = send(Request::get(path).body(Body::empty()).unwrap()).await;
    format!("{} {body}", status.as_u16())
}

#[tokio::test]
async fn exemplars_are_found_by_what_a_query_selects() {
    let path = "/api/v1/query_exemplars?query=rate(load%5B1m%5D)%2Bnothing&start=0&end=60";
    let a = r#"{"seriesLabels":{"__name__":"load","host":"a"},"exemplars":[{"labels":{"trace_id":"t2"},"value":"0.25","timestamp":10.500}]}"#;
    let b = r#"{"seriesLabels":{"__name__":"load","host":"b"},"exemplars":[{"labels":{"trace_id":"t1"},"value":"0.25","timestamp":5}]}"#;
    assert_eq!(get(path).await, format!(r#"200 {{"status":"success","data":[{a},{b}]}}"#));
    assert_eq!(get("/api/v1/query_exemplars?query=nothing").await, r#"200 {"status":"success","data":[]}"#);
    assert!(get("/api/v1/query_exemplars?query=load&start=2&end=1").await.starts_with("400"));
}

#[tokio::test]
async fn federation_is_negotiated() {
    let federated = async |accept: &str| {
        let request = Request::get("/federate?match%5B%5D=waits").header(header::ACCEPT, accept);
        let response = app().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned()
    };
    let protobuf = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
    let wanted = format!("{protobuf}; escaping=allow-utf-8");
    assert_eq!(federated(&format!("{wanted};q=0.9,text/plain;q=0.1")).await, wanted);
    assert_eq!(federated("*/*").await, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores");
}

#[tokio::test]
async fn what_is_not_taken_says_so() {
    let reply = send(Request::post("/api/v1/otlp/v1/metrics").body(Body::empty()).unwrap()).await;
    assert_eq!(reply.0, StatusCode::NOT_IMPLEMENTED);
    assert!(reply.1.contains("OTLP is not taken yet"), "{}", reply.1);
}

#[tokio::test]
async fn answers_are_packed_as_the_client_likes() {
    for encoding in ["gzip", "zstd"] {
        let request =
            Request::get("/api/v1/query?query=load%5B100s%5D&time=90").header(header::ACCEPT_ENCODING, encoding);
        let response = app().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.headers()[header::CONTENT_ENCODING], encoding);
        let magic: &[u8] = if encoding == "gzip" { &[0x1f, 0x8b] } else { &[0x28, 0xb5, 0x2f, 0xfd] };
        assert!(to_bytes(response.into_body(), 1 << 20).await.unwrap().starts_with(magic));
    }
}

#[tokio::test]
async fn results_have_prometheus_form() {
    let mut replies = Vec::new();
    for path in [
        "/api/v1/query?query=load&time=90",
        "/api/v1/query?query=1%2B1&time=12.5",
        "/api/v1/query?query=%22abc%22&time=1",
        "/api/v1/query?query=load%7Bhost%3D%22a%22%7D%5B20s%5D&time=90",
        "/api/v1/query?query=nothing&time=90",
        "/api/v1/query?query=waits&time=20",
        "/api/v1/query?query=waits%5B15s%5D&time=20",
        "/api/v1/query_range?query=waits&start=0&end=10&step=10",
        "/api/v1/query?query=jobs_total&time=90&limit=1",
        "/api/v1/query?query=rate(load%5B1m%5D)&time=90",
        "/api/v1/query_range?query=sum(jobs_total)&start=0&end=30&step=15",
        "/api/v1/series?match[]=load",
        "/api/v1/labels",
        "/api/v1/label/host/values?match[]=load",
        "/api/v1/label/U__http_2e_path/values",
        "/api/v1/metadata",
        "/api/v1/query_exemplars?query=load&start=0&end=1",
        "/api/v1/format_query?query=sum(a)by(b)",
        "/api/v1/parse_query?query=sum(a)",
        "/api/v1/rules",
        "/api/v1/alerts",
        "/api/v1/alertmanagers",
        "/api/v1/targets/metadata",
        "/api/v1/status/buildinfo",
    ] {
        replies.push(format!("{path}\n    {}", get(path).await));
    }
    insta::assert_snapshot!(replies.join("\n"));
}

#[tokio::test]
async fn errors_have_prometheus_form() {
    let mut replies = Vec::new();
    for path in [
        "/api/v1/query",
        "/api/v1/query?query=sum(",
        "/api/v1/query?query=1&time=bad",
        "/api/v1/query?query=1&timeout=bad",
        "/api/v1/query?query=1&limit=-1",
        "/api/v1/query?query=mad_over_time(load%5B1m%5D)",
        "/api/v1/query?query=load*on()load&time=90",
        "/api/v1/query_range?query=1&start=10&end=0&step=1",
        "/api/v1/query_range?query=1&start=0&end=10&step=0",
        "/api/v1/query_range?query=1&start=0&end=11001&step=1",
        "/api/v1/query_range?query=load%5B1m%5D&start=0&end=10&step=1",
        "/api/v1/series",
        "/api/v1/series?match[]=sum(a)",
        "/api/v1/label/%ff/values",
        "/api/v1/rules?type=bad",
        "/federate?match[]=a%7B",
        "/api/v1/nope",
    ] {
        replies.push(format!("{path}\n    {}", get(path).await));
    }
    insta::assert_snapshot!(replies.join("\n"));
}

#[tokio::test]
async fn forms_are_read_and_other_bodies_are_not() {
    let post = |kind: &str, body: &'static str| {
        Request::post("/api/v1/query").header(header::CONTENT_TYPE, kind).body(Body::from(body)).unwrap()
    };
    let (status, body) = send(post("application/x-www-form-urlencoded", "query=7&time=1")).await;
    assert_eq!(
        (status, &*body),
        (StatusCode::OK, r#"{"status":"success","data":{"resultType":"scalar","result":[1,"7"]}}"#)
    );
    let (status, _) = send(post("application/json", r#"{"query":"7"}"#)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _) = send(Request::delete("/api/v1/query").body(Body::empty()).unwrap()).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn admin_paths_say_that_they_are_off() {
    for action in ["delete_series", "clean_tombstones", "snapshot"] {
        let request = Request::post(format!("/api/v1/admin/tsdb/{action}")).body(Body::empty()).unwrap();
        let (status, body) = send(request).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, r#"{"status":"error","errorType":"unavailable","error":"admin APIs disabled"}"#);
    }
}

#[tokio::test]
async fn preflights_are_answered() {
    let request =
        Request::options("/api/v1/query").header(header::ORIGIN, "http://x.example").body(Body::empty()).unwrap();
    let response = app().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
}
