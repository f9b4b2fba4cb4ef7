//! Functions over windows of series with native histograms, alone or among numbers.

use std::sync::Arc;

use super::super::histogram::{Hint, Histogram, Remarks, Total};
use super::super::value::Cell;
use super::{Floats, Mixed, over_time, rate};
use crate::store::Sample;

impl Mixed<'_> {
    /// What functions of numbers say when histograms lie among them.
    pub fn note_ignored(&self) {
        let text = "ignored histograms in a range containing both floats and histograms for metric name";
        self.here.info(&format!("{text} {:?}", self.metric));
    }

    fn warn_mix(&self) {
        self.here.warn(&mix_text(self.metric));
    }

    /// Whether there are both; that is said in a warning.
    fn is_mix(&self) -> bool {
        let is_mix = !self.floats.times.is_empty() && !self.histograms.is_empty();
        if is_mix {
            self.warn_mix();
        }
        is_mix
    }

    fn remark(&self, remarks: Remarks, operation: &str) {
        // Samples that contradict each other on resets are what a counter with resets looks like.
        self.here.remark(Remarks { resets_collide: false, ..remarks }, operation);
    }

    /// All samples by time.
    fn cells(&self) -> Vec<(i64, Cell)> {
        by_time(self.floats.samples(), self.histograms)
    }
}

pub fn by_time(samples: impl Iterator<Item = Sample>, histograms: &[(i64, Arc<Histogram>)]) -> Vec<(i64, Cell)> {
    let floats = samples.map(|sample| (sample.timestamp_ms, Cell::Float(sample.value)));
    let histograms = histograms.iter().map(|(at_ms, histogram)| (*at_ms, Cell::Histogram(histogram.clone())));
    let mut all: Vec<_> = floats.chain(histograms).collect();
    all.sort_by_key(|(at_ms, _)| *at_ms);
    all
}

pub fn mix_text(metric: &str) -> String {
    format!("encountered a mix of histograms and floats for metric name {metric:?}")
}

pub fn wrong_pair_text(metric: &str) -> String {
    let text = "vector contains a mix of histograms with exponential and custom buckets schemas for metric name";
    format!("{text} {metric:?}")
}

pub fn no_counter_text(metric: &str) -> String {
    format!("this native histogram metric is not a counter: {metric:?}")
}

pub fn no_gauge_text(metric: &str) -> String {
    format!("this native histogram metric is not a gauge: {metric:?}")
}

fn histogram(histogram: Histogram) -> Option<Cell> {
    Some(Cell::Histogram(Arc::new(histogram)))
}

pub fn count(window: &Mixed<'_>) -> Option<Cell> {
    Some(Cell::Float((window.floats.times.len() + window.histograms.len()) as f64))
}

pub fn first(window: &Mixed<'_>) -> Option<Cell> {
    window.cells().into_iter().next().map(|(_, cell)| cell)
}

pub fn last(window: &Mixed<'_>) -> Option<Cell> {
    window.cells().pop().map(|(_, cell)| cell)
}

pub fn time_of_first(window: &Mixed<'_>) -> Option<Cell> {
    window.cells().first().map(|(at_ms, _)| Cell::Float(*at_ms as f64 / 1000.0))
}

pub fn time_of_last(window: &Mixed<'_>) -> Option<Cell> {
    window.cells().last().map(|(at_ms, _)| Cell::Float(*at_ms as f64 / 1000.0))
}

pub fn changes(window: &Mixed<'_>) -> Option<Cell> {
    let cells = window.cells();
    Some(Cell::Float(cells.windows(2).filter(|pair| has_changed(&pair[0].1, &pair[1].1)).count() as f64))
}

pub fn has_changed(before: &Cell, after: &Cell) -> bool {
    match (before, after) {
        (Cell::Float(before), Cell::Float(after)) => before != after && !(before.is_nan() && after.is_nan()),
        (before, after) => before != after,
    }
}

pub fn resets(window: &Mixed<'_>) -> Option<Cell> {
    let cells = window.cells();
    Some(Cell::Float(cells.windows(2).filter(|pair| has_reset(&pair[0].1, &pair[1].1)).count() as f64))
}

/// A change of type is a reset too.
pub fn has_reset(before: &Cell, after: &Cell) -> bool {
    match (before, after) {
        (Cell::Float(before), Cell::Float(after)) => after < before,
        (Cell::Histogram(before), Cell::Histogram(after)) => after.is_reset_after(before),
        _ => true,
    }
}

fn total(window: &Mixed<'_>) -> Option<Total> {
    let mut total = Total::default();
    for (_, histogram) in window.histograms {
        if total.add(histogram).is_err() {
            window.here.warn(&wrong_pair_text(window.metric));
            return None;
        }
    }
    window.here.remark(total.remarks, "aggregation");
    Some(total)
}

pub fn sum(window: &Mixed<'_>) -> Option<Cell> {
    match (window.is_mix(), window.histograms.is_empty()) {
        (true, _) => None,
        (false, true) => over_time::sum(&window.floats).map(Cell::Float),
        (false, false) => histogram(total(window)?.sum()?),
    }
}

pub fn avg(window: &Mixed<'_>) -> Option<Cell> {
    match (window.is_mix(), window.histograms.is_empty()) {
        (true, _) => None,
        (false, true) => over_time::avg(&window.floats).map(Cell::Float),
        (false, false) => histogram(total(window)?.mean()?),
    }
}

pub fn rate(window: &Mixed<'_>) -> Option<Cell> {
    let seconds = (window.floats.to_ms - window.floats.from_ms) as f64 / 1000.0;
    extrapolated(window, true, seconds, rate::rate)
}

pub fn increase(window: &Mixed<'_>) -> Option<Cell> {
    extrapolated(window, true, 1.0, rate::increase)
}

pub fn delta(window: &Mixed<'_>) -> Option<Cell> {
    extrapolated(window, false, 1.0, rate::delta)
}

fn extrapolated(window: &Mixed<'_>, counter: bool, seconds: f64, of_floats: Floats) -> Option<Cell> {
    if window.is_mix() {
        return None;
    }
    let [first, .., last] = window.histograms else {
        return of_floats(&window.floats).map(Cell::Float);
    };
    let difference = difference(window, counter)?;
    let span = rate::Span {
        first_ms: first.0,
        last_ms: last.0,
        samples: window.histograms.len(),
        from_ms: window.floats.from_ms,
        to_ms: window.floats.to_ms,
    };
    let grows = counter && difference.count > 0.0 && first.1.count >= 0.0;
    let factor = span.factor(grows.then(|| first.1.count / difference.count));
    histogram(difference.scale(factor / seconds))
}

/// What was added from the first to the last histogram, resets made good where it is a counter.
fn difference(window: &Mixed<'_>, counter: bool) -> Option<Histogram> {
    let all = window.histograms;
    let [(_, first), (_, second), ..] = all else { return None };
    let (_, last) = all.last()?;
    if counter && all.iter().any(|(_, histogram)| histogram.hint == Hint::Gauge) {
        window.here.warn(&no_counter_text(window.metric));
    } else if !counter && (first.hint != Hint::Gauge || last.hint != Hint::Gauge) {
        window.here.warn(&no_gauge_text(window.metric));
    }
    // With a reset right after it the first sample does not matter, and its buckets need not fit.
    let skipped = counter && second.is_reset_after(first);
    let nothing = Histogram { schema: second.schema, bounds: second.bounds.clone(), ..Histogram::default() };
    let mut before: &Histogram = if skipped { &nothing } else { first };
    let between = if counter { &all[1..] } else { &all[all.len() - 1..] };
    if between.iter().any(|(_, histogram)| histogram.is_custom() != before.is_custom()) {
        window.here.warn(&wrong_pair_text(window.metric));
        return None;
    }
    let schema = between.iter().map(|(_, histogram)| histogram.schema).fold(before.schema, i32::min);
    let (mut sum, remarks) = last.to_schema(schema).subtract(before).ok()?;
    window.remark(remarks, "subtraction");
    for (_, histogram) in between.iter().filter(|_| counter) {
        if histogram.is_reset_after(before) {
            let (added, remarks) = sum.add(before).ok()?;
            window.remark(remarks, "addition");
            sum = added;
        }
        before = histogram;
    }
    sum.hint = Hint::Gauge;
    Some(sum.compact())
}

pub fn irate(window: &Mixed<'_>) -> Option<Cell> {
    last_two(window, true, rate::irate)
}

pub fn idelta(window: &Mixed<'_>) -> Option<Cell> {
    last_two(window, false, rate::idelta)
}

fn last_two(window: &Mixed<'_>, counter: bool, of_floats: Floats) -> Option<Cell> {
    let cells = window.cells();
    let [.., (before_ms, before), (last_ms, last)] = cells.as_slice() else { return None };
    let (before, last) = match (before, last) {
        (Cell::Histogram(before), Cell::Histogram(last)) => (before, last),
        (Cell::Float(_), Cell::Float(_)) => return of_floats(&window.floats).map(Cell::Float),
        _ => {
            window.warn_mix();
            return None;
        }
    };
    let gauges = [before, last].into_iter().filter(|histogram| histogram.hint == Hint::Gauge).count();
    match counter {
        true if gauges > 0 => window.here.warn(&no_counter_text(window.metric)),
        false if gauges < 2 => window.here.warn(&no_gauge_text(window.metric)),
        _ => {}
    }
    let mut difference = (**last).clone();
    if !counter || !last.is_reset_after(before) {
        let Ok((found, remarks)) = last.subtract(before) else {
            window.here.warn(&wrong_pair_text(window.metric));
            return None;
        };
        window.remark(remarks, "subtraction");
        difference = found;
    }
    difference.hint = Hint::Gauge;
    let seconds = (last_ms - before_ms) as f64 / 1000.0;
    histogram(if counter { difference.compact().divide(seconds) } else { difference.compact() })
}
