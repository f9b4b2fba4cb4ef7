//! Days of simulated time: partitions are closed by the clock, tiers built, partitions folded and dropped, series forgotten, as
//! the store does by itself. Prints a line per day.
//!
//! `LAMPAD_WEEK_DAYS=7 LAMPAD_WEEK_SERIES=2000 cargo test --release -p lampad-collector --test week -- --nocapture` for a week.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use lampad_collector::store::{
    AgentId, Batch, Budget, Clock, FrameId, GroupId, GroupKey, Labels, MatchOp, Matcher, Options, RealDisk, Run,
    Select, SeriesKey, Slot, Source as _, Store, TickBatch, Value, WriteMode,
};

const HOUR_MS: i64 = 3_600_000;
const START_MS: i64 = 1_700_000_100_000 / HOUR_MS * HOUR_MS;
const STEP_MS: i64 = 10_000;
const WITHIN: Duration = Duration::from_secs(300);
const HOURS: fn(u64) -> Duration = |hours| Duration::from_secs(hours * 3600);

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn named(name: &str) -> Matcher {
    Matcher { name: "__name__".into(), op: MatchOp::Equal, value: name.into() }
}

fn disk_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => disk_bytes(&entry.path()),
        Ok(meta) => meta.len(),
        // Deleted meanwhile.
        Err(_) => 0,
    });
    bytes.sum()
}

struct Fleet {
    group: GroupId,
    slots: Vec<Slot>,
    /// Series that were there before.
    replaced: usize,
    ticks: u64,
}

impl Fleet {
    /// Series in place of the first ones: a tenth of them every hour.
    fn churn(&mut self, store: &Store) {
        let many = (self.slots.len() / 10).max(1);
        for _ in 0..many {
            let at = self.replaced % self.slots.len();
            self.slots[at] = define(store, self.group, self.slots.len() + self.replaced);
            self.replaced += 1;
        }
    }

    /// A tick on which a tenth of the series change; the first one of an hour names all.
    fn tick(&mut self, store: &Store, at_ms: i64, key: bool) {
        self.ticks += 1;
        let moving = |at: usize| key || (at + self.ticks as usize).is_multiple_of(10);
        let value = |at: usize| Value::Float((self.ticks * (at as u64 % 7 + 1)) as f64);
        let values = self.slots.iter().enumerate().filter(|(at, _)| moving(*at)).map(|(at, slot)| (*slot, value(at)));
        let mut values: Vec<(Slot, Value)> = values.collect();
        values.sort_by_key(|(slot, _)| *slot);
        let frame = FrameId { agent: AgentId([1; 16]), epoch: 1, sequence: self.ticks };
        let tick = TickBatch { group: self.group, timestamp_ms: at_ms, run: Run::Live, key, values };
        store.append(&Batch { frame: Some(frame), ticks: vec![tick] }).unwrap();
    }
}

fn define(store: &Store, group: GroupId, number: usize) -> Slot {
    let labels = Labels::from_pairs([("__name__", "work_total"), ("unit", &*format!("{number:06}"))]);
    store.define_series(group, &[SeriesKey { labels, meta: None }])[0].clone().unwrap()
}

#[test]
fn days_of_steady_load_take_no_more_and_no_more() {
    let days = number("LAMPAD_WEEK_DAYS", 2) as i64;
    let series = number("LAMPAD_WEEK_SERIES", 30);
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(AtomicI64::new(START_MS));
    let told = clock.clone();
    // Short, so that each of them drops partitions within a day.
    let options = Options {
        retention: HOURS(6),
        tiers: [Some(HOURS(9)), Some(HOURS(12))],
        reserve_bytes: 0,
        clock: Clock::new(move || told.load(Ordering::SeqCst)),
        ..Options::new(dir.path())
    };
    let store = Store::open(options, Arc::new(RealDisk)).unwrap();
    let key = GroupKey { agent: AgentId([1; 16]), name: "work".into() };
    let group = store.define_group(key, WriteMode::Delta).unwrap();
    let slots = (0..series).map(|number| define(&store, group, number)).collect();
    let mut fleet = Fleet { group, slots, replaced: 0, ticks: 0 };
    // Most series, bytes of the index and of the disk in each half of a day.
    let mut halves: Vec<[u64; 3]> = Vec::new();
    println!("hours  series  index KiB  disk KiB");
    for hour in 0..days * 24 {
        for at in 0..HOUR_MS / STEP_MS {
            let at_ms = clock.fetch_add(STEP_MS, Ordering::SeqCst) + STEP_MS;
            fleet.tick(&store, at_ms, at == 0);
        }
        fleet.churn(&store);
        assert!(store.tend(WITHIN));
        let stats = store.stats();
        let now = [stats.series, stats.index_bytes, disk_bytes(&dir.path().join("blocks"))];
        if hour % 12 == 0 {
            halves.push(now);
        }
        if let Some(most) = halves.last_mut() {
            most.iter_mut().zip(now).for_each(|(most, now)| *most = (*most).max(now));
        }
        if hour % 12 == 11 {
            println!("{:5}  {:6}  {:9}  {:8}", hour + 1, now[0], now[1] / 1024, now[2] / 1024);
        }
        assert_eq!(stats.damaged, 0);
    }
    let (settled, last) = (halves[halves.len() - 2], halves[halves.len() - 1]);
    for (what, (before, after)) in ["series", "index", "disk"].iter().zip(settled.into_iter().zip(last)) {
        assert!(after <= before + before / 5, "{what} grew from {before} to {after} in the last half of a day");
    }
    // Each tier has what it shall, and nothing else is there.
    let now_ms = clock.load(Ordering::SeqCst);
    let budget = || Budget::new(u64::MAX, Instant::now() + WITHIN);
    let raw = store.select(&[named("work_total")], Select::Range { from_ms: 0, to_ms: now_ms }, &budget()).unwrap();
    let first = raw.iter().flat_map(|series| series.floats.iter()).map(|sample| sample.timestamp_ms).min().unwrap();
    assert!((first - (now_ms - 6 * HOUR_MS)).abs() <= STEP_MS, "raw samples of six hours");
    for (window_ms, hours) in [(10_000, 9), (300_000, 12)] {
        let time = ((now_ms - (hours - 1) * HOUR_MS) / window_ms * window_ms, now_ms);
        let found = store.select_windows(&[named("work_total")], window_ms, time, &budget()).unwrap();
        assert!(found.iter().all(|series| !series.is_odd));
        // Every series that is there has one sample per tick; one that ended has its own.
        let counts = found.iter().flat_map(|series| &series.windows).map(|window| window.count).sum::<u64>();
        let ticks = ((now_ms - time.0) / STEP_MS) as u64;
        assert_eq!(counts, ticks * series as u64, "windows of {window_ms} ms over {} hours", hours - 1);
    }
    assert!(store.shutdown());
}
