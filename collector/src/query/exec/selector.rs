//! Samples from the store: the last one before each step, or all of a range.

use std::sync::Arc;

use lampad_proto::is_stale;
use rayon::prelude::*;

use crate::query::QueryError;
use crate::query::histogram::{Hint, Histogram};
use crate::query::plan::{At, Edges, Expr, Selector, Shift};
use crate::query::value::{Cell, Points, Row, Steps, absent, is_absent, is_float, stored};
use crate::store::{Sample, Select, Series};

use super::Eval;

/// Where a selector looks at a step.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// `@`: the same time for every step.
    fixed_ms: Option<i64>,
    offset_ms: i64,
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
        let converted = found.iter().flat_map(|series| distinct(&series.histograms));
        self.budget.take_bytes(converted.map(|(_, histogram)| Histogram::bytes_of(histogram)).sum())?;
        Ok(found)
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
        cell: impl Fn(&Sample) -> f64 + Send + Sync,
        histogram_cell: impl Fn(i64, Arc<Histogram>) -> Cell + Send + Sync,
    ) -> Result<Vec<Row>, QueryError> {
        if steps.count == 0 {
            return Ok(Vec::new());
        }
        let ends = self.ends(&selector.shift)?;
        let (first_ms, last_ms) = ends.span(steps);
        // The window is open on the left: a sample exactly one lookback old is gone.
        let from_ms = first_ms - self.lookback_ms + 1;
        let select = if first_ms == last_ms {
            Select::Last { from_ms, to_ms: last_ms }
        } else {
            Select::Range { from_ms, to_ms: last_ms }
        };
        let mut series = self.fetch(selector, select)?;
        self.add_thinned(selector, (from_ms, last_ms), &mut series)?;
        self.take_rows(series.len(), steps)?;
        let rows = map_rows(series, steps.count, |series| {
            let samples = &series.floats;
            let mut next = 0;
            let mut cells = Vec::with_capacity(steps.count);
            for step_ms in steps.iter() {
                let at_ms = ends.at(step_ms);
                while next < samples.len() && samples[next].timestamp_ms <= at_ms {
                    next += 1;
                }
                let seen = next.checked_sub(1).map(|index| &samples[index]);
                let live = seen.filter(|s| s.timestamp_ms > at_ms - self.lookback_ms && !is_stale(s.value));
                cells.push(live.map_or_else(absent, &cell));
            }
            let mut row = Row::new(series.labels, cells);
            let histograms = converted(&series.histograms);
            let mut next = 0;
            for (step, step_ms) in steps.iter().enumerate().filter(|_| !histograms.is_empty()) {
                let at_ms = ends.at(step_ms);
                while next < histograms.len() && histograms[next].0 <= at_ms {
                    next += 1;
                }
                let Some((seen_ms, histogram)) = next.checked_sub(1).map(|index| &histograms[index]) else { continue };
                let float = samples.partition_point(|sample| sample.timestamp_ms <= at_ms).checked_sub(1);
                let is_last = float.is_none_or(|index| samples[index].timestamp_ms < *seen_ms);
                if is_last && *seen_ms > at_ms - self.lookback_ms {
                    let live = !is_stale(histogram.sum);
                    row.set(step, live.then(|| histogram_cell(*seen_ms, histogram.clone())));
                }
            }
            row
        });
        let rows: Vec<Row> = rows.into_iter().filter(Row::has_any).collect();
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
                let points = self.fetch(selector, select)?.into_iter().map(|mut series| {
                    if series.floats.iter().any(|sample| is_stale(sample.value)) {
                        series.floats.retain(|sample| !is_stale(sample.value));
                    }
                    let mut histograms = converted(&series.histograms);
                    histograms.retain(|(_, histogram)| !is_stale(histogram.sum));
                    Points { labels: series.labels, samples: series.floats, histograms, drop_name: false }
                });
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
