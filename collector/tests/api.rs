//! Replies of the read API, byte by byte where clients depend on it.
#![allow(clippy::unwrap_used)]

mod promql_support {
    #![allow(dead_code)]
    pub mod memory;
}

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use lampad_collector::api::{ApiState, BuildInfo, router};
use lampad_collector::query::{Engine, Features, Limits};
use lampad_collector::store::Labels;
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
        engine: Engine::new(Limits::default(), Features::default()),
        build: Arc::new(BuildInfo { version: "3.5.0".into(), ..BuildInfo::default() }),
        flags: Arc::default(),
        config: "".into(),
        retention: "30d".into(),
        started: jiff::Timestamp::UNIX_EPOCH,
        arrivals: tokio::sync::watch::channel(lampad_collector::store::Lsn(0)).1,
        live: Arc::new(tokio::sync::Semaphore::new(1)),
    };
    router(state)
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
