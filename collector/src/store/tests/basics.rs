//! Appending, selecting, reopening.

use super::*;

#[test]
fn what_is_appended_is_selected_at_once_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let stale = lampad_proto::stale();
    let (t, wanted) = (NOW_MS, bits(&[(NOW_MS, 1.0), (NOW_MS + 1000, 1.0), (NOW_MS + 2000, stale)]));
    {
        let store = open(dir.path());
        let group = group(&store, 1, "host.cpu", WriteMode::Delta);
        let slots = series(&store, group, &["a", "b"]);
        assert_eq!(series(&store, group, &["a", "b"]), slots, "the same labels have the same slots");
        store.append(&frame(1, vec![tick(group, t, true, &[(slots[0], 1.0), (slots[1], 2.0)])])).unwrap();
        store.append(&frame(2, vec![tick(group, t + 1000, false, &[(slots[1], 3.0)])])).unwrap();
        let appended = store.append(&frame(3, vec![tick(group, t + 2000, false, &[(slots[0], stale)])])).unwrap();
        assert!(!appended.duplicate);
        assert_eq!(range(&store, "a", 0, i64::MAX), wanted);
        assert_eq!(last(&store, "b", 0, i64::MAX), Some((t + 2000, 3f64.to_bits())));
        assert_eq!(last(&store, "a", 0, i64::MAX), Some((t + 2000, stale.to_bits())));
        let mut latest = Vec::new();
        store.latest(&[], &mut |name, series| {
            latest.push((name.to_owned(), series.len()));
            true
        });
        assert_eq!(latest, [("b".to_owned(), 1)], "a has ended");
        let again = store.append(&frame(2, vec![tick(group, t + 1000, false, &[(slots[1], 9.0)])])).unwrap();
        assert!(again.duplicate);
        assert!(store.flush(Duration::from_secs(20)) && store.durable().borrow().0 >= appended.lsn.0);
    }
    let store = open(dir.path());
    assert_eq!(range(&store, "a", 0, i64::MAX), wanted);
    assert_eq!(range(&store, "b", t + 1000, t + 1000), bits(&[(t + 1000, 3.0)]));
    assert_eq!(store.stored(agent(1), 7).ranges().collect::<Vec<_>>(), [(1, 3)]);
    assert_eq!(store.label_names(&[], 0, i64::MAX, &budget()).unwrap(), [Arc::from(METRIC_NAME), Arc::from("host")]);
    assert_eq!(store.label_values(METRIC_NAME, &[], 0, i64::MAX, &budget()).unwrap(), [Arc::from("a"), Arc::from("b")]);
    let before = |labels: &[&Label]| panic!("no samples before: {labels:?}");
    store.series(&[vec![named("a")]], 0, t - 1, &budget(), &mut { before }).unwrap();
}

/// Seen in `/metrics` after a clean restart: what remote writers had stated was missing until they wrote again.
#[test]
fn what_was_stated_last_is_current_after_a_restart() {
    let (dir, t, stale) = (tempfile::tempdir().unwrap(), NOW_MS, lampad_proto::stale());
    {
        let store = open(dir.path());
        let group = group(&store, 0, "remote_write a/b", WriteMode::Stated);
        let slots = series(&store, group, &["a", "b", "c"]);
        let ticks = [
            tick(group, t - 1000, false, &[(slots[0], 1.0), (slots[1], 2.0), (slots[2], 3.0)]),
            tick(group, t, false, &[(slots[0], 1.0), (slots[2], stale)]),
        ];
        ticks.into_iter().for_each(|tick| _ = store.append(&frame(tick.timestamp_ms as u64, vec![tick])).unwrap());
    }
    let store = open(dir.path());
    let mut found = Vec::new();
    store.latest(&[], &mut |name, series| {
        found.extend(series.iter().map(|(_, latest)| (name.to_owned(), latest.timestamp_ms, latest.value.clone())));
        true
    });
    assert_eq!(found, [("a".to_owned(), t, Value::Float(1.0))]);
    assert_eq!(last(&store, "b", 0, i64::MAX), Some((t - 1000, 2f64.to_bits())));
    let (group, slots) = (GroupId(0), series(&store, GroupId(0), &["a", "b"]));
    store.append(&frame(1, vec![tick(group, t + 1000, false, &[(slots[1], 5.0)])])).unwrap();
    assert_eq!(range(&store, "a", 0, i64::MAX), bits(&[(t - 1000, 1.0), (t, 1.0)]), "nothing is made up");
}

#[test]
fn a_series_that_vanished_during_a_restart_is_ended_by_the_first_key_tick() {
    let (t, stale) = (NOW_MS, lampad_proto::stale());
    for crash in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        {
            let store = open(dir.path());
            let group = group(&store, 1, "host.cpu", WriteMode::Delta);
            let slots = series(&store, group, &["a", "b", "c"]);
            let values: Vec<(Slot, f64)> = slots.iter().zip([1.0, 2.5, 3.0]).map(|(slot, v)| (*slot, v)).collect();
            store.append(&frame(1, vec![tick(group, t, true, &values)])).unwrap();
            store.append(&frame(2, vec![tick(group, t + 1000, false, &[(slots[2], stale)])])).unwrap();
            assert!(store.seal(Duration::from_secs(20)));
            if crash {
                store.crash();
            }
        }
        {
            let store = open(dir.path());
            assert_eq!(last(&store, "b", 0, i64::MAX), Some((t + 1000, 2.5f64.to_bits())));
            let group = group(&store, 1, "host.cpu", WriteMode::Delta);
            let slots = series(&store, group, &["a", "b"]);
            store.append(&frame(3, vec![tick(group, t + 9000, true, &[(slots[0], 1.0)])])).unwrap();
            assert!(store.flush(Duration::from_secs(20)));
            store.crash();
        }
        // Read back from the log, which says of the tick only what it lists.
        let store = open(dir.path());
        assert_eq!(range(&store, "a", t + 1000, i64::MAX), bits(&[(t + 1000, 1.0), (t + 9000, 1.0)]));
        assert_eq!(range(&store, "b", t + 1000, i64::MAX), bits(&[(t + 1000, 2.5), (t + 9000, stale)]));
        assert_eq!(range(&store, "c", t, i64::MAX), bits(&[(t, 3.0), (t + 1000, stale)]), "ended before");
    }
}

#[test]
fn silence_ends_a_series_until_late_ticks_fill_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let group = group(&store, 1, "host.cpu", WriteMode::Delta);
    let slots = series(&store, group, &["a"]);
    let t = NOW_MS;
    store.append(&frame(1, vec![tick(group, t, true, &[(slots[0], 1.0)])])).unwrap();
    store.silence(agent(1), t + 3000);
    store.silence(agent(1), t + 4000);
    let marked = bits(&[(t, 1.0), (t + 3000, lampad_proto::stale())]);
    assert_eq!(range(&store, "a", 0, i64::MAX), marked, "one mark for one silence");
    assert_eq!(range(&store, "a", t + 1, i64::MAX), marked[1..], "though the sample before is not selected");
    assert_eq!(last(&store, "a", 0, i64::MAX), marked.last().copied());
    let mut shown = 0;
    store.latest(&[], &mut |_, series| {
        shown += series.len();
        true
    });
    assert_eq!(shown, 0);
    let late = TickBatch { run: Run::Backfill, ..tick(group, t + 1000, true, &[(slots[0], 2.0)]) };
    store.append(&frame(2, vec![late])).unwrap();
    assert_eq!(range(&store, "a", 0, i64::MAX), bits(&[(t, 1.0), (t + 1000, 2.0)]), "the mark was soft");
}

#[test]
fn of_stated_samples_the_first_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let group = group(&store, 0, "job/a", WriteMode::Stated);
    let slots = series(&store, group, &["a", "b"]);
    let t = NOW_MS - 100_000;
    let append = |at_ms: i64, values: &[(Slot, f64)]| {
        let batch = Batch { frame: None, ticks: vec![tick(group, at_ms, false, values)] };
        let refused = store.append(&batch).unwrap().refused;
        refused.into_iter().map(|(_, _, refused)| refused).collect::<Vec<_>>()
    };
    assert!(append(t, &[(slots[0], 1.0)]).is_empty());
    assert!(append(t + 20, &[(slots[0], 1.0), (slots[1], 5.0)]).is_empty());
    assert!(append(t + 10, &[(slots[0], 2.0)]).is_empty(), "between two");
    assert!(append(t, &[(slots[0], 1.0), (slots[1], 4.0)]).is_empty(), "equal, and late for b");
    assert!(matches!(append(t + 10, &[(slots[0], 3.0)])[..], [Refused::Duplicate { .. }]));
    assert!(matches!(append(NOW_MS + 11 * 60_000, &[(slots[0], 3.0)])[..], [Refused::TooNew { .. }]));
    assert!(matches!(append(1000, &[(slots[0], 3.0)])[..], [Refused::TooOld { .. }]));
    assert!(matches!(append(t + 30, &[(Slot(99), 3.0)])[..], [Refused::Invalid(_)]));
    assert_eq!(range(&store, "a", 0, i64::MAX), bits(&[(t, 1.0), (t + 10, 2.0), (t + 20, 1.0)]));
    assert_eq!(range(&store, "b", 0, i64::MAX), bits(&[(t, 4.0), (t + 20, 5.0)]));
}

#[test]
fn a_directory_that_cannot_be_used_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let error = |path: &std::path::Path| Store::open(options(path), Arc::new(RealDisk)).unwrap_err();
    let foreign = dir.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("letter.txt"), "x").unwrap();
    assert!(matches!(error(&foreign), OpenError::NotOurs { .. }));
    let alike = dir.path().join("alike");
    std::fs::create_dir_all(alike.join("log")).unwrap();
    std::fs::write(alike.join("log/holiday.jpg"), "").unwrap();
    assert!(matches!(error(&alike), OpenError::NotOurs { .. }));
    let used = dir.path().join("used");
    let store = open(&used);
    assert!(matches!(error(&used), OpenError::Locked { .. }));
    drop(store);
    drop(open(&used));
    std::fs::write(used.join("FORMAT"), "lampad-collector data, format 99\n").unwrap();
    assert!(matches!(error(&used), OpenError::Newer { found: 99, .. }));
    std::fs::write(used.join("FORMAT"), "lampad-collector data, format 1\n").unwrap();
    drop(open(&used));
    let format = std::fs::read_to_string(used.join("FORMAT")).unwrap();
    assert_eq!(format, "lampad-collector data, format 6\n", "an older one is migrated, so that its build refuses it");
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert!(matches!(error(&file), OpenError::NotADirectory { .. }));
}

#[test]
fn series_that_ended_long_ago_make_room_for_new_ones() {
    let dir = tempfile::tempdir().unwrap();
    let now_ms = Arc::new(std::sync::atomic::AtomicI64::new(NOW_MS));
    let told = now_ms.clone();
    let mut options = options(dir.path());
    options.clock = Clock::new(move || told.load(std::sync::atomic::Ordering::Relaxed));
    options.limits.series_per_agent = 2;
    let window_ms = options.window.as_millis() as i64;
    let store = Store::open(options, Arc::new(RealDisk)).unwrap();
    let group = group(&store, 1, "mysql.digest", WriteMode::Delta);
    let slots = series(&store, group, &["a", "b"]);
    let define = |name: &str| {
        let labels = Labels::from_pairs([(METRIC_NAME, name)]);
        store.define_series(group, &[SeriesKey { labels, meta: None }]).remove(0)
    };
    let refused = define("c").unwrap_err();
    assert!(matches!(&refused, Refused::Limit { series, .. } if series == "c{}"), "{refused}");
    // `a` goes on, `b` has ended.
    let stale = lampad_proto::stale();
    let first = tick(group, NOW_MS, true, &[(slots[0], 1.0), (slots[1], 1.0)]);
    store.append(&frame(1, vec![first, tick(group, NOW_MS + 1, false, &[(slots[1], stale)])])).unwrap();
    assert!(store.seal(Duration::from_secs(20)));
    let later_ms = NOW_MS + 3 * window_ms;
    now_ms.store(later_ms, std::sync::atomic::Ordering::Relaxed);
    store.append(&frame(2, vec![tick(group, later_ms, true, &[(slots[0], 1.0)])])).unwrap();
    assert!(store.seal(Duration::from_secs(20)));
    assert!(define("c").is_ok());
    assert!(define("d").is_err(), "a and c are live");
    assert_eq!(range(&store, "b", 0, i64::MAX).len(), 2, "b is still there");
}

#[test]
fn a_clean_end_leaves_no_log() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let group = group(&store, 1, "g", WriteMode::Delta);
    let slots = series(&store, group, &["m"]);
    store.append(&frame(1, vec![tick(group, NOW_MS, true, &[(slots[0], 1.0)])])).unwrap();
    assert!(store.shutdown());
    assert_eq!(std::fs::read_dir(dir.path().join("log")).unwrap().count(), 0);
}

#[test]
fn a_slot_that_comes_twice_in_a_tick_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut wanted = Vec::new();
    {
        let store = open(dir.path());
        let group = group(&store, 0, "own", WriteMode::Delta);
        let slots = series(&store, group, &["a", "b"]);
        for at in 0..300 {
            let (at_ms, value) = (NOW_MS + at * 1000, at as f64);
            let values = [(slots[0], value), (slots[0], value + 0.5), (slots[1], value)];
            let batch = Batch { frame: None, ticks: vec![tick(group, at_ms, at == 0, &values)] };
            let refused = store.append(&batch).unwrap().refused;
            assert!(matches!(&refused[..], [(_, slot, Refused::Duplicate { .. })] if *slot == slots[0]), "{refused:?}");
            wanted.push((at_ms, value));
        }
        assert_eq!(range(&store, "a", 0, i64::MAX), bits(&wanted));
        assert!(store.flush(Duration::from_secs(20)));
        store.crash();
    }
    let store = open(dir.path());
    assert!(store.seal(Duration::from_secs(20)));
    for name in ["a", "b"] {
        assert_eq!(range(&store, name, 0, i64::MAX), bits(&wanted), "{name}");
    }
}
