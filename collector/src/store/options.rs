//! What a store is opened with, and how opening and appending fail.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Progress, SelectError};
use crate::limits::Limits;

/// Tells the time in milliseconds since 1970.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> i64 + Send + Sync>);

impl Clock {
    pub fn new(now_ms: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now_ms))
    }

    pub fn now_ms(&self) -> i64 {
        (self.0)()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new(|| jiff::Timestamp::now().as_millisecond())
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

#[derive(Debug, Clone)]
pub struct Options {
    pub data_dir: PathBuf,
    /// Samples older than this go; zero keeps them for ever.
    pub retention: Duration,
    /// The same of windows of ten seconds, and of five minutes; `None` makes none.
    pub tiers: [Option<Duration>; 2],
    /// Longest time that a batch waits for others to share its flush.
    pub commit_delay: Duration,
    /// Most bytes of samples in memory, and how many more for each series; over it the fullest groups are sealed early.
    pub head_bytes: u64,
    pub head_bytes_per_series: u64,
    /// Bytes beyond these, and as many of log beyond the next, that may wait to be sealed before nothing more is taken.
    pub unsealed_bytes: u64,
    /// Most bytes of log; over it the groups that hold it back are sealed.
    pub log_bytes: u64,
    /// Age at which a group's samples are sealed.
    pub window: Duration,
    /// Kept free for opening an almost full disk again (rule 13).
    pub reserve_bytes: u64,
    pub limits: Limits,
    pub clock: Clock,
    /// Told how far opening has come.
    pub progress: Progress,
}

impl Options {
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            retention: Duration::from_secs(30 * 24 * 3600),
            tiers: [Some(Duration::from_secs(90 * 24 * 3600)), Some(Duration::from_secs(365 * 24 * 3600))],
            commit_delay: Duration::from_millis(100),
            // Beside it the allocator keeps what was sealed and is not given back yet.
            head_bytes: 16 * 1024 * 1024,
            // An empty column takes some 64, and a run that is sealed after a few ticks takes more than it holds.
            head_bytes_per_series: 112,
            unsealed_bytes: 512 * 1024 * 1024,
            log_bytes: 512 * 1024 * 1024,
            window: Duration::from_secs(2 * 3600),
            reserve_bytes: 16 * 1024 * 1024,
            limits: Limits::default(),
            clock: Clock::default(),
            progress: Progress::default(),
        }
    }

    /// Age at which a group's samples are sealed. Where the retention is short it is less than the window: tiers are built of what
    /// is sealed and of a partition that is closed, and both must have come before raw samples go.
    pub(super) fn seal_after(&self) -> Duration {
        if self.retention.is_zero() { self.window } else { self.window.min(self.retention / 4) }
    }

    /// Series with a sample since then are live. What is in memory was looked at when it was frozen last: a window ago, or two
    /// where groups are spread.
    pub(super) fn live_since_ms(&self) -> i64 {
        self.clock.now_ms().saturating_sub(2 * self.window.as_millis() as i64)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{} holds other files and no Lampad data; name an empty directory or the one that was used before", path.display())]
    NotOurs { path: PathBuf },
    #[error("{} is not there; name the data directory of a collector", path.display())]
    Missing { path: PathBuf },
    #[error("{} is not the data directory of a collector: it has no FORMAT file and no log", path.display())]
    NoData { path: PathBuf },
    #[error("{} is a file; the data directory must be a directory: name another one", path.display())]
    NotADirectory { path: PathBuf },
    #[error("{} has data format {found}, this build reads up to {known}; run a newer lampad-collector", path.display())]
    Newer { path: PathBuf, found: u32, known: u32 },
    #[error("{} is in use by another lampad-collector; stop that one or name another directory", path.display())]
    Locked { path: PathBuf },
    #[error("the disk of {} is full; free some space and start again", path.display())]
    Full { path: PathBuf, source: std::io::Error },
    #[error("cannot use {}: {source}; check that it exists and that this user may write there", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{} is a backup that was not finished; make it again", path.display())]
    Incomplete { path: PathBuf },
    #[error("{}: {detail}; `lampad-collector repair` keeps what can be read, or move the directory aside to start empty, or restore a backup", path.display())]
    Damaged { path: PathBuf, detail: String },
}

impl OpenError {
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            std::io::ErrorKind::StorageFull => Self::Full { path, source },
            std::io::ErrorKind::InvalidData => Self::Damaged { path, detail: source.to_string() },
            _ => Self::Io { path, source },
        }
    }
}

/// Why a batch was not stored at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    #[error("the disk does not keep up: {bytes} bytes wait to become durable; keep the frame and send it again")]
    Behind { bytes: u64 },
    #[error(
        "{bytes} bytes of samples wait in {what} to be sealed, which fails or is too slow; keep the frame and send it again; \
         the collector's log says why"
    )]
    Unsealed { what: &'static str, bytes: u64 },
    #[error(
        "the disk of the data directory is almost full; keep the frame, free space on the collector and send it again"
    )]
    DiskFull,
    #[error("{bytes} bytes at once are too many to be written as a whole, at most {most} are; send less at once")]
    TooLarge { bytes: usize, most: usize },
    #[error("what this tick of group {0} builds on is not here; begin with a key tick")]
    NeedsKey(Arc<str>),
    #[error("ticks of group {0} do not ascend within a frame; send them by time, each once")]
    Unordered(Arc<str>),
    #[error("group {0} is not defined; define it first")]
    UnknownGroup(u32),
    #[error("the store is closed")]
    Closed,
    #[error("nothing was deleted: the series that are meant could not be told: {0}; give narrower matchers")]
    NotFound(SelectError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::group::AHEAD_MS_MAX;
    use crate::store::seal::Sealer;

    /// Else they are in no answer between the two.
    #[test]
    fn windows_are_built_before_the_raw_samples_are_too_old() {
        for minutes in [30, 60, 120, 180, 240, 600, 30 * 24 * 60] {
            let retention = Duration::from_secs(minutes * 60);
            let options = Options { retention, ..Options::new("") };
            let (_, part_s) = Sealer::spans_s(&options);
            let ahead = Duration::from_millis(AHEAD_MS_MAX as u64);
            // Beside these a few rounds of the store's thread.
            let built = options.seal_after() + Duration::from_secs(u64::from(part_s)) + ahead;
            assert!(built + Duration::from_secs(120) <= retention, "{built:?} of {minutes} minutes");
        }
    }
}
