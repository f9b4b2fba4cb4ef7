//! Replicas that really replicate, and what breaks them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lampad_agent::module::Entry;
use lampad_agent::modules::mysql::{Extra, MysqlSettings, Secret, Session, Surroundings, modules_on};
use lampad_agent::tick::Tick;
use lampad_proto::Number;
use lampad_tests::mariadb::Server;

/// Far above what any step takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A column, and what its value must be like.
type Wanted<'a> = (&'a str, fn(f64) -> bool);

/// The modules that look at a server.
struct Watch(Vec<Entry>);

impl Watch {
    fn on(server: &Server) -> Self {
        let settings = MysqlSettings {
            server: Some(Secret::new(server.dsn())),
            extra: vec![Extra::SlaveHosts, Extra::ApplierWorkers],
            statement_deadline: PATIENCE,
            ..MysqlSettings::default()
        };
        Self(modules_on(&Session::new(settings, Surroundings::default())))
    }

    /// Samples of a module: name without its beginning, connection or channel (and worker), value.
    async fn sample(&mut self, module: &str) -> Result<BTreeMap<(String, String), f64>> {
        let entry = self.0.iter_mut().find(|entry| entry.spec.name == module).context("module")?;
        let mut tick = Tick::new();
        entry.module.sample(&mut tick).await?;
        let write = |(name, labels, value): (&str, Vec<(&str, &str)>, Number)| {
            let told = |(label, _): &&(&str, &str)| matches!(*label, "connection_name" | "channel_name" | "member_id");
            let channel = labels.iter().filter(told).map(|(_, text)| *text).collect::<String>();
            ((name.trim_start_matches("mysql_slave_status_").to_owned(), channel), value.as_f64())
        };
        Ok(tick.samples().map(write).collect())
    }

    /// Reads until the columns of one connection are as wanted.
    async fn until(&mut self, connection: &str, wanted: &[Wanted<'_>]) -> Result<()> {
        let begun = Instant::now();
        loop {
            let seen = self.sample("mysql.replication").await?;
            let value = |column: &str| seen.get(&(column.to_owned(), connection.to_owned())).copied();
            if wanted.iter().all(|(column, fits)| value(column).is_some_and(fits)) {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                let errors: Vec<_> = seen.iter().filter(|((name, _), _)| name.ends_with("errno")).collect();
                let values: Vec<_> = wanted.iter().map(|(column, _)| (column, value(column))).collect();
                bail!("{connection:?} stays at {values:?}, {errors:?}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

const RUNS: fn(f64) -> bool = |value| value == 1.0;
const STANDS: fn(f64) -> bool = |value| value == 0.0;
const SOME: fn(f64) -> bool = |value| value > 0.0;
const HEALTHY: [Wanted; 3] =
    [("slave_io_running", RUNS), ("slave_sql_running", RUNS), ("seconds_behind_master", STANDS)];

/// Not logged: it must not come to the replica by two ways.
const SOURCE_USER: &str = "SET SESSION sql_log_bin = 0; CREATE USER repl@'127.0.0.1' IDENTIFIED BY 'repl'; GRANT REPLICATION SLAVE ON *.* TO repl@'127.0.0.1'";

fn flags(id: &str) -> [String; 3] {
    [format!("--server-id={id}"), "--log-bin=bin".to_owned(), "--slave-net-timeout=5".to_owned()]
}

async fn mariadb(id: &str) -> Result<Server> {
    Server::mariadb(&flags(id).each_ref().map(String::as_str)).await
}

#[tokio::test]
async fn a_mariadb_replica_with_two_sources_and_all_that_happens_to_it() -> Result<()> {
    let (east, west, replica) = tokio::join!(mariadb("1"), mariadb("2"), mariadb("3"));
    let (mut east, west, replica) = (east?, west?, replica?);
    for (name, domain, source) in [("east", 1, &east), ("west", 2, &west)] {
        source.execute(&format!("SET GLOBAL gtid_domain_id = {domain}; {SOURCE_USER}")).await?;
        replica
            .execute(&format!(
                "CHANGE MASTER '{name}' TO master_host='127.0.0.1', master_port={}, master_user='repl', \
                 master_password='repl', master_connect_retry=1, master_heartbeat_period=1; START SLAVE '{name}'",
                source.port()
            ))
            .await?;
    }
    let mut watch = Watch::on(&replica);
    for name in ["east", "west"] {
        watch.until(name, &HEALTHY).await?;
    }
    let registered = Watch::on(&east).sample("mysql.slave_hosts").await?;
    assert_eq!(registered.len(), 1, "the replica is known to its source: {registered:?}");

    // The thread that applies is stopped; the other connection goes on.
    replica.execute("STOP SLAVE 'east' SQL_THREAD").await?;
    watch.until("east", &[("slave_io_running", RUNS), ("slave_sql_running", STANDS)]).await?;
    watch.until("west", &HEALTHY).await?;
    replica.execute("START SLAVE 'east' SQL_THREAD").await?;
    watch.until("east", &HEALTHY).await?;

    // A session of the replica holds the row that is to be changed.
    east.execute(
        "CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY, b INT) ENGINE=InnoDB; INSERT INTO d.t VALUES (1, 1)",
    )
    .await?;
    let begun = Instant::now();
    while replica.ask("SELECT COUNT(*) FROM d.t").await.ok().as_deref() != Some("1") {
        assert!(begun.elapsed() < PATIENCE, "the row never came");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut holder = replica.connect().await?;
    sqlx::raw_sql("BEGIN; SELECT * FROM d.t FOR UPDATE").execute(&mut holder).await?;
    east.execute("UPDATE d.t SET b = 2").await?;
    watch.until("east", &[("slave_sql_running", RUNS), ("seconds_behind_master", SOME)]).await?;
    sqlx::raw_sql("ROLLBACK").execute(&mut holder).await?;
    watch.until("east", &HEALTHY).await?;

    // Its password is no longer right, so the thread that fetches cannot come back.
    east.execute("SET SESSION sql_log_bin = 0; SET PASSWORD FOR repl@'127.0.0.1' = PASSWORD('other')").await?;
    replica.execute("STOP SLAVE 'east' IO_THREAD; START SLAVE 'east' IO_THREAD").await?;
    watch.until("east", &[("slave_io_running", STANDS), ("slave_sql_running", RUNS), ("last_io_errno", SOME)]).await?;
    east.execute("SET SESSION sql_log_bin = 0; SET PASSWORD FOR repl@'127.0.0.1' = PASSWORD('repl')").await?;
    replica.execute("STOP SLAVE 'east' IO_THREAD; START SLAVE 'east' IO_THREAD").await?;
    watch.until("east", &HEALTHY).await?;

    // The source is gone.
    east.kill();
    watch.until("east", &[("slave_io_running", STANDS), ("slave_sql_running", RUNS)]).await?;
    watch.until("west", &HEALTHY).await?;
    Ok(())
}

#[tokio::test]
async fn a_mysql_9_replica_and_all_that_happens_to_it() -> Result<()> {
    let flags = |id: &str| [format!("--server-id={id}"), "--log-bin=bin".to_owned()];
    let Some(mut source) = Server::mysql9(&flags("1").each_ref().map(String::as_str)).await? else { return Ok(()) };
    let Some(replica) = Server::mysql9(&flags("2").each_ref().map(String::as_str)).await? else { return Ok(()) };
    source.execute(&SOURCE_USER.replace("127.0.0.1", "localhost")).await?;
    replica
        .execute(&format!(
            "CHANGE REPLICATION SOURCE TO source_host='127.0.0.1', source_port={}, source_user='repl', \
             source_password='repl', get_source_public_key=1, source_connect_retry=1, source_heartbeat_period=1; \
             START REPLICA",
            source.port()
        ))
        .await?;
    let mut watch = Watch::on(&replica);
    watch.until("", &HEALTHY).await?;
    assert_eq!(Watch::on(&source).sample("mysql.slave_hosts").await?.len(), 1);
    source
        .execute("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY, b INT); INSERT INTO d.t VALUES (1, 1)")
        .await?;
    let begun = Instant::now();
    loop {
        let workers = watch.sample("mysql.applier_workers").await?;
        let applied = "mysql_perf_schema_last_applied_transaction_end_apply_timestamp_seconds";
        // Of several workers the one that has applied it is looked for.
        if workers.iter().any(|((name, _), value)| name == applied && *value > 1e9) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{workers:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    replica.execute("STOP REPLICA SQL_THREAD").await?;
    watch.until("", &[("slave_io_running", RUNS), ("slave_sql_running", STANDS)]).await?;
    replica.execute("START REPLICA SQL_THREAD").await?;
    watch.until("", &HEALTHY).await?;
    let mut holder = replica.connect().await?;
    sqlx::raw_sql("BEGIN; SELECT * FROM d.t FOR UPDATE").execute(&mut holder).await?;
    source.execute("UPDATE d.t SET b = 2").await?;
    watch.until("", &[("slave_sql_running", RUNS), ("seconds_behind_master", SOME)]).await?;
    sqlx::raw_sql("ROLLBACK").execute(&mut holder).await?;
    watch.until("", &HEALTHY).await?;
    source.kill();
    watch.until("", &[("slave_io_running", STANDS), ("slave_sql_running", RUNS)]).await?;
    Ok(())
}
