//! Statements by digest: what the server's time goes to.
//!
//! Source: performance_schema.events_statements_summary_by_digest, digests seen within a day. Right: SELECT on
//!         performance_schema.
//! Shape:  counters by schema and digest; the text is a label that stays as it was when the digest was chosen. See
//!         [`super::table`] for how many there are. From MySQL 8.0 on quantiles of the latency too.
//! Units:  seconds (the server counts picoseconds), rows.
//! Errors: `Absent` where performance_schema is off.

use std::borrow::Cow;

use super::dialect::{Right, Server};
use super::table::{Family, Objects, Statement, Table, with_performance_schema};
use crate::module::{Desc, Tier};

const LABELS: &[&str] = &["schema", "digest", "digest_text"];
const QUANTILE_LABELS: &[&str] = &["schema", "digest", "digest_text", "quantile"];
const QUANTILE: Desc =
    Desc::gauge("mysql_perf_schema_events_statements_latency", "Latency that this share of statements stays below.")
        .labels(QUANTILE_LABELS);

macro_rules! sum {
    ($name:literal, $column:literal) => {
        Family::new(
            Desc::counter(
                concat!("mysql_perf_schema_events_statements_", $name),
                concat!("Sum of ", $column, " by statement digest."),
            )
            .labels(LABELS),
            $column,
        )
    };
}

pub static STATEMENTS: Table = Table {
    name: "mysql.statements",
    collector: "collect.perf_schema.eventsstatements",
    tier: Tier::Heavy,
    right: Some(Right::PerformanceSchema),
    statement: by_digest,
    objects: Objects::Counted { key: 2 },
    labels: LABELS,
    families: &[
        sum!("total", "count_star"),
        sum!("seconds_total", "sum_timer_wait").picoseconds(),
        sum!("lock_time_seconds_total", "sum_lock_time").picoseconds(),
        sum!("cpu_time_seconds_total", "sum_cpu_time").picoseconds(),
        sum!("errors_total", "sum_errors"),
        sum!("warnings_total", "sum_warnings"),
        sum!("rows_affected_total", "sum_rows_affected"),
        sum!("rows_sent_total", "sum_rows_sent"),
        sum!("rows_examined_total", "sum_rows_examined"),
        sum!("tmp_disk_tables_total", "sum_created_tmp_disk_tables"),
        sum!("tmp_tables_total", "sum_created_tmp_tables"),
        sum!("sort_merge_passes_total", "sum_sort_merge_passes"),
        sum!("sort_rows_total", "sum_sort_rows"),
        sum!("no_index_used_total", "sum_no_index_used"),
        sum!("latency_count", "latency_count"),
        sum!("latency_sum", "latency_sum").picoseconds(),
        Family::new(QUANTILE, "quantile_95").part("95").picoseconds().unsummed(),
        Family::new(QUANTILE, "quantile_99").part("99").picoseconds().unsummed(),
        Family::new(QUANTILE, "quantile_999").part("999").picoseconds().unsummed(),
    ],
};

fn by_digest(server: &Server) -> Statement {
    with_performance_schema(server, "")?;
    let cpu = if server.counts_statement_cpu() { "sum_cpu_time" } else { "NULL AS sum_cpu_time" };
    let latency = if server.has_statement_quantiles() {
        "quantile_95, quantile_99, quantile_999, count_star AS latency_count, sum_timer_wait AS latency_sum"
    } else {
        "NULL AS quantile_95, NULL AS quantile_99, NULL AS quantile_999, NULL AS latency_count, NULL AS latency_sum"
    };
    Ok(Cow::Owned(format!(
        "SELECT schema_name AS `schema`, digest, LEFT(digest_text, 120) AS digest_text, count_star, sum_timer_wait, \
         sum_lock_time, {cpu}, sum_errors, sum_warnings, sum_rows_affected, sum_rows_sent, sum_rows_examined, \
         sum_created_tmp_disk_tables, sum_created_tmp_tables, sum_sort_merge_passes, sum_sort_rows, sum_no_index_used, \
         {latency} FROM performance_schema.events_statements_summary_by_digest \
         WHERE schema_name NOT IN ('mysql', 'performance_schema', 'information_schema') \
         AND last_seen > NOW() - INTERVAL 1 DAY ORDER BY sum_timer_wait DESC"
    )))
}
