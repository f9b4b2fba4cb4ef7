//! The log: what was appended and is in no block yet, in segments that are only ever appended to.
//!
//! ```text
//! log/0000000042.log   "LMPDLOG1", u64 LE reserved (0); then records (lampad_proto::record) with the payloads of entry.rs
//! ```
//! A thread of its own writes: it gathers what comes in during the commit delay and makes it durable with one flush. What is
//! not durable yet is kept in memory. After a failed write or flush nothing more is believed of that file: what it may have
//! lost is written again to a new one, after a pause, and so on until it succeeds; so a record may lie in two segments, and a
//! replay takes the first. A start never appends to an old segment, so a torn tail stays where it is and is not read. The
//! queue is bounded: past its bound an append is refused, and whoever holds the frame keeps it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lampad_proto::record::{self, End, Scan};
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::bytes::Reader;
use super::files::{Disk, DiskFile};
use super::{Lsn, Progress};

const MAGIC: &[u8; 8] = b"LMPDLOG1";
const HEADER_BYTES: usize = 16;

/// A segment is closed when it is longer: releasing the log deletes whole segments.
const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;

/// Bytes that may wait for the disk; at 10 MB/s of log that is some seconds of a disk that does not answer.
const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a batch waits for others at most when somebody does nothing else until it is durable.
const SOON: Duration = Duration::from_millis(5);

/// A batch of this size is written without waiting for the rest of the commit delay.
const EAGER_BYTES: usize = 4 * 1024 * 1024;

/// Bytes beyond which those who push are asked to wait: some rounds of the writer, so that it never waits for them.
const BUSY_BYTES: u64 = 3 * EAGER_BYTES as u64;

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How often a disk that goes on failing is told of.
const TELL_EVERY: Duration = Duration::from_secs(300);

#[derive(Debug)]
struct Waiting {
    lsn: u64,
    kind: u8,
    payload: Vec<u8>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Waiting>,
    bytes: usize,
    last_lsn: u64,
    since: Option<Instant>,
    /// When what waits is written at the latest, where that is before the commit delay is over.
    soon: Option<Instant>,
    hurry: bool,
    closing: bool,
    /// Ends without writing what waits: what a crash does.
    abandoned: bool,
    closed: Vec<Segment>,
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
        let mut writer = Writer {
            dir: dir.to_owned(),
            shared: shared.clone(),
            number: replayed.last_number,
            open: None,
            unflushed: Vec::new(),
            last_lsn: replayed.last_lsn,
            failures: 0,
            told: None,
        };
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
        self.shared.queue.lock().bytes as u64 + self.shared.in_flight.load(Ordering::Relaxed)
    }

    pub fn is_full(&self) -> bool {
        self.behind_bytes() > QUEUE_BYTES_MAX as u64
    }

    /// Whether more comes in than the disk takes at present.
    pub fn is_busy(&self) -> bool {
        self.behind_bytes() > BUSY_BYTES
    }

    /// Takes a record; says its number.
    pub fn push(&self, kind: u8, payload: Vec<u8>) -> u64 {
        let mut queue = self.shared.queue.lock();
        queue.last_lsn += 1;
        queue.bytes += payload.len();
        let lsn = queue.last_lsn;
        queue.waiting.push(Waiting { lsn, kind, payload });
        if queue.since.is_none() {
            queue.since = Some(Instant::now());
            self.shared.wake.notify_all();
        } else if queue.bytes >= EAGER_BYTES {
            self.shared.wake.notify_all();
        }
        lsn
    }

    /// Has what waits written soon.
    pub fn flush_soon(&self) {
        let mut queue = self.shared.queue.lock();
        if queue.soon.is_none() && !queue.waiting.is_empty() {
            queue.soon = Some(Instant::now() + SOON);
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

struct Writer {
    dir: PathBuf,
    shared: Arc<Shared>,
    number: u64,
    open: Option<Open>,
    /// Framed records that are not durable.
    unflushed: Vec<u8>,
    last_lsn: u64,
    /// Failures since the last one that was told, and when that was.
    failures: u64,
    told: Option<Instant>,
}

struct Open {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    bytes: u64,
    durable_lsn: u64,
}

impl Writer {
    fn run(mut self) {
        while let Some(batch) = self.next_batch() {
            for waiting in &batch {
                record::append(&mut self.unflushed, waiting.kind, |out| {
                    out.extend_from_slice(&waiting.lsn.to_le_bytes());
                    out.extend_from_slice(&waiting.payload);
                });
                self.last_lsn = waiting.lsn;
            }
            drop(batch);
            if !self.persist() {
                break;
            }
        }
        self.close_segment();
        self.shared.wake.notify_all();
    }

    /// What came in during the commit delay; `None` at the end.
    fn next_batch(&self) -> Option<Vec<Waiting>> {
        let shared = &self.shared;
        let mut queue = shared.queue.lock();
        loop {
            if queue.abandoned {
                return None;
            }
            let due = queue.since.map(|since| since + shared.commit_delay).into_iter().chain(queue.soon).min();
            let ready = due.is_some_and(|due| Instant::now() >= due);
            if !queue.waiting.is_empty() && (ready || queue.hurry || queue.closing || queue.bytes >= EAGER_BYTES) {
                break;
            }
            if queue.closing {
                return None;
            }
            match due {
                Some(due) => {
                    shared.wake.wait_until(&mut queue, due);
                }
                None => shared.wake.wait(&mut queue),
            }
        }
        (queue.since, queue.soon) = (None, None);
        queue.hurry = false;
        shared.in_flight.store(queue.bytes as u64, Ordering::Relaxed);
        queue.bytes = 0;
        Some(std::mem::take(&mut queue.waiting))
    }

    /// Makes `unflushed` durable, however long it takes. False when the store closes before the disk takes it.
    fn persist(&mut self) -> bool {
        let mut pause = PAUSE_MIN;
        while let Err(error) = self.write_and_flush() {
            self.shared.stats.failures.fetch_add(1, Ordering::Relaxed);
            self.failures += 1;
            if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                self.told = Some(Instant::now());
                let failures = std::mem::take(&mut self.failures);
                tracing::error!(%error, dir = %self.dir.display(), failures,
                    "cannot make the log durable; nothing is acked meanwhile, agents keep their frames; free space or mend the disk");
            }
            // Nothing is known of this file any more: it is kept for what was durable, and not written again.
            self.close_segment();
            let mut queue = self.shared.queue.lock();
            if queue.closing {
                return false;
            }
            self.shared.wake.wait_for(&mut queue, pause);
            if queue.closing {
                return false;
            }
            drop(queue);
            pause = (pause * 2).min(PAUSE_MAX);
        }
        self.unflushed.clear();
        self.unflushed.shrink_to(EAGER_BYTES);
        self.shared.in_flight.store(0, Ordering::Relaxed);
        self.shared.durable.send_replace(Lsn(self.last_lsn));
        self.shared.wake.notify_all();
        true
    }

    fn write_and_flush(&mut self) -> io::Result<()> {
        if self.open.as_ref().is_none_or(|open| open.bytes >= SEGMENT_BYTES) {
            self.roll()?;
        }
        let Some(open) = &mut self.open else { return Err(io::Error::other("no open segment")) };
        let began = Instant::now();
        open.file.write(&self.unflushed)?;
        open.file.flush()?;
        open.bytes += self.unflushed.len() as u64;
        open.durable_lsn = self.last_lsn;
        let stats = &self.shared.stats;
        stats.bytes.fetch_add(self.unflushed.len() as u64, Ordering::Relaxed);
        stats.written_bytes.fetch_add(self.unflushed.len() as u64, Ordering::Relaxed);
        stats.flushes.fetch_add(1, Ordering::Relaxed);
        stats.flush_micros.fetch_add(began.elapsed().as_micros() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn roll(&mut self) -> io::Result<()> {
        self.close_segment();
        self.number += 1;
        let path = self.dir.join(format!("{:010}.log", self.number));
        let begun = self.begin(&path);
        if begun.is_err() {
            // It holds no record; on a disk that stays full there would be one more with each try.
            let _ = self.shared.disk.remove(&path);
        }
        let file = begun?;
        self.open = Some(Open { file, path, bytes: HEADER_BYTES as u64, durable_lsn: 0 });
        Ok(())
    }

    fn begin(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut file = self.shared.disk.create(path)?;
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&[0; HEADER_BYTES - MAGIC.len()]);
        file.write(&header)?;
        file.flush()?;
        self.shared.disk.flush_dir(&self.dir)?;
        Ok(file)
    }

    fn close_segment(&mut self) {
        let Some(open) = self.open.take() else { return };
        let segment = Segment { path: open.path, last_lsn: open.durable_lsn, bytes: open.bytes - HEADER_BYTES as u64 };
        self.shared.queue.lock().closed.push(segment);
    }
}

/// What a replay found.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    pub last_lsn: u64,
    pub last_number: u64,
    pub segments: Vec<(PathBuf, u64)>,
    pub records: u64,
    /// Damaged places, each named.
    pub damage: Vec<String>,
}

/// What the caller is told during a replay.
pub(super) enum Event<'a> {
    Record {
        lsn: u64,
        kind: u8,
        payload: Reader<'a>,
    },
    /// Records are missing here: what follows may build on what is lost.
    Gap,
}

/// Reads all segments in order. Damage is reported and stepped over. `floor` is the last record that was released.
pub(super) fn replay(
    dir: &Path,
    floor: u64,
    progress: &Progress,
    mut event: impl FnMut(Event<'_>),
) -> io::Result<Replayed> {
    let mut found = Replayed { last_lsn: floor, ..Replayed::default() };
    let segments = segments(dir)?;
    progress.begin_log(segments.len() as u64, segments.iter().map(|(_, _, bytes)| bytes).sum());
    for (number, path, length) in segments {
        let bytes = fs::read(&path)?;
        found.last_number = number;
        found.segments.push((path.clone(), bytes.len() as u64));
        if bytes.starts_with(MAGIC) {
            replay_segment(&path, &bytes[HEADER_BYTES.min(bytes.len())..], &mut found, &mut event);
        } else if bytes.len() >= HEADER_BYTES && bytes.iter().any(|byte| *byte != 0) {
            // A crash right after the file was made leaves it short; anything else is damage.
            found.damage.push(format!("{}: not a segment of the log", path.display()));
        }
        progress.segment_done(length);
    }
    Ok(found)
}

/// Number, path and length of each segment, in order.
pub(super) fn segments(dir: &Path) -> io::Result<Vec<(u64, PathBuf, u64)>> {
    let mut found = Vec::new();
    for file in fs::read_dir(dir)? {
        let file = file?;
        let name = file.file_name();
        if let Some(number) = name.to_str().and_then(|name| name.strip_suffix(".log")?.parse::<u64>().ok()) {
            found.push((number, file.path(), file.metadata()?.len()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn replay_segment(path: &Path, bytes: &[u8], found: &mut Replayed, event: &mut impl FnMut(Event<'_>)) {
    let mut start = 0;
    loop {
        let mut scan = Scan::new(&bytes[start..]);
        for record in scan.by_ref() {
            let mut payload = Reader(record.payload);
            let Some(lsn) = payload.u64() else { continue };
            if lsn <= found.last_lsn {
                continue;
            }
            if lsn != found.last_lsn + 1 {
                found.damage.push(format!(
                    "{}: records {} to {} are missing",
                    path.display(),
                    found.last_lsn + 1,
                    lsn - 1
                ));
                event(Event::Gap);
            }
            found.last_lsn = lsn;
            found.records += 1;
            event(Event::Record { lsn, kind: record.kind, payload });
        }
        start += scan.valid();
        let next = next_record(&bytes[start..], found.last_lsn);
        // A flipped bit in a length looks like a write that was cut short, but for the records behind it.
        if scan.end() != Some(End::Damaged) && next.is_none() {
            return;
        }
        let skipped = next.unwrap_or(bytes.len() - start);
        found.damage.push(format!("{}: {skipped} damaged bytes at {}", path.display(), HEADER_BYTES + start));
        start += skipped;
    }
}

/// Where, behind a damaged record, a good one begins whose number follows the last one closely.
fn next_record(bytes: &[u8], last_lsn: u64) -> Option<usize> {
    const NUMBERS_AHEAD_MAX: u64 = 1 << 20;
    (1..bytes.len().saturating_sub(record::HEADER_BYTES + 8)).find(|at| {
        let mut reader = Reader(&bytes[*at..]);
        let length = reader.u32().unwrap_or(u32::MAX) as usize;
        let kind = reader.u8().unwrap_or(0);
        if !(1..=super::entry::KIND_MAX).contains(&kind) || length > bytes.len() - at - record::HEADER_BYTES {
            return false;
        }
        reader.u32();
        let lsn = reader.u64().unwrap_or(0);
        lsn > last_lsn
            && lsn - last_lsn < NUMBERS_AHEAD_MAX
            && Scan::new(&bytes[*at..at + record::HEADER_BYTES + length]).next().is_some()
    })
}
