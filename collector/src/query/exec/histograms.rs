//! `histogram_quantile`, `histogram_fraction` and the functions that take one number out of a native histogram.

use std::collections::HashMap;

use crate::query::QueryError;
use crate::query::functions::histogram::{self, Bucket, Fix};
use crate::query::histogram::{Histogram, Nans};
use crate::query::plan::Place;
use crate::query::value::{Cell, Row, Steps, absent, filter, is_absent};
use crate::store::Labels;

use super::aggregate::check_quantile;
use super::notes::Mended;
use super::pace::{ByStep, Pace};
use super::selector::map_rows;
use super::{Eval, Here};

impl Eval<'_> {
    /// Over classic buckets and native histograms alike; an instant that has both for the same labels has no result.
    pub fn estimates(
        &self,
        name: &str,
        rows: Vec<Row>,
        args: &ByStep,
        places: (Place, Place),
        steps: Steps,
    ) -> Result<Vec<Row>, QueryError> {
        let (at_args, here) = (self.notes.at(places.0), self.notes.at(places.1));
        let is_quantile = name == "histogram_quantile";
        if is_quantile {
            args.iter().for_each(|args| check_quantile(args[0], at_args));
        }
        let native: Vec<Row> = rows.iter().filter(|row| row.has_histograms()).cloned().collect();
        self.take_rows(native.len(), steps)?;
        let mut native = numbers_of(native, |row, step, histogram| {
            let args = args.at(step);
            let estimate = if is_quantile { histogram.quantile(args[0]) } else { histogram.fraction(args[0], args[1]) };
            note_nans(estimate.nans, self.lasting_name(row), at_args);
            estimate.value
        });
        let rows = rows.into_iter().map(Row::floats_only).filter(Row::has_any).collect();
        let mut classic = self.classic_histograms(name, rows, args, here, steps)?;
        let mut by_labels: HashMap<Labels, &mut Row> = native.iter_mut().map(|row| (row.labels.clone(), row)).collect();
        for row in &mut classic {
            let Some(other) = by_labels.get_mut(&row.labels) else { continue };
            for (one, two) in row.cells.iter_mut().zip(&mut other.cells) {
                if !is_absent(*one) && !is_absent(*two) {
                    let of_metric = of_metric(name_of(&row.labels));
                    here.warn(&format!("vector contains a mix of classic and native histograms{of_metric}"));
                    (*one, *two) = (absent(), absent());
                }
            }
        }
        let mut all = classic;
        all.extend(native);
        all.retain(Row::has_any);
        self.nameless(all)
    }

    /// The name that a remark on a result bears: with delayed name removal it is still there.
    fn lasting_name<'r>(&self, row: &'r Row) -> &'r str {
        if self.features.delayed_name_removal { name_of(&row.labels) } else { "" }
    }

    /// One number of each histogram; numbers have none of it and are left out.
    pub fn of_histograms(
        &self,
        rows: Vec<Row>,
        number: impl Fn(usize, &Histogram) -> f64,
    ) -> Result<Vec<Row>, QueryError> {
        let steps = rows.first().map_or(0, |row| row.cells.len());
        self.budget.take_bytes((rows.len() as u64).saturating_mul((steps * size_of::<f64>()) as u64))?;
        self.nameless(numbers_of(rows, |_, step, histogram| number(step, histogram)))
    }

    /// `histogram_quantile` and `histogram_fraction` over classic buckets.
    fn classic_histograms(
        &self,
        name: &str,
        rows: Vec<Row>,
        args: &ByStep,
        here: Here<'_>,
        steps: Steps,
    ) -> Result<Vec<Row>, QueryError> {
        let is_quantile = name == "histogram_quantile";
        let delayed = self.features.delayed_name_removal;
        let mut order: Vec<Labels> = Vec::new();
        let mut groups: HashMap<Labels, Vec<(f64, Row)>> = HashMap::new();
        for row in rows {
            let le = row.labels.get("le").map(|le| &**le).unwrap_or("");
            let Some(upper) = bound(le) else {
                let metric = of_metric(name_of(&row.labels));
                here.warn(&format!("bucket label \"le\" is missing or has a malformed value of {le:?}{metric}"));
                continue;
            };
            let key = filter(&row.labels, |name| name != "le");
            let group = groups.entry(key.clone()).or_insert_with(|| {
                order.push(key);
                Vec::new()
            });
            group.push((upper, row));
        }
        self.take_rows(order.len(), steps)?;
        let groups = order.into_iter().filter_map(|key| groups.remove(&key).map(|rows| (key, rows))).collect();
        let rows = map_rows(groups, args.len(), |(labels, rows): (Labels, Vec<(f64, Row)>)| {
            let mut pace = Pace::new(self.budget);
            let cells = args.iter().enumerate().map(|(step, args)| {
                if pace.work(rows.len()).is_err() {
                    return absent(); // the check after the loop tells why
                }
                let present = rows.iter().map(|(upper, row)| Bucket { upper: *upper, count: row.cells[step] });
                let buckets: Vec<_> = present.filter(|bucket| !is_absent(bucket.count)).collect();
                if buckets.is_empty() {
                    return absent();
                }
                let (value, fixed) = match is_quantile {
                    true => histogram::quantile(args[0], buckets),
                    false => histogram::fraction(args[0], args[1], buckets),
                };
                if let Some(Fix { lowest, highest, most }) = fixed.filter(|_| is_quantile) {
                    let of_metric = if delayed { of_metric(name_of(&labels)) } else { String::new() };
                    let at_ms = steps.at(step);
                    let mended = Mended { first_ms: at_ms, last_ms: at_ms, lowest, highest, most, samples: 1 };
                    here.info_of(&format!("{MENDED}{of_metric}"), mended);
                }
                value
            });
            let cells = cells.collect();
            Row::new(labels, cells)
        });
        self.budget.check()?;
        Ok(rows)
    }
}

const MENDED: &str = "input to histogram_quantile needed to be fixed for monotonicity (see \
                      https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)";

fn numbers_of(rows: Vec<Row>, number: impl Fn(&Row, usize, &Histogram) -> f64) -> Vec<Row> {
    let rows = rows.into_iter().filter(Row::has_histograms).map(|row| {
        let mut numbers = Row::blank(row.labels.clone(), row.cells.len()).dropping(row.drop_name);
        for step in 0..row.cells.len() {
            numbers.set(step, row.histogram(step).map(|histogram| Cell::Float(number(&row, step, histogram))));
        }
        numbers
    });
    rows.filter(Row::has_any).collect()
}

fn name_of(labels: &Labels) -> &str {
    labels.metric().map_or("", |name| name)
}

/// The end of a remark on a metric that has a name.
fn of_metric(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" for metric name {name:?}") }
}

fn note_nans(nans: Nans, metric: &str, here: Here<'_>) {
    let text = match nans {
        Nans::None => return,
        Nans::Result => "input to histogram_quantile has NaN observations, result is NaN",
        Nans::Skewed => "input to histogram_quantile has NaN observations, result is skewed higher",
        Nans::Excluded => "input to histogram_fraction has NaN observations, which are excluded from all fractions",
    };
    here.info(&format!("{text}{}", of_metric(metric)));
}

/// An upper bound as labels write it.
fn bound(le: &str) -> Option<f64> {
    // Rust reads "infinity" and the like too, as Go does.
    le.parse().ok()
}
