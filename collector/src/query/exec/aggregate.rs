//! Aggregations: `sum by (..)`, `topk`, `quantile`, `count_values` and the rest.

use std::collections::HashMap;
use std::sync::Arc;

use crate::query::QueryError;
use crate::query::functions::kahan::{Mean, Sum, Variance};
use crate::query::functions::quantile;
use crate::query::histogram::{Total, short};
use crate::query::parse::literal::quoted;
use crate::query::plan::{AggregateOp, Expr, Grouping, Place};
use crate::query::value::{Cell, Row, Steps, Value, absent, filter, float, is_absent, with};
use crate::store::{Labels, METRIC_NAME};

use super::hash::labels_hash;
use super::selector::map_rows;
use super::{Eval, Here, changed};

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
        let at_param = self.notes.at(param.map_or(inner.place(), Expr::place));
        if op == CountValues {
            let label = label_of(param)?;
            return count_values(grouped(self.rows(inner, steps)?, grouping), steps, &label);
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
        let groups = grouped(rows, grouping);
        self.budget.check()?;
        match (op, param) {
            (Sum | Avg, _) => {
                let (mixed, groups): (Vec<_>, Vec<_>) =
                    groups.into_iter().partition(|group| group.rows.iter().any(Row::has_histograms));
                let mut rows = match op {
                    Sum => fold(groups, steps, self::Sum::add, |sum| sum.total()),
                    _ => fold(groups, steps, Mean::add, Mean::mean),
                };
                rows.extend(mixed.into_iter().map(|group| mixed_sum(op, group, steps, here)));
                rows.retain(Row::has_any);
                Ok(rows)
            }
            (Count, _) => Ok(fold(groups, steps, |count: &mut f64, _| *count += 1.0, |count| *count)),
            (Group, _) => Ok(fold(groups, steps, |_: &mut (), _| {}, |()| 1.0)),
            (Max, _) => Ok(fold(groups, steps, |best, v| best_of(best, v, |new, old| new > old), picked)),
            (Min, _) => Ok(fold(groups, steps, |best, v| best_of(best, v, |new, old| new < old), picked)),
            (Stdvar, _) => Ok(fold(groups, steps, Variance::add, Variance::variance)),
            (Stddev, _) => Ok(fold(groups, steps, Variance::add, |v| v.variance().sqrt())),
            (Quantile, Some(Value::Scalar(qs))) => {
                check_quantiles(&qs, at_param);
                Ok(quantiles(groups, steps, &qs))
            }
            (Topk | Bottomk | Limitk, Some(Value::Scalar(counts))) => {
                // Nothing is asked for, of whatever there is.
                if groups.is_empty() || counts.iter().all(|count| *count < 1.0) {
                    return Ok(Vec::new());
                }
                let counts = counts.into_iter().map(whole).collect::<Result<Vec<_>, _>>()?;
                Ok(selected(op, groups, steps, &counts))
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
    here.info(&format!("ignored histogram in {} aggregation", op.name()));
    floats_only(rows)
}

fn floats_only(rows: Vec<Row>) -> Vec<Row> {
    rows.into_iter().map(Row::floats_only).filter(Row::has_any).collect()
}

/// `sum` or `avg` of a group with histograms; a step with numbers beside them has no result.
fn mixed_sum(op: AggregateOp, group: Group, steps: Steps, here: Here<'_>) -> Row {
    let name = group.rows.first().and_then(|row| row.labels.metric()).map_or("", |name| name);
    let mut sums = Row::blank(group.labels.clone(), steps.count).dropping(group.drop_name);
    for step in 0..steps.count {
        let (mut sum, mut mean, mut total) = (Sum::default(), Mean::default(), Total::default());
        let mut floats = 0;
        let mut fits = true;
        for cell in group.rows.iter().filter_map(|row| row.cell(step)) {
            match cell {
                Cell::Float(value) => {
                    floats += 1;
                    sum.add(value);
                    mean.add(value);
                }
                Cell::Histogram(histogram) => fits &= total.add(&histogram).is_ok(),
            }
        }
        if floats > 0 && total.added > 0.0 {
            here.warn("encountered a mix of histograms and floats for aggregation");
            continue;
        }
        if !fits {
            let text = "vector contains a mix of histograms with exponential and custom buckets schemas";
            here.warn(&format!("{text} for metric name {name:?}"));
            continue;
        }
        here.remark(total.remarks, "aggregation");
        let is_sum = op == AggregateOp::Sum;
        let cell = match floats {
            0 => if is_sum { total.sum() } else { total.mean() }.map(changed),
            _ => Some(Cell::Float(if is_sum { sum.total() } else { mean.mean() })),
        };
        sums.set(step, cell);
    }
    sums
}

/// A sample is in when its labels' place in `[0, 1)` is below the ratio; negative ratios take the complement.
fn limit_ratio(groups: Vec<Group>, ratios: Vec<f64>, here: Here<'_>) -> Result<Vec<Row>, QueryError> {
    for ratio in extremes(&ratios).into_iter().filter(|ratio| !(-1.0..=1.0).contains(ratio)) {
        let capped = short(ratio.clamp(-1.0, 1.0));
        let ratio = short(ratio);
        here.warn(&format!("ratio value should be between -1 and 1, got {ratio}, capping to {capped}"));
    }
    if !groups.is_empty() && ratios.iter().any(|ratio| ratio.is_nan()) {
        return Err(QueryError::execution("Ratio value NaN is NaN"));
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
        false => extremes(qs).into_iter().for_each(|q| check_quantile(q, here)),
    }
}

pub fn check_quantile(q: f64, here: Here<'_>) {
    if q.is_nan() || !(0.0..=1.0).contains(&q) {
        here.warn(&format!("quantile value should be between 0 and 1, got {}", short(q)));
    }
}

fn group_labels(labels: &Labels, grouping: &Grouping) -> Labels {
    match grouping {
        Grouping::By(names) if names.is_empty() => Labels::empty(),
        Grouping::By(names) => filter(labels, |name| names.iter().any(|kept| kept == name)),
        Grouping::Without(names) => {
            filter(labels, |name| name != METRIC_NAME && !names.iter().any(|gone| gone == name))
        }
    }
}

fn grouped(rows: Vec<Row>, grouping: &Grouping) -> Vec<Group> {
    let named = matches!(grouping, Grouping::By(names) if names.iter().any(|name| name == METRIC_NAME));
    let mut groups: Vec<Group> = Vec::new();
    let mut at: HashMap<Labels, usize> = HashMap::new();
    // The store's labels share their strings, so that where a string lies mostly tells its group. Rows stay in their groups
    // until all are placed: no string is freed meanwhile.
    let mut by_strings: HashMap<Vec<usize>, usize> = HashMap::new();
    let mut strings = Vec::new();
    for row in rows {
        shared_strings(&row.labels, grouping, &mut strings);
        let index = match by_strings.get(&strings) {
            Some(index) => *index,
            None => {
                let labels = group_labels(&row.labels, grouping);
                let index = *at.entry(labels.clone()).or_insert_with(|| {
                    groups.push(Group { labels, rows: Vec::new(), drop_name: named && row.drop_name });
                    groups.len() - 1
                });
                by_strings.insert(strings.clone(), index);
                index
            }
        };
        groups[index].rows.push(row);
    }
    groups
}

/// Where the strings lie that make the row's group.
fn shared_strings(labels: &Labels, grouping: &Grouping, strings: &mut Vec<usize>) {
    let address = |text: &Arc<str>| text.as_ptr() as usize;
    strings.clear();
    match grouping {
        Grouping::By(names) => strings.extend(names.iter().map(|name| labels.get(name).map_or(0, address))),
        Grouping::Without(names) => {
            let kept =
                labels.iter().filter(|label| *label.name != *METRIC_NAME && !names.iter().any(|n| *n == *label.name));
            strings.extend(kept.flat_map(|label| [address(&label.name), address(&label.value)]));
        }
    }
}

/// Folds each column of a group into one cell.
fn fold<A: Default + Clone>(
    groups: Vec<Group>,
    steps: Steps,
    add: impl Fn(&mut A, f64) + Send + Sync,
    result: impl Fn(&A) -> f64 + Send + Sync,
) -> Vec<Row> {
    let cells_each = groups.iter().map(|group| group.rows.len()).max().unwrap_or(0) * steps.count;
    map_rows(groups, cells_each, |group| {
        let mut sums: Vec<Option<A>> = vec![None; steps.count];
        for row in &group.rows {
            for (sum, cell) in sums.iter_mut().zip(&row.cells) {
                if !is_absent(*cell) {
                    add(sum.get_or_insert_with(A::default), *cell);
                }
            }
        }
        let cells = sums.iter().map(|sum| sum.as_ref().map_or_else(absent, &result)).collect();
        Row::new(group.labels, cells).dropping(group.drop_name)
    })
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

fn quantiles(groups: Vec<Group>, steps: Steps, qs: &[f64]) -> Vec<Row> {
    let cells_each = groups.iter().map(|group| group.rows.len()).max().unwrap_or(0) * steps.count;
    map_rows(groups, cells_each, |group| {
        let mut column = Vec::with_capacity(group.rows.len());
        let cells = qs.iter().enumerate().map(|(step, q)| {
            column.clear();
            column.extend(group.rows.iter().map(|row| row.cells[step]).filter(|cell| !is_absent(*cell)));
            if column.is_empty() { absent() } else { quantile(*q, &mut column) }
        });
        let cells = cells.collect();
        Row::new(group.labels, cells).dropping(group.drop_name)
    })
}

/// The label of `count_values`, any UTF-8 text but the empty one.
fn label_of(param: Option<&Expr>) -> Result<String, QueryError> {
    let Some(Expr::Text { value, .. }) = param.map(Expr::without_parens) else {
        return Err(QueryError::execution("count_values lacks its label"));
    };
    let label = String::from_utf8(value.clone()).ok().filter(|label| !label.is_empty());
    label.ok_or_else(|| QueryError::execution(format!("invalid label name {}", quoted(value))))
}

fn count_values(groups: Vec<Group>, steps: Steps, label: &str) -> Result<Vec<Row>, QueryError> {
    let mut rows: Vec<Row> = Vec::new();
    let mut at: HashMap<Labels, usize> = HashMap::new();
    for group in groups {
        for row in group.rows {
            for (step, cell) in row.cells.iter().enumerate().filter(|(_, cell)| !is_absent(**cell)) {
                let text = row.histogram(step).map_or_else(|| float(*cell), |histogram| histogram.text());
                let labels = with(&group.labels, [(label.to_owned(), text)]);
                let index = *at.entry(labels.clone()).or_insert_with(|| {
                    rows.push(Row::blank(labels, steps.count).dropping(group.drop_name));
                    rows.len() - 1
                });
                let count = &mut rows[index].cells[step];
                *count = if is_absent(*count) { 1.0 } else { *count + 1.0 };
            }
        }
    }
    Ok(rows)
}

/// How many series to keep, from a scalar.
fn whole(count: f64) -> Result<usize, QueryError> {
    if count.is_nan() || count >= i64::MAX as f64 {
        return Err(QueryError::execution(format!("Scalar value {} overflows int64", short(count))));
    }
    if count <= i64::MIN as f64 {
        return Err(QueryError::execution(format!("Scalar value {} underflows int64", short(count))));
    }
    Ok(count.max(0.0) as usize)
}

/// `topk`, `bottomk`, `limitk`: some of a group's samples at each step, with all their labels.
fn selected(op: AggregateOp, groups: Vec<Group>, steps: Steps, counts: &[usize]) -> Vec<Row> {
    let cells_each = groups.iter().map(|group| group.rows.len()).max().unwrap_or(0) * steps.count;
    let picked = map_rows(groups, cells_each, |mut group| {
        let mut order: Vec<usize> = Vec::with_capacity(group.rows.len());
        for (step, &count) in counts.iter().enumerate() {
            order.clear();
            order.extend((0..group.rows.len()).filter(|row| !is_absent(group.rows[*row].cells[step])));
            let value = |row: &usize| group.rows[*row].cells[step];
            // NaN comes last whichever end is wanted.
            let nan_last = |a: &usize, b: &usize| value(a).is_nan().cmp(&value(b).is_nan());
            let by_value = |a: &usize, b: &usize| value(a).partial_cmp(&value(b)).unwrap_or(std::cmp::Ordering::Equal);
            match op {
                AggregateOp::Topk => order.sort_by(|a, b| nan_last(a, b).then_with(|| by_value(b, a))),
                AggregateOp::Bottomk => order.sort_by(|a, b| nan_last(a, b).then_with(|| by_value(a, b))),
                _ => {}
            }
            for row in order.drain(..).skip(count) {
                group.rows[row].cells[step] = absent();
            }
        }
        let mut rows = group.rows;
        rows.retain(Row::has_any);
        if steps.count == 1 && op != AggregateOp::Limitk {
            let nan_last = |a: &Row, b: &Row| a.cells[0].is_nan().cmp(&b.cells[0].is_nan());
            let by_value = |a: &Row, b: &Row| a.cells[0].partial_cmp(&b.cells[0]).unwrap_or(std::cmp::Ordering::Equal);
            match op {
                AggregateOp::Topk => rows.sort_by(|a, b| nan_last(a, b).then_with(|| by_value(b, a))),
                _ => rows.sort_by(|a, b| nan_last(a, b).then_with(|| by_value(a, b))),
            }
        }
        rows
    });
    picked.into_iter().flatten().collect()
}
