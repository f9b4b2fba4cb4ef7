//! InnoDB's own counters. Off unless asked for: some hundred series.
//!
//! Source: information_schema.innodb_metrics, rows that are enabled. Right: PROCESS.
//! Shape:  a family per row, named by subsystem and name; pages of the buffer pool by `state`, page I/O by `type`.
//! Units:  as InnoDB counts them.
//! Errors: those of the session.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use lampad_proto::v1::MetricType;

use super::rows::Row;
use super::session::Session;
use crate::module::{Desc, Module, ModuleError};
use crate::tick::Tick;

const READ: Desc =
    Desc::counter("mysql_info_schema_innodb_metrics_buffer_page_read_total", "Pages read, by type.").labels(&["type"]);
const WRITTEN: Desc =
    Desc::counter("mysql_info_schema_innodb_metrics_buffer_page_written_total", "Pages written, by type.")
        .labels(&["type"]);
const PAGES: Desc = Desc::gauge("mysql_info_schema_innodb_metrics_buffer_pool_pages", "Pages of the pool, by state.")
    .labels(&["state"]);
const DIRTY: Desc = Desc::gauge("mysql_info_schema_innodb_metrics_buffer_pool_dirty_pages", "Pages to be written.");

pub struct InnodbMetrics {
    pub session: Arc<Session>,
}

#[async_trait]
impl Module for InnodbMetrics {
    fn descs(&self) -> Vec<Desc> {
        vec![READ, WRITTEN, PAGES, DIRTY]
    }

    async fn sample(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let statement = |server: &super::dialect::Server| {
            let enabled = server.innodb_metrics_enabled();
            Ok(Cow::Owned(format!(
                "SELECT name, subsystem, type, comment, count FROM information_schema.innodb_metrics WHERE {enabled}"
            )))
        };
        let answer = self.session.query("innodb_metrics", statement).await?;
        for row in answer.rows.iter() {
            push(&row, out);
        }
        Ok(())
    }
}

/// A row without name or number is left out.
fn push(row: &Row, out: &mut Tick) -> Option<()> {
    let (name, subsystem, count) = (row.get("name")?, row.get("subsystem")?, row.number("count")?);
    if subsystem == "buffer_page_io" {
        if let Some(kind) = name.strip_prefix("buffer_page_read_") {
            out.push(&READ, &[kind], count);
        } else if let Some(kind) = name.strip_prefix("buffer_page_written_") {
            out.push(&WRITTEN, &[kind], count);
        }
        return Some(());
    }
    match name.strip_prefix("buffer_pool_pages_").filter(|_| subsystem == "buffer") {
        // The sum of the states, which is no state.
        Some("total") => {}
        Some("dirty") => out.push(&DIRTY, &[], count),
        Some(state) => out.push(&PAGES, &[state], count),
        None => {
            let counts = matches!(row.get("type")?, "counter" | "status_counter") && count >= 0.0;
            let (kind, ending) = if counts { (MetricType::Counter, "_total") } else { (MetricType::Gauge, "") };
            let family = format!("mysql_info_schema_innodb_metrics_{}_{}{ending}", part(subsystem), part(name));
            out.push(&Desc::named(kind, family, row.get("comment").unwrap_or_default().to_owned()), &[], count);
        }
    }
    Some(())
}

fn part(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::rows::Rows;
    use super::*;

    #[test]
    fn rows_become_families() {
        let columns = ["NAME", "SUBSYSTEM", "TYPE", "COMMENT", "COUNT"];
        let row =
            |name, subsystem, kind, count| [Some(name), Some(subsystem), Some(kind), Some("About it."), Some(count)];
        let rows = [
            row("lock_deadlocks", "lock", "counter", "3"),
            row("trx_rseg_history_len", "transaction", "value", "7"),
            row("buffer_page_read_blob", "buffer_page_io", "set_member", "5"),
            row("buffer_pool_pages_free", "buffer", "value", "9"),
            row("buffer_pool_pages_dirty", "buffer", "value", "2"),
            row("buffer_pool_pages_total", "buffer", "value", "11"),
            row("os_log_pending_fsyncs", "os", "counter", "-1"),
        ];
        let rows: Vec<&[Option<&str>]> = rows.iter().map(|row| &row[..]).collect();
        let mut tick = Tick::new();
        Rows::made_up(&columns, &rows).iter().for_each(|row| push(&row, &mut tick).unwrap());
        let told: Vec<_> = tick
            .samples()
            .map(|(name, labels, value)| {
                format!("{} {labels:?} {value}", name.trim_start_matches("mysql_info_schema_innodb_metrics_"))
            })
            .collect();
        assert_eq!(
            told,
            [
                "lock_lock_deadlocks_total [] 3",
                "transaction_trx_rseg_history_len [] 7",
                r#"buffer_page_read_total [("type", "blob")] 5"#,
                r#"buffer_pool_pages [("state", "free")] 9"#,
                "buffer_pool_dirty_pages [] 2",
                "os_os_log_pending_fsyncs [] -1",
            ]
        );
    }
}
