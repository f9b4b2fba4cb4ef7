//! Opening, running and closing a store.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::append::Appended;
use super::blocks::Blocks;
use super::core::{Core, Counters, StoreStats};
use super::datadir::DataDir;
use super::disk::{Engine, Sled};
use super::files::Disk;
use super::keeper::Keeper;
use super::log::Log;
use super::manifest::{self, Header, Manifest};
use super::readback::ReadBack;
use super::seal::Sealer;
use super::{
    AgentId, AppendError, Batch, Budget, Each, EachLabels, GroupId, GroupKey, Lsn, Matcher, Meta, OpenError, Options,
    Reach, Refused, Select, SelectError, SequenceSet, Series, SeriesKey, Slot, Source, Visit, WindowSeries, WriteMode,
};

/// Longest wait for the disk at the end.
const CLOSE_WITHIN: Duration = Duration::from_secs(20);

/// A store. Its methods may be called from any thread; none of them waits for the disk unless it says so.
#[derive(Debug)]
pub struct Store {
    pub(super) core: Arc<Core>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Opens or makes a data directory and reads back what it holds.
    pub fn open(options: Options, disk: Arc<dyn Disk>) -> Result<Arc<Self>, OpenError> {
        let dir = Arc::new(DataDir::open(&options.data_dir, options.reserve_bytes)?);
        let engine: Arc<dyn Engine> = Arc::new(Sled::new(&dir.paths().blocks()));
        Self::open_on(options, disk, engine, dir, |_| {})
    }

    /// The same on any engine; `mend` may change what was read before it is believed.
    pub(super) fn open_on(
        options: Options,
        disk: Arc<dyn Disk>,
        engine: Arc<dyn Engine>,
        dir: Arc<DataDir>,
        mend: impl FnOnce(&mut ReadBack),
    ) -> Result<Arc<Self>, OpenError> {
        let paths = dir.paths();
        let (manifest_path, blocks) = (paths.manifest(), paths.blocks());
        let sealed = !engine.partitions().map_err(OpenError::io(&blocks))?.is_empty();
        if sealed && !manifest::is_one(&manifest_path).map_err(OpenError::io(&manifest_path))? {
            let detail =
                "this file names all samples on disk, and is missing or no manifest; nothing was changed".into();
            return Err(OpenError::Damaged { path: manifest_path, detail });
        }
        let mut read = ReadBack::of(paths, options.clock.now_ms(), &options.progress, Header::Whole)?;
        for damage in read.damage() {
            tracing::error!("damaged data, what could be read is there: {damage}");
        }
        mend(&mut read);
        let counters = Counters::default();
        counters.damaged.store(read.damage().count() as u64 + read.restored.unreadable, Ordering::Relaxed);
        let ReadBack { mut restored, loaded, replayed, say_everything } = read;
        let sealer = Sealer {
            engine: engine.clone(),
            manifest: Manifest::open(&manifest_path, disk.clone(), &loaded).map_err(OpenError::io(&manifest_path))?,
            partition: restored.numbers,
            tiers: restored.tier_numbers,
            building: Default::default(),
            names_lost: manifest::was_damaged(&manifest_path),
            whole: std::mem::take(&mut restored.whole),
            compacting_into: None,
            retired: Vec::new(),
            // What the log brought back is in no manifest yet.
            say_everything,
        };
        let log_dir = dir.paths().log();
        let log = Log::start(&log_dir, disk, &replayed, options.commit_delay).map_err(OpenError::io(&log_dir))?;
        let blocks = Blocks::start(engine).map_err(OpenError::io(blocks))?;
        let core = Arc::new(restored.into_core(options, log, blocks, counters, loaded.released_lsn));
        core.note_tiers();
        let keeper = Keeper::new(core.clone(), sealer, dir);
        let thread = std::thread::Builder::new().name("store-keeper".into()).spawn(move || keeper.run());
        let thread = thread.map_err(OpenError::io(log_dir))?;
        Ok(Arc::new(Self { core, keeper: Mutex::new(Some(thread)) }))
    }

    /// The number of a group, which is made where it is not known. Groups stay.
    pub fn define_group(&self, key: GroupKey, mode: WriteMode) -> Result<GroupId, Refused> {
        self.core.define_group(key, mode)
    }

    /// The slots of series in a group. The same labels have the same slot each time.
    pub fn define_series(&self, group: GroupId, series: &[SeriesKey]) -> Vec<Result<Slot, Refused>> {
        self.core.define_series(group, series)
    }

    /// Stores a batch in memory, where queries see it when this returns, and hands it to the log.
    pub fn append(&self, batch: &Batch) -> Result<Appended, AppendError> {
        self.core.append(batch)
    }

    /// The position up to which all is durable; changes with each flush.
    pub fn durable(&self) -> watch::Receiver<Lsn> {
        self.core.durable()
    }

    /// Whether more comes in than the disk takes at present, or than can be sealed: who can wait should, or soon all are refused.
    pub fn is_busy(&self) -> bool {
        self.core.log.is_busy() || self.core.is_sealing_behind()
    }

    /// Has what was appended made durable after a few milliseconds, for those that wait for it and send nothing meanwhile.
    pub fn flush_soon(&self) {
        self.core.log.flush_soon();
    }

    /// The frames of an agent's epoch that are stored, durable or soon to be.
    pub fn stored(&self, agent: AgentId, epoch: u64) -> SequenceSet {
        self.core.stored(agent, epoch)
    }

    /// The agent has fallen silent: its series end at `at_ms` unless ticks of the time between arrive later after all.
    pub fn silence(&self, agent: AgentId, at_ms: i64) {
        self.core.silence(agent, at_ms);
    }

    /// Deletes the samples in `[from_ms, to_ms]` of the series that meet any of the lists of matchers, as far as there are any;
    /// says of how many series. They are hidden at once, and durably when this returns. Not for a tokio worker.
    pub fn erase(&self, any_of: &[Vec<Matcher>], from_ms: i64, to_ms: i64) -> Result<u64, AppendError> {
        self.core.erase(any_of, from_ms, to_ms)
    }

    /// Takes what is deleted off the disk, and drops the records of deletions of which nothing is left; false when that fails or
    /// takes longer. Not for a tokio worker.
    pub fn clean(&self, within: Duration) -> bool {
        self.core.keeper.clean(within)
    }

    /// Waits until all that was appended is durable; false when that takes longer. Not for a tokio worker.
    pub fn flush(&self, within: Duration) -> bool {
        self.core.log.flush(within)
    }

    /// Has all samples in memory sealed into blocks, and what is older than the retention dropped; false when that fails or
    /// takes longer. Not for a tokio worker.
    pub fn seal(&self, within: Duration) -> bool {
        self.core.keeper.seal_all(within)
    }

    /// Seals all and folds what is sealed, worth it or not; false when that fails or takes longer. Not for a tokio worker.
    pub fn compact(&self, within: Duration) -> bool {
        self.core.keeper.compact_all(within)
    }

    /// Seals all and does, as the store's thread does every minute, what is worth doing of tiers and compaction; false when that
    /// fails or takes longer. For simulated time: the clock is believed however far it has gone since. Not for a tokio worker.
    pub fn tend(&self, within: Duration) -> bool {
        self.core.keeper.tend(within)
    }

    /// Flushes, seals and ends the store's threads; false, after saying why, when not all could be made durable. Later appends
    /// are refused; reads go on. Not for a tokio worker.
    pub fn shutdown(&self) -> bool {
        if self.core.closed.swap(true, Ordering::SeqCst) {
            return true;
        }
        let durable = self.flush(CLOSE_WITHIN);
        if !durable {
            tracing::error!(
                "the disk does not take the log; what is not acked is lost here and comes again from the agents"
            );
        } else if !self.seal_all_of_log() {
            tracing::warn!("not all samples are sealed; they are in the log and are read back at the next start");
        }
        self.end_keeper();
        self.core.log.close(CLOSE_WITHIN);
        self.core.log.release(self.core.released_lsn.load(Ordering::Relaxed));
        let StoreStats { series, sealed_bytes, log_written_bytes, .. } = self.stats();
        tracing::info!(series, sealed_bytes, log_written_bytes, "the store is closed");
        durable
    }

    /// Seals until nothing of the log is needed. What was let in just before the store closed may come after the first time.
    fn seal_all_of_log(&self) -> bool {
        let needed = || self.core.released_lsn.load(Ordering::Relaxed) < self.core.log.last_lsn();
        self.seal(CLOSE_WITHIN) && (!needed() || self.seal(CLOSE_WITHIN))
    }

    /// Which of the threads without which nothing is kept has ended although the store is open. It ends by a panic only, which
    /// the log names; what is in the log is read back at the next start.
    pub fn broken(&self) -> Option<&'static str> {
        if self.core.closed.load(Ordering::SeqCst) {
            return None;
        }
        let keeper = self.keeper.lock().as_ref().is_none_or(JoinHandle::is_finished);
        match (keeper, self.core.log.has_ended()) {
            (true, _) => Some("store-keeper"),
            (_, true) => Some("store-log"),
            _ => None,
        }
    }

    fn end_keeper(&self) {
        self.core.keeper.close();
        let Some(thread) = self.keeper.lock().take() else { return };
        if thread.join().is_err() {
            tracing::error!("the store's thread panicked");
        }
    }

    /// Ends the thread that seals, as a panic of it does.
    #[cfg(test)]
    pub fn lose_keeper(&self) {
        self.core.keeper.close();
    }

    /// Ends without flushing or sealing anything, as a crash does.
    #[cfg(test)]
    pub fn crash(&self) {
        self.core.closed.store(true, Ordering::SeqCst);
        self.core.log.abandon();
        self.end_keeper();
    }

    pub fn stats(&self) -> StoreStats {
        self.core.stats()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shutdown();
        self.core.blocks.stop();
    }
}

impl Source for Store {
    fn select(&self, matchers: &[Matcher], select: Select, budget: &Budget) -> Result<Vec<Series>, SelectError> {
        self.core.select(matchers, select, budget)
    }

    fn select_each(
        &self,
        matchers: &[Matcher],
        select: Select,
        budget: &Budget,
        each: Each<'_>,
    ) -> Result<(), SelectError> {
        self.core.select_each(matchers, select, budget, each)
    }

    fn reach(&self) -> Reach {
        self.core.reach()
    }

    fn select_windows(
        &self,
        matchers: &[Matcher],
        window_ms: i64,
        time: (i64, i64),
        budget: &Budget,
    ) -> Result<Vec<WindowSeries>, SelectError> {
        self.core.select_windows(matchers, window_ms, time, budget)
    }

    fn thinned(
        &self,
        matchers: &[Matcher],
        from_ms: i64,
        to_ms: i64,
        budget: &Budget,
    ) -> Result<Vec<Series>, SelectError> {
        self.core.thinned(matchers, from_ms, to_ms, budget)
    }

    fn series(
        &self,
        any_of: &[Vec<Matcher>],
        from_ms: i64,
        to_ms: i64,
        budget: &Budget,
        each: EachLabels<'_>,
    ) -> Result<(), SelectError> {
        self.core.series(any_of, from_ms, to_ms, budget, each)
    }

    fn label_names(
        &self,
        any_of: &[Vec<Matcher>],
        from_ms: i64,
        to_ms: i64,
        budget: &Budget,
    ) -> Result<Vec<Arc<str>>, SelectError> {
        self.core.label_names(any_of, from_ms, to_ms, budget)
    }

    fn label_values(
        &self,
        name: &str,
        any_of: &[Vec<Matcher>],
        from_ms: i64,
        to_ms: i64,
        budget: &Budget,
    ) -> Result<Vec<Arc<str>>, SelectError> {
        self.core.label_values(name, any_of, from_ms, to_ms, budget)
    }

    fn label_values_at_once(&self, name: &str, from_ms: i64, to_ms: i64) -> Option<Vec<Arc<str>>> {
        self.core.label_values_at_once(name, from_ms, to_ms)
    }

    fn metadata(&self, metric: Option<&str>) -> Vec<(Arc<str>, Meta)> {
        self.core.metadata(metric)
    }

    fn latest(&self, any_of: &[Vec<Matcher>], visit: Visit<'_>) {
        self.core.latest(any_of, visit);
    }
}
