//! What the configuration says about MySQL: `[mysql]` of the agent's file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::instances::Instance;

/// Where the server is, how long it may take, and which dearer modules run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MysqlSettings {
    /// `false`: no MySQL module runs and no server is looked for.
    pub enabled: bool,
    /// `mysql://user:password@host:port` or `mysql://user@localhost?socket=/run/mysqld/mysqld.sock`; see
    /// [`super::discovery`]. Empty: the usual places are looked at.
    pub server: Option<Secret>,
    /// Where the server is, when login and TLS are those of the option file.
    pub socket: Option<PathBuf>,
    pub port: Option<u16>,
    /// An option file to read in place of `~/.my.cnf`.
    pub option_file: Option<PathBuf>,
    /// How long one statement may run before it is ended with KILL QUERY.
    #[serde(with = "humantime_serde")]
    pub statement_deadline: Duration,
    /// Modules that are off unless named here, by mysqld_exporter's name without `collect.`; see [`Extra`].
    pub extra: Vec<Extra>,
    /// How many tables, indexes, files, digests, users a collector tells one by one; the others are told together.
    pub objects_max: usize,
    /// `database.table` that pt-heartbeat writes, for `heartbeat`.
    pub heartbeat_table: String,
    /// pt-heartbeat runs with `--utc`.
    pub heartbeat_utc: bool,
    /// Further servers on sockets of this host are watched as well, where nobody named one; see [`Self::others`].
    pub find_others: bool,
    /// Not configured: such a server it is, and its socket may become somebody else's.
    #[serde(skip)]
    pub found: bool,
    /// On every series of the server, as a target's labels would be; `instance` is [`Instance::name`].
    pub labels: BTreeMap<String, String>,
    /// Several servers; see [`Instance`].
    #[serde(rename = "instance")]
    pub instances: Vec<Instance>,
}

impl Default for MysqlSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            server: None,
            socket: None,
            port: None,
            option_file: None,
            statement_deadline: Duration::from_secs(2),
            extra: Vec::new(),
            objects_max: 250,
            heartbeat_table: "heartbeat.heartbeat".to_owned(),
            heartbeat_utc: false,
            find_others: true,
            found: false,
            labels: BTreeMap::new(),
            instances: Vec::new(),
        }
    }
}

/// A module that costs more than most servers need to pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extra {
    EngineInnodbStatus,
    BinlogSize,
    Heartbeat,
    #[serde(rename = "perf_schema.tableiowaits")]
    TableIoWaits,
    #[serde(rename = "perf_schema.indexiowaits")]
    IndexIoWaits,
    #[serde(rename = "perf_schema.tablelocks")]
    TableLocks,
    #[serde(rename = "perf_schema.eventswaits")]
    EventsWaits,
    #[serde(rename = "perf_schema.file_events")]
    FileEvents,
    #[serde(rename = "perf_schema.memory_events")]
    MemoryEvents,
    #[serde(rename = "perf_schema.eventsstatementssum")]
    StatementsSum,
    #[serde(rename = "info_schema.innodb_tablespaces")]
    InnodbTablespaces,
    #[serde(rename = "info_schema.tablestats")]
    TableStatistics,
    #[serde(rename = "info_schema.schemastats")]
    SchemaStatistics,
    #[serde(rename = "info_schema.userstats")]
    UserStatistics,
    #[serde(rename = "info_schema.clientstats")]
    ClientStatistics,
    #[serde(rename = "mysql.user")]
    Accounts,
    SlaveHosts,
    #[serde(rename = "perf_schema.eventsstatements")]
    Statements,
    #[serde(rename = "perf_schema.file_instances")]
    FileInstances,
    #[serde(rename = "perf_schema.replication_group_members")]
    GroupMembers,
    #[serde(rename = "perf_schema.replication_group_member_stats")]
    GroupMemberStats,
    #[serde(rename = "perf_schema.replication_applier_status_by_worker")]
    ApplierWorkers,
    #[serde(rename = "info_schema.innodb_metrics")]
    InnodbMetrics,
    #[serde(rename = "info_schema.tables")]
    Tables,
    #[serde(rename = "info_schema.replica_host")]
    ReplicaHost,
    #[serde(rename = "info_schema.rocksdb_perf_context")]
    RocksdbPerfContext,
    #[serde(rename = "auto_increment.columns")]
    AutoIncrement,
    #[serde(rename = "sys.user_summary")]
    UserSummary,
}

impl Extra {
    /// All there are.
    pub const ALL: &[Self] = &[
        Self::EngineInnodbStatus,
        Self::BinlogSize,
        Self::Heartbeat,
        Self::TableIoWaits,
        Self::IndexIoWaits,
        Self::TableLocks,
        Self::EventsWaits,
        Self::FileEvents,
        Self::MemoryEvents,
        Self::StatementsSum,
        Self::InnodbTablespaces,
        Self::TableStatistics,
        Self::SchemaStatistics,
        Self::UserStatistics,
        Self::ClientStatistics,
        Self::Accounts,
        Self::SlaveHosts,
        Self::Statements,
        Self::FileInstances,
        Self::GroupMembers,
        Self::GroupMemberStats,
        Self::ApplierWorkers,
        Self::InnodbMetrics,
        Self::Tables,
        Self::ReplicaHost,
        Self::RocksdbPerfContext,
        Self::AutoIncrement,
        Self::UserSummary,
    ];
}

impl Extra {
    /// As the configuration names it, which is the exporter's flag without `--collect.`.
    pub fn name(self) -> String {
        toml::Value::try_from(self).ok().and_then(|value| Some(value.as_str()?.to_owned())).unwrap_or_default()
    }
}

/// Text that must not reach a log: its `Debug` and `Display` hide it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one who needs it to log in.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_refused() {
        let refused = toml::from_str::<MysqlSettings>("sever = 'x'").unwrap_err().to_string();
        assert!(refused.contains("unknown field `sever`"), "{refused}");
    }

    #[test]
    fn a_password_is_not_printed() {
        let settings =
            toml::from_str::<MysqlSettings>("server = 'mysql://a:geheim@h'\nstatement_deadline = '3s'").unwrap();
        assert_eq!(settings.statement_deadline, Duration::from_secs(3));
        assert!(!format!("{settings:?}").contains("geheim"));
    }
}
