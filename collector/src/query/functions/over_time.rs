//! Functions over the samples of a window.

use std::cmp::Ordering;

use crate::store::Sample;

use super::Window;
use super::kahan::{Mean, Sum, Variance};

pub fn sum(window: &Window<'_>) -> Option<f64> {
    Some(Sum::of(window.values).total())
}

pub fn avg(window: &Window<'_>) -> Option<f64> {
    Some(Mean::of(window.values).mean())
}

pub fn variance(window: &Window<'_>) -> Option<f64> {
    let mut variance = Variance::default();
    window.values.iter().for_each(|value| variance.add(*value));
    Some(variance.variance())
}

/// The sample that `beats` all before it; a NaN is beaten by whatever follows.
fn pick(window: &Window<'_>, beats: impl Fn(f64, f64) -> bool) -> Option<Sample> {
    window.samples().reduce(
        |best, sample| {
            if beats(sample.value, best.value) || best.value.is_nan() { sample } else { best }
        },
    )
}

pub fn max(window: &Window<'_>) -> Option<f64> {
    let beats = |new, best| new > best;
    furthest(window.values, beats, f64::NEG_INFINITY).or_else(|| pick(window, beats).map(|sample| sample.value))
}

pub fn min(window: &Window<'_>) -> Option<f64> {
    let beats = |new, best| new < best;
    furthest(window.values, beats, f64::INFINITY).or_else(|| pick(window, beats).map(|sample| sample.value))
}

/// The value that beats all others, eight at a time; `None` where the order counts, which is among zeros, which have signs, and
/// where none beats the last of all numbers.
fn furthest(values: &[f64], beats: impl Fn(f64, f64) -> bool, last: f64) -> Option<f64> {
    let better = |best: f64, value: f64| if beats(value, best) { value } else { best };
    let (some, rest) = values.as_chunks::<8>();
    let mut lanes = [last; 8];
    for values in some {
        lanes.iter_mut().zip(values).for_each(|(best, value)| *best = better(*best, *value));
    }
    let best = lanes.iter().chain(rest).fold(last, |best, value| better(best, *value));
    (best != last && best != 0.0).then_some(best)
}

/// The last of several equal ones.
pub fn ts_of_max(window: &Window<'_>) -> Option<f64> {
    pick(window, |new, best| new >= best).map(|sample| seconds(sample.timestamp_ms))
}

pub fn ts_of_min(window: &Window<'_>) -> Option<f64> {
    pick(window, |new, best| new <= best).map(|sample| seconds(sample.timestamp_ms))
}

pub fn seconds(at_ms: i64) -> f64 {
    at_ms as f64 / 1000.0
}

fn pairs<'a>(window: &Window<'a>) -> impl Iterator<Item = (f64, f64)> + use<'a> {
    window.values.windows(2).map(|pair| (pair[0], pair[1]))
}

pub fn changes(window: &Window<'_>) -> Option<f64> {
    let changed = |(before, after): &(f64, f64)| before != after && !(before.is_nan() && after.is_nan());
    Some(pairs(window).filter(changed).count() as f64)
}

pub fn resets(window: &Window<'_>) -> Option<f64> {
    Some(pairs(window).filter(|(before, after)| after < before).count() as f64)
}

pub fn quantile_over_time(window: &Window<'_>) -> Option<f64> {
    let mut values = window.values.to_vec();
    Some(quantile(*window.args.first()?, &mut values))
}

/// Median distance from the median; NaN as soon as one sample is.
pub fn mad(window: &Window<'_>) -> Option<f64> {
    let mut values = window.values.to_vec();
    if values.iter().any(|value| value.is_nan()) {
        return Some(f64::NAN);
    }
    let median = quantile(0.5, &mut values);
    values.iter_mut().for_each(|value| *value = (*value - median).abs());
    Some(quantile(0.5, &mut values))
}

/// Interpolates linearly between the two nearest values. NaN sorts first. Reorders `values`.
pub fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    let rank = q * (values.len() - 1) as f64;
    let lower = rank.floor() as usize;
    let weight = rank - rank.floor();
    // Of all the order only two neighbours are wanted.
    let (_, lower, above) = values.select_nth_unstable_by(lower, nan_first);
    let upper = above.iter().copied().min_by(nan_first).unwrap_or(*lower);
    *lower * (1.0 - weight) + upper * weight
}

fn nan_first(a: &f64, b: &f64) -> Ordering {
    b.is_nan().cmp(&a.is_nan()).then(a.total_cmp(b))
}

/// Holt's linear method: a smoothed value and a smoothed trend. Factors are checked by the caller.
pub fn smooth(window: &Window<'_>) -> Option<f64> {
    let &[value_factor, trend_factor] = window.args else { return None };
    let [first, second, ..] = *window.values else { return None };
    let mut trend = second - first;
    let mut before = 0.0;
    let mut smoothed = first;
    for (index, value) in window.values[1..].iter().enumerate() {
        if index > 0 {
            trend = trend_factor * (smoothed - before) + (1.0 - trend_factor) * trend;
        }
        before = smoothed;
        smoothed = value_factor * value + (1.0 - value_factor) * (smoothed + trend);
    }
    Some(smoothed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// To the last bit, however many there are.
        #[test]
        fn the_greatest_and_the_least_are_those_of_all_one_by_one(
            values in prop::collection::vec(prop_oneof![
                4 => (-3i8..4).prop_map(f64::from),
                1 => Just(-0.0),
                1 => Just(f64::NAN),
                1 => prop_oneof![Just(f64::INFINITY), Just(f64::NEG_INFINITY)],
                1 => any::<f64>(),
            ], 1..40),
        ) {
            let times: Vec<i64> = (0..values.len() as i64).collect();
            let (args, extrapolation) = (&[][..], &Default::default());
            let window = Window {
                times: &times, values: &values, from_ms: -1, to_ms: 99, step_ms: 99, args, grows: false, extrapolation,
            };
            let by_one = |beats: fn(f64, f64) -> bool| pick(&window, beats).map(|sample| sample.value.to_bits());
            prop_assert_eq!(max(&window).map(f64::to_bits), by_one(|new, best| new > best));
            prop_assert_eq!(min(&window).map(f64::to_bits), by_one(|new, best| new < best));
        }

        #[test]
        fn a_quantile_is_that_of_all_values_in_order(
            mut values in prop::collection::vec(prop_oneof![8 => -9i8..9, 1 => Just(100i8)].prop_map(|v| if v == 100 { f64::NAN } else { f64::from(v) }), 1..30),
            q in 0.0..=1.0f64,
        ) {
            let mut sorted = values.clone();
            sorted.sort_by(nan_first);
            let rank = q * (sorted.len() - 1) as f64;
            let (lower, weight) = (rank.floor() as usize, rank - rank.floor());
            let wanted = sorted[lower] * (1.0 - weight) + sorted[(lower + 1).min(sorted.len() - 1)] * weight;
            let found = quantile(q, &mut values);
            prop_assert!(found == wanted || (found.is_nan() && wanted.is_nan()), "{} instead of {}", found, wanted);
        }
    }
}
