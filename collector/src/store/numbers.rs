//! Lists of numbers that are near each other, at the width that most of them need.
//!
//! ```text
//! list    signed least, u8 width (0 to 64) and bit 7 set where exceptions follow,
//!         packed (bits.rs): number less the least, its low bits
//!         exceptions: varint count, count x (u8 place, varint the bits above the width)
//! ```
//! A list has at most [`LIST_MAX`] numbers; how many is said elsewhere. Arithmetic wraps.

use super::bits::{packed_bytes, put_packed, unpack, width_of};
use super::bytes::{Reader, put_signed, put_varint};

/// The place of an exception is one byte, and a width is chosen for so many.
pub(super) const LIST_MAX: usize = 256;

/// One of so many numbers may be an exception, at most.
const EXCEPTIONS_SHARE: usize = 6;

const EXCEPTIONS: u8 = 0x80;

/// A list, ready to be written.
#[derive(Debug)]
pub(super) struct List {
    least: i64,
    width: u32,
    above_least: Vec<u64>,
    exceptions: usize,
    pub bytes: usize,
}

impl List {
    /// Chooses the width that makes the list shortest.
    pub fn of(numbers: &[i64]) -> Self {
        debug_assert!(numbers.len() <= LIST_MAX);
        let least = numbers.iter().copied().min().unwrap_or(0);
        let above_least: Vec<u64> = numbers.iter().map(|number| number.wrapping_sub(least) as u64).collect();
        let mut of_width = [0usize; 65];
        above_least.iter().for_each(|number| of_width[width_of(*number) as usize] += 1);
        let widest = (0..=64).rev().find(|width| of_width[*width as usize] > 0).unwrap_or(0);
        let mut list = Self { least, width: widest, above_least, exceptions: 0, bytes: usize::MAX };
        let mut exceptions = 0;
        for width in (0..=widest).rev() {
            let excepted = |wide: u32| of_width[wide as usize] * (1 + (wide - width).div_ceil(7) as usize);
            let excepted: usize = (width + 1..=widest).map(excepted).sum();
            let bytes = 3 + packed_bytes(numbers.len(), width) + excepted + usize::from(exceptions > 0);
            if bytes < list.bytes {
                (list.bytes, list.width, list.exceptions) = (bytes, width, exceptions);
            }
            exceptions += of_width[width as usize];
            if exceptions > numbers.len() / EXCEPTIONS_SHARE {
                break;
            }
        }
        list
    }

    pub fn put(&self, out: &mut Vec<u8>) {
        put_signed(out, self.least);
        out.push(self.width as u8 | if self.exceptions > 0 { EXCEPTIONS } else { 0 });
        put_packed(out, self.width, self.above_least.iter().copied());
        if self.exceptions > 0 {
            put_varint(out, self.exceptions as u64);
            let wide = |(_, number): &(usize, &u64)| width_of(**number) > self.width;
            for (at, number) in self.above_least.iter().enumerate().filter(wide) {
                out.push(at as u8);
                put_varint(out, number >> self.width);
            }
        }
    }
}

/// Fills `out` with the numbers of a list; `None` when that is none.
pub(super) fn read_list(reader: &mut Reader<'_>, out: &mut [i64]) -> Option<()> {
    let least = reader.signed()?;
    let head = reader.u8()?;
    let width = u32::from(head & !EXCEPTIONS);
    if width > 64 {
        return None;
    }
    let count = out.len();
    let packed = reader.take(packed_bytes(count, width))?;
    unpack(packed, width, out);
    if head & EXCEPTIONS != 0 {
        for _ in 0..reader.count()? {
            let out = out.get_mut(usize::from(reader.u8()?))?;
            *out |= reader.varint()?.checked_shl(width).unwrap_or(0) as i64;
        }
    }
    out.iter_mut().for_each(|number| *number = number.wrapping_add(least));
    Some(())
}

/// Any count of numbers, as lists one after another.
pub(super) fn put_all(out: &mut Vec<u8>, numbers: &[i64]) {
    numbers.chunks(LIST_MAX).for_each(|some| List::of(some).put(out));
}

/// Reads back so many numbers; `most` bounds what is allocated on the word of a damaged count.
pub(super) fn read_all(reader: &mut Reader<'_>, count: usize, most: usize) -> Option<Vec<i64>> {
    if count > most {
        return None;
    }
    let mut numbers = vec![0; count];
    for some in numbers.chunks_mut(LIST_MAX) {
        read_list(reader, some)?;
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(near in prop::collection::vec(-9i64..9, 0..600), far in prop::collection::vec((any::<prop::sample::Index>(), any::<i64>()), 0..20)) {
            let mut numbers = near;
            for (at, number) in far {
                if !numbers.is_empty() {
                    let at = at.index(numbers.len());
                    numbers[at] = number;
                }
            }
            let mut out = Vec::new();
            put_all(&mut out, &numbers);
            let mut reader = Reader(&out);
            prop_assert_eq!(read_all(&mut reader, numbers.len(), 600), Some(numbers));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>, count in 0usize..600) {
            read_all(&mut Reader(&bytes), count, 600);
        }
    }

    #[test]
    fn a_few_that_stand_out_do_not_widen_the_rest() {
        let mut numbers = [3i64; 256];
        (numbers[7], numbers[200]) = (1 << 40, -5);
        let mut out = Vec::new();
        put_all(&mut out, &numbers);
        assert!(out.len() < 256 * 5 / 8, "{} bytes", out.len());
    }
}
