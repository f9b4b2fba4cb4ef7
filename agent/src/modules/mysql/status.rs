//! The server's counters.
//!
//! Source: SHOW GLOBAL STATUS; no right needed.
//! Shape:  one untyped series per variable that reads as a number; the groups of `GROUPS` become families with one label
//!         (`Com_select` is `mysql_global_status_commands_total{command="select"}`). `vital.rs` has some of them.
//! Units:  as the server counts them.
//! Errors: those of the session; a value that is no number is left out.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use lampad_proto::v1::MetricType;

use super::session::Session;
use super::value::{metric_name, number};
use super::vital::is_vital;
use crate::module::{Desc, Module, ModuleError};
use crate::tick::Tick;

const COMMANDS: Desc = Desc::counter("mysql_global_status_commands_total", "Total number of executed MySQL commands.")
    .labels(&["command"]);
const HANDLERS: Desc = Desc::counter("mysql_global_status_handlers_total", "Total number of executed MySQL handlers.")
    .labels(&["handler"]);
const CONNECTION_ERRORS: Desc =
    Desc::counter("mysql_global_status_connection_errors_total", "Total number of MySQL connection errors.")
        .labels(&["error"]);
const ROW_OPS: Desc =
    Desc::counter("mysql_global_status_innodb_row_ops_total", "Total number of MySQL InnoDB row operations.")
        .labels(&["operation"]);
const PERFORMANCE_SCHEMA_LOST: Desc = Desc::counter(
    "mysql_global_status_performance_schema_lost_total",
    "Total number of MySQL instrumentations that could not be loaded or created due to memory constraints.",
)
.labels(&["instrumentation"]);
const PAGES: Desc =
    Desc::gauge("mysql_global_status_buffer_pool_pages", "Innodb buffer pool pages by state.").labels(&["state"]);
const DIRTY_PAGES: Desc = Desc::gauge("mysql_global_status_buffer_pool_dirty_pages", "Innodb buffer pool dirty pages.");
const PAGE_CHANGES: Desc =
    Desc::counter("mysql_global_status_buffer_pool_page_changes_total", "Innodb buffer pool page state changes.")
        .labels(&["operation"]);
const GALERA: Desc = Desc::gauge("mysql_galera_status_info", "PXC/Galera status information.").labels(&[
    "wsrep_local_state_uuid",
    "wsrep_cluster_state_uuid",
    "wsrep_provider_version",
]);
const GALERA_LATENCY: &[Desc] = &[
    Desc::gauge("mysql_galera_evs_repl_latency_min_seconds", "PXC/Galera group communication latency. Min value."),
    Desc::gauge("mysql_galera_evs_repl_latency_avg_seconds", "PXC/Galera group communication latency. Avg value."),
    Desc::gauge("mysql_galera_evs_repl_latency_max_seconds", "PXC/Galera group communication latency. Max value."),
    Desc::gauge("mysql_galera_evs_repl_latency_stdev", "PXC/Galera group communication latency. Standard Deviation."),
    Desc::gauge("mysql_galera_evs_repl_latency_sample_size", "PXC/Galera group communication latency. Sample Size."),
];

/// Prefixes of names that become a label.
const GROUPS: &[(&str, Desc)] = &[
    ("com_", COMMANDS),
    ("handler_", HANDLERS),
    ("connection_errors_", CONNECTION_ERRORS),
    ("innodb_rows_", ROW_OPS),
    ("performance_schema_", PERFORMANCE_SCHEMA_LOST),
];
const POOL_PREFIX: &str = "innodb_buffer_pool_pages_";

pub struct Status {
    session: Arc<Session>,
    /// Where each variable goes, by the server's name for it: worked out once, looked up ever after.
    places: HashMap<String, Place>,
}

#[derive(Debug, Clone, PartialEq)]
enum Place {
    Family(Desc, Option<String>),
    /// Another module's, or none's.
    Nowhere,
}

impl Status {
    pub fn new(session: Arc<Session>) -> Self {
        Self { session, places: HashMap::new() }
    }
}

fn place_of(variable: &str) -> Place {
    if is_vital(variable) {
        return Place::Nowhere;
    }
    let name = metric_name(variable);
    if let Some(state) = name.strip_prefix(POOL_PREFIX) {
        return match state {
            "data" | "free" | "misc" | "old" => Place::Family(PAGES, Some(state.to_owned())),
            "dirty" => Place::Family(DIRTY_PAGES, None),
            // The sum of the states; beside them it would be counted twice.
            "total" => Place::Nowhere,
            operation => Place::Family(PAGE_CHANGES, Some(operation.to_owned())),
        };
    }
    for (prefix, desc) in GROUPS {
        if let Some(label) = name.strip_prefix(prefix) {
            return Place::Family(desc.clone(), Some(label.to_owned()));
        }
    }
    let name = format!("mysql_global_status_{name}");
    Place::Family(Desc::named(MetricType::Unknown, name, "Generic metric from SHOW GLOBAL STATUS."), None)
}

/// `min/avg/max/stdev/sample size`, in seconds.
fn push_galera_latency(out: &mut Tick, text: &str) {
    for (desc, value) in GALERA_LATENCY.iter().zip(text.split('/')) {
        if let Ok(value) = value.trim().parse::<f64>() {
            out.push(desc, &[], value);
        }
    }
}

#[async_trait]
impl Module for Status {
    fn descs(&self) -> Vec<Desc> {
        let groups = GROUPS.iter().map(|(_, desc)| desc.clone());
        groups.chain([PAGES, DIRTY_PAGES, PAGE_CHANGES, GALERA]).chain(GALERA_LATENCY.iter().cloned()).collect()
    }

    async fn sample(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let answer = self.session.query("status", |_| Ok(Cow::Borrowed("SHOW GLOBAL STATUS"))).await?;
        let mut galera = ["", "", ""];
        for (variable, text) in answer.rows.pairs() {
            let Some(value) = number(text) else {
                match variable.to_ascii_lowercase().as_str() {
                    "wsrep_local_state_uuid" => galera[0] = text,
                    "wsrep_cluster_state_uuid" => galera[1] = text,
                    "wsrep_provider_version" => galera[2] = text,
                    "wsrep_evs_repl_latency" => push_galera_latency(out, text),
                    _ => {}
                }
                continue;
            };
            if !self.places.contains_key(variable) {
                self.places.insert(variable.to_owned(), place_of(variable));
            }
            match &self.places[variable] {
                Place::Family(desc, Some(label)) => out.push(desc, &[label], value),
                Place::Family(desc, None) => out.push(desc, &[], value),
                Place::Nowhere => {}
            }
        }
        if !galera[0].is_empty() {
            out.push(&GALERA, &galera, 1.0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_find_their_families() {
        let table = [
            ("Com_select", Some(("mysql_global_status_commands_total", Some("select")))),
            ("Handler_read_rnd_next", Some(("mysql_global_status_handlers_total", Some("read_rnd_next")))),
            ("Connection_errors_internal", Some(("mysql_global_status_connection_errors_total", Some("internal")))),
            ("Innodb_buffer_pool_pages_data", Some(("mysql_global_status_buffer_pool_pages", Some("data")))),
            ("Innodb_buffer_pool_pages_dirty", Some(("mysql_global_status_buffer_pool_dirty_pages", None))),
            ("Innodb_buffer_pool_pages_total", None),
            (
                "Innodb_buffer_pool_pages_made_young",
                Some(("mysql_global_status_buffer_pool_page_changes_total", Some("made_young"))),
            ),
            ("Innodb_rows_read", Some(("mysql_global_status_innodb_row_ops_total", Some("read")))),
            (
                "Performance_schema_users_lost",
                Some(("mysql_global_status_performance_schema_lost_total", Some("users_lost"))),
            ),
            ("Uptime", Some(("mysql_global_status_uptime", None))),
            ("Threads_running", None),
        ];
        for (variable, expected) in table {
            let place = place_of(variable);
            let found = match &place {
                Place::Family(desc, label) => Some((&*desc.name, label.as_deref())),
                Place::Nowhere => None,
            };
            assert_eq!(found, expected, "{variable}");
        }
    }
}
