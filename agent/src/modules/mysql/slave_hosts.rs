//! Replicas that have registered with this server.
//!
//! Source: SHOW SLAVE HOSTS, SHOW REPLICAS. Right: REPLICATION MASTER ADMIN (MariaDB), REPLICATION SLAVE (MySQL).
//! Shape:  one gauge with value 1 per replica. The family's name is the one that mysqld_exporter really gives.
//! Units:  none.
//! Errors: those of the session.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;

use super::rows::Row;
use super::session::Session;
use crate::module::{Desc, Module, ModuleError};
use crate::tick::Tick;

const INFO: Desc = Desc::gauge("mysql_heartbeat_mysql_slave_hosts_info", "A replica that has registered here.")
    .labels(&["server_id", "slave_host", "port", "master_id", "slave_uuid"]);

pub struct SlaveHosts {
    pub session: Arc<Session>,
}

#[async_trait]
impl Module for SlaveHosts {
    fn descs(&self) -> Vec<Desc> {
        vec![INFO]
    }

    async fn sample(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let answer = self.session.query("slave_hosts", |server| Ok(Cow::Borrowed(server.replicas()))).await?;
        for row in answer.rows.iter() {
            out.push(&INFO, &labels_of(&row), 1.0);
        }
        Ok(())
    }
}

fn labels_of<'a>(row: &Row<'a>) -> [&'a str; 5] {
    let either = |old: &str, new: &str| row.get(old).or_else(|| row.get(new)).unwrap_or_default();
    [
        either("Server_id", "Server_Id"),
        either("Host", "Host"),
        either("Port", "Port"),
        either("Master_id", "Source_Id"),
        either("Slave_UUID", "Replica_UUID"),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::rows::Rows;
    use super::*;

    #[test]
    fn old_names_and_new_ones() {
        let new = ["Server_Id", "Host", "Port", "Source_Id", "Replica_UUID"];
        let rows = Rows::made_up(&new, &[&[Some("2"), Some("db2"), Some("3306"), Some("1"), Some("u")]]);
        assert_eq!(labels_of(&rows.iter().next().unwrap()), ["2", "db2", "3306", "1", "u"]);
        let old = ["Server_id", "Host", "Port", "Master_id"];
        let rows = Rows::made_up(&old, &[&[Some("2"), Some(""), Some("3306"), Some("1")]]);
        assert_eq!(labels_of(&rows.iter().next().unwrap()), ["2", "", "3306", "1", ""]);
    }
}
