//! One segment file: its header, appending, and reading it back.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use lampad_proto::record::{self, End, Scan};
use lampad_proto::v1::{Dictionary, Frame, Upward, upward};
use prost::Message;

use super::Ranges;

const MAGIC: &[u8; 8] = b"LMPSPOOL";
/// Since 2 a frame may have columns of integers, which an agent of version 1 would step over.
pub const VERSION: u16 = 2;
pub const HEADER_BYTES: usize = 40;

pub const KIND_DICTIONARY: u8 = 1;
pub const KIND_FRAME: u8 = 2;

/// Who wrote a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub agent_id: [u8; 16],
    pub epoch: u64,
}

impl Owner {
    pub fn header(&self) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(MAGIC);
        header[8..10].copy_from_slice(&VERSION.to_le_bytes());
        header[12..28].copy_from_slice(&self.agent_id);
        header[28..36].copy_from_slice(&self.epoch.to_le_bytes());
        let check = crc32fast::hash(&header[..36]);
        header[36..].copy_from_slice(&check.to_le_bytes());
        header
    }
}

/// A file of the spool, as the index knows it.
#[derive(Debug)]
pub struct Segment {
    pub number: u64,
    pub path: PathBuf,
    /// Length on disk.
    pub bytes: u64,
    /// Frames in it that are not acked.
    pub unacked: Ranges,
    /// The live stream that carried its frames too, 0 when none did: while that stream lives they are not sent again.
    pub generation: u64,
}

/// What a segment file held.
#[derive(Debug)]
pub struct Content {
    pub messages: Vec<Upward>,
    pub frames: Ranges,
    /// Bytes of the header and of whole records.
    pub valid: u64,
    pub end: End,
}

/// Why a segment file cannot be read at all.
#[derive(Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Shorter than its header: the agent died while it made the file.
    Empty,
    /// Not a segment, of a version that never was, or its header is damaged.
    Strange(String),
    /// Of another agent.
    Foreign,
}

/// Reads a segment's bytes. `keep` is false where only the frame numbers are of interest.
pub fn read(bytes: &[u8], owner: &Owner, keep: bool) -> Result<Content, Unreadable> {
    let Some((header, records)) = bytes.split_at_checked(HEADER_BYTES) else { return Err(Unreadable::Empty) };
    if header.iter().all(|byte| *byte == 0) {
        return Err(Unreadable::Empty);
    }
    check_header(header, owner)?;
    let mut scan = Scan::new(records);
    let mut content = Content { messages: Vec::new(), frames: Ranges::default(), valid: 0, end: End::Clean };
    let mut valid = 0;
    let mut last = None;
    for record in scan.by_ref() {
        let message = match decode(record.kind, record.payload) {
            Some(message) => message,
            None => {
                content.end = End::Damaged;
                break;
            }
        };
        if let upward::Message::Frame(frame) = &message {
            if last.is_some_and(|last| frame.sequence <= last) {
                content.end = End::Damaged;
                break;
            }
            last = Some(frame.sequence);
            content.frames.push(frame.sequence);
        }
        if keep {
            content.messages.push(Upward { message: Some(message) });
        }
        valid += record::HEADER_BYTES + record.payload.len();
    }
    if let Some(end) = scan.end() {
        content.end = end;
    }
    content.valid = (HEADER_BYTES + valid) as u64;
    Ok(content)
}

fn decode(kind: u8, payload: &[u8]) -> Option<upward::Message> {
    match kind {
        KIND_DICTIONARY => Dictionary::decode(payload).ok().map(upward::Message::Dictionary),
        KIND_FRAME => Frame::decode(payload).ok().map(upward::Message::Frame),
        _ => None,
    }
}

/// The version of a segment that a newer agent wrote. A file that cannot be read or has no whole header is none.
pub fn newer(path: &Path) -> Option<u16> {
    let mut header = [0; HEADER_BYTES];
    File::open(path).and_then(|file| file.read_exact_at(&mut header, 0)).ok()?;
    let whole = header[..8] == MAGIC[..] && crc32fast::hash(&header[..36]).to_le_bytes() == header[36..];
    let version = u16::from_le_bytes([header[8], header[9]]);
    (whole && version > VERSION).then_some(version)
}

/// The epoch is not looked at: a new one goes on with higher numbers, so that frames of the old one are not mistaken.
fn check_header(header: &[u8], owner: &Owner) -> Result<(), Unreadable> {
    if header[..8] != MAGIC[..] {
        return Err(Unreadable::Strange("it is not a spool segment".to_owned()));
    }
    if crc32fast::hash(&header[..36]).to_le_bytes() != header[36..] {
        return Err(Unreadable::Strange("its header is damaged".to_owned()));
    }
    let version = u16::from_le_bytes([header[8], header[9]]);
    if !(1..=VERSION).contains(&version) {
        return Err(Unreadable::Strange(format!("it is of version {version}, this agent knows 1 to {VERSION}")));
    }
    if header[12..28] != owner.agent_id {
        return Err(Unreadable::Foreign);
    }
    Ok(())
}

/// The segment that is being written. The file is made by the first flush, so that a full disk is one kind of error only.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: Option<File>,
    /// What is on disk for certain.
    durable: u64,
    /// Records that the disk has not taken yet.
    pub unwritten: Vec<u8>,
}

impl Writer {
    pub fn new(path: PathBuf, owner: &Owner) -> Self {
        Self { path, file: None, durable: 0, unwritten: owner.header().to_vec() }
    }

    /// Bytes of the segment, on disk or not.
    pub fn len(&self) -> u64 {
        self.durable + self.unwritten.len() as u64
    }

    /// Writes what is waiting and returns the file's length. After an error all of it still waits.
    pub fn flush(&mut self) -> io::Result<u64> {
        if self.unwritten.is_empty() {
            return Ok(self.durable);
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&self.path)?;
                if let Some(dir) = self.path.parent() {
                    File::open(dir)?.sync_all()?;
                }
                none.insert(file)
            }
        };
        file.write_all_at(&self.unwritten, self.durable)?;
        file.sync_data()?;
        self.durable += self.unwritten.len() as u64;
        self.unwritten.clear();
        Ok(self.durable)
    }
}

/// Copies what lies behind `valid` to `NAME.bad`, then cuts the file there.
pub fn set_aside_rest(path: &Path, bytes: &[u8], valid: u64) -> io::Result<()> {
    let bad = path.with_extension("bad");
    let mut bad = File::options().create(true).truncate(true).write(true).mode(0o600).open(bad)?;
    bad.write_all(bytes.get(valid as usize..).unwrap_or_default())?;
    cut(path, valid)
}

/// Cuts a torn tail off.
pub fn cut(path: &Path, valid: u64) -> io::Result<()> {
    let file = fs::OpenOptions::new().write(true).open(path)?;
    file.set_len(valid)?;
    file.sync_all()
}
