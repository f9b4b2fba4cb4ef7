//! How the rows of a group are put together, each within what the query may use.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use crate::query::QueryError;
use crate::query::exec::pace::Pace;
use crate::query::exec::selector::map_rows;
use crate::query::exec::{Eval, Here, changed};
use crate::query::functions::kahan::{Mean, Sum};
use crate::query::functions::quantile;
use crate::query::histogram::Total;
use crate::query::plan::{AggregateOp, Grouping};
use crate::query::value::{Cell, Row, Steps, absent, filter, float, is_absent, with};
use crate::store::{Labels, METRIC_NAME};

use super::Group;

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

fn numbered(groups: Vec<Group>) -> Vec<(usize, Group)> {
    groups.into_iter().enumerate().collect()
}

/// The order in which `topk` or `bottomk` takes values: NaN comes last whichever end is wanted.
fn by_rank(op: AggregateOp, a: f64, b: f64) -> Ordering {
    let by_value = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
    let by_value = if op == AggregateOp::Topk { by_value.reverse() } else { by_value };
    a.is_nan().cmp(&b.is_nan()).then(by_value)
}

impl Eval<'_> {
    pub(super) fn grouped(&self, rows: Vec<Row>, grouping: &Grouping) -> Result<Vec<Group>, QueryError> {
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
    pub(super) fn fold<A: Default + Clone>(
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

    pub(super) fn quantiles_of(&self, groups: Vec<Group>, steps: Steps, qs: &[f64]) -> Result<Vec<Row>, QueryError> {
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
    pub(super) fn count_values(
        &self,
        groups: Vec<Group>,
        steps: Steps,
        label: Option<&str>,
    ) -> Result<Vec<Row>, QueryError> {
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
    pub(super) fn selected(
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
    pub(super) fn mixed_sum(
        &self,
        op: AggregateOp,
        group: Group,
        steps: Steps,
        here: Here<'_>,
    ) -> Result<Row, QueryError> {
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
