//! Whole numbers that no double holds: exact in memory, log, blocks and manifest.

use super::*;
use lampad_proto::Number;

/// A counter on its way past 2^53, where it is a float at one tick and an integer at the next, and what else may follow.
fn numbers() -> Vec<Number> {
    let counter = (0..6).map(|step| Number::from((1u64 << 53) - 2 + step));
    let other =
        [Number::from(u64::MAX), Number::Float(0.5), Number::from(-(1i64 << 53) - 1), Number::from(u64::MAX - 1)];
    counter.chain(other).collect()
}

fn tick_of(group: GroupId, timestamp_ms: i64, key: bool, slot: Slot, value: Number) -> TickBatch {
    TickBatch { group, timestamp_ms, run: Run::Live, key, values: vec![(slot, value.into())] }
}

/// The current value of each series, to the last digit.
fn latest(store: &Store) -> Vec<Value> {
    let mut found = Vec::new();
    store.latest(&[], &mut |_, series| {
        found.extend(series.iter().map(|(_, latest)| latest.value.clone()));
        true
    });
    found
}

#[test]
fn an_integer_is_exact_at_every_station() {
    for (at, number) in numbers().into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let t = NOW_MS - 100_000;
        let wanted = [Value::from(number)];
        let store = open(dir.path());
        let group = group(&store, 1, "mysql.status", WriteMode::Delta);
        let slot = series(&store, group, &["a"])[0];
        let before = tick_of(group, t, true, slot, 1.0.into());
        store.append(&frame(1, vec![before, tick_of(group, t + 1000, false, slot, number)])).unwrap();
        assert_eq!(latest(&store), wanted, "number {at} in the head");
        assert!(store.flush(Duration::from_secs(20)));
        store.crash();
        drop(store);
        let store = open(dir.path());
        assert_eq!(latest(&store), wanted, "number {at} out of the log");
        assert!(store.seal(Duration::from_secs(20)));
        store.crash();
        drop(store);
        let store = open(dir.path());
        assert_eq!(latest(&store), wanted, "number {at} out of the manifest");
        // The next tick does not list it: it goes on as it was, through another log.
        store
            .append(&frame(2, vec![TickBatch { values: vec![], ..tick_of(group, t + 2000, false, slot, number) }]))
            .unwrap();
        assert!(store.flush(Duration::from_secs(20)));
        store.crash();
        drop(store);
        let store = open(dir.path());
        assert_eq!(latest(&store), wanted, "number {at} carried on");
        let samples = bits(&[(t, 1.0), (t + 1000, number.as_f64()), (t + 2000, number.as_f64())]);
        assert_eq!(range(&store, "a", 0, i64::MAX), samples, "queries see the nearest double");
    }
}

#[test]
fn a_mixed_series_comes_back_from_memory_and_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let group = group(&store, 1, "mysql.status", WriteMode::Delta);
    let slot = series(&store, group, &["a"])[0];
    let t = NOW_MS - 100_000;
    let ticks = (0..).zip(numbers()).map(|(at, number)| tick_of(group, t + at * 1000, at == 0, slot, number)).collect();
    store.append(&frame(1, ticks)).unwrap();
    let samples: Vec<(i64, f64)> = (0..).zip(numbers()).map(|(at, number)| (t + at * 1000, number.as_f64())).collect();
    assert_eq!(range(&store, "a", 0, i64::MAX), bits(&samples));
    assert!(store.seal(Duration::from_secs(20)));
    assert_eq!(range(&store, "a", 0, i64::MAX), bits(&samples));
    drop(store);
    let store = open(dir.path());
    assert_eq!(range(&store, "a", 0, i64::MAX), bits(&samples));
    assert_eq!(store.stats().damaged, 0);
}

/// 2^53 and 2^53 + 1 are one double and two numbers.
#[test]
fn of_stated_integers_an_equal_one_is_told_from_its_neighbour() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let group = group(&store, 0, "job/a", WriteMode::Stated);
    let slot = series(&store, group, &["a"])[0];
    let t = NOW_MS - 100_000;
    let append = |at_ms, number: u64| {
        let ticks = vec![tick_of(group, at_ms, false, slot, number.into())];
        store.append(&Batch { frame: None, ticks }).unwrap().refused.len()
    };
    const EDGE: u64 = 1 << 53;
    assert_eq!((append(t, EDGE + 1), append(t + 20, EDGE + 3), append(t + 10, EDGE + 1)), (0, 0, 0));
    for at_ms in [t, t + 10] {
        assert_eq!((append(at_ms, EDGE + 1), append(at_ms, EDGE), append(at_ms, EDGE + 2)), (0, 1, 1), "at {at_ms}");
    }
}
