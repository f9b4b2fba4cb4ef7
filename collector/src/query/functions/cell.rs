//! Functions of one number where Rust and PromQL (that is Go) differ, above all in what NaN does.

/// NaN if either is NaN and none is infinite: nothing is above infinity. `f64::max` would drop the NaN.
pub fn max(a: f64, b: f64) -> f64 {
    if (a.is_nan() || b.is_nan()) && a != f64::INFINITY && b != f64::INFINITY { f64::NAN } else { a.max(b) }
}

/// NaN if either is NaN and none is the negative infinity.
pub fn min(a: f64, b: f64) -> f64 {
    -max(-a, -b)
}

/// To the nearest multiple of the argument (default 1), ties upwards. Multiplies by the inverse, as Prometheus does, so
/// that `round(x, 0.1)` gives the same last digits.
pub fn round(v: f64, args: &[f64]) -> f64 {
    let inverse = 1.0 / args.first().copied().unwrap_or(1.0);
    (v * inverse + 0.5).floor() / inverse
}

/// -1, 1, or the value itself for zeros and NaN.
pub fn sign(v: f64, _: &[f64]) -> f64 {
    if v < 0.0 {
        -1.0
    } else if v > 0.0 {
        1.0
    } else {
        v
    }
}
