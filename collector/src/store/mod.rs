//! Keeps samples: in memory at once, in the log shortly after, in sealed blocks for good.

mod labels;
mod select;
mod write;

pub use labels::{Label, Labels, METRIC_NAME};
pub use select::{Budget, Latest, MatchOp, Matcher, Meta, Sample, Select, SelectError, Series, Source, Visit};
pub use write::{
    AgentId, Batch, FrameId, GroupId, GroupKey, Lsn, Refused, Run, SequenceSet, SeriesKey, Slot, TickBatch, Value,
    WriteMode,
};
