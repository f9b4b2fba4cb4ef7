//! The heartbeat that pt-heartbeat writes on the source and replication brings here: the honest measure of lag.
//!
//! Source: the table that `heartbeat_table` names. Right: SELECT on that table.
//! Shape:  two gauges by `server_id` of the writer.
//! Units:  seconds since 1970, by the server's clock; with `heartbeat_utc` both by UTC taken for the server's zone, as the
//!         exporter has it: what lies between the two is right, and that is what is looked at.
//! Errors: those of the session; `Query` where there is no such table.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;

use super::session::Session;
use super::settings::MysqlSettings;
use crate::module::{Desc, Module, ModuleError};
use crate::tick::Tick;

const NOW: Desc =
    Desc::gauge("mysql_heartbeat_now_timestamp_seconds", "Timestamp of the current server.").labels(&["server_id"]);
const STORED: Desc =
    Desc::gauge("mysql_heartbeat_stored_timestamp_seconds", "Timestamp stored in the heartbeat table.")
        .labels(&["server_id"]);

pub struct Heartbeat {
    pub session: Arc<Session>,
}

/// `database.table` as SQL names it.
pub fn quoted(table: &str) -> String {
    let (database, table) = table.split_once('.').unwrap_or(("heartbeat", table));
    format!("`{}`.`{}`", database.replace('`', "``"), table.replace('`', "``"))
}

fn statement(settings: &MysqlSettings) -> String {
    let table = quoted(&settings.heartbeat_table);
    let now = if settings.heartbeat_utc { "UTC_TIMESTAMP(6)" } else { "NOW(6)" };
    format!("SELECT UNIX_TIMESTAMP(ts) AS written, UNIX_TIMESTAMP({now}) AS asked, server_id FROM {table} LIMIT 100")
}

#[async_trait]
impl Module for Heartbeat {
    fn descs(&self) -> Vec<Desc> {
        vec![NOW, STORED]
    }

    async fn sample(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let sql = statement(self.session.settings());
        let answer = self.session.query("heartbeat", move |_| Ok(Cow::Owned(sql)));
        for row in answer.await?.rows.iter() {
            let labels = [row.get("server_id").unwrap_or_default()];
            for (desc, column) in [(&NOW, "asked"), (&STORED, "written")] {
                if let Some(value) = row.number(column) {
                    out.push(desc, &labels, value);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_in_utc_is_compared_with_utc() {
        let asked = |utc| statement(&MysqlSettings { heartbeat_utc: utc, ..MysqlSettings::default() });
        assert!(asked(false).contains("UNIX_TIMESTAMP(NOW(6)) AS asked, server_id FROM `heartbeat`.`heartbeat`"));
        assert!(asked(true).contains("UNIX_TIMESTAMP(UTC_TIMESTAMP(6)) AS asked"));
    }

    #[test]
    fn table_names_are_quoted() {
        assert_eq!(quoted("a.b"), "`a`.`b`");
        assert_eq!(quoted("x`; DROP TABLE y.t"), "`x``; DROP TABLE y`.`t`");
    }
}
