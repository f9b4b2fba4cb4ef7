//! Opening, running and closing a store.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use super::core::{Appended, Core, Counters, StoreStats};
use super::datadir::DataDir;
use super::files::Disk;
use super::group::Window;
use super::log::{self, Event, Log};
use super::{
    AgentId, AppendError, Batch, Budget, GroupId, GroupKey, Labels, Lsn, Matcher, Meta, OpenError, Options, Refused,
    Select, SelectError, SequenceSet, Series, SeriesKey, Slot, Source, Visit, WriteMode, entry, restore,
};

/// Longest wait for the disk at the end.
const CLOSE_WITHIN: Duration = Duration::from_secs(20);

/// A store. Its methods may be called from any thread; none of them waits for the disk unless it says so.
#[derive(Debug)]
pub struct Store {
    core: Arc<Core>,
    dir: DataDir,
}

impl Store {
    /// Opens or makes a data directory and reads back what it holds.
    pub fn open(options: Options, disk: Arc<dyn Disk>) -> Result<Arc<Self>, OpenError> {
        let dir = DataDir::open(&options.data_dir, options.reserve_bytes)?;
        let mut restored = restore::Restored::default();
        let window = Window { oldest_ms: i64::MIN, newest_ms: i64::MAX };
        let log_dir = dir.log();
        let replayed = log::replay(&log_dir, 0, |event| match event {
            Event::Record { lsn, kind, mut payload } => match entry::read(kind, &mut payload) {
                Some(entry) => restored.apply(entry, lsn, window, options.clock.now_ms()),
                None => restored.unreadable += 1,
            },
            Event::Gap => restored.gap(),
        })
        .map_err(OpenError::io(&log_dir))?;
        for damage in &replayed.damage {
            tracing::error!("the log is damaged, what could be read is there: {damage}");
        }
        let log = Log::start(&log_dir, disk, &replayed, options.commit_delay).map_err(OpenError::io(&log_dir))?;
        let counters = Counters::default();
        counters.damaged.store(replayed.damage.len() as u64 + restored.unreadable, Ordering::Relaxed);
        let core = Arc::new(restored.into_core(options, log, counters));
        Ok(Arc::new(Self { core, dir }))
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

    /// The frames of an agent's epoch that are stored, durable or soon to be.
    pub fn stored(&self, agent: AgentId, epoch: u64) -> SequenceSet {
        self.core.stored(agent, epoch)
    }

    /// The agent has fallen silent: its series end at `at_ms` unless ticks of the time between arrive later after all.
    pub fn silence(&self, agent: AgentId, at_ms: i64) {
        self.core.silence(agent, at_ms);
    }

    /// Waits until all that was appended is durable; false when that takes longer. Not for a tokio worker.
    pub fn flush(&self, within: Duration) -> bool {
        self.core.log.flush(within)
    }

    /// Flushes, seals and ends the store's threads. Later appends are refused; reads go on. Not for a tokio worker.
    pub fn shutdown(&self) {
        if self.core.closed.swap(true, Ordering::SeqCst) {
            return;
        }
        self.core.log.close(CLOSE_WITHIN);
    }

    pub fn stats(&self) -> StoreStats {
        self.core.stats()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl Source for Store {
    fn select(&self, matchers: &[Matcher], select: Select, budget: &Budget) -> Result<Vec<Series>, SelectError> {
        self.core.select(matchers, select, budget)
    }

    fn series(&self, any_of: &[Vec<Matcher>], from_ms: i64, to_ms: i64) -> Result<Vec<Labels>, SelectError> {
        Ok(self.core.series(any_of, from_ms, to_ms))
    }

    fn label_names(&self, any_of: &[Vec<Matcher>], from_ms: i64, to_ms: i64) -> Result<Vec<Arc<str>>, SelectError> {
        Ok(self.core.label_names(any_of, from_ms, to_ms))
    }

    fn label_values(
        &self,
        name: &str,
        any_of: &[Vec<Matcher>],
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<Arc<str>>, SelectError> {
        Ok(self.core.label_values(name, any_of, from_ms, to_ms))
    }

    fn metadata(&self, metric: Option<&str>) -> Vec<(Arc<str>, Meta)> {
        self.core.metadata(metric)
    }

    fn latest(&self, any_of: &[Vec<Matcher>], visit: Visit<'_>) {
        self.core.latest(any_of, visit);
    }
}
