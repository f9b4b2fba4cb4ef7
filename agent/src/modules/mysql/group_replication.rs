//! Replication as performance_schema shows it: members of a group, and workers that apply.
//!
//! Source: replication_group_members, replication_group_member_stats, replication_applier_status_by_worker. Right: SELECT on
//!         performance_schema.
//! Shape:  one series per member with value 1; counters of this member; points in time by channel and worker.
//! Units:  transactions; seconds since 1970, 0 for never.
//! Errors: `Absent` on MariaDB, which has no such groups, and where performance_schema is off.

use super::dialect::{Right, Server};
use super::table::{Family, Objects, Statement, Table, with_performance_schema};
use crate::module::{Desc, ModuleError, Tier};

fn of_mysql(server: &Server, sql: &'static str) -> Statement {
    if !server.has_group_replication_tables() {
        return Err(ModuleError::Absent { what: "performance_schema's tables of group replication".into() });
    }
    with_performance_schema(server, sql)
}

const MEMBER: &[&str] = &[
    "channel_name",
    "member_id",
    "member_host",
    "member_port",
    "member_state",
    "member_role",
    "member_version",
    "member_communication_stack",
];

pub static MEMBERS: Table = Table {
    name: "mysql.group_members",
    collector: "collect.perf_schema.replication_group_members",
    tier: Tier::Heavy,
    right: Some(Right::PerformanceSchema),
    // Later versions have more columns; those that are not there are empty labels.
    statement: |server| {
        of_mysql(server, "SELECT m.*, 1 AS present FROM performance_schema.replication_group_members m")
    },
    objects: Objects::Fixed,
    labels: MEMBER,
    families: &[Family::new(
        Desc::gauge("mysql_perf_schema_replication_group_member_info", "A member of the replication group.")
            .labels(MEMBER),
        "present",
    )],
};

const fn counter(name: &'static str, help: &'static str, column: &'static str) -> Family {
    Family::new(Desc::counter(name, help), column)
}

const fn gauge(name: &'static str, help: &'static str, column: &'static str) -> Family {
    Family::new(Desc::gauge(name, help), column)
}

pub static MEMBER_STATS: Table = Table {
    name: "mysql.group_member_stats",
    collector: "collect.perf_schema.replication_group_member_stats",
    tier: Tier::Heavy,
    right: Some(Right::PerformanceSchema),
    statement: |server| {
        of_mysql(
            server,
            "SELECT * FROM performance_schema.replication_group_member_stats WHERE member_id = @@server_uuid",
        )
    },
    objects: Objects::Fixed,
    labels: &[],
    families: &[
        gauge(
            "mysql_perf_schema_transactions_in_queue",
            "Transactions that wait to be checked for conflicts.",
            "count_transactions_in_queue",
        ),
        counter(
            "mysql_perf_schema_transactions_checked_total",
            "Transactions checked for conflicts.",
            "count_transactions_checked",
        ),
        counter(
            "mysql_perf_schema_conflicts_detected_total",
            "Transactions that did not pass that check.",
            "count_conflicts_detected",
        ),
        counter(
            "mysql_perf_schema_transactions_rows_validating_total",
            "Rows kept to check transactions against.",
            "count_transactions_rows_validating",
        ),
        gauge(
            "mysql_perf_schema_transactions_remote_in_applier_queue",
            "Transactions of others that wait to be applied.",
            "count_transactions_remote_in_applier_queue",
        ),
        counter(
            "mysql_perf_schema_transactions_remote_applied_total",
            "Transactions of others that were applied.",
            "count_transactions_remote_applied",
        ),
        counter(
            "mysql_perf_schema_transactions_local_proposed_total",
            "Transactions of this member sent to the group.",
            "count_transactions_local_proposed",
        ),
        counter(
            "mysql_perf_schema_transactions_local_rollback_total",
            "Transactions of this member that the group refused.",
            "count_transactions_local_rollback",
        ),
    ],
};

const WORKER: &[&str] = &["channel_name", "member_id"];

macro_rules! at {
    ($column:literal, $help:literal) => {
        Family::new(Desc::gauge(concat!("mysql_perf_schema_", $column, "_seconds"), $help).labels(WORKER), $column)
    };
}

pub static APPLIER_WORKERS: Table = Table {
    name: "mysql.applier_workers",
    collector: "collect.perf_schema.replication_applier_status_by_worker",
    tier: Tier::Standard,
    right: Some(Right::PerformanceSchema),
    statement: |server| {
        if !server.has_applier_timestamps() {
            return Err(ModuleError::Absent {
                what: "points in time of replication workers (from MySQL 8.0 on)".into(),
            });
        }
        with_performance_schema(
            server,
            "SELECT channel_name, worker_id AS member_id, \
             UNIX_TIMESTAMP(last_applied_transaction_original_commit_timestamp) \
             AS last_applied_transaction_original_commit_timestamp, \
             UNIX_TIMESTAMP(last_applied_transaction_immediate_commit_timestamp) \
             AS last_applied_transaction_immediate_commit_timestamp, \
             UNIX_TIMESTAMP(last_applied_transaction_start_apply_timestamp) \
             AS last_applied_transaction_start_apply_timestamp, \
             UNIX_TIMESTAMP(last_applied_transaction_end_apply_timestamp) \
             AS last_applied_transaction_end_apply_timestamp, \
             UNIX_TIMESTAMP(applying_transaction_original_commit_timestamp) \
             AS applying_transaction_original_commit_timestamp, \
             UNIX_TIMESTAMP(applying_transaction_immediate_commit_timestamp) \
             AS applying_transaction_immediate_commit_timestamp, \
             UNIX_TIMESTAMP(applying_transaction_start_apply_timestamp) AS applying_transaction_start_apply_timestamp \
             FROM performance_schema.replication_applier_status_by_worker",
        )
    },
    objects: Objects::Fixed,
    labels: WORKER,
    families: &[
        at!("last_applied_transaction_original_commit_timestamp", "When the last one applied was committed first."),
        at!("last_applied_transaction_immediate_commit_timestamp", "When the source committed it."),
        at!("last_applied_transaction_start_apply_timestamp", "When this worker began to apply it."),
        at!("last_applied_transaction_end_apply_timestamp", "When this worker was done with it."),
        at!("applying_transaction_original_commit_timestamp", "When the one being applied was committed first."),
        at!("applying_transaction_immediate_commit_timestamp", "When the source committed the one being applied."),
        at!("applying_transaction_start_apply_timestamp", "When this worker began to apply the present one."),
    ],
};
