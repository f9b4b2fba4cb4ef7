//! Values as decimal mantissas, so that a small change costs one or two bytes.
//!
//! Most values of a server are decimal fractions: counters are whole, CPU seconds have two digits, pressure six. With the
//! value before, `p`, the next one is `(round(p * 10^digits) + delta) / 10^digits`, computed in doubles. An encoder uses a
//! delta only where the decoder's arithmetic gives back the very bits; everything else travels as raw bits.

/// Most digits after the point.
pub const DIGITS_MAX: u32 = 9;

const POWERS: [f64; DIGITS_MAX as usize + 1] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// Up to here a mantissa comes back from its value whatever the digits: a division and a multiplication are off by less than a
/// quarter together, and that is rounded away. Who goes on from such a mantissa need not make it again.
pub const MANTISSA_KEPT: i64 = 1 << 50;

/// Mantissas beyond this are not exact in a double.
const MANTISSA_MAX: f64 = 9_007_199_254_740_992.0;

/// The mantissa of `value` at `digits`, if it is one that a double holds exactly.
#[inline]
fn mantissa(value: f64, digits: u32) -> Option<i64> {
    if digits == 0 {
        // Counters are their own mantissas, and this is told sooner than one is made.
        let whole = value as i64;
        if whole as f64 == value && whole.unsigned_abs() < MANTISSA_MAX as u64 {
            return Some(whole);
        }
    }
    let scaled = value * POWERS[digits as usize];
    (scaled.abs() < MANTISSA_MAX).then(|| round(scaled))
}

/// As `f64::round`, which is a call into the mathematical library on processors that need not have an instruction for it, and
/// every point of a column takes one. The remainder is exact: beyond 2^52 a double has no fraction.
#[inline]
fn round(value: f64) -> i64 {
    let whole = value as i64;
    let rest = value - whole as f64;
    whole + i64::from(rest >= 0.5) - i64::from(rest <= -0.5)
}

/// The mantissa at `digits` that gives back the very bits of `value`, if there is one.
pub fn exact(value: f64, digits: u32) -> Option<i64> {
    let mantissa = if digits <= DIGITS_MAX { mantissa(value, digits)? } else { return None };
    (self::value(mantissa, digits)?.to_bits() == value.to_bits()).then_some(mantissa)
}

/// The value of a mantissa; `None` when it is outside the format.
#[inline]
pub fn value(mantissa: i64, digits: u32) -> Option<f64> {
    let inside = digits <= DIGITS_MAX && mantissa.unsigned_abs() < MANTISSA_MAX as u64;
    // Counters are whole, and a division takes longer than all the rest.
    inside.then(|| if digits == 0 { mantissa as f64 } else { mantissa as f64 / POWERS[digits as usize] })
}

/// Makes values of mantissas that are in the format, all of the same digits.
pub fn scale(mantissas: &mut [f64], digits: u32) {
    if let Some(power) = POWERS.get(digits as usize).filter(|_| digits > 0) {
        mantissas.iter_mut().for_each(|mantissa| *mantissa /= power);
    }
}

/// The value that follows `previous` by `delta` at `digits`; `None` when the input is outside the format.
#[inline]
pub fn apply(previous: f64, digits: u32, delta: i64) -> Option<f64> {
    if digits > DIGITS_MAX {
        return None;
    }
    value(mantissa(previous, digits)?.checked_add(delta)?, digits)
}

/// The delta at `digits` that leads from `previous` to the very bits of `value`, if there is one.
#[inline]
pub fn delta_at(previous: f64, value: f64, digits: u32) -> Option<i64> {
    let next = mantissa(value, digits)?;
    // What a decoder makes of the two is the mantissa of `value` again.
    let delta = next.checked_sub(mantissa(previous, digits)?)?;
    (self::value(next, digits)?.to_bits() == value.to_bits()).then_some(delta)
}

/// The fewest digits, and the delta, that lead from `previous` to `value`. `hint` is the number of digits that the series
/// needed last time: series rarely change it, so it is tried first. `previous` must be finite.
#[inline]
pub fn delta(previous: f64, value: f64, hint: u32) -> Option<(u32, i64)> {
    let hint = hint.min(DIGITS_MAX);
    match delta_at(previous, value, hint) {
        Some(delta) => Some((hint, delta)),
        None => other_delta(previous, value),
    }
}

#[inline(never)]
fn other_delta(previous: f64, value: f64) -> Option<(u32, i64)> {
    if !value.is_finite() {
        return None;
    }
    [0, 1, 2, 3, 6, 9].into_iter().find_map(|digits| Some((digits, delta_at(previous, value, digits)?)))
}

/// The base that a column entry counts from: the value before, or 0 where that is not a finite number.
#[inline]
pub fn base(previous: f64) -> f64 {
    if previous.is_finite() { previous } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn common_values_take_few_digits() {
        for (previous, value, digits, step) in
            [(0.0, 7.0, 0, 7), (1.25, 1.26, 2, 1), (0.0, 0.000_001, 6, 1), (100.0, 99.0, 0, -1), (2.5, 2.5, 1, 0)]
        {
            assert_eq!(delta(previous, value, 0), Some((digits, step)), "{previous} -> {value}");
        }
    }

    #[test]
    fn what_a_delta_cannot_give_back_is_refused() {
        for value in [f64::NAN, f64::INFINITY, -0.0, 1.0 / 3.0, 1e300] {
            assert_eq!(delta(0.0, value, 0), None, "{value}");
        }
        assert_eq!(apply(0.0, DIGITS_MAX + 1, 1), None);
        assert_eq!(apply(9e15, 0, i64::MAX), None);
        assert_eq!(apply(f64::NAN, 0, 1), None, "callers take `base` first");
    }

    proptest! {
        #[test]
        fn whole_numbers_take_the_short_way_to_the_same(
            value in prop_oneof![
                any::<f64>(),
                (-1000i64..1000).prop_map(|value| value as f64 / 2.0),
                (-(1i64 << 54)..1 << 54).prop_map(|value| value as f64),
                prop::sample::select(&[-0.0, MANTISSA_MAX, -MANTISSA_MAX, MANTISSA_MAX - 1.0, f64::NAN, f64::INFINITY]),
            ],
        ) {
            prop_assert_eq!(mantissa(value, 0), (value.abs() < MANTISSA_MAX).then(|| value.round() as i64));
        }

        #[test]
        fn values_are_rounded_as_the_library_does(value in prop_oneof![-1e16..1e16f64, -10.0..10.0f64, (-99i32..99).prop_map(|v| f64::from(v) / 2.0)]) {
            prop_assume!(value.abs() < MANTISSA_MAX);
            for value in [value, value.next_down(), value.next_up()] {
                prop_assert_eq!(round(value), value.round() as i64, "{}", value);
            }
        }

        #[test]
        fn many_values_are_made_as_one_is(mantissas in prop::collection::vec(-MANTISSA_KEPT..=MANTISSA_KEPT, 0..9), digits in 0..=DIGITS_MAX) {
            let mut scaled: Vec<f64> = mantissas.iter().map(|mantissa| *mantissa as f64).collect();
            scale(&mut scaled, digits);
            let wanted: Option<Vec<f64>> = mantissas.iter().map(|mantissa| value(*mantissa, digits)).collect();
            prop_assert_eq!(Some(scaled), wanted);
        }

        #[test]
        fn a_kept_mantissa_is_the_one_that_would_be_made(kept in -MANTISSA_KEPT..=MANTISSA_KEPT, digits in 0..=DIGITS_MAX) {
            prop_assert_eq!(mantissa(value(kept, digits).unwrap(), digits), Some(kept));
        }

        #[test]
        fn a_delta_gives_back_the_bits(bits: u64, value in prop_oneof![any::<f64>(), (-1e9..1e9f64).prop_map(|v| (v * 100.0).round() / 100.0)], hint in 0u32..12) {
            let previous = base(f64::from_bits(bits));
            if let Some((digits, delta)) = delta(previous, value, hint) {
                prop_assert_eq!(apply(previous, digits, delta).map(f64::to_bits), Some(value.to_bits()));
            }
        }
    }
}
