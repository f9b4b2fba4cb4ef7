//! MySQL and MariaDB, as mysqld_exporter tells them, and a little more.

mod account;
mod binlog_size;
mod budget;
mod dialect;
pub mod discovery;
mod governor;
mod group_replication;
mod heartbeat;
mod info_schema;
mod innodb_cmp;
mod innodb_metrics;
mod innodb_status;
mod instances;
mod login;
mod option_file;
mod perf_schema;
mod processlist;
mod replication;
mod response_time;
mod rows;
mod schema_tables;
mod server_thread;
mod session;
mod settings;
mod slave_hosts;
mod statements;
mod status;
mod sys_schema;
mod table;
mod target;
mod transactions;
mod up;
mod value;
mod variables;
mod vital;
mod warm_up;

use std::sync::Arc;

pub use account::Account;
pub use dialect::{Flavor, Right, Server};
pub use discovery::Surroundings;
pub use heartbeat::quoted as quoted_table;
pub use instances::{Instance, InstanceError, Watched};
pub use login::{Link, LoginError, error_number, log_in};
pub use rows::{Row, Rows};
pub use session::{Answer, Health, Session};
pub use settings::{Extra, MysqlSettings, Secret};
pub use target::{Address, Target, Tls, TlsMode};

pub use self::table::OTHER_OBJECTS;
use self::table::{Table, TableModule};
use crate::module::{Entry, Module, Spec, Tier};

/// The modules of these servers, on one shared session each. Nothing is connected before the first sample.
pub fn modules(watched: &[Watched]) -> Vec<Entry> {
    let of_one = |one: &Watched| {
        let session = Session::new(one.settings.clone(), Surroundings::of_this_process());
        let mut entries = governed(&session);
        entries.iter_mut().for_each(|entry| one.mark(&mut entry.spec));
        entries
    };
    watched.iter().flat_map(of_one).collect()
}

/// As [`modules_on`], each held to its share of the server's time, and one more that tells of it.
pub fn governed(session: &Arc<Session>) -> Vec<Entry> {
    let govern = |entry: Entry| {
        let (name, tier) = (entry.spec.name, entry.spec.tier);
        // Whether the server is there is known from the others' answers, or costs a ping.
        if name == "mysql.up" {
            return entry;
        }
        let module = governor::Governed { module: entry.module, session: Arc::clone(session), name, tier };
        Entry { spec: entry.spec, module: Box::new(module) }
    };
    let books = entry("mysql.governor", "", Tier::Heavy, governor::Books { session: Arc::clone(session) });
    modules_on(session).into_iter().map(govern).chain([books]).collect()
}

/// What mysqld_exporter calls connecting, in the label of its own series.
pub const CONNECTION: &str = "connection";

/// As [`modules`], on a session that the caller keeps a hand on.
pub fn modules_on(session: &Arc<Session>) -> Vec<Entry> {
    let share = || Arc::clone(session);
    let mut entries = vec![
        entry("mysql.up", CONNECTION, Tier::Vital, up::Up { session: share() }),
        entry("mysql.vital", "", Tier::Vital, vital::Vital { session: share() }),
        entry("mysql.status", "collect.global_status", Tier::Standard, status::Status::new(share())),
        entry(
            "mysql.replication",
            "collect.slave_status",
            Tier::Standard,
            replication::Replication { session: share() },
        ),
        entry("mysql.transactions", "", Tier::Standard, transactions::Transactions { session: share() }),
        entry("mysql.variables", "collect.global_variables", Tier::Heavy, variables::Variables::new(share())),
        entry(
            "mysql.processlist",
            "collect.info_schema.processlist",
            Tier::Heavy,
            processlist::Processlist { session: share() },
        ),
        entry(
            "mysql.innodb_cmp",
            "collect.info_schema.innodb_cmp",
            Tier::Heavy,
            innodb_cmp::InnodbCmp::operations(share()),
        ),
        entry(
            "mysql.innodb_cmpmem",
            "collect.info_schema.innodb_cmpmem",
            Tier::Heavy,
            innodb_cmp::InnodbCmp::memory(share()),
        ),
        entry(
            "mysql.query_response_time",
            "collect.info_schema.query_response_time",
            Tier::Heavy,
            response_time::ResponseTime::new(share()),
        ),
    ];
    entries.extend(session.settings().extra.iter().map(|extra| extra_entry(*extra, share())));
    if session.settings().extra.contains(&Extra::InnodbTablespaces) {
        entries.push(table_entry(&info_schema::TABLESPACE_INFO, share()));
    }
    entries
}

/// The modules that run only when they are asked for.
fn extra_entry(extra: Extra, session: Arc<Session>) -> Entry {
    match extra {
        Extra::BinlogSize => {
            entry("mysql.binlog_size", "collect.binlog_size", Tier::Rare, binlog_size::BinlogSize { session })
        }
        Extra::EngineInnodbStatus => entry(
            "mysql.engine_innodb_status",
            "collect.engine_innodb_status",
            Tier::Heavy,
            innodb_status::InnodbStatus { session },
        ),
        Extra::Heartbeat => {
            entry("mysql.heartbeat", "collect.heartbeat", Tier::Standard, heartbeat::Heartbeat { session })
        }
        Extra::TableIoWaits => table_entry(&perf_schema::TABLE_IO_WAITS, session),
        Extra::IndexIoWaits => table_entry(&perf_schema::INDEX_IO_WAITS, session),
        Extra::TableLocks => table_entry(&perf_schema::TABLE_LOCKS, session),
        Extra::EventsWaits => table_entry(&perf_schema::EVENTS_WAITS, session),
        Extra::FileEvents => table_entry(&perf_schema::FILE_EVENTS, session),
        Extra::MemoryEvents => table_entry(&perf_schema::MEMORY_EVENTS, session),
        Extra::StatementsSum => table_entry(&perf_schema::STATEMENTS_SUM, session),
        Extra::InnodbTablespaces => table_entry(&info_schema::TABLESPACES, session),
        Extra::TableStatistics => table_entry(&info_schema::TABLE_STATISTICS, session),
        Extra::SchemaStatistics => table_entry(&info_schema::SCHEMA_STATISTICS, session),
        Extra::UserStatistics => table_entry(&info_schema::USER_STATISTICS, session),
        Extra::ClientStatistics => table_entry(&info_schema::CLIENT_STATISTICS, session),
        Extra::Accounts => table_entry(&info_schema::ACCOUNTS, session),
        Extra::Statements => table_entry(&statements::STATEMENTS, session),
        Extra::FileInstances => table_entry(&perf_schema::FILE_INSTANCES, session),
        Extra::GroupMembers => table_entry(&group_replication::MEMBERS, session),
        Extra::GroupMemberStats => table_entry(&group_replication::MEMBER_STATS, session),
        Extra::ApplierWorkers => table_entry(&group_replication::APPLIER_WORKERS, session),
        Extra::UserSummary => table_entry(&sys_schema::USER_SUMMARY, session),
        Extra::ReplicaHost => table_entry(&sys_schema::REPLICA_HOST, session),
        Extra::RocksdbPerfContext => table_entry(&sys_schema::ROCKSDB, session),
        Extra::SlaveHosts => {
            entry("mysql.slave_hosts", "collect.slave_hosts", Tier::Heavy, slave_hosts::SlaveHosts { session })
        }
        Extra::InnodbMetrics => entry(
            "mysql.innodb_metrics",
            "collect.info_schema.innodb_metrics",
            Tier::Heavy,
            innodb_metrics::InnodbMetrics { session },
        ),
        Extra::Tables => {
            entry("mysql.tables", "collect.info_schema.tables", Tier::Rare, schema_tables::SchemaTables::new(session))
        }
        Extra::AutoIncrement => entry(
            "mysql.auto_increment",
            "collect.auto_increment.columns",
            Tier::Rare,
            schema_tables::AutoIncrement::new(session),
        ),
    }
}

fn table_entry(table: &'static Table, session: Arc<Session>) -> Entry {
    entry(table.name, table.collector, table.tier, TableModule::new(session, table))
}

/// The right that a module needs because of the table that it reads.
pub fn table_right(module: &str) -> Option<Right> {
    TABLES.iter().find(|table| table.name == module)?.right
}

const TABLES: &[&Table] = &[
    &perf_schema::TABLE_IO_WAITS,
    &perf_schema::INDEX_IO_WAITS,
    &perf_schema::TABLE_LOCKS,
    &perf_schema::EVENTS_WAITS,
    &perf_schema::FILE_EVENTS,
    &perf_schema::MEMORY_EVENTS,
    &perf_schema::STATEMENTS_SUM,
    &info_schema::TABLESPACES,
    &info_schema::TABLE_STATISTICS,
    &info_schema::SCHEMA_STATISTICS,
    &info_schema::USER_STATISTICS,
    &info_schema::CLIENT_STATISTICS,
    &info_schema::ACCOUNTS,
    &info_schema::TABLESPACE_INFO,
    &statements::STATEMENTS,
    &perf_schema::FILE_INSTANCES,
    &group_replication::MEMBERS,
    &group_replication::MEMBER_STATS,
    &group_replication::APPLIER_WORKERS,
    &sys_schema::USER_SUMMARY,
    &sys_schema::REPLICA_HOST,
    &sys_schema::ROCKSDB,
];

fn entry(name: &'static str, collector: &'static str, tier: Tier, module: impl Module + 'static) -> Entry {
    Entry { spec: Spec::new(name, collector, "mysql", tier), module: Box::new(module) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_table_can_be_asked_for_and_its_labels_fit() {
        let settings = MysqlSettings { extra: Extra::ALL.to_vec(), ..MysqlSettings::default() };
        let watched = Watched { instance: None, labels: Vec::new(), settings };
        let names: Vec<_> = modules(&[watched]).iter().map(|entry| entry.spec.name).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "a name twice: {names:?}");
        for table in TABLES {
            assert!(names.contains(&table.name), "{} is in no setting", table.name);
            for family in table.families {
                let labels = table.labels.len() + usize::from(family.part.is_some());
                assert_eq!(family.desc.labels.len(), labels, "{} {}", family.desc.name, family.column);
            }
        }
    }
}
