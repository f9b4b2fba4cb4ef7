//! The spool itself: which segments there are, what is appended, released, dropped and read. Blocking; see `disk`.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use lampad_proto::record::{self, End};
use lampad_proto::v1::{Lane, SequenceRange, Upward};
use prost::Message;

use super::segment::{self, KIND_DICTIONARY, KIND_FRAME, Owner, Segment, Unreadable, Writer};
use super::{Ranges, SEGMENT_AGE, SEGMENT_BYTES, UNWRITTEN_BYTES_MAX};
use crate::delta::{Batch, Catalog, Encoder};

/// What is set aside for people to look at may take one part in this many of the spool's own bound; what is more is deleted.
const ASIDE_SHARE: u64 = 2;

#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error(
        "{} is of version {version} of the spool, this agent knows 1 to {known}; run a newer lampad-agent, or, to lose the frames that wait there, move that file away", path.display(), known = segment::VERSION
    )]
    Newer { path: PathBuf, version: u16 },
    #[error("cannot use the spool directory {}; make it writable for this user", dir.display())]
    Directory { dir: PathBuf, source: io::Error },
    #[error("cannot write {}; frames wait in memory meanwhile, make room on the disk", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// A batch that leaves memory.
#[derive(Debug, Clone)]
pub struct Kept {
    pub batch: Arc<Batch>,
    /// The live stream that carried it, 0 when none did.
    pub generation: u64,
    /// Acked already: only its values are taken over, nothing is written.
    pub acked: bool,
}

/// Which segment the back-fill lane needs next.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Comes back with the answer.
    pub asker: u64,
    /// The live stream of now: frames that it carried are under way already.
    pub generation: u64,
    /// Segments that this stream has sent.
    pub sent: Vec<u64>,
}

/// One segment for the back-fill lane.
#[derive(Debug)]
pub struct Chunk {
    pub segment: u64,
    pub messages: Vec<Upward>,
    pub frames: Ranges,
}

pub struct Spool {
    dir: PathBuf,
    owner: Owner,
    bytes_max: u64,
    encoder: Encoder,
    segments: VecDeque<Segment>,
    /// Writes the last segment.
    active: Option<(Writer, Instant)>,
    next_number: u64,
    dropped_frames: u64,
    set_aside: u64,
    deleted: Deleted,
}

/// What should have been set aside, had there been room; told by [`Spool::tell_deleted`].
#[derive(Debug, Default)]
struct Deleted {
    files: u64,
    bytes: u64,
}

impl Spool {
    /// Opens the spool and finds what earlier runs left.
    pub fn open(dir: &Path, owner: Owner, bytes_max: u64) -> Result<Self, SpoolError> {
        let failed = |source| SpoolError::Directory { dir: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        let mut found: Vec<(u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if let Some(number) = number_of(&path) {
                found.push((number, path));
            }
        }
        found.sort();
        // Before anything is touched: frames that a newer agent left are neither ours to read nor to throw away.
        for (_, path) in &found {
            if let Some(version) = segment::newer(path) {
                return Err(SpoolError::Newer { path: path.clone(), version });
            }
        }
        let mut spool = Self {
            dir: dir.to_owned(),
            owner,
            bytes_max,
            encoder: Encoder::new(Lane::Backfill),
            segments: VecDeque::new(),
            active: None,
            next_number: found.last().map_or(1, |(number, _)| number + 1),
            dropped_frames: 0,
            set_aside: 0,
            deleted: Deleted::default(),
        };
        let newest = found.last().map_or(0, |(number, _)| *number);
        for (number, path) in found {
            // One file that the disk cannot give must not keep the agent from starting.
            if let Err(error) = spool.recover(number, path.clone(), number == newest) {
                tracing::warn!(%error, file = %path.display(), "spool segment cannot be read");
                if let Err(error) = spool.move_aside(&path, "bad") {
                    tracing::warn!(%error, file = %path.display(), "cannot set a spool segment aside");
                }
            }
        }
        spool.tell_deleted();
        spool.enforce_bound();
        Ok(spool)
    }

    /// Only the newest segment can be torn by a crash; what is missing at the end of another one is damage.
    fn recover(&mut self, number: u64, path: PathBuf, newest: bool) -> io::Result<()> {
        let bytes = fs::read(&path)?;
        let content = match segment::read(&bytes, &self.owner, false) {
            Ok(content) => content,
            Err(Unreadable::Empty) => return fs::remove_file(&path),
            Err(Unreadable::Foreign) => {
                tracing::warn!(file = %path.display(), "spool segment is of another agent");
                return self.move_aside(&path, "old");
            }
            Err(Unreadable::Strange(detail)) => {
                tracing::warn!(file = %path.display(), detail, "spool segment cannot be used");
                return self.move_aside(&path, "bad");
            }
        };
        match content.end {
            End::Clean => {}
            End::Torn if newest => segment::cut(&path, content.valid)?,
            End::Torn | End::Damaged => self.cut_damage(&path, &bytes, content.valid)?,
        }
        // Numbers ascend from segment to segment; one that does not is not ours to send.
        let last = self.segments.back().and_then(|segment| segment.unacked.last());
        if content.frames.is_empty() {
            return fs::remove_file(&path);
        }
        if content.frames.first() <= last {
            tracing::warn!(file = %path.display(), "spool segment holds numbers of another one");
            return self.move_aside(&path, "bad");
        }
        self.segments.push_back(Segment { number, path, bytes: content.valid, unacked: content.frames, generation: 0 });
        Ok(())
    }

    fn cut_damage(&mut self, path: &Path, bytes: &[u8], valid: u64) -> io::Result<()> {
        tracing::warn!(file = %path.display(), at = valid, "spool segment is damaged");
        self.set_aside += 1;
        let rest = (bytes.len() as u64).saturating_sub(valid);
        if !self.has_room_aside(rest)? {
            self.deleted.add(rest);
            return segment::cut(path, valid);
        }
        segment::set_aside_rest(path, bytes, valid)?;
        tracing::warn!(file = %path.with_extension("bad").display(), bytes = rest, "what lies behind the damage is set aside");
        Ok(())
    }

    /// Whether so much more can be kept beside what was set aside, by earlier runs too.
    fn has_room_aside(&self, bytes: u64) -> io::Result<bool> {
        let mut kept = 0;
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if number_of(&entry.path()).is_none() {
                kept += entry.metadata()?.len();
            }
        }
        Ok(kept + bytes <= self.bytes_max / ASIDE_SHARE)
    }

    fn move_aside(&mut self, path: &Path, extension: &str) -> io::Result<()> {
        self.set_aside += 1;
        let bytes = fs::symlink_metadata(path)?.len();
        if !self.has_room_aside(bytes)? {
            fs::remove_file(path)?;
            self.deleted.add(bytes);
            return Ok(());
        }
        let aside = path.with_extension(extension);
        fs::rename(path, &aside)?;
        tracing::warn!(file = %aside.display(), bytes, "spool segment is set aside");
        Ok(())
    }

    /// Says what was deleted since the last time, in one line: an old spool has hundreds of files.
    fn tell_deleted(&mut self) {
        let Deleted { files, bytes } = std::mem::take(&mut self.deleted);
        if files > 0 {
            let (bytes_max, dir) = (self.bytes_max / ASIDE_SHARE, self.dir.display());
            tracing::error!(
                files, bytes, bytes_max, %dir,
                "spool files that cannot be used are deleted: what was set aside before leaves no room for them"
            );
        }
    }

    /// Takes batches over from memory, in the order of their numbers, and makes them durable. The catalog is locked while a
    /// batch is encoded and never while the disk is waited for: who adds a series to it would wait as well.
    pub fn keep(&mut self, catalog: &RwLock<Catalog>, kept: &[Kept], now: Instant) -> Result<(), SpoolError> {
        for one in kept {
            if one.acked {
                self.encoder.pass(&one.batch);
            } else {
                self.append(catalog, one, now);
            }
        }
        let flushed = self.flush();
        self.enforce_bound();
        flushed
    }

    fn append(&mut self, catalog: &RwLock<Catalog>, kept: &Kept, now: Instant) {
        let over = match (&self.active, self.segments.back()) {
            (Some((writer, born)), Some(segment)) => {
                writer.len() >= SEGMENT_BYTES
                    || now.duration_since(*born) >= SEGMENT_AGE
                    || segment.generation != kept.generation
            }
            _ => true,
        };
        // While the disk refuses, everything stays in one segment: a sealed one must be whole on disk.
        if over && self.flush().is_ok() {
            self.begin(kept.generation, now);
        }
        let (Some((writer, _)), Some(segment)) = (&mut self.active, self.segments.back_mut()) else { return };
        if segment.generation != kept.generation {
            segment.generation = 0;
        }
        let sent_ms = kept.batch.ticks.iter().map(|tick| tick.at_ms).max().unwrap_or_default();
        let catalog = catalog.read().unwrap_or_else(PoisonError::into_inner);
        let encoded = self.encoder.encode(&catalog, &kept.batch, sent_ms);
        drop(catalog);
        if let Some(dictionary) = &encoded.dictionary {
            record::append(&mut writer.unwritten, KIND_DICTIONARY, |out| out.extend(dictionary.encode_to_vec()));
        }
        record::append(&mut writer.unwritten, KIND_FRAME, |out| out.extend(encoded.frame.encode_to_vec()));
        segment.unacked.push(kept.batch.sequence);
        if writer.unwritten.len() > UNWRITTEN_BYTES_MAX {
            // Frames of a segment build on those before, so it goes as a whole, with what of it the disk took.
            let frames = segment.unacked.count();
            tracing::error!(frames, "the disk takes no frames and memory is full: the newest segment is dropped");
            self.drop_segment(self.segments.len() - 1);
        }
    }

    fn begin(&mut self, generation: u64, now: Instant) {
        let number = self.next_number;
        self.next_number += 1;
        let path = self.dir.join(format!("{number:016x}.seg"));
        self.active = Some((Writer::new(path.clone(), &self.owner), now));
        self.segments.push_back(Segment { number, path, bytes: 0, unacked: Ranges::default(), generation });
        self.encoder.reset();
    }

    /// Writes what the disk has not taken yet.
    pub fn flush(&mut self) -> Result<(), SpoolError> {
        let (Some((writer, _)), Some(segment)) = (&mut self.active, self.segments.back_mut()) else { return Ok(()) };
        segment.bytes = writer.flush().map_err(|source| SpoolError::Write { path: segment.path.clone(), source })?;
        Ok(())
    }

    /// The values that the next batch builds on, after batches went by that this spool never saw.
    pub fn adopt(&mut self, values: &Encoder) {
        self.encoder.adopt(values);
        self.active = None;
    }

    /// The next batch begins a segment: definitions have changed.
    pub fn roll(&mut self) {
        if self.flush().is_ok() {
            self.active = None;
        }
    }

    /// These frames are durable at the collector.
    pub fn release(&mut self, ranges: impl Iterator<Item = SequenceRange> + Clone) {
        for segment in &mut self.segments {
            ranges.clone().for_each(|range| segment.unacked.remove(range.first, range.last));
        }
        self.delete_acked();
    }

    /// The live stream `generation` has acked all that it carried up to `through`.
    pub fn release_live(&mut self, generation: u64, through: u64) {
        for segment in self.segments.iter_mut().filter(|segment| segment.generation == generation && generation != 0) {
            segment.unacked.remove(0, through);
        }
        self.delete_acked();
    }

    fn delete_acked(&mut self) {
        while let Some(at) = self.segments.iter().position(|segment| segment.unacked.is_empty()) {
            self.delete(at);
        }
    }

    /// The oldest segment that is neither under way on the live lane nor sent already. One that cannot be read is dropped,
    /// counted and said aloud, and the one behind it is looked at.
    pub fn next(&mut self, wanted: &Wanted) -> Result<Option<Chunk>, SpoolError> {
        let under_way = |segment: &Segment| segment.generation != 0 && segment.generation == wanted.generation;
        let is_wanted = |segment: &Segment| !under_way(segment) && !wanted.sent.contains(&segment.number);
        while let Some(at) = self.segments.iter().position(is_wanted) {
            if at + 1 == self.segments.len() && self.active.is_some() {
                self.flush()?;
                self.active = None;
            }
            match self.read(at) {
                Ok(chunk) => return Ok(Some(chunk)),
                Err(error) => {
                    let (frames, file) = (self.segments[at].unacked.count(), self.segments[at].path.display());
                    tracing::error!(%error, frames, %file, "a spool segment cannot be read; its frames are lost");
                    self.drop_segment(at);
                }
            }
        }
        Ok(None)
    }

    fn read(&mut self, at: usize) -> io::Result<Chunk> {
        let path = self.segments[at].path.clone();
        let bytes = fs::read(&path)?;
        let content =
            segment::read(&bytes, &self.owner, true).map_err(|_| io::Error::other("its header is damaged"))?;
        if content.end != End::Clean {
            self.cut_damage(&path, &bytes, content.valid)?;
            self.tell_deleted();
        }
        let segment = &mut self.segments[at];
        let before = segment.unacked.count();
        segment.unacked.retain(&content.frames);
        self.dropped_frames += before - segment.unacked.count();
        let chunk = Chunk { segment: segment.number, messages: content.messages, frames: content.frames };
        self.delete_acked();
        Ok(chunk)
    }

    /// The collector cannot use this segment, however often it is sent: it is kept for people to look at, as `NAME.bad`.
    pub fn give_up(&mut self, number: u64) {
        let Some(at) = self.segments.iter().position(|segment| segment.number == number) else { return };
        if at + 1 == self.segments.len() {
            self.active = None;
        }
        let Some(segment) = self.segments.remove(at) else { return };
        let (frames, file) = (segment.unacked.count(), segment.path.display());
        self.dropped_frames += frames;
        tracing::error!(frames, %file, "the collector cannot use a spool segment; its frames are lost");
        if let Err(error) = self.move_aside(&segment.path, "bad") {
            tracing::warn!(%error, %file, "cannot set a spool segment aside");
        }
        self.tell_deleted();
    }

    fn enforce_bound(&mut self) {
        while self.bytes() > self.bytes_max && self.segments.len() > 1 {
            let frames = self.segments[0].unacked.count();
            tracing::warn!(frames, bytes_max = self.bytes_max, "the spool is full: its oldest segment is dropped");
            self.drop_segment(0);
        }
    }

    fn drop_segment(&mut self, at: usize) {
        self.dropped_frames += self.segments[at].unacked.count();
        self.delete(at);
    }

    fn delete(&mut self, at: usize) {
        if at + 1 == self.segments.len() {
            self.active = None;
        }
        let Some(segment) = self.segments.remove(at) else { return };
        if let Err(error) = fs::remove_file(&segment.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, file = %segment.path.display(), "cannot delete a spool segment");
        }
    }

    /// All frames that wait here.
    pub fn pending(&self) -> Vec<SequenceRange> {
        self.segments.iter().flat_map(|segment| segment.unacked.iter()).collect()
    }

    pub fn frames(&self) -> u64 {
        self.segments.iter().map(|segment| segment.unacked.count()).sum()
    }

    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    pub fn dropped_frames(&self) -> u64 {
        self.dropped_frames
    }

    pub fn set_aside(&self) -> u64 {
        self.set_aside
    }
}

impl Deleted {
    fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

fn number_of(path: &Path) -> Option<u64> {
    if path.extension()? != "seg" {
        return None;
    }
    u64::from_str_radix(path.file_stem()?.to_str()?, 16).ok()
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
