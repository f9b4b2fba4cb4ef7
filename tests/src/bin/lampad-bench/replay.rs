//! How long a collector takes to be ready again after kill -9: the manifest and the log are read, all series made again.

use std::time::{Duration, Instant};

use lampad_tests::load::pushed::{Amount, native};
use lampad_tests::{Collector, Cost};

#[derive(clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 1000)]
    hosts: u32,
    /// Series per host
    #[arg(long, default_value_t = 1000)]
    series: u32,
    #[arg(long, default_value_t = 20)]
    ticks: u32,
    /// Groups per host
    #[arg(long, default_value_t = 8)]
    groups: u32,
    /// Starts after the kill; from the second on part of it comes from the manifest
    #[arg(long, default_value_t = 2)]
    starts: u32,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let Args { hosts, series, ticks, groups, .. } = args;
    let amount = Amount { hosts, series, ticks, groups, paced: false };
    println!("{} series, {} ticks\n", args.hosts * args.series, args.ticks);
    let mut collector = Collector::start().await?;
    native(&collector.grpc_url(), amount).await?;
    println!("| start | seconds until ready | CPU s | peak RSS MiB |\n|---|---|---|---|");
    for start in 1..=args.starts {
        collector.process.kill()?;
        let began = Instant::now();
        collector.restart().await?;
        let cost = Cost::of(collector.process.id())?;
        let (seconds, cpu): (f64, Duration) = (began.elapsed().as_secs_f64(), cost.cpu);
        let mib = cost.peak_bytes as f64 / f64::from(1 << 20);
        println!("| {start} | {seconds:.2} | {:.2} | {mib:.0} |", cpu.as_secs_f64());
    }
    println!("\n{}", collector.process.log_tail());
    Ok(())
}
