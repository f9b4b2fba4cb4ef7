//! Reading the log back: all segments in order, damage named and stepped over.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lampad_proto::record::{self, End, Scan};

use crate::store::bytes::Reader;
use crate::store::{Progress, entry};

use super::{HEADER_BYTES, MAGIC};

/// What a replay found.
#[derive(Debug, Default)]
pub struct Replayed {
    pub last_lsn: u64,
    pub last_number: u64,
    pub segments: Vec<(PathBuf, u64)>,
    pub records: u64,
    /// Damaged places, each named.
    pub damage: Vec<String>,
}

/// What the caller is told during a replay.
pub enum Event<'a> {
    Record {
        lsn: u64,
        kind: u8,
        payload: Reader<'a>,
    },
    /// Records are missing here: what follows may build on what is lost.
    Gap,
}

/// Reads all segments in order. Damage is reported and stepped over. `floor` is the last record that was released.
pub fn replay(dir: &Path, floor: u64, progress: &Progress, mut event: impl FnMut(Event<'_>)) -> io::Result<Replayed> {
    let mut found = Replayed { last_lsn: floor, ..Replayed::default() };
    let segments = segments(dir)?;
    progress.begin_log(segments.len() as u64, segments.iter().map(|(_, _, bytes)| bytes).sum());
    for (number, path, length) in segments {
        let bytes = fs::read(&path)?;
        found.last_number = number;
        found.segments.push((path.clone(), bytes.len() as u64));
        if bytes.starts_with(MAGIC) {
            replay_segment(&path, &bytes[HEADER_BYTES.min(bytes.len())..], &mut found, &mut event);
        } else if bytes.len() >= HEADER_BYTES && !is_cut_short(&bytes) {
            found.damage.push(format!("{}: not a segment of the log", path.display()));
        }
        progress.segment_done(length);
    }
    Ok(found)
}

/// A crash right after the file was made leaves it short, or with zeros where it had grown before all of the header was written;
/// anything else is damage.
fn is_cut_short(bytes: &[u8]) -> bool {
    let written = bytes.iter().zip(MAGIC).take_while(|(byte, magic)| byte == magic).count();
    bytes[written..].iter().all(|byte| *byte == 0)
}

/// Number, path and length of each segment, in order.
pub fn segments(dir: &Path) -> io::Result<Vec<(u64, PathBuf, u64)>> {
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
        if !(1..=entry::KIND_MAX).contains(&kind) || length > bytes.len() - at - record::HEADER_BYTES {
            return false;
        }
        reader.u32();
        let lsn = reader.u64().unwrap_or(0);
        lsn > last_lsn
            && lsn - last_lsn < NUMBERS_AHEAD_MAX
            && Scan::new(&bytes[*at..at + record::HEADER_BYTES + length]).next().is_some()
    })
}
