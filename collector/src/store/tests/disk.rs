//! What happens when the disk hangs, fails, or comes back with other bytes.

use std::io;
use std::path::Path;

use parking_lot::{Condvar, Mutex};

use super::*;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Flush {
    Works,
    Hangs,
    Fails,
}

/// Real files whose flush does as it is told.
#[derive(Debug)]
struct Told {
    flush: Arc<(Mutex<(Flush, u32)>, Condvar)>,
}

#[derive(Debug)]
struct ToldFile(Box<dyn DiskFile>, Arc<(Mutex<(Flush, u32)>, Condvar)>);

impl Disk for Told {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(ToldFile(RealDisk.create(path)?, self.flush.clone())))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(ToldFile(RealDisk.append(path)?, self.flush.clone())))
    }

    fn flush_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.flush_dir(path)
    }
}

impl DiskFile for ToldFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        let (told, changed) = &*self.1;
        let mut told = told.lock();
        told.1 += 1;
        while told.0 == Flush::Hangs {
            changed.wait(&mut told);
        }
        match told.0 {
            Flush::Fails => Err(io::Error::other("told to fail")),
            _ => self.0.flush(),
        }
    }
}

#[test]
fn nothing_is_durable_while_the_flush_hangs_or_fails_and_queries_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let flush = Arc::new((Mutex::new((Flush::Works, 0)), Condvar::new()));
    let tell = |what: Flush| {
        flush.0.lock().0 = what;
        flush.1.notify_all();
    };
    let tried = || flush.0.lock().1;
    let wanted;
    {
        let store = Store::open(options(dir.path()), Arc::new(Told { flush: flush.clone() })).unwrap();
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
