//! What one query may use: each limit ends it with Prometheus' error, and nobody else feels it.
#![allow(clippy::unwrap_used)]

mod promql_support {
    #![allow(dead_code)]
    pub mod around;
    pub mod memory;
}

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lampad_collector::query::{Engine, Features, Limits, QueryError, Request, Span, parse_selectors};
use lampad_collector::store::{Budget, Labels, Select, SelectError, Source};
use lampad_proto::v1::{BucketSpan, Histogram};

use promql_support::around::{Around, Wrapped};
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

/// Columns are as long as a query says, whether there is data or not: their length is looked at before they are made.
#[tokio::test]
async fn steps_are_counted_before_room_for_them_is_made() {
    for text in [
        "max_over_time(vector(1)[10y:1ms])",
        "max_over_time(absent(nope)[10y:1ms])",
        "max_over_time(vector(time())[10y:1ms])",
        "max_over_time(year()[10y:1ms])",
        "max_over_time(clamp(vector(1), 1, 2)[10y:1ms])",
    ] {
        match ask(Limits::default(), text).await {
            Err(QueryError::Execution(error)) => assert!(error.contains("too many samples into memory"), "{error}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    // Where samples would do, bytes may not.
    for text in ["max_over_time(vector(time())[1d:1s])", "max_over_time(absent(nope)[1d:1s])"] {
        match ask(Limits { bytes: 500_000, ..Limits::default() }, text).await {
            Err(QueryError::Execution(error)) => assert!(error.contains("too much memory"), "{error}"),
            other => panic!("{text}: {other:?}"),
        }
        ask(Limits::default(), text).await.unwrap();
    }
}

/// A histogram is one sample and may be as large as thousands.
#[tokio::test]
async fn histograms_count_with_all_they_hold() {
    let source: Arc<dyn Source> = {
        let mut memory = Memory::default();
        let waits = Labels::from_pairs([("__name__", "waits")]);
        for tick in 0..100 {
            let histogram = Histogram {
                count: 1000,
                positive_spans: vec![BucketSpan { offset: tick, length: 1000 }],
                positive_deltas: std::iter::once(1).chain(std::iter::repeat_n(0, 999)).collect(),
                ..Histogram::default()
            };
            memory.push_histogram(&waits, i64::from(tick) * 1000, histogram);
        }
        Arc::new(memory)
    };
    for text in ["histogram_count(waits)", "count_over_time(waits[10s])", "histogram_sum(rate(waits[20s]))"] {
        for (bytes, fits) in [(1_000_000, false), (20_000_000, true)] {
            let engine = Engine::new(Limits { bytes, ..Limits::default() }, Features::default());
            match engine.query(source.clone(), request(text)).await {
                Ok(_) => assert!(fits, "{text}"),
                Err(error) => assert!(!fits && error.to_string().contains("too much memory"), "{text}: {error}"),
            }
        }
    }
}

/// What is made out of few samples counts as what was read does.
#[tokio::test]
async fn rows_that_multiply_are_counted() {
    let buckets =
        "(label_replace(load, \"le\", \"1\", \"\", \"\") or label_replace(load, \"le\", \"+Inf\", \"\", \"\"))";
    for (text, bytes) in [
        // A hundred values, each a row of a hundred steps.
        ("count_values(\"v\", load)".to_owned(), 90_000),
        // Ten histograms, a hundred quantiles.
        (format!("histogram_quantiles({buckets}, \"q\", scalar(vector(time() / 100)))"), 300_000),
        // As many products as rows on either side.
        ("load * on (host) group_left load".to_owned(), 50_000),
    ] {
        let ask = |bytes| {
            let engine = Engine::new(Limits { bytes, ..Limits::default() }, Features::ALL);
            let text = text.clone();
            async move { engine.query(source(), request(&text)).await }
        };
        match ask(bytes).await {
            Err(QueryError::Execution(error)) => assert!(error.contains("too much memory"), "{error}"),
            other => panic!("{text}: {:?}", other.map(|answer| answer.samples)),
        }
        ask(20 * bytes).await.unwrap();
    }
}

/// A store whose reader leaves while it is answered.
struct Leaving(Memory);

impl Around for Leaving {
    fn ask<T>(&self, question: impl FnOnce(&dyn Source) -> T) -> T {
        question(&self.0)
    }

    fn after(&self, budget: &Budget) {
        budget.cancel();
    }
}

/// Between reading and answering lies work that may take long; it ends too.
#[tokio::test]
async fn work_on_rows_ends_when_nobody_waits_for_it() {
    let mut memory = Memory::default();
    for host in 0..300 {
        let labels = Labels::from_pairs([("__name__", "load"), ("host", &*host.to_string())]);
        (0..100).for_each(|tick| memory.push(&labels, tick * 1000, tick as f64));
    }
    let source: Arc<dyn Source> = Arc::new(Wrapped(Leaving(memory)));
    let engine = Engine::new(Limits::default(), Features::default());
    for text in ["count_values(\"v\", load)", "absent(load)", "vector(scalar(load))"] {
        let ended = engine.query(source.clone(), request(text)).await;
        assert!(matches!(ended, Err(QueryError::Cancelled)), "{text}: {:?}", ended.map(|answer| answer.samples));
    }
}

/// Many small patterns, or one that is small to write, are refused before they are made into something large.
#[tokio::test]
async fn regular_expressions_are_bounded() {
    for text in [
        "load{host=~\"\\\\pL{1000}\"}".to_owned(),
        format!("load{{{}}}", ["host=~\"\\\\w{1,500}.{400}\""; 900].join(",")),
    ] {
        match ask(Limits::default(), &text).await {
            Err(QueryError::Bad(error)) => assert!(error.contains("states in all"), "{error}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(parse_selectors(["load{host=~\".{900}\"}"; 100]).is_err());
    assert!(parse_selectors(["load"; 1001]).is_err());
}

/// The deepest tree is not only read but evaluated, in a debug build too, whose frames are the largest.
#[tokio::test]
async fn the_deepest_queries_are_evaluated() {
    for text in [
        format!("{}load{}", "(".repeat(1990), ")".repeat(1990)),
        format!("{}load", "-".repeat(1990)),
        format!("{}vector(1){}", "abs(".repeat(1990), ")".repeat(1990)),
        format!("{}load{}", "sum(".repeat(1990), ")".repeat(1990)),
        format!("load{}", " + 1".repeat(1990)),
        format!("load{}", " and load".repeat(900)),
        format!("1{}", " ^ 1".repeat(1990)),
        format!("{}load{}", "max_over_time(".repeat(600), "[1s:1s])".repeat(600)),
    ] {
        let span = Span::Instant { at_ms: 5000 };
        let request = Request { text: text.clone(), span, timeout: None, lookback: None };
        let answer = Engine::new(Limits::default(), Features::ALL).query(source(), request).await;
        assert!(answer.is_ok(), "{}...: {:?}", &text[..40], answer.err());
    }
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

impl Around for Endless {
    fn ask<T>(&self, question: impl FnOnce(&dyn Source) -> T) -> T {
        question(&Memory::default())
    }

    fn before(&self, budget: &Budget) -> Result<(), SelectError> {
        self.running.fetch_add(1, Ordering::SeqCst);
        loop {
            if let Err(error) = budget.check() {
                self.stopped.fetch_add(1, Ordering::SeqCst);
                return Err(error);
            }
            std::thread::yield_now();
        }
    }
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
    let endless = Arc::new(Wrapped(Endless::default()));
    let asked = tokio::spawn({
        let (engine, source) = (engine.clone(), endless.clone());
        async move { engine.query(source, request("load")).await.map(|_| ()) }
    });
    until(|| endless.0.running.load(Ordering::SeqCst) == 1).await;
    // The only place is taken: the next one waits, here not for long.
    let impatient = Request { timeout: Some(Duration::from_millis(1)), ..request("load") };
    assert!(matches!(engine.query(source(), impatient).await, Err(QueryError::TimedOut)));
    asked.abort();
    until(|| endless.0.stopped.load(Ordering::SeqCst) == 1).await;
    engine.query(source(), request("load")).await.unwrap();
}

/// What is looked up without a query ends as queries do, and has as many places.
#[tokio::test]
async fn lookups_end_when_nobody_waits_for_them() {
    let engine = Engine::new(Limits { concurrency: 1, ..Limits::default() }, Features::default());
    let endless = Arc::new(Wrapped(Endless::default()));
    let look_up = |source: Arc<dyn Source>| {
        let engine = engine.clone();
        let all = Select::Range { from_ms: 0, to_ms: 1 };
        async move { engine.look_up(source, move |source, budget| source.select(&[], all, budget)).await.map(|_| ()) }
    };
    let asked = tokio::spawn(look_up(endless.clone()));
    until(|| endless.0.running.load(Ordering::SeqCst) == 1).await;
    // The place of lookups is taken, that of queries is not.
    engine.query(source(), request("load")).await.unwrap();
    asked.abort();
    until(|| endless.0.stopped.load(Ordering::SeqCst) == 1).await;
    look_up(source()).await.unwrap();
}
