//! `anchored` and `smoothed` ranges: the values at the ends of the window come from samples around them, so that nothing is
//! extrapolated and the increases of neighbouring windows add up.
//!
//! Shape: anchored, the last sample at or before the beginning is the value there. Smoothed, values at both ends lie on the
//!        line between their neighbours. Samples reach one lookback beyond the window, ahead of it only for smoothed.

use std::sync::Arc;

use super::super::exec::Here;
use super::super::histogram::{Hint, Histogram};
use super::super::value::Cell;
use super::mixed;
use crate::store::Sample;

/// What a window and its surroundings hold.
pub struct Edged<'a> {
    pub samples: &'a [Sample],
    pub histograms: &'a [(i64, Arc<Histogram>)],
    pub from_ms: i64,
    pub to_ms: i64,
    pub smoothed: bool,
    pub metric: &'a str,
    pub here: Here<'a>,
}

/// Which samples count: the first one may lie before the window, the last one (smoothed) behind it.
fn within(times: &[i64], window: &Edged<'_>) -> Option<(usize, usize)> {
    let last = times.len().checked_sub(1)?;
    let first = times[..last].partition_point(|at| *at <= window.from_ms).saturating_sub(1);
    let last = if window.smoothed { times[..last].partition_point(|at| *at < window.to_ms) } else { last };
    let outside = times[last] <= window.from_ms || (window.smoothed && times[first] > window.to_ms);
    (!outside).then_some((first, last))
}

/// The value of the function of this name; those that take such ranges are known to the parser.
pub fn cell(name: &str, window: &Edged<'_>) -> Option<Cell> {
    let counted = match name {
        "changes" => Some(mixed::has_changed as fn(&Cell, &Cell) -> bool),
        "resets" => Some(mixed::has_reset as fn(&Cell, &Cell) -> bool),
        _ => None,
    };
    if let Some(counted) = counted {
        let cells = mixed::by_time(window.samples.iter().copied(), window.histograms);
        let times: Vec<i64> = cells.iter().map(|(at_ms, _)| *at_ms).collect();
        let (first, _) = within(&times, window)?;
        let pairs = cells[first..].windows(2).filter(|pair| counted(&pair[0].1, &pair[1].1));
        return Some(Cell::Float(pairs.count() as f64));
    }
    let counter = name != "delta";
    let seconds = if name == "rate" { (window.to_ms - window.from_ms) as f64 / 1000.0 } else { 1.0 };
    match (window.samples.is_empty(), window.histograms.is_empty()) {
        (false, false) => {
            window.here.warn(&mixed::mix_text(window.metric));
            None
        }
        (false, true) => increase(window, counter).map(|value| Cell::Float(value / seconds)),
        (true, _) => {
            let histogram = histogram_increase(window, counter)?.divide(seconds);
            Some(Cell::Histogram(Arc::new(Histogram { hint: Hint::Gauge, ..histogram }.compact())))
        }
    }
}

/// On the line between two samples. A counter that fell began anew at once after the first one for the left end, and only
/// at the second one for the right end.
fn between(a: &Sample, b: &Sample, at_ms: i64, counter: bool, left: bool) -> f64 {
    let (mut start, mut end) = (a.value, b.value);
    if counter && end < start {
        if left { start = 0.0 } else { end += start }
    }
    start + (end - start) * (at_ms - a.timestamp_ms) as f64 / (b.timestamp_ms - a.timestamp_ms) as f64
}

fn ends(samples: &[Sample], (first, last): (usize, usize), window: &Edged<'_>, counter: bool) -> (f64, f64) {
    let left = match window.smoothed && samples[first].timestamp_ms < window.from_ms && first < last {
        true => between(&samples[first], &samples[first + 1], window.from_ms, counter, true),
        false => samples[first].value,
    };
    let right = match window.smoothed && samples[last].timestamp_ms > window.to_ms && last > 0 {
        true => between(&samples[last - 1], &samples[last], window.to_ms, counter, false),
        false => samples[last].value,
    };
    (left, right)
}

/// The samples between the two ends.
fn inner<'a>(samples: &'a [Sample], (first, last): (usize, usize), window: &Edged<'_>) -> &'a [Sample] {
    let from = first + usize::from(samples[first].timestamp_ms <= window.from_ms);
    let to = last + usize::from(samples[last].timestamp_ms < window.to_ms);
    if from < to { &samples[from..to] } else { &[] }
}

fn increase(window: &Edged<'_>, counter: bool) -> Option<f64> {
    let samples = window.samples;
    let times: Vec<i64> = samples.iter().map(|sample| sample.timestamp_ms).collect();
    let range = within(&times, window)?;
    let (left, right) = ends(samples, range, window, counter);
    let mut increase = right - left;
    if counter {
        let mut before = left;
        for value in inner(samples, range, window).iter().map(|sample| sample.value).chain([right]) {
            if value < before {
                increase += before;
            }
            before = value;
        }
    }
    Some(increase)
}

/// What `foo[5m] anchored` alone gives: samples at both ends of the window and those between.
pub fn extended(window: &Edged<'_>) -> Vec<Sample> {
    let samples = window.samples;
    let times: Vec<i64> = samples.iter().map(|sample| sample.timestamp_ms).collect();
    let Some(range) = within(&times, window) else { return Vec::new() };
    let (left, right) = ends(samples, range, window, false);
    let mut all = vec![Sample { timestamp_ms: window.from_ms, value: left }];
    all.extend_from_slice(inner(samples, range, window));
    all.push(Sample { timestamp_ms: window.to_ms, value: right });
    all
}

/// `foo smoothed` at one time: the sample there, the line between its neighbours, or the last one before.
pub fn smoothed_at(samples: &[Sample], at_ms: i64) -> Option<f64> {
    let next = samples.partition_point(|sample| sample.timestamp_ms < at_ms);
    match (next.checked_sub(1).map(|before| &samples[before]), samples.get(next)) {
        (_, Some(there)) if there.timestamp_ms == at_ms => Some(there.value),
        (Some(before), Some(after)) => Some(between(before, after, at_ms, false, false)),
        (Some(before), None) => Some(before.value),
        (None, _) => None,
    }
}

type Timed = (i64, Arc<Histogram>);

fn histogram_between(a: &Timed, b: &Timed, at_ms: i64, counter: bool, window: &Edged<'_>) -> Option<Histogram> {
    if at_ms == a.0 || at_ms == b.0 {
        return Some((*if at_ms == a.0 { &a.1 } else { &b.1 }).as_ref().clone());
    }
    let part = (at_ms - a.0) as f64 / (b.0 - a.0) as f64;
    if counter && b.1.is_reset_after(&a.1) {
        return Some((*b.1).clone().scale(part));
    }
    let difference = combined(&b.1, &a.1, false, window)?.scale(part);
    let mut sum = combined(&difference, &a.1, true, window)?;
    sum.hint = b.1.hint;
    Some(sum)
}

fn combined(a: &Histogram, b: &Histogram, adds: bool, window: &Edged<'_>) -> Option<Histogram> {
    let result = if adds { a.add(b) } else { a.subtract(b) };
    let Ok((histogram, remarks)) = result else {
        window.here.warn(&mixed::wrong_pair_text(window.metric));
        return None;
    };
    if remarks.bounds_differ {
        let operation = if adds { "addition" } else { "subtraction" };
        window.here.info(&format!("mismatched custom buckets were reconciled during {operation}"));
    }
    Some(histogram)
}

fn histogram_increase(window: &Edged<'_>, counter: bool) -> Option<Histogram> {
    let all = window.histograms;
    let times: Vec<i64> = all.iter().map(|(at_ms, _)| *at_ms).collect();
    let (first, last) = within(&times, window)?;
    let used = &all[first..=last];
    if used.iter().any(|(_, histogram)| histogram.is_custom() != used[0].1.is_custom()) {
        window.here.warn(&mixed::wrong_pair_text(window.metric));
        return None;
    }
    if counter && used.iter().any(|(_, histogram)| histogram.hint == Hint::Gauge) {
        window.here.warn(&mixed::no_counter_text(window.metric));
    }
    let left = match window.smoothed && times[first] < window.from_ms && first < last {
        true => histogram_between(&all[first], &all[first + 1], window.from_ms, counter, window)?,
        false => (*all[first].1).clone(),
    };
    let right = match window.smoothed && times[last] > window.to_ms && last > 0 {
        true => histogram_between(&all[last - 1], &all[last], window.to_ms, counter, window)?,
        false => (*all[last].1).clone(),
    };
    if !counter && (left.hint != Hint::Gauge || right.hint != Hint::Gauge) {
        window.here.warn(&mixed::no_gauge_text(window.metric));
    }
    let mut increase = combined(&right, &left, false, window)?;
    if !counter {
        return Some(increase);
    }
    // The left end stands for the first sample, and for the second one too where the line to it crossed a reset. The right
    // end stands for the last sample: with its hint, which would tell of one reset twice.
    let mut before = &left;
    let mut from = first + 1;
    if window.smoothed
        && times[first] < window.from_ms
        && first < last
        && all[first + 1].1.is_reset_after(&all[first].1)
    {
        before = &all[first + 1].1;
        from += 1;
    }
    if from > last {
        return Some(increase);
    }
    let between = all[from..last].iter().map(|(_, histogram)| &**histogram).chain([&right]);
    for histogram in between {
        if histogram.is_reset_after(before) {
            increase = combined(&increase, before, true, window)?;
        }
        before = histogram;
    }
    Some(increase)
}
