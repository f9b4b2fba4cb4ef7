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

/// Reads back what [`put_packed`] wrote; `bytes` are [`packed_bytes`] long.
pub(super) fn unpack(mut bytes: &[u8], width: u32, count: usize) -> impl Iterator<Item = u64> {
    let (mut held, mut bits) = (0u128, 0);
    (0..count).map(move |_| {
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
        let number = held as u64 & mask(width);
        held >>= width;
        bits = bits.saturating_sub(width);
        number
    })
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
            prop_assert_eq!(unpack(&out, width, numbers.len()).collect::<Vec<_>>(), numbers);
        }
    }
}
