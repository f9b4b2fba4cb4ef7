//! Reading sealed runs, by a small pool of threads: sled may wait for the disk, and no tokio worker shall. What was read is kept
//! for a while (cache.rs).

mod ahead;
mod open;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::block::{Address, SealedRun, is_whole, piece_of};
use super::cache::Cache;
use super::column::Samples;
use super::disk::Engine;
use super::piece::{Head, read_head, read_wanted};
use super::read::merge;
use super::ticks::{Even, Ticks};
use super::{Budget, GroupId, SelectError, Slot};

pub(super) use self::open::{OpenColumn, OpenRun};
use self::open::{Opening, Places};

/// Reads at once. More would only wait for the same disk.
const READERS: usize = 2;

/// Selects that wait for a reader; those beyond wait to be let in.
const WAITING_MAX: usize = 64;

/// Values per job, so that a wide query lets others in between and holds few megabytes.
const VALUES_PER_JOB: usize = 128;

/// Values that are kept for those who ask again: a dashboard over the fleet reads so much. An hour of 6,400 counters takes 27 MiB,
/// and of what is read in turns a cache keeps nothing that is only a little larger than half of itself.
const CACHE_BYTES_MAX: usize = 48 * 1024 * 1024;

/// The same of single columns: who asks for one metric of many hosts wants a hundredth of the values that it lies in.
const COLUMN_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The same of heads of runs, as they were read.
const HEAD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The same of lists of ticks: runs that were sealed together share them.
const TICK_BYTES_MAX: usize = 1024 * 1024;

/// Partition and number.
type Key = (u32, u32);
type Values = HashMap<Key, Arc<[u8]>>;
type Answer = Vec<(Key, io::Result<Option<Vec<u8>>>)>;

#[derive(Debug)]
struct Job {
    wanted: Vec<Key>,
    reply: SyncSender<Answer>,
}

#[derive(Debug)]
pub(super) struct Blocks {
    /// `None` once the store is dropped.
    jobs: Mutex<Option<SyncSender<Job>>>,
    readers: Mutex<Vec<JoinHandle<()>>>,
    cache: Cache<Key, [u8]>,
    heads: Cache<Address, Head>,
    /// Ticks that several runs have, as lists.
    ticks: Cache<Even, [i64]>,
    /// By part and slot.
    columns: Cache<(Address, u32), OpenColumn>,
    damaged: AtomicU64,
    read_bytes: AtomicU64,
}

/// What is wanted of a group's sealed runs.
pub(super) struct Wanted<'a> {
    pub group: GroupId,
    pub slots: &'a [Slot],
    pub from_ms: i64,
    pub to_ms: i64,
}

impl Wanted<'_> {
    /// The runs near its time.
    pub fn near<'a>(&self, runs: &'a [Arc<SealedRun>]) -> impl Iterator<Item = &'a Arc<SealedRun>> {
        let (from_ms, to_ms) = (self.from_ms, self.to_ms);
        runs.iter().filter(move |run| run.max_ms >= from_ms && run.min_ms <= to_ms)
    }
}

/// Is asked before anything is read that is not in memory.
pub(super) type ReadAhead<'a> = &'a dyn Fn() -> Result<(), SelectError>;

/// For who reads one group at a time.
pub(super) const NO_MORE: ReadAhead<'static> = &|| Ok(());

impl Blocks {
    pub fn start(engine: Arc<dyn Engine>) -> io::Result<Self> {
        let (jobs, waiting) = sync_channel(WAITING_MAX);
        let waiting = Arc::new(Mutex::new(waiting));
        let mut readers = Vec::new();
        for _ in 0..READERS {
            let (engine, waiting) = (engine.clone(), waiting.clone());
            let thread = std::thread::Builder::new().name("store-read".into());
            readers.push(thread.spawn(move || serve(&*engine, &waiting))?);
        }
        let jobs = Mutex::new(Some(jobs));
        let (cache, heads) = (Cache::new(CACHE_BYTES_MAX), Cache::new(HEAD_BYTES_MAX));
        let (columns, ticks) = (Cache::new(COLUMN_BYTES_MAX), Cache::new(TICK_BYTES_MAX));
        let (damaged, read_bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { jobs, readers: Mutex::new(readers), cache, heads, ticks, columns, damaged, read_bytes })
    }

    /// Ends the readers, and with them the hold on the engine.
    pub fn stop(&self) {
        self.jobs.lock().take();
        for reader in self.readers.lock().drain(..) {
            // The engine turns its panics into errors; should the reader have panicked all the same, it was named then.
            let _ = reader.join();
        }
    }

    pub fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Bytes of values that queries and backups have read.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of values that are kept for those who ask again.
    pub fn cached_bytes(&self) -> usize {
        self.cache.bytes() + self.heads.bytes() + self.ticks.bytes() + self.columns.bytes()
    }

    /// Values by partition and number, for a backup; those that cannot be read are missing. They push nothing out of the cache.
    pub fn values(&self, keys: &[Key], budget: &Budget) -> Result<BTreeMap<Key, Arc<[u8]>>, SelectError> {
        let mut found = BTreeMap::new();
        self.read_values(keys, budget, |key, value| match value {
            Ok(value) => drop(found.insert(key, value)),
            Err(what) => self.report(key, &what),
        })?;
        Ok(found)
    }

    /// Whole values, out of the cache where they are. One that cannot be read is counted and named, and is missing.
    fn fetch(&self, addresses: impl Iterator<Item = Address>, budget: &Budget) -> Result<Values, SelectError> {
        let keys: BTreeSet<Key> = addresses.map(|address| (address.partition, address.number)).collect();
        let (mut found, mut missing) = (Values::new(), Vec::new());
        for key in keys {
            match self.cache.get(key) {
                Some(value) => drop(found.insert(key, value)),
                None => missing.push(key),
            }
        }
        self.read_values(&missing, budget, |key, value| match value.and_then(whole) {
            Ok(value) => {
                self.cache.keep(key, &value, value.len());
                found.insert(key, value);
            }
            Err(what) => self.report(key, &what),
        })?;
        Ok(found)
    }

    /// Has the readers read values; says of each that cannot be read what is wrong with it.
    fn read_values(
        &self,
        keys: &[Key],
        budget: &Budget,
        mut take: impl FnMut(Key, Result<Arc<[u8]>, String>),
    ) -> Result<(), SelectError> {
        for wanted in keys.chunks(VALUES_PER_JOB) {
            budget.check()?;
            let gone = || SelectError::Storage("the store's readers have ended; restart the collector".into());
            let (reply, answer) = sync_channel(1);
            let jobs = self.jobs.lock().clone().ok_or_else(gone)?;
            jobs.send(Job { wanted: wanted.to_vec(), reply }).map_err(|_| gone())?;
            for (key, value) in answer.recv().map_err(|_| gone())? {
                match value {
                    Ok(Some(value)) => {
                        self.read_bytes.fetch_add(value.len() as u64, Ordering::Relaxed);
                        take(key, Ok(value.into()));
                    }
                    Ok(None) => take(key, Err("is missing".to_owned())),
                    Err(error) if error.kind() == io::ErrorKind::InvalidData => take(key, Err(error.to_string())),
                    // It may well be read the next time: an answer without it would be wrong.
                    Err(error) => {
                        let partition = key.0;
                        let text = format!("cannot read blocks/{partition:010}: {error}; ask again, or check the disk");
                        return Err(SelectError::Storage(text));
                    }
                }
            }
        }
        Ok(())
    }

    fn report(&self, (partition, number): Key, what: &str) {
        self.damaged.fetch_add(1, Ordering::Relaxed);
        tracing::error!("blocks/{partition:010}, value {number}: {what}; it is skipped, the rest is served");
    }

    fn piece<'a>(&self, values: &'a Values, address: Address) -> Option<&'a [u8]> {
        let key = (address.partition, address.number);
        let value = values.get(&key)?;
        let found = piece_of(value, address.piece);
        if found.is_none() {
            self.report(key, "it lacks a piece");
        }
        found
    }

    /// Adds the samples of sealed runs to `into` (one per wanted slot).
    pub fn read(
        &self,
        wanted: &Wanted<'_>,
        runs: &[Arc<SealedRun>],
        into: &mut [Samples],
        budget: &Budget,
    ) -> Result<(), SelectError> {
        for run in self.open(wanted, runs, budget, NO_MORE)? {
            for (at, into) in into.iter_mut().enumerate() {
                let Some(column) = run.column(at) else { continue };
                let mut more = Samples::default();
                if !column.expand(run.ticks(), wanted.from_ms, wanted.to_ms, &mut more) {
                    self.report_column(column);
                }
                budget.take_read(&more, false)?;
                merge(into, more);
            }
        }
        Ok(())
    }

    /// Reads the runs near the time that is wanted, as far as they have columns that are. Where something is not in memory,
    /// `ahead` may bring it there first, and what is wanted next with it.
    pub fn open(
        &self,
        wanted: &Wanted<'_>,
        runs: &[Arc<SealedRun>],
        budget: &Budget,
        ahead: ReadAhead<'_>,
    ) -> Result<Vec<OpenRun>, SelectError> {
        let near: Vec<&Arc<SealedRun>> = wanted.near(runs).collect();
        if near.is_empty() || wanted.slots.is_empty() {
            return Ok(Vec::new());
        }
        let places = Places::of_slots(wanted.slots);
        let heads = self.heads(wanted.group, &near, budget, ahead)?;
        let with_heads = || near.iter().zip(&heads).filter_map(|(run, head)| Some((run, head.clone()?)));
        let begin = || with_heads().map(|(run, head)| self.begin(run, head, &places)).collect::<Vec<Opening>>();
        let mut opening = begin();
        if opening.iter().any(|run| !run.missing.is_empty()) {
            ahead()?;
            // Of many slots what was brought is whole values: there are no columns to be found now.
            if places.few().is_some() {
                opening = begin();
            }
        }
        // Of all runs at once: each time somebody waits for a reader to wake.
        let parts = opening.iter().flat_map(|run| &run.missing).map(|(_, address)| *address);
        let values = self.fetch(parts, budget)?;
        opening.iter_mut().for_each(|run| self.complete(run, wanted.group, &values, &places));
        // Of the values only these: neighbours that share them are not what was asked for.
        let columns = opening.iter().flat_map(|run| run.columns.iter().flatten());
        budget.take_bytes(columns.map(|column| column.length as u64).sum())?;
        let open = |run: Opening| OpenRun { ticks: self.ticks(&run.head), columns: run.columns };
        Ok(opening.into_iter().map(open).collect())
    }

    /// The ticks of a run, one by one.
    fn ticks(&self, head: &Head) -> Arc<[i64]> {
        let Ticks::Even(even) = head.ticks else { return head.ticks.list() };
        self.ticks.get(even).unwrap_or_else(|| {
            let ticks = head.ticks.list();
            self.ticks.keep(even, &ticks, size_of_val(&*ticks));
            ticks
        })
    }

    /// The heads of runs, as far as they can be read.
    fn heads(
        &self,
        group: GroupId,
        runs: &[&Arc<SealedRun>],
        budget: &Budget,
        ahead: ReadAhead<'_>,
    ) -> Result<Vec<Option<Arc<Head>>>, SelectError> {
        let known = || runs.iter().map(|run| self.heads.get(run.head)).collect::<Vec<_>>();
        let mut heads = known();
        if heads.iter().any(Option::is_none) {
            ahead()?;
            heads = known();
        }
        let addresses = || runs.iter().map(|run| run.head);
        let missing = addresses().zip(&heads).filter(|(_, head)| head.is_none()).map(|(address, _)| address);
        let values = self.fetch(missing, budget)?;
        let mut before: Option<Arc<Head>> = None;
        for (address, head) in addresses().zip(&mut heads) {
            if head.is_none() {
                let Some(piece) = self.piece(&values, address) else { continue };
                let Some(read) = self.read_head(piece, address, group, before.as_deref()) else {
                    self.report((address.partition, address.number), "the head of a run cannot be read");
                    continue;
                };
                *head = Some(read);
            }
            before.clone_from(head);
        }
        Ok(heads)
    }

    /// Reads a head, and keeps it.
    fn read_head(&self, piece: &[u8], address: Address, group: GroupId, before: Option<&Head>) -> Option<Arc<Head>> {
        let mut head = read_head(piece, group.0)?;
        before.into_iter().for_each(|before| head.share_slots(before));
        let head = Arc::new(head);
        self.heads.keep(address, &head, head.bytes());
        Some(head)
    }

    /// Finds what is kept of a run, and which of its parts must be read.
    fn begin(&self, run: &SealedRun, head: Arc<Head>, places: &Places) -> Opening {
        let mut columns: Vec<Option<OpenColumn>> = (0..places.len()).map(|_| None).collect();
        let mut missing: Vec<(usize, Address)> = Vec::new();
        let address = |part: usize| run.parts.get(part).copied().filter(|address| !address.is_lost());
        match places.few() {
            Some(few) => {
                for (slot, at) in few {
                    let part = head.part_of(*slot);
                    let Some((part, address)) = part.and_then(|part| Some((part, address(part)?))) else { continue };
                    columns[*at] = self.columns.get((address, *slot)).map(|column| (*column).clone());
                    if columns[*at].is_none() && missing.last().is_none_or(|(last, _)| *last != part) {
                        missing.push((part, address));
                    }
                }
            }
            None => {
                let parts = head.parts().enumerate().filter(|(_, slots)| places.any_of(slots));
                missing.extend(parts.filter_map(|(part, _)| Some((part, address(part)?))));
            }
        }
        Opening { head, columns, missing }
    }

    /// Takes the wanted columns of the parts that were read.
    fn complete(&self, run: &mut Opening, group: GroupId, values: &Values, places: &Places) {
        let Opening { head, columns, missing } = run;
        for (part, address) in missing {
            let Some(piece) = self.piece(values, *address) else { continue };
            let slots = head.parts().nth(*part).unwrap_or_default();
            let is_wanted = |slot| places.of(slot).is_some();
            let Some(read) = read_wanted(piece, group.0, slots, is_wanted) else {
                self.report((address.partition, address.number), "a part cannot be read");
                continue;
            };
            let value = &values[&(address.partition, address.number)];
            for column in read {
                let Some(at) = places.of(column.slot) else { continue };
                let open = OpenColumn::of(column, value, *address);
                columns[at] = Some(match places.few() {
                    Some(_) => self.keep_column(column.slot, &open),
                    None => open,
                });
            }
        }
    }

    /// The column without its neighbours, which is kept.
    fn keep_column(&self, slot: u32, column: &OpenColumn) -> OpenColumn {
        let (kept, bytes) = column.alone();
        self.columns.keep((kept.address, slot), &Arc::new(kept.clone()), bytes);
        kept
    }

    /// A column whose bytes were no column.
    pub fn report_column(&self, column: &OpenColumn) {
        self.report((column.address.partition, column.address.number), "a column cannot be read");
    }
}

fn whole(value: Arc<[u8]>) -> Result<Arc<[u8]>, String> {
    if is_whole(&value) { Ok(value) } else { Err("its checksum is wrong".to_owned()) }
}

fn serve(engine: &dyn Engine, waiting: &Mutex<Receiver<Job>>) {
    loop {
        let Ok(job) = waiting.lock().recv() else { return };
        let found = job.wanted.into_iter().map(|key| (key, engine.get(key.0, key.1))).collect();
        // Whoever asked may have given up.
        let _ = job.reply.send(found);
    }
}
