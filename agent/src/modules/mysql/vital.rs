//! The handful of status values that tell trouble first.
//!
//! Source: SHOW GLOBAL STATUS, these rows only; no right needed.
//! Shape:  one untyped series per row of `VARIABLES`, no labels; `status.rs` leaves these out.
//! Units:  as the server counts them.
//! Errors: those of the session.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;

use super::session::Session;
use super::value::number;
use crate::module::{Desc, Module, ModuleError};
use crate::tick::Tick;

/// Server's name and ours.
const VARIABLES: &[(&str, &str)] = &[
    ("Threads_running", "mysql_global_status_threads_running"),
    ("Threads_connected", "mysql_global_status_threads_connected"),
    ("Innodb_row_lock_current_waits", "mysql_global_status_innodb_row_lock_current_waits"),
    ("Queries", "mysql_global_status_queries"),
    ("Questions", "mysql_global_status_questions"),
    ("Slow_queries", "mysql_global_status_slow_queries"),
    ("Aborted_connects", "mysql_global_status_aborted_connects"),
];

const STATEMENT: &str = "SHOW GLOBAL STATUS WHERE Variable_name IN ('Threads_running', 'Threads_connected', \
                         'Innodb_row_lock_current_waits', 'Queries', 'Questions', 'Slow_queries', 'Aborted_connects')";

pub struct Vital {
    pub session: Arc<Session>,
}

/// Whether a status variable belongs to this module.
pub fn is_vital(variable: &str) -> bool {
    VARIABLES.iter().any(|(name, _)| name.eq_ignore_ascii_case(variable))
}

fn desc(name: &'static str) -> Desc {
    Desc::untyped(name, "Generic metric from SHOW GLOBAL STATUS.")
}

#[async_trait]
impl Module for Vital {
    fn descs(&self) -> Vec<Desc> {
        VARIABLES.iter().map(|(_, name)| desc(name)).collect()
    }

    async fn sample(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let answer = self.session.query("vital", |_| Ok(Cow::Borrowed(STATEMENT))).await?;
        for (variable, text) in answer.rows.pairs() {
            let family = VARIABLES.iter().find(|(name, _)| name.eq_ignore_ascii_case(variable));
            if let (Some((_, name)), Some(value)) = (family, number(text)) {
                out.push(&desc(name), &[], value);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::value::metric_name;
    use super::*;

    #[test]
    fn the_statement_asks_for_what_the_table_names() {
        for (variable, name) in VARIABLES {
            assert!(STATEMENT.contains(&format!("'{variable}'")), "{variable}");
            assert_eq!(*name, format!("mysql_global_status_{}", metric_name(variable)));
        }
        assert_eq!(STATEMENT.matches('\'').count(), 2 * VARIABLES.len());
    }
}
