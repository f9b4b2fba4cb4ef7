//! Slides a window along each series' samples and lets a function make one cell per step.

use std::ops::Range;

use crate::query::functions::{Extrapolation, Floats, Function, Histograms, Mixed, Window};
use crate::query::length::Length;
use crate::query::plan::{Edges, Place, Selector};
use crate::query::value::{Cell, Points, Row, Steps, absent, is_float, stored};
use crate::query::{Expr, QueryError};
use crate::store::Select;

use super::aggregate::check_quantile;
use super::pace::{ByStep, Pace};
use super::selector::{Ends, Ranged, map_rows, points_of};
use super::sliding::Sliding;
use super::{Eval, Here};

impl Eval<'_> {
    pub fn over_windows(
        &self,
        function: &Function,
        body: Floats,
        mixed: Option<Histograms>,
        range: &Expr,
        (args, places): (&[Vec<f64>], &[Place]),
        steps: Steps,
    ) -> Result<Vec<Row>, QueryError> {
        if steps.count == 0 {
            return Ok(Vec::new());
        }
        // Prometheus takes the first argument's place, which is the range with all functions but one.
        let here = match (function.name, places.first()) {
            ("quantile_over_time", Some(place)) => self.notes.at(*place),
            _ => self.notes.at(place_of(range)),
        };
        let is_smoothing = function.name == "double_exponential_smoothing";
        let raw = |steps: Steps| {
            if let Expr::Range { selector, range } = range.without_parens()
                && selector.edges == Edges::Plain
                && !is_smoothing
            {
                return self.windows_of_series((function, body, mixed), (selector, range), args, here, steps);
            }
            let ranged = self.ranged(range, steps)?;
            if is_smoothing && !ranged.points.is_empty() {
                check_factors(args)?;
            }
            match ranged.edges {
                Edges::Plain => self.windows_of(body, mixed, ranged, args, here, steps),
                _ => self.edged_windows(function.name, ranged, here, steps),
            }
        };
        let rows = match self.by_tier(function, range, steps, here, &raw)? {
            Some(rows) => rows,
            None => raw(steps)?,
        };
        if function.name == "quantile_over_time" {
            let looked_at = |step: usize| rows.iter().any(|row| is_float(row.cells[step]));
            let qs = args.iter().flat_map(|qs| qs.iter().enumerate());
            let at_q = self.notes.at(places.first().copied().unwrap_or_default());
            qs.filter(|(step, _)| looked_at(*step)).for_each(|(_, q)| check_quantile(*q, at_q));
        }
        if function.wants_counter() {
            self.note_gauges(&rows, here);
        }
        if function.keeps_name() {
            return Ok(rows);
        }
        self.nameless(rows)
    }

    /// One row per series, under its own labels, name included.
    pub fn windows_of(
        &self,
        body: Floats,
        mixed: Option<Histograms>,
        ranged: Ranged,
        args: &[Vec<f64>],
        here: Here<'_>,
        steps: Steps,
    ) -> Result<Vec<Row>, QueryError> {
        let Ranged { points, ends, range_ms, .. } = ranged;
        self.take_rows(points.len(), steps)?;
        self.take_windows(steps)?;
        let by_step = self.by_step(args, steps)?;
        let windows = Windows { body, mixed, ends, range_ms, by_step: &by_step, here, steps };
        let rows = map_rows(points, steps.count * 8, |points| self.row_of(&points, &windows, &mut Sliding::default()));
        self.budget.check()?;
        rows.into_iter().filter(|row| row.as_ref().map_or(true, Row::has_any)).collect()
    }

    /// The same of a range selector: each series is done with as soon as it is read.
    fn windows_of_series(
        &self,
        (function, body, mixed): (&Function, Floats, Option<Histograms>),
        (selector, range): (&Selector, &Length),
        args: &[Vec<f64>],
        here: Here<'_>,
        steps: Steps,
    ) -> Result<Vec<Row>, QueryError> {
        let (ends, range_ms) = (self.ends(&selector.shift)?, self.positive_ms(range)?);
        let (first_ms, last_ms) = ends.span(steps);
        self.note_gone(first_ms - range_ms, selector.place);
        self.take_windows(steps)?;
        let by_step = self.by_step(args, steps)?;
        let windows = Windows { body, mixed, ends, range_ms, by_step: &by_step, here, steps };
        let (from_ms, to_ms) = (first_ms - range_ms + 1, last_ms);
        let select = match function.works_on_changes() {
            true => Select::Changes { from_ms, to_ms },
            false => Select::Range { from_ms, to_ms },
        };
        let rows = self.each_series(selector, select, |series, sliding| {
            self.take_rows(1, steps)?;
            let points = points_of(series);
            let row = self.row_of(&points, &windows, sliding)?;
            // Whoever reads the next series has use for the memory.
            series.floats = points.samples;
            Ok(Some(row).filter(Row::has_any))
        })?;
        self.budget.check()?;
        Ok(rows)
    }

    fn row_of(&self, points: &Points, windows: &Windows<'_>, sliding: &mut Sliding) -> Result<Row, QueryError> {
        if !points.histograms.is_empty() {
            return self.mixed_windows(points, windows);
        }
        let Windows { body, ends, range_ms, by_step, steps, .. } = *windows;
        // With `@` every step sees the same window; only arguments and the step's own time can make cells differ.
        let once = ends.is_fixed() && by_step.has_none();
        let (times, (values, ends_of_stretches)) = (points.samples.times(), points.samples.stretches());
        let mut stretches = Stretches::new(ends_of_stretches);
        let mut cells = vec![absent(); steps.count];
        let mut drops = Drops::of(values);
        let mut looked_at = 0;
        let extrapolation = Extrapolation::default();
        let mut pace = Pace::new(self.budget);
        for (step, (cell, within)) in cells.iter_mut().zip(sliding.over(times, ends, range_ms, steps)).enumerate() {
            // What was looked at in the last window, and 64 for the step itself: it is seen each 256 short windows.
            if pace.work(within.len() + 64).is_err() {
                break; // whoever gathers the rows looks at the budget once more
            }
            let step_ms = steps.at(step);
            let to_ms = ends.at(step_ms);
            let from_ms = to_ms - range_ms;
            if within.is_empty() {
                continue;
            }
            looked_at += within.len() as u64;
            let (args, extrapolation) = (by_step.at(step), &extrapolation);
            let stretch = stretches.over(within);
            let grows = drops.before(stretch.end) <= stretch.start;
            let (times, values) = (&times[within.clone()], &values[stretch]);
            let window = Window { times, values, from_ms, to_ms, step_ms, args, grows, extrapolation };
            if let Some(value) = body(&window) {
                *cell = stored(value);
            }
            if once {
                break;
            }
        }
        self.notes.count_samples(looked_at);
        if once {
            let first = cells[0];
            cells.fill(first);
        }
        Ok(Row::new(points.labels.clone(), cells).dropping(points.drop_name))
    }

    /// As [`Self::row_of`], for a series with histograms.
    fn mixed_windows(&self, points: &Points, windows: &Windows<'_>) -> Result<Row, QueryError> {
        let metric = points.labels.metric().map_or("", |name| name);
        let mut row = Row::blank(points.labels.clone(), windows.steps.count).dropping(points.drop_name);
        for step in 0..windows.steps.count {
            self.budget.check()?;
            let step_ms = windows.steps.at(step);
            let to_ms = windows.ends.at(step_ms);
            let from_ms = to_ms - windows.range_ms;
            let within_floats = points.samples.within(from_ms, to_ms);
            let (times, values) =
                (&points.samples.times()[within_floats.clone()], &points.samples.values()[within_floats]);
            let histograms = within(&points.histograms, from_ms, to_ms, |(at_ms, _)| *at_ms);
            if times.is_empty() && histograms.is_empty() {
                continue;
            }
            self.notes.count_samples((times.len() + histograms.len()) as u64);
            let (args, grows) = (windows.by_step.at(step), false);
            let extrapolation = &Extrapolation::default();
            let floats = Window { times, values, from_ms, to_ms, step_ms, args, grows, extrapolation };
            let window = Mixed { floats, histograms, metric, here: windows.here };
            let cell = match windows.mixed {
                Some(mixed) if !histograms.is_empty() => mixed(&window),
                _ => {
                    if !times.is_empty() && !histograms.is_empty() {
                        window.note_ignored();
                    }
                    if times.is_empty() { None } else { (windows.body)(&window.floats).map(Cell::Float) }
                }
            };
            if let Some(Cell::Histogram(histogram)) = &cell {
                self.budget.take_bytes(histogram.bytes())?;
            }
            row.set(step, cell);
        }
        Ok(row)
    }

    /// Names that do not look like a counter's: an info, as the result is likely not what was meant.
    fn note_gauges(&self, rows: &[Row], here: Here<'_>) {
        const ENDINGS: [&str; 4] = ["_total", "_sum", "_count", "_bucket"];
        let mut last = "";
        let of_numbers = |row: &&Row| !row.has_histograms() || row.cells.iter().any(|cell| is_float(*cell));
        for row in rows.iter().filter(of_numbers) {
            let Some(name) = row.labels.metric() else { continue };
            if self.features.type_and_unit_labels {
                let kind = row.labels.get("__type__").map_or("", |kind| kind);
                if !matches!(kind, "counter" | "histogram") {
                    let text =
                        "metric might not be a counter, __type__ label is not set to \"counter\" or \"histogram\"";
                    here.info(&format!("{text}, got {kind:?}: {name:?}"));
                }
            } else if **name != *last && !ENDINGS.iter().any(|ending| name.ends_with(ending)) {
                let text = "metric might not be a counter, name does not end in _total/_sum/_count/_bucket";
                here.info(&format!("{text}: {name:?}"));
            }
            last = name;
        }
    }
}

/// Where remarks on a range point to. Prometheus evaluates a subquery before the function, and has no place for its result.
pub fn place_of(range: &Expr) -> Place {
    match range.without_parens() {
        Expr::Subquery { .. } => Place { line: 1, column: 1 },
        range => range.place(),
    }
}

fn check_factors(args: &[Vec<f64>]) -> Result<(), QueryError> {
    for (name, factor) in ["smoothing", "trend"].into_iter().zip(args) {
        if let Some(bad) = factor.iter().find(|factor| **factor <= 0.0 || **factor >= 1.0) {
            let short = if name == "smoothing" { "sf" } else { "tf" };
            return Err(QueryError::execution(format!(
                "invalid {name} factor. Expected: 0 < {short} < 1, got: {bad:.6}"
            )));
        }
    }
    Ok(())
}

/// Where the windows of all steps lie, and what makes a cell of each.
struct Windows<'a> {
    body: Floats,
    mixed: Option<Histograms>,
    ends: Ends,
    range_ms: i64,
    by_step: &'a ByStep,
    here: Here<'a>,
    steps: Steps,
}

/// Which values lie in a window, where there is one for each stretch of equal ones; windows move on.
struct Stretches<'a> {
    /// Where each ends; none where each sample has a value of its own.
    ends: &'a [u32],
    from: usize,
    to: usize,
}

impl<'a> Stretches<'a> {
    fn new(ends: &'a [u32]) -> Self {
        Self { ends, from: 0, to: 0 }
    }

    /// Of the samples in a window, of which there is one at least.
    fn over(&mut self, within: &Range<usize>) -> Range<usize> {
        if self.ends.is_empty() {
            return within.clone();
        }
        while self.ends[self.from] as usize <= within.start {
            self.from += 1;
        }
        self.to = self.to.max(self.from);
        while (self.ends[self.to] as usize) < within.end {
            self.to += 1;
        }
        self.from..self.to + 1
    }
}

/// Where a series' values fall, from window to window.
struct Drops<'a> {
    values: &'a [f64],
    /// Looked at up to here.
    seen: usize,
    /// The last sample that is lower than the one before; 0 where there is none.
    last: usize,
}

impl<'a> Drops<'a> {
    fn of(values: &'a [f64]) -> Self {
        // All are looked at, so that several are at once: most counters never fall.
        let falls = values
            .iter()
            .zip(values.get(1..).unwrap_or_default())
            .fold(false, |any, (before, after)| any | (after < before));
        Self { values, seen: if falls { 1 } else { values.len() }, last: 0 }
    }

    /// The last one before this sample; windows move on.
    fn before(&mut self, to: usize) -> usize {
        while self.seen < to {
            if self.values[self.seen] < self.values[self.seen - 1] {
                self.last = self.seen;
            }
            self.seen += 1;
        }
        self.last
    }
}

/// What of an ascending list lies in `(from_ms, to_ms]`.
pub fn within<T>(list: &[T], from_ms: i64, to_ms: i64, time: impl Fn(&T) -> i64) -> &[T] {
    let from = list.partition_point(|item| time(item) <= from_ms);
    let to = list.partition_point(|item| time(item) <= to_ms);
    &list[from..to.max(from)]
}
