//! Numbers of equal width, one after another without a gap: the first in the lowest bits of the first byte.

/// Bytes that so many numbers of this width take.
pub(super) fn packed_bytes(count: usize, width: u32) -> usize {
    (count * width as usize).div_ceil(8)
}

/// Appends the low `width` bits of each number.
pub(super) fn put_packed(out: &mut Vec<u8>, width: u32, numbers: impl Iterator<Item = u64>) {
    let (mut held, mut bits) = (0u128, 0);
    for number in numbers {
        held |= u128::from(number & mask(width)) << bits;
        bits += width;
        while bits >= 8 {
            out.push(held as u8);
            held >>= 8;
            bits -= 8;
        }
    }
    if bits > 0 {
        out.push(held as u8);
    }
}

/// Reads back what [`put_packed`] wrote, one number for each in `out`; `bytes` are [`packed_bytes`] long.
pub(super) fn unpack(bytes: &[u8], width: u32, out: &mut [i64]) {
    // A number that begins anywhere in a byte lies within eight bytes then.
    if width > 56 {
        return unpack_wide(bytes, width, out);
    }
    // As many at once as lie within eight bytes, wherever in a byte the first of them begins.
    match width {
        0 => out.fill(0),
        1..=7 => unpack_by::<8>(bytes, width, out),
        8..=14 => unpack_by::<4>(bytes, width, out),
        15..=28 => unpack_by::<2>(bytes, width, out),
        _ => unpack_by::<1>(bytes, width, out),
    }
}

fn unpack_by<const AT_ONCE: usize>(bytes: &[u8], width: u32, out: &mut [i64]) {
    let (mask, width) = (mask(width), width as usize);
    let whole = bytes.len().saturating_sub(7) * 8;
    // So many begin where eight bytes are left.
    let quick = whole.div_ceil(width).min(out.len()) / AT_ONCE * AT_ONCE;
    let (first, rest) = out.split_at_mut(quick);
    let mut bit = 0;
    for some in first.chunks_exact_mut(AT_ONCE) {
        let word = bytes.get(bit / 8..).and_then(|bytes| bytes.first_chunk::<8>()).copied().unwrap_or_default();
        let word = u64::from_le_bytes(word) >> (bit % 8);
        for (at, number) in some.iter_mut().enumerate() {
            *number = (word >> (at * width) & mask) as i64;
        }
        bit += AT_ONCE * width;
    }
    let tail = &bytes[(bit / 8).min(bytes.len())..];
    let mut padded = [0; 16];
    padded[..tail.len()].copy_from_slice(tail);
    let held = u128::from_le_bytes(padded) >> (bit % 8);
    for (at, number) in rest.iter_mut().enumerate() {
        *number = (held >> (at * width)) as i64 & mask as i64;
    }
}

fn unpack_wide(mut bytes: &[u8], width: u32, out: &mut [i64]) {
    let (mut held, mut bits) = (0u128, 0);
    for number in out {
        if bits < width {
            if let Some((word, rest)) = bytes.split_first_chunk::<8>() {
                held |= u128::from(u64::from_le_bytes(*word)) << bits;
                (bits, bytes) = (bits + 64, rest);
            } else {
                for byte in std::mem::take(&mut bytes) {
                    held |= u128::from(*byte) << bits;
                    bits += 8;
                }
            }
        }
        *number = (held as u64 & mask(width)) as i64;
        held >>= width;
        bits = bits.saturating_sub(width);
    }
}

/// Bits that a number takes.
pub(super) fn width_of(number: u64) -> u32 {
    64 - number.leading_zeros()
}

fn mask(width: u32) -> u64 {
    u64::MAX.checked_shr(64 - width).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(width in 0u32..=64, numbers in prop::collection::vec(any::<u64>(), 0..300)) {
            let numbers: Vec<u64> = numbers.into_iter().map(|number| number & mask(width)).collect();
            let mut out = Vec::new();
            put_packed(&mut out, width, numbers.iter().copied());
            prop_assert_eq!(out.len(), packed_bytes(numbers.len(), width));
            let mut read = vec![0; numbers.len()];
            unpack(&out, width, &mut read);
            prop_assert_eq!(read.iter().map(|number| *number as u64).collect::<Vec<_>>(), numbers);
        }
    }
}
