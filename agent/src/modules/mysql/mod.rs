//! MySQL and MariaDB, as mysqld_exporter tells them, and a little more.

mod binlog_size;
mod dialect;
pub mod discovery;
mod heartbeat;
mod innodb_cmp;
mod innodb_status;
mod login;
mod option_file;
mod processlist;
mod replication;
mod response_time;
mod rows;
mod session;
mod settings;
mod status;
mod target;
mod transactions;
mod up;
mod value;
mod variables;
mod vital;
mod warm_up;

use std::sync::Arc;

pub use dialect::{Flavor, Right, Server};
pub use discovery::Surroundings;
pub use login::{Link, LoginError, error_number, log_in};
pub use rows::{Row, Rows};
pub use session::{Answer, Health, Session};
pub use settings::{Extra, MysqlSettings, Secret};
pub use target::{Address, Target, Tls, TlsMode};

use crate::module::{Entry, Module, Spec, Tier};

/// The modules that these settings ask for, on one shared session. Nothing is connected before the first sample.
pub fn modules(settings: &MysqlSettings) -> Vec<Entry> {
    if !settings.enabled {
        return Vec::new();
    }
    modules_on(&Session::new(settings.clone(), Surroundings::of_this_process()))
}

/// As [`modules`], on a session that the caller keeps a hand on.
pub fn modules_on(session: &Arc<Session>) -> Vec<Entry> {
    let share = || Arc::clone(session);
    let mut entries = vec![
        entry("mysql.up", "", Tier::Vital, up::Up { session: share() }),
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
    }
}

fn entry(name: &'static str, collector: &'static str, tier: Tier, module: impl Module + 'static) -> Entry {
    Entry { spec: Spec { name, collector, job: "mysql", tier }, module: Box::new(module) }
}
