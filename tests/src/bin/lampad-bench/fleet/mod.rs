//! What a fleet costs the collector, by the share of its series that change from one tick to the next.
//!
//! Each share gets an empty collector and the same number of simulated agents, in this process. CPU is user and system time of the
//! collector, from the first connection until all is acked; with an interval of 0 the agents push as fast as acks come. Memory is
//! its resident set half way and at the end. Bytes on the wire are those of frames and dictionaries, bytes on disk what the data
//! directory holds after SIGTERM. The quantiles are the collector's own: from a frame's arrival until it could be queried, and
//! until it was on disk.
//!
//! With an interval the start, when all agents come at once and define all their series, is told apart from what follows it: it
//! ends when each of them has had all that it sent acked once, what came due meanwhile included. The seconds with the longest
//! acks are told one by one.

mod worst;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lampad_tests::load::{Pace, Plan, run as push, undisturbed};
use lampad_tests::{Api, Collector, Cost};

/// How often the collector is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// With these, names and first values have been taken.
const TICKS_FEW: u64 = 2;

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
    /// Run each share with half of the ticks and with few too, and print what the others alone cost
    #[arg(long)]
    steady: bool,
    /// Shares of the series that change at a tick, in percent
    #[arg(long, value_delimiter = ',', default_values_t = [0, 5, 36, 100])]
    change: Vec<u8>,
}

/// What a run cost.
#[derive(Clone, Copy)]
struct Figures {
    samples: f64,
    seconds: f64,
    cpu_s: f64,
    half_bytes: f64,
    resident_bytes: f64,
    index_bytes: f64,
    wire_bytes: f64,
    disk_bytes: f64,
    queryable_ms: f64,
    durable_ms: f64,
}

/// The start, until every agent had had all that it sent acked once, and what followed.
struct Apart {
    seconds: f64,
    cpu_s: f64,
    resident_bytes: f64,
    steady_cpu_s: f64,
    steady_samples: f64,
    /// p50 and p99.
    queryable_ms: [f64; 2],
    durable_ms: [f64; 2],
    /// Rows of a table.
    worst: Vec<String>,
}

impl Apart {
    fn row(&self, change: u8) -> String {
        format!(
            "| {change} | {:.1} | {:.1} | {:.0} | {:.3} | {:.1} / {:.1} | {:.1} / {:.1} |",
            self.seconds,
            self.cpu_s,
            self.resident_bytes / f64::from(1 << 20),
            self.steady_cpu_s / self.steady_samples * 1e6,
            self.queryable_ms[0],
            self.queryable_ms[1],
            self.durable_ms[0],
            self.durable_ms[1],
        )
    }
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    println!("{} agents of {} series, {} ticks\n", args.agents, args.series, args.ticks);
    println!(
        "| changed % | seconds | CPU s per 1 M samples | RSS MiB half way | at the end | index B/series | wire B/sample | disk B/sample | queryable p99 ms | durable p99 ms |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let (mut steady, mut paced, mut worst) = (Vec::new(), Vec::new(), Vec::new());
    for change in &args.change {
        let (whole, apart) = measure(&args, *change, args.ticks).await?;
        println!("{}", whole.row(*change));
        if let Some(apart) = apart {
            paced.push(apart.row(*change));
            worst.extend(apart.worst.iter().map(|row| format!("| {change} {row}")));
        }
        if args.steady {
            let (half, _) = measure(&args, *change, args.ticks / 2).await?;
            let (few, _) = measure(&args, *change, TICKS_FEW).await?;
            steady.push((*change, whole.less(&half), whole.less(&few).resident_bytes));
        }
    }
    if !paced.is_empty() {
        println!("\nThe start apart, until every agent had had all that it sent acked once; and what followed:\n");
        println!(
            "| changed % | start: seconds | CPU s | RSS MiB | then: CPU s per 1 M samples | queryable p50 / p99 ms | durable p50 / p99 ms |"
        );
        println!("|---|---|---|---|---|---|---|");
        paced.iter().for_each(|row| println!("{row}"));
        println!("\nThe seconds with the longest acks, from the first connection on:\n");
        println!("| changed % | second | frames | durable p50 / p99 ms |\n|---|---|---|---|");
        worst.iter().for_each(|row| println!("{row}"));
    }
    if args.steady {
        println!(
            "\nOf the second half of the ticks alone, without connections, names and first values; memory is what is"
        );
        println!("resident at the end and was not after {TICKS_FEW} ticks:\n");
        println!("| changed % | CPU s per 1 M samples | wire B/sample | disk B/sample | RSS MiB |");
        println!("|---|---|---|---|---|");
        steady.iter().for_each(|(change, figures, resident)| println!("{}", figures.steady_row(*change, *resident)));
    }
    Ok(())
}

impl Figures {
    fn row(&self, change: u8) -> String {
        let mib = |bytes: f64| bytes / f64::from(1 << 20);
        format!(
            "| {change} | {:.1} | {:.3} | {:.0} | {:.0} | {:.0} | {:.3} | {:.3} | {:.1} | {:.1} |",
            self.seconds,
            self.cpu_s / self.samples * 1e6,
            mib(self.half_bytes),
            mib(self.resident_bytes),
            self.index_bytes,
            self.wire_bytes / self.samples,
            self.disk_bytes / self.samples,
            self.queryable_ms,
            self.durable_ms,
        )
    }

    /// What this run cost more than one of fewer ticks.
    fn less(&self, fewer: &Self) -> Self {
        Self {
            samples: self.samples - fewer.samples,
            cpu_s: self.cpu_s - fewer.cpu_s,
            resident_bytes: self.resident_bytes - fewer.resident_bytes,
            wire_bytes: self.wire_bytes - fewer.wire_bytes,
            disk_bytes: self.disk_bytes - fewer.disk_bytes,
            ..*self
        }
    }

    fn steady_row(&self, change: u8, resident_bytes: f64) -> String {
        format!(
            "| {change} | {:.4} | {:.4} | {:.4} | {:.1} |",
            self.cpu_s / self.samples * 1e6,
            self.wire_bytes / self.samples,
            self.disk_bytes / self.samples,
            resident_bytes / f64::from(1 << 20),
        )
    }
}

async fn measure(args: &Args, change: u8, ticks: u64) -> anyhow::Result<(Figures, Option<Apart>)> {
    let mut collector = Collector::start().await?;
    let pid = collector.process.id();
    let (before, begin) = (Cost::of(pid)?, Instant::now());
    let begin_ms = jiff::Timestamp::now().as_millisecond();
    let begun = Arc::new(AtomicU32::new(0));
    let paced = args.interval_ms != 0;
    let plan = Plan {
        collector: collector.grpc_url(),
        first_agent: 0,
        agents: args.agents,
        series: args.series,
        groups: args.groups,
        interval: Duration::from_millis(if paced { args.interval_ms } else { 1000 }),
        ticks,
        change_percent: change,
        pace: if paced { Pace::Real } else { Pace::FlatOut },
        clock_ahead_ms: 0,
        patience: Duration::from_secs(600),
        begun: begun.clone(),
    };
    let mut resident = Vec::new();
    let mut started = None;
    let mut pushing = std::pin::pin!(push(&plan));
    let records = loop {
        tokio::select! {
            records = &mut pushing => break records,
            () = tokio::time::sleep(LOOK_EVERY) => {
                let cost = Cost::of(pid)?;
                resident.push(cost.resident_bytes);
                if paced && started.is_none() && begun.load(Ordering::Relaxed) == args.agents {
                    started = Some((jiff::Timestamp::now(), begin.elapsed(), cost));
                }
            }
        }
    };
    let seconds = begin.elapsed().as_secs_f64();
    let after = Cost::of(pid)?;
    undisturbed(&records)?;
    let api = collector.api();
    let apart = match started {
        Some((at, start, cost)) => Some(Apart {
            seconds: start.as_secs_f64(),
            cpu_s: (cost.cpu - before.cpu).as_secs_f64(),
            resident_bytes: cost.resident_bytes as f64,
            steady_cpu_s: (after.cpu - cost.cpu).as_secs_f64(),
            steady_samples: f64::from(args.agents) * f64::from(args.series) * (seconds - start.as_secs_f64())
                / plan.interval.as_secs_f64(),
            queryable_ms: since(&api, "queryable", at).await?,
            durable_ms: since(&api, "durable", at).await?,
            worst: worst::rows(&api, begin_ms, jiff::Timestamp::now().as_millisecond()).await?,
        }),
        None => None,
    };
    let queryable_ms = quantile_ms(&api, "queryable").await?;
    let durable_ms = quantile_ms(&api, "durable").await?;
    let index_bytes = api.value("lampad_collector_index_bytes / lampad_collector_series").await?;
    collector.process.terminate(Duration::from_secs(60)).await?;
    let sent: u64 = records.iter().map(|record| record.sent_bytes).sum();
    let figures = Figures {
        samples: f64::from(args.agents) * f64::from(args.series) * ticks as f64,
        seconds,
        cpu_s: (after.cpu - before.cpu).as_secs_f64(),
        half_bytes: resident.get(resident.len() / 2).copied().unwrap_or(after.resident_bytes) as f64,
        resident_bytes: after.resident_bytes as f64,
        index_bytes,
        wire_bytes: sent as f64,
        disk_bytes: super::ingest::disk_bytes(collector.data())? as f64,
        queryable_ms,
        durable_ms,
    };
    Ok((figures, apart))
}

/// Over all frames so far.
async fn quantile_ms(api: &Api, of: &str) -> anyhow::Result<f64> {
    let query = format!("1000 * histogram_quantile(0.99, lampad_collector_{of}_seconds_bucket)");
    api.value(&query).await
}

/// p50 and p99 over the frames since then. The collector writes its metrics once a second, so what has just been acked is in the
/// next ones.
async fn since(api: &Api, of: &str, at: jiff::Timestamp) -> anyhow::Result<[f64; 2]> {
    let buckets = format!("lampad_collector_{of}_seconds_bucket");
    let at = at.as_second() + 2;
    let ms = |q: f64| format!("1000 * histogram_quantile({q}, {buckets} - {buckets} @ {at})");
    Ok([api.value(&ms(0.5)).await?, api.value(&ms(0.99)).await?])
}
