//! Increase of counters and gauges over a window, extrapolated to its ends as Prometheus does.

use std::cell::RefCell;

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
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    pub first_ms: i64,
    pub last_ms: i64,
    /// At least two.
    pub samples: usize,
    pub from_ms: i64,
    pub to_ms: i64,
}

/// How far an increase is carried beyond the samples, in seconds.
#[derive(Debug, Clone, Copy)]
struct Reach {
    to_start: f64,
    to_end: f64,
    sampled: f64,
}

impl Span {
    /// By how much an increase between the samples grows when the window's ends are counted in. A counter's first value, as
    /// a part of its increase, bounds how far before the first sample it can have started: it was not below zero.
    pub fn factor(&self, first_part: Option<f64>) -> f64 {
        self.reach().factor(first_part)
    }

    fn reach(&self) -> Reach {
        let mut to_start = (self.first_ms - self.from_ms) as f64 / 1000.0;
        let mut to_end = (self.to_ms - self.last_ms) as f64 / 1000.0;
        let sampled = (self.last_ms - self.first_ms) as f64 / 1000.0;
        let distance = sampled / (self.samples - 1) as f64;
        if to_start >= distance * GAP {
            to_start = distance / 2.0;
        }
        if to_end >= distance * GAP {
            to_end = distance / 2.0;
        }
        Reach { to_start, to_end, sampled }
    }

    /// The same wherever it lies.
    fn offsets(&self) -> (i64, i64, i64, usize) {
        (self.first_ms - self.from_ms, self.to_ms - self.last_ms, self.last_ms - self.first_ms, self.samples)
    }
}

impl Reach {
    fn factor(&self, first_part: Option<f64>) -> f64 {
        let to_start = first_part.map_or(self.to_start, |part| self.to_start.min(self.sampled * part));
        (self.sampled + to_start + self.to_end) / self.sampled
    }
}

/// What the last window of a series came to: samples mostly lie in the next one as they did in that.
#[derive(Debug, Default)]
pub struct Extrapolation(RefCell<Option<Known>>);

#[derive(Debug)]
struct Known {
    offsets: (i64, i64, i64, usize),
    seconds: f64,
    reach: Reach,
    /// Of a series that is not bounded by zero.
    scale: f64,
}

impl Extrapolation {
    /// Factor of an increase, divided by `seconds`. `first` and `increase` are a counter's, which began at zero or above.
    #[inline(always)]
    fn scale(&self, span: &Span, seconds: f64, first_and_increase: Option<(f64, f64)>) -> f64 {
        let offsets = span.offsets();
        let mut known = self.0.borrow_mut();
        let known = match &mut *known {
            Some(known) if known.offsets == offsets && known.seconds == seconds => known,
            other => {
                let reach = span.reach();
                other.insert(Known { offsets, seconds, reach, scale: reach.factor(None) / seconds })
            }
        };
        match first_and_increase {
            // What is divided by less is one at least, and then it bounds nothing.
            Some((first, increase)) if first < increase || known.reach.to_start > known.reach.sampled => {
                known.reach.factor(Some(first / increase)) / seconds
            }
            _ => known.scale,
        }
    }
}

#[inline(always)]
fn increase_of(window: &Window<'_>, counter: bool, seconds: f64) -> Option<f64> {
    let [first_ms, .., last_ms] = *window.times else { return None };
    let (first, last) = (*window.values.first()?, *window.values.last()?);
    let mut difference = last - first;
    // Neighbouring windows share most of their samples, so whoever slides them knows whether there was a reset.
    if counter && !window.grows {
        for pair in window.values.windows(2) {
            if pair[1] < pair[0] {
                difference += pair[0];
            }
        }
    }
    let samples = window.times.len();
    let ends = Ends { first_ms, last_ms, samples, first, from_ms: window.from_ms, to_ms: window.to_ms };
    extrapolated(&ends, difference, counter, seconds, window.extrapolation)
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
#[inline(always)] // what is handed over would else be written to memory and read back, for each window
pub fn extrapolated(
    ends: &Ends,
    difference: f64,
    counter: bool,
    seconds: f64,
    extrapolation: &Extrapolation,
) -> Option<f64> {
    let Ends { first_ms, last_ms, samples, first, from_ms, to_ms } = *ends;
    if samples < 2 {
        return None;
    }
    let span = Span { first_ms, last_ms, samples, from_ms, to_ms };
    let grows = counter && difference > 0.0 && first >= 0.0;
    Some(difference * extrapolation.scale(&span, seconds, grows.then_some((first, difference))))
}

pub fn irate(window: &Window<'_>) -> Option<f64> {
    let ([.., before_ms, last_ms], [.., before, last]) = (window.times, window.values) else { return None };
    let seconds = (last_ms - before_ms) as f64 / 1000.0;
    let increase = if last < before { *last } else { last - before };
    Some(increase / seconds)
}

pub fn idelta(window: &Window<'_>) -> Option<f64> {
    let [.., before, last] = window.values else { return None };
    Some(last - before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// To the last bit, whatever was asked before.
        #[test]
        fn what_is_known_of_a_window_changes_no_result(
            windows in prop::collection::vec((0i64..50, 0i64..50, 1i64..3, 2usize..5, prop_oneof![0.0..9.0f64, 0.0..1e9f64], 0.0..1e3f64), 1..20),
        ) {
            let extrapolation = Extrapolation::default();
            for (before, after, sampled, samples, first, increase) in windows {
                let (first_ms, last_ms) = (1000 + before * 20, 1000 + before * 20 + sampled * 1000);
                let span = Span { first_ms, last_ms, samples, from_ms: 1000, to_ms: last_ms + after * 20 };
                for known in [None, Some((first, increase))] {
                    let wanted = span.factor(known.map(|(first, increase)| first / increase)) / 60.0;
                    prop_assert_eq!(extrapolation.scale(&span, 60.0, known).to_bits(), wanted.to_bits());
                }
            }
        }
    }
}
