//! Queries on a store whose raw samples are partly gone, and on one that keeps them all: where the first has no remark, both
//! say the same.
//!
//! Random series with resets, gaps, ends, stale markers, late samples and deletions go into both; tiers are built, partitions
//! folded and stores reopened in between. `LAMPAD_TIER_CASES=200` for a long run, `LAMPAD_TIER_SEED=7` for one case.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use lampad_collector::query::{Answer, Engine, Features, Limits, Output, Span, parse};
use lampad_collector::store::{
    AgentId, Batch, Budget, Clock, FrameId, GroupId, GroupKey, Labels, MatchOp, Matcher, Options, RealDisk, Run,
    SeriesKey, Slot, Store, TickBatch, Value, WriteMode,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// On the grid of both tiers.
const START_MS: i64 = 1_700_000_100_000 / 300_000 * 300_000;
const WITHIN: Duration = Duration::from_secs(60);
const DELTA: [&str; 5] = ["counter_total", "gauge", "constant", "comes_and_goes", "huge"];
const STATED: [&str; 2] = ["stated_total", "sparse"];
const PARTS: i64 = 12;

/// One store with its clock.
struct Side {
    dir: tempfile::TempDir,
    options: Box<dyn Fn(&std::path::Path) -> Options>,
    store: Option<Arc<Store>>,
    groups: [GroupId; 2],
    slots: [Vec<Slot>; 2],
}

impl Side {
    fn new(options: impl Fn(&std::path::Path) -> Options + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut side = Self {
            dir,
            options: Box::new(options),
            store: None,
            groups: [GroupId(0); 2],
            slots: [Vec::new(), Vec::new()],
        };
        side.open();
        side
    }

    fn open(&mut self) {
        if let Some(store) = self.store.take() {
            assert!(store.shutdown());
        }
        let store = Store::open((self.options)(self.dir.path()), Arc::new(RealDisk)).unwrap();
        let kinds = [(WriteMode::Delta, &DELTA[..]), (WriteMode::Stated, &STATED[..])];
        for (at, (mode, names)) in kinds.into_iter().enumerate() {
            let key = GroupKey { agent: AgentId([at as u8; 16]), name: "test".into() };
            self.groups[at] = store.define_group(key, mode).unwrap();
            let labels = |name: &&str| Labels::from_pairs([("__name__", *name), ("host", "a")]);
            let keys: Vec<SeriesKey> =
                names.iter().map(|name| SeriesKey { labels: labels(name), meta: None }).collect();
            let slots = store.define_series(self.groups[at], &keys);
            self.slots[at] = slots.into_iter().map(|slot| slot.unwrap()).collect();
        }
        self.store = Some(store);
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn append(&self, which: usize, sequence: Option<u64>, at_ms: i64, late: bool, key: bool, values: &[(usize, f64)]) {
        let values = values.iter().map(|(at, value)| (self.slots[which][*at], Value::Float(*value))).collect();
        let run = if late { Run::Backfill } else { Run::Live };
        let tick = TickBatch { group: self.groups[which], timestamp_ms: at_ms, run, key, values };
        let frame = sequence.map(|sequence| FrameId { agent: AgentId([0; 16]), epoch: 1, sequence });
        self.store().append(&Batch { frame, ticks: vec![tick] }).unwrap();
    }

    fn query(&self, text: &str, span: Span) -> Answer {
        let features = Features::ALL;
        let limits = Limits { samples: u64::MAX, bytes: u64::MAX, ..Limits::default() };
        let engine = Engine::new(limits, features);
        let budget = Budget::new(u64::MAX, Instant::now() + WITHIN);
        engine.run(self.store(), &parse(text, features).unwrap(), span, None, &budget).unwrap()
    }
}

struct Bench {
    random: StdRng,
    clock: Arc<AtomicI64>,
    /// Raw samples for a while, tiers for ever; and raw samples for ever.
    tiered: Side,
    whole: Side,
    step_ms: i64,
    span_ms: i64,
    retention_ms: i64,
    sequence: u64,
    counters: [f64; 2],
    key: bool,
    present: bool,
    /// Of these, windows with something that was deleted are gone whole.
    erased: Vec<&'static str>,
    /// Comparisons, and those of them that tiers alone could answer.
    compared: [u32; 2],
}

impl Bench {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let step_ms = [5_000, 10_000, 15_000, 9_700, 30_000][random.random_range(0..5)];
        let span_ms = (step_ms * random.random_range(1_500..2_500)).max(6 * 3_600_000);
        let retention_ms = span_ms / 3;
        let clock = Arc::new(AtomicI64::new(START_MS));
        let options = |clock: Arc<AtomicI64>, retention_ms: i64, tiers: [Option<Duration>; 2]| {
            move |dir: &std::path::Path| {
                let clock = clock.clone();
                Options {
                    retention: Duration::from_millis(retention_ms as u64),
                    tiers,
                    reserve_bytes: 0,
                    clock: Clock::new(move || clock.load(Ordering::SeqCst)),
                    ..Options::new(dir)
                }
            }
        };
        Self {
            tiered: Side::new(options(clock.clone(), retention_ms, [Some(Duration::ZERO); 2])),
            whole: Side::new(options(clock.clone(), 0, [None; 2])),
            random,
            clock,
            step_ms,
            span_ms,
            retention_ms,
            sequence: 0,
            counters: [0.0; 2],
            key: true,
            present: true,
            erased: Vec::new(),
            compared: [0; 2],
        }
    }

    fn now_ms(&self) -> i64 {
        self.clock.load(Ordering::SeqCst)
    }

    fn chance(&mut self, of_hundred: u32) -> bool {
        self.random.random_range(0..100) < of_hundred
    }

    fn append(&mut self, which: usize, at_ms: i64, late: bool, key: bool, values: &[(usize, f64)]) {
        self.sequence += 1;
        let sequence = (which == 0).then_some(self.sequence);
        for side in [&self.tiered, &self.whole] {
            side.append(which, sequence, at_ms, late, key, values);
        }
    }

    /// A part of the time, in both stores.
    fn feed(&mut self, until_ms: i64) {
        while self.now_ms() < until_ms {
            let jitter = if self.chance(30) { self.random.random_range(-900..900) } else { 0 };
            let at_ms = self.clock.fetch_add(self.step_ms + jitter, Ordering::SeqCst) + self.step_ms + jitter;
            if self.chance(1) {
                // The agent falls silent for a while.
                for side in [&self.tiered, &self.whole] {
                    side.store().silence(AgentId([0; 16]), at_ms);
                }
                let gap_ms = self.random.random_range(1..40) * self.step_ms;
                self.clock.fetch_add(gap_ms, Ordering::SeqCst);
                self.key = true;
                continue;
            }
            let key = std::mem::take(&mut self.key);
            let mut values = Vec::new();
            if key || self.chance(80) {
                self.counters[0] += f64::from(self.random.random_range(0..50u32));
            }
            if self.chance(2) {
                self.counters[0] = f64::from(self.random.random_range(0..5u32));
            }
            values.push((0, self.counters[0]));
            values.push((1, f64::from(self.random.random_range(-5000..5000)) / 10.0));
            if key {
                values.push((2, 42.0));
            }
            let was = self.present;
            if self.chance(3) {
                self.present = !self.present;
            }
            match (key, self.present, was) {
                (_, true, _) => values.push((3, f64::from(self.random.random_range(0..3)))),
                (false, false, true) => values.push((3, lampad_proto::stale())),
                _ => {}
            }
            let odd = [f64::NAN, f64::INFINITY, -0.0, 1e17, 0.1];
            if key || self.chance(5) {
                values.push((4, odd[self.random.random_range(0..odd.len())]));
            }
            self.append(0, at_ms, false, key, &values);
            let mut stated = Vec::new();
            self.counters[1] = if self.chance(3) { 0.0 } else { self.counters[1] + 1.5 };
            stated.push((0, self.counters[1]));
            if self.chance(10) {
                let value = if self.chance(20) { lampad_proto::stale() } else { 7.0 };
                stated.push((1, value));
            }
            if self.chance(95) {
                self.append(1, at_ms + 3, false, false, &stated);
            }
        }
    }

    /// Samples of a time for which tiers may have been built.
    fn late(&mut self) {
        // Built before, and will be built again before raw samples of that time go.
        let ago_ms = self.random.random_range(0..self.span_ms / PARTS * 3 / 2);
        let from_ms = self.now_ms() - ago_ms - 1;
        for number in 0..self.random.random_range(1..30) {
            let at_ms = from_ms + number * self.step_ms / 3;
            if at_ms >= self.now_ms() {
                break;
            }
            let value = f64::from(self.random.random_range(0..1000));
            self.append(1, at_ms, true, false, &[(0, value), (1, 3.0)]);
            self.append(0, at_ms, true, number == 0, &[(0, value), (3, 1.0)]);
        }
    }

    fn erase(&mut self) {
        let now_ms = self.now_ms();
        let from_ms = now_ms - self.random.random_range(1..self.span_ms / PARTS);
        let to_ms = from_ms + self.random.random_range(1..900_000);
        let name = DELTA[self.random.random_range(0..2)];
        let matcher = Matcher { name: "__name__".into(), op: MatchOp::Equal, value: name.into() };
        for side in [&self.tiered, &self.whole] {
            side.store().erase(&[vec![matcher.clone()]], from_ms, to_ms).unwrap();
        }
        self.erased.push(name);
    }

    fn run(&mut self) {
        for part in 1..=PARTS {
            self.feed(START_MS + self.span_ms * part / PARTS);
            if self.chance(50) {
                self.late();
            }
            if self.chance(5) {
                self.erase();
            }
            match self.random.random_range(0..10) {
                0..5 => {}
                5..8 => assert!(self.tiered.store().seal(WITHIN)),
                8 => self.tiered.open(),
                _ => self.whole.open(),
            }
            if part % 2 == 0 || self.chance(40) {
                assert!(self.tiered.store().compact(WITHIN));
            }
            for _ in 0..24 {
                self.compare();
            }
        }
        (0..200).for_each(|_| self.compare());
    }

    fn compare(&mut self) {
        const FUNCTIONS: [&str; 13] = [
            "rate",
            "increase",
            "delta",
            "sum_over_time",
            "avg_over_time",
            "min_over_time",
            "max_over_time",
            "count_over_time",
            "last_over_time",
            "first_over_time",
            "present_over_time",
            "ts_of_first_over_time",
            "ts_of_last_over_time",
        ];
        let function = FUNCTIONS[self.random.random_range(0..FUNCTIONS.len())];
        let names = DELTA.iter().chain(&STATED).count();
        let name = DELTA.iter().chain(&STATED).nth(self.random.random_range(0..names)).unwrap();
        let grid = [10_000, 300_000, 1_000, 7][self.random.random_range(0..4)];
        let far_ms = self.now_ms() - START_MS;
        let mut on_grid = |least: i64, most: i64| self.random.random_range(least..most.max(least + 1)) / grid * grid;
        let end_ms = (START_MS + on_grid(0, far_ms + 600_000)) / grid * grid;
        let range_ms = on_grid(grid, far_ms).max(grid);
        let step_ms = on_grid(grid, 3_600_000).max(grid);
        let steps = self.random.random_range(1..30);
        let span = match self.chance(40) {
            true => Span::Instant { at_ms: end_ms },
            false => Span::Range { start_ms: end_ms - steps * step_ms, end_ms, step_ms },
        };
        let text = match self.chance(85) {
            true => format!("{function}({name}[{range_ms}ms])"),
            false => name.to_string(),
        };
        let (found, wanted) = (self.tiered.query(&text, span), self.whole.query(&text, span));
        let first_ms = match span {
            Span::Instant { at_ms } => at_ms,
            Span::Range { start_ms, .. } => start_ms,
        };
        let seen_ms = first_ms - if text.contains('[') { range_ms } else { 300_000 };
        let all_raw = seen_ms >= self.now_ms() - self.retention_ms;
        let what = format!("{text} at {span:?}, all raw: {all_raw}, {:?}", found.warnings);
        if all_raw || (grid >= 10_000 && text.contains('[')) {
            let grid_is_known = all_raw || grid == 300_000 || grid == 10_000;
            assert!(found.warnings.is_empty() || !grid_is_known, "{what}: a remark on what is exact");
        }
        // On the grid, the last sample of a window is the last one there is, and an end behind it is known.
        let exact = found.warnings.is_empty() || (grid >= 10_000 && !text.contains('['));
        if exact && (all_raw || !self.erased.contains(name)) {
            let cells_found = cells(&found);
            self.compared[0] += 1;
            self.compared[1] += u32::from(!all_raw && !cells_found.is_empty());
            same(&cells_found, &cells(&wanted), &what);
        }
    }
}

/// Labels, and per step time and value.
fn cells(answer: &Answer) -> Vec<(String, Vec<(usize, f64)>)> {
    let (rows, _) = match &answer.output {
        Output::Vector { rows, at_ms } => (rows, *at_ms),
        Output::Matrix { rows, steps } => (rows, steps.start_ms),
        other => panic!("{other:?}"),
    };
    let present = |cells: &[f64]| {
        cells.iter().copied().enumerate().filter(|(_, cell)| !lampad_collector::query::is_absent(*cell)).collect()
    };
    rows.iter().map(|row| (row.labels.to_string(), present(&row.cells))).collect()
}

/// Sums may differ in their last digits.
fn same(found: &[(String, Vec<(usize, f64)>)], wanted: &[(String, Vec<(usize, f64)>)], what: &str) {
    let near = |a: f64, b: f64| {
        a.to_bits() == b.to_bits() || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()) || (a.is_nan() && b.is_nan())
    };
    let equal = found.len() == wanted.len()
        && found.iter().zip(wanted).all(|((a, found), (b, wanted))| {
            a == b && found.len() == wanted.len() && found.iter().zip(wanted).all(|(a, b)| a.0 == b.0 && near(a.1, b.1))
        });
    assert!(equal, "{what}:\nfound  {found:?}\nwanted {wanted:?}");
}

#[test]
fn what_is_told_from_tiers_is_what_samples_tell() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, count) = match number("LAMPAD_TIER_SEED") {
        Some(seed) => (seed, 1),
        None => (1, number("LAMPAD_TIER_CASES").unwrap_or(4)),
    };
    for seed in first..first + count {
        println!("LAMPAD_TIER_SEED={seed}");
        let mut bench = Bench::new(seed);
        bench.run();
        let [all, tiers] = bench.compared;
        println!("{all} answers compared, {tiers} of them out of tiers alone");
        assert!(tiers > 20, "hardly anything was compared");
    }
}
