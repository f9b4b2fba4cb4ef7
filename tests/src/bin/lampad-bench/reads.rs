//! What a query of one metric over many hosts and a day reads of the blocks, by what the metric's own columns take there.
//!
//! The store alone, in this process, on a simulated clock: what takes a day is written in a minute. It is sealed after every
//! window, read, folded as a closed day is, and read again. A metric's own bytes are its share of all raw values then: the
//! mean over many metrics, evenly spread over a host's series.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lampad_collector::store::{
    AgentId, Batch, Budget, Clock, FrameId, GroupId, GroupKey, Labels, METRIC_NAME, MatchOp, Matcher, Options,
    RealDisk, Run, Select, SeriesKey, Slot, Source as _, Store, TickBatch, Value, WriteMode,
};
use lampad_tests::load::host::Host;

use super::week::Live;

/// For sealing and folding.
const PATIENCE: Duration = Duration::from_secs(600);

/// Midnight of some day.
const START_MS: i64 = 1_767_225_600_000;

#[derive(clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 40)]
    hosts: u32,
    /// Series per host, in one group
    #[arg(long, default_value_t = 600)]
    series: u32,
    #[arg(long, default_value_t = 24)]
    hours: u32,
    #[arg(long, default_value_t = 10)]
    interval_s: u32,
    /// After how many minutes a group is sealed
    #[arg(long, default_value_t = 120)]
    seal_minutes: u32,
    /// Metrics that are asked for, one after another
    #[arg(long, default_value_t = 20)]
    metrics: u32,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    tokio::task::spawn_blocking(move || measure(&args)).await?
}

fn measure(args: &Args) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let now_ms = Arc::new(AtomicI64::new(START_MS));
    let clock = now_ms.clone();
    let options =
        Options { clock: Clock::new(move || clock.load(Ordering::Relaxed)), ..Options::new(directory.path()) };
    let store = Store::open(options, Arc::new(RealDisk))?;
    write(args, &store, &now_ms)?;
    println!(
        "{} hosts of {} series, {} h at {} s, sealed every {} min\n",
        args.hosts, args.series, args.hours, args.interval_s, args.seal_minutes
    );
    println!("| | bytes read per metric | its own bytes | read / own | ms per query |\n|---|---|---|---|---|");
    println!("{}", row("as sealed", args, &store)?);
    ensure!(store.compact(PATIENCE), "folding failed; see the log");
    println!("{}", row("folded", args, &store)?);
    Ok(())
}

fn write(args: &Args, store: &Store, now_ms: &AtomicI64) -> anyhow::Result<()> {
    let mut hosts: Vec<(GroupId, Vec<Slot>, Host)> = Vec::new();
    for number in 0..args.hosts {
        let key = GroupKey { agent: agent(number), name: "status".into() };
        let group = store.define_group(key, WriteMode::Delta)?;
        let keys: Vec<SeriesKey> = (0..args.series).map(|series| key_of(number, series)).collect();
        let slots = store.define_series(group, &keys).into_iter().collect::<Result<_, _>>()?;
        hosts.push((group, slots, Host::new(number, args.series)));
    }
    let (step_ms, ticks) = (i64::from(args.interval_s) * 1000, args.hours * 3600 / args.interval_s);
    let ticks_per_seal = (args.seal_minutes * 60 / args.interval_s).max(1);
    for tick in 0..ticks {
        let timestamp_ms = START_MS + i64::from(tick) * step_ms;
        now_ms.store(timestamp_ms, Ordering::Relaxed);
        for (number, (group, slots, host)) in hosts.iter_mut().enumerate() {
            let before = host.clone();
            host.step();
            let changed = (0..args.series).filter(|series| tick == 0 || host.units(*series) != before.units(*series));
            let values = changed.map(|series| (slots[series as usize], Value::Float(host.value(series)))).collect();
            let tick_batch = TickBatch { group: *group, timestamp_ms, run: Run::Live, key: tick == 0, values };
            let frame = FrameId { agent: agent(number as u32), epoch: 1, sequence: u64::from(tick) + 1 };
            store.append(&Batch { frame: Some(frame), ticks: vec![tick_batch] })?;
        }
        while store.is_busy() {
            ensure!(store.flush(PATIENCE), "the disk does not take the log");
        }
        if (tick + 1) % ticks_per_seal == 0 || tick + 1 == ticks {
            ensure!(store.seal(PATIENCE), "sealing failed; see the log");
        }
    }
    Ok(())
}

fn agent(number: u32) -> AgentId {
    let mut id = [1; 16];
    id[..4].copy_from_slice(&number.to_le_bytes());
    AgentId(id)
}

fn metric(series: u32) -> String {
    format!("bench_status_value_{series:04}")
}

fn key_of(host: u32, series: u32) -> SeriesKey {
    let instance = format!("db-{host:05}.example");
    let labels = Labels::from_pairs([(METRIC_NAME, &*metric(series)), ("instance", &instance), ("job", "mysql")]);
    SeriesKey { labels, meta: None }
}

fn row(what: &str, args: &Args, store: &Store) -> anyhow::Result<String> {
    let raw = Live::of(store)?.raw_bytes();
    let before = store.stats().read_bytes;
    let began = Instant::now();
    for at in 0..args.metrics {
        let name = metric((at * (args.series / args.metrics) + 7) % args.series);
        let matcher = Matcher { name: METRIC_NAME.into(), op: MatchOp::Equal, value: name.clone() };
        let select = Select::Range { from_ms: START_MS, to_ms: i64::MAX };
        let budget = Budget::new(u64::MAX, Instant::now() + PATIENCE);
        let found = store.select(&[matcher], select, &budget)?;
        let samples: usize = found.iter().map(|series| series.floats.len()).sum();
        let wanted = (args.hosts * (args.hours * 3600 / args.interval_s)) as usize;
        ensure!(samples == wanted, "{name} has {samples} samples, not {wanted}");
    }
    let took = began.elapsed();
    let read = (store.stats().read_bytes - before) as f64 / f64::from(args.metrics);
    let own = raw as f64 / f64::from(args.series);
    let ms = (took / args.metrics.max(1)).as_secs_f64() * 1e3;
    let ratio = (own > 0.0).then(|| read / own).context("nothing was sealed")?;
    Ok(format!("| {what} | {read:.0} | {own:.0} | {ratio:.1} | {ms:.0} |"))
}
