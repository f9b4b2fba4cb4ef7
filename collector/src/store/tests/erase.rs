//! Deletion: hidden at once, for ever, and nothing else is.

use super::*;

fn erase(store: &Store, name: &str, from_ms: i64, to_ms: i64) -> u64 {
    store.erase(&[vec![named(name)]], from_ms, to_ms).unwrap()
}

#[test]
fn what_is_deleted_stays_hidden_in_memory_and_blocks_and_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let group_of = |store: &Store| group(store, 1, "host.cpu", WriteMode::Delta);
    let append = |store: &Store, n: i64| {
        let group = group_of(store);
        let slots = series(store, group, &["a", "b"]);
        let values = [(slots[0], 1.0), (slots[1], n as f64)];
        store.append(&frame(n as u64, vec![tick(group, NOW_MS + n * 1000, n == 1, &values)])).unwrap();
    };
    let sample = |n: i64| (NOW_MS + n * 1000, 1.0);
    (1..=4).for_each(|n| append(&store, n));
    assert!(store.seal(Duration::from_secs(20)));
    (5..=8).for_each(|n| append(&store, n));
    assert_eq!(erase(&store, "a", sample(3).0, sample(6).0), 1);
    assert_eq!(erase(&store, "nobody", i64::MIN, i64::MAX), 0);
    let wanted = bits(&[1, 2, 7, 8].map(sample));
    let check = |store: &Store, what: &str| {
        assert_eq!(range(store, "a", i64::MIN, i64::MAX), wanted, "{what}");
        assert_eq!(range(store, "b", i64::MIN, i64::MAX).len(), 8, "{what}: others stay");
        assert_eq!(last(store, "a", 0, sample(5).0), Some(wanted[1]), "{what}");
    };
    check(&store, "at once");
    store.crash();
    drop(store);
    let store = open(dir.path());
    check(&store, "after a crash, out of the log");
    assert!(store.seal(Duration::from_secs(20)));
    check(&store, "sealed");
    store.crash();
    drop(store);
    let store = open(dir.path());
    check(&store, "out of the manifest");

    // All of it, newest included; what comes after is there.
    erase(&store, "a", i64::MIN, i64::MAX);
    assert_eq!(range(&store, "a", i64::MIN, i64::MAX), []);
    assert_eq!(last(&store, "a", i64::MIN, i64::MAX), None);
    let mut latest = Vec::new();
    store.latest(&[], &mut |name, _| {
        latest.push(name.to_owned());
        true
    });
    assert_eq!(latest, ["b"]);
    append(&store, 9);
    assert_eq!(range(&store, "a", i64::MIN, i64::MAX), bits(&[sample(9)]));
    assert_eq!(last(&store, "a", i64::MIN, i64::MAX), Some(bits(&[sample(9)])[0]));
    assert!(store.shutdown());
    drop(store);
    assert_eq!(range(&open(dir.path()), "a", i64::MIN, i64::MAX), bits(&[sample(9)]));
}
