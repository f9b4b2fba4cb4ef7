//! Do stuck agents delay the others? Turns without and with them alternate within one run, on one collector.
//!
//! What is compared is the time from a tick's moment to its durable ack, over all agents that are not stuck.

use std::time::Duration;

use lampad_tests::load::stuck::{Stuck, be_stuck};
use lampad_tests::load::{Plan, undisturbed};
use lampad_tests::{Collector, Process, Program, Signal};

use crate::quantiles::Quantiles;

#[derive(clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 200)]
    agents: u32,
    #[arg(long, default_value_t = 1600)]
    series: u32,
    /// Share of the series that change from tick to tick, in percent
    #[arg(long, default_value_t = 5)]
    change: u8,
    /// Ticks, of a second each, in a turn
    #[arg(long, default_value_t = 30)]
    ticks: u64,
    /// Pairs of turns
    #[arg(long, default_value_t = 3)]
    turns: u32,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let mut times = [Vec::new(), Vec::new()];
    for turn in 0..args.turns {
        for (with_stuck, times) in times.iter_mut().enumerate() {
            let troubles = if with_stuck == 1 { Some(troubles(&collector, &args, turn).await?) } else { None };
            let plan = Plan {
                collector: collector.grpc_url(),
                first_agent: (turn * 2 + with_stuck as u32) * args.agents,
                agents: args.agents,
                series: args.series,
                groups: 16,
                interval: Duration::from_secs(1),
                ticks: args.ticks,
                change_percent: args.change,
                patience: Duration::from_secs(60),
                ..Plan::small("")
            };
            let records = lampad_tests::load::run(&plan).await;
            undisturbed(&records)?;
            // The first ticks carry dictionaries and key frames.
            times.extend(records.iter().flat_map(|record| record.latencies.iter().skip(3).copied()));
            drop(troubles);
        }
    }
    println!(
        "| tick to durable ack, {} agents of {} series at 1 s | acks | p50 ms | p99 ms |",
        args.agents, args.series
    );
    println!("|---|---|---|---|");
    let [without, with] = times.map(Quantiles::of);
    for (name, q) in [("none stuck", &without), ("four stuck, each in its way", &with)] {
        println!("| {name} | {} | {:.1} | {:.1} |", q.count(), q.ms(0.5), q.ms(0.99));
    }
    println!("p99 with / without: {:.2}", with.ms(0.99) / without.ms(0.99));
    Ok(())
}

/// Ends what is stuck when dropped.
struct Troubles {
    tasks: Vec<tokio::task::JoinHandle<anyhow::Result<()>>>,
    _stopped: Process,
}

impl Drop for Troubles {
    fn drop(&mut self) {
        self.tasks.iter().for_each(|task| task.abort());
    }
}

async fn troubles(collector: &Collector, args: &Args, turn: u32) -> anyhow::Result<Troubles> {
    let first = 80_000 + turn * 4;
    let address = collector.grpc().to_string();
    let plan = Plan {
        series: args.series,
        groups: 16,
        change_percent: 100,
        interval: Duration::from_millis(50),
        ..Plan::small("")
    };
    let hows = [Stuck::AcksNeverRead, Stuck::HalfFrame, Stuck::ZeroWindow];
    let tasks = hows
        .into_iter()
        .zip(first + 1..)
        .map(|(how, number)| {
            let (plan, address) = (plan.clone(), address.clone());
            tokio::spawn(async move { be_stuck(&plan, number, &address, how).await })
        })
        .collect();
    let stopped = Program::ours("lampad-load", collector.directory().join("stopped.log"))?
        .args(["--collector", &address, "--first-agent", &first.to_string(), "--agents", "1", "--ticks", "1000000"])
        .args(["--interval-ms", "50", "--series", &args.series.to_string(), "--change", "100"])
        .start()?;
    tokio::time::sleep(Duration::from_secs(2)).await; // well under way before it is stopped
    stopped.signal(Signal::STOP)?;
    Ok(Troubles { tasks, _stopped: stopped })
}
