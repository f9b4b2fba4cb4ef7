//! Which server this is and what it calls things; decided once per connection.
//!
//! Trying one statement after another costs failed statements on every sample (up to eight on MySQL 8.4), so the
//! version decides. Every difference between servers that the modules know of stands in this file.

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    /// MySQL and Percona Server.
    MySql,
    MariaDb,
}

/// What a server said of itself at login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub flavor: Flavor,
    /// Major, minor, patch.
    pub number: (u16, u16, u16),
    pub version: String,
    pub version_comment: String,
    /// Empty on servers that have no such variable (MariaDB from 10.10 on).
    pub innodb_version: String,
    /// `performance_schema = ON`.
    pub performance_schema: bool,
    /// `userstat = ON`: users, clients, tables and indexes are counted.
    pub user_statistics: bool,
    /// `log_bin = ON`.
    pub binary_log: bool,
    /// `thread_handling = one-thread-per-connection`: what the thread does is done for us.
    pub thread_per_connection: bool,
    /// The plugin that counts statements by duration is there and counts.
    pub query_response_time: bool,
    /// It also counts statements that read and those that write apart (MariaDB from 11.5 on, Percona Server 5.6 and 5.7).
    pub query_response_time_split: bool,
}

impl Server {
    pub fn new(version: &str, version_comment: &str) -> Self {
        let maria = [version, version_comment].iter().any(|text| text.to_ascii_lowercase().contains("mariadb"));
        // Old MariaDB put 5.5.5- before its version, for replicas that know nothing above 5.
        let plain = if maria { version.strip_prefix("5.5.5-").unwrap_or(version) } else { version };
        let mut numbers = plain.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        Self {
            flavor: if maria { Flavor::MariaDb } else { Flavor::MySql },
            number: (next(), next(), next()),
            version: version.to_owned(),
            version_comment: version_comment.to_owned(),
            innodb_version: String::new(),
            performance_schema: false,
            user_statistics: false,
            binary_log: false,
            thread_per_connection: false,
            query_response_time: false,
            query_response_time_split: false,
        }
    }

    pub fn is_mariadb(&self) -> bool {
        self.flavor == Flavor::MariaDb
    }

    fn mysql_from(&self, number: (u16, u16, u16)) -> bool {
        self.flavor == Flavor::MySql && self.number >= number
    }

    fn mariadb_from(&self, number: (u16, u16, u16)) -> bool {
        self.flavor == Flavor::MariaDb && self.number >= number
    }

    /// One row per source that this server replicates from.
    pub fn replica_status(&self) -> &'static str {
        if self.is_mariadb() {
            // The only form that shows all sources, each with its name.
            if self.mariadb_from((10, 0, 0)) { "SHOW ALL SLAVES STATUS" } else { "SHOW SLAVE STATUS" }
        } else if self.mysql_from((8, 0, 22)) {
            "SHOW REPLICA STATUS"
        } else {
            "SHOW SLAVE STATUS"
        }
    }

    /// File and position that the server writes its binary log at.
    pub fn binary_log_status(&self) -> &'static str {
        if self.mysql_from((8, 2, 0)) { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" }
    }

    /// Where sessions are listed at the least cost.
    pub fn processlist(&self) -> &'static str {
        // information_schema's takes a global mutex; this one does not.
        if self.mysql_from((8, 0, 22)) && self.performance_schema {
            "performance_schema.processlist"
        } else {
            "information_schema.processlist"
        }
    }

    /// The operating system's number of the thread that serves this connection, where it serves no other one.
    pub fn own_thread(&self) -> Option<&'static str> {
        let sql = match self.flavor {
            Flavor::MariaDb if self.number >= (10, 0, 5) => {
                "SELECT tid FROM information_schema.processlist WHERE id = CONNECTION_ID()"
            }
            Flavor::MySql if self.number >= (5, 7, 0) && self.performance_schema => {
                "SELECT thread_os_id AS tid FROM performance_schema.threads WHERE processlist_id = CONNECTION_ID()"
            }
            _ => return None,
        };
        self.thread_per_connection.then_some(sql)
    }

    /// InnoDB's own tables are named INNODB_SYS_*: in MariaDB always, in MySQL before 8.0.
    pub fn has_innodb_sys_tables(&self) -> bool {
        !self.mysql_from((8, 0, 0))
    }

    /// That table of tablespaces, and where it tells format and kind.
    pub fn innodb_tablespace_columns(&self) -> (&'static str, &'static str) {
        const NONE: &str = "'NONE' AS file_format, row_format";
        match self.flavor {
            Flavor::MySql if self.has_innodb_sys_tables() => {
                ("innodb_sys_tablespaces", "file_format, row_format, space_type")
            }
            Flavor::MySql => ("innodb_tablespaces", "'NONE' AS file_format, row_format, space_type"),
            Flavor::MariaDb if self.mariadb_from((10, 5, 0)) => ("innodb_sys_tablespaces", NONE),
            Flavor::MariaDb => ("innodb_sys_tablespaces", "'NONE' AS file_format, row_format, space_type"),
        }
    }

    /// Which of InnoDB's counters count.
    pub fn innodb_metrics_enabled(&self) -> &'static str {
        if self.mariadb_from((10, 5, 0)) { "enabled = 1" } else { "status = 'enabled'" }
    }

    /// Replicas that have registered here.
    pub fn replicas(&self) -> &'static str {
        if self.mysql_from((8, 0, 22)) { "SHOW REPLICAS" } else { "SHOW SLAVE HOSTS" }
    }

    /// The right that [`Self::replicas`] asks for.
    pub fn replicas_right(&self) -> Right {
        if self.mariadb_from((10, 5, 2)) { Right::ReplicationMasterAdmin } else { Right::ReplicationSlave }
    }

    /// Digests have quantiles of their latency.
    pub fn has_statement_quantiles(&self) -> bool {
        self.mysql_from((8, 0, 0))
    }

    /// Digests have the CPU time of their statements.
    pub fn counts_statement_cpu(&self) -> bool {
        self.mysql_from((8, 0, 28))
    }

    pub fn has_group_replication_tables(&self) -> bool {
        self.mysql_from((5, 7, 0))
    }

    /// Workers that apply tell which transaction they are at, and since when.
    pub fn has_applier_timestamps(&self) -> bool {
        self.mysql_from((8, 0, 1))
    }

    pub fn has_sys_schema(&self) -> bool {
        self.mysql_from((5, 7, 7)) || self.mariadb_from((10, 6, 0))
    }

    /// Ends the session's own statements after this time, by the server itself. MySQL counts SELECTs only.
    pub fn statement_limit(&self, limit: std::time::Duration) -> Option<String> {
        if self.mariadb_from((10, 1, 1)) {
            Some(format!("max_statement_time={:.3}", limit.as_secs_f64()))
        } else if self.mysql_from((5, 7, 8)) {
            Some(format!("max_execution_time={}", limit.as_millis()))
        } else {
            None
        }
    }

    /// Keep our own statements out of the slow log; one of them may be refused, the session goes on without.
    pub fn quiet_settings(&self) -> &'static [&'static str] {
        match self.flavor {
            Flavor::MariaDb => &["SET SESSION slow_query_log=0", "SET SESSION log_slow_filter='filesort_on_disk'"],
            Flavor::MySql => &["SET SESSION long_query_time=31536000"],
        }
    }

    /// Rights that the default modules need.
    pub fn rights(&self) -> &'static [Right] {
        if self.mariadb_from((10, 5, 9)) {
            &[Right::Process, Right::SlaveMonitor]
        } else if self.mariadb_from((10, 5, 2)) {
            &[Right::Process, Right::ReplicationSlaveAdmin]
        } else if self.mysql_from((8, 0, 22)) {
            // Sessions are read from performance_schema.
            &[Right::Process, Right::ReplicationClient, Right::PerformanceSchema]
        } else {
            &[Right::Process, Right::ReplicationClient]
        }
    }

    /// The right that [`Self::replica_status`] asks for.
    pub fn replica_right(&self) -> Right {
        if self.mariadb_from((10, 5, 9)) {
            Right::SlaveMonitor
        } else if self.mariadb_from((10, 5, 2)) {
            Right::ReplicationSlaveAdmin
        } else {
            Right::ReplicationClient
        }
    }

    /// The right that [`Self::binary_log_status`] asks for.
    pub fn binlog_right(&self) -> Right {
        if self.mariadb_from((10, 5, 2)) { Right::BinlogMonitor } else { Right::ReplicationClient }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.is_mariadb() { "MariaDB" } else { "MySQL" };
        write!(out, "{name} {} ({})", self.version, self.version_comment)
    }
}

/// A right as a GRANT statement names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    Process,
    ReplicationClient,
    BinlogMonitor,
    SlaveMonitor,
    ReplicationSlaveAdmin,
    ReplicationMasterAdmin,
    ReplicationSlave,
    /// SELECT on performance_schema.
    PerformanceSchema,
    /// SHOW VIEW on everything: tables are listed, with their sizes, to whoever has any right on them, and this one reads no row.
    TableNames,
    /// SELECT on the tables of users: what is told of their columns and use is only what the account may see.
    Tables,
    /// SELECT on mysql.user.
    Accounts,
    /// SELECT on sys.
    Sys,
    /// SELECT on the table that pt-heartbeat writes.
    Heartbeat,
}

impl Right {
    pub fn name(self) -> &'static str {
        match self {
            Self::Process => "PROCESS",
            Self::ReplicationClient => "REPLICATION CLIENT",
            Self::BinlogMonitor => "BINLOG MONITOR",
            Self::SlaveMonitor => "SLAVE MONITOR",
            Self::ReplicationSlaveAdmin => "REPLICATION SLAVE ADMIN",
            Self::ReplicationMasterAdmin => "REPLICATION MASTER ADMIN",
            Self::ReplicationSlave => "REPLICATION SLAVE",
            Self::PerformanceSchema => "SELECT ON performance_schema.*",
            Self::TableNames => "SHOW VIEW ON *.*",
            Self::Tables => "SELECT ON *.*",
            Self::Accounts => "SELECT ON mysql.user",
            Self::Sys => "SELECT ON sys.*",
            Self::Heartbeat => "SELECT ON the heartbeat table",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_gets_its_statements() {
        const OLD: &str = "SHOW SLAVE STATUS";
        const ALL: &str = "SHOW ALL SLAVES STATUS";
        const NEW: &str = "SHOW REPLICA STATUS";
        const MASTER: &str = "SHOW MASTER STATUS";
        const LOG: &str = "SHOW BINARY LOG STATUS";
        let table = [
            ("5.7.44-log", "MySQL Community Server", Flavor::MySql, (5, 7, 44), OLD, MASTER, Right::ReplicationClient),
            ("8.0.21", "MySQL Community Server", Flavor::MySql, (8, 0, 21), OLD, MASTER, Right::ReplicationClient),
            ("8.0.36-28", "Percona Server (GPL)", Flavor::MySql, (8, 0, 36), NEW, MASTER, Right::ReplicationClient),
            ("8.4.3", "MySQL Community Server", Flavor::MySql, (8, 4, 3), NEW, LOG, Right::ReplicationClient),
            ("9.7.4", "(Debian)", Flavor::MySql, (9, 7, 4), NEW, LOG, Right::ReplicationClient),
            (
                "5.5.5-10.3.39-MariaDB-log",
                "MariaDB Server",
                Flavor::MariaDb,
                (10, 3, 39),
                ALL,
                MASTER,
                Right::ReplicationClient,
            ),
            (
                "10.5.4-MariaDB",
                "MariaDB Server",
                Flavor::MariaDb,
                (10, 5, 4),
                ALL,
                MASTER,
                Right::ReplicationSlaveAdmin,
            ),
            (
                "10.11.19-MariaDB-0+deb12u1",
                "Debian 12",
                Flavor::MariaDb,
                (10, 11, 19),
                ALL,
                MASTER,
                Right::SlaveMonitor,
            ),
            ("11.4.2-MariaDB", "MariaDB Server", Flavor::MariaDb, (11, 4, 2), ALL, MASTER, Right::SlaveMonitor),
        ];
        for (version, comment, flavor, number, replica, binlog, right) in table {
            let server = Server::new(version, comment);
            assert_eq!((server.flavor, server.number), (flavor, number), "{version}");
            assert_eq!((server.replica_status(), server.binary_log_status()), (replica, binlog), "{version}");
            assert_eq!(server.replica_right(), right, "{version}");
            assert!(server.rights().contains(&server.replica_right()), "{version}");
        }
    }

    /// Versions that were not at hand to be run against: what each is asked, word by word.
    #[test]
    fn versions_that_were_not_run_get_the_statements_of_their_manuals() {
        let asked = |version: &str| {
            let mut server = Server::new(version, "MySQL Community Server");
            (server.performance_schema, server.thread_per_connection) = (true, true);
            let tablespaces = server.innodb_tablespace_columns().0;
            let limit = server.statement_limit(std::time::Duration::from_secs(3)).unwrap();
            assert_eq!(limit, "max_execution_time=3000", "{version}");
            assert_eq!(server.replicas_right(), Right::ReplicationSlave, "{version}");
            assert_eq!(server.innodb_metrics_enabled(), "status = 'enabled'", "{version}");
            assert!(server.own_thread().unwrap().contains("thread_os_id"), "{version}");
            assert!(server.has_group_replication_tables() && server.has_sys_schema(), "{version}");
            let quantiles = (server.has_statement_quantiles(), server.counts_statement_cpu());
            (server.replicas(), server.processlist(), tablespaces, quantiles, server.rights().len())
        };
        const OLD: (&str, &str) = ("SHOW SLAVE HOSTS", "information_schema.processlist");
        const NEW: (&str, &str) = ("SHOW REPLICAS", "performance_schema.processlist");
        for (version, (replicas, sessions), tablespaces, quantiles, rights) in [
            ("5.7.44", OLD, "innodb_sys_tablespaces", (false, false), 2),
            ("8.0.11", OLD, "innodb_tablespaces", (true, false), 2),
            ("8.0.22", NEW, "innodb_tablespaces", (true, false), 3),
            ("8.0.41", NEW, "innodb_tablespaces", (true, true), 3),
            ("8.4.5", NEW, "innodb_tablespaces", (true, true), 3),
        ] {
            assert_eq!(asked(version), (replicas, sessions, tablespaces, quantiles, rights), "{version}");
        }
    }

    #[test]
    fn the_processlist_is_read_without_the_mutex_where_that_can_be() {
        let mut server = Server::new("8.4.3", "");
        assert_eq!(server.processlist(), "information_schema.processlist");
        server.performance_schema = true;
        assert_eq!(server.processlist(), "performance_schema.processlist");
        let mut old = Server::new("8.0.20", "");
        old.performance_schema = true;
        assert_eq!(old.processlist(), "information_schema.processlist");
    }

    #[test]
    fn nonsense_is_the_oldest_mysql() {
        let server = Server::new("", "");
        assert_eq!((server.flavor, server.number), (Flavor::MySql, (0, 0, 0)));
        assert_eq!(server.replica_status(), "SHOW SLAVE STATUS");
    }
}
