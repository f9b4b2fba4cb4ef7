//! A disk and an engine that note what is done to them, so that the state after a crash at any moment can be made.
//!
//! kill -9 does not test a flush: what was written is in the page cache and survives. Here what was written and not flushed is
//! kept, cut, or dropped by a random number, and so are names that were made, given or taken since their directory was flushed.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use lampad_proto::record::Scan;
use parking_lot::{Condvar, Mutex};
use rand::Rng;
use rand::rngs::StdRng;
use tokio::sync::watch;

use super::super::disk::Engine;
use super::*;

/// What was done; paths are relative to the data directory.
#[derive(Debug, Clone)]
pub enum Op {
    /// Files are numbered as they are made, because they change their names.
    Create(PathBuf),
    Write(usize, Vec<u8>),
    Flush(usize),
    FlushFailed,
    FlushDir,
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    Put(u32, Vec<(u32, Vec<u8>)>),
    FlushPartition(u32),
    DropPartition(u32),
}

#[derive(Debug, Default)]
struct Noted {
    ops: Vec<(Op, u64)>,
    files: usize,
    durable: Option<watch::Receiver<Lsn>>,
}

impl Noted {
    fn add(&mut self, op: Op) {
        let durable = self.durable.as_ref().map_or(0, |durable| durable.borrow().0);
        self.ops.push((op, durable));
    }
}

/// Shared by the disk and the engine of one store. Each entry is noted before it is done, with what was acked by then.
#[derive(Debug, Clone)]
pub struct Journal {
    dir: PathBuf,
    noted: Arc<Mutex<Noted>>,
    /// One of so many flushes fails; 0 for none.
    failing: Arc<AtomicU32>,
    /// So does each of a file to which a record of this kind was just written; 0 for none.
    failing_kind: Arc<AtomicU8>,
}

impl Journal {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), noted: Arc::default(), failing: Arc::default(), failing_kind: Arc::default() }
    }

    pub fn watch(&self, durable: watch::Receiver<Lsn>) {
        self.noted.lock().durable = Some(durable);
    }

    pub fn fail_one_of(&self, flushes: u32) {
        self.failing.store(flushes, Ordering::SeqCst);
    }

    pub fn fail_after(&self, kind: u8) {
        self.failing_kind.store(kind, Ordering::SeqCst);
    }

    pub fn ops(&self) -> Vec<(Op, u64)> {
        self.noted.lock().ops.clone()
    }

    fn note(&self, op: Op) {
        self.noted.lock().add(op);
    }

    fn name(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.dir).unwrap().to_owned()
    }

    fn fails(&self) -> bool {
        let one_of = self.failing.load(Ordering::SeqCst);
        one_of > 0 && (self.noted.lock().ops.len() as u32).is_multiple_of(one_of)
    }
}

/// The last says that the next flush fails.
#[derive(Debug)]
struct NotedFile(Box<dyn DiskFile>, usize, Journal, bool);

impl Disk for Journal {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = RealDisk.create(path)?;
        let mut noted = self.noted.lock();
        let number = noted.files;
        noted.files += 1;
        noted.add(Op::Create(self.name(path)));
        Ok(Box::new(NotedFile(file, number, self.clone(), false)))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        // A new store appends to what it has made itself.
        Err(io::Error::other(format!("{} was there before", path.display())))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note(Op::Rename(self.name(from), self.name(to)));
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if path.exists() {
            self.note(Op::Remove(self.name(path)));
        }
        RealDisk.remove(path)
    }

    fn flush_dir(&self, path: &Path) -> io::Result<()> {
        self.note(Op::FlushDir);
        RealDisk.flush_dir(path)
    }
}

impl DiskFile for NotedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.2.note(Op::Write(self.1, bytes.to_vec()));
        let kind = self.2.failing_kind.load(Ordering::SeqCst);
        self.3 = kind > 0 && Scan::new(bytes).any(|record| record.kind == kind);
        self.0.write(bytes)
    }

    /// What is in memory only need not be flushed in truth.
    fn flush(&mut self) -> io::Result<()> {
        if self.2.fails() || self.3 {
            self.2.note(Op::FlushFailed);
            return Err(io::Error::other("told to fail"));
        }
        self.2.note(Op::Flush(self.1));
        Ok(())
    }
}

type Values = BTreeMap<(u32, u32), Vec<u8>>;

/// What an engine does when it is asked to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Trouble {
    None,
    /// What was put and is not flushed is lost with it, as when a database is closed that cannot be written.
    FlushFails,
    PutFails,
    ReadHangs,
    /// The disk does not give back this value.
    Unreadable(u32, u32),
}

/// An engine in memory.
#[derive(Debug)]
pub struct Memory {
    pub values: Mutex<Values>,
    journal: Option<Journal>,
    unflushed: Mutex<Vec<(u32, u32)>>,
    trouble: Mutex<Trouble>,
    changed: Condvar,
    /// Somebody waits for a read.
    pub hangs: AtomicBool,
    reads: AtomicU64,
    /// The partition that was read last, and how often it was another one than before.
    turns: Mutex<(u32, u64)>,
}

impl Memory {
    pub fn new(values: Values, journal: Option<Journal>) -> Self {
        let (unflushed, trouble) = (Mutex::default(), Mutex::new(Trouble::None));
        Self {
            values: Mutex::new(values),
            journal,
            unflushed,
            trouble,
            changed: Condvar::new(),
            hangs: AtomicBool::new(false),
            reads: AtomicU64::new(0),
            turns: Mutex::default(),
        }
    }

    /// How often another partition was read than before.
    pub fn turns(&self) -> u64 {
        self.turns.lock().1
    }

    /// How many values were asked for.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::SeqCst)
    }

    pub fn tell(&self, trouble: Trouble) {
        *self.trouble.lock() = trouble;
        self.changed.notify_all();
    }

    fn fails(&self, trouble: Trouble) -> io::Result<()> {
        if *self.trouble.lock() == trouble {
            let mut values = self.values.lock();
            self.unflushed.lock().drain(..).for_each(|key| _ = values.remove(&key));
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn note(&self, op: Op) {
        if let Some(journal) = &self.journal {
            journal.note(op);
        }
    }
}

impl Engine for Memory {
    fn put(&self, partition: u32, values: &[(u32, Vec<u8>)]) -> io::Result<()> {
        self.fails(Trouble::PutFails)?;
        self.note(Op::Put(partition, values.to_vec()));
        self.unflushed.lock().extend(values.iter().map(|(number, _)| (partition, *number)));
        let keyed = values.iter().map(|(number, value)| ((partition, *number), value.clone()));
        self.values.lock().extend(keyed);
        Ok(())
    }

    fn flush(&self, partition: u32) -> io::Result<()> {
        self.fails(Trouble::FlushFails)?;
        self.note(Op::FlushPartition(partition));
        self.unflushed.lock().retain(|(of, _)| *of != partition);
        Ok(())
    }

    fn get(&self, partition: u32, number: u32) -> io::Result<Option<Vec<u8>>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let mut turns = self.turns.lock();
        *turns = (partition, turns.1 + u64::from(turns.0 != partition));
        drop(turns);
        let mut trouble = self.trouble.lock();
        if *trouble == Trouble::Unreadable(partition, number) {
            return Err(io::Error::from_raw_os_error(5));
        }
        while *trouble == Trouble::ReadHangs {
            self.hangs.store(true, Ordering::SeqCst);
            self.changed.wait(&mut trouble);
        }
        drop(trouble);
        Ok(self.values.lock().get(&(partition, number)).cloned())
    }

    fn drop_partition(&self, partition: u32) -> io::Result<()> {
        self.note(Op::DropPartition(partition));
        self.values.lock().retain(|(of, _), _| *of != partition);
        Ok(())
    }

    fn partitions(&self) -> io::Result<Vec<u32>> {
        let mut found: Vec<u32> = self.values.lock().keys().map(|(partition, _)| *partition).collect();
        found.dedup();
        Ok(found)
    }
}

/// A file: its bytes, and how many of them are flushed.
#[derive(Debug, Clone, Default)]
struct Written(Vec<u8>, usize);

/// Files by what they hold, names by which file they mean.
#[derive(Debug, Default)]
struct State {
    files: Vec<Written>,
    names: BTreeMap<PathBuf, usize>,
    /// Changes of names since the directory was flushed.
    unflushed: Vec<BTreeMap<PathBuf, usize>>,
    values: Values,
    put: Vec<((u32, u32), Vec<u8>)>,
}

/// What a crash leaves that comes before operation `at`; says the values of the engine. The directory must be empty.
pub fn crash_before(ops: &[(Op, u64)], at: usize, dir: &Path, random: &mut StdRng) -> Values {
    let mut state = State::default();
    // All names as they were after each change; before the first there are none.
    state.unflushed.push(BTreeMap::new());
    for (op, _) in &ops[..at] {
        let mut renamed = false;
        match op {
            Op::Create(path) => {
                state.files.push(Written::default());
                state.names.insert(path.clone(), state.files.len() - 1);
                renamed = true;
            }
            Op::Write(file, bytes) => state.files[*file].0.extend_from_slice(bytes),
            Op::Flush(file) => {
                let file = &mut state.files[*file];
                file.1 = file.0.len();
            }
            Op::Rename(from, to) => {
                let file = state.names.remove(from).unwrap();
                state.names.insert(to.clone(), file);
                renamed = true;
            }
            Op::Remove(path) => renamed = state.names.remove(path).is_some(),
            Op::FlushDir => state.unflushed = vec![state.names.clone()],
            Op::FlushFailed => {}
            Op::Put(partition, values) => {
                state.put.extend(values.iter().map(|(number, value)| ((*partition, *number), value.clone())));
            }
            Op::FlushPartition(partition) => {
                let (flushed, rest) =
                    std::mem::take(&mut state.put).into_iter().partition(|(key, _)| key.0 == *partition);
                let flushed: Vec<_> = flushed;
                state.values.extend(flushed);
                state.put = rest;
            }
            // That a directory is gone need not be durable: values that nothing names any more may be there again.
            Op::DropPartition(partition) => {
                let gone = random.random_bool(0.5);
                state.values.retain(|(of, _), _| of != partition || !gone);
                state.put.retain(|((of, _), _)| of != partition);
            }
        }
        if renamed {
            state.unflushed.push(state.names.clone());
        }
    }
    std::fs::create_dir_all(dir.join("log")).unwrap();
    super::super::datadir::write_format(dir).unwrap();
    let names = &state.unflushed[random.random_range(0..state.unflushed.len())];
    for (name, file) in names {
        let Written(bytes, flushed) = &state.files[*file];
        let mut bytes = bytes[..random.random_range(*flushed..=bytes.len())].to_vec();
        if bytes.len() > *flushed && random.random_bool(0.2) {
            // The file had grown before its content was written.
            let zeros = random.random_range(*flushed..bytes.len());
            bytes[zeros..].fill(0);
        }
        std::fs::write(dir.join(name), bytes).unwrap();
    }
    let kept = random.random_range(0..=state.put.len());
    state.values.extend(state.put.drain(..kept));
    state.values
}
