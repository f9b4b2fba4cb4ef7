//! The agent dies: by kill -9, which may cost what was sampled in the last second, and by SIGTERM, which costs nothing.
//! Counted while the collector cannot be reached, so that everything has to survive in the spool.

use std::time::Duration;

use anyhow::{Context, ensure};
use lampad_tests::series::{samples, usual_interval_ms, without_gap};
use lampad_tests::{Agent, Collector, Link, PATIENCE, Proxy, Sample, until_ok};

const SERIES: &str = "node_load1{instance=\"db1\"}";

/// Time in which the agent samples into its spool only.
const DARK: Duration = Duration::from_secs(4);

/// An agent that pushes, is cut off, samples on, is ended by `end`, and comes back to a whole link: all samples before its
/// end must be there but those of the last `allowed_ms`.
async fn ended_in_the_dark(
    end: impl AsyncFnOnce(&mut Agent) -> anyhow::Result<()>,
    allowed_ms: i64,
) -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let proxy = Proxy::to(collector.grpc()).await?;
    let mut agent = Agent::start(&proxy.url(), "db1", &[])?;
    let api = collector.api();
    let first = until_ok("first samples", PATIENCE, || async {
        let first = samples(&api, SERIES, 60).await?;
        ensure!(first.len() >= 5, "few");
        Ok(first)
    })
    .await?;
    let interval_ms = usual_interval_ms(&first)?;
    proxy.set(Link::Silent);
    tokio::time::sleep(DARK).await; // what happens in the dark is the subject
    let end_ms = jiff::Timestamp::now().as_millisecond();
    end(&mut agent).await?;
    let ended_ms = jiff::Timestamp::now().as_millisecond();
    proxy.set(Link::Whole);
    agent.restart()?;
    // The spool comes behind the live stream, so what is asserted is also what is waited for.
    let missing = until_ok("the spool's samples", PATIENCE, || async {
        let all = samples(&api, SERIES, 300).await?;
        let (before, after): (Vec<Sample>, Vec<Sample>) = all.iter().partition(|at| at.timestamp_ms <= ended_ms);
        let missing = end_ms - before.last().context("samples before the end")?.timestamp_ms;
        ensure!(missing <= allowed_ms + interval_ms * 3 / 2, "the last {missing} ms before the end are missing");
        without_gap(&api, "db1", &before, interval_ms).await?;
        without_gap(&api, "db1", &after, interval_ms).await?;
        Ok(missing)
    })
    .await?;
    eprintln!("the agent's end cost {missing} ms of samples");
    Ok(())
}

#[tokio::test]
async fn sigterm_loses_nothing() -> anyhow::Result<()> {
    ended_in_the_dark(async |agent| agent.process.terminate(PATIENCE).await, 0).await
}

#[tokio::test]
async fn kill_9_loses_at_most_the_last_second() -> anyhow::Result<()> {
    ended_in_the_dark(async |agent| agent.process.kill(), 1000).await
}
