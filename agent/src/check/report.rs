//! What `check` found, and how it is told.

use std::fmt;

use crate::modules::mysql::{Right, Server, Target};

/// The outcome of a check.
#[derive(Debug)]
pub enum Report {
    Connected(Found),
    /// A server is there and does not let us in.
    Refused {
        target: Target,
        account: Account,
        detail: String,
    },
    /// Nobody answered at any of these.
    Absent {
        tried: Vec<(Target, String)>,
    },
    /// The settings lead nowhere.
    NotUnderstood {
        detail: String,
    },
}

#[derive(Debug)]
pub struct Found {
    pub server: Server,
    pub target: Target,
    pub account: Account,
    pub modules: Vec<(&'static str, Verdict)>,
    /// Rights of the documented minimum that the account lacks.
    pub missing: Vec<Right>,
}

/// Whether a module can do its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Ok,
    /// The server refuses the statement.
    Denied(Right),
    /// The server answers, and leaves out what the account may not see.
    SilentlyEmpty(Right),
    /// This server has no such thing, or it is switched off.
    NotHere(String),
    Failed(String),
}

/// `user@host` as grants name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    user: String,
    host: String,
}

impl Account {
    pub fn new(user: &str, host: &str) -> Self {
        Self { user: user.to_owned(), host: host.to_owned() }
    }

    /// What CURRENT_USER() says: the last `@` parts user and host.
    pub fn parse(text: &str) -> Self {
        let (user, host) = text.rsplit_once('@').unwrap_or((text, "%"));
        Self::new(user, host)
    }
}

impl fmt::Display for Account {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}@{}", quoted(&self.user), quoted(&self.host))
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// The statements that give `rights` to `account`.
pub fn grants(rights: &[Right], account: &Account) -> Vec<String> {
    let global: Vec<_> =
        rights.iter().filter(|right| **right != Right::PerformanceSchema).map(|right| right.name()).collect();
    let mut statements = Vec::new();
    if !global.is_empty() {
        statements.push(format!("GRANT {} ON *.* TO {account};", global.join(", ")));
    }
    if rights.contains(&Right::PerformanceSchema) {
        statements.push(format!("GRANT {} TO {account};", Right::PerformanceSchema.name()));
    }
    statements
}

impl Report {
    /// Every default module can run with all that it should see.
    pub fn is_ok(&self) -> bool {
        let well = |verdict: &Verdict| matches!(verdict, Verdict::Ok | Verdict::NotHere(_));
        matches!(self, Self::Connected(found) if found.missing.is_empty() && found.modules.iter().all(|(_, verdict)| well(verdict)))
    }

    /// Statements for an administrator to run, one a line.
    pub fn grants(&self) -> Vec<String> {
        match self {
            Self::Connected(found) => grants(&found.missing, &found.account),
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected(found) => found.fmt(out),
            Self::Refused { target, account, detail } => {
                writeln!(out, "MySQL: {target}: {detail}")?;
                let account = match &*target.user {
                    // Nobody should hand the administrator's account to an agent.
                    "root" => Account::new("lampad", "localhost"),
                    _ => account.clone(),
                };
                writeln!(out, "\nAn account for the agent, made by an administrator:")?;
                create_user(out, "MariaDB 10.5.9 and later", &account, &Server::new("10.11.0-MariaDB", ""))?;
                create_user(out, "MySQL, and MariaDB before 10.5", &account, &Server::new("8.0.0", ""))?;
                writeln!(out, "\nThen name it in ~/.my.cnf ([client] user, password), or by --mysql or LAMPAD_MYSQL.")
            }
            Self::Absent { tried } => {
                writeln!(out, "MySQL: no server found. Tried:")?;
                for (target, detail) in tried {
                    writeln!(out, "  {target}: {detail}")?;
                }
                writeln!(out, "If there is one elsewhere, name it: --mysql mysql://user:password@host:3306")
            }
            Self::NotUnderstood { detail } => writeln!(out, "MySQL: {detail}"),
        }
    }
}

fn create_user(out: &mut fmt::Formatter<'_>, title: &str, account: &Account, server: &Server) -> fmt::Result {
    writeln!(out, "  -- {title}")?;
    // Two connections are the most that the agent opens; one more lets a new agent start beside the old.
    writeln!(out, "  CREATE USER {account} IDENTIFIED BY '...' WITH MAX_USER_CONNECTIONS 3;")?;
    let rights: Vec<_> = server.rights().iter().copied().chain([Right::PerformanceSchema]).collect();
    grants(&rights, account).iter().try_for_each(|grant| writeln!(out, "  {grant}"))
}

impl fmt::Display for Found {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "MySQL: {} at {}, account {}\n", self.server, self.target, self.account)?;
        for (module, verdict) in &self.modules {
            let (word, note) = match verdict {
                Verdict::Ok => ("ok", String::new()),
                Verdict::Denied(right) => ("denied", format!("needs {}", right.name())),
                Verdict::SilentlyEmpty(right) => {
                    ("silently empty", format!("needs {} to see other sessions", right.name()))
                }
                Verdict::NotHere(what) => ("not here", what.clone()),
                Verdict::Failed(error) => ("failed", error.clone()),
            };
            writeln!(out, "{}", format!("  {word:<15} {module:<26} {note}").trim_end())?;
        }
        let grants = grants(&self.missing, &self.account);
        if grants.is_empty() {
            return writeln!(out, "\nNo right is missing.");
        }
        writeln!(out, "\nMissing rights; an administrator gives them by:")?;
        grants.iter().try_for_each(|grant| writeln!(out, "  {grant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_name_the_account_that_the_server_found() {
        let account = Account::parse("o'brien@db@10.0.0.%");
        let rights = [Right::Process, Right::SlaveMonitor, Right::PerformanceSchema];
        assert_eq!(
            grants(&rights, &account),
            [
                "GRANT PROCESS, SLAVE MONITOR ON *.* TO 'o''brien@db'@'10.0.0.%';",
                "GRANT SELECT ON performance_schema.* TO 'o''brien@db'@'10.0.0.%';",
            ]
        );
        assert_eq!(grants(&[], &account), Vec::<String>::new());
    }
}
