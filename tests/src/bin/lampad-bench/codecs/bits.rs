//! Bits one after another, the first in the highest bit of the first byte.

#[derive(Default)]
pub struct Writer {
    bytes: Vec<u8>,
    /// Bits that are free in the last byte.
    free: u32,
}

impl Writer {
    /// Appends the low `width` bits of a number.
    pub fn put(&mut self, number: u64, width: u32) {
        let mut left = width;
        while left > 0 {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let some = left.min(self.free);
            let part = (number >> (left - some)) & ((1 << some) - 1);
            if let Some(last) = self.bytes.last_mut() {
                *last |= (part as u8) << (self.free - some);
            }
            self.free -= some;
            left -= some;
        }
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `width` bits; zeros past the end.
    pub fn take(&mut self, width: u32) -> u64 {
        let mut number = 0;
        let mut left = width;
        while left > 0 {
            let free = 8 - (self.at % 8) as u32;
            let some = left.min(free);
            let byte = u64::from(self.bytes.get(self.at / 8).copied().unwrap_or(0));
            number = number << some | (byte >> (free - some)) & ((1 << some) - 1);
            self.at += some as usize;
            left -= some;
        }
        number
    }
}
