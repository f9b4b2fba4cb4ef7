//! Numbers as sources give them: doubles, and the whole numbers that no double holds.
//!
//! A counter of a server is a u64 and may pass 2^53, where doubles begin to skip. Whatever a double holds exactly is a
//! [`Number::Float`], so nearly every value takes the plain way; the rest is an [`Integer`]. So each number has one form,
//! and equality is of that form: of bits, NaN and -0.0 included. Whoever calculates takes [`Number::as_f64`].

use std::fmt;

/// A whole number that no double holds exactly: more than 2^53 away from 0, at most 2^64 - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Integer {
    magnitude: u64,
    negative: bool,
}

/// What a source gave.
#[derive(Debug, Clone, Copy)]
pub enum Number {
    Float(f64),
    Integer(Integer),
}

impl Integer {
    pub fn magnitude(self) -> u64 {
        self.magnitude
    }

    pub fn is_negative(self) -> bool {
        self.negative
    }

    /// The double that is nearest.
    pub fn as_f64(self) -> f64 {
        let value = self.magnitude as f64;
        if self.negative { -value } else { value }
    }
}

impl fmt::Display for Integer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.negative { "-" } else { "" })?;
        self.magnitude.fmt(f)
    }
}

impl Number {
    /// The whole number of this magnitude and sign.
    pub fn whole(magnitude: u64, negative: bool) -> Self {
        // A double has 53 significant bits.
        if 64 - magnitude.leading_zeros() <= 53 + magnitude.trailing_zeros() {
            let value = magnitude as f64;
            return Self::Float(if negative && magnitude > 0 { -value } else { value });
        }
        Self::Integer(Integer { magnitude, negative })
    }

    /// Reads a number as its source prints it; what has a point, an exponent or more digits than 2^64 - 1 is a double.
    pub fn parse(text: &str) -> Option<Self> {
        /// Of so many digits every whole number is below 2^53.
        const SURELY_EXACT: usize = 15;
        if text.len() > SURELY_EXACT {
            let (digits, negative) = text.strip_prefix('-').map_or((text, false), |digits| (digits, true));
            if !digits.starts_with('+')
                && let Ok(magnitude) = digits.parse::<u64>()
            {
                return Some(Self::whole(magnitude, negative));
            }
        }
        text.parse().ok().map(Self::Float)
    }

    /// The double that is nearest.
    pub fn as_f64(self) -> f64 {
        match self {
            Self::Float(value) => value,
            Self::Integer(value) => value.as_f64(),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
        }
    }
}

/// Of bits.
impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Integer(a), Self::Integer(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Number {}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Self::whole(value, false)
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Self {
        Self::whole(value.unsigned_abs(), value < 0)
    }
}

impl From<Integer> for Number {
    fn from(value: Integer) -> Self {
        Self::Integer(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_number_has_one_form() {
        const EDGE: u64 = 1 << 53;
        for (text, expected) in [
            ("9007199254740992", Number::Float(9_007_199_254_740_992.0)),
            ("9007199254740993", Number::Integer(Integer { magnitude: EDGE + 1, negative: false })),
            ("-9007199254740993", Number::Integer(Integer { magnitude: EDGE + 1, negative: true })),
            ("9007199254740994", Number::Float(9_007_199_254_740_994.0)),
            ("18446744073709551615", Number::Integer(Integer { magnitude: u64::MAX, negative: false })),
            ("18446744073709551616", Number::Float(18_446_744_073_709_551_616.0)),
            ("18446744073709547520", Number::Float(18_446_744_073_709_547_520.0)),
            ("00000000000000000012", Number::Float(12.0)),
            ("0.50000000000000000", Number::Float(0.5)),
            ("-0", Number::Float(-0.0)),
            ("1e300", Number::Float(1e300)),
        ] {
            assert_eq!(Number::parse(text), Some(expected), "{text}");
        }
        assert_eq!(Number::parse("-+9007199254740993"), None);
        assert_eq!(Number::parse("ON"), None);
        assert_eq!(Number::from(i64::MIN), Number::Float(-9_223_372_036_854_775_808.0));
        assert_eq!(Number::from(i64::MIN + 1).as_f64(), -9_223_372_036_854_775_808.0, "the nearest double");
    }

    proptest! {
        #[test]
        fn whole_numbers_come_back(magnitude in prop_oneof![any::<u64>(), (1u64 << 53)..(1 << 54)], negative: bool) {
            let text = format!("{}{magnitude}", if negative { "-" } else { "" });
            let number = Number::parse(&text).unwrap();
            prop_assert_eq!(number, Number::whole(magnitude, negative));
            match number {
                Number::Integer(integer) => prop_assert_eq!(integer.to_string(), text),
                Number::Float(value) => prop_assert_eq!(value.abs() as u128, u128::from(magnitude)),
            }
            // An integer is told from every double.
            prop_assert_eq!(matches!(number, Number::Integer(_)), magnitude as f64 as u128 != u128::from(magnitude));
        }
    }
}
