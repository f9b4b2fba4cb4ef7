//! The manifest: what is sealed, where it lies, and all that must outlive the log.
//!
//! ```text
//! MANIFEST    "LMPDMAN1", u64 LE reserved (0); then records (lampad_proto::record)
//! 1, 2, 5     group, series, forget: as in entry.rs, without an LSN
//! 16 run      varint group, u64 LE sealed LSN, u8 flags (1 live), signed first and last tick, address of the head,
//!             varint count of parts, their addresses
//!             address: varint partition, varint number, varint piece
//! 17 marks    varint group, varint count, count x (signed last tick, signed time seen): added to those before
//! 18 frames   16 bytes agent, varint epochs, per epoch: u64 LE epoch, varint ranges, per range: varint first, last;
//!             replaces what was said of this agent
//! 19 commit   u64 LE LSN: all records before this one hold, and the log is not needed up to there
//! 20 dropped  varint partition: no run lies there any more
//! 22 folded   varint group, varint count, addresses of the heads of runs that do not count any more; varint count, the
//!             runs in their place: each as in 16, from the flags on
//! 23 whole    varint partition: came of compaction; varint the first of those that were folded into it (missing: unknown)
//! 24 names    series, as in names.rs; 2 is of earlier versions, and read
//! 25 tiered   varint group, varint tier, signed end of the last window that is built, varint partition: raw runs in those below
//!             it are in the tier as far as their windows are built. The tier's runs are runs as in 16, told by their partition
//! 21 present  varint group, signed last tick, varint count, count x value (as in entry.rs): the series that went on
//!             when the newest run of a group was sealed; replaces what was said of this group
//! 26 seen     varint group, varint count, count x slot; ascending: varint (slot less the one before) << 1 | goes on; unless it
//!             does: signed time of its last sample, about, less that of the one before. Slots that have ended since they were
//!             last spoken of, or go on after all; one of which nothing was said went on
//! ```
//! Records after the last commit do not hold. The file is only appended to; when most of it is outdated it is written anew
//! beside itself and renamed.

mod read;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lampad_proto::record;

pub(super) use self::read::{Fact, Header, Loaded, is_one, load, mend_header, was_damaged};
use super::block::{Address, SealedRun};
use super::bytes::{put_signed, put_varint};
use super::entry;
use super::files::{Disk, DiskFile};
use super::group::{Mark, Seen};
use super::names::Names;
use super::run::Carried;
use super::sequences::Epochs;
use super::{AgentId, GroupId, SeriesKey, Slot};

const MAGIC: &[u8; 8] = b"LMPDMAN1";
const HEADER_BYTES: usize = 16;

const RUN: u8 = 16;
const MARKS: u8 = 17;
const FRAMES: u8 = 18;
const COMMIT: u8 = 19;
const DROPPED: u8 = 20;
const PRESENT: u8 = 21;
pub(super) const FOLDED: u8 = 22;
const WHOLE: u8 = 23;
const NAMES: u8 = 24;
const TIERED: u8 = 25;
const SEEN: u8 = 26;

/// Kinds are those of the log and 16 to this.
const KIND_MAX: u8 = SEEN;

/// Bytes of the names in one record, before they are put shorter: far below what a record may have.
const NAMES_BYTES: usize = 8 * 1024 * 1024;

/// A manifest below this is not worth writing anew.
const REWRITE_BYTES_MIN: u64 = 4 * 1024 * 1024;

const LIVE: u8 = 1;

/// Records that are written together.
#[derive(Debug, Default)]
pub(super) struct Transaction(Vec<u8>);

impl Transaction {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn append(&mut self, other: &mut Self) {
        self.0.append(&mut other.0);
    }

    /// A record in the form of the log.
    pub fn raw(&mut self, kind: u8, payload: &[u8]) {
        record::append(&mut self.0, kind, |out| out.extend_from_slice(payload));
    }

    /// Series definitions, in as many records as their length asks for.
    pub fn series(&mut self, group: GroupId, series: &[(Slot, SeriesKey)]) {
        let mut rest = series;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|(_, key)| {
                bytes += key.labels.iter().map(|label| 8 + label.name.len() + label.value.len()).sum::<usize>();
                bytes += key.meta.as_ref().map_or(0, |meta| meta.help.len() + meta.unit.len());
                bytes <= NAMES_BYTES
            });
            let (some, others) = rest.split_at(fits.count().max(1));
            let mut names = Names::new();
            some.iter().for_each(|(slot, key)| names.put(*slot, &key.labels, key.meta.as_ref()));
            names.record(group).into_iter().for_each(|record| self.raw(NAMES, &record));
            rest = others;
        }
    }

    pub fn run(&mut self, group: GroupId, sealed_lsn: u64, run: &SealedRun) {
        record::append(&mut self.0, RUN, |out| {
            put_varint(out, u64::from(group.0));
            out.extend_from_slice(&sealed_lsn.to_le_bytes());
            put_run(out, run);
        });
    }

    /// Of one group, `new` stands where `old` stood.
    pub fn folded(&mut self, group: GroupId, old: &[Arc<SealedRun>], new: &[Arc<SealedRun>]) {
        record::append(&mut self.0, FOLDED, |out| {
            put_varint(out, u64::from(group.0));
            put_varint(out, old.len() as u64);
            old.iter().for_each(|run| put_address(out, run.head));
            put_varint(out, new.len() as u64);
            new.iter().for_each(|run| put_run(out, run));
        });
    }

    pub fn whole(&mut self, partition: u32, begun: u32) {
        record::append(&mut self.0, WHOLE, |out| {
            put_varint(out, u64::from(partition));
            put_varint(out, u64::from(begun));
        });
    }

    pub fn tiered(&mut self, group: GroupId, tier: usize, until_ms: i64, through: u32) {
        record::append(&mut self.0, TIERED, |out| {
            put_varint(out, u64::from(group.0));
            put_varint(out, tier as u64);
            put_signed(out, until_ms);
            put_varint(out, u64::from(through));
        });
    }

    pub fn marks(&mut self, group: GroupId, marks: &[Mark]) {
        record::append(&mut self.0, MARKS, |out| {
            put_varint(out, u64::from(group.0));
            put_varint(out, marks.len() as u64);
            for mark in marks {
                put_signed(out, mark.after_ms);
                put_signed(out, mark.at_ms);
            }
        });
    }

    pub fn frames(&mut self, agent: AgentId, epochs: &Epochs) {
        record::append(&mut self.0, FRAMES, |out| {
            out.extend_from_slice(&agent.0);
            put_varint(out, epochs.iter().count() as u64);
            for (epoch, set) in epochs.iter() {
                out.extend_from_slice(&epoch.to_le_bytes());
                put_varint(out, set.ranges().count() as u64);
                for (first, last) in set.ranges() {
                    put_varint(out, first);
                    put_varint(out, last);
                }
            }
        });
    }

    /// Ascending by slot.
    pub fn seen(&mut self, group: GroupId, seen: &[(u32, Seen)]) {
        if seen.is_empty() {
            return;
        }
        record::append(&mut self.0, SEEN, |out| {
            put_varint(out, u64::from(group.0));
            put_varint(out, seen.len() as u64);
            let (mut slot_before, mut ms_before) = (0, 0i64);
            for (slot, seen) in seen {
                let gap = u64::from(slot.saturating_sub(slot_before)) << 1;
                slot_before = *slot;
                match seen {
                    Seen::GoesOn => put_varint(out, gap | 1),
                    Seen::Until(ms) => {
                        put_varint(out, gap);
                        put_signed(out, ms.wrapping_sub(ms_before));
                        ms_before = *ms;
                    }
                }
            }
        });
    }

    pub fn dropped(&mut self, partition: u32) {
        record::append(&mut self.0, DROPPED, |out| put_varint(out, u64::from(partition)));
    }

    /// `payload` comes from [`present_payload`].
    pub fn present(&mut self, payload: &[u8]) {
        self.raw(PRESENT, payload);
    }

    /// As a file of its own.
    pub fn into_file(mut self, released_lsn: u64) -> Vec<u8> {
        self.commit(released_lsn);
        let mut bytes = header();
        bytes.append(&mut self.0);
        bytes
    }

    fn commit(&mut self, released_lsn: u64) {
        record::append(&mut self.0, COMMIT, |out| out.extend_from_slice(&released_lsn.to_le_bytes()));
    }
}

fn header() -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.resize(HEADER_BYTES, 0);
    header
}

/// Says which series go on after `last_ms`, ascending by slot.
pub(super) fn present_payload(group: GroupId, last_ms: i64, present: &[Carried]) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + present.len() * 6);
    put_varint(&mut out, u64::from(group.0));
    put_signed(&mut out, last_ms);
    put_varint(&mut out, present.len() as u64);
    entry::put_values(&mut out, present.iter().map(|carried| (carried.slot, &carried.value)));
    out
}

fn put_run(out: &mut Vec<u8>, run: &SealedRun) {
    out.push(if run.live { LIVE } else { 0 });
    put_signed(out, run.min_ms);
    put_signed(out, run.max_ms);
    put_address(out, run.head);
    put_varint(out, run.parts.len() as u64);
    run.parts.iter().for_each(|part| put_address(out, *part));
}

fn put_address(out: &mut Vec<u8>, address: Address) {
    put_varint(out, u64::from(address.partition));
    put_varint(out, u64::from(address.number));
    put_varint(out, u64::from(address.piece));
}

/// The manifest, open for writing.
#[derive(Debug)]
pub(super) struct Manifest {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    /// `None` after a failed write: nothing is known of that file's end, so the next write makes a new one.
    file: Option<Box<dyn DiskFile>>,
    bytes: u64,
    /// Size after it was last written anew.
    fresh: u64,
}

impl Manifest {
    /// Opens for appending behind the last commit; after damage, or where there is none, the next write makes a new file.
    pub fn open(path: &Path, disk: Arc<dyn Disk>, loaded: &Loaded) -> io::Result<Self> {
        let mut manifest = Self { path: path.to_owned(), disk, file: None, bytes: 0, fresh: 0 };
        if loaded.valid > 0 && loaded.damage.is_empty() {
            fs::OpenOptions::new().write(true).open(path)?.set_len(loaded.valid)?;
            manifest.file = Some(manifest.disk.append(path)?);
            (manifest.bytes, manifest.fresh) = (loaded.valid, loaded.valid);
        } else if path.exists() {
            fs::copy(path, path.with_extension("damaged"))?;
        } else {
            // Before the first block, so that blocks without a manifest are always damage.
            manifest.rewrite(Transaction::default(), 0)?;
        }
        Ok(manifest)
    }

    /// Whether the next transaction must hold everything: see [`Self::rewrite`].
    pub fn wants_rewrite(&self) -> bool {
        self.file.is_none() || self.bytes > REWRITE_BYTES_MIN.max(self.fresh * 2)
    }

    /// Adds a transaction. When this returns it is durable.
    pub fn append(&mut self, mut transaction: Transaction, released_lsn: u64) -> io::Result<()> {
        transaction.commit(released_lsn);
        let Some(mut file) = self.file.take() else {
            return Err(io::Error::other("the manifest must be written anew"));
        };
        file.write(&transaction.0)?;
        file.flush()?;
        self.file = Some(file);
        self.bytes += transaction.0.len() as u64;
        Ok(())
    }

    /// Replaces the file by one with this transaction, which says everything.
    pub fn rewrite(&mut self, mut everything: Transaction, released_lsn: u64) -> io::Result<()> {
        everything.commit(released_lsn);
        let new = self.path.with_extension("new");
        match self.disk.remove(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = self.disk.create(&new)?;
        file.write(&header())?;
        file.write(&everything.0)?;
        file.flush()?;
        self.file = None;
        self.disk.rename(&new, &self.path)?;
        if let Some(dir) = self.path.parent() {
            self.disk.flush_dir(dir)?;
        }
        self.file = Some(file);
        self.bytes = (HEADER_BYTES + everything.0.len()) as u64;
        self.fresh = self.bytes;
        Ok(())
    }
}
