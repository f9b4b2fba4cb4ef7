//! Function calls.

use std::cmp::Ordering;
use std::collections::HashMap;

use crate::query::QueryError;
use crate::query::functions::histogram::{self, Bucket};
use crate::query::functions::{Body, Function, Special, cell, label};
use crate::query::plan::{Expr, Kind, Selector};
use crate::query::value::{Row, Steps, Value, absent, filter, is_absent};
use crate::store::{Label, Labels, METRIC_NAME, MatchOp};

use super::selector::map_rows;
use super::window::transposed;
use super::{Eval, merge};

impl Eval<'_> {
    pub fn call(&self, function: &Function, args: &[Expr], steps: Steps) -> Result<Value, QueryError> {
        match function.body {
            Body::Window(body) => {
                let range = arg_of(args, Kind::Matrix)?;
                let scalars = self.scalars(args, steps)?;
                self.over_windows(function, body, range, &scalars, steps).map(Value::Rows)
            }
            Body::Cell(body) => {
                let rows = self.rows(arg_of(args, Kind::Vector)?, steps)?;
                let scalars = transposed(&self.scalars(args, steps)?, steps);
                self.each_cell(rows, |step, cell| body(cell, &scalars[step])).map(Value::Rows)
            }
            Body::Date(body) => {
                let Some(vector) = args.first() else {
                    let cells = steps.iter().map(|at_ms| body((at_ms as f64 / 1000.0).trunc())).collect();
                    return Ok(Value::Rows(vec![Row::new(Labels::empty(), cells)]));
                };
                let rows = self.rows(vector, steps)?;
                self.each_cell(rows, |_, cell| body(cell)).map(Value::Rows)
            }
            Body::Special(special) => self.special(function.name, special, args, steps),
        }
    }

    /// The scalar arguments, in order.
    fn scalars(&self, args: &[Expr], steps: Steps) -> Result<Vec<Vec<f64>>, QueryError> {
        args.iter().filter(|arg| arg.kind() == Kind::Scalar).map(|arg| self.scalar(arg, steps)).collect()
    }

    fn each_cell(
        &self,
        rows: Vec<Row>,
        body: impl Fn(usize, f64) -> f64 + Send + Sync,
    ) -> Result<Vec<Row>, QueryError> {
        let width = rows.first().map_or(0, |row| row.cells.len());
        let rows = map_rows(rows, width, |mut row| {
            for (step, cell) in row.cells.iter_mut().enumerate().filter(|(_, cell)| !is_absent(**cell)) {
                *cell = body(step, *cell);
            }
            row
        });
        self.nameless(rows)
    }

    fn special(&self, name: &str, special: Special, args: &[Expr], steps: Steps) -> Result<Value, QueryError> {
        let scalar = |cell: f64| Ok(Value::Scalar(vec![cell; steps.count]));
        let seconds = |ms: i64| ms as f64 / 1000.0;
        match special {
            Special::Pi => scalar(std::f64::consts::PI),
            Special::Start => scalar(seconds(self.start_ms)),
            Special::End => scalar(seconds(self.end_ms)),
            Special::Step => scalar(seconds(self.interval_ms)),
            Special::Range => scalar(seconds(self.end_ms - self.start_ms)),
            Special::Time => Ok(Value::Scalar(steps.iter().map(seconds).collect())),
            Special::MinOf | Special::MaxOf => {
                let [left, right] = args else { return Err(arity(name)) };
                let pairs = self.scalar(left, steps)?.into_iter().zip(self.scalar(right, steps)?);
                let pick = if special == Special::MinOf { cell::min } else { cell::max };
                Ok(Value::Scalar(pairs.map(|(l, r)| pick(l, r)).collect()))
            }
            Special::Scalar => {
                let rows = self.rows(first(name, args)?, steps)?;
                let only = |step: usize| {
                    let mut present = rows.iter().map(|row| row.cells[step]).filter(|cell| !is_absent(*cell));
                    match (present.next(), present.next()) {
                        (Some(cell), None) => cell,
                        _ => f64::NAN,
                    }
                };
                Ok(Value::Scalar((0..steps.count).map(only).collect()))
            }
            Special::Vector => {
                let cells = self.scalar(first(name, args)?, steps)?;
                Ok(Value::Rows(vec![Row::new(Labels::empty(), cells)]))
            }
            Special::Timestamp => self.timestamp(first(name, args)?, steps).map(Value::Rows),
            Special::Absent => self.absent(first(name, args)?, steps).map(Value::Rows),
            Special::AbsentOverTime => self.absent_over_time(first(name, args)?, steps).map(Value::Rows),
            Special::Clamp => {
                let rows = self.rows(first(name, args)?, steps)?;
                let bounds = self.scalars(args, steps)?;
                let [low, high] = bounds.as_slice() else { return Err(arity(name)) };
                let clamp = |step: usize, cell: f64| {
                    let (low, high) = (low[step], high[step]);
                    match (high < low, cell.is_nan() || low.is_nan() || high.is_nan()) {
                        (true, _) => absent(),
                        (false, true) => f64::NAN,
                        (false, false) => cell.clamp(low, high),
                    }
                };
                let rows = self.each_cell(rows, clamp)?;
                Ok(Value::Rows(rows.into_iter().filter(Row::has_any).collect()))
            }
            Special::Sort | Special::SortDesc => {
                let mut rows = self.rows(first(name, args)?, steps)?;
                if let 1 = steps.count {
                    let down = special == Special::SortDesc;
                    rows.sort_by(|a, b| by_value(a.cells[0], b.cells[0], down));
                }
                Ok(Value::Rows(rows))
            }
            Special::SortByLabel | Special::SortByLabelDesc => {
                let mut rows = self.rows(first(name, args)?, steps)?;
                let names = texts(&args[1..])?;
                rows.sort_by(|a, b| by_labels(&a.labels, &b.labels, &names));
                if special == Special::SortByLabelDesc {
                    rows.reverse();
                }
                Ok(Value::Rows(rows))
            }
            Special::LabelReplace => self.label_replace(args, steps).map(Value::Rows),
            Special::LabelJoin => self.label_join(args, steps).map(Value::Rows),
            Special::HistogramQuantile | Special::HistogramFraction => {
                let vector = arg_of(args, Kind::Vector)?;
                let rows = self.rows(vector, steps)?;
                let scalars = transposed(&self.scalars(args, steps)?, steps);
                self.classic_histograms(name, rows, &scalars).map(Value::Rows)
            }
            // Floats have none of it, and Prometheus leaves them out too.
            Special::HistogramOnly => self.rows(first(name, args)?, steps).map(|_| Value::Rows(Vec::new())),
            Special::Info => self.info(args, steps).map(Value::Rows),
        }
    }

    fn timestamp(&self, vector: &Expr, steps: Steps) -> Result<Vec<Row>, QueryError> {
        if let Expr::Selector(selector) = vector.without_parens() {
            let rows = self.instant_times(selector, steps)?;
            return self.nameless(rows);
        }
        let rows = self.rows(vector, steps)?;
        self.each_cell(rows, |step, _| steps.at(step) as f64 / 1000.0)
    }

    fn absent(&self, vector: &Expr, steps: Steps) -> Result<Vec<Row>, QueryError> {
        let rows = self.rows(vector, steps)?;
        let labels = match vector.without_parens() {
            Expr::Selector(selector) => implied_labels(selector),
            _ => Labels::empty(),
        };
        Ok(where_nothing(&rows, labels, steps))
    }

    fn absent_over_time(&self, range: &Expr, steps: Steps) -> Result<Vec<Row>, QueryError> {
        let labels = match range.without_parens() {
            Expr::Range { selector, .. } => implied_labels(selector),
            _ => Labels::empty(),
        };
        let ranged = self.ranged(range, steps)?;
        // Labels do not matter here, and names that fall together would be an error.
        let rows = self.windows_of(|_| Some(1.0), ranged, &[], steps)?;
        Ok(where_nothing(&rows, labels, steps))
    }

    fn label_replace(&self, args: &[Expr], steps: Steps) -> Result<Vec<Row>, QueryError> {
        let rows = self.rows(first("label_replace", args)?, steps)?;
        let texts = texts(&args[1..])?;
        let [target, replacement, source, regex] = texts.as_slice() else { return Err(arity("label_replace")) };
        let replace = label::Replace::new(target, replacement, source, regex).map_err(QueryError::Execution)?;
        let renamed = |mut row: Row| {
            if let Some(labels) = replace.apply(&row.labels) {
                row.labels = labels;
                row.drop_name &= replace.target() != METRIC_NAME;
            }
            row
        };
        merge(rows.into_iter().map(renamed).collect())
    }

    fn label_join(&self, args: &[Expr], steps: Steps) -> Result<Vec<Row>, QueryError> {
        let rows = self.rows(first("label_join", args)?, steps)?;
        let texts = texts(&args[1..])?;
        let [target, separator, sources @ ..] = texts.as_slice() else { return Err(arity("label_join")) };
        label::check_name(target, "label_join").map_err(QueryError::Execution)?;
        let joined = |mut row: Row| {
            row.labels = label::join(&row.labels, target, separator, sources);
            row.drop_name &= target != METRIC_NAME;
            row
        };
        merge(rows.into_iter().map(joined).collect())
    }

    /// `histogram_quantile` and `histogram_fraction` over classic buckets.
    fn classic_histograms(&self, name: &str, rows: Vec<Row>, args: &[Vec<f64>]) -> Result<Vec<Row>, QueryError> {
        let is_quantile = name == "histogram_quantile";
        if is_quantile {
            args.iter().for_each(|args| self.check_quantile(args[0]));
        }
        let mut order: Vec<Labels> = Vec::new();
        let mut groups: HashMap<Labels, Vec<(f64, Row)>> = HashMap::new();
        for row in rows {
            let le = row.labels.get("le").map(|le| &**le).unwrap_or("");
            let Some(upper) = bound(le) else {
                self.notes.warn(format!("bucket label \"le\" is missing or has a malformed value of {le:?}"));
                continue;
            };
            let key = filter(&row.labels, |name| name != "le" && name != METRIC_NAME);
            let group = groups.entry(key.clone()).or_insert_with(|| {
                order.push(key);
                Vec::new()
            });
            group.push((upper, row));
        }
        let groups = order.into_iter().filter_map(|key| groups.remove(&key).map(|rows| (key, rows))).collect();
        Ok(map_rows(groups, args.len(), |(labels, rows): (Labels, Vec<(f64, Row)>)| {
            let mut any_fixed = false;
            let cells = args.iter().enumerate().map(|(step, args)| {
                let present = rows.iter().map(|(upper, row)| Bucket { upper: *upper, count: row.cells[step] });
                let buckets: Vec<_> = present.filter(|bucket| !is_absent(bucket.count)).collect();
                if buckets.is_empty() {
                    return absent();
                }
                let (value, fixed) = match is_quantile {
                    true => histogram::quantile(args[0], buckets),
                    false => histogram::fraction(args[0], args[1], buckets),
                };
                any_fixed |= fixed;
                value
            });
            let cells = cells.collect();
            if any_fixed {
                self.notes.info(format!("input to {name} needed to be fixed for monotonicity for {labels}"));
            }
            Row::new(labels, cells)
        }))
    }
}

/// An upper bound as labels write it.
fn bound(le: &str) -> Option<f64> {
    // Rust reads "infinity" and the like too, as Go does.
    le.parse().ok()
}

fn where_nothing(rows: &[Row], labels: Labels, steps: Steps) -> Vec<Row> {
    let missing = |step: usize| rows.iter().all(|row| is_absent(row.cells[step]));
    let cells = (0..steps.count).map(|step| if missing(step) { 1.0 } else { absent() }).collect();
    Some(Row::new(labels, cells)).into_iter().filter(Row::has_any).collect()
}

/// Labels that a series missed by this selector would surely have had: those asked for once, by equality.
fn implied_labels(selector: &Selector) -> Labels {
    let matchers: Vec<_> = selector.any_of.iter().flatten().filter(|matcher| matcher.name != METRIC_NAME).collect();
    let once = |name: &str| matchers.iter().filter(|matcher| matcher.name == name).count() == 1;
    Labels::new(
        matchers
            .iter()
            .filter(|matcher| matches!(matcher.op, MatchOp::Equal) && once(&matcher.name))
            .map(|matcher| Label { name: matcher.name.as_str().into(), value: matcher.value.as_str().into() }),
    )
}

/// NaN last in both directions.
fn by_value(a: f64, b: f64, down: bool) -> Ordering {
    let order = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
    a.is_nan().cmp(&b.is_nan()).then(if down { order.reverse() } else { order })
}

fn by_labels(a: &Labels, b: &Labels, names: &[String]) -> Ordering {
    let value = |labels: &Labels, name: &str| labels.get(name).cloned().unwrap_or_else(|| "".into());
    let natural = names.iter().map(|name| natural(&value(a, name), &value(b, name)));
    natural.fold(Ordering::Equal, Ordering::then).then_with(|| a.cmp(b))
}

/// Compares runs of digits by their number: `a2` before `a10`.
fn natural(mut a: &str, mut b: &str) -> Ordering {
    loop {
        match (a.chars().next(), b.chars().next()) {
            (None, None) => return Ordering::Equal,
            (None, _) => return Ordering::Less,
            (_, None) => return Ordering::Greater,
            (Some(x), Some(y)) if x.is_ascii_digit() && y.is_ascii_digit() => {
                let (x, rest_a) = digits(a);
                let (y, rest_b) = digits(b);
                let order = x.len().cmp(&y.len()).then(x.cmp(y));
                if order != Ordering::Equal {
                    return order;
                }
                (a, b) = (rest_a, rest_b);
            }
            (Some(x), Some(y)) if x != y => return x.cmp(&y),
            (Some(x), Some(_)) => (a, b) = (&a[x.len_utf8()..], &b[x.len_utf8()..]),
        }
    }
}

/// The leading number without its zeros, and what follows.
fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (text[..end].trim_start_matches('0'), &text[end..])
}

fn arg_of(args: &[Expr], kind: Kind) -> Result<&Expr, QueryError> {
    args.iter()
        .find(|arg| arg.kind() == kind)
        .ok_or_else(|| QueryError::execution(format!("a function lacks its {} argument", kind.name())))
}

fn first<'a>(name: &str, args: &'a [Expr]) -> Result<&'a Expr, QueryError> {
    args.first().ok_or_else(|| arity(name))
}

fn arity(name: &str) -> QueryError {
    QueryError::Execution(format!("wrong number of arguments for {name}()"))
}

fn texts(args: &[Expr]) -> Result<Vec<String>, QueryError> {
    let text = |arg: &Expr| match arg.without_parens() {
        Expr::Text(text) => Ok(text.clone()),
        _ => Err(QueryError::execution("expected a string literal")),
    };
    args.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn natural_order_counts() {
        let mut values = ["cpu10", "cpu9", "cpu", "cpu09a", "4", "15"];
        values.sort_by(|a, b| natural(a, b));
        assert_eq!(values, ["4", "15", "cpu", "cpu9", "cpu09a", "cpu10"]);
    }
}
