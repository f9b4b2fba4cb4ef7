//! Tells what the governor has in its books.

use std::sync::Arc;

use async_trait::async_trait;

use super::super::session::Session;
use crate::module::{Desc, Module, ModuleError};
use crate::tick::Tick;

const MODULE: &[&str] = &["module"];
const IN_FORCE: Desc = Desc::gauge(
    "lampad_mysql_interval_seconds",
    "How often a MySQL module is read now; longer than configured when it would cost the server too much.",
)
.labels(MODULE)
.unit("seconds");
const SPENT: Desc = Desc::counter(
    "lampad_mysql_server_seconds_total",
    "CPU time of the server for a module; where its thread cannot be seen, the time that it took to answer.",
)
.labels(MODULE)
.unit("seconds");
const HELD: Desc =
    Desc::counter("lampad_mysql_held_reads_total", "Reads that were left out to spare the server.").labels(MODULE);

/// Tells the books of the others.
pub struct Books {
    pub session: Arc<Session>,
}

#[async_trait]
impl Module for Books {
    fn descs(&self) -> Vec<Desc> {
        vec![IN_FORCE, SPENT, HELD]
    }

    async fn sample(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        for (name, account) in self.session.governor().accounts() {
            out.push(&IN_FORCE, &[name], account.in_force);
            out.push(&SPENT, &[name], account.spent);
            out.push(&HELD, &[name], account.held as f64);
        }
        Ok(())
    }
}
