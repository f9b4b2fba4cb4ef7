//! Floats by the bits in which neighbours differ: as Gorilla writes them, and as Chimp does.

use super::bits::{Reader, Writer};

/// Gorilla: the differing bits within the window of those before, or with a window of their own.
pub fn gorilla(values: &[f64]) -> Vec<u8> {
    let mut out = Writer::default();
    let (mut before, mut leading, mut length) = (0u64, 64, 0);
    for (at, value) in values.iter().enumerate() {
        let bits = value.to_bits();
        let xor = bits ^ std::mem::replace(&mut before, bits);
        if at == 0 {
            out.put(bits, 64);
            continue;
        }
        if xor == 0 {
            out.put(0, 1);
            continue;
        }
        let (lead, trail) = (xor.leading_zeros().min(31), xor.trailing_zeros());
        if length > 0 && lead >= leading && trail >= 64 - leading - length {
            out.put(0b10, 2);
        } else {
            (leading, length) = (lead, 64 - lead - trail);
            out.put(0b11, 2);
            out.put(leading.into(), 5);
            out.put(u64::from(length) & 63, 6);
        }
        out.put(xor >> (64 - leading - length), length);
    }
    out.into_bytes()
}

pub fn read_gorilla(bytes: &[u8], count: usize) -> Vec<f64> {
    let mut reader = Reader::new(bytes);
    let (mut bits, mut leading, mut length) = (0u64, 0, 0);
    let value = |at: usize| {
        if at == 0 {
            bits = reader.take(64);
        } else if reader.take(1) == 1 {
            if reader.take(1) == 1 {
                leading = reader.take(5) as u32;
                length = match reader.take(6) as u32 {
                    0 => 64,
                    length => length,
                };
            }
            bits ^= reader.take(length) << (64 - leading - length);
        }
        f64::from_bits(bits)
    };
    (0..count).map(value).collect()
}

/// Numbers of leading zeros that Chimp tells apart.
const LEADING: [u32; 8] = [0, 8, 12, 16, 18, 20, 22, 24];

/// More trailing zeros than this are worth telling.
const TRAILING: u32 = 6;

/// Chimp, with the value before as the only reference.
pub fn chimp(values: &[f64]) -> Vec<u8> {
    let mut out = Writer::default();
    let (mut before, mut last) = (0u64, usize::MAX);
    for (at, value) in values.iter().enumerate() {
        let bits = value.to_bits();
        let xor = bits ^ std::mem::replace(&mut before, bits);
        if at == 0 {
            out.put(bits, 64);
            continue;
        }
        let trail = xor.trailing_zeros();
        let lead = LEADING.iter().rposition(|zeros| *zeros <= xor.leading_zeros()).unwrap_or(0);
        if xor == 0 {
            out.put(0b00, 2);
            last = usize::MAX;
        } else if trail > TRAILING {
            let centre = 64 - LEADING[lead] - trail;
            out.put(0b01, 2);
            out.put(lead as u64, 3);
            out.put(u64::from(centre), 6);
            out.put(xor >> trail, centre);
            last = usize::MAX;
        } else if lead == last {
            out.put(0b10, 2);
            out.put(xor, 64 - LEADING[lead]);
        } else {
            last = lead;
            out.put(0b11, 2);
            out.put(lead as u64, 3);
            out.put(xor, 64 - LEADING[lead]);
        }
    }
    out.into_bytes()
}

pub fn read_chimp(bytes: &[u8], count: usize) -> Vec<f64> {
    let mut reader = Reader::new(bytes);
    let (mut bits, mut last) = (0u64, 0);
    let value = |at: usize| {
        if at == 0 {
            bits = reader.take(64);
            return f64::from_bits(bits);
        }
        match reader.take(2) {
            0b00 => {}
            0b01 => {
                let lead = LEADING[reader.take(3) as usize];
                let centre = reader.take(6) as u32;
                bits ^= reader.take(centre) << (64 - lead - centre);
            }
            what => {
                if what == 0b11 {
                    last = reader.take(3) as usize;
                }
                bits ^= reader.take(64 - LEADING[last]);
            }
        }
        f64::from_bits(bits)
    };
    (0..count).map(value).collect()
}
