//! Sessions by what they do.
//!
//! Source: performance_schema.processlist (MySQL 8.0.22 and later) or information_schema.processlist. Right: PROCESS; without
//!         it the server shows our own session only, and says nothing of the others.
//! Shape:  sessions and their seconds by command and state; sessions by user and by client host. Ours is left out.
//! Units:  sessions, seconds.
//! Errors: those of the session.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::rows::Rows;
use super::session::Session;
use crate::module::{Desc, Module, ModuleError};
use crate::tick::Tick;

const THREADS: Desc =
    Desc::gauge("mysql_info_schema_processlist_threads", "The number of threads split by current state.")
        .labels(&["command", "state"]);
const SECONDS: Desc = Desc::gauge(
    "mysql_info_schema_processlist_seconds",
    "The number of seconds threads have used split by current state.",
)
.labels(&["command", "state"]);
const BY_USER: Desc =
    Desc::gauge("mysql_info_schema_processlist_processes_by_user", "The number of processes by user.")
        .labels(&["mysql_user"]);
const BY_HOST: Desc =
    Desc::gauge("mysql_info_schema_processlist_processes_by_host", "The number of processes by host.")
        .labels(&["client_host"]);

/// Users and hosts beyond this many of each are left out, so that a port scan does not become series.
const LABELS_MAX: usize = 500;
/// Groups that the server sends at most.
const GROUPS_MAX: usize = 5_000;

pub struct Processlist {
    pub session: Arc<Session>,
}

#[async_trait]
impl Module for Processlist {
    fn descs(&self) -> Vec<Desc> {
        vec![THREADS, SECONDS, BY_USER, BY_HOST]
    }

    async fn sample(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let answer = self.session.query("processlist", |server| {
            Ok(Cow::Owned(format!(
                "SELECT user, SUBSTRING_INDEX(host, ':', 1) AS host, COALESCE(command, '') AS command, \
                 COALESCE(state, '') AS state, COUNT(*) AS sessions, SUM(time) AS seconds FROM {} \
                 WHERE id <> CONNECTION_ID() GROUP BY 1, 2, 3, 4 LIMIT {GROUPS_MAX}",
                server.processlist()
            )))
        });
        push(&answer.await?.rows, out);
        Ok(())
    }
}

fn push(rows: &Rows, out: &mut Tick) {
    let mut states: BTreeMap<(String, String), (f64, f64)> = BTreeMap::new();
    let mut users: BTreeMap<&str, f64> = BTreeMap::new();
    let mut hosts: BTreeMap<&str, f64> = BTreeMap::new();
    for row in rows.iter() {
        let sessions = row.number("sessions").unwrap_or(0.0);
        let command_and_state = (label(row.get("command")), label(row.get("state")));
        let state = states.entry(command_and_state).or_default();
        state.0 += sessions;
        state.1 += row.number("seconds").unwrap_or(0.0);
        *users.entry(row.get("user").unwrap_or_default()).or_default() += sessions;
        *hosts.entry(row.get("host").filter(|host| !host.is_empty()).unwrap_or("unknown")).or_default() += sessions;
    }
    for ((command, state), (sessions, seconds)) in &states {
        out.push(&THREADS, &[command, state], *sessions);
        out.push(&SECONDS, &[command, state], *seconds);
    }
    for (user, sessions) in users.iter().take(LABELS_MAX) {
        out.push(&BY_USER, &[user], *sessions);
    }
    for (host, sessions) in hosts.iter().take(LABELS_MAX) {
        out.push(&BY_HOST, &[host], *sessions);
    }
}

/// As mysqld_exporter writes states: lower case, blanks and dashes as `_`, other punctuation dropped, `unknown` for none.
fn label(text: Option<&str>) -> String {
    let text = text.filter(|text| !text.is_empty()).unwrap_or("unknown");
    text.chars()
        .filter(|c| !matches!(c, ';' | ',' | ':' | '.' | '(' | ')'))
        .map(|c| if matches!(c, ' ' | '-') { '_' } else { c.to_ascii_lowercase() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_summed_by_each_label() {
        let rows = Rows::made_up(
            &["user", "host", "command", "state", "sessions", "seconds"],
            &[
                &[Some("a"), Some("h1"), Some("Sleep"), Some(""), Some("2"), Some("30")],
                &[Some("b"), Some("h1"), Some("Sleep"), Some(""), Some("1"), Some("4")],
                &[Some("b"), Some(""), Some("Binlog Dump"), Some("Waiting; (idle)"), Some("1"), Some("9")],
            ],
        );
        let mut tick = Tick::new();
        push(&rows, &mut tick);
        let samples = tick.samples().map(|(name, labels, value)| {
            let labels = labels.iter().map(|(_, text)| *text).collect::<Vec<_>>().join(",");
            format!("{} {labels} {value}", name.trim_start_matches("mysql_info_schema_processlist_"))
        });
        assert_eq!(
            samples.collect::<Vec<_>>(),
            [
                "threads binlog_dump,waiting_idle 1",
                "seconds binlog_dump,waiting_idle 9",
                "threads sleep,unknown 3",
                "seconds sleep,unknown 34",
                "processes_by_user a 2",
                "processes_by_user b 2",
                "processes_by_host h1 3",
                "processes_by_host unknown 1",
            ]
        );
    }
}
