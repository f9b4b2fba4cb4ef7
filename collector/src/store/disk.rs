//! The engine under the sealed blocks: databases by partition, of which few are open.
//!
//! ```text
//! blocks/1700000000/           a partition: what was sealed from that second on, until the next one begins
//!                              its database of the first 4,608 values, see database.rs
//! blocks/1700000000/000001/    a database of its own for the next 4,608, and so on
//! number                       ascending in the order of writing
//! value                        see block.rs, about 8 KiB, never above 64 KiB by much
//! ```
//! Deleting keys does not give space back (measured: 2.0 to 2.3 times the payload stay), so whole directories are deleted.
//! Keys come from the manifest. Called from the store's own threads only.

mod database;

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

#[cfg(test)]
pub(super) use self::database::open_database;
use self::database::{Database, VALUES_MAX, guarded};

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

/// Bytes written to a database, or read from it, after which it is flushed, and closed when it is idle. sled's cache has 256 parts,
/// each of which keeps its last page however large, and a page holds nine of our values, or sixteen: one partition had 60 MiB
/// resident with a capacity of 4 MiB. With the bound on all that are open this bounds what they have in memory.
const PASSED_MAX: u64 = 4 * 1024 * 1024;

/// What an open database takes in memory, about, beside half as much again as has passed through it. Measured: eighteen of which a
/// little was read, 48 MiB; over a week of simulated time one that is read takes up to 9 MiB.
const OPEN_BYTES: u64 = 3 * 1024 * 1024;

/// What all of them may take, those with something to flush apart. To open one takes some milliseconds: with twelve open at most,
/// an hour of a hundred hosts, which lay in eighteen, took 5.8 s to read group by group, and 0.4 s when all were open.
const OPEN_BYTES_MAX: u64 = 108 * 1024 * 1024;

/// One that was not used for so long makes room when the next one is opened.
const IDLE_FOR: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Sled {
    dir: PathBuf,
    idle_for: Duration,
    open: Mutex<Databases>,
}

/// A database: its partition, and its place in that.
type Place = (u32, u32);

#[derive(Debug, Default)]
struct Databases {
    turn: u64,
    by_place: HashMap<Place, Open>,
}

#[derive(Debug)]
struct Open {
    /// The turn in which it was used last, and when that was.
    used: u64,
    used_at: Instant,
    db: Arc<Database>,
    /// Bytes that were put or got since it was opened.
    passed: u64,
    /// Something was put since the last flush. It stays open until then: when sled closes a database and cannot write what is
    /// left, it tells nobody, and the next one to flush would believe that all is there.
    unflushed: bool,
}

impl Open {
    /// Nobody uses it, and there is nothing to flush.
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.db) == 1 && !self.unflushed
    }

    /// What it takes in memory, about.
    fn bytes(&self) -> u64 {
        OPEN_BYTES + self.passed * 3 / 2
    }
}

impl Databases {
    /// Takes out those that are idle, so that one more may be opened. sled locks its directory, so one that is in use could not be
    /// opened a second time.
    fn make_room(&mut self, idle_for: Duration) -> Vec<Open> {
        let mut idle: Vec<(u64, Place)> =
            self.by_place.iter().filter(|(_, open)| open.is_idle()).map(|(place, open)| (open.used, *place)).collect();
        idle.sort_unstable();
        let mut closing = Vec::new();
        for (_, place) in idle {
            let bytes: u64 = self.by_place.values().map(Open::bytes).sum();
            let is_old = self.by_place.get(&place).is_some_and(|open| open.used_at.elapsed() > idle_for);
            if !is_old && bytes + OPEN_BYTES <= OPEN_BYTES_MAX {
                break;
            }
            closing.extend(self.by_place.remove(&place));
        }
        closing
    }
}

impl Sled {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), idle_for: IDLE_FOR, open: Mutex::default() }
    }

    pub fn path_in(dir: &Path, partition: u32) -> PathBuf {
        dir.join(format!("{partition:010}"))
    }

    fn path(&self, (partition, chapter): Place) -> PathBuf {
        let first = Self::path_in(&self.dir, partition);
        if chapter == 0 { first } else { first.join(format!("{chapter:06}")) }
    }

    fn db(&self, place: Place, writes: bool) -> io::Result<Option<Arc<Database>>> {
        // Closed when the others may go on.
        let _closing: Vec<Open>;
        let mut open = self.open.lock();
        let Databases { turn, by_place } = &mut *open;
        *turn += 1;
        let (used, used_at) = (*turn, Instant::now());
        if let Some(open) = by_place.get_mut(&place) {
            (open.used, open.used_at) = (used, used_at);
            open.unflushed |= writes;
            return Ok(Some(open.db.clone()));
        }
        let path = self.path(place);
        if !writes && !path.exists() {
            return Ok(None);
        }
        _closing = open.make_room(self.idle_for);
        let db = Arc::new(Database::open(&path)?);
        open.by_place.insert(place, Open { used, used_at, db: db.clone(), passed: 0, unflushed: writes });
        Ok(Some(db))
    }

    /// Notes bytes that went through a database, and closes it when they were many and nobody uses it now. Says whether it must be
    /// flushed before.
    fn pass(&self, place: Place, bytes: u64) -> bool {
        let mut open = self.open.lock();
        let Some(database) = open.by_place.get_mut(&place) else { return false };
        database.passed += bytes;
        let were_many = database.passed > PASSED_MAX;
        if were_many && database.is_idle() {
            let closing = open.by_place.remove(&place);
            drop(open);
            drop(closing);
            return false;
        }
        were_many && database.unflushed
    }

    /// Takes a database out; it is closed by whoever lets go of it last, and nobody waits for that with the lock.
    fn take(&self, place: Place) -> Option<Open> {
        self.open.lock().by_place.remove(&place)
    }

    /// Databases of a partition that are open.
    fn open_of(&self, partition: u32, is_meant: impl Fn(&Open) -> bool) -> Vec<Place> {
        let open = self.open.lock();
        let found = open.by_place.iter().filter(|((of, _), open)| *of == partition && is_meant(open));
        found.map(|(place, _)| *place).collect()
    }

    fn put_in(&self, place: Place, values: &[(u32, Vec<u8>)]) -> io::Result<()> {
        let put = guarded(|| {
            let Some(db) = self.db(place, true)? else { return Err(io::Error::other("no database")) };
            values.iter().try_for_each(|(number, value)| db.put(*number, value))
        });
        self.written(place, put)?;
        if self.pass(place, values.iter().map(|(_, value)| value.len() as u64).sum()) {
            self.flush_in(place)?;
        }
        Ok(())
    }

    /// Closes the databases that were written before this one: an open one takes some 10 MiB. Those that are read stay.
    fn leave(&self, partition: u32, chapter: u32) -> io::Result<()> {
        for place in self.open_of(partition, |open| open.unflushed).into_iter().filter(|place| place.1 < chapter) {
            self.flush_in(place)?;
            drop(self.take(place));
        }
        Ok(())
    }

    fn flush_in(&self, place: Place) -> io::Result<()> {
        let flushed = guarded(|| self.db(place, false)?.map_or(Ok(()), |db| db.flush()));
        self.written(place, flushed)?;
        if let Some(open) = self.open.lock().by_place.get_mut(&place) {
            open.unflushed = false;
        }
        self.pass(place, 0);
        Ok(())
    }

    fn get_in(&self, place: Place, number: u32) -> io::Result<Option<Vec<u8>>> {
        let value = guarded(|| self.db(place, false)?.map_or(Ok(None), |db| db.get(number)))?;
        self.pass(place, value.as_ref().map_or(0, |value| value.len() as u64));
        Ok(value)
    }

    /// What came of a write. sled remembers an error for as long as a database is open and fails all that follows, also when
    /// the disk has room again: so it is closed, and opened anew by whoever needs it next.
    fn written(&self, place: Place, result: io::Result<()>) -> io::Result<()> {
        if result.is_err() {
            drop(self.take(place));
        }
        result
    }
}

impl Engine for Sled {
    fn put(&self, partition: u32, values: &[(u32, Vec<u8>)]) -> io::Result<()> {
        let mut chapters = values.chunk_by(|(a, _), (b, _)| chapter_of(*a) == chapter_of(*b));
        chapters.try_for_each(|some| self.put_in((partition, chapter_of(some[0].0)), some))?;
        values.last().map_or(Ok(()), |(last, _)| self.leave(partition, chapter_of(*last)))
    }

    fn flush(&self, partition: u32) -> io::Result<()> {
        self.open_of(partition, |open| open.unflushed).into_iter().try_for_each(|place| self.flush_in(place))
    }

    fn get(&self, partition: u32, number: u32) -> io::Result<Option<Vec<u8>>> {
        let found = self.get_in((partition, chapter_of(number)), number)?;
        // Of a version whose partitions had one database each.
        if found.is_none() && chapter_of(number) > 0 { self.get_in((partition, 0), number) } else { Ok(found) }
    }

    fn drop_partition(&self, partition: u32) -> io::Result<()> {
        self.open_of(partition, |_| true).into_iter().for_each(|place| drop(self.take(place)));
        match fs::remove_dir_all(self.path((partition, 0))) {
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

fn chapter_of(number: u32) -> u32 {
    number / VALUES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_flushed_stays_open_however_many_others_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Sled::new(dir.path());
        let is_open = |partition: u32| engine.open.lock().by_place.contains_key(&(partition, 0));
        let most = (OPEN_BYTES_MAX / OPEN_BYTES) as u32;
        for partition in 1..=most + 2 {
            engine.put(partition, &[(0, b"old".to_vec())]).unwrap();
            engine.flush(partition).unwrap();
        }
        assert!(!is_open(1), "idle ones make room");
        engine.put(99, &[(0, b"new".to_vec())]).unwrap();
        for partition in 1..=most + 2 {
            assert_eq!(engine.get(partition, 0).unwrap().as_deref(), Some(&b"old"[..]));
        }
        assert!(is_open(99));
        engine.flush(99).unwrap();
        for partition in 1..=most + 2 {
            engine.get(partition, 0).unwrap();
        }
        assert!(!is_open(99));
        assert_eq!(engine.get(99, 0).unwrap().as_deref(), Some(&b"new"[..]));
    }

    #[test]
    fn those_through_which_more_has_passed_leave_less_room_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let mut engine = Sled::new(dir.path());
        for partition in 1..=4 {
            engine.put(partition, &[(0, b"old".to_vec())]).unwrap();
            engine.flush(partition).unwrap();
        }
        let open = |engine: &Sled| {
            let mut open: Vec<u32> = engine.open.lock().by_place.keys().map(|place| place.0).collect();
            open.sort_unstable();
            open
        };
        engine.open.lock().by_place.get_mut(&(3, 0)).unwrap().passed = OPEN_BYTES_MAX * 2 / 3;
        engine.get(1, 0).unwrap();
        engine.put(5, &[(0, b"new".to_vec())]).unwrap();
        engine.flush(5).unwrap();
        assert_eq!(open(&engine), [1, 4, 5], "the two that were not used for longest make room");
        engine.idle_for = Duration::ZERO;
        engine.put(6, &[(0, b"new".to_vec())]).unwrap();
        assert_eq!(open(&engine), [6]);
    }

    #[test]
    fn a_database_through_which_much_has_passed_is_flushed_and_closed() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Sled::new(dir.path());
        let is_open = || engine.open.lock().by_place.contains_key(&(1, 0));
        let many = u32::try_from(PASSED_MAX).unwrap() / 32_768 + 2;
        let values: Vec<(u32, Vec<u8>)> = (0..many).map(|number| (number, vec![number as u8; 32_768])).collect();
        let (some, others) = values.split_at(2);
        engine.put(1, some).unwrap();
        assert!(is_open(), "what is not flushed stays open");
        engine.put(1, others).unwrap();
        assert!(!is_open(), "a long checkpoint must not have all its values in memory");
        let mut was_closed = false;
        for (number, value) in values {
            assert!(engine.get(1, number).unwrap() == Some(value), "{number}");
            was_closed |= !is_open();
        }
        assert!(was_closed, "while it is read too");
    }

    #[test]
    fn a_database_that_is_full_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Sled::new(dir.path());
        let put = |numbers: std::ops::Range<u32>| {
            let values: Vec<(u32, Vec<u8>)> = numbers.map(|number| (number, vec![7])).collect();
            engine.put(1, &values).unwrap();
            let mut open = engine.open_of(1, |_| true);
            open.sort_unstable();
            open
        };
        assert_eq!(put(0..VALUES_MAX), [(1, 0)]);
        assert_eq!(put(VALUES_MAX..VALUES_MAX + 1), [(1, 1)]);
        assert_eq!(engine.get(1, 5).unwrap(), Some(vec![7]));
        assert_eq!(put(VALUES_MAX + 1..VALUES_MAX + 2), [(1, 0), (1, 1)], "one that is read stays");
    }

    #[test]
    fn a_partition_of_many_values_has_several_databases() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Sled::new(dir.path());
        let value = |number: u32| (number, number.to_be_bytes().to_vec());
        let some: Vec<(u32, Vec<u8>)> = (VALUES_MAX - 2..VALUES_MAX + 2).map(value).collect();
        engine.put(1, &some).unwrap();
        engine.put(1, &[value(3 * VALUES_MAX)]).unwrap();
        engine.flush(1).unwrap();
        assert!(engine.open_of(1, |open| open.unflushed).is_empty());
        drop(engine);
        let engine = Sled::new(dir.path());
        for (number, value) in some.iter().chain([&value(3 * VALUES_MAX)]) {
            assert_eq!(engine.get(1, *number).unwrap().as_ref(), Some(value), "{number}");
        }
        assert_eq!(engine.open_of(1, |_| true).len(), 3);
        assert!(engine.get(1, 2 * VALUES_MAX).unwrap().is_none());
        engine.drop_partition(1).unwrap();
        assert!(engine.partitions().unwrap().is_empty() && engine.get(1, VALUES_MAX).unwrap().is_none());
    }

    #[test]
    fn what_a_version_with_one_database_per_partition_wrote_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let old = open_database(&Sled::path_in(dir.path(), 1)).unwrap();
        let number = 2 * VALUES_MAX + 5;
        old.insert(number.to_be_bytes(), b"old").unwrap();
        old.flush().unwrap();
        drop(old);
        let engine = Sled::new(dir.path());
        assert_eq!(engine.get(1, number).unwrap().as_deref(), Some(&b"old"[..]));
        engine.put(1, &[(number, b"new".to_vec())]).unwrap();
        engine.flush(1).unwrap();
        assert_eq!(engine.get(1, number).unwrap().as_deref(), Some(&b"new"[..]));
    }

    #[test]
    fn after_an_error_a_database_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Sled::new(dir.path());
        engine.put(1, &[(0, b"first".to_vec())]).unwrap();
        assert!(engine.written((1, 0), Err(io::ErrorKind::StorageFull.into())).is_err());
        assert!(engine.open.lock().by_place.is_empty());
        engine.put(1, &[(0, b"again".to_vec())]).unwrap();
        engine.flush(1).unwrap();
        assert_eq!(engine.get(1, 0).unwrap().as_deref(), Some(&b"again"[..]));
    }
}
