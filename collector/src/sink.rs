//! The store as writers need it: `ingest` for what agents push, `fleet` and `telemetry` for the collector's own series.
//!
//! A trait, so that tests can hold back durability and count what arrives; [`crate::store::Store`] is the one that keeps data.

use tokio::sync::watch;

use crate::store::{AgentId, Batch, GroupId, GroupKey, Lsn, Refused, SequenceSet, SeriesKey, Slot, Store, WriteMode};

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The batch is durable once [`Sink::durable`] reaches this.
    pub lsn: Lsn,
    /// A batch with this frame was there already; nothing was appended.
    pub duplicate: bool,
    /// Samples that were not taken.
    pub refused: Vec<Refused>,
}

/// The store takes nothing at present: its disk is full or broken. Whoever pushes keeps its frames and comes again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

impl Unavailable {
    /// Tells passing trouble from a refusal that lasts.
    pub fn unless_lasting<T>(defined: Result<T, Refused>) -> Result<Result<T, Refused>, Self> {
        match defined {
            Err(Refused::Unavailable(reason)) => Err(Self(reason)),
            lasting => Ok(lasting),
        }
    }
}

/// Where samples go.
pub trait Sink: Send + Sync + 'static {
    /// [`Refused::Unavailable`] is passing: whoever defines ends its work with [`Unavailable`] and comes again.
    fn define_group(&self, key: GroupKey, mode: WriteMode) -> Result<GroupId, Refused>;
    /// One result per series, in their order. A series that is there already keeps its slot.
    fn define_series(&self, group: GroupId, series: &[SeriesKey]) -> Vec<Result<Slot, Refused>>;
    /// Queryable when this returns, durable later.
    fn append(&self, batch: &Batch) -> Result<Appended, Unavailable>;
    /// Up to where everything is on disk.
    fn durable(&self) -> watch::Receiver<Lsn>;
    /// More comes in than the disk takes at present: who can wait for [`Sink::durable`] to move should.
    fn is_busy(&self) -> bool {
        false
    }
    /// Somebody does nothing else until what is appended is durable: it need not wait for company as long as others.
    fn flush_soon(&self) {}
    /// Frames of this epoch that are appended, durable or soon to be.
    fn stored(&self, agent: AgentId, epoch: u64) -> SequenceSet;
    /// The agent has fallen silent: its series end here, until ticks of this time arrive after all.
    fn silence(&self, agent: AgentId, at_ms: i64);
}

impl Sink for Store {
    fn define_group(&self, key: GroupKey, mode: WriteMode) -> Result<GroupId, Refused> {
        Store::define_group(self, key, mode)
    }

    fn define_series(&self, group: GroupId, series: &[SeriesKey]) -> Vec<Result<Slot, Refused>> {
        Store::define_series(self, group, series)
    }

    fn append(&self, batch: &Batch) -> Result<Appended, Unavailable> {
        let appended = Store::append(self, batch).map_err(|error| Unavailable(error.to_string()))?;
        let refused = appended.refused.into_iter().map(|(_, _, refused)| refused).collect();
        Ok(Appended { lsn: appended.lsn, duplicate: appended.duplicate, refused })
    }

    fn durable(&self) -> watch::Receiver<Lsn> {
        Store::durable(self)
    }

    fn is_busy(&self) -> bool {
        Store::is_busy(self)
    }

    fn flush_soon(&self) {
        Store::flush_soon(self);
    }

    fn stored(&self, agent: AgentId, epoch: u64) -> SequenceSet {
        Store::stored(self, agent, epoch)
    }

    fn silence(&self, agent: AgentId, at_ms: i64) {
        Store::silence(self, agent, at_ms);
    }
}
