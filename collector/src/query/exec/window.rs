//! Slides a window along each series' samples and lets a function make one cell per step.

use crate::query::functions::{Function, Window};
use crate::query::value::{Row, Steps, absent, without_name};
use crate::query::{Expr, QueryError};
use crate::store::METRIC_NAME;

use super::selector::{Ranged, map_rows};
use super::{Eval, merge};

impl Eval<'_> {
    pub fn over_windows(
        &self,
        function: &Function,
        body: fn(&Window<'_>) -> Option<f64>,
        range: &Expr,
        args: &[Vec<f64>],
        steps: Steps,
    ) -> Result<Vec<Row>, QueryError> {
        if steps.count == 0 {
            return Ok(Vec::new());
        }
        self.check_args(function, args)?;
        let ranged = self.ranged(range, steps)?;
        let mut rows = self.windows_of(body, ranged, args, steps)?;
        if function.wants_counter() {
            self.note_gauges(&rows);
        }
        if function.keeps_name() {
            return Ok(rows);
        }
        if self.features.delayed_name_removal {
            rows.iter_mut().for_each(|row| row.drop_name = true);
            return Ok(rows);
        }
        rows.iter_mut().for_each(|row| row.labels = without_name(&row.labels));
        merge(rows)
    }

    /// One row per series, under its own labels, name included.
    pub fn windows_of(
        &self,
        body: fn(&Window<'_>) -> Option<f64>,
        ranged: Ranged,
        args: &[Vec<f64>],
        steps: Steps,
    ) -> Result<Vec<Row>, QueryError> {
        let Ranged { points, ends, range_ms } = ranged;
        let by_step = transposed(args, steps);
        // With `@` every step sees the same window; only arguments and the step's own time can make cells differ.
        let once = ends.is_fixed() && args.is_empty();
        let rows = map_rows(points, steps.count * 8, |points| {
            let mut cells = vec![absent(); steps.count];
            let (mut from, mut to) = (0, 0);
            let mut looked_at = 0;
            for (step, cell) in cells.iter_mut().enumerate() {
                if step & 0xff == 0 && self.budget.check().is_err() {
                    break; // the check after the loop tells why
                }
                let step_ms = steps.at(step);
                let to_ms = ends.at(step_ms);
                let from_ms = to_ms - range_ms;
                let samples = &points.samples;
                while to < samples.len() && samples[to].timestamp_ms <= to_ms {
                    to += 1;
                }
                while from < to && samples[from].timestamp_ms <= from_ms {
                    from += 1;
                }
                if from == to {
                    continue;
                }
                looked_at += (to - from) as u64;
                let window = Window { samples: &samples[from..to], from_ms, to_ms, step_ms, args: &by_step[step] };
                if let Some(value) = body(&window) {
                    *cell = value;
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
            Row { labels: points.labels, cells, drop_name: points.drop_name }
        });
        self.budget.check()?;
        Ok(rows.into_iter().filter(Row::has_any).collect())
    }

    fn check_args(&self, function: &Function, args: &[Vec<f64>]) -> Result<(), QueryError> {
        match function.name {
            "quantile_over_time" => {
                for &q in args.iter().flatten() {
                    self.check_quantile(q);
                }
                Ok(())
            }
            "double_exponential_smoothing" => {
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
            _ => Ok(()),
        }
    }

    pub fn check_quantile(&self, q: f64) {
        if q.is_nan() || !(0.0..=1.0).contains(&q) {
            self.notes.warn(format!("quantile value should be between 0 and 1, got {}", crate::query::value::float(q)));
        }
    }

    /// Names that do not look like a counter's: an info, as the result is likely not what was meant.
    fn note_gauges(&self, rows: &[Row]) {
        const ENDINGS: [&str; 4] = ["_total", "_sum", "_count", "_bucket"];
        let mut last = "";
        for name in rows.iter().filter_map(|row| row.labels.get(METRIC_NAME)) {
            if **name != *last && !ENDINGS.iter().any(|ending| name.ends_with(ending)) {
                self.notes.info(format!(
                    "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {name:?}"
                ));
            }
            last = name;
        }
    }
}

/// Columns of arguments as one list per step.
pub fn transposed(args: &[Vec<f64>], steps: Steps) -> Vec<Vec<f64>> {
    (0..steps.count).map(|step| args.iter().map(|column| column[step]).collect()).collect()
}
