//! The store as a whole: what is appended is selected, what is durable survives, whatever the disk does.

mod basics;
mod compact;
mod crash;
mod damage;
mod disk;
mod erase;
mod integers;
mod journal;
mod labels;
mod model;
mod operate;
mod reading;
mod tended;
mod trouble;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use super::*;

/// A clock that stands still.
pub const NOW_MS: i64 = 1_700_000_000_000;

pub fn options(dir: &std::path::Path) -> Options {
    Options {
        commit_delay: Duration::from_millis(1),
        // Raw samples go when they are too old, whatever has become of them.
        tiers: [None; 2],
        reserve_bytes: 0,
        clock: Clock::new(|| NOW_MS),
        ..Options::new(dir)
    }
}

/// With a clock that is set.
pub fn clocked(dir: &std::path::Path, clock: &Arc<AtomicI64>) -> Options {
    let clock = clock.clone();
    Options { clock: Clock::new(move || clock.load(Ordering::SeqCst)), ..options(dir) }
}

pub fn open(dir: &std::path::Path) -> Arc<Store> {
    Store::open(options(dir), Arc::new(RealDisk)).unwrap()
}

pub fn agent(number: u8) -> AgentId {
    AgentId([number; 16])
}

pub fn group(store: &Store, number: u8, name: &str, mode: WriteMode) -> GroupId {
    store.define_group(GroupKey { agent: agent(number), name: name.into() }, mode).unwrap()
}

pub fn series(store: &Store, group: GroupId, names: &[&str]) -> Vec<Slot> {
    let keys: Vec<SeriesKey> = names
        .iter()
        .map(|name| SeriesKey { labels: Labels::from_pairs([(METRIC_NAME, *name), ("host", "a")]), meta: None })
        .collect();
    store.define_series(group, &keys).into_iter().map(|slot| slot.unwrap()).collect()
}

pub fn tick(group: GroupId, timestamp_ms: i64, key: bool, values: &[(Slot, f64)]) -> TickBatch {
    let values = values.iter().map(|(slot, value)| (*slot, Value::Float(*value))).collect();
    TickBatch { group, timestamp_ms, run: Run::Live, key, values }
}

pub fn frame(sequence: u64, ticks: Vec<TickBatch>) -> Batch {
    Batch { frame: Some(FrameId { agent: agent(1), epoch: 7, sequence }), ticks }
}

pub fn budget() -> Budget {
    Budget::new(u64::MAX, Instant::now() + Duration::from_secs(60))
}

pub fn named(name: &str) -> Matcher {
    Matcher { name: METRIC_NAME.into(), op: MatchOp::Equal, value: name.into() }
}

/// Samples as (time, bits), so that the stale marker compares.
pub fn range(store: &Store, name: &str, from_ms: i64, to_ms: i64) -> Vec<(i64, u64)> {
    let found = store.select(&[named(name)], Select::Range { from_ms, to_ms }, &budget()).unwrap();
    let floats = found.iter().flat_map(|series| series.floats.iter());
    floats.map(|sample| (sample.timestamp_ms, sample.value.to_bits())).collect()
}

pub fn last(store: &Store, name: &str, from_ms: i64, to_ms: i64) -> Option<(i64, u64)> {
    let found = store.select(&[named(name)], Select::Last { from_ms, to_ms }, &budget()).unwrap();
    assert!(found.len() <= 1 && found.iter().all(|series| series.floats.len() == 1));
    found.first().map(|series| (series.floats.times()[0], series.floats.values()[0].to_bits()))
}

pub fn bits(samples: &[(i64, f64)]) -> Vec<(i64, u64)> {
    samples.iter().map(|(at_ms, value)| (*at_ms, value.to_bits())).collect()
}

/// Waits for a condition; its deadline is only reached by a broken store.
pub fn wait(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

/// Flips a bit of one of the values of the first partition.
pub fn flip_bit_of_value(blocks: &std::path::Path, number: u32, at: usize) {
    use super::disk::{Engine, Sled};
    let engine = Sled::new(blocks);
    let partition = *engine.partitions().unwrap().iter().min().unwrap();
    let mut value = engine.get(partition, number).unwrap().unwrap();
    value[at] ^= 8;
    engine.put(partition, &[(number, value)]).unwrap();
    engine.flush(partition).unwrap();
}
