//! The MySQL modules against servers of their own.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lampad_agent::module::{Entry, ModuleError};
use lampad_agent::modules::mysql::{Extra, MysqlSettings, Secret, Session, Surroundings, governed, modules_on};
use lampad_agent::tick::Tick;
use lampad_proto::Number;
use lampad_tests::mariadb::Server;
use sqlx::ConnectOptions;

/// Far above what any step takes on a busy machine; a condition not met by then never will be.
const PATIENCE: Duration = Duration::from_secs(30);

fn settings(dsn: String) -> MysqlSettings {
    MysqlSettings { server: Some(Secret::new(dsn)), ..MysqlSettings::default() }
}

fn session(settings: MysqlSettings) -> std::sync::Arc<Session> {
    Session::new(settings, Surroundings::default())
}

fn find<'a>(entries: &'a mut [Entry], name: &str) -> Result<&'a mut Entry> {
    entries.iter_mut().find(|entry| entry.spec.name == name).with_context(|| format!("no module {name}"))
}

/// All samples of one tick: name and labels as text, value.
async fn sample(entry: &mut Entry) -> Result<BTreeMap<String, f64>, ModuleError> {
    let mut tick = Tick::new();
    entry.module.sample(&mut tick).await?;
    assert_eq!(tick.repeated(), 0, "{} tells a series twice", entry.spec.name);
    let write = |(name, labels, value): (&str, Vec<(&str, &str)>, Number)| {
        let labels: Vec<_> = labels.iter().map(|(name, text)| format!("{name}={text:?}")).collect();
        (if labels.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", labels.join(",")) }, value.as_f64())
    };
    Ok(tick.samples().map(write).collect())
}

/// Samples `mysql.up` until it says so.
async fn wait_for_up(entries: &mut [Entry], expected: f64) -> Result<Duration> {
    let begun = Instant::now();
    loop {
        let seen = sample(find(entries, "mysql.up")?).await;
        if matches!(&seen, Ok(samples) if samples.get("mysql_up") == Some(&expected)) {
            return Ok(begun.elapsed());
        }
        if begun.elapsed() > PATIENCE {
            bail!("mysql_up is not {expected}: {seen:?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn sessions_of(server: &Server, user: &str) -> Result<u32> {
    let sql = format!("SELECT COUNT(*) FROM information_schema.processlist WHERE user = '{user}'");
    Ok(server.ask(&sql).await?.parse()?)
}

async fn with_each_server<F, Run>(flags: &[&str], run: Run) -> Result<()>
where
    Run: Fn(Server) -> F,
    F: Future<Output = Result<()>>,
{
    run(Server::mariadb(flags).await?).await.context("MariaDB")?;
    match Server::mysql9(flags).await? {
        Some(server) => run(server).await.context("MySQL 9"),
        None => Ok(()),
    }
}

#[tokio::test]
async fn every_default_module_samples_and_no_series_is_in_two_groups() -> Result<()> {
    with_each_server(&["--performance-schema=ON"], |server| async move {
        let _bystander = server.connect().await?; // without one the list of other sessions is empty
        // A busy machine may take its time: this test is about what is told.
        let settings = MysqlSettings { statement_deadline: PATIENCE, ..settings(server.dsn()) };
        let mut entries = modules_on(&session(settings));
        let mut owners = BTreeMap::new();
        for entry in &mut entries {
            let samples = match sample(entry).await {
                Ok(samples) => samples,
                Err(error) if error.is_absence() && entry.spec.name == "mysql.query_response_time" => continue,
                Err(error) => bail!("{}: {error}", entry.spec.name),
            };
            assert!(!samples.is_empty() || entry.spec.name == "mysql.replication", "{}", entry.spec.name);
            for series in samples.into_keys() {
                if let Some(other) = owners.insert(series.clone(), entry.spec.name) {
                    bail!("{series} is in {other} and in {}", entry.spec.name);
                }
            }
        }
        assert!(owners.len() > 500, "{} series", owners.len());
        Ok(())
    })
    .await
}

/// Every server knows the columns that the tables' statements name.
#[tokio::test]
async fn modules_that_are_off_by_default_sample() -> Result<()> {
    with_each_server(&["--performance-schema=ON"], |server| async move {
        let extra = Extra::ALL.iter().copied().filter(|extra| *extra != Extra::Heartbeat).collect();
        let mut entries =
            modules_on(&session(MysqlSettings { extra, statement_deadline: PATIENCE, ..settings(server.dsn()) }));
        for entry in &mut entries {
            match sample(entry).await {
                Ok(samples) => {
                    // A fresh server has no tables and statements of users, no groups and no replicas.
                    let of_server =
                        ["events_waits", "file_events", "file_instances", "memory_events", "statements_sum"];
                    let must = of_server.iter().any(|name| entry.spec.name.ends_with(name));
                    assert!(!must || !samples.is_empty(), "{} is empty", entry.spec.name);
                }
                Err(error) if error.is_absence() => {}
                Err(error) => bail!("{}: {error}", entry.spec.name),
            }
        }
        Ok(())
    })
    .await
}

/// The sums of the others named columns that only other servers have.
#[tokio::test]
async fn what_is_beyond_the_budget_is_told_together() -> Result<()> {
    let flags = ["--performance-schema=ON", "--loose-userstat=1", "--skip-name-resolve"];
    with_each_server(&flags, |server| async move {
        server
            .execute(
                "CREATE USER a@localhost; CREATE USER b@'127.0.0.1'; CREATE DATABASE d;
                 CREATE TABLE d.t (i INT AUTO_INCREMENT PRIMARY KEY); CREATE TABLE d.u (i INT AUTO_INCREMENT PRIMARY KEY);
                 USE d; INSERT INTO t VALUES (1); INSERT INTO u VALUES (1); SELECT * FROM t, u",
            )
            .await?;
        let _over_the_socket = server.root().username("a").connect().await?;
        let tcp = sqlx::mysql::MySqlConnectOptions::new().host("127.0.0.1").port(server.port()).username("b");
        let _over_tcp = tcp.connect().await?;
        let extra = Extra::ALL.iter().copied().filter(|extra| *extra != Extra::Heartbeat).collect();
        let settings =
            MysqlSettings { extra, objects_max: 1, statement_deadline: PATIENCE, ..settings(server.dsn()) };
        let mut with_others = BTreeSet::new();
        for entry in &mut modules_on(&session(settings)) {
            match sample(entry).await {
                Ok(samples) if samples.keys().any(|series| series.starts_with("lampad_mysql_other_objects")) => {
                    with_others.insert(entry.spec.name);
                }
                Ok(_) => {}
                Err(error) if error.is_absence() => {}
                Err(error) => bail!("{}: {error}", entry.spec.name),
            }
        }
        let mut expected = vec!["mysql.statements", "mysql.table_io_waits", "mysql.tables", "mysql.user"];
        if server.is_mariadb() {
            expected.extend(["mysql.user_statistics", "mysql.client_statistics", "mysql.table_statistics"]);
        }
        let missing: Vec<_> = expected.iter().filter(|name| !with_others.contains(*name)).collect();
        assert!(missing.is_empty(), "{missing:?} tell of no others: {with_others:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn mysql_up_follows_the_server() -> Result<()> {
    with_each_server(&[], |mut server| async move {
        let mut entries = modules_on(&session(settings(server.dsn())));
        wait_for_up(&mut entries, 1.0).await?;
        server.stop();
        let noticed = wait_for_up(&mut entries, 0.0).await?;
        println!("down noticed after {noticed:?}");
        let vital = sample(find(&mut entries, "mysql.vital")?).await;
        assert!(matches!(vital, Err(ModuleError::Connect { .. })), "{vital:?}");
        server.start().await?;
        let noticed = wait_for_up(&mut entries, 1.0).await?;
        println!("up noticed after {noticed:?}");
        sample(find(&mut entries, "mysql.vital")?).await?;
        Ok(())
    })
    .await
}

/// A module that asks a statement per schema asks again the moment it has an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_may_be_asked_again_as_soon_as_it_is_answered() -> Result<()> {
    let server = Server::mariadb(&[]).await?;
    let session = session(settings(server.dsn()));
    for _ in 0..300 {
        session.query("again", |_| Ok(Cow::Borrowed("SELECT 1"))).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_statement_past_its_deadline_is_killed_and_two_connections_suffice() -> Result<()> {
    with_each_server(&[], |server| async move {
        server.execute("CREATE USER lampad@localhost; GRANT PROCESS ON *.* TO lampad@localhost").await?;
        let dsn = server.dsn().replace("root@", "lampad@");
        let settings = MysqlSettings { statement_deadline: Duration::from_millis(500), ..settings(dsn) };
        let session = session(settings);
        let sleep = |_: &_| Ok(Cow::Borrowed("SELECT SLEEP(600)"));
        let kills = "SHOW GLOBAL STATUS LIKE 'Com_kill'";
        let kills_before: u32 = server.ask(kills).await?.parse()?;
        session.ping().await?;
        let asleep = tokio::spawn({
            let session = session.clone();
            async move { session.query("sleep", sleep).await }
        });
        let mut most = 0;
        let begun = Instant::now();
        loop {
            most = most.max(sessions_of(&server, "lampad").await?);
            let again = session.query("sleep", |_| Ok(Cow::Borrowed("SELECT 1"))).await;
            match again {
                // Left out at once while the first is under way.
                Err(ModuleError::TimedOut { .. } | ModuleError::Held) if begun.elapsed() < PATIENCE => {}
                Err(error) => bail!("{error}"),
                Ok(_) => break,
            }
        }
        let outcome = asleep.await?;
        assert!(matches!(outcome, Err(ModuleError::TimedOut { .. })), "{outcome:?}");
        assert!(begun.elapsed() >= Duration::from_millis(500), "the statement never ran");
        assert!((1..=2).contains(&most), "{most} connections");
        // The server's own limit, a second later, would have ended it too; the KILL must come first.
        assert!(server.ask(kills).await?.parse::<u32>()? > kills_before, "no KILL was sent");
        let sleeping = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP(600)%'";
        assert_eq!(server.ask(sleeping).await?, "0");
        Ok(())
    })
    .await
}

/// A read that waits, for a lock or on a busy machine, has cost the server nothing and must not be held back for it.
#[tokio::test]
async fn a_statement_that_waits_is_charged_for_what_the_server_ran() -> Result<()> {
    with_each_server(&[], |server| async move {
        let sleepy = "SELECT DATE_ADD(NOW(6), INTERVAL SLEEP(0.2) SECOND) AS ts, 1 AS server_id";
        server.execute(&format!("CREATE DATABASE hb; CREATE VIEW hb.hb AS {sleepy}")).await?;
        let session = session(MysqlSettings {
            extra: vec![Extra::Heartbeat],
            heartbeat_table: "hb.hb".to_owned(),
            ..settings(server.dsn())
        });
        let mut entries = governed(&session);
        let (begun, mut reads) = (Instant::now(), 0);
        while reads < 3 {
            match sample(find(&mut entries, "mysql.heartbeat")?).await {
                Ok(_) => reads += 1,
                Err(ModuleError::Held) if begun.elapsed() < PATIENCE => tokio::task::yield_now().await,
                Err(error) => bail!("{error}"),
            }
        }
        assert!(begun.elapsed() >= Duration::from_millis(600), "the statements did not wait");
        session.ping().await?;
        let accounts = session.governor().accounts();
        let (_, book) = accounts.iter().find(|(name, _)| *name == "mysql.heartbeat").context("no book of it")?;
        assert!(book.spent > 0.0 && book.spent < 0.2, "{} s for three reads that waited 0.2 s each", book.spent);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn sampling_prepares_no_statements() -> Result<()> {
    with_each_server(&[], |server| async move {
        let prepared = "SHOW GLOBAL STATUS LIKE 'Com_stmt_prepare'";
        let before = server.ask(prepared).await?;
        let mut entries = modules_on(&session(settings(server.dsn())));
        for _ in 0..3 {
            for entry in &mut entries {
                let _ = sample(entry).await; // `Absent` is fine here
            }
        }
        assert_eq!(server.ask(prepared).await?, before);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_absent_server_is_an_error_only_where_it_was_named() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut named =
        modules_on(&session(settings(format!("mysql://root@localhost?socket={}/no.sock", dir.path().display()))));
    wait_for_up(&mut named, 0.0).await?;
    let vital = sample(find(&mut named, "mysql.vital")?).await;
    assert!(matches!(vital, Err(ModuleError::Connect { .. })), "{vital:?}");
    Ok(())
}

#[tokio::test]
async fn refused_logins_back_off_and_say_what_to_do() -> Result<()> {
    let server = Server::mariadb(&[]).await?;
    server.execute("CREATE USER lampad@localhost IDENTIFIED BY 'right'").await?;
    let session = session(settings(server.dsn().replace("root@", "lampad:wrong@")));
    let mut entries = modules_on(&session);
    for _ in 0..20 {
        let refused = sample(find(&mut entries, "mysql.vital")?).await;
        let Err(ModuleError::Connect { detail, .. }) = refused else { bail!("{refused:?}") };
        assert!(detail.contains("Access denied") && detail.contains("lampad-agent check"), "{detail}");
    }
    assert_eq!(sample(find(&mut entries, "mysql.up")?).await?.get("mysql_up"), Some(&0.0));
    let refusals: u32 = server.ask("SHOW GLOBAL STATUS LIKE 'Access_denied_errors'").await?.parse()?;
    assert!((1..=2).contains(&refusals), "{refusals} logins in well under two seconds");
    Ok(())
}

#[tokio::test]
async fn a_transaction_that_waits_for_a_row_is_seen() -> Result<()> {
    with_each_server(&[], |server| async move {
        server
            .execute(
                "CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO d.t VALUES (1)",
            )
            .await?;
        let mut holder = server.connect().await?;
        sqlx::raw_sql("BEGIN; UPDATE d.t SET a = 2").execute(&mut holder).await?;
        let mut waiter = server.connect().await?;
        let waiting = tokio::spawn(async move { sqlx::raw_sql("UPDATE d.t SET a = 3").execute(&mut waiter).await });
        let mut entries = modules_on(&session(settings(server.dsn())));
        let begun = Instant::now();
        loop {
            let vital = sample(find(&mut entries, "mysql.vital")?).await?;
            let transactions = sample(find(&mut entries, "mysql.transactions")?).await?;
            if vital["mysql_global_status_innodb_row_lock_current_waits"] == 1.0
                && transactions["lampad_mysql_row_lock_waits"] == 1.0
                && transactions["lampad_mysql_transactions"] == 2.0
                && transactions["lampad_mysql_longest_transaction_seconds"] >= 1.0
            {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{vital:?} {transactions:?}");
            // InnoDB lists its transactions anew only when nobody has asked for 100 ms.
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        sqlx::raw_sql("ROLLBACK").execute(&mut holder).await?;
        waiting.await??;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_server_that_hangs_is_down_until_it_answers_again() -> Result<()> {
    let server = Server::mariadb(&[]).await?;
    server.execute("CREATE USER lampad@localhost; GRANT PROCESS ON *.* TO lampad@localhost").await?;
    let dsn = server.dsn().replace("root@", "lampad@");
    let session = session(MysqlSettings { statement_deadline: Duration::from_millis(500), ..settings(dsn) });
    let mut entries = modules_on(&session);
    wait_for_up(&mut entries, 1.0).await?;
    let pid = server.pid().and_then(|pid| rustix::process::Pid::from_raw(pid as i32)).context("pid")?;
    rustix::process::kill_process(pid, rustix::process::Signal::STOP)?;
    let noticed = wait_for_up(&mut entries, 0.0).await;
    rustix::process::kill_process(pid, rustix::process::Signal::CONT)?;
    println!("hung server noticed after {:?}", noticed?);
    wait_for_up(&mut entries, 1.0).await?;
    sample(find(&mut entries, "mysql.vital")?).await?;
    let sessions = sessions_of(&server, "lampad").await?;
    assert!(sessions <= 2, "{sessions} connections");
    Ok(())
}

#[tokio::test]
async fn a_replica_of_any_server_has_the_names_that_dashboards_know() -> Result<()> {
    with_each_server(&["--server-id=2"], |server| async move {
        server
            .execute(if server.is_mariadb() {
                "CHANGE MASTER 'east' TO master_host='127.0.0.1', master_port=1, master_user='x'"
            } else {
                "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT=1, SOURCE_USER='x' FOR CHANNEL 'east'"
            })
            .await?;
        let mut entries = modules_on(&session(settings(server.dsn())));
        let samples = sample(find(&mut entries, "mysql.replication")?).await?;
        for column in ["slave_io_running", "slave_sql_running", "master_port", "read_master_log_pos", "exec_master_log_pos"] {
            let prefix = format!("mysql_slave_status_{column}{{master_host=\"127.0.0.1\",");
            let found = samples.keys().any(|key| key.starts_with(&prefix) && key.contains("=\"east\""));
            assert!(found, "{column} is not in {samples:?}");
        }
        Ok(())
    })
    .await
}

/// A few of each collector; `mysql_parity.rs` has them all where the exporter is installed.
#[tokio::test]
async fn families_known_to_every_server_are_told() -> Result<()> {
    let server = Server::mariadb(&["--performance-schema=ON", "--plugin-load-add=query_response_time"]).await?;
    server.execute("SET GLOBAL query_response_time_stats = 1").await?;
    let _bystander = server.connect().await?;
    let mut entries = modules_on(&session(settings(server.dsn())));
    let mut families = BTreeSet::new();
    for entry in &mut entries {
        families.extend(
            sample(entry).await?.into_keys().map(|series| series.split('{').next().unwrap_or_default().to_owned()),
        );
    }
    for name in [
        "mysql_up",
        "mysql_version_info",
        "mysql_transaction_isolation",
        "mysql_global_status_threads_connected",
        "mysql_global_status_commands_total",
        "mysql_global_status_handlers_total",
        "mysql_global_status_connection_errors_total",
        "mysql_global_status_buffer_pool_pages",
        "mysql_global_status_buffer_pool_dirty_pages",
        "mysql_global_status_buffer_pool_page_changes_total",
        "mysql_global_status_performance_schema_lost_total",
        "mysql_global_status_uptime",
        "mysql_global_variables_max_connections",
        "mysql_global_variables_innodb_buffer_pool_size",
        "mysql_info_schema_innodb_cmp_compress_ops_total",
        "mysql_info_schema_innodb_cmpmem_pages_used_total",
        "mysql_info_schema_query_response_time_seconds_bucket",
        "mysql_info_schema_query_response_time_seconds_sum",
        "mysql_info_schema_query_response_time_seconds_count",
        "mysql_info_schema_processlist_threads",
    ] {
        assert!(families.contains(name), "{name} is missing");
    }
    Ok(())
}
