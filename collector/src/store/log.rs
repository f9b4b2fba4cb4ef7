//! The log: what was appended and is in no block yet, in segments that are only ever appended to.
//!
//! ```text
//! log/0000000042.log   "LMPDLOG1", u64 LE reserved (0); then records (lampad_proto::record) with the payloads of entry.rs
//! ```
//! A thread of its own writes: it gathers what comes in during the commit delay and makes it durable with one flush. What nobody
//! awaits, as what the collector says of itself, waits longer for others to go with. What is not durable yet is kept in memory.
//! After a failed write or flush nothing more is believed of that file: what it may have lost is written again to a new one,
//! after a pause, and so on until it succeeds; so a record may lie in two segments, and a replay takes the first. A start never
//! appends to an old segment, so a torn tail stays where it is and is not read. The queue is bounded: past its bound an append
//! is refused, and whoever holds the frame keeps it.

mod replay;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lampad_proto::record;
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use self::writer::Writer;
use super::Lsn;
use super::files::Disk;

pub(super) use self::replay::{Event, Replayed, replay, segments};

const MAGIC: &[u8; 8] = b"LMPDLOG1";
const HEADER_BYTES: usize = 16;

/// Bytes that may wait for the disk; at 10 MB/s of log that is some seconds of a disk that does not answer.
const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a batch waits for others at most when somebody does nothing else until it is durable.
const SOON: Duration = Duration::from_millis(5);

/// What the collector says of itself waits this long for others to go with. Every flush costs, and nobody awaits this one.
const UNAWAITED: Duration = Duration::from_secs(1);

/// A batch of this size is written without waiting for the rest of the commit delay.
const EAGER_BYTES: usize = 4 * 1024 * 1024;

/// Bytes beyond which those who push are asked to wait: some rounds of the writer, so that it never waits for them.
const BUSY_BYTES: u64 = 3 * EAGER_BYTES as u64;

#[derive(Debug, Default)]
struct Queue {
    /// Records up to the last one, without their checksums: small ones, as of ticks without a change, take no more than this.
    waiting: Vec<u8>,
    last_lsn: u64,
    /// When what waits is written at the latest.
    due: Option<Instant>,
    /// Whether somebody awaits something of it.
    awaited: bool,
    hurry: bool,
    closing: bool,
    /// Ends without writing what waits: what a crash does.
    abandoned: bool,
    closed: Vec<Segment>,
}

impl Queue {
    /// Something came in that is the first to wait, or the first that somebody awaits.
    fn expect(&mut self, awaited: bool, commit_delay: Duration, now: Instant) {
        self.bring_forward(now + if awaited { commit_delay } else { commit_delay.max(UNAWAITED) });
        self.awaited = awaited;
    }

    /// Whether it was due later.
    fn bring_forward(&mut self, due: Instant) -> bool {
        let is_sooner = self.due.is_none_or(|before| due < before);
        self.due = if is_sooner { Some(due) } else { self.due };
        is_sooner
    }
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    last_lsn: u64,
    bytes: u64,
}

/// Figures for the collector's own metrics.
#[derive(Debug, Default)]
pub(super) struct LogStats {
    pub bytes: AtomicU64,
    pub written_bytes: AtomicU64,
    pub flushes: AtomicU64,
    pub flush_micros: AtomicU64,
    pub failures: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Bytes taken from the queue and not durable yet.
    in_flight: AtomicU64,
    durable: watch::Sender<Lsn>,
    stats: LogStats,
    commit_delay: Duration,
    disk: Arc<dyn Disk>,
}

#[derive(Debug)]
pub(super) struct Log {
    shared: Arc<Shared>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Log {
    /// Starts the log's thread. `from` is the last record that a replay found.
    pub fn start(dir: &Path, disk: Arc<dyn Disk>, replayed: &Replayed, commit_delay: Duration) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue { last_lsn: replayed.last_lsn, ..Queue::default() }),
            wake: Condvar::new(),
            in_flight: AtomicU64::new(0),
            durable: watch::channel(Lsn(replayed.last_lsn)).0,
            stats: LogStats::default(),
            commit_delay,
            disk,
        });
        let old = replayed.segments.iter();
        shared.queue.lock().closed = old
            .map(|(path, bytes)| Segment { path: path.clone(), last_lsn: replayed.last_lsn, bytes: *bytes })
            .collect();
        shared.stats.bytes.store(replayed.segments.iter().map(|(_, bytes)| bytes).sum(), Ordering::Relaxed);
        let mut writer = Writer::new(dir, shared.clone(), replayed);
        // The first segment is made here, so that a disk that cannot be written is told at the start.
        writer.roll()?;
        let thread = std::thread::Builder::new().name("store-log".into()).spawn(move || writer.run())?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    pub fn stats(&self) -> &LogStats {
        &self.shared.stats
    }

    pub fn durable(&self) -> watch::Receiver<Lsn> {
        self.shared.durable.subscribe()
    }

    pub fn durable_now(&self) -> u64 {
        self.shared.durable.borrow().0
    }

    pub fn last_lsn(&self) -> u64 {
        self.shared.queue.lock().last_lsn
    }

    /// Bytes that are not durable yet.
    pub fn behind_bytes(&self) -> u64 {
        self.shared.queue.lock().waiting.len() as u64 + self.shared.in_flight.load(Ordering::Relaxed)
    }

    pub fn is_full(&self) -> bool {
        self.behind_bytes() > QUEUE_BYTES_MAX as u64
    }

    /// Whether more comes in than the disk takes at present.
    pub fn is_busy(&self) -> bool {
        self.behind_bytes() > BUSY_BYTES
    }

    /// Takes a record; says its number. One that nobody awaits goes with others, some time later.
    pub fn push(&self, kind: u8, payload: &[u8], awaited: bool) -> u64 {
        let mut queue = self.shared.queue.lock();
        queue.last_lsn += 1;
        let lsn = queue.last_lsn;
        record::append_unchecked(&mut queue.waiting, kind, |out| {
            out.extend_from_slice(&lsn.to_le_bytes());
            out.extend_from_slice(payload);
        });
        if queue.due.is_none() || awaited && !queue.awaited {
            queue.expect(awaited, self.shared.commit_delay, Instant::now());
            self.shared.wake.notify_all();
        } else if queue.waiting.len() >= EAGER_BYTES {
            self.shared.wake.notify_all();
        }
        lsn
    }

    /// Has what waits written soon.
    pub fn flush_soon(&self) {
        let mut queue = self.shared.queue.lock();
        if !queue.waiting.is_empty() && queue.bring_forward(Instant::now() + SOON) {
            queue.awaited = true;
            self.shared.wake.notify_all();
        }
    }

    /// Waits until all that was pushed is durable; false when that takes longer.
    pub fn flush(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let wanted = {
            let mut queue = self.shared.queue.lock();
            // With nothing to hurry the flag would outlive this flush and take the next batch's delay.
            queue.hurry |= !queue.waiting.is_empty();
            self.shared.wake.notify_all();
            queue.last_lsn
        };
        while self.durable_now() < wanted {
            let ended = self.has_ended();
            let mut queue = self.shared.queue.lock();
            if ended || Instant::now() >= deadline {
                return false;
            }
            // The writer wakes everybody after each flush; the bound covers a wake-up between check and wait.
            self.shared.wake.wait_for(&mut queue, Duration::from_millis(20));
        }
        true
    }

    /// Whether the thread runs no more.
    pub fn has_ended(&self) -> bool {
        self.thread.lock().as_ref().is_none_or(std::thread::JoinHandle::is_finished)
    }

    /// Deletes the closed segments whose records are all at or below `lsn`.
    pub fn release(&self, lsn: u64) {
        let released: Vec<Segment> = {
            let mut queue = self.shared.queue.lock();
            let (old, kept) = std::mem::take(&mut queue.closed).into_iter().partition(|s: &Segment| s.last_lsn <= lsn);
            queue.closed = kept;
            old
        };
        for segment in released {
            self.shared.stats.bytes.fetch_sub(segment.bytes, Ordering::Relaxed);
            if let Err(error) = self.shared.disk.remove(&segment.path) {
                tracing::warn!(path = %segment.path.display(), %error, "cannot delete a segment of the log that is not needed any more");
            }
        }
    }

    /// Ends the thread as a crash would: what is not durable is lost.
    #[cfg(test)]
    pub fn abandon(&self) {
        self.shared.queue.lock().abandoned = true;
        self.close(Duration::from_secs(20));
    }

    /// Ends the thread after what was pushed is written, or without that when the disk does not take it in time.
    pub fn close(&self, within: Duration) {
        self.shared.queue.lock().closing = true;
        self.shared.wake.notify_all();
        let Some(thread) = self.thread.lock().take() else { return };
        let deadline = Instant::now() + within;
        while !thread.is_finished() && Instant::now() < deadline {
            let mut queue = self.shared.queue.lock();
            self.shared.wake.wait_for(&mut queue, Duration::from_millis(20));
        }
        if thread.is_finished() && thread.join().is_err() {
            tracing::error!("the log's thread panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::RealDisk;

    fn start(dir: &tempfile::TempDir, commit_delay: Duration) -> Log {
        Log::start(dir.path(), Arc::new(RealDisk), &Replayed::default(), commit_delay).unwrap()
    }

    #[test]
    fn what_nobody_awaits_is_due_later_and_goes_with_what_is_awaited() {
        let (now, delay) = (Instant::now(), Duration::from_millis(100));
        let mut queue = Queue::default();
        queue.expect(false, delay, now);
        assert_eq!((queue.due, queue.awaited), (Some(now + UNAWAITED), false));
        queue.expect(true, delay, now);
        assert_eq!((queue.due, queue.awaited), (Some(now + delay), true));
        let mut queue = Queue::default();
        queue.expect(false, delay, now);
        queue.expect(true, delay, now + UNAWAITED - delay / 2);
        assert_eq!(queue.due, Some(now + UNAWAITED), "what was due sooner stays so");

        let dir = tempfile::tempdir().unwrap();
        let log = start(&dir, Duration::from_secs(3600));
        for (awaited, is_awaited) in [(false, false), (true, true), (false, true)] {
            log.push(1, b"x", awaited);
            assert_eq!(log.shared.queue.lock().awaited, is_awaited);
        }
        log.abandon();
    }

    #[test]
    fn all_becomes_durable_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let log = start(&dir, Duration::from_millis(100));
        for awaited in [false, true, false] {
            let pushed = log.push(1, b"x", awaited);
            while log.durable_now() < pushed {
                std::thread::yield_now();
            }
        }
        log.close(Duration::from_secs(20));
    }
}
