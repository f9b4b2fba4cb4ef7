//! `lampad-agent check`: can every module run here, and if not, what exactly is missing?

mod command;
mod report;

use crate::module::{Entry, ModuleError};
use crate::modules::mysql::{
    LoginError, MysqlSettings, Right, Rows, Server, Session, Surroundings, discovery, error_number, log_in, modules_on,
    table_right,
};
use crate::tick::Tick;

pub use command::Check;
pub use report::{Account, Found, Report, Verdict};

/// Looks at the server that these settings lead to as the agent would, and at every module and right.
pub async fn check(settings: &MysqlSettings, around: &Surroundings) -> Report {
    let targets = match discovery::targets(settings, around) {
        Ok(targets) => targets,
        Err(error) => return Report::NotUnderstood { detail: error.to_string() },
    };
    let mut tried = Vec::new();
    for target in targets {
        match log_in(&target, settings.statement_deadline).await {
            Ok(mut link) => {
                let missing = missing_rights(&mut link.connection, &link.server).await;
                // Closed before the modules open theirs: the account may have no more than two.
                let _ = sqlx::Connection::close(link.connection).await;
                let modules =
                    try_modules(&Session::new(settings.clone(), around.clone()), &missing, &link.server).await;
                let account = Account::parse(&link.account);
                return Report::Connected(Found { server: link.server, target, account, modules, missing });
            }
            Err(error @ LoginError::Refused { .. }) => {
                return Report::Refused {
                    account: Account::new(&target.user, "localhost"),
                    target,
                    detail: error.to_string(),
                };
            }
            Err(error) => tried.push((target, error.to_string())),
        }
    }
    Report::Absent { tried }
}

/// Rights of the documented minimum that this account lacks, found by what they are needed for: grants can come by
/// roles and wildcards, and only the server knows what they add up to.
async fn missing_rights(connection: &mut sqlx::MySqlConnection, server: &Server) -> Vec<Right> {
    let mut missing = Vec::new();
    for right in server.rights().iter().copied().chain([Right::PerformanceSchema]) {
        if let Err(error) = Rows::fetch(connection, probe(right, server)).await
            && is_denied(&error)
        {
            missing.push(right);
        }
    }
    missing
}

/// A cheap statement that is refused to whom lacks the right.
fn probe(right: Right, server: &Server) -> &'static str {
    match right {
        Right::Process => "SELECT COUNT(*) FROM information_schema.innodb_trx",
        Right::ReplicationClient | Right::SlaveMonitor | Right::ReplicationSlaveAdmin => server.replica_status(),
        Right::BinlogMonitor => server.binary_log_status(),
        Right::PerformanceSchema => "SELECT 1 FROM performance_schema.threads LIMIT 1",
    }
}

fn is_denied(error: &sqlx::Error) -> bool {
    matches!(error_number(error), Some(1044 | 1045 | 1142 | 1143 | 1227))
}

/// The right without which a module fails, or sees nothing.
fn needed(module: &str, server: &Server) -> Option<Right> {
    match module {
        "mysql.transactions" | "mysql.innodb_cmp" | "mysql.innodb_cmpmem" | "mysql.processlist" => Some(Right::Process),
        "mysql.engine_innodb_status" => Some(Right::Process),
        "mysql.replication" => Some(server.replica_right()),
        "mysql.binlog_size" => Some(server.binlog_right()),
        _ => table_right(module),
    }
}

async fn try_modules(
    session: &std::sync::Arc<Session>,
    missing: &[Right],
    server: &Server,
) -> Vec<(&'static str, Verdict)> {
    let mut verdicts = Vec::new();
    for Entry { spec, mut module } in modules_on(session) {
        let sampled = module.sample(&mut Tick::new()).await;
        let lacks = needed(spec.name, server).filter(|right| missing.contains(right));
        // MySQL reads sessions from performance_schema, which has a right of its own.
        let lacks = lacks.or_else(|| {
            let schema = spec.name == "mysql.processlist" && server.processlist().starts_with("performance_schema");
            (schema && missing.contains(&Right::PerformanceSchema)).then_some(Right::PerformanceSchema)
        });
        verdicts.push((
            spec.name,
            match (sampled, lacks) {
                (Ok(()), None) => Verdict::Ok,
                (Ok(()), Some(right)) => Verdict::SilentlyEmpty(right),
                (Err(ModuleError::Absent { what }), _) => Verdict::NotHere(what),
                (Err(_), Some(right)) => Verdict::Denied(right),
                (Err(error), None) => Verdict::Failed(error.to_string()),
            },
        ));
    }
    verdicts
}
