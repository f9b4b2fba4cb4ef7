//! A straight line through the samples of a window, by least squares.

use super::Window;
use super::kahan::Sum;

/// Slope per second.
pub fn deriv(window: &Window<'_>) -> Option<f64> {
    // Measured from the first sample: the slope is the same, the products stay small.
    let origin_ms = *window.times.first()?;
    line(window, origin_ms).map(|(slope, _)| slope)
}

/// Value so many seconds after the step.
pub fn predict(window: &Window<'_>) -> Option<f64> {
    let seconds = *window.args.first()?;
    line(window, window.step_ms).map(|(slope, at_origin)| slope * seconds + at_origin)
}

/// Slope per second and value at the origin.
fn line(window: &Window<'_>, origin_ms: i64) -> Option<(f64, f64)> {
    let [first, _, ..] = *window.values else { return None };
    if window.values.iter().all(|value| *value == first) {
        return Some(if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) });
    }
    let (mut xs, mut ys, mut xys, mut squares) = (Sum::default(), Sum::default(), Sum::default(), Sum::default());
    for sample in window.samples() {
        let x = (sample.timestamp_ms - origin_ms) as f64 / 1000.0;
        xs.add(x);
        ys.add(sample.value);
        xys.add(x * sample.value);
        squares.add(x * x);
    }
    let n = window.values.len() as f64;
    let covariance = xys.total() - xs.total() * ys.total() / n;
    let variance = squares.total() - xs.total() * xs.total() / n;
    let slope = covariance / variance;
    Some((slope, ys.total() / n - slope * xs.total() / n))
}
