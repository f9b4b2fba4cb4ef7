//! Aggregations: `sum by (..)`, `topk`, `quantile`, `count_values` and the rest.

use std::cmp::Ordering;
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
use super::pace::Pace;
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

fn group_labels(labels: &Labels, grouping: &Grouping) -> Labels {
    match grouping {
        Grouping::By(names) if names.is_empty() => Labels::empty(),
        Grouping::By(names) => filter(labels, |name| names.iter().any(|kept| kept == name)),
        Grouping::Without(names) => {
            filter(labels, |name| name != METRIC_NAME && !names.iter().any(|gone| gone == name))
        }
    }
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

fn numbered(groups: Vec<Group>) -> Vec<(usize, Group)> {
    groups.into_iter().enumerate().collect()
}

/// The order in which `topk` or `bottomk` takes values: NaN comes last whichever end is wanted.
fn by_rank(op: AggregateOp, a: f64, b: f64) -> Ordering {
    let by_value = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
    let by_value = if op == AggregateOp::Topk { by_value.reverse() } else { by_value };
    a.is_nan().cmp(&b.is_nan()).then(by_value)
}

/// How rows are put together, each within what the query may use.
impl Eval<'_> {
    fn grouped(&self, rows: Vec<Row>, grouping: &Grouping) -> Result<Vec<Group>, QueryError> {
        let mut pace = self.pace();
        let named = matches!(grouping, Grouping::By(names) if names.iter().any(|name| name == METRIC_NAME));
        let mut groups: Vec<Group> = Vec::new();
        let mut at: HashMap<Labels, usize> = HashMap::new();
        // The store's labels share their strings, so that where a string lies mostly tells its group. Rows stay in their groups
        // until all are placed: no string is freed meanwhile.
        let mut by_strings: HashMap<Vec<usize>, usize> = HashMap::new();
        let mut strings = Vec::new();
        for row in rows {
            pace.work(row.labels.len() + 1)?;
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
        Ok(groups)
    }

    /// Folds each column of a group into one cell.
    fn fold<A: Default + Clone>(
        &self,
        groups: Vec<Group>,
        steps: Steps,
        add: impl Fn(&mut A, f64) + Send + Sync,
        result: impl Fn(&A) -> f64 + Send + Sync,
    ) -> Result<Vec<Row>, QueryError> {
        let cells_each = groups.iter().map(|group| group.rows.len()).max().unwrap_or(0) * steps.count;
        self.take_rows(groups.len(), steps)?;
        // Each thread has one column of what is folded at a time.
        let columns = groups.len().min(rayon::current_num_threads());
        self.budget.take_bytes(((columns * size_of::<Option<A>>()) as u64).saturating_mul(steps.count as u64))?;
        let rows = map_rows(numbered(groups), cells_each, |(at, group)| {
            let mut pace = Pace::of_item(self.budget, at)?;
            let mut sums: Vec<Option<A>> = vec![None; steps.count];
            for row in &group.rows {
                pace.work(row.cells.len())?;
                for (sum, cell) in sums.iter_mut().zip(&row.cells) {
                    if !is_absent(*cell) {
                        add(sum.get_or_insert_with(A::default), *cell);
                    }
                }
            }
            let cells = sums.iter().map(|sum| sum.as_ref().map_or_else(absent, &result)).collect();
            Ok(Row::new(group.labels, cells).dropping(group.drop_name))
        });
        rows.into_iter().collect()
    }

    fn quantiles_of(&self, groups: Vec<Group>, steps: Steps, qs: &[f64]) -> Result<Vec<Row>, QueryError> {
        let cells_each = groups.iter().map(|group| group.rows.len()).max().unwrap_or(0) * steps.count;
        self.take_rows(groups.len(), steps)?;
        let rows = map_rows(numbered(groups), cells_each, |(at, group)| {
            let mut pace = Pace::of_item(self.budget, at)?;
            let mut column = Vec::with_capacity(group.rows.len());
            let mut cells = Vec::with_capacity(steps.count);
            for (step, q) in qs.iter().enumerate() {
                pace.work(group.rows.len())?;
                column.clear();
                column.extend(group.rows.iter().map(|row| row.cells[step]).filter(|cell| !is_absent(*cell)));
                cells.push(if column.is_empty() { absent() } else { quantile(*q, &mut column) });
            }
            Ok(Row::new(group.labels, cells).dropping(group.drop_name))
        });
        rows.into_iter().collect()
    }

    /// Without `label` the values are counted all the same, under the group's own labels.
    fn count_values(&self, groups: Vec<Group>, steps: Steps, label: Option<&str>) -> Result<Vec<Row>, QueryError> {
        let mut rows: Vec<Row> = Vec::new();
        let mut at: HashMap<Labels, usize> = HashMap::new();
        let mut pace = self.pace();
        for group in groups {
            // Numbers repeat, and their text and labels cost more than the count.
            let mut of_bits: HashMap<u64, usize> = HashMap::new();
            for row in group.rows {
                pace.work(row.cells.len())?;
                for (step, cell) in row.cells.iter().enumerate().filter(|(_, cell)| !is_absent(**cell)) {
                    let histogram = row.histogram(step);
                    let known = of_bits.get(&cell.to_bits()).filter(|_| histogram.is_none());
                    let index = match known {
                        Some(index) => *index,
                        None => {
                            let text = histogram.map_or_else(|| float(*cell), |histogram| histogram.text());
                            pace.work(text.len())?;
                            let bytes = text.len() as u64;
                            let labels = with(&group.labels, label.map(|label| (label.to_owned(), text)));
                            let index = match at.get(&labels) {
                                Some(index) => *index,
                                None => {
                                    self.take_rows(1, steps)?;
                                    self.budget.take_bytes(bytes)?;
                                    at.insert(labels.clone(), rows.len());
                                    rows.push(Row::blank(labels, steps.count).dropping(group.drop_name));
                                    rows.len() - 1
                                }
                            };
                            if histogram.is_none() {
                                of_bits.insert(cell.to_bits(), index);
                            }
                            index
                        }
                    };
                    let count = &mut rows[index].cells[step];
                    *count = if is_absent(*count) { 1.0 } else { *count + 1.0 };
                }
            }
        }
        Ok(rows)
    }

    /// `topk`, `bottomk`, `limitk`: some of a group's samples at each step, with all their labels.
    fn selected(
        &self,
        op: AggregateOp,
        groups: Vec<Group>,
        steps: Steps,
        counts: &[usize],
    ) -> Result<Vec<Row>, QueryError> {
        let cells_each = groups.iter().map(|group| group.rows.len()).max().unwrap_or(0) * steps.count;
        let picked = map_rows(numbered(groups), cells_each, |(at, mut group)| {
            let mut pace = Pace::of_item(self.budget, at)?;
            let mut order: Vec<usize> = Vec::with_capacity(group.rows.len());
            for (step, &count) in counts.iter().enumerate() {
                pace.work(group.rows.len())?;
                order.clear();
                order.extend((0..group.rows.len()).filter(|row| !is_absent(group.rows[*row].cells[step])));
                if order.len() <= count {
                    continue;
                }
                let value = |row: usize| group.rows[row].cells[step];
                // Of equal values the first rows stay.
                match op {
                    AggregateOp::Limitk => {}
                    _ if count == 0 => {}
                    _ => {
                        order.select_nth_unstable_by(count, |a, b| by_rank(op, value(*a), value(*b)).then(a.cmp(b)));
                    }
                }
                for row in order.drain(..).skip(count) {
                    group.rows[row].cells[step] = absent();
                }
            }
            let mut rows = group.rows;
            rows.retain(Row::has_any);
            if steps.count == 1 && op != AggregateOp::Limitk {
                rows.sort_by(|a, b| by_rank(op, a.cells[0], b.cells[0]));
            }
            Ok(rows)
        });
        let picked = picked.into_iter().collect::<Result<Vec<Vec<Row>>, QueryError>>()?;
        Ok(picked.into_iter().flatten().collect())
    }

    /// `sum` or `avg` of a group with histograms; a step with numbers beside them has no result.
    fn mixed_sum(&self, op: AggregateOp, group: Group, steps: Steps, here: Here<'_>) -> Result<Row, QueryError> {
        self.take_rows(1, steps)?;
        let mut pace = self.pace();
        let mut sums = Row::blank(group.labels.clone(), steps.count).dropping(group.drop_name);
        for step in 0..steps.count {
            pace.work(group.rows.len())?;
            let (mut sum, mut mean, mut total) = (Sum::default(), Mean::default(), Total::default());
            let mut floats = 0;
            // The first that does not go with those before it.
            let mut unfit: Option<&Row> = None;
            for (row, cell) in group.rows.iter().filter_map(|row| Some((row, row.cell(step)?))) {
                match cell {
                    Cell::Float(value) => {
                        floats += 1;
                        sum.add(value);
                        mean.add(value);
                    }
                    Cell::Histogram(histogram) => {
                        pace.work(histogram.positive.len() + histogram.negative.len())?;
                        if unfit.is_none() && total.add(&histogram).is_err() {
                            unfit = Some(row);
                        }
                    }
                }
            }
            if floats > 0 && total.added > 0.0 {
                here.warn("encountered a mix of histograms and floats for aggregation");
                continue;
            }
            if let Some(row) = unfit {
                let name = row.labels.metric().map_or("", |name| name);
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
            if let Some(Cell::Histogram(histogram)) = &cell {
                self.budget.take_bytes(histogram.bytes())?;
            }
            sums.set(step, cell);
        }
        Ok(sums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::exec::Notes;
    use crate::query::histogram::Histogram;

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
