//! What a query reads, and how it is handed out.

use parking_lot::Mutex;

use super::*;

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
