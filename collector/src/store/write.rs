//! The store as ingest sees it: groups, slots, and batches of ticks.

use std::collections::BTreeMap;
use std::sync::Arc;

use lampad_proto::v1::Histogram;
use lampad_proto::{Integer, Number};

use super::{Labels, Meta};

/// Identity of whoever pushes: 16 random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgentId(pub [u8; 16]);

/// A group, numbered by the store for as long as the data directory lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u32);

/// A series within its group, numbered from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// Position in the log: numbers its records. What is at or below the durable position survives a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Lsn(pub u64);

/// What names a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GroupKey {
    /// The agent, or all zeros for the collector's own groups and those of foreign writers.
    pub agent: AgentId,
    /// The module (`host.cpu`), or what foreign samples have in common (`job/instance`).
    pub name: Arc<str>,
}

/// What silence of a series within a tick means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// Same value as at the tick before: agents and the collector's own groups.
    Delta,
    /// No sample: remote_write, OTLP, plain pushes. Every sample is stated.
    Stated,
}

/// A series to be registered in a group.
#[derive(Debug, Clone)]
pub struct SeriesKey {
    pub labels: Labels,
    pub meta: Option<Meta>,
}

impl SeriesKey {
    /// Whether both are of one metric, and the same is said of it.
    pub(super) fn is_of_family(&self, other: &Self) -> bool {
        self.labels.metric() == other.labels.metric() && self.meta == other.meta
    }
}

/// Why a series or a sample was not taken. The text names the thing and the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("{0}")]
    Invalid(String),
    #[error("{series}: {reason}")]
    Limit { series: String, reason: String },
    /// As before, and a minute later it would be taken.
    #[error("{series}: {reason}")]
    Rate { series: String, reason: String },
    #[error("sample of {series} at {timestamp_ms} is older than the retention")]
    TooOld { series: String, timestamp_ms: i64 },
    #[error("sample of {series} at {timestamp_ms} is more than 10 minutes ahead of the collector's clock")]
    TooNew { series: String, timestamp_ms: i64 },
    #[error("{series} has another value at {timestamp_ms} already; the first one is kept")]
    Duplicate { series: String, timestamp_ms: i64 },
    /// Nothing is wrong with the series: the store takes nothing at present, and the same call succeeds later.
    #[error("{0}")]
    Unavailable(String),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Any double by its bits. The stale marker ends the series.
    Float(f64),
    /// What no double holds. Queries see the nearest double; it is stored, and exposed, to the last digit.
    Integer(Integer),
    Histogram(Arc<Histogram>),
}

impl From<Number> for Value {
    fn from(number: Number) -> Self {
        match number {
            Number::Float(value) => Self::Float(value),
            Number::Integer(value) => Self::Integer(value),
        }
    }
}

/// Where a tick belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Run {
    /// The newest data of a group. Ticks ascend; one that does not goes to an overlay.
    Live,
    /// Late data of an agent's back-fill lane: an overlay with ticks of its own.
    Backfill,
}

/// One tick of one group.
#[derive(Debug, Clone)]
pub struct TickBatch {
    pub group: GroupId,
    pub timestamp_ms: i64,
    pub run: Run,
    /// All present series are listed; a series of the run that is not listed ended. Only with [`WriteMode::Delta`]. The
    /// first tick of a stream and the first after any frame that was skipped must be a key tick.
    pub key: bool,
    /// Changed, begun and (stale marker) ended series; with [`WriteMode::Stated`] all that have a sample. Ascending by slot.
    pub values: Vec<(Slot, Value)>,
}

impl TickBatch {
    /// Whether both are of one time and group.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        (self.group, self.timestamp_ms, self.run) == (other.group, other.timestamp_ms, other.run)
    }

    /// The tick without its values.
    pub(super) fn clone_head(&self) -> Self {
        let Self { group, timestamp_ms, run, key, values: _ } = *self;
        Self { group, timestamp_ms, run, key, values: Vec::new() }
    }
}

/// The epoch of plain pushers, which have none. What they sent is remembered for the newest of them only: most push once.
pub const PUSHER_EPOCH: u64 = 0;

/// Where a batch comes from; kept in the log with the batch, so that an ack and what it covers are one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FrameId {
    pub agent: AgentId,
    pub epoch: u64,
    pub sequence: u64,
}

/// What is written and made durable as a whole.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub frame: Option<FrameId>,
    pub ticks: Vec<TickBatch>,
}

/// A set of sequences as closed ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SequenceSet(BTreeMap<u64, u64>);

impl SequenceSet {
    pub fn insert(&mut self, sequence: u64) {
        self.insert_range(sequence, sequence);
    }

    /// Adds `first..=last`, joining what touches.
    pub fn insert_range(&mut self, mut first: u64, mut last: u64) {
        while let Some((&start, &end)) = self.0.range(..=last.saturating_add(1)).next_back() {
            if end.saturating_add(1) < first {
                break;
            }
            self.0.remove(&start);
            first = first.min(start);
            last = last.max(end);
        }
        self.0.insert(first, last);
    }

    pub fn contains(&self, sequence: u64) -> bool {
        self.0.range(..=sequence).next_back().is_some_and(|(_, end)| *end >= sequence)
    }

    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|(first, last)| (*first, *last))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_what_touches() {
        let mut set = SequenceSet::default();
        for sequence in [5, 1, 2, 9, 4, 8, 3] {
            set.insert(sequence);
        }
        assert_eq!(set.ranges().collect::<Vec<_>>(), [(1, 5), (8, 9)]);
        set.insert_range(0, 20);
        assert_eq!(set.ranges().collect::<Vec<_>>(), [(0, 20)]);
        assert!(set.contains(0) && set.contains(20) && !set.contains(21));
        set.insert(u64::MAX);
        assert!(set.contains(u64::MAX));
    }
}
