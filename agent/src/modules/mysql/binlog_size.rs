//! How much room the binary logs take. Off unless asked for: the server looks at every file.
//!
//! Source: SHOW BINARY LOGS. Right: BINLOG MONITOR (MariaDB), REPLICATION CLIENT (MySQL).
//! Shape:  gauges without labels.
//! Units:  bytes, files; the number at the end of the last file's name.
//! Errors: `SwitchedOff` where there is no binary log.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;

use super::session::Session;
use crate::module::{Desc, Module, ModuleError};
use crate::tick::Tick;

const BYTES: Desc = Desc::gauge("mysql_binlog_size_bytes", "Combined size of all registered binlog files.");
const FILES: Desc = Desc::gauge("mysql_binlog_files", "Number of registered binlog files.");
const LAST: Desc = Desc::gauge("mysql_binlog_file_number", "The last binlog file number.");

pub struct BinlogSize {
    pub session: Arc<Session>,
}

#[async_trait]
impl Module for BinlogSize {
    fn descs(&self) -> Vec<Desc> {
        vec![BYTES, FILES, LAST]
    }

    async fn sample(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let answer = self.session.query("binlog_size", |server| match server.binary_log {
            true => Ok(Cow::Borrowed("SHOW BINARY LOGS")),
            false => Err(ModuleError::SwitchedOff { what: "log_bin = OFF".into() }),
        });
        let (mut bytes, mut files, mut last) = (0.0, 0u32, None);
        for row in answer.await?.rows.iter() {
            bytes += row.number("File_size").unwrap_or(0.0);
            files += 1;
            last = row.get("Log_name").and_then(|name| name.rsplit('.').next()?.parse::<f64>().ok()).or(last);
        }
        out.push(&BYTES, &[], bytes);
        out.push(&FILES, &[], f64::from(files));
        if let Some(last) = last {
            out.push(&LAST, &[], last);
        }
        Ok(())
    }
}
