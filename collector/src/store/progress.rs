//! How far opening a data directory has come, for whoever waits for it.
//!
//! Numbers only go up, and the text is for people: `replaying the log: 3 of 7 segments, 41 of 96 MiB`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Shared by the one that opens and those who ask; a clone shows the same figures.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Figures>);

#[derive(Debug, Default)]
struct Figures {
    /// Records read of the manifest.
    named: AtomicU64,
    /// 0 until the segments are counted; then their number and one.
    segments: AtomicU64,
    segments_done: AtomicU64,
    bytes: AtomicU64,
    bytes_done: AtomicU64,
}

/// Segments of the log: all of them, and those that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segments {
    pub all: u64,
    pub done: u64,
}

impl Progress {
    pub(super) fn named(&self, records: u64) {
        self.0.named.fetch_add(records, Ordering::Relaxed);
    }

    pub(crate) fn begin_log(&self, segments: u64, bytes: u64) {
        self.0.bytes.store(bytes, Ordering::Relaxed);
        self.0.segments.store(segments + 1, Ordering::Release);
    }

    pub(crate) fn segment_done(&self, bytes: u64) {
        self.0.bytes_done.fetch_add(bytes, Ordering::Relaxed);
        self.0.segments_done.fetch_add(1, Ordering::Relaxed);
    }

    /// `None` while the log is not begun.
    pub fn segments(&self) -> Option<Segments> {
        let all = self.0.segments.load(Ordering::Acquire).checked_sub(1)?;
        Some(Segments { all, done: self.0.segments_done.load(Ordering::Relaxed) })
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: u64 = 1 << 20;
        let get = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        match self.segments() {
            None => write!(f, "reading the manifest: {} records", get(&self.0.named)),
            Some(Segments { all, done }) => {
                let (bytes, bytes_done) = (get(&self.0.bytes) / MIB, get(&self.0.bytes_done) / MIB);
                write!(f, "replaying the log: {done} of {all} segments, {bytes_done} of {bytes} MiB")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_is_done_and_what_is_left() {
        let progress = Progress::default();
        progress.named(12);
        assert_eq!(progress.to_string(), "reading the manifest: 12 records");
        assert_eq!(progress.segments(), None);
        progress.begin_log(7, 96 << 20);
        progress.segment_done(16 << 20);
        assert_eq!(progress.clone().to_string(), "replaying the log: 1 of 7 segments, 16 of 96 MiB");
        assert_eq!(progress.segments(), Some(Segments { all: 7, done: 1 }));
    }
}
