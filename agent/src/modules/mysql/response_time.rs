//! Statements by duration, where the server counts them.
//!
//! Source: information_schema.query_response_time of the plugin of that name (MariaDB, Percona Server), when
//!         `query_response_time_stats` is on at login. Percona 5.6 and 5.7 split reads and writes; that split is not read.
//! Shape:  a classic histogram: `_bucket` by `le`, `_sum`, `_count`.
//! Units:  seconds.
//! Errors: `Absent` where there is no such plugin, or it does not count.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use lampad_proto::v1::MetricType;

use super::rows::Rows;
use super::session::Session;
use crate::module::{Desc, Module, ModuleError};
use crate::tick::Tick;

const HELP: &str = "The number of all queries by duration they took to execute.";
const STATEMENT: &str = "SELECT TIME, COUNT, TOTAL FROM INFORMATION_SCHEMA.QUERY_RESPONSE_TIME";

pub struct ResponseTime {
    session: Arc<Session>,
    bucket: Desc,
    sum: Desc,
    count: Desc,
}

impl ResponseTime {
    pub fn new(session: Arc<Session>) -> Self {
        let part = |suffix: &str| {
            let name = format!("mysql_info_schema_query_response_time_seconds{suffix}");
            Desc::named(MetricType::Histogram, name, HELP)
        };
        Self { session, bucket: part("_bucket").labels(&["le"]), sum: part("_sum"), count: part("_count") }
    }

    fn push(&self, rows: &Rows, out: &mut Tick) {
        let (mut count, mut sum) = (0.0, 0.0);
        for row in rows.iter() {
            count += row.number("count").unwrap_or(0.0);
            sum += row.number("total").unwrap_or(0.0);
            // The last row, TOO LONG, has no bound: it counts for +Inf only.
            if let Some(bound) = row.number("time").filter(|bound| *bound > 0.0) {
                out.push(&self.bucket, &[&bound_label(bound)], count);
            }
        }
        out.push(&self.bucket, &["+Inf"], count);
        out.push(&self.sum, &[], sum);
        out.push(&self.count, &[], count);
    }
}

/// As Prometheus' client for Go writes bounds, so that both give the same series: exponents below 1e-4 and from 1e21 on, of
/// at least two digits; the exporter's own client writes 1e+06 for a million, as `%g` does.
fn bound_label(bound: f64) -> String {
    if (1e-4..1e6).contains(&bound) {
        return bound.to_string();
    }
    let written = format!("{bound:e}");
    let (mantissa, exponent) = written.split_once('e').unwrap_or((&written, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

#[async_trait]
impl Module for ResponseTime {
    fn descs(&self) -> Vec<Desc> {
        vec![self.bucket.clone(), self.sum.clone(), self.count.clone()]
    }

    async fn sample(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let answer = self.session.query("query_response_time", |server| {
            if server.query_response_time {
                return Ok(Cow::Borrowed(STATEMENT));
            }
            Err(ModuleError::Absent { what: "the plugin query_response_time, switched on".into() })
        });
        self.push(&answer.await?.rows, out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_written_as_the_exporter_does() {
        let table = [
            (1e-6, "1e-06"),
            (1e-5, "1e-05"),
            (1e-4, "0.0001"),
            (0.1, "0.1"),
            (1.0, "1"),
            (1e5, "100000"),
            (1e6, "1e+06"),
        ];
        for (bound, label) in table {
            assert_eq!(bound_label(bound), label);
        }
    }
}
