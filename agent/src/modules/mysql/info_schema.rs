//! Tables of information_schema and mysql, each a module that is off unless asked for.
//!
//! Source: tablespaces of InnoDB (right: PROCESS), statistics of `userstat=1` (PROCESS for users and clients, SELECT on the
//!         tables for tables and schemas), accounts (SELECT on mysql.user).
//! Shape:  by tablespace, table, schema, user or client.
//! Units:  bytes, seconds.
//! Errors: `Absent` on servers that keep no such statistics, `SwitchedOff` without `userstat`.

use std::borrow::Cow;

use super::dialect::{Right, Server};
use super::table::{Family, Objects, Statement, Table};
use crate::module::{Desc, ModuleError, Tier};

const BY_SPACE: &[&str] = &["tablespace_name"];

/// Sizes of files without a look at any of them, and without a right on any table.
pub static TABLESPACES: Table = Table {
    name: "mysql.innodb_tablespaces",
    collector: "collect.info_schema.innodb_tablespaces",
    tier: Tier::Rare,
    right: Some(Right::Process),
    statement: |server| {
        Ok(Cow::Borrowed(if server.has_innodb_sys_tables() {
            "SELECT name AS tablespace_name, file_size, allocated_size \
             FROM information_schema.innodb_sys_tablespaces ORDER BY file_size DESC"
        } else {
            "SELECT name AS tablespace_name, file_size, allocated_size \
             FROM information_schema.innodb_tablespaces ORDER BY file_size DESC"
        }))
    },
    objects: Objects::Counted { key: 1 },
    labels: BY_SPACE,
    families: &[
        Family::new(
            Desc::gauge("mysql_info_schema_innodb_tablespace_file_size_bytes", "Size of the file as its end says.")
                .labels(BY_SPACE),
            "file_size",
        ),
        Family::new(
            Desc::gauge("mysql_info_schema_innodb_tablespace_allocated_size_bytes", "Size of the file on disk.")
                .labels(BY_SPACE),
            "allocated_size",
        ),
    ],
};

const SPACE: &[&str] = &["tablespace_name", "file_format", "row_format", "space_type"];

/// What each of them is; a second statement, because its labels are not those of the sizes.
pub static TABLESPACE_INFO: Table = Table {
    name: "mysql.innodb_tablespace_info",
    collector: "collect.info_schema.innodb_tablespaces",
    tier: Tier::Rare,
    right: Some(Right::Process),
    statement: |server| {
        let (table, columns) = server.innodb_tablespace_columns();
        Ok(Cow::Owned(format!(
            "SELECT name AS tablespace_name, {columns}, space FROM information_schema.{table} ORDER BY file_size DESC"
        )))
    },
    objects: Objects::Unsummed { key: 1 },
    labels: SPACE,
    families: &[Family::new(
        Desc::gauge("mysql_info_schema_innodb_tablespace_space_info", "Number of the tablespace, and what it is.")
            .labels(SPACE),
        "space",
    )],
};

/// MariaDB and Percona Server count by user, client and table where `userstat` is on; MySQL does not.
fn with_statistics(server: &Server, sql: &'static str) -> Statement {
    if server.is_mariadb() || server.version_comment.to_ascii_lowercase().contains("percona") {
        if !server.user_statistics {
            return Err(ModuleError::SwitchedOff { what: "userstat = 0".into() });
        }
        return Ok(Cow::Borrowed(sql));
    }
    Err(ModuleError::Absent { what: "statistics by user and table (MySQL has none)".into() })
}

macro_rules! rows {
    ($family:literal, $labels:expr) => {
        &[
            Family::new(
                Desc::counter(concat!("mysql_info_schema_", $family, "_rows_read_total"), "Rows read.").labels($labels),
                "rows_read",
            ),
            Family::new(
                Desc::counter(concat!("mysql_info_schema_", $family, "_rows_changed_total"), "Rows changed.")
                    .labels($labels),
                "rows_changed",
            ),
            Family::new(
                Desc::counter(
                    concat!("mysql_info_schema_", $family, "_rows_changed_x_indexes_total"),
                    "Rows changed, times the indexes that changed with each.",
                )
                .labels($labels),
                "rows_changed_x_indexes",
            ),
        ]
    };
}

const BY_TABLE: &[&str] = &["schema", "table"];
pub static TABLE_STATISTICS: Table = Table {
    name: "mysql.table_statistics",
    collector: "collect.info_schema.tablestats",
    tier: Tier::Heavy,
    right: Some(Right::Tables),
    statement: |server| {
        with_statistics(
            server,
            "SELECT table_schema AS `schema`, table_name AS `table`, rows_read, rows_changed, rows_changed_x_indexes \
             FROM information_schema.table_statistics ORDER BY rows_read + rows_changed DESC",
        )
    },
    objects: Objects::Counted { key: 2 },
    labels: BY_TABLE,
    families: rows!("table_statistics", BY_TABLE),
};

const BY_SCHEMA: &[&str] = &["schema"];
pub static SCHEMA_STATISTICS: Table = Table {
    name: "mysql.schema_statistics",
    collector: "collect.info_schema.schemastats",
    tier: Tier::Heavy,
    right: Some(Right::Tables),
    statement: |server| {
        with_statistics(
            server,
            "SELECT table_schema AS `schema`, SUM(rows_read) AS rows_read, SUM(rows_changed) AS rows_changed, \
             SUM(rows_changed_x_indexes) AS rows_changed_x_indexes \
             FROM information_schema.table_statistics GROUP BY table_schema",
        )
    },
    objects: Objects::Counted { key: 1 },
    labels: BY_SCHEMA,
    families: rows!("schema_statistics", BY_SCHEMA),
};

/// Family and column of the same name, apart from the unit and `_total`.
macro_rules! activity {
    ($who:literal, $label:expr, $exceeded:expr, $($suffix:literal = $column:literal),+ $(,)?) => {
        &[
            Family::new(
                Desc::gauge(
                    concat!("mysql_info_schema_", $who, "_statistics_concurrent_connections"),
                    "Connections now.",
                )
                .labels($label),
                "concurrent_connections",
            ),
            Family::new($exceeded.labels($label), "max_statement_time_exceeded"),
            // From MariaDB 11.5 on; untyped, as all columns that the exporter has no family for.
            Family::new(
                Desc::untyped(concat!("mysql_info_schema_", $who, "_statistics_key_read_hits"), HITS).labels($label),
                "key_read_hits",
            ),
            Family::new(
                Desc::untyped(concat!("mysql_info_schema_", $who, "_statistics_key_read_misses"), MISSES).labels($label),
                "key_read_misses",
            ),
            $(Family::new(
                Desc::counter(
                    concat!("mysql_info_schema_", $who, "_statistics_", $suffix),
                    concat!("Sum of ", $column, ", counted by userstat."),
                )
                .labels($label),
                $column,
            ),)+
        ]
    };
    ($who:literal, $label:expr, $exceeded:expr) => {
        activity!(
            $who,
            $label,
            $exceeded,
            "total_connections" = "total_connections",
            "connected_time_seconds_total" = "connected_time",
            "busy_seconds_total" = "busy_time",
            "cpu_time_seconds_total" = "cpu_time",
            "bytes_received_total" = "bytes_received",
            "bytes_sent_total" = "bytes_sent",
            "binlog_bytes_written_total" = "binlog_bytes_written",
            "rows_read_total" = "rows_read",
            "rows_sent_total" = "rows_sent",
            "rows_deleted_total" = "rows_deleted",
            "rows_inserted_total" = "rows_inserted",
            "rows_updated_total" = "rows_updated",
            "rows_fetched_total" = "rows_fetched",
            "table_rows_read_total" = "table_rows_read",
            "select_commands_total" = "select_commands",
            "update_commands_total" = "update_commands",
            "other_commands_total" = "other_commands",
            "commit_transactions_total" = "commit_transactions",
            "rollback_transactions_total" = "rollback_transactions",
            "denied_connections_total" = "denied_connections",
            "lost_connections_total" = "lost_connections",
            "access_denied_total" = "access_denied",
            "empty_queries_total" = "empty_queries",
            "total_ssl_connections_total" = "total_ssl_connections",
        )
    };
}

const HITS: &str = "Reads by a key that found a row.";
const MISSES: &str = "Reads by a key that found none.";
const EXCEEDED: &str = "Statements ended for lasting longer than they may.";

const BY_USER: &[&str] = &["user"];
pub static USER_STATISTICS: Table = Table {
    name: "mysql.user_statistics",
    collector: "collect.info_schema.userstats",
    tier: Tier::Heavy,
    right: Some(Right::Process),
    statement: |server| {
        with_statistics(server, "SELECT * FROM information_schema.user_statistics ORDER BY busy_time DESC")
    },
    objects: Objects::Counted { key: 1 },
    labels: BY_USER,
    families: activity!(
        "user",
        BY_USER,
        Desc::untyped("mysql_info_schema_user_statistics_max_statement_time_exceeded", EXCEEDED)
    ),
};

const BY_CLIENT: &[&str] = &["client"];
pub static CLIENT_STATISTICS: Table = Table {
    name: "mysql.client_statistics",
    collector: "collect.info_schema.clientstats",
    tier: Tier::Heavy,
    right: Some(Right::Process),
    statement: |server| {
        with_statistics(server, "SELECT * FROM information_schema.client_statistics ORDER BY busy_time DESC")
    },
    objects: Objects::Counted { key: 1 },
    labels: BY_CLIENT,
    families: activity!(
        "client",
        BY_CLIENT,
        Desc::counter("mysql_info_schema_client_statistics_max_statement_time_exceeded_total", EXCEEDED)
    ),
};

const BY_ACCOUNT: &[&str] = &["mysql_user", "hostmask"];
const fn limit(name: &'static str, column: &'static str) -> Family {
    Family::new(Desc::gauge(name, "The account's limit; 0 is none.").labels(BY_ACCOUNT), column).unsummed()
}

pub static ACCOUNTS: Table = Table {
    name: "mysql.user",
    collector: "collect.mysql.user",
    tier: Tier::Rare,
    right: Some(Right::Accounts),
    statement: |_| {
        Ok(Cow::Borrowed(
            "SELECT user AS mysql_user, host AS hostmask, max_questions, max_updates, max_connections, \
             max_user_connections FROM mysql.user ORDER BY user, host",
        ))
    },
    objects: Objects::Unsummed { key: 2 },
    labels: BY_ACCOUNT,
    families: &[
        limit("mysql_mysql_max_questions", "max_questions"),
        limit("mysql_mysql_max_updates", "max_updates"),
        limit("mysql_mysql_max_connections", "max_connections"),
        limit("mysql_mysql_max_user_connections", "max_user_connections"),
    ],
};
