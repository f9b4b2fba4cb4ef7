//! Deletion: hidden at once, for ever, and nothing else is.

use super::*;
use crate::store::tier::tier_of;

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

/// Had a record been dropped too early, or a sample been left, it would be seen again after the next start.
#[test]
fn what_is_cleaned_is_off_the_disk_and_its_record_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sample = |n: i64| (NOW_MS + n * 1000, n as f64);
    let append = |store: &Store, ticks: std::ops::RangeInclusive<i64>| {
        let group = group(store, 1, "host.cpu", WriteMode::Delta);
        let slots = series(store, group, &["a", "b", "c"]);
        for n in ticks {
            let values = [(slots[0], n as f64), (slots[1], n as f64), (slots[2], 1.0)];
            store.append(&frame(n as u64, vec![tick(group, sample(n).0, n == 1, &values)])).unwrap();
        }
    };
    let records =
        |store: &Store| store.core.groups.read().all.iter().map(|group| group.state.lock().erased.len()).sum::<usize>();
    append(&store, 1..=4);
    assert!(store.seal(Duration::from_secs(20)));
    append(&store, 5..=8);
    erase(&store, "a", sample(3).0, sample(6).0);
    erase(&store, "c", i64::MIN, i64::MAX);
    assert!(store.clean(Duration::from_secs(20)));
    assert_eq!(records(&store), 1, "the last value of c is what its next tick builds on");
    append(&store, 9..=9);
    assert!(store.clean(Duration::from_secs(20)));
    assert_eq!(records(&store), 0);
    let check = |store: &Store, what: &str| {
        let of = |numbers: &[i64]| bits(&numbers.iter().map(|n| sample(*n)).collect::<Vec<_>>());
        assert_eq!(range(store, "a", i64::MIN, i64::MAX), of(&[1, 2, 7, 8, 9]), "{what}");
        assert_eq!(range(store, "b", i64::MIN, i64::MAX), of(&[1, 2, 3, 4, 5, 6, 7, 8, 9]), "{what}: others stay");
        assert_eq!(range(store, "c", i64::MIN, i64::MAX), bits(&[(sample(9).0, 1.0)]), "{what}");
    };
    check(&store, "cleaned");
    store.crash();
    drop(store);
    let store = open(dir.path());
    assert_eq!(records(&store), 0, "the manifest has none");
    check(&store, "after a crash");
    assert!(store.clean(Duration::from_secs(20)), "with nothing to do");
    assert!(store.shutdown());
}

/// Bytes of the tiers' values.
struct OfTiers(u64);

impl BackupSink for OfTiers {
    fn begin(&mut self, _values: u64) -> std::io::Result<()> {
        Ok(())
    }

    fn file(&mut self, _name: &str, _bytes: &[u8]) -> std::io::Result<()> {
        Ok(())
    }

    fn value(&mut self, partition: u32, _number: u32, bytes: &[u8]) -> std::io::Result<()> {
        self.0 += tier_of(partition).map_or(0, |_| bytes.len() as u64);
        Ok(())
    }
}

/// Windows of which a part is deleted are hidden as a whole, and cut anew from raw samples.
#[test]
fn what_is_cleaned_leaves_the_tiers_too() {
    let dir = tempfile::tempdir().unwrap();
    let tiered = || Options { tiers: Options::new("").tiers, ..options(dir.path()) };
    let store = Store::open(tiered(), Arc::new(RealDisk)).unwrap();
    let group = group(&store, 1, "host.cpu", WriteMode::Delta);
    let slots = series(&store, group, &["a", "b"]);
    // Long enough ago for windows to be built of it.
    let start_ms = NOW_MS - 3_600_000;
    for n in 0..60 {
        let values = [(slots[0], n as f64), (slots[1], n as f64)];
        store.append(&frame(n + 1, vec![tick(group, start_ms + n as i64 * 1000, n == 0, &values)])).unwrap();
    }
    assert!(store.compact(Duration::from_secs(20)));
    let count = |store: &Store, name: &str| {
        let time = (start_ms - 1, start_ms + 60_000);
        let found = store.select_windows(&[named(name)], 10_000, time, &budget()).unwrap();
        found.iter().flat_map(|series| &series.windows).map(|window| window.count).sum::<u64>()
    };
    assert_eq!((count(&store, "a"), count(&store, "b")), (60, 60));
    let tier_bytes = |store: &Store| {
        let mut bytes = OfTiers(0);
        store.backup(&mut bytes).unwrap();
        bytes.0
    };
    assert_eq!(erase(&store, "a", start_ms + 15_000, start_ms + 44_000), 1);
    let before = tier_bytes(&store);
    assert!(store.clean(Duration::from_secs(20)));
    assert!(tier_bytes(&store) < before, "windows are off the disk");
    assert_eq!((count(&store, "a"), count(&store, "b")), (30, 60));
    drop(store);
    let store = Store::open(tiered(), Arc::new(RealDisk)).unwrap();
    assert_eq!((count(&store, "a"), count(&store, "b")), (30, 60), "after a start");
}
