//! Samples from the store: the last one before each step, or all of a range.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use lampad_proto::is_stale;
use parking_lot::Mutex;
use rayon::prelude::*;

use crate::query::QueryError;
use crate::query::histogram::{Hint, Histogram};
use crate::query::plan::{At, Edges, Expr, Selector, Shift};
use crate::query::value::{Cell, Points, Row, Steps, absent, is_absent, is_float, stored};
use crate::store::{Floats, Sample, Select, Series};

use super::Eval;
use super::sliding::Sliding;

/// Where a selector looks at a step.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// `@`: the same time for every step.
    pub(super) fixed_ms: Option<i64>,
    pub(super) offset_ms: i64,
}

impl Ends {
    pub fn at(&self, step_ms: i64) -> i64 {
        self.fixed_ms.unwrap_or(step_ms) - self.offset_ms
    }

    pub fn is_fixed(&self) -> bool {
        self.fixed_ms.is_some()
    }

    /// First and last time looked at.
    pub fn span(&self, steps: Steps) -> (i64, i64) {
        (self.at(steps.start_ms), self.at(steps.end_ms()))
    }
}

/// A range expression's samples over all steps, and where each step's window lies in them.
pub struct Ranged {
    pub points: Vec<Points>,
    pub ends: Ends,
    pub range_ms: i64,
    pub edges: Edges,
}

/// From so many cells on, rows are worked on in parallel; below it, handing out costs more than it saves.
const PARALLEL_CELLS: usize = 1 << 14;

/// Maps rows in parallel where that pays.
pub fn map_rows<T: Send, U: Send>(items: Vec<T>, cells_each: usize, map: impl Fn(T) -> U + Send + Sync) -> Vec<U> {
    if items.len() > 1 && items.len() * cells_each.max(1) >= PARALLEL_CELLS {
        items.into_par_iter().map(map).collect()
    } else {
        items.into_iter().map(map).collect()
    }
}

impl Eval<'_> {
    pub fn ends(&self, shift: &Shift) -> Result<Ends, QueryError> {
        let fixed_ms = shift.at.map(|at| match at {
            At::Start => self.start_ms,
            At::End => self.end_ms,
            At::Ms(at_ms) => at_ms,
        });
        let offset = shift.offset.as_ref().map_or(Ok(0), |offset| offset.ms(self.scale()));
        Ok(Ends { fixed_ms, offset_ms: offset.map_err(QueryError::Bad)? })
    }

    pub fn fetch(&self, selector: &Selector, select: Select) -> Result<Vec<Series>, QueryError> {
        // In the store's order: whoever hands rows out sorts them, and most rows are never handed out.
        let found = self.source.select(&selector.matchers, select, self.budget)?;
        found.iter().try_for_each(|series| self.convertible(series))?;
        Ok(found)
    }

    /// Makes rows of series while others are read, in the store's order. What is made must be within the query's budget. What
    /// was found for a series is at hand for those that follow it.
    pub fn each_series(
        &self,
        selector: &Selector,
        select: Select,
        make: impl Fn(&mut Series, &mut Sliding) -> Result<Option<Row>, QueryError> + Sync,
    ) -> Result<Vec<Row>, QueryError> {
        let rows = Mutex::new(Vec::new());
        let failed = OnceLock::new();
        let read = self.source.select_each(&selector.matchers, select, self.budget, &|| {
            let mut sliding = Sliding::default();
            let (rows, failed, make) = (&rows, &failed, &make);
            Box::new(move |at, series| match self.convertible(series).and_then(|()| make(series, &mut sliding)) {
                Ok(row) => rows.lock().extend(row.map(|row| (at, row))),
                Err(error) => {
                    // The first one is told, and nothing more is read.
                    drop(failed.set(error));
                    self.budget.cancel();
                }
            })
        });
        if let Some(error) = failed.into_inner() {
            return Err(error);
        }
        read?;
        let mut rows = rows.into_inner();
        rows.sort_unstable_by_key(|(at, _)| *at);
        Ok(rows.into_iter().map(|(_, row)| row).collect())
    }

    /// Takes what a series' histograms take once they are converted.
    fn convertible(&self, series: &Series) -> Result<(), QueryError> {
        if series.histograms.is_empty() {
            return Ok(());
        }
        let bytes = distinct(&series.histograms).map(|(_, histogram)| Histogram::bytes_of(histogram)).sum();
        Ok(self.budget.take_bytes(bytes)?)
    }

    pub fn instant_rows(&self, selector: &Selector, steps: Steps) -> Result<Vec<Row>, QueryError> {
        if selector.edges == Edges::Smoothed {
            return self.smoothed_rows(selector, steps);
        }
        self.looked_back(selector, steps, |sample| stored(sample.value), |_, histogram| Cell::Histogram(histogram))
    }

    /// Times of the samples, in seconds, instead of their values.
    pub fn instant_times(&self, selector: &Selector, steps: Steps) -> Result<Vec<Row>, QueryError> {
        let seconds = |at_ms: i64| at_ms as f64 / 1000.0;
        self.looked_back(selector, steps, |sample| seconds(sample.timestamp_ms), |at_ms, _| Cell::Float(seconds(at_ms)))
    }

    fn looked_back(
        &self,
        selector: &Selector,
        steps: Steps,
        cell: impl Fn(Sample) -> f64 + Send + Sync,
        histogram_cell: impl Fn(i64, Arc<Histogram>) -> Cell + Send + Sync,
    ) -> Result<Vec<Row>, QueryError> {
        if steps.count == 0 {
            return Ok(Vec::new());
        }
        self.take_windows(steps)?;
        let ends = self.ends(&selector.shift)?;
        let (first_ms, last_ms) = ends.span(steps);
        // The window is open on the left: a sample exactly one lookback old is gone.
        let from_ms = first_ms - self.lookback_ms + 1;
        let select = if first_ms == last_ms {
            Select::Last { from_ms, to_ms: last_ms }
        } else {
            Select::Changes { from_ms, to_ms: last_ms }
        };
        let row = |series: &Series, sliding: &mut Sliding| {
            self.take_rows(1, steps)?;
            let windows = sliding.over(series.floats.times(), ends, self.lookback_ms, steps);
            let mut row = Row::new(series.labels.clone(), looked_back(&series.floats, windows, &cell));
            if !series.histograms.is_empty() {
                set_histograms(&mut row, series, ends, steps, self.lookback_ms, &histogram_cell);
            }
            Ok(Some(row).filter(Row::has_any))
        };
        let rows = match self.has_thinned(from_ms, last_ms) {
            false => self.each_series(selector, select, |series, sliding| row(series, sliding))?,
            true => {
                let mut series = self.fetch(selector, select)?;
                self.add_thinned(selector, (from_ms, last_ms), &mut series)?;
                let mut sliding = Sliding::default();
                let rows: Result<Vec<_>, QueryError> = series.iter().map(|series| row(series, &mut sliding)).collect();
                rows?.into_iter().flatten().collect()
            }
        };
        let present = |row: &Row| row.cells.iter().filter(|cell| !is_absent(**cell)).count() as u64;
        self.notes.count_samples(rows.iter().map(present).sum());
        Ok(rows)
    }

    /// Samples of a range selector or subquery over the windows of all steps.
    pub fn ranged(&self, expr: &Expr, steps: Steps) -> Result<Ranged, QueryError> {
        match expr.without_parens() {
            Expr::Range { selector, range } => {
                let ends = self.ends(&selector.shift)?;
                let range_ms = self.positive_ms(range)?;
                let (first_ms, last_ms) = ends.span(steps);
                let (before_ms, after_ms) = self.beyond(selector.edges);
                let select = Select::Range { from_ms: first_ms - range_ms - before_ms + 1, to_ms: last_ms + after_ms };
                self.note_gone(first_ms - range_ms, selector.place);
                let points = self.fetch(selector, select)?.into_iter().map(|mut series| points_of(&mut series));
                let points = points.filter(|p| !p.samples.is_empty() || !p.histograms.is_empty()).collect();
                Ok(Ranged { points, ends, range_ms, edges: selector.edges })
            }
            Expr::Subquery { inner, range, step, shift } => {
                let ends = self.ends(shift)?;
                let range_ms = self.positive_ms(range)?;
                let (first_ms, last_ms) = ends.span(steps);
                let step_ms = step.as_ref().map_or(Ok(self.subquery_step_ms), |step| self.positive_ms(step))?.max(1);
                // Steps of a subquery are multiples of its step, the first one inside the window that is open on the left.
                let start_ms = ((first_ms - range_ms).div_euclid(step_ms) + 1) * step_ms;
                let inner_steps = Steps::range(start_ms, last_ms, step_ms);
                // A series may have a sample at each of them, and columns of that length are made before it is known.
                self.budget.has_room(inner_steps.count as u64)?;
                let points = self.subquery_points(inner, inner_steps)?;
                Ok(Ranged { points, ends, range_ms, edges: Edges::Plain })
            }
            _ => Err(QueryError::execution("expected a range vector")),
        }
    }

    fn subquery_points(&self, inner: &Expr, steps: Steps) -> Result<Vec<Points>, QueryError> {
        if steps.count == 0 {
            return Ok(Vec::new());
        }
        let mut rows = match self.eval(inner, steps)? {
            super::Value::Rows(rows) => rows,
            super::Value::Scalar(cells) => vec![Row::new(crate::store::Labels::empty(), cells)],
            super::Value::Text(_) => return Err(QueryError::execution("a subquery over a string")),
        };
        self.budget.take((rows.len() as u64).saturating_mul(steps.count as u64))?;
        rows.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(map_rows(rows, steps.count, |row| {
            let at = || row.cells.iter().zip(steps.iter()).enumerate();
            let samples = at()
                .filter(|(_, (cell, _))| is_float(**cell))
                .map(|(_, (cell, timestamp_ms))| Sample { timestamp_ms, value: *cell })
                .collect();
            let histograms = match row.has_histograms() {
                true => at().filter_map(|(step, (_, at_ms))| Some((at_ms, unhinted(row.histogram(step)?)))).collect(),
                false => Vec::new(),
            };
            Points { labels: row.labels, samples, histograms, drop_name: row.drop_name }
        }))
    }
}

/// A series' samples as ranges have them: where it ended there is none. Takes them out of the series.
pub fn points_of(series: &mut Series) -> Points {
    drop_stale(&mut series.floats);
    if !series.histograms.is_empty() {
        series.floats.spread();
    }
    let mut histograms = converted(&series.histograms);
    histograms.retain(|(_, histogram)| !is_stale(histogram.sum));
    let samples = std::mem::take(&mut series.floats);
    Points { labels: series.labels.clone(), samples, histograms, drop_name: false }
}

fn drop_stale(floats: &mut Floats) {
    // All are looked at, so that several are at once.
    if floats.stretches().0.iter().fold(false, |any, value| any | is_stale(*value)) {
        floats.retain(|sample| !is_stale(sample.value));
    }
}

/// The last sample in each window, unless it says that the series ended.
fn looked_back(samples: &Floats, windows: &[Range<usize>], cell: impl Fn(Sample) -> f64) -> Vec<f64> {
    let last = |window: &Range<usize>| samples.get(window.clone().next_back()?);
    let live = |window: &Range<usize>| last(window).filter(|sample| !is_stale(sample.value));
    windows.iter().map(|window| live(window).map_or_else(absent, &cell)).collect()
}

/// The same of histograms, where they are newer than numbers.
fn set_histograms(
    row: &mut Row,
    series: &Series,
    ends: Ends,
    steps: Steps,
    lookback_ms: i64,
    histogram_cell: impl Fn(i64, Arc<Histogram>) -> Cell,
) {
    let times = series.floats.times();
    let histograms = converted(&series.histograms);
    let mut next = 0;
    for (step, step_ms) in steps.iter().enumerate() {
        let at_ms = ends.at(step_ms);
        while next < histograms.len() && histograms[next].0 <= at_ms {
            next += 1;
        }
        let Some((seen_ms, histogram)) = next.checked_sub(1).map(|index| &histograms[index]) else { continue };
        let float = times.partition_point(|time| *time <= at_ms).checked_sub(1);
        let is_last = float.is_none_or(|index| times[index] < *seen_ms);
        if is_last && *seen_ms > at_ms - lookback_ms {
            let live = !is_stale(histogram.sum);
            row.set(step, live.then(|| histogram_cell(*seen_ms, histogram.clone())));
        }
    }
}

/// A subquery may hand out one sample several times, or skip the one with the reset: only the counts tell of resets then.
fn unhinted(histogram: &Arc<Histogram>) -> Arc<Histogram> {
    match histogram.hint {
        Hint::Reset | Hint::NoReset => Arc::new(Histogram { hint: Hint::Unknown, ..(**histogram).clone() }),
        Hint::Unknown | Hint::Gauge => histogram.clone(),
    }
}

type Stored = (i64, Arc<lampad_proto::v1::Histogram>);

/// Those that are not the one before.
fn distinct(stored: &[Stored]) -> impl Iterator<Item = &Stored> {
    let same = |index: usize| index > 0 && Arc::ptr_eq(&stored[index - 1].1, &stored[index].1);
    stored.iter().enumerate().filter(move |(index, _)| !same(*index)).map(|(_, stored)| stored)
}

/// Stored histograms as queries compute with them; one that stays the same is converted once.
pub fn converted(stored: &[Stored]) -> Vec<(i64, Arc<Histogram>)> {
    let mut out: Vec<(i64, Arc<Histogram>)> = Vec::with_capacity(stored.len());
    for (index, (at_ms, histogram)) in stored.iter().enumerate() {
        let same = index.checked_sub(1).filter(|before| Arc::ptr_eq(&stored[*before].1, histogram));
        let histogram = match same {
            Some(before) => out[before].1.clone(),
            None => Arc::new(Histogram::new(histogram)),
        };
        out.push((*at_ms, histogram));
    }
    out
}
