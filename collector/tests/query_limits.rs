//! What one query may use: each limit ends it with Prometheus' error, and nobody else feels it.
#![allow(clippy::unwrap_used)]

mod promql_support {
    #![allow(dead_code)]
    pub mod memory;
}

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lampad_collector::query::{Engine, Features, Limits, QueryError, Request, Span};
use lampad_collector::store::{Budget, Labels, Matcher, Meta, Select, SelectError, Series, Source, Visit};

use promql_support::memory::Memory;

/// Ten series of a hundred samples each.
fn source() -> Arc<dyn Source> {
    let mut memory = Memory::default();
    for host in 0..10 {
        let labels = Labels::from_pairs([("__name__", "load"), ("host", &*host.to_string())]);
        (0..100).for_each(|tick| memory.push(&labels, tick * 1000, tick as f64));
    }
    Arc::new(memory)
}

fn request(text: &str) -> Request {
    let span = Span::Range { start_ms: 0, end_ms: 99_000, step_ms: 1000 };
    Request { text: text.to_owned(), span, timeout: None, lookback: None }
}

async fn ask(limits: Limits, text: &str) -> Result<(), QueryError> {
    Engine::new(limits, Features::default()).query(source(), request(text)).await.map(|_| ())
}

#[tokio::test]
async fn each_limit_ends_a_query_with_its_own_error() {
    let enough = || Limits { series: 10, samples: 1000, bytes: 100_000, ..Limits::default() };
    ask(enough(), "load").await.unwrap();
    for (limits, reason) in [
        (Limits { series: 9, ..enough() }, "too many series"),
        (Limits { samples: 999, ..enough() }, "too many samples into memory"),
        // 1000 samples of 16 bytes, and as many cells of 8.
        (Limits { bytes: 23_999, ..enough() }, "too much memory"),
    ] {
        match ask(limits, "load").await {
            Err(QueryError::Execution(text)) => assert!(text.contains(reason), "{text}"),
            other => panic!("{reason}: {other:?}"),
        }
    }
    // Twice the selector is twice the work.
    assert!(ask(enough(), "load + load").await.is_err());
}

#[tokio::test]
async fn time_ends_a_query() {
    let limits = Limits { timeout: Duration::ZERO, ..Limits::default() };
    assert!(matches!(ask(limits, "load").await, Err(QueryError::TimedOut)));
}

/// A store that answers only when it is told to stop.
#[derive(Default)]
struct Endless {
    running: AtomicUsize,
    stopped: AtomicUsize,
}

impl Source for Endless {
    fn select(&self, _: &[Matcher], _: Select, budget: &Budget) -> Result<Vec<Series>, SelectError> {
        self.running.fetch_add(1, Ordering::SeqCst);
        loop {
            if let Err(error) = budget.check() {
                self.stopped.fetch_add(1, Ordering::SeqCst);
                return Err(error);
            }
            std::thread::yield_now();
        }
    }

    fn series(&self, _: &[Vec<Matcher>], _: i64, _: i64) -> Result<Vec<Labels>, SelectError> {
        Ok(Vec::new())
    }

    fn label_names(&self, _: &[Vec<Matcher>], _: i64, _: i64) -> Result<Vec<Arc<str>>, SelectError> {
        Ok(Vec::new())
    }

    fn label_values(&self, _: &str, _: &[Vec<Matcher>], _: i64, _: i64) -> Result<Vec<Arc<str>>, SelectError> {
        Ok(Vec::new())
    }

    fn metadata(&self, _: Option<&str>) -> Vec<(Arc<str>, Meta)> {
        Vec::new()
    }

    fn latest(&self, _: &[Vec<Matcher>], _: Visit<'_>) {}
}

async fn until(holds: impl Fn() -> bool) {
    tokio::time::timeout(Duration::from_secs(60), async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_query_ends_when_nobody_waits_for_it_and_leaves_its_place() {
    let engine = Engine::new(Limits { concurrency: 1, ..Limits::default() }, Features::default());
    let endless = Arc::new(Endless::default());
    let asked = tokio::spawn({
        let (engine, source) = (engine.clone(), endless.clone());
        async move { engine.query(source, request("load")).await.map(|_| ()) }
    });
    until(|| endless.running.load(Ordering::SeqCst) == 1).await;
    // The only place is taken: the next one waits, here not for long.
    let impatient = Request { timeout: Some(Duration::from_millis(1)), ..request("load") };
    assert!(matches!(engine.query(source(), impatient).await, Err(QueryError::TimedOut)));
    asked.abort();
    until(|| endless.stopped.load(Ordering::SeqCst) == 1).await;
    engine.query(source(), request("load")).await.unwrap();
}
