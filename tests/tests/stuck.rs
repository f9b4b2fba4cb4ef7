//! One agent is stuck, in each of four ways; the others notice nothing. Correctness here; `lampad-bench stuck` measures.

use std::time::Duration;

use anyhow::ensure;
use lampad_tests::load::stuck::{Stuck, be_stuck};
use lampad_tests::load::{Plan, run, verify};
use lampad_tests::{Collector, PATIENCE, Program, Signal, until_ok};

#[tokio::test]
async fn stuck_agents_cost_the_others_nothing() -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let api = collector.api();
    let big = Plan {
        series: 1000,
        interval: Duration::from_millis(20),
        ticks: 1 << 30,
        change_percent: 100,
        ..Plan::small("")
    };
    let address = collector.grpc().to_string();
    let stuck: Vec<_> = [(901, Stuck::AcksNeverRead), (902, Stuck::HalfFrame), (903, Stuck::ZeroWindow)]
        .into_iter()
        .map(|(number, how)| {
            let (plan, address) = (big.clone(), address.clone());
            tokio::spawn(async move { be_stuck(&plan, number, &address, how).await })
        })
        .collect();
    let stopped = Program::ours("lampad-load", collector.directory().join("stopped.log"))?
        .args(["--collector", &address, "--first-agent", "904", "--agents", "1", "--ticks", "100000"])
        .args(["--interval-ms", "20", "--series", "1000", "--change", "100"])
        .start()?;
    let pushed = "lampad_load_value{instance=\"load-00904\",series=\"0\"}";
    until_ok("the agent that will be stopped", PATIENCE, || api.value(pushed)).await?;
    stopped.signal(Signal::STOP)?;

    let plan = Plan { agents: 6, ticks: 50, ..Plan::small(collector.grpc_url()) };
    let records = run(&plan).await;
    for record in &records {
        ensure!(record.unacked.is_empty() && record.streams == 1, "agent {} was held up: {record:?}", record.agent);
    }
    let verdict = verify(&api, &records).await?;
    ensure!(verdict.is_clean() && verdict.right == 6 * 20 * 50, "{verdict}");
    // Where the stopped one goes on, its samples are there too.
    stopped.signal(Signal::CONT)?;
    let before = api.value(pushed).await.ok();
    until_ok("the agent that goes on", PATIENCE, || async {
        let now = api.value(pushed).await?;
        ensure!(Some(now) != before, "still {now}");
        Ok(())
    })
    .await?;
    stuck.into_iter().for_each(|task| task.abort());
    Ok(())
}
