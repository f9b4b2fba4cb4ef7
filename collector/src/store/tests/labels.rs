//! Which names and values of labels there are at a time.

use super::*;

#[test]
fn labels_are_those_of_series_whose_groups_were_there_at_the_time() {
    let (dir, hour_ms) = (tempfile::tempdir().unwrap(), 3_600_000);
    let store = open(dir.path());
    // A series has places in both groups, one of which is far from the other's times.
    let write = |agent: u8, at_ms: i64, names: &[&str], more: SeriesKey| {
        let group = group(&store, agent, "g", WriteMode::Stated);
        let mut slots = series(&store, group, names);
        slots.extend(store.define_series(group, &[more]).into_iter().map(Result::unwrap));
        let values: Vec<(Slot, f64)> = slots.into_iter().map(|slot| (slot, 1.0)).collect();
        store.append(&Batch { frame: None, ticks: vec![tick(group, at_ms, false, &values)] }).unwrap();
    };
    let with = |pairs: [(&str, &str); 2]| SeriesKey { labels: Labels::from_pairs(pairs), meta: None };
    let (early, late) = (NOW_MS - 2 * hour_ms, NOW_MS);
    write(1, early, &["a", "both"], with([(METRIC_NAME, "x"), ("only_early", "1")]));
    write(2, late, &["both", "z"], with([(METRIC_NAME, "x"), ("only_late", "2")]));
    let x = vec![named("x")];
    type Case<'a> = ((i64, i64), &'a [&'a str], &'a [&'a str], &'a [&'a str]);
    let cases: [Case<'_>; 4] = [
        ((early, early), &["a", "both", "x"], &["1"], &["__name__", "host", "only_early"]),
        ((late, late), &["both", "x", "z"], &[], &["__name__", "host", "only_late"]),
        ((early, late), &["a", "both", "x", "z"], &["1"], &["__name__", "host", "only_early", "only_late"]),
        ((late + 1, late + 2), &[], &[], &[]),
    ];
    let texts = |found: &[Arc<str>]| found.iter().map(|text| text.to_string()).collect::<Vec<_>>();
    for ((from_ms, to_ms), metrics, early_values, names) in cases {
        let values = |name: &str, any_of: &[Vec<Matcher>]| {
            store.label_values(name, any_of, from_ms, to_ms, &budget()).map(|found| texts(&found)).unwrap()
        };
        let at_once = |name: &str| texts(&store.label_values_at_once(name, from_ms, to_ms).unwrap());
        assert_eq!(values(METRIC_NAME, &[]), metrics, "from {from_ms} to {to_ms}");
        assert_eq!(at_once(METRIC_NAME), metrics, "from {from_ms} to {to_ms}");
        assert_eq!(values("only_early", std::slice::from_ref(&x)), early_values);
        assert_eq!((at_once("only_early"), at_once("unknown")), (values("only_early", &[]), vec![]));
        let found = store.label_names(&[], from_ms, to_ms, &budget()).unwrap();
        assert_eq!(texts(&found), names, "from {from_ms} to {to_ms}");
        let found = store.label_names(std::slice::from_ref(&x), from_ms, to_ms, &budget()).unwrap();
        let names: Vec<&str> = names.iter().copied().filter(|name| *name != "host").collect();
        assert_eq!(texts(&found), names, "of x, from {from_ms} to {to_ms}");
    }
}

#[test]
fn many_values_are_not_listed_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let group = group(&store, 1, "g", WriteMode::Stated);
    let names: Vec<String> = (0..5000).map(|n| format!("m{n:04}")).collect();
    let slots = series(&store, group, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let values: Vec<(Slot, f64)> = slots.into_iter().map(|slot| (slot, 1.0)).collect();
    store.append(&Batch { frame: None, ticks: vec![tick(group, NOW_MS, false, &values)] }).unwrap();
    assert_eq!(store.label_values_at_once(METRIC_NAME, NOW_MS, NOW_MS), None);
    assert_eq!(store.label_values_at_once("host", NOW_MS, NOW_MS), Some(vec![Arc::from("a")]));
    // Their group is far: to see that, each of its series would be looked at.
    assert_eq!(store.label_values_at_once("host", 0, 1), None);
    assert_eq!(store.label_values("host", &[], 0, 1, &budget()), Ok(Vec::new()));
}
