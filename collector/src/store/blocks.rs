//! Reading sealed runs, by a small pool of threads: sled may wait for the disk, and no tokio worker shall.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::block::{Address, SealedRun, piece};
use super::column::Samples;
use super::disk::Engine;
use super::piece::{Head, read_head, read_part};
use super::read::merge;
use super::{Budget, GroupId, SelectError, Slot};

/// Reads at once. More would only wait for the same disk.
const READERS: usize = 2;

/// Selects that wait for a reader; those beyond wait to be let in.
const WAITING_MAX: usize = 64;

/// Values per job, so that a wide query lets others in between and holds few megabytes.
const VALUES_PER_JOB: usize = 128;

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
    damaged: AtomicU64,
    read_bytes: AtomicU64,
}

/// What is wanted of a group's sealed runs.
pub(super) struct Wanted<'a> {
    pub group: GroupId,
    pub slots: &'a [Slot],
    pub from_ms: i64,
    pub to_ms: i64,
    /// Only the last sample counts, so only that is charged.
    pub last: bool,
}

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
        Ok(Self { jobs, readers: Mutex::new(readers), damaged: AtomicU64::new(0), read_bytes: AtomicU64::new(0) })
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

    /// Values by partition and number, for a backup; those that cannot be read are missing.
    pub fn values(&self, keys: &[Key], budget: &Budget) -> Result<BTreeMap<Key, Arc<[u8]>>, SelectError> {
        let address = |(partition, number): &Key| Address { partition: *partition, number: *number, piece: 0 };
        Ok(self.fetch(keys.iter().map(address), budget)?.into_iter().collect())
    }

    /// Reads values. One that cannot be read is counted and named, and is missing in the answer.
    fn fetch(&self, addresses: impl Iterator<Item = Address>, budget: &Budget) -> Result<Values, SelectError> {
        let keys: BTreeSet<Key> = addresses.map(|address| (address.partition, address.number)).collect();
        let keys: Vec<Key> = keys.into_iter().collect();
        let mut found = Values::new();
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
                        found.insert(key, value.into());
                    }
                    Ok(None) => self.report(key, "is missing"),
                    Err(error) if error.kind() == io::ErrorKind::InvalidData => self.report(key, &error.to_string()),
                    // It may well be read the next time: an answer without it would be wrong.
                    Err(error) => {
                        let partition = key.0;
                        let text = format!("cannot read blocks/{partition:010}: {error}; ask again, or check the disk");
                        return Err(SelectError::Storage(text));
                    }
                }
            }
        }
        Ok(found)
    }

    fn report(&self, (partition, number): Key, what: &str) {
        self.damaged.fetch_add(1, Ordering::Relaxed);
        tracing::error!("blocks/{partition:010}, value {number}: {what}; it is skipped, the rest is served");
    }

    fn piece<'a>(&self, values: &'a Values, address: Address) -> Option<&'a [u8]> {
        let key = (address.partition, address.number);
        let value = values.get(&key)?;
        let found = piece(value, address.piece);
        if found.is_none() {
            self.report(key, "its checksum is wrong");
        }
        found
    }

    /// Adds the samples of sealed runs to `into` (one per wanted slot), and shows the ticks of each run that was read.
    pub fn read(
        &self,
        wanted: &Wanted<'_>,
        runs: &[Arc<SealedRun>],
        into: &mut [Samples],
        budget: &Budget,
        mut ticks: impl FnMut(&[i64]),
    ) -> Result<(), SelectError> {
        let near: Vec<&Arc<SealedRun>> =
            runs.iter().filter(|run| run.max_ms >= wanted.from_ms && run.min_ms <= wanted.to_ms).collect();
        if near.is_empty() {
            return Ok(());
        }
        let place: HashMap<u32, usize> = wanted.slots.iter().enumerate().map(|(at, slot)| (slot.0, at)).collect();
        let heads = self.fetch(near.iter().map(|run| run.head), budget)?;
        for run in near {
            let Some(piece) = self.piece(&heads, run.head) else { continue };
            let Some(head) = read_head(piece, wanted.group.0) else {
                self.report((run.head.partition, run.head.number), "the head of a run cannot be read");
                continue;
            };
            ticks(&head.ticks);
            self.read_run(wanted, run, &head, &place, into, budget)?;
        }
        Ok(())
    }

    fn read_run(
        &self,
        wanted: &Wanted<'_>,
        run: &SealedRun,
        head: &Head,
        place: &HashMap<u32, usize>,
        into: &mut [Samples],
        budget: &Budget,
    ) -> Result<(), SelectError> {
        let parts = run.parts.iter().zip(&head.parts);
        let parts: Vec<(Address, &Vec<u32>)> = parts
            .filter(|(address, slots)| !address.is_lost() && slots.iter().any(|slot| place.contains_key(slot)))
            .map(|(address, slots)| (*address, slots))
            .collect();
        let values = self.fetch(parts.iter().map(|(address, _)| *address), budget)?;
        for (address, slots) in parts {
            let Some(piece) = self.piece(&values, address) else { continue };
            let mut over = Ok(());
            let span = (wanted.from_ms, wanted.to_ms);
            let read = read_part(piece, wanted.group.0, slots, &head.ticks, span, |slot, read| {
                let Some(at) = place.get(&slot).filter(|_| over.is_ok()) else { return true };
                let mut more = Samples::default();
                let whole = read(&mut more);
                over = budget.take_read(&more, wanted.last);
                merge(&mut into[*at], more);
                whole
            });
            over?;
            if read.is_none() {
                self.report((address.partition, address.number), "a column cannot be read");
            }
        }
        Ok(())
    }
}

fn serve(engine: &dyn Engine, waiting: &Mutex<Receiver<Job>>) {
    loop {
        let Ok(job) = waiting.lock().recv() else { return };
        let found = job.wanted.into_iter().map(|key| (key, engine.get(key.0, key.1))).collect();
        // Whoever asked may have given up.
        let _ = job.reply.send(found);
    }
}
