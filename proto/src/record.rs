//! The envelope in which messages lie in files: the agent's spool and the collector's log.
//!
//! ```text
//! record   length  u32 LE   bytes of the payload
//!          kind    u8       what the payload is; the file's owner names the kinds
//!          check   u32 LE   CRC-32 (IEEE) over length, kind and payload
//!          payload
//! ```
//! A file is a header of its owner's, then records up to its end. A write that was cut short leaves a *torn tail*: a record
//! that is not whole. Reading stops there, and the owner cuts the file to [`Scan::valid`] before it appends again. A whole
//! record with a wrong checksum, with further bytes behind it, is damage and is told apart.

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 9;

/// Longest payload. A length beyond it is damage, not a reason to allocate.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Appends a record to `out`; `write` appends the payload.
pub fn append(out: &mut Vec<u8>, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    append_unchecked(out, kind, write);
    fill_checks(&mut out[start..]);
}

/// As [`append`], without the checksum: whoever holds a lock has [`fill_checks`] put it there later.
pub fn append_unchecked(out: &mut Vec<u8>, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    write(out);
    let length = (out.len() - start - HEADER_BYTES) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4] = kind;
}

/// Puts the checksums into records that lack them. `records` is whole records and nothing else.
pub fn fill_checks(records: &mut [u8]) {
    let mut rest = records;
    while let Some((head, behind)) = rest.split_first_chunk_mut::<HEADER_BYTES>() {
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let (payload, next) = behind.split_at_mut(length);
        let check = checksum(&head[..5], payload);
        head[5..].copy_from_slice(&check.to_le_bytes());
        rest = next;
    }
}

fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(payload);
    hasher.finalize()
}

/// One record, borrowed from the file's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    pub kind: u8,
    pub payload: &'a [u8],
}

/// How a scan ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The last record ends where the file ends.
    Clean,
    /// The last record is not whole: a write was cut short.
    Torn,
    /// A record in the middle does not match its checksum or has an impossible length.
    Damaged,
}

/// Walks the records of a buffer.
pub struct Scan<'a> {
    bytes: &'a [u8],
    valid: usize,
    end: Option<End>,
}

impl<'a> Scan<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, valid: 0, end: None }
    }

    /// Bytes of whole, correct records seen so far.
    pub fn valid(&self) -> usize {
        self.valid
    }

    /// How the scan ended; `None` while it goes on.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    fn stop(&mut self, end: End) -> Option<Record<'a>> {
        self.end = Some(end);
        None
    }
}

impl<'a> Iterator for Scan<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        if self.end.is_some() {
            return None;
        }
        let rest = &self.bytes[self.valid..];
        if rest.is_empty() {
            return self.stop(End::Clean);
        }
        if rest.len() < HEADER_BYTES {
            return self.stop(End::Torn);
        }
        let length = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        let check = u32::from_le_bytes([rest[5], rest[6], rest[7], rest[8]]);
        // A tail of zeros is what a crash leaves when the file had grown before its content was written.
        if length == 0 && check == 0 && rest.iter().all(|byte| *byte == 0) {
            return self.stop(End::Torn);
        }
        if length > PAYLOAD_BYTES_MAX {
            return self.stop(End::Damaged);
        }
        if rest.len() < HEADER_BYTES + length {
            return self.stop(End::Torn);
        }
        let payload = &rest[HEADER_BYTES..HEADER_BYTES + length];
        if checksum(&rest[..5], payload) != check {
            // Behind a write that was cut short there is nothing, or zeros where the file had grown before its content came.
            let last = rest[HEADER_BYTES + length..].iter().all(|byte| *byte == 0);
            return self.stop(if last { End::Torn } else { End::Damaged });
        }
        self.valid += HEADER_BYTES + length;
        Some(Record { kind: rest[4], payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Vec<u8> {
        let mut file = Vec::new();
        for (kind, payload) in [(1, &b"one"[..]), (2, b""), (3, b"three")] {
            append(&mut file, kind, |out| out.extend_from_slice(payload));
        }
        file
    }

    fn kinds(bytes: &[u8]) -> (Vec<u8>, Option<End>, usize) {
        let mut scan = Scan::new(bytes);
        let kinds = scan.by_ref().map(|record| record.kind).collect();
        (kinds, scan.end(), scan.valid())
    }

    #[test]
    fn records_come_back() {
        let file = three();
        assert_eq!(kinds(&file), (vec![1, 2, 3], Some(End::Clean), file.len()));
    }

    #[test]
    fn checksums_can_be_put_there_later() {
        let mut file = three();
        let whole = file.clone();
        for record in [0..12, 12..21, 21..35] {
            file[record][5..HEADER_BYTES].fill(0);
        }
        assert_eq!(kinds(&file).1, Some(End::Damaged));
        fill_checks(&mut file);
        assert_eq!(file, whole);
    }

    #[test]
    fn a_cut_anywhere_is_a_torn_tail_and_keeps_what_was_whole() {
        let file = three();
        let ends = [12, 21, 35];
        for cut in 0..file.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let (found, end, valid) = kinds(&file[..cut]);
            assert_eq!(found.len(), whole, "cut at {cut}");
            let clean = cut == 0 || ends.contains(&cut);
            assert_eq!(end, Some(if clean { End::Clean } else { End::Torn }), "cut at {cut}");
            assert_eq!(valid, whole.checked_sub(1).map_or(0, |last| ends[last]), "cut at {cut}");
        }
    }

    #[test]
    fn a_flipped_bit_never_yields_a_record() {
        let file = three();
        for bit in 0..12 * 8 {
            let mut bad = file.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let (found, end, valid) = kinds(&bad);
            assert!(found.is_empty() && valid == 0, "bit {bit}");
            assert_ne!(end, Some(End::Clean), "bit {bit}");
        }
    }

    #[test]
    fn zeros_at_the_end_are_a_torn_tail() {
        let mut file = three();
        let whole = file.len();
        file.extend_from_slice(&[0; 4096]);
        assert_eq!(kinds(&file), (vec![1, 2, 3], Some(End::Torn), whole));
    }
}
