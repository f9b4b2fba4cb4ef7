//! Keeps samples: in memory at once, in the log shortly after, in sealed blocks for good.
//!
//! ```text
//! Batch -> core -> group (run: ticks and columns) -> select
//!           |        \-- frozen -> sealed blocks  --/
//!           \-> log -> durable
//! ```

mod admit;
mod age;
mod ahead;
mod append;
mod backup;
mod base;
mod bits;
mod block;
mod blocks;
mod bytes;
mod cache;
mod check;
mod column;
mod compact;
mod copy;
mod core;
mod cut;
mod datadir;
mod disk;
mod entry;
mod erase;
mod exemplars;
mod files;
mod floats;
mod fold;
mod group;
mod handle;
mod index;
mod job;
mod keeper;
mod labels;
mod listing;
mod log;
mod manifest;
mod names;
mod newest;
mod numbers;
mod options;
mod packed;
mod piece;
mod piece_old;
mod postings;
pub mod probe;
mod progress;
mod read;
mod readback;
mod reading;
mod repair;
mod restore;
mod run;
mod scratch;
mod seal;
mod select;
mod sequences;
mod tested;
#[cfg(test)]
mod tests;
mod thin;
mod ticks;
mod tier;
#[cfg(test)]
mod told;
mod tuples;
mod unpack;
mod window;
mod windows;
mod write;

pub use append::Appended;
pub use backup::{Backed, BackupError, BackupSink, backup_stopped};
pub use check::{Cost, Damage, Report, Tell, check};
pub use copy::CopyDir;
pub use core::StoreStats;
pub use exemplars::{Exemplar, Exemplars};
pub use files::{Disk, DiskFile, RealDisk};
pub use floats::Floats;
pub use handle::Store;
pub use labels::{Label, Labels, METRIC_NAME};
pub use options::{AppendError, Clock, OpenError, Options};
pub use progress::{Progress, Segments};
pub use repair::{Repaired, repair};
pub use select::{
    Budget, Each, EachLabels, Latest, MatchOp, Matcher, Meta, Sample, Select, SelectError, Series, Source, Take, Visit,
};
#[cfg(test)]
pub use told::{Flush, Told};
pub use window::Window;
pub use windows::{Reach, TierReach, WindowSeries};
pub use write::{
    AgentId, Batch, FrameId, GroupId, GroupKey, Lsn, PUSHER_EPOCH, Refused, Run, SequenceSet, SeriesKey, Slot,
    TickBatch, Value, WriteMode,
};
