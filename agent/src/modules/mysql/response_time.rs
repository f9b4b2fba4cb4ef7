//! Statements by duration, where the server counts them.
//!
//! Source: information_schema.query_response_time of the plugin of that name (MariaDB, Percona Server), when
//!         `query_response_time_stats` is on at login; where the plugin parts reads from writes, its tables `_read` and `_write` too.
//! Shape:  a classic histogram of all statements, and one of each part: `_bucket` by `le`, `_sum`, `_count`.
//! Units:  seconds.
//! Errors: `Absent` where there is no such plugin, or it does not count.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use lampad_proto::v1::MetricType;

use super::dialect::Server;
use super::rows::Row;
use super::session::Session;
use crate::module::{Desc, Module, ModuleError};
use crate::tick::Tick;

/// Asked at login: has a row where the plugin parts reads from writes. Percona Server installs each table on its own.
pub const SPLIT: &str = "SELECT COUNT(*) FROM information_schema.plugins WHERE plugin_status = 'ACTIVE' AND \
                         plugin_name IN ('QUERY_RESPONSE_TIME_READ', 'QUERY_RESPONSE_TIME_WRITE') HAVING COUNT(*) = 2";

/// What is counted apart, as the family's name has it, the table that has it, and the help.
const PARTS: [(&str, &str, &str); 3] = [
    ("", "", "The number of all queries by duration they took to execute."),
    ("read_", "_READ", "The number of read queries by duration they took to execute."),
    ("write_", "_WRITE", "The number of write queries by duration they took to execute."),
];

pub struct ResponseTime {
    session: Arc<Session>,
    histograms: [Histogram; 3],
}

impl ResponseTime {
    pub fn new(session: Arc<Session>) -> Self {
        Self { session, histograms: PARTS.map(|(part, _, help)| Histogram::new(part, help)) }
    }
}

struct Histogram {
    part: &'static str,
    bucket: Desc,
    sum: Desc,
    count: Desc,
}

impl Histogram {
    fn new(part: &'static str, help: &'static str) -> Self {
        let family = |suffix: &str| {
            let name = format!("mysql_info_schema_{part}query_response_time_seconds{suffix}");
            Desc::named(MetricType::Histogram, name, help)
        };
        Self { part, bucket: family("_bucket").labels(&["le"]), sum: family("_sum"), count: family("_count") }
    }

    fn push<'a>(&self, rows: impl Iterator<Item = Row<'a>>, out: &mut Tick) {
        let (mut count, mut sum) = (0.0, 0.0);
        for row in rows {
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

/// All tables at once, so that the parts are of one moment.
fn statement(server: &Server) -> Result<Cow<'static, str>, ModuleError> {
    if !server.query_response_time {
        return Err(ModuleError::Absent { what: "the plugin query_response_time, switched on".into() });
    }
    let parts = if server.query_response_time_split { &PARTS[..] } else { &PARTS[..1] };
    let select = |(part, table, _): &(&str, &str, &str)| {
        format!("SELECT '{part}' AS part, TIME, COUNT, TOTAL FROM INFORMATION_SCHEMA.QUERY_RESPONSE_TIME{table}")
    };
    Ok(Cow::Owned(parts.iter().map(select).collect::<Vec<_>>().join(" UNION ALL ")))
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
        let of = |one: &Histogram| [one.bucket.clone(), one.sum.clone(), one.count.clone()];
        self.histograms.iter().flat_map(of).collect()
    }

    async fn sample(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let answer = self.session.query("query_response_time", statement).await?;
        for histogram in &self.histograms {
            let mut rows = answer.rows.iter().filter(|row| row.get("part") == Some(histogram.part)).peekable();
            if rows.peek().is_some() {
                histogram.push(rows, out);
            }
        }
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
