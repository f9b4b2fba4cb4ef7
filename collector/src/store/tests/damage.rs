//! What is damaged, too large, too many or ahead of its time: nothing is lost, deleted or hidden for it.

use super::*;
use crate::store::disk::{Engine, Sled};
use lampad_proto::v1::Histogram;

const WITHIN: Duration = Duration::from_secs(20);

#[test]
fn without_its_manifest_a_directory_with_blocks_is_not_opened_as_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path());
        let group = group(&store, 1, "host.cpu", WriteMode::Delta);
        let slots = series(&store, group, &["a"]);
        store.append(&frame(1, vec![tick(group, NOW_MS, true, &[(slots[0], 1.0)])])).unwrap();
        assert!(store.seal(WITHIN));
    }
    let manifest = dir.path().join("MANIFEST");
    let whole = std::fs::read(&manifest).unwrap();
    let text = |path: &std::path::Path| match Store::open(options(path), Arc::new(RealDisk)) {
        Err(error @ OpenError::Damaged { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    std::fs::remove_file(&manifest).unwrap();
    assert!(text(dir.path()).contains("MANIFEST"));
    std::fs::write(&manifest, b"something else").unwrap();
    assert!(text(dir.path()).contains("backup"));

    // With a record of it damaged it is opened, and what it no longer names stays where it is.
    let mut bad = whole.clone();
    bad[30] ^= 1;
    std::fs::write(&manifest, &bad).unwrap();
    for _ in 0..2 {
        let store = open(dir.path());
        assert!(store.seal(WITHIN), "the retention runs");
        assert_eq!(std::fs::read_dir(dir.path().join("blocks")).unwrap().count(), 1);
    }
    std::fs::write(&manifest, &whole).unwrap();
    assert_eq!(range(&open(dir.path()), "a", 0, i64::MAX), bits(&[(NOW_MS, 1.0)]));
}

#[test]
fn a_database_in_use_stays_open_while_others_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Sled::new(dir.path());
    for partition in 0..12 {
        engine.put(partition, &[(0, vec![partition as u8])]).unwrap();
        engine.flush(partition).unwrap();
    }
    std::thread::scope(|scope| {
        for offset in 0..4 {
            let engine = &engine;
            scope.spawn(move || {
                for turn in 0..60u32 {
                    let partition = (turn * 5 + offset * 3) % 12;
                    assert_eq!(engine.get(partition, 0).unwrap(), Some(vec![partition as u8]));
                }
            });
        }
    });
}

#[test]
fn a_batch_beyond_the_longest_record_is_stored_in_several() {
    let dir = tempfile::tempdir().unwrap();
    let wide = Arc::new(Histogram { custom_values: vec![0.5; 1 << 19], ..Histogram::default() });
    let count = 20;
    {
        let store = open(dir.path());
        let stated = group(&store, 0, "job/a", WriteMode::Stated);
        let names: Vec<String> = (0..count).map(|number| format!("h{number:02}")).collect();
        let slots = series(&store, stated, &names.iter().map(String::as_str).collect::<Vec<_>>());
        let values: Vec<_> = slots.iter().map(|slot| (*slot, Value::Histogram(wide.clone()))).collect();
        // 80 MiB, in ticks of one value each.
        let ticks = values
            .into_iter()
            .zip(0..)
            .map(|(value, at)| TickBatch { values: vec![value], ..tick(stated, NOW_MS + at, false, &[]) });
        let ticks: Vec<TickBatch> = ticks.collect();
        // An agent's frame is stored as a whole; what is stated may come again, and is then there already.
        let delta = group(&store, 1, "host.cpu", WriteMode::Delta);
        let key = |at: &TickBatch| TickBatch { group: delta, key: true, ..at.clone() };
        let framed = store.append(&frame(1, ticks.iter().map(key).collect()));
        assert!(matches!(framed, Err(AppendError::TooLarge { .. })), "{framed:?}");
        let framed = store.append(&frame(1, ticks.clone())).unwrap();
        assert!(framed.refused.is_empty() && !framed.duplicate);
        assert!(store.append(&frame(1, ticks.clone())).unwrap().duplicate);
        // One that no record holds is refused, with the rest around it.
        let long = Arc::new(Histogram { custom_values: vec![0.5; 1 << 22], ..Histogram::default() });
        let mut more = ticks.clone();
        more[3].values.push((slots[5], Value::Histogram(long)));
        let appended = store.append(&Batch { frame: None, ticks: more }).unwrap();
        let refused: Vec<_> = appended.refused.iter().map(|(_, slot, refused)| (*slot, refused.to_string())).collect();
        assert_eq!(refused.len(), 1);
        assert!(refused[0].0 == slots[5] && refused[0].1.starts_with("h05{"), "{refused:?}");
        assert!(store.flush(WITHIN));
        store.crash();
    }
    let store = open(dir.path());
    assert_eq!(store.stats().damaged, 0);
    let select = Select::Range { from_ms: 0, to_ms: i64::MAX };
    let found = store.select(&[], select, &budget()).unwrap();
    assert_eq!(found.iter().map(|series| series.histograms.len()).sum::<usize>(), count);
}

#[test]
fn series_of_an_agent_whose_clock_is_ahead_end_behind_their_last_tick() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (behind, ahead) =
        (group(&store, 1, "host.cpu", WriteMode::Delta), group(&store, 1, "host.mem", WriteMode::Delta));
    let (a, b) = (series(&store, behind, &["a"])[0], series(&store, ahead, &["b"])[0]);
    let t = NOW_MS;
    store.append(&frame(1, vec![tick(behind, t, true, &[(a, 1.0)]), tick(ahead, t + 40, true, &[(b, 2.0)])])).unwrap();
    store.silence(agent(1), t + 10);
    let stale = lampad_proto::stale();
    let check = |store: &Store| {
        assert_eq!(range(store, "a", 0, i64::MAX), bits(&[(t, 1.0), (t + 10, stale)]));
        assert_eq!(range(store, "b", 0, i64::MAX), bits(&[(t + 40, 2.0), (t + 41, stale)]));
    };
    check(&store);
    assert!(store.flush(WITHIN));
    store.crash();
    drop(store);
    check(&open(dir.path()));
}

#[test]
fn after_a_damaged_log_late_data_goes_on_with_its_next_key_tick() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path());
        let group = group(&store, 1, "host.cpu", WriteMode::Delta);
        let slots = series(&store, group, &["a"]);
        for sequence in 1..=6u64 {
            let run = if sequence == 1 { Run::Live } else { Run::Backfill };
            let at_ms = if sequence == 1 { NOW_MS } else { NOW_MS - 10_000 + sequence as i64 };
            let key = matches!(sequence, 1 | 2 | 5);
            let tick = tick(group, at_ms, key, &[(slots[0], sequence as f64)]);
            store.append(&frame(sequence, vec![TickBatch { run, ..tick }])).unwrap();
        }
        assert!(store.flush(WITHIN));
        store.crash();
    }
    let log = std::fs::read_dir(dir.path().join("log")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&log).unwrap();
    let lengths: Vec<usize> = lampad_proto::record::Scan::new(&bytes[16..])
        .map(|record| record.payload.len() + lampad_proto::record::HEADER_BYTES)
        .collect();
    let third: usize = lengths[..lengths.len() - 4].iter().sum();
    bytes[16 + third + 20] ^= 4;
    std::fs::write(&log, &bytes).unwrap();
    let store = open(dir.path());
    let late = |sequence: i64| (NOW_MS - 10_000 + sequence, sequence as f64);
    let wanted = [late(2), late(5), late(6), (NOW_MS, 1.0)];
    assert_eq!(range(&store, "a", 0, i64::MAX), bits(&wanted));
}
