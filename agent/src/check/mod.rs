//! `lampad-agent check`: can every module run here, what exactly is missing, and what is there without need?

mod command;
mod families;
mod held;
mod report;
mod rights;

use crate::module::ModuleError;
use crate::modules::mysql::{
    Account, LoginError, MysqlSettings, Right, Rows, Server, Session, Surroundings, Target, discovery, log_in,
    modules_on,
};
use crate::tick::Tick;

pub use command::Check;
pub use report::{Bought, Found, Report, Verdict};

/// Looks at the server that these settings lead to as the agent would, and at every module and right.
pub async fn check(settings: &MysqlSettings, around: &Surroundings) -> Report {
    let targets = match discovery::targets(settings, around) {
        Ok(targets) => targets,
        Err(error) => return Report::NotUnderstood { detail: error.to_string() },
    };
    let mut tried = Vec::new();
    for target in targets {
        match look_at(&target, settings, around).await {
            Ok(found) => return Report::Connected(found),
            Err(error @ LoginError::Refused { .. }) => {
                let detail = error.to_string();
                return Report::Refused { account: account_to_make(&target.user, &detail), target, detail };
            }
            Err(error) => tried.push((target, error.to_string())),
        }
    }
    Report::Absent { tried }
}

/// The account that would be let in: on the host as the server calls it where it says so, and never the administrator's, which
/// nobody should hand to an agent.
fn account_to_make(user: &str, refusal: &str) -> Account {
    // Access denied for user 'u'@'HOST'; Host 'HOST' is not allowed to connect.
    let before = [format!("'{user}'@'"), "Host '".to_owned()];
    let host = before.iter().find_map(|before| refusal.split_once(before)?.1.split_once('\''));
    Account::new(if user == "root" { "lampad" } else { user }, host.map_or("localhost", |(host, _)| host))
}

async fn look_at(target: &Target, settings: &MysqlSettings, around: &Surroundings) -> Result<Found, LoginError> {
    let link = log_in(target, settings.statement_deadline).await?;
    let (server, account) = (link.server, Account::parse(&link.account));
    // Closed before the modules open theirs: the account may have no more than two.
    let _ = sqlx::Connection::close(link.connection).await;
    let tried = try_modules(&Session::new(settings.clone(), around.clone())).await;
    let mut link = log_in(target, settings.statement_deadline).await?;
    let wanted = wanted(&tried, &server);
    let mut lacking = Vec::new();
    for right in &wanted {
        if rights::is_missing(&mut link.connection, *right, &server, settings).await {
            lacking.push(*right);
        }
    }
    let missing = rights::without_implied(&lacking);
    let shown = Rows::fetch(&mut link.connection, "SHOW GRANTS").await;
    let _ = sqlx::Connection::close(link.connection).await;
    let held: Vec<held::Held> = shown.iter().flat_map(Rows::iter).filter_map(|row| held::parse(row.at(0)?)).collect();
    let (mut revokes, mut grants) = changes(&held, &wanted, &missing, settings, &account);
    if account.is_administrator() {
        // It is not the agent's, and nobody else could give it back what it needs.
        (revokes, grants) = (Vec::new(), missing.clone());
    }
    let buys = |right: Right| -> Vec<Bought> {
        let gives = |needed: &Right| *needed == right || rights::implies(right, *needed);
        let needs = |one: &&Tried| rights::needed(one.module, &server).iter().any(gives);
        let bought = |one: &Tried| Bought { module: one.module, families: one.families.clone() };
        tried.iter().filter(needs).map(bought).collect()
    };
    let grants = grants.into_iter().map(|right| (rights::grant(right, &account, settings), buys(right))).collect();
    let modules =
        tried.into_iter().map(|one| (one.module, verdict(one.module, one.outcome, &server, &lacking))).collect();
    let extra = settings.extra.clone();
    Ok(Found { target: target.clone(), server, account, modules, missing, grants, revokes, extra })
}

/// The rights that the modules need here. What is not on this server buys nothing.
fn wanted(tried: &[Tried], server: &Server) -> Vec<Right> {
    let mut wanted = Vec::new();
    for one in tried.iter().filter(|one| !one.outcome.as_ref().is_err_and(ModuleError::is_absence)) {
        for right in rights::needed(one.module, server) {
            if !wanted.contains(&right) {
                wanted.push(right);
            }
        }
    }
    wanted
}

/// The statements that take away, and the rights to grant after them.
fn changes(
    held: &[held::Held],
    wanted: &[Right],
    missing: &[Right],
    settings: &MysqlSettings,
    account: &Account,
) -> (Vec<String>, Vec<Right>) {
    let plain = |right: &Right| {
        let (privileges, target) = rights::privileges(*right, settings);
        privileges.iter().map(move |privilege| (*privilege, target.replace('`', ""))).collect::<Vec<_>>()
    };
    let least = rights::without_implied(wanted);
    let needed: Vec<(&str, String)> = least.iter().flat_map(plain).collect();
    let revokes = held::revokes(held, &needed, account);
    // A right that came with another one goes with it, so from then on each needs a line of its own.
    let unnamed: Vec<_> = held::not_by_name(held, &needed).collect();
    let goes = |right: &Right| !revokes.is_empty() && plain(right).iter().any(|part| unnamed.contains(&part));
    let grants = wanted
        .iter()
        .copied()
        .filter(|right| missing.contains(right) || (least.contains(right) && goes(right)))
        .collect();
    (revokes, grants)
}

/// A module that was read once, and how that went.
struct Tried {
    module: &'static str,
    families: String,
    outcome: Result<(), ModuleError>,
}

async fn try_modules(session: &std::sync::Arc<Session>) -> Vec<Tried> {
    let mut tried = Vec::new();
    for mut entry in modules_on(session) {
        let families = families::of(entry.spec.name, &*entry.module);
        let outcome = entry.module.sample(&mut Tick::new()).await;
        tried.push(Tried { module: entry.spec.name, families, outcome });
    }
    tried
}

fn verdict(module: &str, outcome: Result<(), ModuleError>, server: &Server, lacking: &[Right]) -> Verdict {
    let lacks = rights::needed(module, server).into_iter().find(|right| lacking.contains(right));
    match (outcome, lacks) {
        (Ok(()), None) => Verdict::Ok,
        (Ok(()), Some(right)) => Verdict::SilentlyEmpty(right),
        (Err(ModuleError::SwitchedOff { what }), _) => Verdict::SwitchedOff(what),
        (Err(ModuleError::Absent { what }), _) => Verdict::NotHere(what),
        (Err(_), Some(right)) => Verdict::Denied(right),
        (Err(error), None) => Verdict::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_to_make_is_on_the_host_that_the_server_sees() {
        for (user, refusal, account) in [
            ("u", "1045 (28000): Access denied for user 'u'@'web1' (using password: YES); create", "'u'@'web1'"),
            ("root", "1698 (28000): Access denied for user 'root'@'localhost'", "'lampad'@'localhost'"),
            ("u", "1130 (HY000): Host '10.0.0.7' is not allowed to connect to this MariaDB server", "'u'@'10.0.0.7'"),
            ("u", "TLS: certificate", "'u'@'localhost'"),
        ] {
            assert_eq!(account_to_make(user, refusal).to_string(), account, "{refusal}");
        }
    }
}
