//! What a query reads, and how it is handed out.

use parking_lot::Mutex;

use super::journal::Memory;
use super::*;
use crate::store::datadir::DataDir;
use crate::store::disk::Engine as _;

const WITHIN: Duration = Duration::from_secs(20);

#[test]
fn who_asks_again_is_answered_out_of_memory() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let group = group(&store, 1, "host.cpu", WriteMode::Delta);
    let slots = series(&store, group, &["a"]);
    store.append(&frame(1, vec![tick(group, NOW_MS, true, &[(slots[0], 1.0)])])).unwrap();
    assert!(store.seal(WITHIN));
    assert_eq!(store.stats().cached_bytes, 0);
    assert_eq!(range(&store, "a", 0, i64::MAX), bits(&[(NOW_MS, 1.0)]));
    let StoreStats { read_bytes, cached_bytes, .. } = store.stats();
    assert!(read_bytes > 0 && cached_bytes >= read_bytes, "{cached_bytes} of {read_bytes} bytes");
    assert_eq!(range(&store, "a", 0, i64::MAX), bits(&[(NOW_MS, 1.0)]));
    assert_eq!(store.stats().read_bytes, read_bytes);
}

/// Of an agent, and of the one that took its place.
#[test]
fn a_series_with_two_places_is_handed_out_once_and_in_the_order_of_select() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (old, new) = (group(&store, 1, "host.cpu", WriteMode::Delta), group(&store, 2, "host.cpu", WriteMode::Delta));
    let names = ["a", "b", "c"];
    let ticks = [(old, NOW_MS - 1000, 1.0), (new, NOW_MS, 2.0)].map(|(group, at_ms, value)| {
        let of = if group == old { &names[..2] } else { &names[1..] };
        let values: Vec<_> = series(&store, group, of).into_iter().map(|slot| (slot, value)).collect();
        tick(group, at_ms, true, &values)
    });
    store.append(&frame(1, ticks.into())).unwrap();
    let any = [Matcher { name: "host".into(), op: MatchOp::Equal, value: "a".into() }];
    for select in [Select::Range { from_ms: 0, to_ms: NOW_MS }, Select::Last { from_ms: 0, to_ms: NOW_MS }] {
        let handed = Mutex::new(Vec::new());
        let take = || -> Take<'_> { Box::new(|at, series| handed.lock().push((at, series.clone()))) };
        store.select_each(&any, select, &budget(), &take).unwrap();
        let mut handed = handed.into_inner();
        handed.sort_by_key(|(at, _)| *at);
        let handed: Vec<Series> = handed.into_iter().map(|(_, series)| series).collect();
        let values = |all: &[Series]| -> Vec<(Labels, Floats)> {
            all.iter().map(|series| (series.labels.clone(), series.floats.clone())).collect()
        };
        assert_eq!(values(&handed), values(&store.select(&any, select, &budget()).unwrap()));
        let counts: Vec<usize> = handed.iter().map(|series| series.floats.len()).collect();
        assert_eq!(counts, if matches!(select, Select::Last { .. }) { [1, 1, 1] } else { [1, 2, 1] });
    }
}

/// A day of a thousand hosts took minutes: for each of them all databases of its span were opened one after the other.
#[test]
fn groups_that_lie_in_many_databases_are_read_database_by_database() {
    let (dir, day_ms) = (tempfile::tempdir().unwrap(), 24 * 3_600_000);
    let (engine, clock) =
        (Arc::new(Memory::new(Default::default(), None)), Arc::new(AtomicI64::new(NOW_MS - 9 * 24 * 3_600_000)));
    let open = || {
        let data_dir = Arc::new(DataDir::open(dir.path(), 0).unwrap());
        let options = clocked(dir.path(), &clock);
        Store::open_on(options, Arc::new(RealDisk), engine.clone(), data_dir, |_| {}).unwrap()
    };
    let store = open();
    let groups: Vec<GroupId> = (0..12).map(|at| group(&store, at, "host.cpu", WriteMode::Delta)).collect();
    // More than the groups' neighbours leave room for in a value, since no two of them are alike.
    let value = |day: i64, number: usize, series: usize, at: i64| {
        ((day * 31 + at) as f64 + (number * 100 + series) as f64).sin()
    };
    let (days, ticks, per_group) = (6, 30, 100);
    let mut sequence = 0;
    for day in 0..days {
        let day_begins_ms = NOW_MS - (days - day) * day_ms;
        clock.store(day_begins_ms, Ordering::SeqCst);
        for (number, group) in groups.iter().enumerate() {
            let host = format!("db{number}");
            let name = |series: usize| format!("m{series}");
            let labels = |series| Labels::from_pairs([(METRIC_NAME, &*name(series)), ("host", &host)]);
            let keys: Vec<SeriesKey> =
                (0..per_group).map(|series| SeriesKey { labels: labels(series), meta: None }).collect();
            let slots: Vec<Slot> = store.define_series(*group, &keys).into_iter().map(Result::unwrap).collect();
            for at in 0..ticks {
                let values = |(series, slot): (usize, &Slot)| (*slot, value(day, number, series, at));
                let values: Vec<(Slot, f64)> = slots.iter().enumerate().map(values).collect();
                sequence += 1;
                store.append(&frame(sequence, vec![tick(*group, day_begins_ms + at, true, &values)])).unwrap();
            }
        }
        assert!(store.seal(WITHIN));
    }
    drop(store);
    let partitions = engine.partitions().unwrap().len() as u64;
    assert!(partitions >= days as u64, "{partitions}");
    let store = open();
    let (reads, turns) = (engine.reads(), engine.turns());
    let select = Select::Range { from_ms: 0, to_ms: NOW_MS };
    let found = store.select(&[named("m7")], select, &budget()).unwrap();
    assert_eq!(found.len(), groups.len());
    for series in &found {
        let number: usize = series.labels.get("host").unwrap()[2..].parse().unwrap();
        let wanted: Vec<f64> = (0..days).flat_map(|day| (0..ticks).map(move |at| value(day, number, 7, at))).collect();
        assert_eq!(series.floats.values(), wanted);
    }
    // Once for the heads and once for the values, whoever is the first to lack something.
    let (read, turns) = (engine.reads() - reads, engine.turns() - turns);
    assert!(turns <= 3 * partitions, "{turns} turns over {partitions} partitions, {read} values");
    assert_eq!(store.select(&[named("m7")], select, &budget()).unwrap().len(), groups.len());
    assert_eq!(engine.reads() - reads, read, "what was brought is there");
}
