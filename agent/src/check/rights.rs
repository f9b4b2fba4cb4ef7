//! Which right each module needs, whether the account has it, and the statement that gives it.
//!
//! Rights are found by what they are needed for: grants can come by roles and wildcards, and only the server knows what they
//! add up to. Tables that an account may not see are silently left out of an answer, so there the count is compared with
//! InnoDB's own list, which needs no right on any table.

use sqlx::mysql::MySqlConnection;

use crate::modules::mysql::{Account, MysqlSettings, Right, Rows, Server, error_number, quoted_table, table_right};

/// The rights without which a module fails, or sees nothing.
pub fn needed(module: &str, server: &Server) -> Vec<Right> {
    match module {
        // MySQL reads sessions from performance_schema, which has a right of its own.
        "mysql.processlist" if server.processlist().starts_with("performance_schema") => {
            vec![Right::Process, Right::PerformanceSchema]
        }
        "mysql.transactions" | "mysql.innodb_cmp" | "mysql.innodb_cmpmem" | "mysql.processlist" => vec![Right::Process],
        "mysql.engine_innodb_status" | "mysql.innodb_metrics" => vec![Right::Process],
        "mysql.replication" => vec![server.replica_right()],
        "mysql.slave_hosts" => vec![server.replicas_right()],
        "mysql.binlog_size" => vec![server.binlog_right()],
        "mysql.tables" => vec![Right::TableNames],
        "mysql.auto_increment" => vec![Right::Tables],
        "mysql.heartbeat" => vec![Right::Heartbeat],
        // Its views are the invoker's: they read performance_schema with our rights.
        "mysql.user_summary" => vec![Right::Sys, Right::PerformanceSchema],
        _ => table_right(module).into_iter().collect(),
    }
}

/// Whether the account lacks a right that it needs.
pub async fn is_missing(
    connection: &mut MySqlConnection,
    right: Right,
    server: &Server,
    settings: &MysqlSettings,
) -> bool {
    match right {
        Right::TableNames => sees_too_few_tables(connection, server).await,
        Right::Tables => sees_too_few_tables(connection, server).await || may_not_read_a_schema(connection).await,
        _ => is_denied(connection, &probe(right, server, settings)).await,
    }
}

async fn is_denied(connection: &mut MySqlConnection, statement: &str) -> bool {
    let refused = Rows::fetch(connection, statement).await.err();
    // Refused: for the database, the account, the table, a column, the server as a whole, a routine; a view without rights.
    let denied = [1044, 1045, 1142, 1143, 1227, 1370, 1356];
    refused.as_ref().and_then(error_number).is_some_and(|number| denied.contains(&number))
}

/// A cheap statement that is refused to whom lacks the right.
fn probe(right: Right, server: &Server, settings: &MysqlSettings) -> String {
    let statement = match right {
        Right::Process => "SELECT COUNT(*) FROM information_schema.innodb_trx",
        Right::ReplicationClient | Right::SlaveMonitor | Right::ReplicationSlaveAdmin => server.replica_status(),
        Right::BinlogMonitor => server.binary_log_status(),
        Right::ReplicationMasterAdmin | Right::ReplicationSlave => server.replicas(),
        Right::PerformanceSchema => "SELECT 1 FROM performance_schema.threads LIMIT 1",
        Right::Accounts => "SELECT 1 FROM mysql.user LIMIT 1",
        Right::Sys => "SELECT 1 FROM sys.x$user_summary LIMIT 1",
        Right::Heartbeat => return format!("SELECT 1 FROM {} LIMIT 1", quoted_table(&settings.heartbeat_table)),
        Right::TableNames | Right::Tables => "",
    };
    statement.to_owned()
}

/// Schemas of the server's own.
const OWN: &str = "'mysql', 'sys', 'performance_schema', 'information_schema'";

/// InnoDB names files `schema/table`, also those that the account has no right on; that list needs PROCESS alone, and
/// without PROCESS an account that sees no table at all is taken for one that may not.
async fn sees_too_few_tables(connection: &mut MySqlConnection, server: &Server) -> bool {
    let (spaces, _) = server.innodb_tablespace_columns();
    let there = format!(
        "SELECT COUNT(*) FROM information_schema.{spaces} WHERE name LIKE '%/%' AND name NOT LIKE '%#%' \
         AND SUBSTRING_INDEX(name, '/', 1) NOT IN ({OWN})"
    );
    let seen = format!(
        "SELECT COUNT(*) FROM information_schema.tables WHERE engine = 'InnoDB' AND table_schema NOT IN ({OWN}) \
         AND create_options NOT LIKE '%partitioned%'"
    );
    let mut counts = Vec::new();
    for statement in [there, seen] {
        let answer = Rows::fetch(connection, &statement).await.ok();
        counts.push(answer.and_then(|rows| rows.iter().next()?.at(0)?.parse::<u64>().ok()));
    }
    matches!(counts[..], [Some(there), Some(seen)] if seen < there) || matches!(counts[..], [None, Some(0)])
}

/// Whether a schema has tables that the account sees and may not read: rights are given by the schema, so one of each is tried.
async fn may_not_read_a_schema(connection: &mut MySqlConnection) -> bool {
    let one_of_each = format!(
        "SELECT table_schema AS s, MIN(table_name) AS t FROM information_schema.tables \
         WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ({OWN}) GROUP BY table_schema"
    );
    let Ok(tables) = Rows::fetch(connection, &one_of_each).await else { return false };
    let quoted = |name: &str| format!("`{}`", name.replace('`', "``"));
    for table in tables.iter() {
        let (Some(schema), Some(name)) = (table.get("s"), table.get("t")) else { continue };
        let nothing = format!("SELECT 1 FROM {}.{} LIMIT 0", quoted(schema), quoted(name));
        if is_denied(connection, &nothing).await {
            return true;
        }
    }
    false
}

/// What a server leaves out of its answers to an account that lacks a right.
pub fn hidden_without(right: Right) -> &'static str {
    match right {
        Right::Process => "sessions",
        Right::TableNames | Right::Tables => "tables",
        _ => "rows",
    }
}

/// A right as a privilege list and what it is on, as GRANT and SHOW GRANTS write them.
pub fn privileges(right: Right, settings: &MysqlSettings) -> (&'static [&'static str], String) {
    match right {
        Right::Process => (&["PROCESS"], "*.*".into()),
        Right::ReplicationClient => (&["REPLICATION CLIENT"], "*.*".into()),
        Right::BinlogMonitor => (&["BINLOG MONITOR"], "*.*".into()),
        Right::SlaveMonitor => (&["SLAVE MONITOR"], "*.*".into()),
        Right::ReplicationSlaveAdmin => (&["REPLICATION SLAVE ADMIN"], "*.*".into()),
        Right::ReplicationMasterAdmin => (&["REPLICATION MASTER ADMIN"], "*.*".into()),
        Right::ReplicationSlave => (&["REPLICATION SLAVE"], "*.*".into()),
        Right::PerformanceSchema => (&["SELECT"], "performance_schema.*".into()),
        Right::TableNames => (&["SHOW VIEW"], "*.*".into()),
        Right::Tables => (&["SELECT"], "*.*".into()),
        Right::Accounts => (&["SELECT"], "mysql.user".into()),
        Right::Sys => (&["SELECT"], "sys.*".into()),
        Right::Heartbeat => (&["SELECT"], quoted_table(&settings.heartbeat_table)),
    }
}

pub fn grant(right: Right, account: &Account, settings: &MysqlSettings) -> String {
    let (privileges, target) = privileges(right, settings);
    format!("GRANT {} ON {target} TO {account};", privileges.join(", "))
}

/// Whether one right gives another one too: SELECT on everything is SELECT on each, and lists them.
pub fn implies(right: Right, other: Right) -> bool {
    use Right::{Accounts, Heartbeat, PerformanceSchema, Sys, TableNames, Tables};
    right == Tables && matches!(other, TableNames | PerformanceSchema | Accounts | Heartbeat | Sys)
}

/// Without those that another one of them gives too. The view of sys that is read calls no routine, so EXECUTE is not needed for it.
pub fn without_implied(rights: &[Right]) -> Vec<Right> {
    rights.iter().copied().filter(|right| !rights.iter().any(|other| implies(*other, *right))).collect()
}
