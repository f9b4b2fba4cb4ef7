//! The collector dies in the middle of a push; the network between is cut. What was acked is there once, what was not
//! arrives again, and the newest data does not wait behind the oldest.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lampad_tests::load::{Plan, run, verify};
use lampad_tests::series::{samples, usual_interval_ms, without_gap};
use lampad_tests::{Agent, Collector, Link, PATIENCE, Proxy, until, until_ok};

/// How long the network is cut: a minute is what is promised, and takes too long for every run.
fn cut() -> Duration {
    let seconds = std::env::var("LAMPAD_TEST_CUT_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(8))
}

/// A run of its own on a quiet machine, and not one test among others that share the processors.
fn is_measured() -> bool {
    std::env::var_os("LAMPAD_TEST_CUT_SECONDS").is_some()
}

#[tokio::test]
async fn what_was_acked_survives_kill_9_of_the_collector_and_the_rest_arrives_again() -> anyhow::Result<()> {
    let mut collector = Collector::start().await?;
    let plan = Plan { agents: 8, series: 200, groups: 5, ticks: 60, ..Plan::small(collector.grpc_url()) };
    let pushing = tokio::spawn(async move { run(&plan).await });
    let api = collector.api();
    for kill in [1, 2] {
        // Killed in the middle: some thousand samples more are there than at the last kill, and ticks go on.
        let wanted = f64::from(kill) * 8.0 * 200.0 * 8.0;
        let query = "sum(count_over_time(lampad_load_value[5m]))";
        until_ok("the middle of a push", PATIENCE, || async {
            let count = api.value(query).await?;
            ensure!(count > wanted, "{count} samples");
            Ok(())
        })
        .await?;
        ensure!(!pushing.is_finished(), "the push was over before the kill");
        collector.process.kill()?;
        collector.restart().await?;
    }
    let records = pushing.await?;
    for record in &records {
        ensure!(record.unacked.is_empty(), "agent {} was not acked {:?}", record.agent, record.unacked);
        ensure!(record.streams >= 2, "agent {} did not see the kills", record.agent);
    }
    let verdict = verify(&api, &records).await?;
    ensure!(verdict.is_clean(), "{verdict}");
    assert_eq!(verdict.right, 8 * 200 * 60);
    // And once more after an orderly end, from what was sealed.
    collector.process.terminate(PATIENCE).await?;
    collector.restart().await?;
    assert_eq!(verify(&collector.api(), &records).await?, verdict);
    Ok(())
}

#[tokio::test]
async fn a_silent_cut_leaves_no_gap_and_the_newest_sample_comes_first() -> anyhow::Result<()> {
    a_cut_leaves_no_gap_and_the_newest_sample_comes_first(Link::Silent).await
}

/// Attempts that fail at once must not grow so rare that the first one after the return comes late.
#[tokio::test]
async fn a_refused_cut_leaves_no_gap_and_the_newest_sample_comes_first() -> anyhow::Result<()> {
    a_cut_leaves_no_gap_and_the_newest_sample_comes_first(Link::Refused).await
}

async fn a_cut_leaves_no_gap_and_the_newest_sample_comes_first(link: Link) -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let proxy = Proxy::to(collector.grpc()).await?;
    let _agent = Agent::start(&proxy.url(), "db1", &[])?;
    let api = collector.api();
    let series = "node_load1{instance=\"db1\"}";
    until_ok("first samples", PATIENCE, || async {
        ensure!(samples(&api, series, 60).await?.len() >= 5, "few");
        Ok(())
    })
    .await?;
    let before = samples(&api, series, 60).await?;
    let interval_ms = usual_interval_ms(&before)?;

    proxy.set(link);
    until("up to become 0", Duration::from_secs(5), || async {
        api.value("up{job=\"node\",instance=\"db1\"}").await.is_ok_and(|up| up == 0.0)
    })
    .await?;
    tokio::time::sleep(cut()).await; // the outage itself, not a wait for anything
    proxy.set(Link::Whole);
    let back = Instant::now();
    let back_ms = jiff::Timestamp::now().as_millisecond();
    let fresh_ms = until_ok("a fresh sample after the return", PATIENCE, || async {
        let newest = samples(&api, series, 120).await?.last().map(|sample| sample.timestamp_ms);
        newest.filter(|newest| *newest >= back_ms - interval_ms).with_context(|| format!("newest is {newest:?}"))
    })
    .await?;
    let took = back.elapsed();
    eprintln!("{link:?}: newest sample {took:?} after the return");
    // A figure of the machine that runs it: judged where it is measured, see `cut`.
    ensure!(took <= Duration::from_secs(1) || !is_measured(), "the newest sample took {took:?}");

    let first_ms = before.first().context("samples before")?.timestamp_ms;
    let whole = until_ok("the gap to be filled", PATIENCE, || async {
        let mut whole = samples(&api, series, 300).await?;
        // Skipped ticks are told every ten seconds: those of the last moments would always be missing and never be told.
        whole.retain(|sample| sample.timestamp_ms <= fresh_ms);
        without_gap(&api, "db1", &whole, interval_ms).await?;
        Ok(whole)
    })
    .await?;
    assert_eq!(whole[0].timestamp_ms, first_ms, "what was there stays");
    ensure!(whole.len() as u128 * interval_ms as u128 >= cut().as_millis(), "{} samples", whole.len());
    Ok(())
}

#[tokio::test]
async fn simulated_agents_fill_what_a_refused_link_cost() -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let proxy = Proxy::to(collector.grpc()).await?;
    let plan = Plan { agents: 3, ticks: 50, ..Plan::small(proxy.url()) };
    let pushing = tokio::spawn(async move { run(&plan).await });
    let api = collector.api();
    let query = "sum(count_over_time(lampad_load_value[5m]))";
    until_ok("samples", PATIENCE, || api.value(query)).await?;
    proxy.set(Link::Refused);
    let held = api.value(query).await?;
    tokio::time::sleep(Duration::from_secs(1)).await; // the outage
    assert!(api.value(query).await? <= held + 3.0 * 20.0, "samples came through a refused link");
    proxy.set(Link::Whole);
    let records = pushing.await?;
    let verdict = verify(&api, &records).await?;
    ensure!(verdict.is_clean() && verdict.right == 3 * 20 * 50, "{verdict}");
    Ok(())
}
