//! For tests: a sink that remembers what it was given and becomes durable when the test says so.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::sink::{Appended, Sink, Unavailable};
use crate::store::{
    AgentId, Batch, FrameId, GroupId, GroupKey, Labels, Lsn, Refused, SequenceSet, SeriesKey, Slot, TickBatch,
    WriteMode,
};

#[derive(Default)]
struct Kept {
    groups: Vec<GroupKey>,
    series: HashMap<(GroupId, Labels), Slot>,
    frames: HashSet<FrameId>,
    batches: Vec<Batch>,
    silenced: Vec<AgentId>,
    /// Whether what is appended is durable at once.
    flushes: bool,
    /// Takes nothing new, as a store whose disk is full.
    full: bool,
    /// As a store whose disk does not keep up.
    busy: bool,
    /// How many more series are taken in this minute.
    new_series: Option<usize>,
}

pub struct Recorder {
    kept: Mutex<Kept>,
    durable: watch::Sender<Lsn>,
}

impl Recorder {
    pub fn new(flushes: bool) -> Self {
        let kept = Kept { flushes, ..Kept::default() };
        Self { kept: Mutex::new(kept), durable: watch::channel(Lsn(0)).0 }
    }

    /// All that was appended is durable now.
    pub fn flush(&self) {
        let lsn = Lsn(self.kept.lock().batches.len() as u64);
        self.durable.send_replace(lsn);
    }

    /// Whether everything is refused from now on, in passing.
    pub fn fill(&self, full: bool) {
        self.kept.lock().full = full;
    }

    /// Whether the disk is behind.
    pub fn keep_busy(&self, busy: bool) {
        self.kept.lock().busy = busy;
    }

    /// Takes so many new series more, until it is told otherwise.
    pub fn allow_new_series(&self, most: Option<usize>) {
        self.kept.lock().new_series = most;
    }

    pub fn ticks(&self) -> Vec<TickBatch> {
        self.kept.lock().batches.iter().flat_map(|batch| batch.ticks.clone()).collect()
    }

    pub fn silenced(&self) -> Vec<AgentId> {
        self.kept.lock().silenced.clone()
    }

    /// The series behind a slot.
    pub fn labels(&self, group: GroupId, slot: Slot) -> String {
        let kept = self.kept.lock();
        let found = kept.series.iter().find(|((of, _), at)| *of == group && **at == slot);
        found.map(|((_, labels), _)| labels.to_string()).unwrap_or_default()
    }
}

/// Waits until `condition` holds.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain for {what}");
}

impl Sink for Recorder {
    fn define_group(&self, key: GroupKey, _: WriteMode) -> Result<GroupId, Refused> {
        let mut kept = self.kept.lock();
        if kept.full {
            return Err(Refused::Unavailable("full".into()));
        }
        let at = kept.groups.iter().position(|known| *known == key).unwrap_or_else(|| {
            kept.groups.push(key);
            kept.groups.len() - 1
        });
        Ok(GroupId(at as u32))
    }

    fn define_series(&self, group: GroupId, series: &[SeriesKey]) -> Vec<Result<Slot, Refused>> {
        let mut kept = self.kept.lock();
        let full = kept.full;
        let mut define = |series: &SeriesKey| {
            if full {
                return Err(Refused::Unavailable("full".into()));
            }
            if !kept.series.contains_key(&(group, series.labels.clone())) {
                match &mut kept.new_series {
                    Some(0) => {
                        let (series, reason) = (series.labels.to_string(), "too many in a minute".into());
                        return Err(Refused::Rate { series, reason });
                    }
                    Some(left) => *left -= 1,
                    None => {}
                }
            }
            let next = Slot(kept.series.keys().filter(|(of, _)| *of == group).count() as u32);
            Ok(*kept.series.entry((group, series.labels.clone())).or_insert(next))
        };
        series.iter().map(&mut define).collect()
    }

    fn append(&self, batch: &Batch) -> Result<Appended, Unavailable> {
        let mut kept = self.kept.lock();
        if kept.full {
            return Err(Unavailable("full".into()));
        }
        let duplicate = batch.frame.is_some_and(|frame| !kept.frames.insert(frame));
        if !duplicate {
            kept.batches.push(batch.clone());
        }
        let lsn = Lsn(kept.batches.len() as u64);
        if kept.flushes {
            self.durable.send_replace(lsn);
        }
        Ok(Appended { lsn, duplicate, refused: Vec::new() })
    }

    fn is_busy(&self) -> bool {
        self.kept.lock().busy
    }

    fn durable(&self) -> watch::Receiver<Lsn> {
        self.durable.subscribe()
    }

    fn stored(&self, agent: AgentId, epoch: u64) -> SequenceSet {
        let mut set = SequenceSet::default();
        let kept = self.kept.lock();
        let own = kept.frames.iter().filter(|frame| frame.agent == agent && frame.epoch == epoch);
        own.for_each(|frame| set.insert(frame.sequence));
        set
    }

    fn silence(&self, agent: AgentId, _: i64) {
        self.kept.lock().silenced.push(agent);
    }
}
