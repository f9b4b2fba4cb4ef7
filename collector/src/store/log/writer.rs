//! The log's thread: what waits is written and made durable, to a new segment after each failure.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lampad_proto::record;

use crate::store::Lsn;
use crate::store::files::DiskFile;

use super::{EAGER_BYTES, HEADER_BYTES, MAGIC, Replayed, Segment, Shared};

/// A segment is closed when it is longer: releasing the log deletes whole segments.
const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How often a disk that goes on failing is told of.
const TELL_EVERY: Duration = Duration::from_secs(300);

pub(super) struct Writer {
    dir: PathBuf,
    shared: Arc<Shared>,
    number: u64,
    open: Option<Open>,
    /// Records that are not durable.
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
    pub fn new(dir: &Path, shared: Arc<Shared>, replayed: &Replayed) -> Self {
        Self {
            dir: dir.to_owned(),
            shared,
            number: replayed.last_number,
            open: None,
            unflushed: Vec::new(),
            last_lsn: replayed.last_lsn,
            failures: 0,
            told: None,
        }
    }

    pub fn run(mut self) {
        while self.take_batch() {
            record::fill_checks(&mut self.unflushed);
            if !self.persist() {
                break;
            }
        }
        self.close_segment();
        self.shared.wake.notify_all();
    }

    /// Takes what came in until it is due; false at the end.
    fn take_batch(&mut self) -> bool {
        let shared = &self.shared;
        let mut queue = shared.queue.lock();
        loop {
            if queue.abandoned {
                return false;
            }
            let due = queue.due;
            let ready = due.is_some_and(|due| Instant::now() >= due);
            let is_much = queue.waiting.len() >= EAGER_BYTES;
            if !queue.waiting.is_empty() && (ready || queue.hurry || queue.closing || is_much) {
                break;
            }
            if queue.closing {
                return false;
            }
            match due {
                Some(due) => {
                    shared.wake.wait_until(&mut queue, due);
                }
                None => shared.wake.wait(&mut queue),
            }
        }
        (queue.due, queue.awaited) = (None, false);
        queue.hurry = false;
        // What was written before is empty, and its memory takes what comes next.
        std::mem::swap(&mut queue.waiting, &mut self.unflushed);
        self.last_lsn = queue.last_lsn;
        shared.in_flight.store(self.unflushed.len() as u64, Ordering::Relaxed);
        true
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

    pub fn roll(&mut self) -> io::Result<()> {
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
