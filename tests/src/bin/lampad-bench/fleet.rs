//! What a fleet costs the collector, by the share of its series that change from one tick to the next.
//!
//! Each share gets an empty collector and the same number of simulated agents, in this process. CPU is user and system time of the
//! collector, from the first connection until all is acked; with an interval of 0 the agents push as fast as acks come. Memory is
//! its resident set half way and at the end. Bytes on the wire are those of frames and dictionaries, bytes on disk what the data
//! directory holds after SIGTERM. The quantiles are the collector's own: from a frame's arrival until it could be queried, and
//! until it was on disk.

use std::time::{Duration, Instant};

use lampad_tests::load::{Pace, Plan, run as push};
use lampad_tests::{Api, Collector, Cost};

#[derive(clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 100)]
    agents: u32,
    /// Series per agent
    #[arg(long, default_value_t = 1000)]
    series: u32,
    /// Groups per agent
    #[arg(long, default_value_t = 8)]
    groups: u32,
    #[arg(long, default_value_t = 300)]
    ticks: u64,
    /// From one tick to the next; 0 pushes as fast as acks come
    #[arg(long, default_value_t = 0)]
    interval_ms: u64,
    /// Shares of the series that change at a tick, in percent
    #[arg(long, value_delimiter = ',', default_values_t = [0, 5, 36, 100])]
    change: Vec<u8>,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    println!("{} agents of {} series, {} ticks\n", args.agents, args.series, args.ticks);
    println!(
        "| changed % | seconds | CPU s per 1 M samples | RSS MiB half way | at the end | index B/series | wire B/sample | disk B/sample | queryable p99 ms | durable p99 ms |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for change in &args.change {
        println!("{}", row(&args, *change).await?);
    }
    Ok(())
}

async fn row(args: &Args, change: u8) -> anyhow::Result<String> {
    let mut collector = Collector::start().await?;
    let pid = collector.process.id();
    let (before, begin) = (Cost::of(pid)?, Instant::now());
    let plan = Plan {
        collector: collector.grpc_url(),
        first_agent: 0,
        agents: args.agents,
        series: args.series,
        groups: args.groups,
        interval: Duration::from_millis(if args.interval_ms == 0 { 1000 } else { args.interval_ms }),
        ticks: args.ticks,
        change_percent: change,
        pace: if args.interval_ms == 0 { Pace::FlatOut } else { Pace::Real },
        clock_ahead_ms: 0,
        patience: Duration::from_secs(600),
    };
    let mut resident = Vec::new();
    let mut pushing = std::pin::pin!(push(&plan));
    let records = loop {
        tokio::select! {
            records = &mut pushing => break records,
            () = tokio::time::sleep(Duration::from_millis(100)) => resident.push(Cost::of(pid)?.resident_bytes),
        }
    };
    let seconds = begin.elapsed().as_secs_f64();
    let after = Cost::of(pid)?;
    let unacked: usize = records.iter().map(|record| record.unacked.len()).sum();
    anyhow::ensure!(unacked == 0, "{unacked} ticks were never acked");
    let api = collector.api();
    let queryable = quantile_ms(&api, "queryable").await?;
    let durable = quantile_ms(&api, "durable").await?;
    let index = api.value("lampad_collector_index_bytes / lampad_collector_series").await?;
    collector.process.terminate(Duration::from_secs(60)).await?;
    let disk = super::ingest::disk_bytes(collector.data())? as f64;
    let samples = f64::from(args.agents) * f64::from(args.series) * args.ticks as f64;
    let sent: u64 = records.iter().map(|record| record.sent_bytes).sum();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let half = resident.get(resident.len() / 2).copied().unwrap_or(after.resident_bytes);
    Ok(format!(
        "| {change} | {seconds:.1} | {:.3} | {:.0} | {:.0} | {index:.0} | {:.3} | {:.3} | {queryable:.1} | {durable:.1} |",
        (after.cpu - before.cpu).as_secs_f64() / samples * 1e6,
        mib(half),
        mib(after.resident_bytes),
        sent as f64 / samples,
        disk / samples,
    ))
}

/// Over all frames so far.
async fn quantile_ms(api: &Api, of: &str) -> anyhow::Result<f64> {
    let query = format!("1000 * histogram_quantile(0.99, lampad_collector_{of}_seconds_bucket)");
    api.value(&query).await
}
