//! Strings, labels, times and values as Prometheus' JSON has them. Most of what a wide answer costs is its digits.

use std::ops::Range;

use crate::store::Labels;

pub fn push_string(out: &mut Vec<u8>, text: &str) {
    // Mostly nothing is to be escaped, which is seen at a glance.
    if !text.bytes().fold(false, |any, byte| any | (byte < b' ') | (byte == b'"') | (byte == b'\\')) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        return out.push(b'"');
    }
    // Writing a string to a vector cannot fail.
    let _ = serde_json::to_writer(out, text);
}

pub fn push_labels(out: &mut Vec<u8>, labels: &Labels) {
    out.push(b'{');
    for (at, label) in labels.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        push_string(out, &label.name);
        out.push(b':');
        push_string(out, &label.value);
    }
    out.push(b'}');
}

/// Seconds with up to three decimals.
pub fn push_time(out: &mut Vec<u8>, at_ms: i64) {
    let (seconds, ms) = (at_ms / 1000, (at_ms % 1000).unsigned_abs());
    if at_ms < 0 && seconds == 0 {
        out.push(b'-');
    }
    out.extend_from_slice(itoa::Buffer::new().format(seconds).as_bytes());
    if ms > 0 {
        let digit = |number: u64| b'0' + (number % 10) as u8;
        out.extend_from_slice(&[b'.', digit(ms / 100), digit(ms / 10), digit(ms)]);
    }
}

/// As Go writes floats in JSON: digits in full between 1e-6 and 1e21, an exponent of two digits or more beyond.
pub fn push_value(out: &mut Vec<u8>, value: f64) {
    let size = value.abs();
    if value.is_nan() {
        return out.extend_from_slice(b"NaN");
    }
    if value.is_infinite() {
        return out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    }
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(value);
    if size == 0.0 || PLAIN.contains(&size) {
        return out.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes());
    }
    if (1e-6..1e21).contains(&size) {
        return out.extend_from_slice(value.to_string().as_bytes());
    }
    let (digits, exponent) = text.split_once('e').unwrap_or((text, ""));
    let (sign, exponent) =
        exponent.strip_prefix('-').map_or(("e+", exponent.trim_start_matches('+')), |rest| ("e-", rest));
    out.extend_from_slice(digits.as_bytes());
    out.extend_from_slice(sign.as_bytes());
    if exponent.len() < 2 {
        out.push(b'0');
    }
    out.extend_from_slice(exponent.as_bytes());
}

/// What is written without an exponent anyway.
const PLAIN: Range<f64> = 1e-5..1e16;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(value: f64) -> String {
        let mut out = Vec::new();
        push_value(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_written_as_go_does() {
        for (value, expected) in [
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (0.000001, "0.000001"),
            (1e-7, "1e-07"),
            (-0.5, "-0.5"),
            (-0.0, "-0"),
            (3.0, "3"),
            (1.5e300, "1.5e+300"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(text(value), expected);
        }
    }

    proptest! {
        #[test]
        fn digits_are_the_shortest_that_read_back_the_same(value in prop_oneof![any::<f64>(), -1e9..1e9f64, -1e-3..1e-3f64, -1e21..1e21f64, (-1i64 << 60..1 << 60).prop_map(|value| value as f64)]) {
            prop_assume!(value.is_finite());
            let text = text(value);
            prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), value.to_bits(), "{}", &text);
            let is_plain = value == 0.0 || (1e-6..1e21).contains(&value.abs());
            prop_assert_eq!(text.contains('e'), !is_plain);
            if is_plain {
                prop_assert_eq!(text, value.to_string());
            }
        }
    }

    #[test]
    fn times_are_written_in_seconds() {
        for (ms, expected) in [(0, "0"), (12_500, "12.500"), (1_000_123, "1000.123"), (-1, "-0.001"), (-1500, "-1.500")]
        {
            let mut out = Vec::new();
            push_time(&mut out, ms);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
