//! Simulated agents from a shell: pushes as many, as much and as badly as told, prints one JSON line, and with `--verify`
//! asks the collector for every sample afterwards.
#![allow(clippy::print_stdout)]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use lampad_tests::Api;
use lampad_tests::load::stuck::{Stuck, be_stuck};
use lampad_tests::load::value::{AGENTS_MAX, SERIES_MAX};
use lampad_tests::load::{Pace, Plan, Record, run, verify};
use serde_json::json;

#[derive(Parser)]
struct Args {
    /// The collector's gRPC address
    #[arg(long, default_value = "127.0.0.1:9391", value_name = "HOST:PORT")]
    collector: String,
    /// Number of the first agent; others count on
    #[arg(long, default_value_t = 0)]
    first_agent: u32,
    #[arg(long, default_value_t = 10)]
    agents: u32,
    /// Series per agent
    #[arg(long, default_value_t = 1600)]
    series: u32,
    /// Groups per agent into which the series are dealt
    #[arg(long, default_value_t = 16)]
    groups: u32,
    #[arg(long, default_value_t = 1000)]
    interval_ms: u64,
    #[arg(long, default_value_t = 60)]
    ticks: u64,
    /// Share of the series that change from one tick to the next, in percent
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=100))]
    change: u8,
    /// Send as fast as acks come, not one tick per interval
    #[arg(long)]
    flat_out: bool,
    /// How far the agents' clocks are ahead of this machine's
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    clock_ahead_ms: i64,
    /// One agent that is stuck in this way, until ended from outside (SIGSTOP works on any)
    #[arg(long, value_enum)]
    stuck: Option<Stuck>,
    /// The collector's HTTP address: ask it for every sample when all is sent
    #[arg(long, value_name = "HOST:PORT")]
    verify: Option<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    ensure!(args.series < SERIES_MAX, "--series must be below {SERIES_MAX}");
    ensure!(args.first_agent.saturating_add(args.agents) < AGENTS_MAX, "agents are numbered below {AGENTS_MAX}");
    let plan = Plan {
        collector: format!("http://{}", args.collector),
        first_agent: args.first_agent,
        agents: args.agents,
        series: args.series,
        groups: args.groups,
        interval: Duration::from_millis(args.interval_ms),
        ticks: args.ticks,
        change_percent: args.change,
        pace: if args.flat_out { Pace::FlatOut } else { Pace::Real },
        clock_ahead_ms: args.clock_ahead_ms,
        patience: Duration::from_secs(30),
        begun: std::sync::Arc::default(),
    };
    if let Some(how) = args.stuck {
        be_stuck(&plan, args.first_agent, &args.collector, how).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let start = std::time::Instant::now();
    let records = run(&plan).await;
    println!("{}", report(&records, start.elapsed()));
    let complete = records.iter().all(|record| record.unacked.is_empty() && record.due == plan.ticks);
    let mut clean = true;
    if let Some(address) = args.verify {
        let verdict = verify(&Api::new(format!("http://{address}")), &records).await.context("verification")?;
        println!("{verdict}");
        clean = verdict.is_clean();
    }
    Ok(if complete && clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(records: &[Record], took: Duration) -> serde_json::Value {
    let mut latencies: Vec<Duration> = records.iter().flat_map(|record| record.latencies.iter().copied()).collect();
    latencies.sort();
    let quantile = |q: f64| {
        let last = latencies.len().saturating_sub(1);
        latencies.get((last as f64 * q).round() as usize).map(|latency| latency.as_secs_f64() * 1000.0)
    };
    let samples: u64 = records.iter().map(|record| record.latencies.len() as u64 * u64::from(record.series)).sum();
    json!({
        "agents": records.len(),
        "seconds": took.as_secs_f64(),
        "samples_acked": samples,
        "ticks_unacked": records.iter().map(|record| record.unacked.len()).sum::<usize>(),
        "streams": records.iter().map(|record| record.streams).sum::<u64>(),
        "ack_ms_p50": quantile(0.5),
        "ack_ms_p99": quantile(0.99),
        "ack_ms_max": quantile(1.0),
        "refusals": records.iter().flat_map(|record| &record.refusals).take(5).collect::<Vec<_>>(),
    })
}
