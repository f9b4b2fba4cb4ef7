//! What happens when the disk hangs, fails, or comes back with other bytes.

use super::*;
use crate::store::disk::{Engine as _, Sled};

#[test]
fn nothing_is_durable_while_the_flush_hangs_or_fails_and_queries_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Told::default();
    let (tell, tried) = (|flush| disk.tell(flush), || disk.tried());
    let wanted;
    {
        let store = Store::open(options(dir.path()), Arc::new(disk.clone())).unwrap();
        let group = group(&store, 1, "host.cpu", WriteMode::Delta);
        let slots = series(&store, group, &["a"]);
        assert!(store.flush(Duration::from_secs(20)));
        let before = *store.durable().borrow();
        let append = |sequence: u64| {
            let at_ms = NOW_MS + sequence as i64 * 1000;
            let values = [(slots[0], sequence as f64)];
            store.append(&frame(sequence, vec![tick(group, at_ms, sequence == 1, &values)])).unwrap().lsn
        };
        let samples = |count: u64| bits(&(1..=count).map(|n| (NOW_MS + n as i64 * 1000, n as f64)).collect::<Vec<_>>());
        let began = tried();
        tell(Flush::Hangs);
        append(1);
        wait("a flush begins", || tried() > began);
        append(2);
        assert_eq!(range(&store, "a", 0, i64::MAX), samples(2), "queryable while the flush hangs");
        assert!(!store.flush(Duration::from_millis(30)));
        assert_eq!(*store.durable().borrow(), before, "no ack leaves");
        tell(Flush::Fails);
        let hung = tried();
        wait("it is tried again", || tried() > hung + 1);
        let last = append(3);
        assert_eq!(range(&store, "a", 0, i64::MAX), samples(3));
        assert_eq!(*store.durable().borrow(), before, "no ack leaves");
        assert!(store.stats().flush_failures >= 2);
        tell(Flush::Works);
        wait("it recovers", || *store.durable().borrow() >= last);
        wanted = samples(3);
    }
    let store = open(dir.path());
    assert_eq!(range(&store, "a", 0, i64::MAX), wanted, "once each, though the log may hold them twice");
    assert_eq!(store.stats().damaged, 0, "what a failed flush left behind is no loss");
}

#[test]
fn a_damaged_log_is_stepped_over_and_told() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path());
        let group = group(&store, 1, "host.cpu", WriteMode::Delta);
        let slots = series(&store, group, &["a"]);
        for sequence in 1..=9u64 {
            let at_ms = NOW_MS + sequence as i64 * 1000;
            let key = sequence == 1 || sequence == 7;
            store.append(&frame(sequence, vec![tick(group, at_ms, key, &[(slots[0], sequence as f64)])])).unwrap();
        }
        assert!(store.flush(Duration::from_secs(20)));
        store.crash();
    }
    let log = std::fs::read_dir(dir.path().join("log")).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&log).unwrap();
    let sample = |n: i64| (NOW_MS + n * 1000, n as f64);
    // The records of the frames are equally long; one bit of the fourth one is flipped.
    let mut lengths = lampad_proto::record::Scan::new(&whole[16..]);
    let records: Vec<usize> =
        lengths.by_ref().map(|record| record.payload.len() + lampad_proto::record::HEADER_BYTES).collect();
    let before: usize = records[..records.len() - 6].iter().sum();
    let mut bad = whole.clone();
    bad[16 + before + 20] ^= 4;
    std::fs::write(&log, &bad).unwrap();
    let store = open(dir.path());
    let wanted: Vec<(i64, f64)> = [1, 2, 3, 7, 8, 9].map(sample).to_vec();
    assert_eq!(range(&store, "a", 0, i64::MAX), bits(&wanted), "nothing is guessed until the key tick");
    assert!(store.stats().damaged > 0);
    drop(store);

    let torn = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(torn.path().join("log")).unwrap();
    std::fs::write(torn.path().join("log/0000000001.log"), &whole[..whole.len() - 3]).unwrap();
    let store = open(torn.path());
    let wanted: Vec<(i64, f64)> = (1..=8).map(sample).collect();
    assert_eq!(range(&store, "a", 0, i64::MAX), bits(&wanted), "all but the record that was cut");
    assert_eq!(store.stats().damaged, 0, "a torn tail is no damage");
}

/// Samples of three series, each in a value of its own, sealed.
fn sealed(dir: &std::path::Path) -> Vec<(i64, u64)> {
    let store = open(dir);
    let group = group(&store, 1, "host.cpu", WriteMode::Delta);
    let slots = series(&store, group, &["a", "b", "c"]);
    let mut wanted = Vec::new();
    for sequence in 1..=4000u64 {
        let at_ms = NOW_MS + sequence as i64 * 1000;
        // Full doubles take nine bytes each, so that no two columns share a part.
        let value = 1.0 / sequence as f64;
        let values: Vec<(Slot, f64)> = slots.iter().map(|slot| (*slot, value)).collect();
        store.append(&frame(sequence, vec![tick(group, at_ms, sequence == 1, &values)])).unwrap();
        wanted.push((at_ms, value));
    }
    assert!(store.seal(Duration::from_secs(20)));
    assert!(store.stats().damaged == 0 && range(&store, "a", 0, i64::MAX) == bits(&wanted));
    bits(&wanted)
}

fn partition(dir: &std::path::Path) -> std::path::PathBuf {
    std::fs::read_dir(dir.join("blocks")).unwrap().next().unwrap().unwrap().path()
}

#[test]
fn of_a_value_with_a_flipped_bit_only_its_own_series_are_lost() {
    let dir = tempfile::tempdir().unwrap();
    let wanted = sealed(dir.path());
    flip_bit_of_value(&dir.path().join("blocks"), 0, 1000);
    let store = open(dir.path());
    let whole: Vec<bool> = ["a", "b", "c"].map(|name| range(&store, name, 0, i64::MAX) == wanted).into();
    assert_eq!(whole.iter().filter(|whole| !**whole).count(), 1, "{whole:?}");
    assert!(store.stats().damaged > 0, "it is counted");
}

#[test]
fn a_broken_partition_costs_its_own_samples_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let wanted = sealed(dir.path());
    let db = partition(dir.path()).join("db");
    let mut bytes = std::fs::read(&db).unwrap();
    bytes.iter_mut().skip(64).step_by(97).for_each(|byte| *byte ^= 16);
    std::fs::write(&db, bytes).unwrap();

    let store = open(dir.path());
    let found = range(&store, "a", 0, i64::MAX);
    assert!(found.len() <= wanted.len() && found.iter().all(|sample| wanted.contains(sample)), "nothing is invented");
    let group = group(&store, 1, "host.cpu", WriteMode::Delta);
    let slots = series(&store, group, &["a", "b", "c"]);
    let values: Vec<(Slot, f64)> = slots.iter().map(|slot| (*slot, 5.0)).collect();
    let at_ms = NOW_MS + 5_000_000;
    store.append(&frame(5000, vec![tick(group, at_ms, true, &values)])).unwrap();
    wait("what is new is sealed elsewhere", || store.seal(Duration::from_secs(20)));
    drop(store);
    let store = open(dir.path());
    assert_eq!(range(&store, "b", at_ms, i64::MAX), bits(&[(at_ms, 5.0)]));
    assert!(
        found == wanted || {
            range(&store, "a", 0, i64::MAX);
            store.stats().damaged > 0
        },
        "what is lost is counted"
    );
}

#[test]
fn a_torn_manifest_is_cut_and_a_damaged_one_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let wanted = sealed(dir.path());
    let path = dir.path().join("MANIFEST");
    let whole = std::fs::read(&path).unwrap();
    let mut torn = whole.clone();
    torn.extend_from_slice(&whole[16..30]);
    std::fs::write(&path, &torn).unwrap();
    {
        let store = open(dir.path());
        assert_eq!(range(&store, "b", 0, i64::MAX), wanted);
        assert_eq!(store.stats().damaged, 0, "a torn tail is no damage");
    }
    let whole = std::fs::read(&path).unwrap();
    let mut bad = whole.clone();
    bad[40] ^= 1;
    std::fs::write(&path, &bad).unwrap();
    {
        let store = open(dir.path());
        assert!(store.stats().damaged > 0, "it is counted");
        assert_eq!(std::fs::read(dir.path().join("MANIFEST.damaged")).unwrap(), bad, "kept for whoever can mend it");
    }
    // Without the first bytes nothing is known of the blocks: going on would have them deleted as unused.
    let mut bad = std::fs::read(&path).unwrap();
    bad[0] ^= 1;
    std::fs::write(&path, &bad).unwrap();
    let refused = Store::open(options(dir.path()), Arc::new(RealDisk)).unwrap_err();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
    assert!(refused.to_string().contains("MANIFEST"), "{refused}");
}

/// A file system of its own that is taken down with the test.
struct Small(tempfile::TempDir);

impl Small {
    /// `None` without the right to mount.
    fn mount(mib: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={mib}m");
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then_some(Self(dir))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(self.0.path()).output();
    }
}

#[test]
fn a_full_disk_is_passing_trouble_and_can_be_opened() {
    let Some(small) = Small::mount(100) else {
        eprintln!("skipped: only root may mount a small file system");
        return;
    };
    let data = small.0.path().join("data");
    let options = || Options { reserve_bytes: 1 << 20, ..options(&data) };
    let filler = small.0.path().join("filler");
    let fill = || {
        let mut file = std::fs::File::create(&filler).unwrap();
        while std::io::Write::write_all(&mut file, &[1; 1 << 16]).is_ok() {}
    };
    let sample = |sequence: u64| (NOW_MS + sequence as i64 * 1000, sequence as f64);
    let write = |store: &Store, sequence: u64| {
        let group = group(store, 1, "host.cpu", WriteMode::Delta);
        let slots = series(store, group, &["a"]);
        let (at_ms, value) = sample(sequence);
        store.append(&frame(sequence, vec![tick(group, at_ms, true, &[(slots[0], value)])]))
    };
    let new = |store: &Store| {
        let group = group(store, 1, "host.cpu", WriteMode::Delta);
        let key = SeriesKey { labels: Labels::from_pairs([(METRIC_NAME, "new")]), meta: None };
        store.define_series(group, &[key]).remove(0)
    };
    {
        let store = Store::open(options(), Arc::new(RealDisk)).unwrap();
        write(&store, 1).unwrap();
        assert!(store.flush(Duration::from_secs(20)));
        wait("room is set aside", || data.join("RESERVE").exists());
        fill();
        wait("it is noticed", || store.stats().disk_full);
        // What the engine could not write must not fail for ever, once there is room again.
        store.seal(Duration::from_secs(20));
        std::fs::remove_file(&filler).unwrap();
        wait("there is room again", || !store.stats().disk_full && store.seal(Duration::from_secs(20)));
        assert_eq!((range(&store, "a", 0, i64::MAX), store.stats().damaged), (bits(&[sample(1)]), 0));
        wait("room is set aside", || data.join("RESERVE").exists());
        fill();
        wait("it is noticed", || store.stats().disk_full);
        assert_eq!(write(&store, 2), Err(AppendError::DiskFull));
        assert!(matches!(new(&store), Err(Refused::Unavailable(_))), "no lasting refusal");
        assert_eq!(range(&store, "a", 0, i64::MAX), bits(&[sample(1)]), "queries go on");
        store.crash();
    }
    let store = Store::open(options(), Arc::new(RealDisk)).unwrap();
    assert_eq!(range(&store, "a", 0, i64::MAX), bits(&[sample(1)]), "opened while the disk is full");
    std::fs::remove_file(&filler).unwrap();
    wait("there is room again", || write(&store, 2).is_ok());
    assert_eq!(new(&store), Ok(Slot(1)));
    assert!(store.seal(Duration::from_secs(20)));
    assert_eq!(range(&store, "a", 0, i64::MAX), bits(&[sample(1), sample(2)]));
}

/// A crash of the test of crashes was told as damage, one in some hundred.
#[test]
fn a_segment_whose_header_a_crash_cut_short_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let segment = dir.path().join("log/0000000099.log");
    let damaged = |bytes: &[u8]| {
        std::fs::write(&segment, bytes).unwrap();
        open(dir.path()).stats().damaged
    };
    for written in 0..8 {
        let mut header = b"LMPDLOG1"[..written].to_vec();
        header.resize(16, 0);
        assert_eq!(damaged(&header), 0, "{written} bytes");
    }
    assert_eq!(damaged(b"LMPDLOG\0\0\0\0\0\0\0\0\0record"), 1);
    assert_eq!(damaged(b"LMPDLOX1\0\0\0\0\0\0\0\0"), 1);
}

/// sled refuses a database whose segments have another size than it is asked for.
#[test]
fn a_database_with_the_segments_of_an_earlier_version_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let path = Sled::path_in(dir.path(), 7);
    sled::open(&path).unwrap().insert([0, 0, 0, 1], b"value").unwrap();
    assert_eq!(Sled::new(dir.path()).get(7, 1).unwrap().unwrap(), b"value");
}
