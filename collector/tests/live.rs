//! Live queries: a result at once, another one when samples come that the query selects, and an end with a reason.
#![allow(clippy::unwrap_used)]

mod promql_support {
    #![allow(dead_code)]
    pub mod around;
    pub mod memory;
}

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::http::{Request, StatusCode};
use axum::response::Response;
use futures::StreamExt;
use lampad_collector::api::{ApiState, BuildInfo, Settings, router};
use lampad_collector::query::{Engine, Features, Limits};
use lampad_collector::store::{Labels, Lsn, Source};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tower::ServiceExt;

use promql_support::around::{Around, Wrapped};
use promql_support::memory::Memory;

/// A list of series that grows while it is read.
#[derive(Default)]
struct Growing(Mutex<Memory>);

impl Around for Growing {
    fn ask<T>(&self, question: impl FnOnce(&dyn Source) -> T) -> T {
        question(&*self.0.lock())
    }
}

struct Server {
    source: Arc<Wrapped<Growing>>,
    arrivals: watch::Sender<Lsn>,
    router: Router,
    at_ms: i64,
}

impl Server {
    fn new(places: usize) -> Self {
        let source = Arc::new(Wrapped(Growing::default()));
        let (arrivals, seen) = watch::channel(Lsn(0));
        let router = router(ApiState {
            source: source.clone(),
            exemplars: Arc::default(),
            engine: Engine::new(Limits::default(), Features::default()),
            build: Arc::new(BuildInfo::default()),
            settings: Settings::default(),
            started: jiff::Timestamp::UNIX_EPOCH,
            arrivals: seen,
            live: Arc::new(Semaphore::new(places)),
        });
        Self { source, arrivals, router, at_ms: jiff::Timestamp::now().as_millisecond() - 60_000 }
    }

    /// A sample newer than all before.
    fn push(&mut self, name: &str, value: f64) {
        self.at_ms += 1;
        self.source.0.0.lock().push(&Labels::from_pairs([("__name__", name)]), self.at_ms, value);
        self.arrivals.send_modify(|lsn| lsn.0 += 1);
    }

    async fn open(&self, query: &str) -> Response {
        let request = Request::get(format!("/api/v1/live?query={query}&interval=0.1")).body(Body::empty()).unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }
}

struct Events(BodyDataStream);

impl Events {
    fn of(response: Response) -> Self {
        assert_eq!(response.status(), StatusCode::OK);
        Self(response.into_body().into_data_stream())
    }

    /// The next event with its data; comments that keep the stream alive are left out.
    async fn next(&mut self) -> Option<String> {
        loop {
            let bytes = tokio::time::timeout(Duration::from_secs(60), self.0.next()).await.unwrap()?.unwrap();
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            if !text.starts_with(':') {
                return Some(text);
            }
        }
    }
}

#[tokio::test]
async fn results_come_at_once_and_when_selected_samples_arrive() {
    let mut server = Server::new(1);
    server.push("load", 1.0);
    let mut events = Events::of(server.open("load%2B1").await);
    let first = events.next().await.unwrap();
    assert!(first.starts_with("event: result\n") && first.contains("\"2\"]"), "{first}");
    // What the query does not select pushes nothing: the next event is of the next sample of `load`.
    server.push("other", 5.0);
    server.push("load", 7.0);
    let second = events.next().await.unwrap();
    assert!(second.contains("\"8\"]"), "{second}");
}

#[tokio::test]
async fn places_are_bounded_and_come_back() {
    let mut server = Server::new(1);
    server.push("load", 1.0);
    let mut events = Events::of(server.open("load").await);
    events.next().await.unwrap();
    assert_eq!(server.open("load").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    drop(events);
    // The place is free once what was asked for the reader has ended.
    let again = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let response = server.open("load").await;
            if response.status() == StatusCode::OK {
                return response;
            }
            tokio::task::yield_now().await;
        }
    });
    Events::of(again.await.unwrap()).next().await.unwrap();
}

#[tokio::test]
async fn wrong_queries_are_refused_before_the_stream() {
    let server = Server::new(1);
    for wrong in ["", "sum(", "load&interval=0.01"] {
        assert_eq!(server.open(wrong).await.status(), StatusCode::BAD_REQUEST, "{wrong}");
    }
}

/// The clock stands still but for the waits, so that nothing here takes its time.
#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_is_let_go_and_told_why() {
    let mut server = Server::new(1);
    server.push("load", 0.0);
    let mut events = Events::of(server.open("load").await);
    for value in 0..40 {
        server.push("load", f64::from(value));
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let mut results = 0;
    let last = loop {
        match events.next().await.unwrap() {
            result if result.starts_with("event: result") => results += 1,
            other => break other,
        }
    };
    assert!(last.starts_with("event: end") && last.contains("takes no results"), "{last}");
    assert!(results <= 5, "{results} results waited");
    assert!(events.next().await.is_none());
}
