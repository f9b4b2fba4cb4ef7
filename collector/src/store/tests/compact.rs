//! Compaction of a store: what is selected stays the same, and the old directories go.

use super::*;
use crate::store::disk::{Engine, Sled};

/// Five groups of three series, sealed after every ten ticks.
fn cut_small(store: &Store) {
    for sealed in 0..6 {
        for name in 0..5 {
            let group = group(store, 1, &format!("g{name}"), WriteMode::Delta);
            let names: Vec<String> = (0..3).map(|n| format!("m{name}_{n}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let slots = series(store, group, &names);
            for at in 0..10 {
                let number = sealed * 10 + at;
                let values = [(slots[0], 7.0), (slots[1], number as f64), (slots[2], (number / 25) as f64)];
                let ticks = vec![tick(group, NOW_MS - 60_000 + number * 1000, at == 0, &values)];
                store.append(&Batch { frame: None, ticks }).unwrap();
            }
        }
        assert!(store.seal(Duration::from_secs(20)));
    }
}

fn all(store: &Store) -> Vec<Vec<(i64, u64)>> {
    let names = (0..5).flat_map(|name| (0..3).map(move |n| format!("m{name}_{n}")));
    names.map(|name| range(store, &name, i64::MIN, i64::MAX)).collect()
}

fn runs(store: &Store) -> Vec<usize> {
    store.core.groups.read().all.iter().map(|group| group.state.lock().sealed.len()).collect()
}

fn partitions(dir: &std::path::Path) -> Vec<u32> {
    let mut found = Sled::new(&dir.join("blocks")).partitions().unwrap();
    found.sort_unstable();
    found
}

#[test]
fn runs_are_folded_and_old_directories_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    cut_small(&store);
    let before = all(&store);
    assert!(before.iter().all(|samples| samples.len() == 60));
    assert_eq!(runs(&store), [6; 5]);
    let old = partitions(dir.path());
    assert!(store.compact(Duration::from_secs(20)));
    assert_eq!(runs(&store), [1; 5]);
    assert_eq!(all(&store), before);
    wait("old directories to go", || {
        assert!(store.seal(Duration::from_secs(20)));
        partitions(dir.path()).iter().all(|partition| !old.contains(partition))
    });
    // What was folded once may be folded again, with what came later.
    cut_small_later(&store);
    let before = all(&store);
    assert!(store.compact(Duration::from_secs(20)));
    assert_eq!(runs(&store), [1, 1, 1, 1, 1]);
    assert_eq!(all(&store), before);
    drop(store);
    let store = open(dir.path());
    assert_eq!((runs(&store), all(&store)), (vec![1; 5], before));
}

fn cut_small_later(store: &Store) {
    let group = group(store, 1, "g0", WriteMode::Delta);
    let slots = series(store, group, &["m0_0"]);
    let ticks = vec![tick(group, NOW_MS, true, &[(slots[0], 8.0)])];
    store.append(&Batch { frame: None, ticks }).unwrap();
}

#[test]
fn a_query_that_began_before_reads_on_in_the_old_runs() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    cut_small(&store);
    let old = partitions(dir.path());
    let held = store.core.groups.read().all[0].state.lock().sealed.clone();
    assert!(store.compact(Duration::from_secs(20)) && store.seal(Duration::from_secs(20)));
    assert!(old.iter().all(|partition| partitions(dir.path()).contains(partition)), "deleted under a reader");
    drop(held);
    wait("old directories to go", || {
        assert!(store.seal(Duration::from_secs(20)));
        partitions(dir.path()).iter().all(|partition| !old.contains(partition))
    });
}

#[test]
fn a_run_with_a_damaged_value_stays_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    cut_small(&store);
    let run = store.core.groups.read().all[2].state.lock().sealed[3].clone();
    drop(store);
    let engine = Sled::new(&dir.path().join("blocks"));
    engine.put(run.head.partition, &[(run.head.number, b"damaged".to_vec())]).unwrap();
    engine.flush(run.head.partition).unwrap();
    drop(engine);
    let store = open(dir.path());
    let before = all(&store);
    assert!(store.compact(Duration::from_secs(20)) && store.seal(Duration::from_secs(20)));
    // All groups of one checkpoint share the value; what each has before it and after it is folded.
    assert_eq!(runs(&store), [3; 5]);
    assert_eq!(all(&store), before);
    assert!(before.iter().all(|samples| samples.len() == 50), "all but what was damaged");
    assert!(partitions(dir.path()).contains(&run.head.partition));
}

#[test]
fn a_crash_before_the_manifest_names_it_leaves_all_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    cut_small(&store);
    let before = all(&store);
    let half = partitions(dir.path())[0] - 1;
    store.crash();
    drop(store);
    let engine = Sled::new(&dir.path().join("blocks"));
    engine.put(half, &[(0, b"half of it".to_vec())]).unwrap();
    drop(engine);
    let store = open(dir.path());
    assert_eq!(all(&store), before);
    assert!(store.compact(Duration::from_secs(20)) && store.seal(Duration::from_secs(20)));
    assert_eq!((runs(&store), all(&store)), (vec![1; 5], before));
    assert!(!partitions(dir.path()).contains(&half));
}
