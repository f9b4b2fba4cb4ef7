//! Selectors that are `anchored` or `smoothed`: they look beyond the ends of their range.

use crate::query::QueryError;
use crate::query::functions::edges::{Edged, cell, extended, smoothed_at};
use crate::query::plan::{Edges, Selector};
use crate::query::value::{Points, Row, Steps, absent};
use crate::store::{METRIC_NAME, Sample, Select};

use lampad_proto::is_stale;

use super::selector::{Ranged, map_rows};
use super::window::within;
use super::{Eval, Here};

impl Eval<'_> {
    /// How far samples before and behind the range count, in milliseconds.
    pub fn beyond(&self, edges: Edges) -> (i64, i64) {
        match edges {
            Edges::Plain => (0, 0),
            Edges::Anchored => (self.lookback_ms, 0),
            Edges::Smoothed => (self.lookback_ms, self.lookback_ms),
        }
    }

    /// One row per series, under its own labels, name included.
    pub fn edged_windows(
        &self,
        function: &str,
        ranged: Ranged,
        here: Here<'_>,
        steps: Steps,
    ) -> Result<Vec<Row>, QueryError> {
        let Ranged { points, ends, range_ms, edges } = ranged;
        let (before_ms, after_ms) = self.beyond(edges);
        self.take_rows(points.len(), steps)?;
        let rows = map_rows(points, steps.count * 8, |points| {
            let metric = points.labels.get(METRIC_NAME).cloned().unwrap_or_else(|| "".into());
            let mut row = Row::blank(points.labels, steps.count).dropping(points.drop_name);
            let samples: Vec<Sample> = points.samples.iter().collect();
            for (step, step_ms) in steps.iter().enumerate() {
                if step & 0xff == 0 && self.budget.check().is_err() {
                    break; // the check after the loop tells why
                }
                let to_ms = ends.at(step_ms);
                let from_ms = to_ms - range_ms;
                let (first_ms, last_ms) = (from_ms - before_ms, to_ms + after_ms);
                let window = Edged {
                    samples: within(&samples, first_ms, last_ms, |sample| sample.timestamp_ms),
                    histograms: within(&points.histograms, first_ms, last_ms, |(at_ms, _)| *at_ms),
                    from_ms,
                    to_ms,
                    smoothed: edges == Edges::Smoothed,
                    metric: &metric,
                    here,
                };
                self.notes.count_samples((window.samples.len() + window.histograms.len()) as u64);
                row.set(step, cell(function, &window));
            }
            row
        });
        self.budget.check()?;
        Ok(rows.into_iter().filter(Row::has_any).collect())
    }

    /// The samples of a range that is asked for by itself.
    pub fn edged_points(&self, ranged: Ranged, here: Here<'_>, at_ms: i64) -> Vec<Points> {
        let Ranged { points, ends, range_ms, edges } = ranged;
        let to_ms = ends.at(at_ms);
        let from_ms = to_ms - range_ms;
        let extend = |mut points: Points| {
            let samples: Vec<Sample> = points.samples.iter().collect();
            let window = Edged {
                samples: &samples,
                histograms: &[],
                from_ms,
                to_ms,
                smoothed: edges == Edges::Smoothed,
                metric: "",
                here,
            };
            points.samples = extended(&window).into_iter().collect();
            points.histograms.retain(|(at_ms, _)| *at_ms > from_ms && *at_ms <= to_ms);
            points
        };
        points.into_iter().map(extend).collect()
    }

    /// An instant selector that is smoothed: cells between two samples lie on the line between them.
    pub fn smoothed_rows(&self, selector: &Selector, steps: Steps) -> Result<Vec<Row>, QueryError> {
        if steps.count == 0 {
            return Ok(Vec::new());
        }
        let ends = self.ends(&selector.shift)?;
        let (first_ms, last_ms) = ends.span(steps);
        let lookback_ms = self.lookback_ms;
        let select = Select::Range { from_ms: first_ms - lookback_ms + 1, to_ms: last_ms + lookback_ms };
        let series = self.fetch(selector, select)?;
        if series.iter().any(|series| !series.histograms.is_empty()) {
            return Err(QueryError::execution("smoothed and anchored modifiers do not work with native histograms"));
        }
        self.take_rows(series.len(), steps)?;
        let rows = map_rows(series, steps.count, |series| {
            let live = series.floats.iter().filter(|sample| !is_stale(sample.value));
            let live: Vec<Sample> = live.collect();
            let cells = steps.iter().map(|step_ms| {
                let at_ms = ends.at(step_ms);
                let near = within(&live, at_ms - lookback_ms, at_ms + lookback_ms, |s| s.timestamp_ms);
                smoothed_at(near, at_ms).unwrap_or_else(absent)
            });
            let cells = cells.collect();
            Row::new(series.labels, cells)
        });
        Ok(rows.into_iter().filter(Row::has_any).collect())
    }
}
