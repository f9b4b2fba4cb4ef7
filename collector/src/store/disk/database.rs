//! One database of sled, which no other file names.
//!
//! ```text
//! tree    u16 BE n: nine values, from 9 n on, counted within this database; those of data format 5 and before in the default tree
//! key     u32 BE number, as it is in the partition
//! ```
//! sled appends what is put to a segmented file, and writes a page anew as a whole when ten such pieces have come, or when it has
//! more than sixteen keys. With our values each of those is a file of its own, and in the segments a hole is left that is closed
//! late or never. Measured, bytes on disk by bytes handed over, values of 8 KB and 24 KB: all in one tree 2.5 of 0.3 MB, 1.4 to
//! 1.7 of 3 MB, 1.3 of 100 MB; nine to a tree, so that no page is written twice, 1.02, 1.02 to 1.09 and 1.10.
//! Each new tree writes the list of all once more, which is what bounds their number.
//!
//! Nothing walks a tree, because after damage sled's iterator repeats its error for ever while `get` still serves the rest.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Page cache per open database; sled's own default of 1 GiB is no figure for a small server. Values are read once by those who
/// fold them and seldom again by queries, so little is worth keeping; what is, the kernel keeps in its own cache.
const CACHE_BYTES: u64 = 4 * 1024 * 1024;

/// Segments of a database. What is longer than a quarter of one becomes a file of its own, which our values seldom are; below
/// 128 KiB the rests of segments into which no value fits any more add up.
const SEGMENT_BYTES: usize = 128 * 1024;

/// Values of a tree: the tenth would have its page written anew.
const TREE_VALUES: u32 = 9;

/// Values of a database. All that was written of the list of its trees is then 3 % of what values of 8 KiB take, and 11 % of 2 KiB.
pub(super) const VALUES_MAX: u32 = 512 * TREE_VALUES;

/// Longest wait for a database that was closed to be free again.
const LOCKED_FOR: Duration = Duration::from_secs(2);

/// Longest wait for a database to close. Once it could not write, sled may wait for ever for what it has given up.
const CLOSED_WITHIN: Duration = Duration::from_secs(5);

/// The same for a flush; a disk that takes longer is as good as none.
const FLUSHED_WITHIN: Duration = Duration::from_secs(60);

type TreeName = [u8; 2];

/// A database that never keeps the one who closes it.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    /// `None` while it is dropped.
    db: Option<sled::Db>,
    /// Those that are there: sled makes what is opened.
    trees: Mutex<HashSet<TreeName>>,
    /// The last of sled's files beside the segments that is durable; `None` while the directories are not.
    synced: Mutex<Option<u64>>,
}

impl Database {
    pub fn open(path: &Path) -> io::Result<Self> {
        let db = open_once_free(path).map_err(to_io)?;
        let trees = db.tree_names().iter().filter_map(|name| name.as_ref().try_into().ok()).collect();
        Ok(Self { path: path.to_owned(), db: Some(db), trees: Mutex::new(trees), synced: Mutex::default() })
    }

    fn db(&self) -> io::Result<&sled::Db> {
        self.db.as_ref().ok_or_else(|| io::Error::other("the database is closed"))
    }

    pub fn put(&self, number: u32, value: &[u8]) -> io::Result<()> {
        let (db, key) = (self.db()?, number.to_be_bytes());
        let name = tree_of(number);
        let tree = db.open_tree(name).map_err(to_io)?;
        self.trees.lock().insert(name);
        tree.insert(key, value).map(|_| ()).map_err(to_io)
    }

    pub fn get(&self, number: u32) -> io::Result<Option<Vec<u8>>> {
        let (db, key) = (self.db()?, number.to_be_bytes());
        let name = tree_of(number);
        let is_there = self.trees.lock().contains(&name);
        let found = if is_there { db.open_tree(name).and_then(|tree| tree.get(key)).map_err(to_io)? } else { None };
        let found = if found.is_none() { db.get(key).map_err(to_io)? } else { found };
        Ok(found.map(|value| value.to_vec()))
    }

    /// Returns when all that was put is durable. sled only starts and awaits the writing of pages: of a file that has grown, the
    /// length may be lost with the power, and files beside the segments are not synced at all.
    pub fn flush(&self) -> io::Result<()> {
        let (db, path, synced) = (self.db()?.clone(), self.path.clone(), *self.synced.lock());
        let flush = move || {
            guarded(|| db.flush().map_err(to_io))?;
            sync_files(&path, synced, |path| File::open(path)?.sync_all())
        };
        let last = apart("store-flush", FLUSHED_WITHIN, flush)??;
        *self.synced.lock() = Some(last);
        Ok(())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let Some(db) = self.db.take() else { return };
        if let Err(error) = apart("store-close", CLOSED_WITHIN, move || drop(db)) {
            let path = self.path.display();
            tracing::error!(%error, "{path} does not close; what lies there is read again after a restart");
        }
    }
}

fn tree_of(number: u32) -> TreeName {
    // Far below 2^16.
    ((number % VALUES_MAX / TREE_VALUES) as u16).to_be_bytes()
}

/// Syncs the segments of a database, and what lies beside them and is not durable yet: files that bear ascending numbers and
/// never change, and the directories. Says the last of those files.
fn sync_files(path: &Path, synced: Option<u64>, sync: impl Fn(&Path) -> io::Result<()>) -> io::Result<u64> {
    let beside = path.join("blobs");
    let mut last = synced.unwrap_or(0);
    for entry in fs::read_dir(&beside)? {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok()).unwrap_or(u64::MAX);
        if synced.is_none_or(|synced| number > synced) {
            match sync(&entry.path()) {
                // sled deletes what is outdated from threads of its own.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => last = last.max(number),
            }
        }
    }
    sync(&path.join("db"))?;
    if synced != Some(last) {
        sync(&beside)?;
    }
    if synced.is_none() {
        [Some(path), path.parent()].into_iter().flatten().try_for_each(sync)?;
    }
    Ok(last)
}

/// Has work done by a thread of its own, and waits for it so long at most.
fn apart<T: Send + 'static>(name: &str, within: Duration, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (done, result) = sync_channel(1);
    std::thread::Builder::new().name(name.into()).spawn(move || {
        // Whoever waited may have gone on.
        let _ = done.send(work());
    })?;
    result.recv_timeout(within).map_err(|error| match error {
        RecvTimeoutError::Timeout => io::Error::new(io::ErrorKind::TimedOut, format!("not done within {within:?}")),
        RecvTimeoutError::Disconnected => io::Error::other("the thread has panicked"),
    })
}

pub(in crate::store) fn open_database(path: &Path) -> sled::Result<sled::Db> {
    // Flushes are ours to time: the store must know what is durable before it releases the log.
    let config = || sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(None);
    // Each try has a config of its own: sled logs an error when one that has a copy is changed.
    match config().segment_size(SEGMENT_BYTES).open() {
        // Made by a version that left the size to sled, which holds a database to the one it began with.
        Err(sled::Error::Unsupported(_)) => config().open(),
        opened => opened,
    }
}

/// Waits for one that was closed just now: sled's own threads let go of its lock a moment later.
fn open_once_free(path: &Path) -> sled::Result<sled::Db> {
    let deadline = Instant::now() + LOCKED_FOR;
    loop {
        match open_database(path) {
            Err(sled::Error::Io(error)) if is_locked(&error) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            opened => return opened,
        }
    }
}

/// sled tells of a lock in words only.
fn is_locked(error: &io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

/// sled asserts on some damage; that shall cost one value or one try, not the thread.
pub(super) fn guarded<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::InvalidData, "the engine panicked")))
}

/// Damage is told apart from trouble with reading: it is `InvalidData`.
fn to_io(error: sled::Error) -> io::Error {
    match error {
        sled::Error::Io(error) if error.kind() != io::ErrorKind::UnexpectedEof => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Values that nothing makes shorter.
    fn noise(number: u32, bytes: usize) -> Vec<u8> {
        let mut state = u64::from(number) + 1;
        let next = std::iter::repeat_with(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        });
        next.take(bytes).collect()
    }

    fn files_below(path: &Path) -> Vec<(PathBuf, u64)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            match entry.metadata().unwrap() {
                below if below.is_dir() => found.extend(files_below(&entry.path())),
                file => found.push((entry.path(), file.len())),
            }
        }
        found
    }

    #[test]
    fn who_waits_for_a_database_does_not_wait_for_ever() {
        let (held, hold) = sync_channel::<()>(0);
        let waited = apart("test-wait", Duration::from_millis(10), move || hold.recv().is_err());
        assert_eq!(waited.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(held);
        assert_eq!(apart("test-work", CLOSED_WITHIN, || 7).unwrap(), 7);
        let panicked: io::Result<()> = apart("test-panic", CLOSED_WITHIN, || panic!("one bug"));
        assert!(panicked.is_err());
    }

    #[test]
    fn each_value_lies_on_disk_once() {
        for (bytes, many) in [(8_000, 40), (8_000, 400), (20_000, 100)] {
            let dir = tempfile::tempdir().unwrap();
            let database = Database::open(dir.path()).unwrap();
            for number in 0..many {
                database.put(number, &noise(number, bytes)).unwrap();
            }
            database.flush().unwrap();
            let disk: u64 = files_below(dir.path()).iter().map(|(_, length)| length).sum();
            let payload = u64::from(many) * bytes as u64;
            assert!(disk * 100 < payload * 115, "{disk} bytes for {payload} in values of {bytes}");
            assert!((0..many).all(|number| database.get(number).unwrap() == Some(noise(number, bytes))));
        }
    }

    #[test]
    fn what_lies_in_the_default_tree_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("old");
        let old = open_database(&path).unwrap();
        [7u32, 8].iter().for_each(|number| _ = old.insert(number.to_be_bytes(), b"old").unwrap());
        old.flush().unwrap();
        drop(old);
        let database = Database::open(&path).unwrap();
        let new = [8, 9, VALUES_MAX - 1, VALUES_MAX + 10];
        new.iter().for_each(|number| database.put(*number, format!("new {number}").as_bytes()).unwrap());
        database.flush().unwrap();
        drop(database);
        let database = Database::open(&path).unwrap();
        let get = |number| database.get(number).unwrap().map(|value| String::from_utf8(value).unwrap());
        assert_eq!(get(7).as_deref(), Some("old"));
        new.iter().for_each(|number| assert_eq!(get(*number), Some(format!("new {number}")), "the newer one counts"));
        assert_eq!((get(10), get(100), get(VALUES_MAX + 9)), (None, None, None));
        assert_eq!(database.trees.lock().len(), 3, "reading makes none");
    }

    #[test]
    fn a_flush_syncs_all_that_holds_values_and_what_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1");
        let database = Database::open(&path).unwrap();
        let synced = |after: Option<u64>| {
            let synced = Mutex::new(BTreeSet::new());
            let note = |path: &Path| {
                synced.lock().insert(path.to_owned());
                Ok(())
            };
            (sync_files(&path, after, note).unwrap(), synced.into_inner())
        };
        // Too long for a segment.
        let long = SEGMENT_BYTES / 4 + 1;
        database.put(0, &noise(0, long)).unwrap();
        database.flush().unwrap();
        let (last, first) = synced(None);
        assert_eq!(*database.synced.lock(), Some(last));
        let one = path.join("blobs").join(last.to_string());
        let wanted = [dir.path().to_owned(), path.clone(), path.join("db"), path.join("blobs"), one];
        assert_eq!(first, BTreeSet::from(wanted));
        assert_eq!(synced(Some(last)), (last, BTreeSet::from([path.join("db")])), "nothing else is new");
        database.put(1, &noise(1, long)).unwrap();
        let (newer, second) = synced(Some(last));
        let other = path.join("blobs").join(newer.to_string());
        assert_eq!(second, BTreeSet::from([path.join("db"), path.join("blobs"), other]));
    }
}
