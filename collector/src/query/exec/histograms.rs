//! `histogram_quantile`, `histogram_fraction` and the functions that take one number out of a native histogram.

use std::collections::HashMap;

use crate::query::QueryError;
use crate::query::functions::histogram::{self, Bucket};
use crate::query::histogram::{Histogram, Nans};
use crate::query::plan::Place;
use crate::query::value::{Cell, Row, absent, filter, is_absent};
use crate::store::{Labels, METRIC_NAME};

use super::aggregate::check_quantile;
use super::selector::map_rows;
use super::{Eval, Here, merge};

impl Eval<'_> {
    /// Over classic buckets and native histograms alike; an instant that has both for the same labels has no result.
    pub fn estimates(
        &self,
        name: &str,
        rows: Vec<Row>,
        args: &[Vec<f64>],
        places: (Place, Place),
    ) -> Result<Vec<Row>, QueryError> {
        let (at_args, here) = (self.notes.at(places.0), self.notes.at(places.1));
        let is_quantile = name == "histogram_quantile";
        if is_quantile {
            args.iter().for_each(|args| check_quantile(args[0], at_args));
        }
        let native: Vec<Row> = rows.iter().filter(|row| row.has_histograms()).cloned().collect();
        let mut native = self.of_histograms(native, |step, histogram| {
            let args = &args[step];
            let estimate = if is_quantile { histogram.quantile(args[0]) } else { histogram.fraction(args[0], args[1]) };
            note_nans(estimate.nans, at_args);
            estimate.value
        })?;
        let rows = rows.into_iter().map(Row::floats_only).filter(Row::has_any).collect();
        let mut classic = self.classic_histograms(name, rows, args, here)?;
        if native.is_empty() {
            return Ok(classic);
        }
        let mut by_labels: HashMap<Labels, &mut Row> =
            native.iter_mut().map(|row| (filter(&row.labels, |name| name != METRIC_NAME), row)).collect();
        for row in &mut classic {
            let Some(other) = by_labels.get_mut(&row.labels) else { continue };
            for (one, two) in row.cells.iter_mut().zip(&mut other.cells) {
                if !is_absent(*one) && !is_absent(*two) {
                    here.warn("vector contains a mix of classic and native histograms");
                    (*one, *two) = (absent(), absent());
                }
            }
        }
        let mut all = classic;
        all.extend(native);
        all.retain(Row::has_any);
        merge(all)
    }

    /// One number of each histogram; numbers have none of it and are left out.
    pub fn of_histograms(
        &self,
        rows: Vec<Row>,
        number: impl Fn(usize, &Histogram) -> f64,
    ) -> Result<Vec<Row>, QueryError> {
        let rows = rows.into_iter().filter(Row::has_histograms).map(|row| {
            let mut numbers = Row::blank(row.labels.clone(), row.cells.len()).dropping(row.drop_name);
            for step in 0..row.cells.len() {
                numbers.set(step, row.histogram(step).map(|histogram| Cell::Float(number(step, histogram))));
            }
            numbers
        });
        self.nameless(rows.filter(Row::has_any).collect())
    }

    /// `histogram_quantile` and `histogram_fraction` over classic buckets.
    fn classic_histograms(
        &self,
        name: &str,
        rows: Vec<Row>,
        args: &[Vec<f64>],
        here: Here<'_>,
    ) -> Result<Vec<Row>, QueryError> {
        let is_quantile = name == "histogram_quantile";
        let mut order: Vec<Labels> = Vec::new();
        let mut groups: HashMap<Labels, Vec<(f64, Row)>> = HashMap::new();
        for row in rows {
            let le = row.labels.get("le").map(|le| &**le).unwrap_or("");
            let Some(upper) = bound(le) else {
                let metric = row.labels.metric().map_or(String::new(), |name| format!(" for metric name {name:?}"));
                here.warn(&format!("bucket label \"le\" is missing or has a malformed value of {le:?}{metric}"));
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
            if any_fixed && is_quantile {
                here.info(
                    "input to histogram_quantile needed to be fixed for monotonicity (see \
                     https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)",
                );
            }
            Row::new(labels, cells)
        }))
    }
}

fn note_nans(nans: Nans, here: Here<'_>) {
    here.info(match nans {
        Nans::None => return,
        Nans::Result => "input to histogram_quantile has NaN observations, result is NaN",
        Nans::Skewed => "input to histogram_quantile has NaN observations, result is skewed higher",
        Nans::Excluded => "input to histogram_fraction has NaN observations, which are excluded from all fractions",
    });
}

/// An upper bound as labels write it.
fn bound(le: &str) -> Option<f64> {
    // Rust reads "infinity" and the like too, as Go does.
    le.parse().ok()
}
