//! Aggregations: `sum by (..)`, `topk`, `quantile`, `count_values` and the rest. What each does with the rows of a group is in
//! `rows.rs`.

mod rows;

use crate::query::QueryError;
use crate::query::functions::kahan::{Mean, Sum, Variance};
use crate::query::histogram::short;
use crate::query::parse::literal::quoted;
use crate::query::plan::{AggregateOp, Expr, Grouping, Place};
use crate::query::value::{Row, Steps, Value, absent};
use crate::store::{Labels, METRIC_NAME};

use super::hash::labels_hash;
use super::{Eval, Here};

/// Whether an aggregation takes histograms; the others leave them out and say so.
fn takes_histograms(op: AggregateOp) -> bool {
    use AggregateOp::*;
    matches!(op, Sum | Avg | Count | Group | CountValues | Limitk | LimitRatio)
}

/// Rows that belong together.
struct Group {
    labels: Labels,
    rows: Vec<Row>,
    drop_name: bool,
}

impl Eval<'_> {
    pub fn aggregate(
        &self,
        op: AggregateOp,
        param: Option<&Expr>,
        inner: &Expr,
        (grouping, place): (&Grouping, Place),
        steps: Steps,
    ) -> Result<Vec<Row>, QueryError> {
        use AggregateOp::*;
        let here = self.notes.at(inner.place());
        let at_param = self.notes.at(param.map_or(inner.place(), |param| param.without_parens().place()));
        if op == CountValues {
            let label = label_of(param)?;
            // What is set before rows are grouped is taken away with the other labels.
            let gone = matches!(grouping, Grouping::Without(names) if label == METRIC_NAME || names.contains(&label));
            let label = Some(&*label).filter(|_| !gone);
            return self.count_values(self.grouped(self.rows(inner, steps)?, grouping)?, steps, label);
        }
        let param = param.map(|param| self.eval(param, steps)).transpose()?;
        let rows = self.rows(inner, steps)?;
        let rows = match (op, &param) {
            _ if takes_histograms(op) => rows,
            (Topk | Bottomk, Some(Value::Scalar(counts))) => {
                // Where none is asked for, none is ignored.
                let looks = |row: &Row| (0..steps.count).any(|s| counts[s] >= 1.0 && row.histogram(s).is_some());
                if rows.iter().any(looks) {
                    without_histograms(op, rows, self.notes.at(place))
                } else {
                    floats_only(rows)
                }
            }
            _ => without_histograms(op, rows, here),
        };
        let groups = self.grouped(rows, grouping)?;
        self.budget.check()?;
        match (op, param) {
            (Sum | Avg, _) => {
                let (mixed, groups): (Vec<_>, Vec<_>) =
                    groups.into_iter().partition(|group| group.rows.iter().any(Row::has_histograms));
                let mut rows = match op {
                    Sum => self.fold(groups, steps, self::Sum::add, |sum| sum.total())?,
                    _ => self.fold(groups, steps, Mean::add, Mean::mean)?,
                };
                for group in mixed {
                    rows.push(self.mixed_sum(op, group, steps, here)?);
                }
                rows.retain(Row::has_any);
                Ok(rows)
            }
            (Count, _) => self.fold(groups, steps, |count: &mut f64, _| *count += 1.0, |count| *count),
            (Group, _) => self.fold(groups, steps, |_: &mut (), _| {}, |()| 1.0),
            (Max, _) => self.fold(groups, steps, |best, v| best_of(best, v, |new, old| new > old), picked),
            (Min, _) => self.fold(groups, steps, |best, v| best_of(best, v, |new, old| new < old), picked),
            (Stdvar, _) => self.fold(groups, steps, Variance::add, Variance::variance),
            (Stddev, _) => self.fold(groups, steps, Variance::add, |v| v.variance().sqrt()),
            (Quantile, Some(Value::Scalar(qs))) => {
                check_quantiles(&qs, at_param);
                self.quantiles_of(groups, steps, &qs)
            }
            (Topk | Bottomk | Limitk, Some(Value::Scalar(counts))) => {
                // Of nothing too, as later versions than 3.5 have it.
                if counts.iter().any(|count| count.is_nan()) {
                    return Err(QueryError::execution("Parameter value is NaN"));
                }
                // Nothing is asked for, of whatever there is.
                if groups.is_empty() || counts.iter().all(|count| *count < 1.0) {
                    return Ok(Vec::new());
                }
                let counts = counts.into_iter().map(whole).collect::<Result<Vec<_>, _>>()?;
                self.selected(op, groups, steps, &counts)
            }
            (LimitRatio, Some(Value::Scalar(ratios))) => limit_ratio(groups, ratios, at_param),
            _ => Err(QueryError::execution("an aggregation lacks its parameter")),
        }
    }
}

fn without_histograms(op: AggregateOp, rows: Vec<Row>, here: Here<'_>) -> Vec<Row> {
    if !rows.iter().any(Row::has_histograms) {
        return rows;
    }
    // A filter may have left none of them.
    if rows.iter().any(|row| (0..row.cells.len()).any(|step| row.histogram(step).is_some())) {
        here.info(&format!("ignored histogram in {} aggregation", op.name()));
    }
    floats_only(rows)
}

fn floats_only(rows: Vec<Row>) -> Vec<Row> {
    rows.into_iter().map(Row::floats_only).filter(Row::has_any).collect()
}

/// A sample is in when its labels' place in `[0, 1)` is below the ratio; negative ratios take the complement.
fn limit_ratio(groups: Vec<Group>, ratios: Vec<f64>, here: Here<'_>) -> Result<Vec<Row>, QueryError> {
    let [most, least] = extremes(&ratios);
    for ratio in [most].into_iter().filter(|most| *most > 1.0).chain([least].into_iter().filter(|least| *least < -1.0))
    {
        let capped = short(ratio.clamp(-1.0, 1.0));
        let ratio = short(ratio);
        here.warn(&format!("ratio value should be between -1 and 1, got {ratio}, capping to {capped}"));
    }
    if ratios.iter().any(|ratio| ratio.is_nan()) {
        return Err(QueryError::execution("Ratio value is NaN"));
    }
    let rows = groups.into_iter().flat_map(|group| group.rows).map(|mut row| {
        let place = place(&row.labels);
        for (cell, ratio) in row.cells.iter_mut().zip(&ratios) {
            let ratio = ratio.clamp(-1.0, 1.0);
            let taken = if ratio >= 0.0 { place < ratio } else { place >= 1.0 + ratio };
            if !taken {
                *cell = absent();
            }
        }
        row
    });
    Ok(rows.filter(Row::has_any).collect())
}

/// Where the labels' hash lies between 0 and 1: Prometheus takes the same series.
fn place(labels: &Labels) -> f64 {
    labels_hash(labels) as f64 / u64::MAX as f64
}

/// The largest and the smallest of a parameter's values; NaN is neither.
fn extremes(values: &[f64]) -> [f64; 2] {
    let of = |pick: fn(f64, f64) -> f64| values.iter().copied().fold(f64::NAN, pick);
    [of(f64::max), of(f64::min)].map(|value| if value.is_nan() { 0.0 } else { value })
}

/// Of a parameter that changes from step to step only the extremes are told.
fn check_quantiles(qs: &[f64], here: Here<'_>) {
    match qs.iter().any(|q| q.is_nan()) {
        true => check_quantile(f64::NAN, here),
        false => {
            let [most, least] = extremes(qs);
            // Each for its own end: of quantiles that are all too large only the largest is told.
            if most > 1.0 {
                check_quantile(most, here);
            }
            if least < 0.0 {
                check_quantile(least, here);
            }
        }
    }
}

pub fn check_quantile(q: f64, here: Here<'_>) {
    if q.is_nan() || !(0.0..=1.0).contains(&q) {
        here.warn(&format!("quantile value should be between 0 and 1, got {}", short(q)));
    }
}

fn best_of(best: &mut Option<f64>, value: f64, beats: impl Fn(f64, f64) -> bool) {
    match best {
        Some(old) if !beats(value, *old) && !old.is_nan() => {}
        _ => *best = Some(value),
    }
}

fn picked(best: &Option<f64>) -> f64 {
    best.unwrap_or_else(absent)
}

/// The label of `count_values`, any UTF-8 text but the empty one.
fn label_of(param: Option<&Expr>) -> Result<String, QueryError> {
    let Some(Expr::Text { value, .. }) = param.map(Expr::without_parens) else {
        return Err(QueryError::execution("count_values lacks its label"));
    };
    let label = String::from_utf8(value.clone()).ok().filter(|label| !label.is_empty());
    label.ok_or_else(|| QueryError::execution(format!("invalid label name {}", quoted(value))))
}

/// How many series to keep, from a scalar.
fn whole(count: f64) -> Result<usize, QueryError> {
    if count >= i64::MAX as f64 {
        return Err(QueryError::execution(format!("Scalar value {} overflows int64", short(count))));
    }
    if count <= i64::MIN as f64 {
        return Err(QueryError::execution(format!("Scalar value {} underflows int64", short(count))));
    }
    Ok(count.max(0.0) as usize)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::query::exec::Notes;
    use crate::query::histogram::Histogram;
    use crate::query::value::Cell;

    #[test]
    fn histograms_that_a_filter_took_away_were_not_ignored() {
        let (notes, steps) = (Notes::default(), 2);
        let mut row = Row::blank(Labels::empty(), steps);
        row.set(0, Some(Cell::Histogram(Arc::new(Histogram::default()))));
        row.set(1, Some(Cell::Float(7.0)));
        let there = row.clone();
        row.set(0, None);
        let left = without_histograms(AggregateOp::Max, vec![row], notes.at(Place::default()));
        assert_eq!((left.len(), left[0].cells[1]), (1, 7.0));
        assert!(notes.into_lists().1.is_empty());
        let notes = Notes::default();
        without_histograms(AggregateOp::Max, vec![there], notes.at(Place::default()));
        assert_eq!(notes.into_lists().1.len(), 1);
    }
}
