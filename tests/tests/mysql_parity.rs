//! Names, labels, types and values are mysqld_exporter's.
//!
//! Where prometheus-mysqld-exporter is installed it runs against the same server, and every series that it gives must be ours
//! too. Where the reference material has the list of all families of its newest version (name, type, labels, collector, on or off;
//! parted by tabs), every family of its default collectors must be there or have a reason not to be.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lampad_agent::modules::mysql::{Extra, MysqlSettings, Secret, Session, Surroundings, modules_on};
use lampad_agent::tick::Tick;
use lampad_proto::v1::MetricType;
use lampad_tests::mariadb::Server;
use lampad_tests::reference;

#[derive(Debug, Default)]
struct Exposition {
    types: BTreeMap<String, String>,
    /// By name and labels, sorted by label name.
    samples: BTreeMap<String, f64>,
}

/// A primary's life and a replica's: with binary log, performance schema and a source that never answers.
async fn server() -> Result<Server> {
    let flags = [
        "--performance-schema=ON",
        "--userstat=1",
        "--log-bin=bin",
        "--server-id=1",
        "--plugin-load-add=query_response_time",
        "--innodb-monitor-enable=all",
    ];
    let server = Server::mariadb(&flags).await?;
    server.execute("SET GLOBAL query_response_time_stats = 1").await?;
    server
        .execute(
            "CREATE DATABASE lab; USE lab;
             CREATE TABLE t (id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY, v VARCHAR(64));
             CREATE DATABASE heartbeat; CREATE TABLE heartbeat.heartbeat (ts VARCHAR(26), server_id INT PRIMARY KEY);
             INSERT INTO heartbeat.heartbeat VALUES (NOW(6), 1);
             INSERT INTO t (v) VALUES ('a'), ('b'); SELECT COUNT(*) FROM t WHERE v > 'a' ORDER BY v",
        )
        .await?;
    server.execute("CHANGE MASTER 'east' TO master_host='127.0.0.1', master_port=1, master_user='x'").await?;
    Ok(server)
}

fn series(name: &str, mut labels: Vec<(String, String)>) -> String {
    labels.sort();
    let labels: Vec<_> = labels.iter().map(|(name, text)| format!("{name}={text}")).collect();
    format!("{name}{{{}}}", labels.join(","))
}

async fn ours(server: &Server) -> Result<Exposition> {
    let settings = MysqlSettings {
        server: Some(Secret::new(server.dsn())),
        extra: Extra::ALL.to_vec(),
        statement_deadline: Duration::from_secs(30),
        ..MysqlSettings::default()
    };
    let session = Session::new(settings, Surroundings::default());
    let mut exposition = Exposition::default();
    for mut entry in modules_on(&session) {
        let mut tick = Tick::new();
        match entry.module.sample(&mut tick).await {
            Ok(()) => {}
            Err(error) if error.is_absence() => {}
            Err(error) => bail!("{}: {error}", entry.spec.name),
        }
        for found in tick.series() {
            let kind = match found.desc.kind {
                MetricType::Counter => "counter",
                MetricType::Gauge => "gauge",
                MetricType::Histogram => "histogram",
                _ => "untyped",
            };
            exposition.types.insert(found.desc.name.to_string(), kind.to_owned());
        }
        for (name, labels, value) in tick.samples() {
            let labels = labels.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
            exposition.samples.insert(series(name, labels), value.as_f64());
        }
    }
    Ok(exposition)
}

/// The text format, as far as this exporter uses it.
fn parse(text: &str) -> Result<Exposition> {
    let mut exposition = Exposition::default();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').context("TYPE line")?;
            exposition.types.insert(name.to_owned(), kind.to_owned());
        } else if !line.starts_with('#') {
            let (key, value) = line.rsplit_once(' ').context("sample line")?;
            let (name, labels) = key.split_once('{').unwrap_or((key, ""));
            let labels = labels.trim_end_matches('}').split("\",").filter(|pair| !pair.is_empty()).map(|pair| {
                let (name, text) = pair.split_once("=\"").unwrap_or((pair, ""));
                (name.to_owned(), text.trim_end_matches('"').to_owned())
            });
            exposition.samples.insert(series(name, labels.collect()), value.parse()?);
        }
    }
    Ok(exposition)
}

struct Exporter(Child);

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Collectors that are off unless asked for, on both sides. Tablespaces are not among them: version 0.14 cannot read MariaDB's.
const EXTRA: [&str; 19] = [
    "heartbeat",
    "perf_schema.eventsstatements",
    "perf_schema.file_instances",
    "info_schema.innodb_metrics",
    "info_schema.tables",
    "auto_increment.columns",
    "slave_hosts",
    "perf_schema.tableiowaits",
    "perf_schema.indexiowaits",
    "perf_schema.tablelocks",
    "perf_schema.eventswaits",
    "perf_schema.file_events",
    "perf_schema.memory_events",
    "perf_schema.eventsstatementssum",
    "info_schema.tablestats",
    "info_schema.schemastats",
    "info_schema.userstats",
    "info_schema.clientstats",
    "mysql.user",
];

/// `None` where it is not installed.
async fn theirs(server: &Server) -> Result<Option<Exposition>> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut command = Command::new("prometheus-mysqld-exporter");
    command
        .env("DATA_SOURCE_NAME", format!("root@unix({})/", server.socket().display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .args(["--collect.info_schema.processlist", "--collect.binlog_size", "--collect.engine_innodb_status"])
        .args(EXTRA.map(|name| format!("--collect.{name}")))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _exporter = match command.spawn() {
        Ok(child) => Exporter(child),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match reqwest::get(format!("http://127.0.0.1:{port}/metrics")).await {
            Ok(reply) => return parse(&reply.text().await?).map(Some),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Not of the database but of the exporter's program; the agent has its own of that kind.
fn of_the_program(name: &str) -> bool {
    ["go_", "process_", "promhttp_", "mysqld_exporter_", "mysql_exporter_"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

#[tokio::test]
async fn every_series_of_the_exporter_is_ours_with_type_and_value() -> Result<()> {
    let server = server().await?;
    let _bystander = server.connect().await?;
    let Some(theirs) = theirs(&server).await? else {
        eprintln!("skipped: prometheus-mysqld-exporter is not installed");
        return Ok(());
    };
    let ours = ours(&server).await?;
    let mut wrong = Vec::new();
    for (key, value) in theirs.samples.iter().filter(|(key, _)| !of_the_program(key)) {
        let name = key.split('{').next().unwrap_or_default();
        let Some(mine) = ours.samples.get(key) else {
            wrong.push(format!("{key} is missing"));
            continue;
        };
        // Settings stand still; counters moved between the two readings.
        if name.starts_with("mysql_global_variables_") && mine != value {
            wrong.push(format!("{key} is {mine}, not {value}"));
        }
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|part| name.strip_suffix(part).filter(|family| theirs.types.contains_key(*family)));
        let kind = theirs.types.get(family.unwrap_or(name));
        if ours.types.get(name) != kind {
            wrong.push(format!("{name} is {:?}, not {kind:?}", ours.types.get(name)));
        }
    }
    assert!(theirs.samples.len() > 2_000, "{} series", theirs.samples.len());
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), theirs.samples.len(), wrong.join("\n"));
    Ok(())
}

#[tokio::test]
async fn every_family_of_the_full_list_is_there_or_has_a_reason() -> Result<()> {
    let Some(list) = reference("parity/mysqld_exporter.metrics.txt") else { return Ok(()) };
    let list = std::fs::read_to_string(list)?;
    let server = server().await?;
    let _bystander = server.connect().await?;
    let told = ours(&server).await?;
    let names: BTreeSet<_> = told.samples.keys().filter_map(|key| key.split('{').next()).collect();
    let twin = |name: &str| name.strip_suffix("_total").map_or_else(|| format!("{name}_total"), str::to_owned);
    let known = |name: &str, collector: &str| {
        names.contains(name)
            || names.contains(format!("{name}_bucket").as_str())
            // What is a gauge of one version of InnoDB is a counter of another, whose name ends so.
            || (collector == "info_schema.innodb_metrics" && names.contains(twin(name).as_str()))
    };
    let mut missing = Vec::new();
    let mut live = 0;
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<_> = line.split('\t').collect();
        let [name, _, _, collector, ..] = fields[..] else { continue };
        if known(name, collector) {
            live += 1;
        } else if reason(&server, name, collector).await?.is_none() {
            missing.push(name.to_owned());
        }
    }
    println!("{live} families live");
    assert!(live > 900, "{live} live");
    assert!(missing.is_empty(), "neither told nor excused:\n{}", missing.join("\n"));
    Ok(())
}

/// Why this server has no such family.
async fn reason(server: &Server, name: &str, collector: &str) -> Result<Option<&'static str>> {
    if of_the_program(name) {
        return Ok(Some("of the exporter's program; the sampler tells the like of every module"));
    }
    if name.starts_with("mysql_galera_") {
        return Ok(Some("no Galera cluster here"));
    }
    if name.contains("_read_query_response_") || name.contains("_write_query_response_") {
        return Ok(Some("MariaDB from 11.5 on, and Percona Server 5.6 and 5.7"));
    }
    let ask = |statement: String| async move {
        // A value that is no number is no sample, of theirs neither.
        let value = server.ask(&statement).await.ok();
        let number = value
            .as_deref()
            .is_some_and(|text| text.parse::<f64>().is_ok() || ["ON", "OFF", "YES", "NO"].contains(&text));
        (!number).then_some("this server has no such variable, or it is no number")
    };
    Ok(match collector {
        "global_status" if name == "mysql_global_status_innodb_row_ops_total" => {
            ask("SHOW GLOBAL STATUS LIKE 'Innodb_rows_read'".into()).await
        }
        "global_status" => {
            ask(format!("SHOW GLOBAL STATUS LIKE '{}'", name.trim_start_matches("mysql_global_status_"))).await
        }
        "global_variables" => {
            ask(format!("SHOW GLOBAL VARIABLES LIKE '{}'", name.trim_start_matches("mysql_global_variables_"))).await
        }
        "info_schema.innodb_metrics" => {
            let is = "CONCAT('mysql_info_schema_innodb_metrics_', subsystem, '_', name)";
            let count = format!(
                "SELECT COUNT(*) FROM information_schema.innodb_metrics WHERE enabled AND '{name}' IN ({is}, CONCAT({is}, '_total'))"
            );
            (server.ask(&count).await? == "0").then_some("this server's InnoDB has no such counter")
        }
        "engine_innodb_status" => Some("MariaDB does not limit InnoDB's threads any more"),
        "info_schema.userstats" | "info_schema.clientstats" => Some("columns of Percona Server"),
        "perf_schema.eventsstatements" if name.contains("_latency") || name.contains("_cpu_time") => Some("MySQL 8"),
        "perf_schema.replication_group_members"
        | "perf_schema.replication_group_member_stats"
        | "perf_schema.replication_applier_status_by_worker" => Some("MySQL only; the worker is sampled on MySQL 9"),
        "info_schema.replica_host" => Some("Amazon Aurora only"),
        "info_schema.rocksdb_perf_context" => Some("MyRocks only"),
        "sys.user_summary" => {
            let count = "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'sys'";
            (server.ask(count).await? == "0").then_some("MariaDB before 10.6 has no schema sys")
        }
        "slave_hosts" => Some("no replica has registered here; see the tests of replication"),
        "slave_status" if name.ends_with("seconds_behind_master") => Some("the replica does not run: NULL"),
        _ => None,
    })
}
