//! What the engine under the blocks, the clock, and those who push can do wrong, and what it may cost.

use std::sync::atomic::{AtomicI64, Ordering};

use lampad_proto::record::Scan;
use lampad_proto::v1::Histogram;

use super::journal::{Journal, Memory, Trouble};
use super::*;
use crate::store::datadir::DataDir;
use crate::store::disk::Engine;
use crate::store::manifest;

const WITHIN: Duration = Duration::from_secs(20);

fn on(options: Options, engine: Arc<Memory>) -> Arc<Store> {
    let dir = Arc::new(DataDir::open(&options.data_dir, 0).unwrap());
    Store::open_on(options, Arc::new(RealDisk), engine, dir, |_| {}).unwrap()
}

fn memory() -> Arc<Memory> {
    Arc::new(Memory::new(Default::default(), None))
}

/// A clock that is set by the test.
fn write(store: &Store, number: i64) -> Result<super::super::Appended, AppendError> {
    let group = group(store, 1, "host.cpu", WriteMode::Delta);
    let slots = series(store, group, &["a"]);
    store.append(&Batch { frame: None, ticks: vec![tick(group, NOW_MS + number, true, &[(slots[0], number as f64)])] })
}

fn samples(numbers: std::ops::Range<i64>) -> Vec<(i64, u64)> {
    bits(&numbers.map(|number| (NOW_MS + number, number as f64)).collect::<Vec<_>>())
}

#[test]
fn what_the_engine_loses_with_an_error_is_sealed_again() {
    for trouble in [Trouble::PutFails, Trouble::FlushFails] {
        let (dir, engine) = (tempfile::tempdir().unwrap(), memory());
        let store = on(options(dir.path()), engine.clone());
        (0..50).for_each(|number| _ = write(&store, number).unwrap());
        engine.tell(trouble);
        assert!(!store.seal(WITHIN), "{trouble:?}");
        assert_eq!(range(&store, "a", 0, i64::MAX), samples(0..50), "{trouble:?}");
        (50..60).for_each(|number| _ = write(&store, number).unwrap());
        engine.tell(Trouble::None);
        assert!(store.seal(WITHIN), "{trouble:?}");
        assert_eq!((range(&store, "a", 0, i64::MAX), store.stats().damaged), (samples(0..60), 0), "{trouble:?}");
    }
}

#[test]
fn of_a_compaction_that_is_not_flushed_nothing_counts() {
    let (dir, engine) = (tempfile::tempdir().unwrap(), memory());
    let store = on(options(dir.path()), engine.clone());
    for round in 0..5 {
        (0..10).for_each(|number| _ = write(&store, round * 10 + number).unwrap());
        assert!(store.seal(WITHIN));
    }
    engine.tell(Trouble::FlushFails);
    store.compact(WITHIN);
    engine.tell(Trouble::None);
    assert!(store.seal(WITHIN));
    assert_eq!((range(&store, "a", 0, i64::MAX), store.stats().damaged), (samples(0..50), 0));
    assert!(store.compact(WITHIN) && store.seal(WITHIN));
    assert_eq!((range(&store, "a", 0, i64::MAX), store.stats().damaged), (samples(0..50), 0));
}

/// What was folded lies where no manifest names it yet, and must not be taken for a left-over.
#[test]
fn a_compaction_that_the_manifest_refuses_twice_is_published_whole() {
    let (dir, engine) = (tempfile::tempdir().unwrap(), memory());
    let journal = Journal::new(dir.path());
    let data_dir = Arc::new(DataDir::open(dir.path(), 0).unwrap());
    let disk = Arc::new(journal.clone());
    let store = Store::open_on(options(dir.path()), disk, engine.clone(), data_dir, |_| {}).unwrap();
    for round in 0..5 {
        (0..10).for_each(|number| _ = write(&store, round * 10 + number).unwrap());
        assert!(store.seal(WITHIN));
    }
    journal.fail_after(manifest::FOLDED);
    assert!(!store.compact(WITHIN) && !store.compact(WITHIN));
    assert!(!store.seal(WITHIN), "what is folded is published with the next checkpoint");
    journal.fail_after(0);
    assert!(store.seal(WITHIN) && store.seal(WITHIN));
    assert_eq!((range(&store, "a", 0, i64::MAX), store.stats().damaged), (samples(0..50), 0));
}

#[test]
fn while_nothing_can_be_sealed_what_is_too_old_goes_and_memory_is_bounded() {
    let (dir, engine) = (tempfile::tempdir().unwrap(), memory());
    let clock = Arc::new(AtomicI64::new(NOW_MS));
    let hour_ms = 3_600_000;
    let retention = Duration::from_millis(3 * hour_ms as u64);
    let options = Options { retention, head_bytes: 4096, unsealed_bytes: 4096, ..clocked(dir.path(), &clock) };
    let store = on(options, engine.clone());
    write(&store, 0).unwrap();
    assert!(store.seal(WITHIN));
    let first = engine.partitions().unwrap()[0];
    clock.store(NOW_MS + 2 * hour_ms, Ordering::SeqCst);
    write(&store, 2 * hour_ms).unwrap();
    assert!(store.seal(WITHIN));
    assert_eq!((engine.partitions().unwrap().len(), engine.partitions().unwrap()[0]), (2, first));
    let later = 4 * hour_ms;
    clock.store(NOW_MS + later, Ordering::SeqCst);
    engine.tell(Trouble::FlushFails);
    write(&store, later).unwrap();
    assert!(!store.seal(WITHIN));
    assert!(!engine.partitions().unwrap().contains(&first), "retention waits for nobody");
    let refused = (1..100_000).find_map(|number| write(&store, later + number).err());
    assert!(matches!(refused, Some(AppendError::Unsealed { what: "memory", .. })), "{refused:?}");
    engine.tell(Trouble::None);
    assert!(store.seal(WITHIN));
    assert!(write(&store, later + 200_000).is_ok());
}

/// All who append waited for the slowest query of a single group.
#[test]
fn a_query_that_waits_for_the_disk_holds_up_nobody() {
    let windows = |store: &Store| {
        let found = store.core.select_windows(&[named("a")], 10_000, (0, NOW_MS + 10_000), &budget()).unwrap();
        (found[0].windows[0].first_ms, found[0].windows[0].first.to_bits())
    };
    let plain = |store: &Store| range(store, "a", 0, i64::MAX)[0];
    for read in [plain as fn(&Store) -> (i64, u64), windows] {
        let (dir, engine) = (tempfile::tempdir().unwrap(), memory());
        let store = on(options(dir.path()), engine.clone());
        write(&store, 0).unwrap();
        assert!(store.seal(WITHIN));
        engine.tell(Trouble::ReadHangs);
        let reader = store.clone();
        let query = std::thread::spawn(move || read(&reader));
        wait("the query reads", || engine.hangs.load(Ordering::SeqCst));
        let writer = store.clone();
        let writes = std::thread::spawn(move || {
            // Both take a lock for writing, behind which every other reader waits.
            group(&writer, 1, "host.cpu", WriteMode::Delta);
            group(&writer, 2, "host.new", WriteMode::Delta);
            write(&writer, 1).is_ok()
        });
        wait("the others to write", || writes.is_finished());
        assert!(writes.join().unwrap() && !query.is_finished());
        engine.tell(Trouble::None);
        assert_eq!(query.join().unwrap(), samples(0..1)[0]);
    }
}

#[test]
fn definitions_of_any_length_are_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let labels = |number: usize| {
        let value = format!("{number:04}{}", "x".repeat(4000));
        let many = (0..60).map(|at| (format!("l{at:02}"), value.clone()));
        let pairs: Vec<(String, String)> = many.chain([(METRIC_NAME.to_owned(), "wide".to_owned())]).collect();
        Labels::from_pairs(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    };
    let keys: Vec<SeriesKey> = (0..50).map(|number| SeriesKey { labels: labels(number), meta: None }).collect();
    {
        let store = open(dir.path());
        let group = group(&store, 1, "wide", WriteMode::Delta);
        assert!(store.define_series(group, &keys).iter().all(Result::is_ok));
        let meta = Meta { kind: Default::default(), help: "x".repeat(5000).into(), unit: "".into() };
        let long = SeriesKey { labels: Labels::from_pairs([(METRIC_NAME, "long")]), meta: Some(meta) };
        let refused = store.define_series(group, &[long]).remove(0).unwrap_err();
        assert!(refused.to_string().contains("help or unit"), "{refused}");
        assert!(store.flush(WITHIN));
        store.crash();
    }
    let log = std::fs::read_dir(dir.path().join("log")).unwrap().next().unwrap().unwrap().path();
    let bytes = std::fs::read(log).unwrap();
    let longest = Scan::new(&bytes[16..]).map(|record| record.payload.len()).max().unwrap();
    assert!(longest < 2 << 20 && bytes.len() > 10 << 20, "{longest} of {}", bytes.len());
    let store = open(dir.path());
    let group = group(&store, 1, "wide", WriteMode::Delta);
    let slots = store.define_series(group, &keys).into_iter().map(|slot| slot.unwrap().0);
    assert_eq!(slots.collect::<Vec<_>>(), (0..50).collect::<Vec<u32>>());
}

/// It was acked, and its record was longer than what a replay reads.
#[test]
fn a_tick_whose_completion_no_record_holds_is_refused_before_it_changes_anything() {
    let (dir, engine) = (tempfile::tempdir().unwrap(), memory());
    let store = on(options(dir.path()), engine.clone());
    let group = group(&store, 1, "h", WriteMode::Delta);
    let names: Vec<String> = (0..40).map(|number| format!("h{number}")).collect();
    let slots = series(&store, group, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let wide = Arc::new(Histogram { custom_values: vec![0.5; 1 << 17], ..Histogram::default() });
    for (at, some) in slots.chunks(20).enumerate() {
        let values = some.iter().map(|slot| (*slot, Value::Histogram(wide.clone()))).collect();
        let tick = TickBatch { values, ..tick(group, NOW_MS + at as i64, at == 0, &[]) };
        store.append(&Batch { frame: None, ticks: vec![tick] }).unwrap();
    }
    assert!(store.seal(WITHIN));
    let before = store.stats().head_bytes;
    let next = || Batch { frame: None, ticks: vec![tick(group, NOW_MS + 10, false, &[])] };
    assert!(matches!(store.append(&next()), Err(AppendError::NeedsKey(_))));
    assert_eq!(store.stats().head_bytes, before);
    let key =
        TickBatch { values: vec![(slots[0], Value::Histogram(wide.clone()))], ..tick(group, NOW_MS + 10, true, &[]) };
    store.append(&Batch { frame: None, ticks: vec![key] }).unwrap();
    let ticks = vec![tick(group, NOW_MS + 12, false, &[]), tick(group, NOW_MS + 12, false, &[])];
    assert!(matches!(store.append(&Batch { frame: None, ticks }), Err(AppendError::Unordered(_))));
}

/// After a crash nothing of its job was seen any more.
#[test]
fn a_refused_sample_of_the_future_does_not_make_the_present_late() {
    let dir = tempfile::tempdir().unwrap();
    let append = |store: &Store, at_ms: i64| {
        let group = group(store, 0, "job/a", WriteMode::Stated);
        let slots = series(store, group, &["a"]);
        let ticks = vec![tick(group, at_ms, false, &[(slots[0], at_ms as f64)])];
        store.append(&Batch { frame: None, ticks }).unwrap().refused.len()
    };
    {
        let store = open(dir.path());
        assert_eq!((append(&store, NOW_MS), append(&store, NOW_MS + 3_600_000)), (0, 1));
        assert!(store.flush(WITHIN));
        store.crash();
    }
    let store = open(dir.path());
    assert!(store.seal(WITHIN));
    append(&store, NOW_MS + 1000);
    let mut newest = Vec::new();
    store.latest(&[], &mut |_, series| {
        newest.extend(series.iter().map(|(_, latest)| latest.timestamp_ms));
        true
    });
    assert_eq!(newest, [NOW_MS + 1000]);
}

#[test]
fn a_backup_right_after_a_start_knows_what_of_the_log_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path());
        write(&store, 0).unwrap();
        assert!(store.seal(WITHIN));
        write(&store, 1).unwrap();
        assert!(store.flush(WITHIN));
        store.crash();
    }
    let store = open(dir.path());
    assert!(store.core.released_lsn.load(Ordering::SeqCst) > 0);
}

#[test]
fn a_query_reads_on_in_what_the_retention_drops() {
    let (dir, engine) = (tempfile::tempdir().unwrap(), memory());
    let clock = Arc::new(AtomicI64::new(NOW_MS));
    let retention = Duration::from_secs(3600);
    let store = on(Options { retention, ..clocked(dir.path(), &clock) }, engine.clone());
    write(&store, 0).unwrap();
    assert!(store.seal(WITHIN));
    let first = engine.partitions().unwrap()[0];
    let held = store.core.groups.read().all[0].state.lock().sealed.clone();
    let later = 3 * 3600 * 1000;
    clock.store(NOW_MS + later, Ordering::SeqCst);
    write(&store, later).unwrap();
    assert!(store.seal(WITHIN) && store.seal(WITHIN));
    assert!(engine.partitions().unwrap().contains(&first), "dropped under a reader");
    drop(held);
    assert!(store.seal(WITHIN));
    assert!(!engine.partitions().unwrap().contains(&first));
}

/// Every start took all series for seen just now: those that had ended stayed for ever, and for hours took the room of new ones.
#[test]
fn series_that_ended_are_forgotten_in_time_however_often_the_collector_starts() {
    let (dir, hour_ms) = (tempfile::tempdir().unwrap(), 3_600_000);
    let clock = Arc::new(AtomicI64::new(NOW_MS));
    let open = || {
        let mut options = clocked(dir.path(), &clock);
        options.retention = Duration::from_millis(6 * hour_ms as u64);
        options.limits.series_per_agent = 4;
        Store::open(options, Arc::new(RealDisk)).unwrap()
    };
    let names =
        |store: &Store| store.label_values(METRIC_NAME, &[], i64::MIN, i64::MAX, &super::budget()).unwrap().len();
    let stated = |store: &Store, at_ms: i64, names: &[&str]| {
        let group = group(store, 0, "job/a", WriteMode::Stated);
        let values: Vec<(Slot, f64)> = series(store, group, names).into_iter().map(|slot| (slot, 1.0)).collect();
        store.append(&Batch { frame: None, ticks: vec![tick(group, at_ms, false, &values)] }).unwrap();
    };
    for hour in 0..8 {
        clock.store(NOW_MS + hour * hour_ms, Ordering::SeqCst);
        let store = open();
        let at_ms = NOW_MS + hour * hour_ms;
        let group = group(&store, 1, "g", WriteMode::Delta);
        // Two end with the first run, one of them comes back, and the last one goes on.
        let there: &[&str] = match hour {
            0 => &["ends", "returns", "stays", "ends too"],
            3.. => &["returns", "stays"],
            _ => &["stays"],
        };
        let values: Vec<(Slot, f64)> = series(&store, group, there).into_iter().map(|slot| (slot, 1.0)).collect();
        let last: Vec<(Slot, f64)> = values.iter().copied().filter(|(slot, _)| hour > 0 || slot.0 == 2).collect();
        let ticks = vec![tick(group, at_ms, true, &values), tick(group, at_ms + 1, true, &last)];
        store.append(&Batch { frame: None, ticks }).unwrap();
        stated(&store, at_ms, if hour == 0 { &["s", "s ends"] } else { &["s"] });
        assert!(store.seal(WITHIN));
        let wanted = match hour {
            ..6 => 6,
            6 => 7,
            _ => 4,
        };
        assert_eq!(names(&store), wanted, "after {hour} hours");
        if hour == 5 {
            drop(store);
            let store = open();
            let define = |name: &str| {
                let key = SeriesKey { labels: Labels::from_pairs([(METRIC_NAME, name)]), meta: None };
                store.define_series(group, &[key]).remove(0)
            };
            assert!(define("new").is_ok(), "of four series two are live");
            assert!(store.flush(WITHIN));
            store.crash();
        } else {
            store.crash();
        }
    }
}

/// A group that was idle while the clock was ahead counted as built up to the leapt time, and one that wrote was never built
/// further.
#[test]
fn a_clock_that_leaps_ahead_and_back_hides_nothing_from_the_tiers() {
    const HOUR_MS: i64 = 3_600_000;
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(AtomicI64::new(NOW_MS));
    let options = Options { tiers: [Some(Duration::ZERO); 2], ..clocked(dir.path(), &clock) };
    let store = on(options, memory());
    let write = |agent: u8, at_ms: i64| {
        let group = group(&store, agent, "host.cpu", WriteMode::Delta);
        let slots = series(&store, group, &[&format!("of{agent}")]);
        let ticks = vec![tick(group, at_ms, true, &[(slots[0], at_ms as f64)])];
        assert!(store.append(&Batch { frame: None, ticks }).unwrap().refused.is_empty());
    };
    let windows = |agent: u8| -> Vec<i64> {
        let span = (0, NOW_MS + 1000 * HOUR_MS);
        let found = store.core.select_windows(&[named(&format!("of{agent}"))], 10_000, span, &budget()).unwrap();
        found.iter().flat_map(|series| &series.windows).map(|window| window.first_ms).collect()
    };
    let mut times = vec![NOW_MS];
    (1..=2).for_each(|agent| write(agent, NOW_MS));
    assert!(store.seal(WITHIN));
    // A month ahead, and only one of the two writes.
    clock.store(NOW_MS + 720 * HOUR_MS, Ordering::SeqCst);
    write(2, NOW_MS + 1000);
    assert!(store.seal(WITHIN) && store.tend(WITHIN));
    for hours in [1, 4, 8, 12] {
        let at_ms = NOW_MS + hours * HOUR_MS;
        clock.store(at_ms, Ordering::SeqCst);
        (1..=2).for_each(|agent| write(agent, at_ms));
        times.push(at_ms);
        assert!(store.seal(WITHIN) && store.tend(WITHIN));
        assert_eq!(windows(1), times, "after {hours} hours");
        let mut of_writer = times.clone();
        of_writer.insert(1, NOW_MS + 1000);
        assert_eq!(windows(2), of_writer, "after {hours} hours");
    }
    let built = store.core.groups.read().all.iter().map(|group| group.state.lock().tiers[0].until_ms).min();
    assert!(built.unwrap() > NOW_MS + 4 * HOUR_MS, "{built:?}");
}
