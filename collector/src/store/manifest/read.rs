//! Reading the manifest: records become facts, of which those before the last commit hold; damage is named and stepped over.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use lampad_proto::record::{End, Record, Scan};

use crate::store::block::{Address, SealedRun};
use crate::store::bytes::Reader;
use crate::store::group::{Mark, Seen};
use crate::store::run::Carried;
use crate::store::{AgentId, GroupId, datadir, entry, names};

use super::{
    COMMIT, DROPPED, FOLDED, FRAMES, HEADER_BYTES, KIND_MAX, LIVE, MAGIC, MARKS, NAMES, PRESENT, RUN, SEEN, TIERED,
    WHOLE, header,
};

/// What a record says.
#[derive(Debug)]
pub enum Fact {
    Entry(entry::Entry),
    Run { group: GroupId, sealed_lsn: u64, run: SealedRun },
    Marks { group: GroupId, marks: Vec<Mark> },
    Frames { agent: AgentId, ranges: Vec<(u64, u64, u64)> },
    Dropped { partition: u32 },
    Folded { group: GroupId, old: HashSet<Address>, new: Vec<SealedRun> },
    Whole { partition: u32, begun: u32 },
    Seen { group: GroupId, seen: Vec<(u32, Seen)> },
    Tiered { group: GroupId, tier: usize, until_ms: i64, through: u32 },
    Present { group: GroupId, present: Vec<Carried>, payload: Arc<[u8]> },
}

fn read_address(reader: &mut Reader<'_>) -> Option<Address> {
    Some(Address { partition: reader.varint32()?, number: reader.varint32()?, piece: reader.varint32()? })
}

fn read_fact(record: Record<'_>) -> Option<Fact> {
    let mut reader = Reader(record.payload);
    let fact = match record.kind {
        RUN => {
            let group = GroupId(reader.varint32()?);
            let sealed_lsn = reader.u64()?;
            Fact::Run { group, sealed_lsn, run: read_run(&mut reader)? }
        }
        FOLDED => {
            let group = GroupId(reader.varint32()?);
            let old = (0..reader.count()?).map(|_| read_address(&mut reader)).collect::<Option<_>>()?;
            let new = (0..reader.count()?).map(|_| read_run(&mut reader)).collect::<Option<_>>()?;
            Fact::Folded { group, old, new }
        }
        WHOLE => {
            let partition = reader.varint32()?;
            // Of what an earlier version folded nobody knows how far back it goes: it is left alone.
            Fact::Whole { partition, begun: if reader.is_empty() { 0 } else { reader.varint32()? } }
        }
        TIERED => Fact::Tiered {
            group: GroupId(reader.varint32()?),
            tier: usize::try_from(reader.varint()?).ok()?,
            until_ms: reader.signed()?,
            through: reader.varint32()?,
        },
        MARKS => {
            let group = GroupId(reader.varint32()?);
            let count = reader.count()?;
            let mut mark = || Some(Mark { after_ms: reader.signed()?, at_ms: reader.signed()? });
            Fact::Marks { group, marks: (0..count).map(|_| mark()).collect::<Option<_>>()? }
        }
        FRAMES => {
            let agent = AgentId(reader.id()?);
            let mut ranges = Vec::new();
            for _ in 0..reader.count()? {
                let epoch = reader.u64()?;
                for _ in 0..reader.count()? {
                    ranges.push((epoch, reader.varint()?, reader.varint()?));
                }
            }
            Fact::Frames { agent, ranges }
        }
        SEEN => Fact::Seen { group: GroupId(reader.varint32()?), seen: read_seen(&mut reader)? },
        PRESENT => read_present(record.payload)?,
        DROPPED => Fact::Dropped { partition: reader.varint32()? },
        NAMES => Fact::Entry(names::read(&mut reader)?),
        kind => Fact::Entry(entry::read(kind, &mut reader)?),
    };
    Some(fact)
}

/// What was read.
#[derive(Debug, Default)]
pub struct Loaded {
    pub released_lsn: u64,
    /// Bytes up to the last commit.
    pub(super) valid: u64,
    pub damage: Vec<String>,
}

/// Whether a manifest is there. One that is not says nothing of what lies in blocks.
pub fn is_one(path: &Path) -> io::Result<bool> {
    match fs::read(path) {
        Ok(bytes) => Ok(bytes.starts_with(MAGIC)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether it was ever damaged: then it may not name all that lies in blocks.
pub fn was_damaged(path: &Path) -> bool {
    path.with_extension("damaged").exists()
}

/// What is done about a file whose first bytes are not those of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// It is refused: going on without it would have every block deleted as unused.
    Whole,
    /// It is damage like any other, and the records behind are read.
    Any,
}

/// Reads the manifest and hands out what holds. A missing file is an empty one.
pub fn load(path: &Path, header: Header, mut fact: impl FnMut(Fact)) -> io::Result<Loaded> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Loaded::default()),
        read => read?,
    };
    let mut loaded = Loaded::default();
    if !bytes.starts_with(MAGIC) {
        if header == Header::Whole {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its first bytes are damaged"));
        }
        loaded.damage.push(format!("{}: its first bytes are damaged", path.display()));
    }
    let mut start = HEADER_BYTES.min(bytes.len());
    let mut open = Vec::new();
    loop {
        let mut scan = Scan::new(&bytes[start..]);
        while let Some(record) = scan.next() {
            if record.kind != COMMIT {
                match read_fact(record) {
                    Some(fact) => open.push(fact),
                    None => loaded.damage.push(format!("{}: a record of kind {}", path.display(), record.kind)),
                }
                continue;
            }
            open.drain(..).for_each(&mut fact);
            loaded.released_lsn = Reader(record.payload).u64().unwrap_or(0).max(loaded.released_lsn);
            loaded.valid = (start + scan.valid()) as u64;
        }
        start += scan.valid();
        let whole = |at: &usize| next_is_known(&bytes[start + at..]);
        let next = (1..bytes.len() - start).find(whole);
        // A flipped bit in a length looks like a write that was cut short, but for the records behind it.
        if scan.end() != Some(End::Damaged) && next.is_none() {
            return Ok(loaded);
        }
        let skipped = next.unwrap_or(bytes.len() - start);
        loaded.damage.push(format!("{}: {skipped} damaged bytes at {start}", path.display()));
        start += skipped;
    }
}

/// Whether a whole record of a known kind begins here.
fn next_is_known(bytes: &[u8]) -> bool {
    let kind = bytes.get(4).copied().unwrap_or(0);
    ((1..=entry::KIND_MAX).contains(&kind) || (RUN..=KIND_MAX).contains(&kind)) && Scan::new(bytes).next().is_some()
}

/// Puts the header that belongs there before what follows it.
pub fn mend_header(path: &Path) -> io::Result<()> {
    let mut bytes = fs::read(path)?;
    bytes.resize(bytes.len().max(HEADER_BYTES), 0);
    bytes[..HEADER_BYTES].copy_from_slice(&header());
    datadir::write_durably(path, &bytes)
}

fn read_present(payload: &[u8]) -> Option<Fact> {
    let mut reader = Reader(payload);
    let group = GroupId(reader.varint32()?);
    let timestamp_ms = reader.signed()?;
    let count = reader.count()?;
    let values = entry::read_values(&mut reader, count)?;
    let present = values.into_iter().map(|(slot, value)| Carried { slot: slot.0, timestamp_ms, value }).collect();
    Some(Fact::Present { group, present, payload: payload.into() })
}

fn read_seen(reader: &mut Reader<'_>) -> Option<Vec<(u32, Seen)>> {
    let count = reader.count()?;
    let (mut slot, mut ms) = (0u32, 0i64);
    let mut one = || {
        let head = reader.varint()?;
        slot = slot.checked_add(u32::try_from(head >> 1).ok()?)?;
        if head & 1 == 1 {
            return Some((slot, Seen::GoesOn));
        }
        ms = ms.wrapping_add(reader.signed()?);
        Some((slot, Seen::Until(ms)))
    };
    (0..count).map(|_| one()).collect()
}

fn read_run(reader: &mut Reader<'_>) -> Option<SealedRun> {
    let live = reader.u8()? & LIVE != 0;
    let (min_ms, max_ms) = (reader.signed()?, reader.signed()?);
    let head = read_address(reader)?;
    let parts = (0..reader.count()?).map(|_| read_address(reader)).collect::<Option<_>>()?;
    Some(SealedRun { min_ms, max_ms, live, head, parts })
}
