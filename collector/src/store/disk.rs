//! The engine under the sealed blocks: sled, and only here.
//!
//! ```text
//! blocks/1700000000/    a sled database for what was sealed from that second on, until the next one begins
//! key                   u32 BE number, ascending in the order of writing
//! value                 see block.rs, 8 to 32 KiB, never above 64 KiB by much
//! ```
//! Deleting keys does not give space back (measured: 2.0 to 2.3 times the payload stay), so whole directories are deleted.
//! Keys come from the manifest; nothing walks a tree, because after damage sled's iterator repeats its error for ever while
//! `get` still serves the rest. Called from the store's own threads only.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Keeps values by partition and number. A partition has one writer at a time.
pub(super) trait Engine: fmt::Debug + Send + Sync {
    /// After an error, of this or of a flush, nothing is known of what was put since the last good flush: the writer puts all
    /// of it again, or gives it up.
    fn put(&self, partition: u32, values: &[(u32, Vec<u8>)]) -> io::Result<()>;
    /// Returns when all values of the partition are durable.
    fn flush(&self, partition: u32) -> io::Result<()>;
    fn get(&self, partition: u32, number: u32) -> io::Result<Option<Vec<u8>>>;
    fn drop_partition(&self, partition: u32) -> io::Result<()>;
    fn partitions(&self) -> io::Result<Vec<u32>>;
}

/// Page cache per open database; sled's own default of 1 GiB is no figure for a small server. Values are read once by those who
/// fold them and seldom again by queries, so little is worth keeping; what is, the kernel keeps in its own cache.
const CACHE_BYTES: u64 = 4 * 1024 * 1024;

/// Segments of a database. sled puts what is longer than a quarter of one into a file of its own, which goes when it is
/// outdated; in a segment it stays until most of that is. Measured, 60 MiB of random values of 24 KiB, bytes on disk by bytes
/// handed over: 1.98 with segments of 2 MiB, 1.47 of 512 KiB (sled's own choice), 1.30 of 128 KiB, 1.06 of 4 KiB; but below
/// 128 KiB each value costs a file and an fsync of its own, and three to five times the CPU.
const SEGMENT_BYTES: usize = 128 * 1024;

/// Bytes written to a database, or read from it, after which it is closed when it is idle. sled's cache has 256 parts, each of
/// which keeps its last page however large, and a page holds up to 16 of our values: one partition had 60 MiB resident with a
/// capacity of 4 MiB, and so would each that is read.
const PASSED_MAX: u64 = 16 * 1024 * 1024;

/// Longest wait for a database that was closed to be free again.
const LOCKED_FOR: Duration = Duration::from_secs(2);

/// Longest wait for a database to close. Once it could not write, sled may wait for ever for what it has given up.
const CLOSED_WITHIN: Duration = Duration::from_secs(5);

/// The same for a flush; a disk that takes longer is as good as none.
const FLUSHED_WITHIN: Duration = Duration::from_secs(60);

/// Databases that stay open, those with something to flush apart. Others are opened when a query needs them.
const OPEN_MAX: usize = 6;

#[derive(Debug)]
pub(super) struct Sled {
    dir: PathBuf,
    open: Mutex<Databases>,
}

#[derive(Debug, Default)]
struct Databases {
    turn: u64,
    by_partition: HashMap<u32, Open>,
}

#[derive(Debug)]
struct Open {
    /// The turn in which it was used last.
    used: u64,
    db: Arc<Database>,
    /// Bytes that were put or got since it was opened.
    passed: u64,
    /// Something was put since the last flush. It stays open until then: when sled closes a database and cannot write what is
    /// left, it tells nobody, and the next one to flush would believe that all is there.
    unflushed: bool,
}

/// A database that never keeps the one who closes it.
#[derive(Debug)]
struct Database {
    path: PathBuf,
    /// `None` while it is dropped.
    db: Option<sled::Db>,
}

impl Database {
    fn open(path: &Path) -> sled::Result<Self> {
        Ok(Self { path: path.to_owned(), db: Some(open_once_free(path)?) })
    }

    fn db(&self) -> io::Result<&sled::Db> {
        self.db.as_ref().ok_or_else(|| io::Error::other("the database is closed"))
    }

    fn flush(&self) -> io::Result<()> {
        let db = self.db()?.clone();
        let flush = move || guarded(|| db.flush().map(|_| ()).map_err(to_io));
        apart("store-flush", FLUSHED_WITHIN, flush)?
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

impl Open {
    /// Nobody uses it, and there is nothing to flush.
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.db) == 1 && !self.unflushed
    }
}

impl Sled {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), open: Mutex::default() }
    }

    pub fn path_in(dir: &Path, partition: u32) -> PathBuf {
        dir.join(format!("{partition:010}"))
    }

    fn path(&self, partition: u32) -> PathBuf {
        Self::path_in(&self.dir, partition)
    }

    fn db(&self, partition: u32, writes: bool) -> io::Result<Option<Arc<Database>>> {
        // Closed when the others may go on.
        let _closing: Option<Open>;
        let mut open = self.open.lock();
        let Databases { turn, by_partition: databases } = &mut *open;
        *turn += 1;
        if let Some(open) = databases.get_mut(&partition) {
            open.used = *turn;
            open.unflushed |= writes;
            return Ok(Some(open.db.clone()));
        }
        let path = self.path(partition);
        if !writes && !path.exists() {
            return Ok(None);
        }
        if databases.len() >= OPEN_MAX
            && let Some(oldest) = least_used(databases)
        {
            _closing = databases.remove(&oldest);
        }
        let db = Arc::new(Database::open(&path).map_err(to_io)?);
        databases.insert(partition, Open { used: *turn, db: db.clone(), passed: 0, unflushed: writes });
        Ok(Some(db))
    }

    /// Notes bytes that went through a database, and closes it when they were many and nobody uses it now.
    fn pass(&self, partition: u32, bytes: u64) {
        let mut open = self.open.lock();
        let Some(database) = open.by_partition.get_mut(&partition) else { return };
        database.passed += bytes;
        if database.passed > PASSED_MAX && database.is_idle() {
            let closing = open.by_partition.remove(&partition);
            drop(open);
            drop(closing);
        }
    }

    /// Takes a database out; it is closed by whoever lets go of it last, and nobody waits for that with the lock.
    fn take(&self, partition: u32) -> Option<Open> {
        self.open.lock().by_partition.remove(&partition)
    }

    /// What came of a write. sled remembers an error for as long as a database is open and fails all that follows, also when
    /// the disk has room again: so it is closed, and opened anew by whoever needs it next.
    fn written(&self, partition: u32, result: io::Result<()>) -> io::Result<()> {
        if result.is_err() {
            drop(self.take(partition));
        }
        result
    }
}

impl Engine for Sled {
    fn put(&self, partition: u32, values: &[(u32, Vec<u8>)]) -> io::Result<()> {
        let put = guarded(|| {
            let Some(db) = self.db(partition, true)? else { return Err(io::Error::other("no database")) };
            let db = db.db()?;
            for (number, value) in values {
                db.insert(number.to_be_bytes(), value.as_slice()).map_err(to_io)?;
            }
            Ok(())
        });
        self.written(partition, put)?;
        self.pass(partition, values.iter().map(|(_, value)| value.len() as u64).sum());
        Ok(())
    }

    fn flush(&self, partition: u32) -> io::Result<()> {
        let flushed = guarded(|| self.db(partition, false)?.map_or(Ok(()), |db| db.flush()));
        self.written(partition, flushed)?;
        if let Some(open) = self.open.lock().by_partition.get_mut(&partition) {
            open.unflushed = false;
        }
        self.pass(partition, 0);
        Ok(())
    }

    fn get(&self, partition: u32, number: u32) -> io::Result<Option<Vec<u8>>> {
        let value = guarded(|| {
            let Some(db) = self.db(partition, false)? else { return Ok(None) };
            Ok(db.db()?.get(number.to_be_bytes()).map_err(to_io)?.map(|value| value.to_vec()))
        })?;
        self.pass(partition, value.as_ref().map_or(0, |value| value.len() as u64));
        Ok(value)
    }

    fn drop_partition(&self, partition: u32) -> io::Result<()> {
        drop(self.take(partition));
        match fs::remove_dir_all(self.path(partition)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn partitions(&self) -> io::Result<Vec<u32>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            found.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
        }
        Ok(found)
    }
}

pub(super) fn open_database(path: &Path) -> sled::Result<sled::Db> {
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

/// The database that was not used for longest, of those that nobody uses now and that have nothing to flush: sled locks its
/// directory, so one that is in use could not be opened a second time.
fn least_used(databases: &HashMap<u32, Open>) -> Option<u32> {
    let idle = databases.iter().filter(|(_, open)| open.is_idle());
    idle.min_by_key(|(_, open)| open.used).map(|(partition, _)| *partition)
}

/// sled asserts on some damage; that shall cost one value or one try, not the thread.
fn guarded<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
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
    use super::*;

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
    fn what_is_not_flushed_stays_open_however_many_others_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Sled::new(dir.path());
        let is_open = |partition: u32| engine.open.lock().by_partition.contains_key(&partition);
        for partition in 1..=OPEN_MAX as u32 + 2 {
            engine.put(partition, &[(0, b"old".to_vec())]).unwrap();
            engine.flush(partition).unwrap();
        }
        assert!(!is_open(1), "idle ones make room");
        engine.put(99, &[(0, b"new".to_vec())]).unwrap();
        for partition in 1..=OPEN_MAX as u32 + 2 {
            assert_eq!(engine.get(partition, 0).unwrap().as_deref(), Some(&b"old"[..]));
        }
        assert!(is_open(99));
        engine.flush(99).unwrap();
        for partition in 1..=OPEN_MAX as u32 + 2 {
            engine.get(partition, 0).unwrap();
        }
        assert!(!is_open(99));
        assert_eq!(engine.get(99, 0).unwrap().as_deref(), Some(&b"new"[..]));
    }

    #[test]
    fn a_database_through_which_much_has_passed_is_closed_once_that_is_flushed() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Sled::new(dir.path());
        let is_open = || engine.open.lock().by_partition.contains_key(&1);
        let many = u32::try_from(PASSED_MAX).unwrap() / 32_768 + 2;
        let values: Vec<(u32, Vec<u8>)> = (0..many).map(|number| (number, vec![number as u8; 32_768])).collect();
        engine.put(1, &values).unwrap();
        assert!(is_open(), "what is not flushed stays open");
        engine.flush(1).unwrap();
        assert!(!is_open());
        let mut was_closed = false;
        for (number, value) in values {
            assert!(engine.get(1, number).unwrap() == Some(value), "{number}");
            was_closed |= !is_open();
        }
        assert!(was_closed, "while it is read too");
    }

    #[test]
    fn after_an_error_a_database_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Sled::new(dir.path());
        engine.put(1, &[(0, b"first".to_vec())]).unwrap();
        assert!(engine.written(1, Err(io::ErrorKind::StorageFull.into())).is_err());
        assert!(engine.open.lock().by_partition.is_empty());
        engine.put(1, &[(0, b"again".to_vec())]).unwrap();
        engine.flush(1).unwrap();
        assert_eq!(engine.get(1, 0).unwrap().as_deref(), Some(&b"again"[..]));
    }
}
