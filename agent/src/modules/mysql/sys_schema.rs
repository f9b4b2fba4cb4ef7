//! Users as the sys schema sums them up, and what Aurora and MyRocks tell beside.
//!
//! Source: sys.x$user_summary (right: SELECT on sys.* and performance_schema.*), information_schema.replica_host_status (Aurora),
//!         information_schema.rocksdb_perf_context (MyRocks).
//! Shape:  counters and gauges by user; gauges by replica; counters by table and partition.
//! Units:  seconds (sys counts picoseconds, Aurora milliseconds), bytes.
//! Errors: `Absent` on servers that have no such table.

use std::borrow::Cow;

use super::dialect::Right;
use super::table::{Family, Objects, Table, with_performance_schema};
use crate::module::{Desc, ModuleError, Tier};

const BY_USER: &[&str] = &["user"];

const fn counter(name: &'static str, help: &'static str, column: &'static str) -> Family {
    Family::new(Desc::counter(name, help).labels(BY_USER), column)
}

const fn gauge(name: &'static str, help: &'static str, column: &'static str) -> Family {
    Family::new(Desc::gauge(name, help).labels(BY_USER), column)
}

pub static USER_SUMMARY: Table = Table {
    name: "mysql.user_summary",
    collector: "collect.sys.user_summary",
    tier: Tier::Rare,
    right: Some(Right::Sys),
    statement: |server| {
        if !server.has_sys_schema() {
            return Err(ModuleError::Absent { what: "the sys schema".into() });
        }
        with_performance_schema(
            server,
            "SELECT user, statements, statement_latency, table_scans, file_ios, file_io_latency, current_connections, \
             total_connections, unique_hosts, current_memory, total_memory_allocated \
             FROM sys.x$user_summary WHERE user IS NOT NULL ORDER BY statement_latency DESC",
        )
    },
    objects: Objects::Counted { key: 1 },
    labels: BY_USER,
    families: &[
        counter("mysql_sys_statements_total", "Statements of the user.", "statements"),
        counter("mysql_sys_statement_latency", "Time of the user's statements.", "statement_latency").picoseconds(),
        counter("mysql_sys_table_scans_total", "Full scans of tables.", "table_scans"),
        counter("mysql_sys_file_ios_total", "File operations for the user.", "file_ios"),
        counter("mysql_sys_file_io_seconds_total", "Time of file operations.", "file_io_latency").picoseconds(),
        gauge("mysql_sys_current_connections", "Connections of the user now.", "current_connections"),
        counter("mysql_sys_connections_total", "Connections of the user so far.", "total_connections"),
        counter("mysql_sys_unique_hosts_total", "Hosts that the user came from.", "unique_hosts"),
        gauge("mysql_sys_current_memory_bytes", "Memory allocated for the user now.", "current_memory"),
        counter("mysql_sys_memory_allocated_bytes_total", "Memory allocated so far.", "total_memory_allocated"),
    ],
};

const BY_REPLICA: &[&str] = &["server_id", "role"];

const fn of_replica(name: &'static str, help: &'static str, column: &'static str) -> Family {
    Family::new(Desc::gauge(name, help).labels(BY_REPLICA), column)
}

/// Aurora alone has this table.
pub static REPLICA_HOST: Table = Table {
    name: "mysql.replica_host",
    collector: "collect.info_schema.replica_host",
    tier: Tier::Standard,
    right: Some(Right::Process),
    statement: |server| {
        if server.is_mariadb() {
            return Err(ModuleError::Absent { what: "replica_host_status (Amazon Aurora)".into() });
        }
        Ok(Cow::Borrowed(
            "SELECT server_id, IF(session_id = 'MASTER_SESSION_ID', 'writer', 'reader') AS role, cpu, \
             master_slave_latency_in_microseconds / 1000000 AS replica_latency, replica_lag_in_milliseconds / 1000 AS replica_lag, \
             log_stream_speed_in_kib_per_second * 1024 AS log_stream_speed, \
             current_replay_latency_in_microseconds / 1000000 AS replay FROM information_schema.replica_host_status",
        ))
    },
    objects: Objects::Fixed,
    labels: BY_REPLICA,
    families: &[
        of_replica("mysql_info_schema_replica_host_cpu_percent", "CPU use of the replica.", "cpu"),
        of_replica(
            "mysql_info_schema_replica_host_replica_latency_seconds",
            "Latency to the replica.",
            "replica_latency",
        ),
        of_replica("mysql_info_schema_replica_host_lag_seconds", "How far the replica is behind.", "replica_lag"),
        of_replica(
            "mysql_info_schema_replica_host_log_stream_speed",
            "Speed of the log's stream, bytes per second.",
            "log_stream_speed",
        ),
        of_replica("mysql_info_schema_replica_host_replay_latency_seconds", "Latency of applying.", "replay"),
    ],
};

const BY_PART: &[&str] = &["schema", "table", "part"];

macro_rules! rocksdb {
    ($($stat:literal)*) => {
        &[$(Family::new(
            Desc::counter(
                concat!("mysql_info_schema_rocksdb_perf_context_", $stat),
                concat!("RocksDB's ", $stat, " by table and partition."),
            )
            .labels(BY_PART),
            $stat,
        )),*]
    };
}

/// The statistics of MyRocks are rows; each becomes a column.
pub static ROCKSDB: Table = Table {
    name: "mysql.rocksdb_perf_context",
    collector: "collect.info_schema.rocksdb_perf_context",
    tier: Tier::Heavy,
    right: Some(Right::Process),
    statement: |_| {
        let columns: String = ROCKSDB
            .families
            .iter()
            .map(|family| format!(", MAX(IF(stat_type = '{}', value, NULL)) AS {0}", family.column))
            .collect();
        Ok(Cow::Owned(format!(
            "SELECT table_schema AS `schema`, table_name AS `table`, COALESCE(partition_name, '') AS part{columns} \
             FROM information_schema.rocksdb_perf_context GROUP BY 1, 2, 3 ORDER BY SUM(value) DESC"
        )))
    },
    objects: Objects::Counted { key: 3 },
    labels: BY_PART,
    families: rocksdb!(
        "block_cache_hit_count" "block_read_byte" "block_read_count" "bloom_memtable_hit_count"
        "bloom_memtable_miss_count" "bloom_sst_hit_count" "bloom_sst_miss_count" "get_from_memtable_count"
        "get_read_bytes" "internal_delete_skipped_count" "internal_key_skipped_count" "internal_merge_count"
        "internal_recent_skipped_count" "io_bytes_read" "io_bytes_written" "iter_read_bytes" "key_lock_wait_count"
        "multiget_read_bytes" "next_on_memtable_count" "prev_on_memtable_count" "seek_child_seek_count"
        "seek_on_memtable_count" "user_key_comparison_count"
    ),
};
