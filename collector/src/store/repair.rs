//! Makes a damaged directory one that opens without a complaint: what is bad is set aside, and said.
//!
//! ```text
//! damaged/20231114T221320Z/   MANIFEST, log/ and blocks/ as far as they were bad
//! ```
//! 1. everything is checked, and what is bad copied or moved aside;
//! 2. the store is opened without the runs and parts that cannot be read;
//! 3. all that the log holds is sealed and the manifest written anew, so that nothing builds on a damaged file any more.
//!
//! A repair that is cut short is begun anew: until the manifest is written, in one rename, what it needs is still there.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::block::{Address, SealedRun};
use super::check::{Report, Tell, check};
use super::datadir::{self, DataDir, Paths};
use super::disk::{Engine, Sled};
use super::manifest::{self, Header};
use super::readback::ReadBack;
use super::tier::TIERS;
use super::{OpenError, Options, Progress, RealDisk, Store, scratch};

/// Longest time for all of the log to be sealed.
const SEAL_WITHIN: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub struct Repaired {
    /// What was found; what it says is lost stays lost.
    pub found: Report,
    /// Where the bad files lie now; `None` where nothing was bad.
    pub aside: Option<PathBuf>,
}

pub fn repair(dir: &Path, scratch: &Path, tell: Tell<'_>) -> Result<Repaired, OpenError> {
    let found = check(dir, scratch, tell)?;
    if found.is_clean() {
        return Ok(Repaired { found, aside: None });
    }
    let paths = Paths::of(dir);
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let aside = dir.join("damaged").join(now.to_string());
    set_aside(&paths, &aside, &found).map_err(OpenError::io(&aside))?;
    reopen(dir, &found)?;
    set_nameless_aside(&paths, &aside)?;
    Ok(Repaired { found, aside: Some(aside) })
}

fn set_aside(paths: &Paths, aside: &Path, found: &Report) -> io::Result<()> {
    fs::create_dir_all(aside)?;
    let bad = &found.bad;
    if bad.format {
        datadir::write_format(paths.dir())?;
    }
    if bad.log {
        scratch::copy(&paths.log(), &aside.join("log"))?;
    }
    let manifest = paths.manifest();
    let by_start = manifest.with_extension("damaged");
    if by_start.exists() {
        fs::rename(&by_start, aside.join("MANIFEST.damaged"))?;
    }
    if manifest.exists() && bad.manifest {
        fs::copy(&manifest, aside.join("MANIFEST"))?;
        manifest::mend_header(&manifest)?;
    }
    keep_values(paths, aside, found)?;
    let blocks = aside.join("blocks");
    for partition in Sled::new(&paths.blocks()).partitions()? {
        // With the names gone nobody could tell what lies in a partition; the next retention would delete it as unused.
        if bad.partitions.contains(&partition) || !manifest.exists() {
            fs::create_dir_all(&blocks)?;
            fs::rename(Sled::path_in(&paths.blocks(), partition), Sled::path_in(&blocks, partition))?;
        }
    }
    if !manifest.exists() && blocks.exists() {
        tracing::warn!(to = %blocks.display(), "without a manifest nothing is known of the partitions: all are set aside");
    }
    Ok(())
}

/// Values that can be read and are wrong all the same, for whoever may make something of them.
fn keep_values(paths: &Paths, aside: &Path, found: &Report) -> io::Result<()> {
    let engine = Sled::new(&paths.blocks());
    let bad = found.bad.heads.iter().chain(&found.bad.parts);
    for address in bad.filter(|address| !found.bad.partitions.contains(&address.partition)) {
        if let Ok(Some(value)) = engine.get(address.partition, address.number) {
            let dir = Sled::path_in(&aside.join("blocks"), address.partition);
            fs::create_dir_all(&dir)?;
            fs::write(dir.join(format!("{}.value", address.number)), value)?;
        }
    }
    Ok(())
}

/// Opens the store without what is bad, seals all, and closes it.
fn reopen(dir: &Path, found: &Report) -> Result<(), OpenError> {
    // Nothing shall grow too old while it is repaired: how long samples are kept is the collector's matter.
    let kept = Duration::ZERO;
    let options = Options { retention: kept, tiers: [Some(kept); TIERS.len()], ..Options::new(dir) };
    let locked = Arc::new(DataDir::open(dir, 0)?);
    let engine: Arc<dyn Engine> = Arc::new(Sled::new(&locked.paths().blocks()));
    let store = Store::open_on(options, Arc::new(RealDisk), engine, locked, |read| leave_out(read, found))?;
    let sealed = store.seal(SEAL_WITHIN);
    if !(store.shutdown() && sealed) {
        let source = io::Error::other("what was read could not be sealed; the log above says why");
        return Err(OpenError::Io { path: dir.to_owned(), source });
    }
    Ok(())
}

/// What a damaged manifest no longer named would be deleted by the next retention as unused.
fn set_nameless_aside(paths: &Paths, aside: &Path) -> Result<(), OpenError> {
    let read = ReadBack::of(paths, 0, &Progress::default(), Header::Whole)?;
    let mut named = BTreeSet::new();
    for group in &read.restored.groups.all {
        let state = group.state.lock();
        named.extend(state.all_sealed().flat_map(|run| run.parts.iter().chain([&run.head])).map(|at| at.partition));
    }
    let moved = || -> io::Result<()> {
        let blocks = aside.join("blocks");
        for partition in Sled::new(&paths.blocks()).partitions()?.into_iter().filter(|found| !named.contains(found)) {
            fs::create_dir_all(&blocks)?;
            fs::rename(Sled::path_in(&paths.blocks(), partition), Sled::path_in(&blocks, partition))?;
        }
        match fs::remove_file(paths.manifest().with_extension("damaged")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    };
    moved().map_err(OpenError::io(aside))
}

fn leave_out(read: &mut ReadBack, found: &Report) {
    let bad = &found.bad;
    for group in &read.restored.groups.all {
        let mut state = group.state.lock();
        let runs = state.sealed.iter().filter(|run| !bad.heads.contains(&run.head));
        let mend = |part: &Address| if bad.parts.contains(part) { Address::LOST } else { *part };
        let mended = |run: &Arc<SealedRun>| {
            Arc::new(SealedRun { parts: run.parts.iter().map(mend).collect(), ..(**run).clone() })
        };
        state.sealed = Arc::new(runs.map(mended).collect());
        // What a tier says of a series is worth nothing without the rest of it: such a run goes whole.
        let is_whole = |run: &Arc<SealedRun>| {
            !run.parts.iter().chain([&run.head]).any(|at| bad.heads.contains(at) || bad.parts.contains(at))
        };
        for tiered in state.tiers.iter_mut().filter(|tiered| !tiered.runs.iter().all(is_whole)) {
            Arc::make_mut(&mut tiered.runs).retain(is_whole);
            // Raw samples count in its place, and what they still have of it is built again.
            tiered.through = 0;
        }
    }
    // A damaged partition is read and no longer written to.
    if let Some((partition, _)) = read.restored.numbers.filter(|_| !bad.heads.is_empty() || !bad.parts.is_empty()) {
        read.restored.numbers = Some((partition.saturating_add(1), 0));
    }
    read.say_everything = true;
}
