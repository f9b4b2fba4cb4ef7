//! Everyday operation: reloads, tokens, retention, a data directory from elsewhere, and the exit code of `check`.

use std::time::Duration;

use anyhow::{Context, ensure};
use lampad_proto::v1::ingest_client::IngestClient;
use lampad_proto::v1::{PushRequest, PushSample, PushSeries};
use lampad_tests::mariadb::Server;
use lampad_tests::{Agent, Api, Collector, PATIENCE, Process, Program, Signal, free_port, needs, until_ok};
use tempfile::TempDir;

/// Waits until the log has a line with these words.
async fn said(process: &Process, words: &[&str]) -> anyhow::Result<()> {
    until_ok("a line of the log", PATIENCE, || async {
        let log = process.log();
        let found = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
        ensure!(found, "no line has {words:?}:\n{log}");
        Ok(())
    })
    .await
}

/// The status that a request with this token gets.
async fn asked(collector: &Collector, token: &str) -> anyhow::Result<u16> {
    let url = format!("http://{}/api/v1/query?query=1", collector.http());
    let request = reqwest::Client::builder().no_proxy().build()?.get(url).bearer_auth(token);
    Ok(request.send().await?.status().as_u16())
}

async fn answers(collector: &Collector, token: &str, status: u16) -> anyhow::Result<()> {
    until_ok(token, PATIENCE, || async {
        let got = asked(collector, token).await?;
        ensure!(got == status, "{token:?} got {got}, not {status}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_collector_reads_its_files_again_and_keeps_the_old_ones_where_the_new_are_invalid() -> anyhow::Result<()> {
    let directory = TempDir::new()?;
    let (config, token) = (directory.path().join("collector.toml"), directory.path().join("token"));
    let valid = format!("token_file = {token:?}\n");
    std::fs::write(&config, &valid)?;
    std::fs::write(&token, "first\n")?;
    let mut collector = Collector::with_token("first", &["--config", &config.display().to_string()]).await?;
    answers(&collector, "first", 200).await?;

    std::fs::write(&token, "second\n")?;
    collector.process.signal(Signal::HUP)?;
    answers(&collector, "second", 200).await?;
    answers(&collector, "first", 401).await?;

    std::fs::write(&token, "third\n")?;
    std::fs::write(&config, format!("{valid}retentoin = \"1d\"\n"))?;
    collector.process.signal(Signal::HUP)?;
    said(&collector.process, &["old one stays in force", "collector.toml", "retentoin"]).await?;
    assert_eq!(asked(&collector, "second").await?, 200, "the old token is in force");
    assert_eq!(asked(&collector, "third").await?, 401, "half of an invalid configuration is in force");
    collector.process.terminate(PATIENCE).await
}

async fn gone(api: &Api, series: &str) -> anyhow::Result<()> {
    let left = api.instant(series, None).await?;
    ensure!(left.is_empty(), "{series} is still there: {left:?}");
    Ok(())
}

#[tokio::test]
async fn the_agent_reads_its_file_again_and_keeps_the_old_one_where_the_new_is_invalid() -> anyhow::Result<()> {
    let directory = TempDir::new()?;
    let config = directory.path().join("agent.toml");
    std::fs::write(&config, "labels = { rack = \"r1\" }\n")?;
    let collector = Collector::start().await?;
    let api = collector.api();
    let mut agent = Agent::start(&collector.grpc_url(), "db1", &["--config", &config.display().to_string()])?;
    let of = |rack: &str| format!("node_load1{{instance=\"db1\",rack={rack:?}}}");
    let (first, second) = (of("r1"), of("r2"));
    until_ok("the first rack", PATIENCE, || api.value(&first)).await?;

    std::fs::write(&config, "labels = { rack = \"r2\" }\n")?;
    agent.process.signal(Signal::HUP)?;
    until_ok("the second rack", PATIENCE, || api.value(&second)).await.with_context(|| agent.process.log_tail())?;
    until_ok("the end of the first rack", PATIENCE, || gone(&api, &first)).await?;

    // The module that reads /proc/stat, switched off: what it told ends, the rest goes on.
    until_ok("the module", PATIENCE, || api.value("count(node_cpu_seconds_total)")).await?;
    std::fs::write(&config, "labels = { rack = \"r2\" }\n[module.\"host.stat\"]\nenabled = false\n")?;
    agent.process.signal(Signal::HUP)?;
    until_ok("the end of the module", PATIENCE, || gone(&api, "node_cpu_seconds_total")).await?;
    api.value(&second).await?;

    std::fs::write(&config, "labels = { rack = \"r3\" }\nspool_byts = 1\n")?;
    agent.process.signal(Signal::HUP)?;
    said(&agent.process, &["old configuration stays", "agent.toml", "spool_byts"]).await?;
    let told_ms = jiff::Timestamp::now().as_millisecond();
    until_ok("samples under the old configuration", PATIENCE, || async {
        let found = api.instant(&format!("{second}[1m]"), None).await?;
        let newest = found.iter().flat_map(|series| &series.samples).map(|sample| sample.timestamp_ms).max();
        ensure!(newest.is_some_and(|newest| newest > told_ms), "none since the refusal");
        Ok(())
    })
    .await?;
    agent.process.terminate(PATIENCE).await
}

#[tokio::test]
async fn a_plain_push_needs_the_token() -> anyhow::Result<()> {
    let directory = TempDir::new()?;
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).map(|()| path.display().to_string())
    };
    let (right, wrong) = (file("right", "open-sesame\n")?, file("wrong", "open-door\n")?);
    let collector = Collector::with_token("open-sesame", &["--token-file", &right]).await?;
    let push = |token: &[&str]| -> anyhow::Result<Program> {
        Ok(Program::ours("lampad-agent", collector.directory().join("push.log"))?
            .args(["push", "--collector", &collector.grpc_url(), "--timeout", "5s", "rows=1"])
            .args(token))
    };
    for refused in [&[][..], &["--token-file", &wrong]] {
        let (status, said) = push(refused)?.run(PATIENCE).await?;
        ensure!(!status.success() && said.contains("token"), "{refused:?} ended with {status}: {said}");
    }
    let (status, said) = push(&["--token-file", &right])?.run(PATIENCE).await?;
    ensure!(status.success(), "{said}");
    Ok(())
}

#[tokio::test]
async fn insecure_is_warned_of_at_the_start() -> anyhow::Result<()> {
    let directory = TempDir::new()?;
    let (http, grpc) = (free_port()?, free_port()?);
    let any = |port: u16| ([0, 0, 0, 0], port).into();
    let data = directory.path().join("data");
    let collector = Collector::program(&data, directory.path(), any(http), any(grpc))?.arg("--insecure").start()?;
    let api = Api::new(format!("http://127.0.0.1:{http}"));
    until_ok("an answer", PATIENCE, || api.value("vector(1)")).await?;
    for listen in [http, grpc] {
        said(&collector, &["WARN", "--insecure", &format!("0.0.0.0:{listen}")]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_is_older_than_the_retention_is_not_answered() -> anyhow::Result<()> {
    let collector = Collector::with(&["--retention", "60s"]).await?;
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let sample = |age_ms: i64| PushSample { timestamp_ms: now_ms - age_ms, value: age_ms as f64, histogram: None };
    let series =
        PushSeries { name: "aging".to_owned(), samples: vec![sample(50_000), sample(1_000)], ..PushSeries::default() };
    let mut client = IngestClient::connect(collector.grpc_url()).await?;
    client.push(PushRequest { series: vec![series], ..PushRequest::default() }).await?;
    let api = collector.api();
    let ages = || async {
        let found = api.instant("aging[10m]", None).await?;
        anyhow::Ok(found.into_iter().flat_map(|series| series.samples).map(|s| s.value).collect::<Vec<_>>())
    };
    assert_eq!(ages().await?, [50_000.0, 1_000.0], "both are within the retention");
    until_ok("the older one to go", PATIENCE, || async {
        let left = ages().await?;
        ensure!(left == [1_000.0], "{left:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn data_of_a_newer_format_is_refused_and_left_alone() -> anyhow::Result<()> {
    let mut collector = Collector::start().await?;
    let push = Program::ours("lampad-agent", collector.directory().join("push.log"))?.args([
        "push",
        "--collector",
        &collector.grpc_url(),
        "kept=42",
    ]);
    let (status, said) = push.run(PATIENCE).await?;
    ensure!(status.success(), "{said}");
    collector.process.terminate(PATIENCE).await?;
    let format = collector.data().join("FORMAT");
    let ours = std::fs::read_to_string(&format)?;
    let (words, _) = ours.trim_end().rsplit_once(' ').context("FORMAT")?;
    std::fs::write(&format, format!("{words} 99\n"))?;
    let logs = TempDir::new()?;
    let refused = Collector::program(collector.data(), logs.path(), collector.http(), collector.grpc())?;
    let (status, said) = refused.run(PATIENCE).await?;
    let way_out = said.contains("format 99") && said.contains("newer lampad-collector");
    ensure!(status.code() == Some(1) && way_out, "{status}: {said}");
    std::fs::write(&format, ours)?;
    collector.restart().await?;
    assert_eq!(collector.api().value("last_over_time(kept[5m])").await?, 42.0);
    Ok(())
}

#[tokio::test]
async fn check_tells_scripts_by_its_exit_code() -> anyhow::Result<()> {
    let directory = TempDir::new()?;
    let check = |dsn: &str| -> anyhow::Result<Program> {
        Ok(Program::ours("lampad-agent", directory.path().join("check.log"))?
            .args(["check", "--mysql", dsn])
            .env("HOME", directory.path()))
    };
    let port = free_port()?;
    let (status, said) = check(&format!("mysql://u:secret@127.0.0.1:{port}"))?.run(PATIENCE).await?;
    ensure!(status.code() == Some(1) && said.contains(&port.to_string()), "{status}: {said}");
    ensure!(!said.contains("secret"), "the password is shown: {said}");
    if !needs::program("mariadbd") {
        return Ok(());
    }
    let server = Server::mariadb(&["--performance-schema=ON"]).await?;
    let (status, said) = check(&server.dsn())?.run(Duration::from_secs(60)).await?;
    ensure!(status.code() == Some(0) && said.contains("No right is missing"), "{status}: {said}");
    Ok(())
}
