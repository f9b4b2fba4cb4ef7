//! A replica's state.
//!
//! Source: SHOW ALL SLAVES STATUS, SHOW REPLICA STATUS or SHOW SLAVE STATUS, by version. Right: see `Server::replica_right`.
//! Shape:  one untyped series per column that reads as a number and source; MariaDB's GTID positions as one gauge per domain
//!         and server. A server that replicates from nowhere has none.
//! Units:  as the server has them; lags in seconds.
//! Errors: those of the session.
//!
//! MySQL 8.0.22 renamed the columns (`Seconds_Behind_Source`). Such a column is told under its own name and under the
//! one before, so that dashboards and alerts written for either find it.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use lampad_proto::Number;
use lampad_proto::v1::MetricType;

use super::rows::{Row, Rows};
use super::session::Session;
use super::value::{metric_name, number};
use crate::module::{Desc, Module, ModuleError};
use crate::tick::Tick;

const LABELS: &[&str] = &["master_host", "master_uuid", "channel_name", "connection_name"];
const GTID_LABELS: &[&str] =
    &["master_host", "master_uuid", "channel_name", "connection_name", "domain_id", "server_id"];
const GTID_HELP: &str = "Sequence number of the last transaction of this domain and server.";
const GTID_COLUMNS: &[(&str, Desc)] = &[
    ("Gtid_IO_Pos", Desc::gauge("mysql_slave_status_gtid_io_pos", GTID_HELP).labels(GTID_LABELS)),
    ("Gtid_Slave_Pos", Desc::gauge("mysql_slave_status_gtid_slave_pos", GTID_HELP).labels(GTID_LABELS)),
];

pub struct Replication {
    pub session: Arc<Session>,
}

#[async_trait]
impl Module for Replication {
    fn descs(&self) -> Vec<Desc> {
        GTID_COLUMNS.iter().map(|(_, desc)| desc.clone()).collect()
    }

    async fn sample(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let answer = self.session.query("replication", |server| Ok(Cow::Borrowed(server.replica_status()))).await?;
        push_all(&answer.rows, out);
        Ok(())
    }
}

fn push_all(rows: &Rows, out: &mut Tick) {
    for row in rows.iter() {
        let labels = labels_of(&row);
        for (column, text) in row.cells() {
            let Some(value) = number(text) else { continue };
            let name = metric_name(column);
            push(out, &name, &labels, value);
            let before = name_before(&name);
            if before != name {
                push(out, &before, &labels, value);
            }
        }
        for (column, desc) in GTID_COLUMNS {
            for (domain, server, sequence) in row.get(column).into_iter().flat_map(gtids) {
                let [host, uuid, channel, connection] = labels;
                out.push(desc, &[host, uuid, channel, connection, domain, server], sequence);
            }
        }
    }
}

/// As it was called before MySQL 8.0.22. Word by word: `replicate_do_db` has kept its name.
fn name_before(name: &str) -> String {
    let word = |word| match word {
        "source" => "master",
        "replica" => "slave",
        other => other,
    };
    name.split('_').map(word).collect::<Vec<_>>().join("_")
}

fn labels_of<'a>(row: &Row<'a>) -> [&'a str; 4] {
    let either = |old: &str, new: &str| row.get(old).or_else(|| row.get(new)).unwrap_or_default();
    [
        either("Master_Host", "Source_Host"),
        either("Master_UUID", "Source_UUID"),
        row.get("Channel_Name").unwrap_or_default(),
        row.get("Connection_name").unwrap_or_default(),
    ]
}

fn push(out: &mut Tick, column: &str, labels: &[&str; 4], value: Number) {
    let name = format!("mysql_slave_status_{column}");
    let desc = Desc::named(MetricType::Unknown, name, "Generic metric from SHOW SLAVE STATUS.").labels(LABELS);
    out.push(&desc, labels, value);
}

/// `domain-server-sequence`, several parted by commas.
fn gtids(text: &str) -> impl Iterator<Item = (&str, &str, Number)> {
    text.split(',').filter_map(|gtid| {
        let mut parts = gtid.trim().split('-');
        let (domain, server, sequence) = (parts.next()?, parts.next()?, Number::parse(parts.next()?)?);
        Some((domain, server, sequence))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_words_were_renamed() {
        assert_eq!(name_before("replica_sql_running"), "slave_sql_running");
        assert_eq!(name_before("seconds_behind_source"), "seconds_behind_master");
        assert_eq!(name_before("replicate_ignore_server_ids"), "replicate_ignore_server_ids");
    }

    fn samples(rows: &Rows) -> Vec<String> {
        let mut tick = Tick::new();
        push_all(rows, &mut tick);
        let write = |(name, labels, value): (&str, Vec<(&str, &str)>, Number)| {
            let labels =
                labels.iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| format!("{name}={text}"));
            format!(
                "{} {} {value}",
                name.trim_start_matches("mysql_slave_status_"),
                labels.collect::<Vec<_>>().join(",")
            )
        };
        tick.samples().map(write).collect()
    }

    #[test]
    fn mariadb_sources_are_told_apart_by_connection() {
        let columns = ["Connection_name", "Master_Host", "Slave_IO_Running", "Seconds_Behind_Master", "Gtid_IO_Pos"];
        let rows = Rows::made_up(
            &columns,
            &[
                &[Some("east"), Some("db1"), Some("Connecting"), None, Some("0-1-5,1-2-7")],
                &[Some("west"), Some("db2"), Some("Yes"), Some("3"), Some("")],
            ],
        );
        assert_eq!(
            samples(&rows),
            [
                "slave_io_running master_host=db1,connection_name=east 0",
                "gtid_io_pos master_host=db1,connection_name=east,domain_id=0,server_id=1 5",
                "gtid_io_pos master_host=db1,connection_name=east,domain_id=1,server_id=2 7",
                "slave_io_running master_host=db2,connection_name=west 1",
                "seconds_behind_master master_host=db2,connection_name=west 3",
            ]
        );
    }

    #[test]
    fn mysql_columns_keep_their_old_names_too() {
        let columns = ["Source_Host", "Source_UUID", "Channel_Name", "Replica_SQL_Running", "Seconds_Behind_Source"];
        let rows = Rows::made_up(&columns, &[&[Some("db1"), Some("u"), Some("c"), Some("No"), Some("9")]]);
        let labels = "master_host=db1,master_uuid=u,channel_name=c";
        let expected = ["replica_sql_running", "slave_sql_running", "seconds_behind_source", "seconds_behind_master"]
            .iter()
            .zip([0, 0, 9, 9])
            .map(|(name, value)| format!("{name} {labels} {value}"));
        assert_eq!(samples(&rows), expected.collect::<Vec<_>>());
    }
}
