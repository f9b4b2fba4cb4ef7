//! Reading and writing the small parts that log, blocks and manifest are made of.
//!
//! `varint` is LEB128 of a u64; `zigzag` maps signed to unsigned so that small magnitudes stay short; a string or a byte
//! string is its length as varint, then the bytes. Fixed-width numbers are little-endian. A reader never panics: what is
//! cut short or impossible is `None`, and the caller knows which file and record that was.

/// What bytes are appended to.
pub(super) trait Put {
    fn put(&mut self, bytes: &[u8]);

    /// One byte: of a short number each by itself is there sooner than a copy of unknown length.
    #[inline]
    fn put_byte(&mut self, byte: u8) {
        self.put(&[byte]);
    }

    #[inline]
    fn put_number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put_byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.put_byte(value as u8);
    }

    fn put_few(&mut self, few: &Few) {
        self.put(&few.all()[..few.len()]);
    }
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    #[inline]
    fn put_byte(&mut self, byte: u8) {
        self.push(byte);
    }

    /// All of them, then less: a copy whose length is known takes one instruction.
    #[inline]
    fn put_few(&mut self, few: &Few) {
        let length = self.len() + few.len();
        self.extend_from_slice(&few.all());
        self.truncate(length);
    }
}

impl<P: Put> Put for &mut P {
    fn put(&mut self, bytes: &[u8]) {
        (**self).put(bytes);
    }

    #[inline]
    fn put_byte(&mut self, byte: u8) {
        (**self).put_byte(byte);
    }

    #[inline]
    fn put_number(&mut self, value: u64) {
        (**self).put_number(value);
    }

    #[inline]
    fn put_few(&mut self, few: &Few) {
        (**self).put_few(few);
    }
}

/// Up to sixteen bytes that are put together before they go anywhere, which takes no memory: what is read as a word after it was
/// written as bytes has to wait for these.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Few {
    word: u128,
    length: u32,
}

impl Few {
    /// Two numbers. Of nearly all pairs the first has one byte and the second less than eight, and both are one word.
    #[inline]
    pub fn of_two(first: u64, second: u64) -> Self {
        if first < 0x80 && second >> 49 == 0 {
            let (bytes, length) = short_number(second);
            return Self { word: (bytes << 8 | first).into(), length: length + 1 };
        }
        let mut few = Self::default();
        few.put_number(first);
        few.put_number(second);
        few
    }

    pub fn len(&self) -> usize {
        self.length as usize
    }

    /// With zeros behind.
    #[inline]
    pub fn all(&self) -> [u8; 16] {
        self.word.to_le_bytes()
    }

    /// The first of them, with zeros behind.
    #[inline]
    pub fn word(&self) -> [u8; 8] {
        (self.word as u64).to_le_bytes()
    }

    /// A number of eight bytes, little-endian.
    #[inline]
    pub fn put_u64(&mut self, number: u64) {
        self.put_word(number, 8);
    }

    #[inline]
    fn put_word(&mut self, word: u64, length: u32) {
        debug_assert!(self.length + length <= 16, "{} and {length} bytes are too many", self.length);
        self.word |= u128::from(word) << (8 * self.length);
        self.length += length;
    }
}

impl Put for Few {
    fn put(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.put_byte(*byte));
    }

    #[inline]
    fn put_byte(&mut self, byte: u8) {
        self.put_word(byte.into(), 1);
    }

    /// Without a branch on its length, which nobody can predict.
    #[inline]
    fn put_number(&mut self, value: u64) {
        if value >> 56 == 0 {
            let (bytes, length) = short_number(value);
            return self.put_word(bytes, length);
        }
        let low = spread(value & ((1 << 56) - 1)) | 0x8080_8080_8080_8080;
        self.put_word(low, 8);
        // One byte more or two.
        let high = value >> 56;
        match high < 0x80 {
            true => self.put_word(high, 1),
            false => self.put_word(0x180 | high, 2),
        }
    }
}

/// The bytes of a number below 2^56, and how many they are.
#[inline]
fn short_number(value: u64) -> (u64, u32) {
    let length = (value | 1).ilog2() / 7 + 1;
    // All but the last are followed by one.
    let more = 0x80_8080_8080_8080 & ((1 << (8 * (length - 1))) - 1);
    (spread(value) | more, length)
}

/// The lowest 56 bits, seven in each byte.
#[inline]
fn spread(value: u64) -> u64 {
    let halves = value & 0xfff_ffff | (value & 0xff_ffff_f000_0000) << 4;
    let quarters = halves & 0x3fff_0000_3fff | (halves & 0xfff_c000_0fff_c000) << 2;
    quarters & 0x7f_007f_007f_007f | (quarters & 0x3f80_3f80_3f80_3f80) << 1
}

/// Appends an unsigned number.
#[inline]
pub(super) fn put_varint(out: &mut impl Put, value: u64) {
    out.put_number(value);
}

/// Appends a signed number.
pub(super) fn put_signed(out: &mut impl Put, value: i64) {
    put_varint(out, zigzag(value));
}

/// Appends a length and the bytes.
pub(super) fn put_bytes(out: &mut impl Put, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.put(bytes);
}

#[inline]
pub(super) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[inline]
pub(super) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// The number that the lowest `bits` of a word say, four bytes at the most.
#[inline(always)]
fn short(word: u64, bits: u32) -> u64 {
    let word = word & ((1 << bits) - 1);
    word & 0x7f | word >> 1 & 0x3f80 | word >> 2 & 0x1f_c000 | word >> 3 & 0xfe0_0000
}

/// Takes parts off the front of a byte string.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn id(&mut self) -> Option<[u8; 16]> {
        self.array()
    }

    /// A number of one byte and one of up to four, where at least eight bytes are left: the same as two calls of
    /// [`Self::varint`], without a branch on the second one's length, which nobody can predict. `None` takes nothing.
    #[inline]
    pub fn short_pair(&mut self) -> Option<(u64, u64)> {
        const LAST_BYTE: u64 = 0x8080_8080;
        let word = u64::from_le_bytes(*self.0.first_chunk()?);
        let (first, rest) = (word & 0xff, word >> 8);
        let last = !rest & LAST_BYTE;
        if first >= 0x80 || last == 0 {
            return None;
        }
        let bits = last.trailing_zeros() + 1;
        self.0 = &self.0[1 + bits as usize / 8..];
        Some((first, short(rest, bits)))
    }

    /// The second numbers of two pairs whose first ones are this byte, where they have one byte or two: most changes are that
    /// small. One pair's place is known as soon as the other's length is. `None` takes nothing.
    #[inline(always)]
    pub fn two_tiny(&mut self, first: u8) -> Option<[u64; 2]> {
        let first = u64::from(first);
        let word = u64::from_le_bytes(*self.0.first_chunk()?);
        let long = word >> 15 & 1;
        let rest = word >> (16 + 8 * long);
        let more = rest >> 15 & 1;
        let tiny = |pair: u64, long: u64| pair >> 8 & 0x7f | pair >> 9 & 0x3f80 & long.wrapping_neg();
        // Another first number, or a third byte.
        let other = ((word ^ first) | (rest ^ first)) & 0xff | word >> 23 & long | rest >> 23 & more;
        if other != 0 {
            return None;
        }
        self.0 = &self.0[(4 + long + more) as usize..];
        Some([tiny(word, long), tiny(rest, more)])
    }

    #[inline]
    pub fn varint(&mut self) -> Option<u64> {
        // Most numbers have one byte, and most others two.
        match *self.0 {
            [first, ..] if first < 0x80 => {
                self.0 = &self.0[1..];
                Some(u64::from(first))
            }
            [first, second, ..] if second < 0x80 => {
                self.0 = &self.0[2..];
                Some(u64::from(first & 0x7f) | u64::from(second) << 7)
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            // The tenth byte has room for one bit.
            if shift == 63 && byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    pub fn varint32(&mut self) -> Option<u32> {
        u32::try_from(self.varint()?).ok()
    }

    #[inline]
    pub fn signed(&mut self) -> Option<i64> {
        self.varint().map(unzigzag)
    }

    /// A count of things of at least one byte each: more than there are bytes is damage, not a reason to allocate.
    pub fn count(&mut self) -> Option<usize> {
        let count = usize::try_from(self.varint()?).ok()?;
        (count <= self.0.len()).then_some(count)
    }

    pub fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (first, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(first)
    }

    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.count()?;
        self.take(length)
    }

    pub fn str(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(unsigned: u64, signed: i64, text: String) {
            let mut out = Vec::new();
            put_varint(&mut out, unsigned);
            put_signed(&mut out, signed);
            put_bytes(&mut out, text.as_bytes());
            let mut reader = Reader(&out);
            prop_assert_eq!(reader.varint(), Some(unsigned));
            prop_assert_eq!(reader.signed(), Some(signed));
            prop_assert_eq!(reader.str(), Some(text.as_str()));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn few_are_what_was_put_into_them(
            first in 0..1u64 << 34,
            // Of every length.
            last in (any::<u64>(), 0..10u32).prop_map(|(last, sevens)| (last | 1 << 63) >> (7 * sevens)),
            byte: u8,
            is_fixed: bool,
        ) {
            let (mut few, mut plain) = (Few::default(), vec![1]);
            put_varint(&mut few, first);
            put_varint(&mut plain, first);
            few.put_byte(byte);
            plain.put_byte(byte);
            if is_fixed {
                few.put_u64(last);
                plain.put(&last.to_le_bytes());
            } else {
                put_varint(&mut few, last);
                put_varint(&mut plain, last);
            }
            let mut out = vec![1];
            out.put_few(&few);
            prop_assert_eq!(&out, &plain);
            prop_assert_eq!(&few.word()[..few.len().min(8)], &plain[1..plain.len().min(9)]);
        }

        #[test]
        fn two_numbers_come_one_after_the_other(
            first in prop_oneof![0..0x100u64, 0..1u64 << 34],
            second in (any::<u64>(), 0..64u32).prop_map(|(second, shift)| (second | 1 << 63) >> shift),
        ) {
            let (mut out, mut plain) = (vec![1], vec![1]);
            out.put_few(&Few::of_two(first, second));
            put_varint(&mut plain, first);
            put_varint(&mut plain, second);
            prop_assert_eq!(out, plain);
        }

        #[test]
        fn a_pair_is_two_numbers(first in 0..200u64, bits in 0..40u32, second: u64, rest in prop::collection::vec(any::<u8>(), 0..9)) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, first);
            put_varint(&mut bytes, second >> (63 - bits));
            bytes.extend(rest);
            let (mut reader, mut plain) = (Reader(&bytes), Reader(&bytes));
            match reader.short_pair() {
                Some((first, second)) => {
                    prop_assert_eq!((Some(first), Some(second)), (plain.varint(), plain.varint()));
                    prop_assert_eq!(reader.0, plain.0);
                }
                None => {
                    prop_assert!(first >= 0x80 || bits >= 27 || bytes.len() < 8);
                    prop_assert_eq!(reader.0, &*bytes, "nothing is taken");
                }
            }
        }

        #[test]
        fn tiny_numbers_are_those_of_two_pairs(
            first in 0..0x80u8,
            heads in (0..0x80u8, 0..0x80u8, any::<[bool; 2]>()),
            numbers in (0..1u64 << 15, 0..1u64 << 8),
            swap: bool,
            rest in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            let heads = [(heads.0, heads.2[0]), (heads.1, heads.2[1])].map(|(other, same)| if same { first } else { other });
            let numbers = if swap { [numbers.1, numbers.0] } else { [numbers.0, numbers.1] };
            let mut bytes = Vec::new();
            for (head, number) in heads.iter().zip(numbers) {
                bytes.push(*head);
                put_varint(&mut bytes, number);
            }
            bytes.extend(&rest);
            let mut reader = Reader(&bytes);
            match reader.two_tiny(first) {
                Some(found) => {
                    prop_assert_eq!((heads, found), ([first; 2], numbers));
                    prop_assert_eq!(reader.0, &*rest);
                }
                None => {
                    prop_assert!(heads != [first; 2] || numbers.iter().any(|number| *number >= 1 << 14) || bytes.len() < 8);
                    prop_assert_eq!(reader.0, &*bytes, "nothing is taken");
                }
            }
        }

        #[test]
        fn garbage_is_none_and_never_a_panic(bytes: Vec<u8>) {
            let mut reader = Reader(&bytes);
            while reader.varint().is_some() && reader.bytes().is_some() {}
        }
    }
}
