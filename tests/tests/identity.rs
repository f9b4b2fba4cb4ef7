//! Who is who: copied state directories, two agents of one name, and what is known of an agent that has died.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use lampad_tests::series::{samples, usual_interval_ms, without_gap};
use lampad_tests::{Agent, Api, Collector, Link, PATIENCE, Proxy, until_ok};
use tempfile::TempDir;

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// A copy of a state directory under another inode, as `cp -r` makes it.
fn copied(state: &Path) -> anyhow::Result<TempDir> {
    let directory = TempDir::with_prefix("lampad-copy-")?;
    copy(state, &directory.path().join("state"))?;
    Ok(directory)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

async fn some(api: &Api, series: &str, least: usize) -> anyhow::Result<Vec<lampad_tests::Sample>> {
    until_ok(series, PATIENCE, || async {
        let found = samples(api, series, 120).await?;
        ensure!(found.len() >= least, "{} samples", found.len());
        Ok(found)
    })
    .await
}

#[tokio::test]
async fn a_copy_of_a_running_agent_is_refused_and_takes_over_when_the_first_ends() -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let api = collector.api();
    let mut first = Agent::start(&collector.grpc_url(), "db1", &[])?;
    let (of_first, of_copy) = ("node_load1{instance=\"db1\"}", "node_load1{instance=\"db2\"}");
    let interval_ms = usual_interval_ms(&some(&api, of_first, 5).await?)?;
    let directory = copied(first.state())?;
    let state = directory.path().join("state");
    let copy = Agent::on(&state, directory, &collector.grpc_url(), "db2", &[])?;
    until_ok("a refusal that names both addresses", PATIENCE, || async {
        let log = copy.process.log();
        let line = log.lines().find(|line| line.contains("pushes already from"));
        ensure!(line.context(log.clone())?.matches("127.0.0.1:").count() >= 3, "collector and both peers: {log}");
        Ok(())
    })
    .await?;
    ensure!(
        copy.process.log().contains("new epoch"),
        "the copy did not notice that it is one:\n{}",
        copy.process.log()
    );
    ensure!(api.instant(of_copy, None).await?.is_empty(), "the copy pushes beside the first");

    let refused_ms = now_ms();
    first.process.terminate(PATIENCE).await?;
    // What the copy sampled while it was refused comes too, from its spool.
    until_ok("the copy's own samples", PATIENCE, || async {
        let found = samples(&api, of_copy, 120).await?;
        ensure!(found.first().is_some_and(|first| first.timestamp_ms <= refused_ms), "the spool's are missing");
        ensure!(found.last().is_some_and(|last| last.timestamp_ms > refused_ms), "the newest are missing");
        without_gap(&api, "db2", &found, interval_ms).await
    })
    .await
    .with_context(|| copy.process.log_tail())
}

#[tokio::test]
async fn a_spool_that_was_copied_is_stored_once() -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let api = collector.api();
    let proxy = Proxy::to(collector.grpc()).await?;
    let mut first = Agent::start(&proxy.url(), "db1", &[])?;
    let series = "node_load1{instance=\"db1\"}";
    let interval_ms = usual_interval_ms(&some(&api, series, 5).await?)?;
    // Frames pile up in the spool, and a copy of it is taken while nobody writes.
    proxy.set(Link::Silent);
    tokio::time::sleep(Duration::from_secs(3)).await; // the outage
    let asked_ms = now_ms();
    first.process.terminate(PATIENCE).await?;
    let ended_ms = now_ms();
    let directory = copied(first.state())?;
    proxy.set(Link::Whole);
    let before_end = |found: &[lampad_tests::Sample]| -> Vec<_> {
        found.iter().copied().take_while(|sample| sample.timestamp_ms <= ended_ms).collect()
    };
    first.restart()?;
    // What the proxy held back may fill the gap before the agent is back; one that is still starting has no SIGTERM handler.
    until_ok("the first to be back", PATIENCE, || async {
        let connects = first.process.log().matches(" connected ").count();
        ensure!(connects == 2, "{connects} connects");
        Ok(())
    })
    .await?;
    let told = until_ok("the spool of the first", PATIENCE, || async {
        let told = before_end(&samples(&api, series, 120).await?);
        without_gap(&api, "db1", &told, interval_ms).await?;
        let last_ms = told.last().context("a sample")?.timestamp_ms;
        ensure!(asked_ms - last_ms < 2 * interval_ms, "the spool is not there yet");
        Ok(told)
    })
    .await?;
    first.process.terminate(PATIENCE).await?;

    let state = directory.path().join("state");
    let again_ms = now_ms();
    let copy = Agent::on(&state, directory, &proxy.url(), "db1", &[])?;
    until_ok("the copy", PATIENCE, || async {
        let found = samples(&api, series, 120).await?;
        ensure!(found.last().is_some_and(|last| last.timestamp_ms > again_ms), "no new samples");
        ensure!(copy.process.log().contains("new epoch"), "{}", copy.process.log());
        // Its spool is empty once the collector has acked what was in it.
        let waiting = api.value("lampad_agent_spool_frames{instance=\"db1\"}").await?;
        ensure!(waiting == 0.0, "{waiting} frames wait");
        Ok(())
    })
    .await
    .with_context(|| copy.process.log_tail())?;
    assert_eq!(before_end(&samples(&api, series, 120).await?), told, "stored twice, or lost");
    Ok(())
}

#[tokio::test]
async fn of_two_agents_with_one_name_the_second_is_told_how_to_get_another() -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let api = collector.api();
    let _first = Agent::start(&collector.grpc_url(), "db1", &[])?;
    let series = "node_load1{instance=\"db1\"}";
    let interval_ms = usual_interval_ms(&some(&api, series, 5).await?)?;
    let second = Agent::start(&collector.grpc_url(), "db1", &[])?;
    until_ok("a refusal", PATIENCE, || async {
        let log = second.process.log();
        ensure!(log.contains("\"db1\"") && log.contains("--instance NAME"), "{log}");
        Ok(())
    })
    .await?;
    let seen = some(&api, series, 5).await?.len();
    without_gap(&api, "db1", &some(&api, series, seen + 4).await?, interval_ms).await
}

#[tokio::test]
async fn a_dead_agent_is_down_at_once_and_its_series_end() -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let api = collector.api();
    let mut agent = Agent::start(&collector.grpc_url(), "db1", &[])?;
    some(&api, "node_load1{instance=\"db1\"}", 3).await?;
    until_ok("up", PATIENCE, || async {
        ensure!(api.value("up{job=\"node\",instance=\"db1\"}").await? == 1.0, "not up");
        Ok(())
    })
    .await?;
    let alive_ms = now_ms();
    agent.process.kill()?;
    let killed_ms = now_ms();
    // When `up` fell is read from the samples themselves: this test may be slower than the collector.
    let down_ms = until_ok("up to fall", PATIENCE, || async {
        let up = samples(&api, "up{job=\"node\",instance=\"db1\"}", 60).await?;
        up.iter().find(|sample| sample.value == 0.0).map(|sample| sample.timestamp_ms).context("still up")
    })
    .await?;
    ensure!(down_ms - killed_ms <= 3000, "down {} ms after its death", down_ms - killed_ms);
    let ended = until_ok("the series to end", Duration::from_secs(3), || async {
        let left = api.instant("{instance=\"db1\",__name__!~\"up|lampad_collector_.*\"}", None).await?;
        ensure!(left.is_empty(), "{} series are left, {:?} among them", left.len(), left[0].labels);
        let (_, page) = api.get("/metrics", &[]).await?;
        let left = page.lines().find(|line| line.starts_with("node_") && line.contains("instance=\"db1\""));
        ensure!(left.is_none(), "/metrics still has {left:?}");
        ensure!(page.contains("up{instance=\"db1\",job=\"node\"} 0"), "/metrics does not say that it is down");
        Ok(())
    });
    ended.await?;
    // What was is not forgotten.
    let past = api.instant("node_load1{instance=\"db1\"}", Some(alive_ms)).await?;
    ensure!(past.len() == 1, "the past is gone too");
    Ok(())
}
