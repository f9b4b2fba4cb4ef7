//! Tables of performance_schema, each a module that is off unless asked for.
//!
//! Source: the summaries by table, index, file and event. Right: SELECT on performance_schema.
//! Shape:  counters by object, and by operation or mode.
//! Units:  seconds (the server counts picoseconds), bytes.
//! Errors: `Absent` where performance_schema is off.

use super::dialect::Right;
use super::table::{Family, Objects, Table, with_performance_schema};
use crate::module::{Desc, Tier};

const fn counter(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Desc {
    Desc::counter(name, help).labels(labels)
}

const BY_TABLE: &[&str] = &["schema", "name", "operation"];
const TABLE_IO: Desc =
    counter("mysql_perf_schema_table_io_waits_total", "Table I/O waits by table and operation.", BY_TABLE);
const TABLE_IO_SECONDS: Desc =
    counter("mysql_perf_schema_table_io_waits_seconds_total", "Time of table I/O waits.", BY_TABLE);

pub static TABLE_IO_WAITS: Table = Table {
    name: "mysql.table_io_waits",
    collector: "collect.perf_schema.tableiowaits",
    tier: Tier::Heavy,
    right: Some(Right::PerformanceSchema),
    statement: |server| {
        with_performance_schema(
            server,
            "SELECT object_schema AS `schema`, object_name AS name, count_fetch, count_insert, count_update, \
             count_delete, sum_timer_fetch, sum_timer_insert, sum_timer_update, sum_timer_delete \
             FROM performance_schema.table_io_waits_summary_by_table \
             WHERE object_schema NOT IN ('mysql', 'performance_schema') ORDER BY sum_timer_wait DESC",
        )
    },
    objects: Objects::Counted { key: 2 },
    labels: &["schema", "name"],
    families: &[
        Family::new(TABLE_IO, "count_fetch").part("fetch"),
        Family::new(TABLE_IO, "count_insert").part("insert"),
        Family::new(TABLE_IO, "count_update").part("update"),
        Family::new(TABLE_IO, "count_delete").part("delete"),
        Family::new(TABLE_IO_SECONDS, "sum_timer_fetch").part("fetch").picoseconds(),
        Family::new(TABLE_IO_SECONDS, "sum_timer_insert").part("insert").picoseconds(),
        Family::new(TABLE_IO_SECONDS, "sum_timer_update").part("update").picoseconds(),
        Family::new(TABLE_IO_SECONDS, "sum_timer_delete").part("delete").picoseconds(),
    ],
};

const BY_INDEX: &[&str] = &["schema", "name", "index", "operation"];
const INDEX_IO: Desc =
    counter("mysql_perf_schema_index_io_waits_total", "Index I/O waits by index and operation.", BY_INDEX);
const INDEX_IO_SECONDS: Desc =
    counter("mysql_perf_schema_index_io_waits_seconds_total", "Time of index I/O waits.", BY_INDEX);

/// Inserts are counted for the table as a whole, which is the row without an index.
pub static INDEX_IO_WAITS: Table = Table {
    name: "mysql.index_io_waits",
    collector: "collect.perf_schema.indexiowaits",
    tier: Tier::Heavy,
    right: Some(Right::PerformanceSchema),
    statement: |server| {
        with_performance_schema(
            server,
            "SELECT object_schema AS `schema`, object_name AS name, COALESCE(index_name, 'NONE') AS `index`, \
             count_fetch, sum_timer_fetch, count_update, sum_timer_update, count_delete, sum_timer_delete, \
             IF(index_name IS NULL, count_insert, NULL) AS inserts, \
             IF(index_name IS NULL, sum_timer_insert, NULL) AS insert_time \
             FROM performance_schema.table_io_waits_summary_by_index_usage \
             WHERE object_schema NOT IN ('mysql', 'performance_schema') ORDER BY sum_timer_wait DESC",
        )
    },
    objects: Objects::Counted { key: 3 },
    labels: &["schema", "name", "index"],
    families: &[
        Family::new(INDEX_IO, "count_fetch").part("fetch"),
        Family::new(INDEX_IO, "inserts").part("insert"),
        Family::new(INDEX_IO, "count_update").part("update"),
        Family::new(INDEX_IO, "count_delete").part("delete"),
        Family::new(INDEX_IO_SECONDS, "sum_timer_fetch").part("fetch").picoseconds(),
        Family::new(INDEX_IO_SECONDS, "insert_time").part("insert").picoseconds(),
        Family::new(INDEX_IO_SECONDS, "sum_timer_update").part("update").picoseconds(),
        Family::new(INDEX_IO_SECONDS, "sum_timer_delete").part("delete").picoseconds(),
    ],
};

const SQL_LOCKS: Desc =
    counter("mysql_perf_schema_sql_lock_waits_total", "Waits for table locks of SQL by table and operation.", BY_TABLE);
const SQL_LOCK_SECONDS: Desc =
    counter("mysql_perf_schema_sql_lock_waits_seconds_total", "Time of waits for table locks of SQL.", BY_TABLE);
const EXTERNAL_LOCKS: Desc =
    counter("mysql_perf_schema_external_lock_waits_total", "Waits for locks of the storage engine.", BY_TABLE);
const EXTERNAL_LOCK_SECONDS: Desc =
    counter("mysql_perf_schema_external_lock_waits_seconds_total", "Time of waits for the engine's locks.", BY_TABLE);

pub static TABLE_LOCKS: Table = Table {
    name: "mysql.table_locks",
    collector: "collect.perf_schema.tablelocks",
    tier: Tier::Heavy,
    right: Some(Right::PerformanceSchema),
    statement: |server| {
        with_performance_schema(
            server,
            "SELECT t.*, object_schema AS `schema`, object_name AS name \
             FROM performance_schema.table_lock_waits_summary_by_table t \
             WHERE object_schema NOT IN ('mysql', 'performance_schema', 'information_schema') \
             ORDER BY sum_timer_wait DESC",
        )
    },
    objects: Objects::Counted { key: 2 },
    labels: &["schema", "name"],
    families: &[
        Family::new(SQL_LOCKS, "count_read_normal").part("read_normal"),
        Family::new(SQL_LOCKS, "count_read_with_shared_locks").part("read_with_shared_locks"),
        Family::new(SQL_LOCKS, "count_read_high_priority").part("read_high_priority"),
        Family::new(SQL_LOCKS, "count_read_no_insert").part("read_no_insert"),
        Family::new(SQL_LOCKS, "count_write_normal").part("write_normal"),
        Family::new(SQL_LOCKS, "count_write_allow_write").part("write_allow_write"),
        Family::new(SQL_LOCKS, "count_write_concurrent_insert").part("write_concurrent_insert"),
        Family::new(SQL_LOCKS, "count_write_low_priority").part("write_low_priority"),
        Family::new(SQL_LOCK_SECONDS, "sum_timer_read_normal").part("read_normal").picoseconds(),
        Family::new(SQL_LOCK_SECONDS, "sum_timer_read_with_shared_locks").part("read_with_shared_locks").picoseconds(),
        Family::new(SQL_LOCK_SECONDS, "sum_timer_read_high_priority").part("read_high_priority").picoseconds(),
        Family::new(SQL_LOCK_SECONDS, "sum_timer_read_no_insert").part("read_no_insert").picoseconds(),
        Family::new(SQL_LOCK_SECONDS, "sum_timer_write_normal").part("write_normal").picoseconds(),
        Family::new(SQL_LOCK_SECONDS, "sum_timer_write_allow_write").part("write_allow_write").picoseconds(),
        Family::new(SQL_LOCK_SECONDS, "sum_timer_write_concurrent_insert")
            .part("write_concurrent_insert")
            .picoseconds(),
        Family::new(SQL_LOCK_SECONDS, "sum_timer_write_low_priority").part("write_low_priority").picoseconds(),
        Family::new(EXTERNAL_LOCKS, "count_read_external").part("read"),
        Family::new(EXTERNAL_LOCKS, "count_write_external").part("write"),
        Family::new(EXTERNAL_LOCK_SECONDS, "sum_timer_read_external").part("read").picoseconds(),
        Family::new(EXTERNAL_LOCK_SECONDS, "sum_timer_write_external").part("write").picoseconds(),
    ],
};

const BY_EVENT: &[&str] = &["event_name"];

pub static EVENTS_WAITS: Table = Table {
    name: "mysql.events_waits",
    collector: "collect.perf_schema.eventswaits",
    tier: Tier::Heavy,
    right: Some(Right::PerformanceSchema),
    statement: |server| {
        with_performance_schema(
            server,
            "SELECT event_name, count_star, sum_timer_wait \
             FROM performance_schema.events_waits_summary_global_by_event_name",
        )
    },
    objects: Objects::Fixed,
    labels: BY_EVENT,
    families: &[
        Family::new(counter("mysql_perf_schema_events_waits_total", "Waits by event.", BY_EVENT), "count_star"),
        Family::new(
            counter("mysql_perf_schema_events_waits_seconds_total", "Time of waits by event.", BY_EVENT),
            "sum_timer_wait",
        )
        .picoseconds(),
    ],
};

const BY_EVENT_MODE: &[&str] = &["event_name", "mode"];
const FILE: Desc = counter("mysql_perf_schema_file_events_total", "File events by mode.", BY_EVENT_MODE);
const FILE_SECONDS: Desc =
    counter("mysql_perf_schema_file_events_seconds_total", "Time of file events by mode.", BY_EVENT_MODE);
const FILE_BYTES: Desc =
    counter("mysql_perf_schema_file_events_bytes_total", "Bytes of file events by mode.", BY_EVENT_MODE);

pub static FILE_EVENTS: Table = Table {
    name: "mysql.file_events",
    collector: "collect.perf_schema.file_events",
    tier: Tier::Heavy,
    right: Some(Right::PerformanceSchema),
    statement: |server| {
        with_performance_schema(
            server,
            "SELECT event_name, count_read, sum_timer_read, sum_number_of_bytes_read, count_write, sum_timer_write, \
             sum_number_of_bytes_write, count_misc, sum_timer_misc FROM performance_schema.file_summary_by_event_name",
        )
    },
    objects: Objects::Fixed,
    labels: BY_EVENT,
    families: &[
        Family::new(FILE, "count_read").part("read"),
        Family::new(FILE, "count_write").part("write"),
        Family::new(FILE, "count_misc").part("misc"),
        Family::new(FILE_SECONDS, "sum_timer_read").part("read").picoseconds(),
        Family::new(FILE_SECONDS, "sum_timer_write").part("write").picoseconds(),
        Family::new(FILE_SECONDS, "sum_timer_misc").part("misc").picoseconds(),
        Family::new(FILE_BYTES, "sum_number_of_bytes_read").part("read"),
        Family::new(FILE_BYTES, "sum_number_of_bytes_write").part("write"),
    ],
};

const BY_FILE: &[&str] = &["file_name", "event_name", "mode"];
const INSTANCE: Desc = counter("mysql_perf_schema_file_instances_total", "Operations of a file by mode.", BY_FILE);
const INSTANCE_BYTES: Desc = counter("mysql_perf_schema_file_instances_bytes", "Bytes of a file by mode.", BY_FILE);

pub static FILE_INSTANCES: Table = Table {
    name: "mysql.file_instances",
    collector: "collect.perf_schema.file_instances",
    tier: Tier::Heavy,
    right: Some(Right::PerformanceSchema),
    statement: |server| {
        with_performance_schema(
            server,
            "SELECT TRIM(LEADING '/var/lib/mysql/' FROM file_name) AS file_name, event_name, count_read, count_write, \
             sum_number_of_bytes_read, sum_number_of_bytes_write FROM performance_schema.file_summary_by_instance \
             ORDER BY sum_timer_wait DESC",
        )
    },
    objects: Objects::Counted { key: 2 },
    labels: &["file_name", "event_name"],
    families: &[
        Family::new(INSTANCE, "count_read").part("read"),
        Family::new(INSTANCE, "count_write").part("write"),
        Family::new(INSTANCE_BYTES, "sum_number_of_bytes_read").part("read"),
        Family::new(INSTANCE_BYTES, "sum_number_of_bytes_write").part("write"),
    ],
};

pub static MEMORY_EVENTS: Table = Table {
    name: "mysql.memory_events",
    collector: "collect.perf_schema.memory_events",
    tier: Tier::Heavy,
    right: Some(Right::PerformanceSchema),
    statement: |server| {
        with_performance_schema(
            server,
            "SELECT TRIM(LEADING 'memory/' FROM event_name) AS event_name, sum_number_of_bytes_alloc, \
             sum_number_of_bytes_free, current_number_of_bytes_used \
             FROM performance_schema.memory_summary_global_by_event_name WHERE count_alloc > 0",
        )
    },
    objects: Objects::Fixed,
    labels: BY_EVENT,
    families: &[
        Family::new(
            counter("mysql_perf_schema_memory_events_alloc_bytes_total", "Bytes allocated.", BY_EVENT),
            "sum_number_of_bytes_alloc",
        ),
        Family::new(
            counter("mysql_perf_schema_memory_events_free_bytes_total", "Bytes freed.", BY_EVENT),
            "sum_number_of_bytes_free",
        ),
        Family::new(
            Desc::gauge("mysql_perf_schema_memory_events_used_bytes", "Bytes allocated now.").labels(BY_EVENT),
            "current_number_of_bytes_used",
        ),
    ],
};

macro_rules! sum {
    ($part:literal, $column:literal) => {
        Family::new(
            Desc::counter(
                concat!("mysql_perf_schema_events_statements_sum_", $part),
                concat!("Sum of ", $column, " over all statement digests."),
            ),
            $part,
        )
    };
    ($part:literal) => {
        sum!($part, $part)
    };
}

/// One row: what all statements since the digests were last emptied come to.
pub static STATEMENTS_SUM: Table = Table {
    name: "mysql.statements_sum",
    collector: "collect.perf_schema.eventsstatementssum",
    tier: Tier::Heavy,
    right: Some(Right::PerformanceSchema),
    statement: |server| {
        with_performance_schema(
            server,
            "SELECT SUM(count_star) AS total, SUM(sum_timer_wait) AS timer_wait, SUM(sum_lock_time) AS lock_time, \
             SUM(sum_errors) AS errors, SUM(sum_warnings) AS warnings, SUM(sum_rows_affected) AS rows_affected, \
             SUM(sum_rows_sent) AS rows_sent, SUM(sum_rows_examined) AS rows_examined, \
             SUM(sum_created_tmp_disk_tables) AS created_tmp_disk_tables, \
             SUM(sum_created_tmp_tables) AS created_tmp_tables, SUM(sum_select_full_join) AS select_full_join, \
             SUM(sum_select_full_range_join) AS select_full_range_join, SUM(sum_select_range) AS select_range, \
             SUM(sum_select_range_check) AS select_range_check, SUM(sum_select_scan) AS select_scan, \
             SUM(sum_sort_merge_passes) AS sort_merge_passes, SUM(sum_sort_range) AS sort_range, \
             SUM(sum_sort_rows) AS sort_rows, SUM(sum_sort_scan) AS sort_scan, \
             SUM(sum_no_index_used) AS no_index_used, SUM(sum_no_good_index_used) AS no_good_index_used \
             FROM performance_schema.events_statements_summary_by_digest",
        )
    },
    objects: Objects::Fixed,
    labels: &[],
    families: &[
        sum!("total", "count_star"),
        sum!("timer_wait").picoseconds(),
        // In picoseconds, as mysqld_exporter leaves it.
        sum!("lock_time"),
        sum!("errors"),
        sum!("warnings"),
        sum!("rows_affected"),
        sum!("rows_sent"),
        sum!("rows_examined"),
        sum!("created_tmp_disk_tables"),
        sum!("created_tmp_tables"),
        sum!("select_full_join"),
        sum!("select_full_range_join"),
        sum!("select_range"),
        sum!("select_range_check"),
        sum!("select_scan"),
        sum!("sort_merge_passes"),
        sum!("sort_range"),
        sum!("sort_rows"),
        sum!("sort_scan"),
        sum!("no_index_used"),
        sum!("no_good_index_used"),
    ],
};
