//! Function calls.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::query::QueryError;
use crate::query::functions::{Body, Floats, Function, Histograms, Special, cell, label};
use crate::query::histogram::short;
use crate::query::parse::literal::quoted;
use crate::query::plan::{Expr, Kind, Selector};
use crate::query::value::{Cell, Row, Steps, Value, absent, is_absent, is_float, with};
use crate::store::{Label, Labels, METRIC_NAME, MatchOp};

use super::selector::map_rows;
use super::window::place_of;
use super::{Eval, each_histogram};

impl Eval<'_> {
    pub fn call(&self, function: &Function, args: &[Expr], steps: Steps) -> Result<Value, QueryError> {
        match function.body {
            Body::Window(body) => self.windowed(function, body, None, args, steps),
            Body::Both(body, mixed) => self.windowed(function, body, Some(mixed), args, steps),
            Body::Cell(body) => {
                let rows = self.rows(arg_of(args, Kind::Vector)?, steps)?;
                let scalars = self.by_step(&self.scalars(args, steps)?, steps)?;
                self.each_cell(rows, |step, cell| body(cell, scalars.at(step))).map(Value::Rows)
            }
            Body::Date(body) => {
                let Some(vector) = args.first() else {
                    let cells = self.column(steps, |step| body((steps.at(step) as f64 / 1000.0).trunc()))?;
                    return Ok(Value::Rows(vec![Row::new(Labels::empty(), cells)]));
                };
                let rows = self.rows(vector, steps)?;
                self.each_cell(rows, |_, cell| body(cell)).map(Value::Rows)
            }
            Body::Special(special) => self.special(function.name, special, args, steps),
        }
    }

    fn windowed(
        &self,
        function: &Function,
        body: Floats,
        mixed: Option<Histograms>,
        args: &[Expr],
        steps: Steps,
    ) -> Result<Value, QueryError> {
        let range = arg_of(args, Kind::Matrix)?;
        let scalars = self.scalars(args, steps)?;
        let scalar_args = args.iter().filter(|arg| arg.kind() == Kind::Scalar);
        let places: Vec<_> = scalar_args.map(|arg| arg.place_among(args)).collect();
        self.over_windows(function, body, mixed, range, (&scalars, &places), steps).map(Value::Rows)
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
        let rows = map_rows(numbers(rows), width, |mut row| {
            for (step, cell) in row.cells.iter_mut().enumerate().filter(|(_, cell)| !is_absent(**cell)) {
                *cell = body(step, *cell);
            }
            row
        });
        self.nameless(rows)
    }

    fn special(&self, name: &str, special: Special, args: &[Expr], steps: Steps) -> Result<Value, QueryError> {
        let scalar = |cell: f64| Ok(Value::Scalar(self.column(steps, |_| cell)?));
        let seconds = |ms: i64| ms as f64 / 1000.0;
        match special {
            Special::Pi => scalar(std::f64::consts::PI),
            Special::Start => scalar(seconds(self.start_ms)),
            Special::End => scalar(seconds(self.end_ms)),
            Special::Step => scalar(seconds(self.interval_ms)),
            Special::Range => scalar(seconds(self.end_ms - self.start_ms)),
            Special::Time => Ok(Value::Scalar(self.column(steps, |step| seconds(steps.at(step)))?)),
            Special::MinOf | Special::MaxOf => {
                let [left, right] = args else { return Err(arity(name)) };
                let pairs = self.scalar(left, steps)?.into_iter().zip(self.scalar(right, steps)?);
                let pick = if matches!(special, Special::MinOf) { cell::min } else { cell::max };
                Ok(Value::Scalar(pairs.map(|(l, r)| pick(l, r)).collect()))
            }
            Special::Scalar => {
                let rows = self.rows(first(name, args)?, steps)?;
                self.only_numbers(&rows, steps).map(Value::Scalar)
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
                    if high < low { absent() } else { cell::max(low, cell::min(high, cell)) }
                };
                let rows = self.each_cell(rows, clamp)?;
                Ok(Value::Rows(rows.into_iter().filter(Row::has_any).collect()))
            }
            Special::Sort | Special::SortDesc => {
                let mut rows = numbers(self.rows(first(name, args)?, steps)?);
                if steps.count == 1 {
                    let down = matches!(special, Special::SortDesc);
                    rows.sort_by(|a, b| by_value(a.cells[0], b.cells[0], down));
                }
                Ok(Value::Rows(rows))
            }
            Special::SortByLabel | Special::SortByLabelDesc => {
                let mut rows = self.rows(first(name, args)?, steps)?;
                let names = texts(&args[1..])?;
                rows.sort_by(|a, b| by_labels(&a.labels, &b.labels, &names));
                if matches!(special, Special::SortByLabelDesc) {
                    rows.reverse();
                }
                Ok(Value::Rows(rows))
            }
            Special::LabelReplace => self.label_replace(args, steps).map(Value::Rows),
            Special::LabelJoin => self.label_join(args, steps).map(Value::Rows),
            Special::HistogramQuantile | Special::HistogramFraction => {
                let vector = arg_of(args, Kind::Vector)?;
                let rows = self.rows(vector, steps)?;
                let scalars = self.by_step(&self.scalars(args, steps)?, steps)?;
                let places = (first(name, args)?.place_among(args), vector.place_among(args));
                self.estimates(name, rows, &scalars, places, steps).map(Value::Rows)
            }
            Special::HistogramQuantiles => self.quantiles(args, steps).map(Value::Rows),
            Special::HistogramOnly(of) => {
                let rows = self.rows(first(name, args)?, steps)?;
                self.of_histograms(rows, |_, histogram| of(histogram)).map(Value::Rows)
            }
            Special::Info => self.info(args, steps).map(Value::Rows),
        }
    }

    /// `histogram_quantiles(v, "label", q..)`: each quantile under a label of its own.
    fn quantiles(&self, all_args: &[Expr], steps: Steps) -> Result<Vec<Row>, QueryError> {
        let [vector, label, quantiles @ ..] = all_args else { return Err(arity("histogram_quantiles")) };
        let label = &texts(std::slice::from_ref(label))?[0];
        label::check_name(label, "histogram_quantiles").map_err(QueryError::Execution)?;
        let rows = self.rows(vector, steps)?;
        let mut all: Vec<Row> = Vec::new();
        for quantile in quantiles {
            let cells = self.scalar(quantile, steps)?;
            let args = self.by_step(std::slice::from_ref(&cells), steps)?;
            let places = (quantile.place_among(all_args), vector.place_among(all_args));
            // A quantile may differ from step to step; then so does the label.
            let mut steps_of: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
            cells.iter().enumerate().for_each(|(step, q)| steps_of.entry(q.to_bits()).or_default().push(step));
            for row in self.estimates("histogram_quantile", rows.clone(), &args, places, steps)? {
                for (q, at) in &steps_of {
                    if at.iter().all(|step| is_absent(row.cells[*step])) {
                        continue;
                    }
                    self.budget.check()?;
                    self.take_rows(1, steps)?;
                    let mut kept = vec![absent(); steps.count];
                    at.iter().for_each(|step| kept[*step] = row.cells[*step]);
                    let labels = with(&row.labels, [(label.clone(), open_metrics_float(f64::from_bits(*q)))]);
                    all.push(row.with_cells(labels, kept));
                }
            }
        }
        self.merge(all)
    }

    fn timestamp(&self, vector: &Expr, steps: Steps) -> Result<Vec<Row>, QueryError> {
        if let Expr::Selector(selector) = vector.without_parens() {
            let rows = self.instant_times(selector, steps)?;
            return self.nameless(rows);
        }
        let mut rows = self.rows(vector, steps)?;
        let seconds = |step: usize| steps.at(step) as f64 / 1000.0;
        rows.iter_mut().for_each(|row| each_histogram(row, |step, _| Some(Cell::Float(seconds(step)))));
        self.each_cell(rows, |step, _| seconds(step))
    }

    fn absent(&self, vector: &Expr, steps: Steps) -> Result<Vec<Row>, QueryError> {
        let rows = self.rows(vector, steps)?;
        let labels = match vector.without_parens() {
            Expr::Selector(selector) => implied_labels(selector),
            _ => Labels::empty(),
        };
        self.where_nothing(&rows, labels, steps)
    }

    fn absent_over_time(&self, range: &Expr, steps: Steps) -> Result<Vec<Row>, QueryError> {
        let labels = match range.without_parens() {
            Expr::Range { selector, .. } => implied_labels(selector),
            _ => Labels::empty(),
        };
        let ranged = self.ranged(range, steps)?;
        // Labels do not matter here, and names that fall together would be an error.
        let here = self.notes.at(place_of(range));
        let rows = self.windows_of(|_| Some(1.0), Some(|_| Some(Cell::Float(1.0))), ranged, &[], here, steps)?;
        self.where_nothing(&rows, labels, steps)
    }

    /// 1 at the steps at which no row has a sample.
    fn where_nothing(&self, rows: &[Row], labels: Labels, steps: Steps) -> Result<Vec<Row>, QueryError> {
        let mut cells = self.column(steps, |_| 1.0)?;
        let mut pace = self.pace();
        for row in rows {
            pace.work(steps.count)?;
            let present = cells.iter_mut().zip(&row.cells).filter(|(_, there)| !is_absent(**there));
            present.for_each(|(cell, _)| *cell = absent());
        }
        Ok(Some(Row::new(labels, cells)).into_iter().filter(Row::has_any).collect())
    }

    /// Of each step the only number that there is; NaN where there are none or several.
    fn only_numbers(&self, rows: &[Row], steps: Steps) -> Result<Vec<f64>, QueryError> {
        let mut only = self.column(steps, |_| absent())?;
        let mut pace = self.pace();
        for row in rows {
            pace.work(steps.count)?;
            for (cell, number) in only.iter_mut().zip(&row.cells).filter(|(_, number)| is_float(**number)) {
                *cell = if is_absent(*cell) { *number } else { f64::NAN };
            }
        }
        // A lone NaN and several numbers look the same, as they shall.
        only.iter_mut().filter(|cell| is_absent(**cell)).for_each(|cell| *cell = f64::NAN);
        Ok(only)
    }

    fn label_replace(&self, args: &[Expr], steps: Steps) -> Result<Vec<Row>, QueryError> {
        let rows = self.rows(first("label_replace", args)?, steps)?;
        utf8(args.get(1), "destination", "label_replace")?;
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
        self.merge(rows.into_iter().map(renamed).collect())
    }

    fn label_join(&self, args: &[Expr], steps: Steps) -> Result<Vec<Row>, QueryError> {
        let rows = self.rows(first("label_join", args)?, steps)?;
        utf8(args.get(1), "destination", "label_join")?;
        for source in args.iter().skip(3) {
            utf8(Some(source), "source", "label_join")?;
        }
        let texts = texts(&args[1..])?;
        let [target, separator, sources @ ..] = texts.as_slice() else { return Err(arity("label_join")) };
        label::check_name(target, "label_join").map_err(QueryError::Execution)?;
        if sources.iter().any(String::is_empty) {
            return Err(QueryError::execution("invalid source label name in label_join(): "));
        }
        let joined = |mut row: Row| {
            row.labels = label::join(&row.labels, target, separator, sources);
            row.drop_name &= target != METRIC_NAME;
            row
        };
        self.merge(rows.into_iter().map(joined).collect())
    }
}

/// Rows without histograms, and without rows that were nothing else.
fn numbers(rows: Vec<Row>) -> Vec<Row> {
    if rows.iter().any(Row::has_histograms) {
        return rows.into_iter().map(Row::floats_only).filter(Row::has_any).collect();
    }
    rows
}

/// Labels that a series missed by this selector would surely have had: those asked for once, by equality.
fn implied_labels(selector: &Selector) -> Labels {
    let matchers: Vec<_> = selector.matchers.iter().filter(|matcher| matcher.name != METRIC_NAME).collect();
    let once = |name: &str| matchers.iter().filter(|matcher| matcher.name == name).count() == 1;
    Labels::new(
        matchers
            .iter()
            .filter(|matcher| matches!(matcher.op, MatchOp::Equal) && once(&matcher.name))
            .map(|matcher| Label { name: matcher.name.as_str().into(), value: matcher.value.as_str().into() }),
    )
}

/// A number as OpenMetrics has it in labels: with a point, or an exponent.
fn open_metrics_float(value: f64) -> String {
    let text = short(value);
    if value.is_finite() && !text.contains(['.', 'e']) { text + ".0" } else { text }
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

/// The names of labels are UTF-8, though strings need not be.
fn utf8(arg: Option<&Expr>, which: &str, function: &str) -> Result<(), QueryError> {
    match arg.map(Expr::without_parens) {
        Some(Expr::Text { value, .. }) if std::str::from_utf8(value).is_err() => {
            let name = quoted(value);
            Err(QueryError::Execution(format!(
                "invalid {which} label name in {function}(): {}",
                name.trim_matches('"')
            )))
        }
        _ => Ok(()),
    }
}

fn texts(args: &[Expr]) -> Result<Vec<String>, QueryError> {
    let text = |arg: &Expr| match arg.without_parens() {
        Expr::Text { value, .. } => Ok(String::from_utf8_lossy(value).into_owned()),
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
