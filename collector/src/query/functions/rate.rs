//! Increase of counters and gauges over a window, extrapolated to its ends as Prometheus does.

use super::Window;

pub fn rate(window: &Window<'_>) -> Option<f64> {
    increase_of(window, true, (window.to_ms - window.from_ms) as f64 / 1000.0)
}

pub fn increase(window: &Window<'_>) -> Option<f64> {
    increase_of(window, true, 1.0)
}

pub fn delta(window: &Window<'_>) -> Option<f64> {
    increase_of(window, false, 1.0)
}

/// A gap to the end of the window longer than this many sample distances means that the series begins or ends there: only
/// half a distance is then extrapolated.
const GAP: f64 = 1.1;

/// Where samples lie in a window.
pub struct Span {
    pub first_ms: i64,
    pub last_ms: i64,
    /// At least two.
    pub samples: usize,
    pub from_ms: i64,
    pub to_ms: i64,
}

impl Span {
    /// By how much an increase between the samples grows when the window's ends are counted in. A counter's first value, as
    /// a part of its increase, bounds how far before the first sample it can have started: it was not below zero.
    pub fn factor(&self, first_part: Option<f64>) -> f64 {
        let mut to_start = (self.first_ms - self.from_ms) as f64 / 1000.0;
        let mut to_end = (self.to_ms - self.last_ms) as f64 / 1000.0;
        let sampled = (self.last_ms - self.first_ms) as f64 / 1000.0;
        let distance = sampled / (self.samples - 1) as f64;
        if to_start >= distance * GAP {
            to_start = distance / 2.0;
        }
        if let Some(part) = first_part {
            to_start = to_start.min(sampled * part);
        }
        if to_end >= distance * GAP {
            to_end = distance / 2.0;
        }
        (sampled + to_start + to_end) / sampled
    }
}

fn increase_of(window: &Window<'_>, counter: bool, seconds: f64) -> Option<f64> {
    let [first, .., last] = window.samples else { return None };
    let mut difference = last.value - first.value;
    // Neighbouring windows share most of their samples, so whoever slides them knows whether there was a reset.
    if counter && !window.grows {
        for pair in window.samples.windows(2) {
            if pair[1].value < pair[0].value {
                difference += pair[0].value;
            }
        }
    }
    let ends = Ends {
        first_ms: first.timestamp_ms,
        last_ms: last.timestamp_ms,
        samples: window.samples.len(),
        first: first.value,
        from_ms: window.from_ms,
        to_ms: window.to_ms,
    };
    extrapolated(&ends, difference, counter, seconds)
}

/// What an extrapolation wants to know of the samples in a window.
pub struct Ends {
    pub first_ms: i64,
    pub last_ms: i64,
    pub samples: usize,
    /// Value of the first one.
    pub first: f64,
    pub from_ms: i64,
    pub to_ms: i64,
}

/// The increase divided by `seconds`; `None` of less than two samples. The order of operations is Prometheus', so that the
/// last bit is too: quantiles over rates of buckets jump where it is not.
pub fn extrapolated(ends: &Ends, difference: f64, counter: bool, seconds: f64) -> Option<f64> {
    let Ends { first_ms, last_ms, samples, first, from_ms, to_ms } = *ends;
    if samples < 2 {
        return None;
    }
    let span = Span { first_ms, last_ms, samples, from_ms, to_ms };
    let grows = counter && difference > 0.0 && first >= 0.0;
    Some(difference * (span.factor(grows.then(|| first / difference)) / seconds))
}

pub fn irate(window: &Window<'_>) -> Option<f64> {
    let [.., before, last] = window.samples else { return None };
    let seconds = (last.timestamp_ms - before.timestamp_ms) as f64 / 1000.0;
    let increase = if last.value < before.value { last.value } else { last.value - before.value };
    Some(increase / seconds)
}

pub fn idelta(window: &Window<'_>) -> Option<f64> {
    let [.., before, last] = window.samples else { return None };
    Some(last.value - before.value)
}
