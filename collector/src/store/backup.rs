//! A backup of a store that runs: one moment of it, handed out piece by piece.
//!
//! 1. The keeper, between two checkpoints, says all that a manifest would say and opens the files of the log: that is the
//!    moment. No partition is deleted until the backup has ended.
//! 2. Manifest, log and values are read and handed to the sink, values by the same readers as queries, so that neither
//!    ingest nor queries wait for long.
//!
//! What comes after the moment is in the files of the log at most as a torn tail. The copy is opened like any other data
//! directory, and replays its log.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::block::SealedRun;
use super::core::Core;
use super::datadir::lock_for_reading;
use super::{Budget, OpenError, SelectError, Store};

/// Longest wait for the moment: a checkpoint under way is waited for.
const MOMENT_WITHIN: Duration = Duration::from_secs(60);

/// Longest time for all values.
const COPY_WITHIN: Duration = Duration::from_secs(24 * 3600);

/// Bytes of a file that are handed over at once.
const PIECE_BYTES: usize = 1 << 20;

/// Values that are handed over at once.
const VALUES_AT_ONCE: usize = 128;

/// Where a backup goes.
pub trait BackupSink {
    /// So many values will come.
    fn begin(&mut self, values: u64) -> io::Result<()>;
    /// More bytes of a file, by its name in the data directory.
    fn file(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// A value of the engine.
    fn value(&mut self, partition: u32, number: u32, bytes: &[u8]) -> io::Result<()>;
}

/// What a backup holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backed {
    pub values: u64,
    pub bytes: u64,
    /// Values that could not be read and are missing in the copy as they are here.
    pub missing: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("the store does not come to a moment of which a backup can be made: {0}; try again")]
    NoMoment(String),
    #[error("cannot read the store: {0}")]
    Read(#[from] SelectError),
    #[error("cannot read the log: {0}")]
    Log(io::Error),
    #[error("the backup cannot be written: {0}")]
    Write(io::Error),
}

/// The store at one moment.
#[derive(Debug)]
pub(super) struct Moment {
    pub manifest: Vec<u8>,
    /// Names and files of the log, each with its length at that moment.
    pub log: Vec<(String, File, u64)>,
    /// Held, so that their partitions stay.
    pub runs: Vec<Arc<SealedRun>>,
}

/// Keeps partitions from being deleted while it lives.
struct Pin<'a>(&'a Core);

impl<'a> Pin<'a> {
    fn new(core: &'a Core) -> Self {
        core.pins.fetch_add(1, Ordering::SeqCst);
        Self(core)
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.0.pins.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Store {
    /// Hands out one moment of the store. Takes as long as its sink; not for a tokio worker.
    pub fn backup(&self, sink: &mut dyn BackupSink) -> Result<Backed, BackupError> {
        let core = &self.core;
        let _pin = Pin::new(core);
        // What is durable elsewhere already, as acks, must be in the files that are copied.
        if !core.log.flush(MOMENT_WITHIN) {
            return Err(BackupError::NoMoment("the disk does not take the log".into()));
        }
        let moment = core.keeper.moment(MOMENT_WITHIN).map_err(BackupError::NoMoment)?;
        let mut backed = Backed::default();
        let addresses = moment.runs.iter().flat_map(|run| run.parts.iter().chain([&run.head]));
        let keys: BTreeSet<(u32, u32)> =
            addresses.filter(|at| !at.is_lost()).map(|at| (at.partition, at.number)).collect();
        sink.begin(keys.len() as u64).map_err(BackupError::Write)?;
        let mut buffer = vec![0; PIECE_BYTES];
        for (name, file, length) in moment.log {
            let mut rest = file.take(length);
            loop {
                let read = rest.read(&mut buffer).map_err(BackupError::Log)?;
                sink.file(&format!("log/{name}"), &buffer[..read]).map_err(BackupError::Write)?;
                backed.bytes += read as u64;
                if read == 0 {
                    break;
                }
            }
        }
        let budget = Budget::new(u64::MAX, Instant::now() + COPY_WITHIN);
        let keys: Vec<(u32, u32)> = keys.into_iter().collect();
        for some in keys.chunks(VALUES_AT_ONCE) {
            let values = core.blocks.values(some, &budget)?;
            backed.missing += (some.len() - values.len()) as u64;
            for ((partition, number), value) in values {
                sink.value(partition, number, &value).map_err(BackupError::Write)?;
                backed.values += 1;
                backed.bytes += value.len() as u64;
            }
        }
        // Last of all, as with a checkpoint: it names what lies there.
        for piece in moment.manifest.chunks(PIECE_BYTES) {
            sink.file("MANIFEST", piece).map_err(BackupError::Write)?;
        }
        backed.bytes += moment.manifest.len() as u64;
        Ok(backed)
    }
}

/// Hands out the files of a directory that no collector uses, as they lie there.
pub fn backup_stopped(dir: &Path, sink: &mut dyn BackupSink) -> Result<Backed, OpenError> {
    // What is damaged is copied like the rest; `check` says so.
    let (_lock, _) = lock_for_reading(dir)?;
    let mut names = Vec::new();
    list(dir, "", &mut names).map_err(OpenError::io(dir))?;
    let mut backed = Backed::default();
    sink.begin(0).map_err(OpenError::io(dir))?;
    let mut buffer = vec![0; PIECE_BYTES];
    for name in names {
        let path = dir.join(&name);
        let mut file = File::open(&path).map_err(OpenError::io(&path))?;
        loop {
            let read = file.read(&mut buffer).map_err(OpenError::io(&path))?;
            sink.file(&name, &buffer[..read]).map_err(OpenError::io(dir))?;
            backed.bytes += read as u64;
            if read == 0 {
                break;
            }
        }
    }
    Ok(backed)
}

/// What in a data directory is not data, or not of this moment.
const LEFT_OUT: [&str; 7] = ["LOCK", "RESERVE", "FORMAT", "control.sock", "damaged", "snapshots", "MANIFEST.new"];

fn list(dir: &Path, below: &str, names: &mut Vec<String>) -> io::Result<()> {
    for entry in std::fs::read_dir(dir.join(below))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if below.is_empty() && LEFT_OUT.contains(&&*name) {
            continue;
        }
        let name = if below.is_empty() { name } else { format!("{below}/{name}") };
        match entry.file_type()? {
            kind if kind.is_dir() => list(dir, &name, names)?,
            kind if kind.is_file() => names.push(name),
            _ => {}
        }
    }
    Ok(())
}
