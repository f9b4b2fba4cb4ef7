//! Floats as whole numbers: decimal fractions by their mantissas, the rest by their bits.

use lampad_proto::decimal;

use super::bits::{Reader, Writer};

/// What the numbers of a column are, where they are no mantissas of so many digits.
const BITS: u8 = 15;

/// Numbers of equal width.
const BLOCK: usize = 128;

/// Values that an ALP vector has.
const VECTOR: usize = 1024;

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

fn width_of(number: u64) -> u32 {
    64 - number.leading_zeros()
}

/// The fewest digits with which all values are mantissas, and these; their bits where there are none.
fn scaled(values: &[f64]) -> (u8, Vec<i64>) {
    for digits in 0..=decimal::DIGITS_MAX {
        let all: Option<Vec<i64>> = values.iter().map(|value| decimal::exact(*value, digits)).collect();
        if let Some(all) = all {
            return (digits as u8, all);
        }
    }
    (BITS, values.iter().map(|value| value.to_bits() as i64).collect())
}

fn unscaled(form: u8, number: i64) -> f64 {
    match form {
        BITS => f64::from_bits(number as u64),
        digits => decimal::value(number, digits.into()).unwrap_or(f64::NAN),
    }
}

fn steps(numbers: &[i64]) -> impl Iterator<Item = i64> {
    let before = std::iter::once(&0).chain(numbers);
    numbers.iter().zip(before).map(|(number, before)| number.wrapping_sub(*before))
}

/// Decimal scaling, then each difference in as many bytes as it needs.
pub fn varints(values: &[f64]) -> Vec<u8> {
    let (form, numbers) = scaled(values);
    let mut out = vec![form];
    for step in steps(&numbers) {
        let mut rest = zigzag(step);
        while rest >= 0x80 {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
    }
    out
}

pub fn read_varints(bytes: &[u8], count: usize) -> Vec<f64> {
    let mut rest = bytes.iter().skip(1);
    let mut number = 0i64;
    let value = |_| {
        let (mut step, mut shift) = (0u64, 0);
        for byte in rest.by_ref() {
            step |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if *byte < 0x80 {
                break;
            }
        }
        number = number.wrapping_add(unzigzag(step));
        unscaled(bytes[0], number)
    };
    (0..count).map(value).collect()
}

/// Decimal scaling, then differences in blocks of the width that the longest needs.
pub fn packed(values: &[f64]) -> Vec<u8> {
    let (form, numbers) = scaled(values);
    let steps: Vec<u64> = steps(&numbers).map(zigzag).collect();
    let mut out = Writer::default();
    out.put(form.into(), 8);
    for block in steps.chunks(BLOCK) {
        let width = block.iter().map(|step| width_of(*step)).max().unwrap_or(0);
        out.put(width.into(), 8);
        block.iter().for_each(|step| out.put(*step, width));
    }
    out.into_bytes()
}

pub fn read_packed(bytes: &[u8], count: usize) -> Vec<f64> {
    let mut reader = Reader::new(bytes);
    let form = reader.take(8) as u8;
    let (mut number, mut width) = (0i64, 0);
    let value = |at: usize| {
        if at.is_multiple_of(BLOCK) {
            width = reader.take(8) as u32;
        }
        number = number.wrapping_add(unzigzag(reader.take(width)));
        unscaled(form, number)
    };
    (0..count).map(value).collect()
}

/// As ALP: of each vector the digits with which most values are mantissas, these less the least one at one width, the values
/// that are none beside them.
pub fn alp(values: &[f64]) -> Vec<u8> {
    let mut out = Writer::default();
    for vector in values.chunks(VECTOR) {
        let exact = |digits: &u32| vector.iter().filter(|value| decimal::exact(**value, *digits).is_some()).count();
        let digits = (0..=decimal::DIGITS_MAX).rev().max_by_key(exact).unwrap_or(0);
        let numbers: Vec<Option<i64>> = vector.iter().map(|value| decimal::exact(*value, digits)).collect();
        let least = numbers.iter().flatten().min().copied().unwrap_or(0);
        let most = numbers.iter().flatten().max().copied().unwrap_or(0);
        let width = width_of(most.wrapping_sub(least) as u64);
        let odd = numbers.iter().filter(|number| number.is_none()).count();
        out.put(digits.into(), 8);
        out.put(least as u64, 64);
        out.put(width.into(), 8);
        out.put(odd as u64, 16);
        for number in &numbers {
            out.put(number.map_or(0, |number| number.wrapping_sub(least) as u64), width);
        }
        for (at, value) in vector.iter().enumerate().filter(|(at, _)| numbers[*at].is_none()) {
            out.put(at as u64, 16);
            out.put(value.to_bits(), 64);
        }
    }
    out.into_bytes()
}

pub fn read_alp(bytes: &[u8], count: usize) -> Vec<f64> {
    let mut reader = Reader::new(bytes);
    let mut out = Vec::with_capacity(count);
    while out.len() < count {
        let (digits, least) = (reader.take(8) as u8, reader.take(64) as i64);
        let (width, odd) = (reader.take(8) as u32, reader.take(16));
        let begun = out.len();
        for _ in 0..VECTOR.min(count - begun) {
            out.push(unscaled(digits, least.wrapping_add(reader.take(width) as i64)));
        }
        for _ in 0..odd {
            let at = reader.take(16) as usize;
            out[begun + at] = f64::from_bits(reader.take(64));
        }
    }
    out
}
