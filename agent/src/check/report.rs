//! What `check` found, and how it is told.

use std::fmt;

use super::rights;
use crate::modules::mysql::{Account, Extra, MysqlSettings, Right, Server, Target};

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
    /// Rights that these modules need and the account lacks.
    pub missing: Vec<Right>,
    /// Statements that give them, each with what it is for.
    pub grants: Vec<(String, Vec<Bought>)>,
    /// Statements that take away what none of these modules needs.
    pub revokes: Vec<String>,
    /// Collectors on request that the configuration asks for.
    pub extra: Vec<Extra>,
}

/// What a right is for: a module, and its families.
#[derive(Debug)]
pub struct Bought {
    pub module: &'static str,
    pub families: String,
}

/// Whether a module can do its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Ok,
    /// The server refuses the statement.
    Denied(Right),
    /// The server answers, and leaves out what the account may not see.
    SilentlyEmpty(Right),
    /// This server has no such thing.
    NotHere(String),
    /// The server does not keep it, by a setting.
    SwitchedOff(String),
    Failed(String),
}

impl Report {
    /// Every default module can run with all that it should see.
    pub fn is_ok(&self) -> bool {
        let well = |verdict: &Verdict| matches!(verdict, Verdict::Ok | Verdict::NotHere(_) | Verdict::SwitchedOff(_));
        matches!(self, Self::Connected(found) if found.missing.is_empty() && found.modules.iter().all(|(_, verdict)| well(verdict)))
    }

    /// Statements for an administrator to run, one a line.
    pub fn grants(&self) -> Vec<String> {
        match self {
            Self::Connected(found) => found.grants.iter().map(|(statement, _)| statement.clone()).collect(),
            _ => Vec::new(),
        }
    }

    /// Statements that take away what is not needed; they go before [`Self::grants`].
    pub fn revokes(&self) -> &[String] {
        match self {
            Self::Connected(found) => &found.revokes,
            _ => &[],
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected(found) => found.fmt(out),
            Self::Refused { target, account, detail } => {
                writeln!(out, "MySQL: {target}: {detail}")?;
                writeln!(
                    out,
                    "\nAn account for the agent, made by an administrator; one that is there gets this password by ALTER USER:"
                )?;
                create_user(out, "MariaDB 10.5.9 and later", account, &Server::new("10.11.0-MariaDB", ""))?;
                create_user(out, "MySQL, and MariaDB before 10.5", account, &Server::new("8.4.0", ""))?;
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
    let settings = MysqlSettings::default();
    server.rights().iter().try_for_each(|right| writeln!(out, "  {}", rights::grant(*right, account, &settings)))
}

impl fmt::Display for Found {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "MySQL: {} at {}, account {}\n", self.server, self.target, self.account)?;
        for (module, verdict) in &self.modules {
            let (word, note) = match verdict {
                Verdict::Ok => ("ok", String::new()),
                Verdict::Denied(right) => ("denied", format!("needs {}", right.name())),
                Verdict::SilentlyEmpty(right) => {
                    ("silently empty", format!("needs {} to see all {}", right.name(), rights::hidden_without(*right)))
                }
                Verdict::NotHere(what) => ("not here", what.clone()),
                Verdict::SwitchedOff(what) => ("switched off", what.clone()),
                Verdict::Failed(error) => ("failed", error.clone()),
            };
            writeln!(out, "{}", format!("  {word:<15} {module:<26} {note}").trim_end())?;
        }
        let off = Extra::ALL.iter().filter(|extra| !self.extra.contains(extra)).map(|extra| extra.name());
        let off: Vec<_> = off.collect();
        if !off.is_empty() {
            writeln!(out, "\n  not asked for: {}", off.join(", "))?;
        }
        if self.missing.is_empty() {
            writeln!(out, "\nNo right is missing.")?;
        }
        if self.account.is_administrator() {
            writeln!(out, "\nThis is the administrator's account; an account of the agent's own needs only:")?;
            let own = Account::new("lampad", "localhost");
            create_user(out, &self.server.to_string(), &own, &self.server)?;
        }
        if !self.revokes.is_empty() {
            writeln!(out, "\nRights that no module needs; an administrator takes them away by, in this order:")?;
            self.revokes.iter().try_for_each(|revoke| writeln!(out, "  {revoke}"))?;
        } else if !self.grants.is_empty() {
            writeln!(out, "\nMissing rights; an administrator gives them by:")?;
        }
        for (grant, bought) in &self.grants {
            let listed = |part: fn(&Bought) -> &str| bought.iter().map(part).collect::<Vec<_>>().join(", ");
            writeln!(out, "  {grant} -- {}", listed(|one| one.module))?;
            writeln!(out, "    -- buys {}", listed(|one| &one.families))?;
        }
        Ok(())
    }
}
