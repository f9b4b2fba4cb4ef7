//! The server's settings.
//!
//! Source: SHOW GLOBAL VARIABLES; no right needed.
//! Shape:  one gauge per variable that reads as a number, a switch or a time; the isolation level and the Galera
//!         cluster's name as labels of series that are 1.
//! Units:  as the server has them.
//! Errors: those of the session; a value that is no number is left out.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use lampad_proto::v1::MetricType;

use super::session::Session;
use super::value::{metric_name, number};
use crate::module::{Desc, Module, ModuleError};
use crate::tick::Tick;

const ISOLATION: Desc = Desc::gauge("mysql_transaction_isolation", "MySQL transaction isolation.").labels(&["level"]);
const GALERA: Desc =
    Desc::gauge("mysql_galera_variables_info", "PXC/Galera variables information.").labels(&["wsrep_cluster_name"]);
const GCACHE: Desc = Desc::gauge("mysql_galera_gcache_size_bytes", "PXC/Galera gcache size.");

pub struct Variables {
    session: Arc<Session>,
    families: HashMap<String, Desc>,
}

impl Variables {
    pub fn new(session: Arc<Session>) -> Self {
        Self { session, families: HashMap::new() }
    }
}

/// `gcache.size` of Galera's options, in bytes; 0 where they do not say, as mysqld_exporter has it.
fn gcache_bytes(options: &str) -> f64 {
    let size =
        options.split(';').find_map(|option| option.trim().strip_prefix("gcache.size")?.trim().strip_prefix('='));
    let size = size.unwrap_or_default().trim();
    let (digits, unit) = match size.strip_suffix(['M', 'G']) {
        Some(digits) if size.ends_with('M') => (digits, 1024.0 * 1024.0),
        Some(digits) => (digits, 1024.0 * 1024.0 * 1024.0),
        None => (size, 1.0),
    };
    digits.parse::<f64>().map_or(0.0, |number| number * unit)
}

#[async_trait]
impl Module for Variables {
    fn descs(&self) -> Vec<Desc> {
        vec![ISOLATION, GALERA, GCACHE]
    }

    async fn sample(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let answer = self.session.query("variables", |_| Ok(Cow::Borrowed("SHOW GLOBAL VARIABLES"))).await?;
        let mut isolation = "";
        for (variable, text) in answer.rows.pairs() {
            if let Some(value) = number(text) {
                let desc = self.families.entry(variable.to_owned()).or_insert_with(|| {
                    let name = format!("mysql_global_variables_{}", metric_name(variable));
                    Desc::named(MetricType::Gauge, name, "Generic gauge metric from SHOW GLOBAL VARIABLES.")
                });
                out.push(desc, &[], value);
                continue;
            }
            match variable {
                // The old name lives on in MySQL 5.7 and MariaDB before 11.1, some have both.
                "tx_isolation" | "transaction_isolation" => isolation = text,
                "wsrep_cluster_name" if !text.is_empty() => out.push(&GALERA, &[text], 1.0),
                "wsrep_provider_options" if !text.is_empty() => out.push(&GCACHE, &[], gcache_bytes(text)),
                _ => {}
            }
        }
        if !isolation.is_empty() {
            out.push(&ISOLATION, &[isolation], 1.0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gcache_sizes() {
        let table = [
            ("base_dir = /; gcache.size = 128M; x = 1;", 128.0 * 1024.0 * 1024.0),
            ("gcache.size = 2G;", 2.0 * 1024.0 * 1024.0 * 1024.0),
            ("gcache.size=4096;", 4096.0),
            ("gcache.page_size = 128M;", 0.0),
        ];
        for (options, bytes) in table {
            assert_eq!(gcache_bytes(options), bytes, "{options}");
        }
    }
}
