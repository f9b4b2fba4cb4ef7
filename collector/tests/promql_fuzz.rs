//! Random queries over random series: the engine against a plain evaluator, over a list of series and over a store that has
//! sealed and folded some of them and got others late. `LAMPAD_SEED` repeats a run, `LAMPAD_FUZZ` sets how many queries.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod promql_support {
    #![allow(dead_code)]
    pub mod memory;
    pub mod naive;
    pub mod query;
}

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lampad_collector::query::{Engine, Features, Limits, Output, Row, Span, is_absent, parse};
use lampad_collector::store::{
    AgentId, Batch, Budget, Clock, GroupId, GroupKey, Labels, Options, RealDisk, Run, SeriesKey, Slot, Source, Store,
    TickBatch, Value, WriteMode,
};
use lampad_proto::v1::{BucketSpan, Histogram};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use promql_support::memory::Memory;
use promql_support::naive;
use promql_support::query::Query;

const LAST_MS: i64 = 1_200_000;
/// For sealing and folding.
const PATIENCE: Duration = Duration::from_secs(60);

/// Counters and gauges at uneven times, with gaps, restarts and stale markers, and native histograms.
fn random_series(rng: &mut StdRng) -> Memory {
    let mut memory = Memory::default();
    for name in ["a_total", "b_total", "waits"] {
        for host in ["h1", "h2", "h3"] {
            for disk in ["x", "y"] {
                if rng.random_bool(0.2) {
                    continue;
                }
                let labels = Labels::from_pairs([("__name__", name), ("host", host), ("disk", disk)]);
                let mut value: f64 = 0.0;
                let mut at_ms = rng.random_range(0..20_000);
                while at_ms < LAST_MS {
                    match rng.random_range(0..40) {
                        0 if name != "waits" => memory.push(&labels, at_ms, lampad_proto::stale()),
                        1 => at_ms += 400_000,
                        2 => value = 0.0,
                        _ => {
                            value += f64::from(rng.random_range(0..8_i32));
                            match name {
                                "waits" => memory.push_histogram(&labels, at_ms, histogram(value, rng)),
                                _ => memory.push(&labels, at_ms, value),
                            }
                        }
                    }
                    at_ms += rng.random_range(5_000..15_000);
                }
            }
        }
    }
    memory
}

fn histogram(count: f64, rng: &mut StdRng) -> Histogram {
    let low = rng.random_range(0..=count as i64);
    Histogram {
        count: count as u64,
        sum: count * 0.25,
        schema: 1,
        positive_spans: vec![BucketSpan { offset: rng.random_range(-2..3), length: 2 }],
        positive_deltas: vec![low, count as i64 - 2 * low],
        ..Histogram::default()
    }
}

/// The same samples in a store: most in order, some late, sealed now and then, folded once.
fn stored(memory: &Memory, rng: &mut StdRng, directory: &std::path::Path) -> Arc<Store> {
    let options = Options { clock: Clock::new(|| LAST_MS + 60_000), ..Options::new(directory) };
    let store = Store::open(options, Arc::new(RealDisk)).unwrap();
    let mut samples: Vec<(i64, GroupId, Slot, Value)> = Vec::new();
    for host in ["h1", "h2", "h3"] {
        let key = GroupKey { agent: AgentId([7; 16]), name: host.into() };
        let group = store.define_group(key, WriteMode::Stated).unwrap();
        let of_host =
            memory.series.iter().filter(|series| series.labels.get("host").is_some_and(|name| **name == *host));
        for series in of_host {
            let key = SeriesKey { labels: series.labels.clone(), meta: None };
            let slot = store.define_series(group, &[key]).remove(0).unwrap();
            let floats = series.floats.iter().map(|sample| (sample.timestamp_ms, Value::Float(sample.value)));
            let histograms =
                series.histograms.iter().map(|(at_ms, histogram)| (*at_ms, Value::Histogram(histogram.clone())));
            samples.extend(floats.chain(histograms).map(|(at_ms, value)| (at_ms, group, slot, value)));
        }
    }
    let mut arrival: Vec<(i64, usize)> = samples
        .iter()
        .enumerate()
        .map(|(at, (at_ms, ..))| (at_ms + if rng.random_bool(0.1) { rng.random_range(0..600_000) } else { 0 }, at))
        .collect();
    arrival.sort_unstable();
    let (fold_at, many) = (rng.random_range(0..arrival.len().max(1)), arrival.len());
    for (number, (_, at)) in arrival.into_iter().enumerate() {
        let (timestamp_ms, group, slot, value) = samples[at].clone();
        let tick = TickBatch { group, timestamp_ms, run: Run::Live, key: false, values: vec![(slot, value)] };
        store.append(&Batch { frame: None, ticks: vec![tick] }).unwrap();
        if number == fold_at {
            assert!(store.compact(PATIENCE));
        } else if rng.random_range(0..many) < 3 {
            assert!(store.seal(PATIENCE));
        }
    }
    store
}

/// What a run was like, for a look at whether it tested anything.
#[derive(Debug, Default)]
struct Tally {
    answered: u64,
    refused: u64,
    cells: u64,
}

struct Fuzz {
    seed: u64,
    rng: StdRng,
    engine: Engine,
    features: Features,
    tally: Tally,
}

impl Fuzz {
    fn new() -> Self {
        let seed = number("LAMPAD_SEED").unwrap_or_else(|| rand::rng().random());
        println!("LAMPAD_SEED={seed}");
        let features = Features { delayed_name_removal: false, ..Features::ALL };
        let engine = Engine::new(Limits::default(), features);
        Self { seed, rng: StdRng::seed_from_u64(seed), engine, features, tally: Tally::default() }
    }

    /// One query over `source`, which holds what `memory` does.
    fn ask(&mut self, turn: u64, memory: &Memory, source: &dyn Source) {
        let rng = &mut self.rng;
        let query = Query::random(rng, 3);
        let (start_ms, step_ms) = (rng.random_range(0..300_000), rng.random_range(1_000..60_000));
        let steps = if rng.random_bool(0.25) { 1 } else { 15 };
        let span = match steps {
            1 => Span::Instant { at_ms: start_ms },
            _ => Span::Range { start_ms, end_ms: start_ms + (steps - 1) * step_ms, step_ms },
        };
        let text = query.text();
        let context =
            format!("LAMPAD_SEED={}, query {turn}: {text} from {start_ms} step {step_ms} x {steps}", self.seed);
        let times = (0..steps).map(|step| start_ms + step * step_ms);
        let plain: Result<Vec<_>, _> = times.map(|at_ms| naive::eval(&query, memory, at_ms)).collect();
        let budget = Budget::new(50_000_000, Instant::now() + Duration::from_secs(60));
        let expr = parse(&text, self.features).unwrap_or_else(|error| panic!("{context}: {error}"));
        match (plain, self.engine.run(source, &expr, span, None, &budget)) {
            (Err(_), Err(_)) => self.tally.refused += 1,
            (Ok(plain), Ok(ours)) => {
                let (Output::Matrix { rows, .. } | Output::Vector { rows, .. }) = ours.output else {
                    panic!("{context}: no rows")
                };
                self.tally.cells += compare(&plain, &rows, &context);
                self.tally.answered += 1;
            }
            // A function of ranges looks for two series of one name over all steps, as in Prometheus; the plain one at each.
            (Ok(_), Err(error)) if error.to_string().contains("same labelset") => self.tally.refused += 1,
            (plain, ours) => panic!("{context}: plain {:?}, ours {:?}", plain.is_ok(), ours.map(|_| ())),
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// How many cells there were; panics at the first that differs.
fn compare(plain: &[BTreeMap<Labels, f64>], rows: &[Row], context: &str) -> u64 {
    let mut cells = 0;
    for (step, wanted) in plain.iter().enumerate() {
        let got = rows.iter().map(|row| (row.labels.clone(), row.cells[step])).filter(|(_, cell)| !is_absent(*cell));
        let got: BTreeMap<Labels, f64> = got.collect();
        assert_eq!(got.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>(), "{context}, step {step}");
        for (labels, value) in wanted {
            let cell = got[labels];
            let near = (cell - value).abs() <= 1e-6 * value.abs().max(cell.abs()).max(1e-3);
            let same = cell == *value || near || (cell.is_nan() && value.is_nan());
            assert!(same, "{context}, step {step}: {labels} is {cell}, should be {value}");
            cells += 1;
        }
    }
    cells
}

#[test]
fn engine_agrees_with_the_plain_evaluator() {
    let (mut fuzz, queries) = (Fuzz::new(), number("LAMPAD_FUZZ").unwrap_or(3_000));
    let mut memory = Memory::default();
    for turn in 0..queries {
        if turn % 50 == 0 {
            memory = random_series(&mut fuzz.rng);
        }
        fuzz.ask(turn, &memory, &memory);
    }
    println!("{:?}", fuzz.tally);
    assert!(fuzz.tally.answered > queries / 2 && fuzz.tally.cells > queries);
}

#[test]
fn a_store_agrees_with_the_plain_evaluator() {
    let (mut fuzz, queries) = (Fuzz::new(), number("LAMPAD_FUZZ").unwrap_or(1_000));
    let queries_each = 250;
    for first in (0..queries).step_by(queries_each) {
        let directory = tempfile::tempdir().unwrap();
        let memory = random_series(&mut fuzz.rng);
        let store = stored(&memory, &mut fuzz.rng, directory.path());
        for turn in (first..queries).take(queries_each) {
            fuzz.ask(turn, &memory, &*store);
        }
        store.shutdown();
    }
    println!("{:?}", fuzz.tally);
    assert!(fuzz.tally.answered > queries / 2 && fuzz.tally.cells > queries);
}
