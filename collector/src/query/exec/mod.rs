//! Evaluates a plan: [`Eval::eval`] for what has one cell per step, [`Eval::ranged`] for ranges.

mod aggregate;
mod binary;
mod call;
mod edges;
mod hash;
mod histograms;
mod info;
mod mixed;
mod notes;
mod pace;
mod selector;
mod set;
mod sliding;
mod tier;
mod window;

use std::collections::HashMap;
use std::sync::Arc;

use crate::store::{Budget, Labels, Source};

use super::histogram::Histogram;
use super::length::{Length, Scale};
use super::plan::Expr;
use super::value::{Cell, Row, Steps, Value, is_absent, is_float, is_metadata, without_name};
use super::{Features, QueryError};

pub use notes::{Here, Notes};

/// One evaluation of one query.
pub struct Eval<'a> {
    pub source: &'a dyn Source,
    pub budget: &'a Budget,
    pub notes: &'a Notes,
    /// The span of the whole query, for `@ start()` and `@ end()`, in subqueries too.
    pub start_ms: i64,
    pub end_ms: i64,
    /// Step of the whole query; 0 for an instant query.
    pub interval_ms: i64,
    pub lookback_ms: i64,
    pub subquery_step_ms: i64,
    pub features: Features,
}

impl Eval<'_> {
    pub fn eval(&self, expr: &Expr, steps: Steps) -> Result<Value, QueryError> {
        self.budget.check()?;
        match expr {
            Expr::Number { value, .. } => Ok(Value::Scalar(self.column(steps, |_| *value)?)),
            Expr::Text { value, .. } => Ok(Value::Text(String::from_utf8_lossy(value).into_owned())),
            Expr::Paren { inner, .. } | Expr::Unary { negative: false, inner, .. } => self.eval(inner, steps),
            Expr::Unary { negative: true, inner, .. } => self.negate(inner, steps),
            Expr::Selector(selector) => Ok(Value::Rows(self.instant_rows(selector, steps)?)),
            Expr::Call { function, args, .. } => self.call(function, args, steps),
            Expr::Aggregate { op, param, inner, grouping, place } => {
                self.aggregate(*op, param.as_deref(), inner, (grouping, *place), steps).map(Value::Rows)
            }
            Expr::Binary { op, left, right, matching } => self.binary(*op, left, right, matching, steps),
            Expr::Range { .. } | Expr::Subquery { .. } => {
                Err(QueryError::execution("a range of samples cannot stand where one sample per series is expected"))
            }
        }
    }

    /// What durations of the query are computed from.
    pub fn scale(&self) -> Scale {
        Scale { step: self.interval_ms as f64 / 1000.0, range: (self.end_ms - self.start_ms) as f64 / 1000.0 }
    }

    /// Of a range or a step.
    fn positive_ms(&self, length: &Length) -> Result<i64, QueryError> {
        length.positive_ms(self.scale()).map_err(QueryError::Bad)
    }

    /// Rows of an expression that is known to be a vector.
    fn rows(&self, expr: &Expr, steps: Steps) -> Result<Vec<Row>, QueryError> {
        match self.eval(expr, steps)? {
            Value::Rows(rows) => Ok(rows),
            _ => Err(QueryError::execution("expected an instant vector")),
        }
    }

    /// Cells of an expression that is known to be a scalar.
    fn scalar(&self, expr: &Expr, steps: Steps) -> Result<Vec<f64>, QueryError> {
        match self.eval(expr, steps)? {
            Value::Scalar(cells) => Ok(cells),
            _ => Err(QueryError::execution("expected a scalar")),
        }
    }

    fn negate(&self, inner: &Expr, steps: Steps) -> Result<Value, QueryError> {
        Ok(match self.eval(inner, steps)? {
            Value::Scalar(cells) => Value::Scalar(cells.into_iter().map(|cell| -cell).collect()),
            Value::Rows(mut rows) => {
                for row in &mut rows {
                    row.cells.iter_mut().filter(|cell| is_float(**cell)).for_each(|cell| *cell = -*cell);
                    each_histogram(row, |_, histogram| Some(changed((**histogram).clone().scale(-1.0))));
                }
                Value::Rows(self.nameless(rows)?)
            }
            Value::Text(_) => return Err(QueryError::execution("a string cannot be negated")),
        })
    }

    /// The rows without their names, at once or (delayed name removal) marked for it.
    fn nameless(&self, mut rows: Vec<Row>) -> Result<Vec<Row>, QueryError> {
        if self.features.delayed_name_removal {
            rows.iter_mut().for_each(|row| row.drop_name = true);
            return Ok(rows);
        }
        let stay_apart = have_one_name(&rows);
        rows.iter_mut().for_each(|row| row.labels = without_name(&row.labels));
        if stay_apart { Ok(rows) } else { self.merge(rows) }
    }

    /// Joins rows of equal labels; two samples at one step are an error.
    pub fn merge(&self, rows: Vec<Row>) -> Result<Vec<Row>, QueryError> {
        let mut pace = self.pace();
        let mut at: HashMap<Labels, usize> = HashMap::with_capacity(rows.len());
        let mut merged: Vec<Row> = Vec::with_capacity(rows.len());
        for row in rows {
            pace.work(row.labels.len() + 1)?;
            let Some(&known) = at.get(&row.labels) else {
                at.insert(row.labels.clone(), merged.len());
                merged.push(row);
                continue;
            };
            pace.work(row.cells.len())?;
            let known = &mut merged[known];
            for step in (0..row.cells.len()).filter(|step| !is_absent(row.cells[*step])) {
                if !is_absent(known.cells[step]) {
                    return Err(QueryError::execution("vector cannot contain metrics with the same labelset"));
                }
                known.set(step, row.cell(step));
            }
        }
        Ok(merged)
    }
}

/// Whether all rows bear one name, and nothing else goes with it: without it they differ as before.
fn have_one_name(rows: &[Row]) -> bool {
    let Some(first) = rows.first() else { return true };
    let name = first.labels.metric();
    let same = |a: Option<&Arc<str>>, b: Option<&Arc<str>>| match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
        (a, b) => a == b,
    };
    rows.iter().all(|row| {
        same(row.labels.metric(), name) && row.labels.iter().filter(|label| is_metadata(&label.name)).count() < 2
    })
}

/// Replaces each histogram of a row; `None` leaves no sample.
fn each_histogram(row: &mut Row, map: impl Fn(usize, &Arc<Histogram>) -> Option<Cell>) {
    if !row.has_histograms() {
        return;
    }
    for step in 0..row.cells.len() {
        if let Some(histogram) = row.histogram(step) {
            let mapped = map(step, histogram);
            row.set(step, mapped);
        }
    }
}

fn changed(histogram: Histogram) -> Cell {
    Cell::Histogram(Arc::new(histogram))
}
