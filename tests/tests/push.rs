//! From a sensor to an answer: the real agent, simulated ones, a shell, Python, and a Prometheus that pulls.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use lampad_proto::client::{Client, Options};
use lampad_proto::v1::ingest_client::IngestClient;
use lampad_proto::v1::{Label, MetricType, PushRequest, PushSample, PushSeries};
use lampad_tests::load::{Plan, run, verify};
use lampad_tests::servers::{Server, installed};
use lampad_tests::{Agent, Collector, PATIENCE, Program, fixture, needs, until_ok};

#[tokio::test]
async fn this_host_is_queryable_soon_after_its_agent_starts() -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let mut agent = Agent::start(&collector.grpc_url(), "db1", &["--label", "rack=r7"])?;
    let api = collector.api();
    for query in ["node_load1", "node_memory_MemTotal_bytes", "sum(rate(node_cpu_seconds_total[10s]))"] {
        until_ok(query, PATIENCE, || api.value(query)).await?;
    }
    assert_eq!(api.value("up{job=\"node\",instance=\"db1\"}").await?, 1.0);
    // No server is named, and a developer's own that lets nobody in is none either; where one does, it is up.
    until_ok("mysql_up", PATIENCE, || api.value("mysql_up{instance=\"db1\"}")).await?;
    let labels = &api.instant("node_load1", None).await?[0].labels;
    for (name, value) in [("instance", "db1"), ("job", "node"), ("rack", "r7")] {
        assert_eq!(labels.get(name).map(String::as_str), Some(value), "{labels:?}");
    }
    // The kernel's own figure, read by the test.
    let meminfo = std::fs::read_to_string("/proc/meminfo")?;
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).context("MemTotal")?;
    let total: f64 = total.trim().trim_end_matches(" kB").parse()?;
    assert_eq!(api.value("node_memory_MemTotal_bytes").await?, total * 1024.0);
    agent.process.terminate(PATIENCE).await
}

#[tokio::test]
async fn every_simulated_sample_is_there_once() -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    for (turn, percent) in [0, 5, 36, 100].into_iter().enumerate() {
        let plan = Plan {
            first_agent: turn as u32 * 10,
            agents: 4,
            change_percent: percent,
            ..Plan::small(collector.grpc_url())
        };
        let records = run(&plan).await;
        for record in &records {
            ensure!(record.unacked.is_empty(), "agent {} has unacked ticks {:?}", record.agent, record.unacked);
            ensure!(record.refusals.is_empty(), "refused: {:?}", record.refusals);
        }
        let verdict = verify(&collector.api(), &records).await?;
        ensure!(verdict.is_clean(), "{percent} % changing: {verdict}");
        assert_eq!(verdict.right, 4 * 20 * 20);
    }
    Ok(())
}

#[tokio::test]
async fn a_shell_pushes() -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let push = Program::ours("lampad-agent", collector.directory().join("push.log"))?
        .args(["push", "--collector", &collector.grpc_url(), "backup_rows=42", "backup_seconds=1.5"])
        .args(["--label", "db=shop"]);
    let (status, said) = push.run(PATIENCE).await?;
    ensure!(status.success(), "push ended with {status}: {said}");
    // It ends after the ack, so no waiting here.
    assert_eq!(collector.api().value("backup_rows{db=\"shop\"}").await?, 42.0);
    assert_eq!(collector.api().value("backup_seconds").await?, 1.5);
    Ok(())
}

#[tokio::test]
async fn a_push_is_answered_after_it_is_durable_and_a_repeat_is_not_stored_again() -> anyhow::Result<()> {
    let mut collector = Collector::start().await?;
    let mut client = IngestClient::connect(collector.grpc_url()).await?;
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let request = PushRequest {
        series: vec![PushSeries {
            name: "jobs_done_total".to_owned(),
            labels: vec![Label { name: "queue".to_owned(), value: "mail".to_owned() }],
            r#type: MetricType::Counter.into(),
            help: "Jobs that ended well.".to_owned(),
            samples: (0..3)
                .map(|i| PushSample { timestamp_ms: now_ms - 2000 + i * 1000, value: i as f64, histogram: None })
                .collect(),
            ..PushSeries::default()
        }],
        pusher_id: vec![7; 16],
        sequence: 1,
    };
    let reply = client.push(request.clone()).await?.into_inner();
    ensure!(reply.refused.is_empty() && reply.stored == 3, "{reply:?}");
    collector.process.kill()?;
    collector.restart().await?;
    let count = "count_over_time(jobs_done_total[1m])";
    assert_eq!(collector.api().value(count).await?, 3.0, "acked, so there after kill -9");
    let mut client = IngestClient::connect(collector.grpc_url()).await?;
    client.push(request).await?;
    assert_eq!(collector.api().value(count).await?, 3.0);
    Ok(())
}

#[tokio::test]
async fn python_pushes() -> anyhow::Result<()> {
    let python = fixture("target/python/bin/python");
    if !needs::met("python's grpcio in target/python", python.is_file()) {
        return Ok(());
    }
    let collector = Collector::start().await?;
    let stubs = collector.directory().join("stubs");
    std::fs::create_dir(&stubs)?;
    let generated = Command::new(&python)
        .args(["-m", "grpc_tools.protoc", "-I"])
        .arg(fixture("proto"))
        .arg(format!("--python_out={}", stubs.display()))
        .arg(format!("--grpc_python_out={}", stubs.display()))
        .arg("lampad/v1/ingest.proto")
        .status()?;
    ensure!(generated.success(), "grpc_tools.protoc ended with {generated}");
    let example = Program::at(&python, collector.directory().join("python.log"))
        .env("PYTHONPATH", &stubs)
        .arg(fixture("tests/python/push_example.py"))
        .arg(collector.grpc().to_string());
    let (status, said) = example.run(PATIENCE).await?;
    ensure!(status.success(), "the example ended with {status}: {said}");
    assert_eq!(collector.api().value("queue_length{queue=\"mail\"}").await?, 17.0);
    assert_eq!(collector.api().value("jobs_done_total{queue=\"mail\"}").await?, 1234.0);
    Ok(())
}

#[tokio::test]
async fn tools_of_other_languages_find_the_service_and_its_health() -> anyhow::Result<()> {
    let python = fixture("target/python/bin/python");
    if !needs::met("python's grpcio in target/python", python.is_file()) {
        return Ok(());
    }
    let collector = Collector::start().await?;
    let tool = Program::at(&python, collector.directory().join("python.log"))
        .arg(fixture("tests/python/inspect_service.py"))
        .arg(collector.grpc().to_string());
    let (status, said) = tool.run(PATIENCE).await?;
    ensure!(status.success(), "ended with {status}: {said}");
    for line in ["lampad.v1.Ingest Push Stream", "grpc.health.v1.Health Check", "health SERVING"] {
        ensure!(said.lines().any(|said| said.starts_with(line)), "no {line:?} in:\n{said}");
    }
    Ok(())
}

#[tokio::test]
async fn a_custom_pusher_is_told_what_is_durable_and_what_was_refused() -> anyhow::Result<()> {
    let mut collector = Collector::start().await?;
    let options = Options::new(collector.grpc_url()).label("job", "backup").label("instance", "db7");
    let mut client = Client::connect(options)?;
    client.gauge("backup_size_bytes", "Size of the last backup.", &[("database", "shop")], 7.3e9)?;
    client.counter("backup_runs_total", "Backups so far.", &[("database", "shop")], 412.0)?;
    client.gauge("backup_note", "", &[("text", &"x".repeat(1 << 20))], 1.0)?;
    let report = client.flush().await?;
    assert_eq!(report.stored, 2, "{report:?}");
    ensure!(report.refused.len() == 1 && report.refused[0].series.starts_with("backup_note"), "which was refused?");
    collector.process.kill()?;
    collector.restart().await?;
    let api = collector.api();
    for (series, value) in [("backup_size_bytes", 7.3e9), ("backup_runs_total", 412.0)] {
        let labels = "{job=\"backup\",instance=\"db7\",database=\"shop\"}";
        assert_eq!(api.value(&format!("last_over_time({series}{labels}[5m])")).await?, value);
    }
    // The same client goes on with the collector that came back.
    client.gauge("backup_size_bytes", "Size of the last backup.", &[("database", "shop")], 7.4e9)?;
    assert_eq!(client.flush().await?.stored, 1);
    Ok(())
}

#[tokio::test]
async fn values_that_are_no_numbers_are_exposed_as_prometheus_writes_them() -> anyhow::Result<()> {
    if !needs::program("promtool") {
        return Ok(());
    }
    let collector = Collector::start().await?;
    let mut client = Client::connect(Options::new(collector.grpc_url()))?;
    let odd = [("odd_nan", f64::NAN), ("odd_inf", f64::INFINITY), ("odd_minus", f64::NEG_INFINITY), ("odd_big", 1e300)];
    for (name, value) in odd {
        client.gauge(name, "Odd \"value\" with a \\ and\na new line.", &[("quote", "a\"b\\c\nd")], value)?;
    }
    client.flush().await?;
    let (_, page) = collector.api().get("/metrics", &[("match[]", "{__name__=~\"odd_.*\"}")]).await?;
    for (name, value) in [("odd_nan", "NaN"), ("odd_inf", "+Inf"), ("odd_minus", "-Inf"), ("odd_big", "1e300")] {
        let line = format!("{name}{{quote=\"a\\\"b\\\\c\\nd\"}} {value}");
        ensure!(page.lines().any(|found| found == line), "no {line} in:\n{page}");
        ensure!(page.contains(&format!("# TYPE {name} gauge")), "{page}");
    }
    let said = promtool(&page, collector.directory())?;
    ensure!(said.trim().is_empty(), "promtool says: {said}");
    Ok(())
}

#[tokio::test]
async fn promtool_finds_fault_with_nothing_but_what_the_exporters_named() -> anyhow::Result<()> {
    if !needs::program("promtool") || !needs::program("prometheus-node-exporter") {
        return Ok(());
    }
    let collector = Collector::start().await?;
    let _agent = Agent::start(&collector.grpc_url(), "db1", &[])?;
    for query in [
        "node_load1",
        "lampad_agent_ticks_total",
        "lampad_collector_refused_samples_total",
        "node_filesystem_size_bytes",
    ] {
        until_ok(query, PATIENCE, || async {
            ensure!(!collector.api().instant(query, None).await?.is_empty(), "not there");
            Ok(())
        })
        .await?;
    }
    let (status, page) = collector.api().get("/metrics", &[]).await?;
    assert_eq!(status, 200);
    // Names that the exporters gave long ago break promtool's newer advice; dashboards ask for them nevertheless.
    let exporter = Server::node_exporter(&[]).await?;
    let (_, theirs) = exporter.api().get("/metrics", &[]).await?;
    let theirs: BTreeSet<&str> =
        theirs.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let said = promtool(&page, collector.directory())?;
    // The kernel spells these; newer exporters than the distribution's have more of them.
    let of_exporters = |name: &str| theirs.contains(name) || name.starts_with("node_netstat_");
    let ours: Vec<&str> = said.lines().filter(|line| !line.split(' ').next().is_some_and(of_exporters)).collect();
    ensure!(ours.is_empty(), "promtool says of what is ours:\n{}", ours.join("\n"));
    Ok(())
}

fn promtool(page: &str, directory: &Path) -> anyhow::Result<String> {
    let file = directory.join("metrics.txt");
    std::fs::write(&file, page)?;
    let promtool = installed("promtool").context("promtool")?;
    let output = Command::new(promtool).args(["check", "metrics"]).stdin(std::fs::File::open(&file)?).output()?;
    Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[tokio::test]
async fn a_prometheus_scrapes_the_collector() -> anyhow::Result<()> {
    if !needs::program("prometheus") {
        return Ok(());
    }
    let collector = Collector::start().await?;
    let _agent = Agent::start(&collector.grpc_url(), "db1", &[])?;
    until_ok("load", PATIENCE, || async { collector.api().value("node_load1").await }).await?;
    let interval = Duration::from_secs(1);
    let prometheus = Server::prometheus(&[("lampad", collector.http())], interval, "  honor_labels: true\n").await?;
    let api = prometheus.api();
    let query = "node_memory_MemTotal_bytes{instance=\"db1\",job=\"node\"}";
    let theirs = until_ok(query, PATIENCE, || api.value(query)).await?;
    assert_eq!(theirs, collector.api().value(query).await?);
    // Its own series of this target, told apart from those that it passes on by the instance.
    let scraped = format!("up{{instance=\"{}\"}}", collector.http());
    until_ok(&scraped, PATIENCE, || async {
        let up = api.value(&scraped).await?;
        ensure!(up == 1.0, "Prometheus takes our page for broken");
        Ok(())
    })
    .await
}
