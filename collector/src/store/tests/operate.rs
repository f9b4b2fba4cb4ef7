//! What an operator does to a data directory: check, repair, back up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::*;

/// All samples of all series.
fn content(store: &Store) -> BTreeMap<String, Vec<(i64, u64)>> {
    let all = store.select(&[], Select::Range { from_ms: i64::MIN, to_ms: i64::MAX }, &budget()).unwrap();
    let bits =
        |series: &Series| series.floats.iter().map(|sample| (sample.timestamp_ms, sample.value.to_bits())).collect();
    all.iter().map(|series| (series.labels.to_string(), bits(series))).collect()
}

/// Two groups of three series, each with a value of its own in the engine, and 50 ticks that are in the log only.
fn filled(dir: &Path) -> BTreeMap<String, Vec<(i64, u64)>> {
    let store = open(dir);
    let groups = [group(&store, 1, "host.cpu", WriteMode::Delta), group(&store, 1, "host.mem", WriteMode::Delta)];
    let slots = [series(&store, groups[0], &["a", "b", "c"]), series(&store, groups[1], &["d", "e", "f"])];
    let append = |sequence: u64, key: bool| {
        let at_ms = NOW_MS + sequence as i64 * 1000;
        let tick = |at: usize| {
            let value = |slot: &Slot| (*slot, 1.0 / (sequence * 8 + u64::from(slot.0)) as f64);
            tick(groups[at], at_ms, key, &slots[at].iter().map(value).collect::<Vec<_>>())
        };
        store.append(&frame(sequence, vec![tick(0), tick(1)])).unwrap();
    };
    (1..=3000).for_each(|sequence| append(sequence, sequence == 1));
    assert!(store.seal(Duration::from_secs(60)));
    (3001..=3050).for_each(|sequence| append(sequence, sequence % 10 == 1));
    assert!(store.flush(Duration::from_secs(60)));
    let content = content(&store);
    store.crash();
    content
}

/// Every file with its bytes.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => waiting.push(path),
                false => _ = found.insert(path.clone(), std::fs::read(path).unwrap()),
            }
        }
    }
    found
}

fn checked(dir: &Path) -> Report {
    let scratch = tempfile::tempdir().unwrap();
    check(dir, scratch.path(), &mut |_, _| {}).unwrap()
}

fn flip(path: &Path, at: impl Fn(usize) -> usize) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = at(bytes.len());
    bytes[at] ^= 4;
    std::fs::write(path, bytes).unwrap();
}

/// The longest file of the log: a start adds an empty one.
fn log_file(dir: &Path) -> PathBuf {
    let logs = std::fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path());
    logs.max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap()
}

fn partition(dir: &Path) -> PathBuf {
    std::fs::read_dir(dir.join("blocks")).unwrap().next().unwrap().unwrap().path()
}

/// Flips a bit of the second value of the first partition.
fn flip_in_value(dir: &Path, at: usize) {
    flip_bit_of_value(&dir.join("blocks"), 1, at);
}

type Harm = fn(&Path);

/// What is done to a directory, and what `check` says of it.
const HARMS: [(&str, Harm, &str); 8] = [
    ("a bit of the log", |dir| flip(&log_file(dir), |length| length - 600), "damaged bytes at"),
    ("a length in the log", |dir| flip(&log_file(dir), |_| 17), "damaged bytes at 16"),
    ("the log's header", |dir| flip(&log_file(dir), |_| 0), "not a segment of the log"),
    ("a bit of the manifest", |dir| flip(&dir.join("MANIFEST"), |_| 30), "damaged bytes at"),
    ("the manifest's header", |dir| flip(&dir.join("MANIFEST"), |_| 1), "its first bytes are damaged"),
    ("a bit of a value", |dir| flip_in_value(dir, 1000), "its checksum is wrong"),
    ("the format", |dir| std::fs::write(dir.join("FORMAT"), "lamp").unwrap(), "missing or damaged"),
    (
        "the manifest as a whole",
        |dir| std::fs::remove_file(dir.join("MANIFEST")).unwrap(),
        "missing, and with it the names",
    ),
];

#[test]
fn damage_is_named_and_repaired_and_costs_nothing_else() {
    let whole = tempfile::tempdir().unwrap();
    let wanted = filled(whole.path());
    assert_eq!(wanted.values().map(Vec::len).collect::<Vec<_>>(), [3050; 6]);
    let report = checked(whole.path());
    assert!(report.is_clean(), "{:?}", report.damage);
    assert!(report.series == 6 && report.groups == 2 && report.values >= 6 && report.log_records >= 50, "{report:?}");
    for (what, harm, told) in HARMS {
        let dir = tempfile::tempdir().unwrap();
        super::super::scratch::copy(whole.path(), dir.path()).unwrap();
        harm(dir.path());
        let before = files(dir.path());
        let report = checked(dir.path());
        assert!(report.damage.iter().any(|damage| damage.to_string().contains(told)), "{what}: {:?}", report.damage);
        assert!(files(dir.path()) == before, "{what}: a check changes nothing");

        let scratch = tempfile::tempdir().unwrap();
        let repaired = repair(dir.path(), scratch.path(), &mut |_, _| {}).unwrap();
        let aside = repaired.aside.expect(what);
        assert!(what == "the format" || !files(&aside).is_empty(), "{what}: what was bad is kept");
        let report = checked(dir.path());
        assert!(report.is_clean(), "{what}: {:?}", report.damage);
        let store = open(dir.path());
        assert_eq!(store.stats().damaged, 0, "{what}");
        let mut lost = 0;
        for (labels, found) in content(&store) {
            assert!(found.iter().all(|sample| wanted[&labels].contains(sample)), "{what}: nothing is invented");
            lost += wanted[&labels].len() - found.len();
        }
        assert_eq!(store.stats().damaged, 0, "{what}: reading meets no damage");
        match what {
            "the format" | "the manifest's header" => assert_eq!(lost, 0, "{what}"),
            "a bit of a value" => assert!((1..=3000).contains(&lost), "{what}: one series of one run, not {lost}"),
            "a bit of the log" => assert!((1..=20 * 6).contains(&lost), "{what}: until the next key tick, not {lost}"),
            _ => {}
        }
        // It goes on: what is pushed is stored, and survives.
        let again = group(&store, 1, "host.cpu", WriteMode::Delta);
        let slots = series(&store, again, &["a"]);
        let at_ms = NOW_MS + 4_000_000;
        store.append(&frame(9000, vec![tick(again, at_ms, true, &[(slots[0], 5.0)])])).unwrap();
        assert!(store.seal(Duration::from_secs(60)), "{what}");
        drop(store);
        assert_eq!(range(&open(dir.path()), "a", at_ms, at_ms), bits(&[(at_ms, 5.0)]), "{what}");
    }
}

#[test]
fn a_partition_that_does_not_open_is_named_with_its_cost_and_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let wanted = filled(dir.path());
    let db = partition(dir.path()).join("db");
    let mut bytes = std::fs::read(&db).unwrap();
    bytes.iter_mut().skip(64).step_by(97).for_each(|byte| *byte ^= 16);
    std::fs::write(&db, bytes).unwrap();
    let report = checked(dir.path());
    let text = report.damage.iter().map(Damage::to_string).collect::<Vec<_>>().join("\n");
    assert!(text.contains("host.cpu") && text.contains("2023-11-14T22:13:21Z to "), "{text}");
    let scratch = tempfile::tempdir().unwrap();
    repair(dir.path(), scratch.path(), &mut |_, _| {}).unwrap().aside.unwrap();
    assert!(checked(dir.path()).is_clean());
    let store = open(dir.path());
    let late = NOW_MS + 3001 * 1000;
    for (labels, found) in content(&store) {
        let kept: Vec<_> = found.iter().filter(|(at_ms, _)| *at_ms >= late).collect();
        assert_eq!(kept.len(), 50, "{labels}: what was in the log");
        assert!(found.iter().all(|sample| wanted[&labels].contains(sample)));
    }
}

#[test]
fn a_directory_in_use_or_not_ours_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let mut tell = |_, _| {};
    assert!(matches!(check(dir.path(), scratch.path(), &mut tell), Err(OpenError::NoData { .. })));
    let nowhere = dir.path().join("nowhere");
    assert!(matches!(check(&nowhere, scratch.path(), &mut tell), Err(OpenError::Missing { .. })));
    let store = open(dir.path());
    assert!(matches!(check(dir.path(), scratch.path(), &mut tell), Err(OpenError::Locked { .. })));
    assert!(matches!(repair(dir.path(), scratch.path(), &mut tell), Err(OpenError::Locked { .. })));
    drop(store);
    assert!(checked(dir.path()).is_clean());
    std::fs::write(dir.path().join("INCOMPLETE"), "").unwrap();
    assert!(matches!(check(dir.path(), scratch.path(), &mut tell), Err(OpenError::Incomplete { .. })));
    let refused = Store::open(options(dir.path()), Arc::new(RealDisk)).unwrap_err();
    assert!(refused.to_string().contains("was not finished"), "{refused}");
}

/// A copy that stops in the middle to have the store go on under it.
struct Slow<'a> {
    copy: CopyDir,
    meanwhile: Option<Box<dyn FnOnce() + 'a>>,
}

impl BackupSink for Slow<'_> {
    fn begin(&mut self, values: u64) -> std::io::Result<()> {
        assert!(values > 0);
        self.copy.begin(values)
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> std::io::Result<()> {
        if let Some(meanwhile) = self.meanwhile.take() {
            meanwhile();
        }
        self.copy.file(name, bytes)
    }

    fn value(&mut self, partition: u32, number: u32, bytes: &[u8]) -> std::io::Result<()> {
        self.copy.value(partition, number, bytes)
    }
}

#[test]
fn a_backup_is_one_moment_and_opens_like_any_other_directory() {
    let (dir, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let wanted = filled(dir.path());
    let store = open(dir.path());
    let copy_dir = target.path().join("copy");
    {
        let meanwhile = || {
            let group = group(&store, 1, "host.cpu", WriteMode::Delta);
            let slots = series(&store, group, &["a", "new"]);
            let values: Vec<(Slot, f64)> = slots.iter().map(|slot| (*slot, 7.0)).collect();
            store.append(&frame(8000, vec![tick(group, NOW_MS + 9_000_000, true, &values)])).unwrap();
            assert!(store.seal(Duration::from_secs(60)), "the log is released and blocks are written meanwhile");
            assert!(!copy_dir.join("FORMAT").exists(), "a copy that is not finished is none");
        };
        let mut slow = Slow { copy: CopyDir::new(&copy_dir).unwrap(), meanwhile: Some(Box::new(meanwhile)) };
        let backed = store.backup(&mut slow).unwrap();
        assert!(backed.missing == 0 && backed.values >= 6, "{backed:?}");
        let Slow { copy, .. } = slow;
        copy.finish().unwrap();
    }
    assert!(CopyDir::new(&copy_dir).is_err(), "a second backup needs another place");
    let copied = open(&copy_dir);
    assert_eq!(content(&copied), wanted);
    assert!(copied.stored(agent(1), 7).contains(3050) && !copied.stored(agent(1), 7).contains(8000));
    drop(copied);
    drop(store);
    // The same of the stopped directory.
    let wanted = content(&open(dir.path()));
    let second = target.path().join("second");
    let mut copy = CopyDir::new(&second).unwrap();
    backup_stopped(dir.path(), &mut copy).unwrap();
    copy.finish().unwrap();
    assert!(checked(&second).is_clean());
    assert_eq!(content(&open(&second)), wanted);
}
