//! A week of simulated time: what a store keeps in memory and on disk while its load stays the same.
//!
//! The store alone, in this process with the collector's allocator, on a simulated clock. Every hour some series end and others
//! begin; every hour the store does what its thread does by itself: partitions are closed, tiers built, partitions folded and
//! dropped, series forgotten. Raw samples and both tiers are kept for less than half of the time, so that in the second half as
//! much goes as comes. *Live* is what the values take that the manifest names; *disk* is the directory of blocks as it is then.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use lampad_collector::store::{
    AgentId, BackupSink, Batch, Clock, FrameId, GroupId, GroupKey, Labels, METRIC_NAME, Options, RealDisk, Run,
    SeriesKey, Slot, Store, TickBatch, Value, WriteMode,
};
use lampad_tests::Cost;
use lampad_tests::load::host::Host;

use super::ingest::disk_bytes;

/// For sealing and folding.
const PATIENCE: Duration = Duration::from_secs(600);

const HOUR_MS: i64 = 3_600_000;

/// How often all values are read to see what is live.
const TELL_HOURS: u32 = 12;

/// Midnight of some day.
const START_MS: i64 = 1_767_225_600_000;

#[derive(clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 7)]
    days: u32,
    #[arg(long, default_value_t = 10)]
    hosts: u32,
    /// Series per host, in one group
    #[arg(long, default_value_t = 1000)]
    series: u32,
    #[arg(long, default_value_t = 30)]
    interval_s: u32,
    /// How many of a host's series end every hour, with as many new ones in their place
    #[arg(long, default_value_t = 10)]
    churn_percent: u32,
    /// How long raw samples, windows of 10 s and windows of 5 min are kept, in hours
    #[arg(long, value_delimiter = ',', default_values_t = [48, 60, 72])]
    keep_hours: Vec<u64>,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    ensure!(args.keep_hours.len() == 3, "--keep-hours takes three numbers: raw samples and both tiers");
    ensure!(args.days > 0 && args.hosts > 0 && args.series > 0 && (1..=3600).contains(&args.interval_s), "no load");
    tokio::task::spawn_blocking(move || measure(&args)).await?
}

/// The store at one time.
#[derive(Clone, Copy)]
struct Look {
    hour: u32,
    series: u64,
    index_bytes: u64,
    resident_bytes: u64,
    live_bytes: u64,
    disk_bytes: u64,
}

impl Look {
    fn ratio(&self) -> f64 {
        self.disk_bytes as f64 / self.live_bytes as f64
    }
}

fn measure(args: &Args) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let blocks = directory.path().join("blocks");
    let now_ms = Arc::new(AtomicI64::new(START_MS));
    let clock = now_ms.clone();
    let hours = |at: usize| Duration::from_secs(args.keep_hours[at] * 3600);
    let options = Options {
        retention: hours(0),
        tiers: [Some(hours(1)), Some(hours(2))],
        reserve_bytes: 0,
        clock: Clock::new(move || clock.load(Ordering::Relaxed)),
        ..Options::new(directory.path())
    };
    let store = Store::open(options, Arc::new(RealDisk))?;
    let mut hosts: Vec<Pushed> =
        (0..args.hosts).map(|number| Pushed::new(&store, number, args)).collect::<Result<_, _>>()?;
    println!(
        "{} hosts of {} series, one tick in {} s, {} % of the series replaced every hour; kept for {:?} h\n",
        args.hosts, args.series, args.interval_s, args.churn_percent, args.keep_hours
    );
    println!("| hours | series | index KiB | index B/series | RSS MiB | live KiB | disk KiB | disk / live |");
    println!("|---|---|---|---|---|---|---|---|");
    let (began, mut looks) = (Instant::now(), Vec::new());
    for hour in 1..=args.days * 24 {
        for tick in 0..3600 / args.interval_s {
            let at_ms = now_ms.fetch_add(i64::from(args.interval_s) * 1000, Ordering::Relaxed);
            for host in &mut hosts {
                host.tick(&store, at_ms, tick == 0)?;
            }
        }
        now_ms.store(START_MS + i64::from(hour) * HOUR_MS, Ordering::Relaxed);
        for host in &mut hosts {
            host.churn(&store, args.series * args.churn_percent / 100)?;
        }
        ensure!(store.tend(PATIENCE), "sealing or folding failed; see the log");
        let stats = store.stats();
        ensure!(stats.damaged == 0, "{} damaged values", stats.damaged);
        let is_told = hour % TELL_HOURS == 0;
        let live_bytes = if is_told { Live::of(&store)?.bytes() } else { 0 };
        let look = Look {
            hour,
            series: stats.series,
            index_bytes: stats.index_bytes,
            resident_bytes: Cost::of(std::process::id())?.resident_bytes,
            live_bytes,
            disk_bytes: disk_bytes(&blocks)?,
        };
        if is_told {
            println!("{}", row(&look));
        }
        looks.push(look);
    }
    let samples: f64 = hosts.iter().map(|host| host.sequence as f64 * f64::from(args.series)).sum();
    println!(
        "\n{:.0} million samples in {:.0} s. Least and most of all hours:\n",
        samples / 1e6,
        began.elapsed().as_secs_f64()
    );
    println!(
        "| quarter | series | index KiB | RSS MiB | live KiB | disk KiB | disk / live |\n|---|---|---|---|---|---|---|"
    );
    for (at, quarter) in looks.chunks(looks.len().div_ceil(4)).enumerate() {
        println!("{}", span(at + 1, quarter));
    }
    Live::of(&store)?.print_kinds(&blocks)?;
    ensure!(store.shutdown(), "not all became durable; see the log");
    Ok(())
}

fn row(look: &Look) -> String {
    format!(
        "| {} | {} | {} | {} | {:.0} | {} | {} | {:.2} |",
        look.hour,
        look.series,
        look.index_bytes >> 10,
        look.index_bytes / look.series.max(1),
        look.resident_bytes as f64 / f64::from(1 << 20),
        look.live_bytes >> 10,
        look.disk_bytes >> 10,
        look.ratio(),
    )
}

/// Least and most of each column; of what is live, and of the disk by that, where it was looked at.
fn span(quarter: usize, looks: &[Look]) -> String {
    let of = |value: fn(&Look) -> u64| {
        let values = || looks.iter().map(value).filter(|value| *value > 0);
        format!("{} - {}", values().min().unwrap_or(0), values().max().unwrap_or(0))
    };
    let ratios = || looks.iter().filter(|look| look.live_bytes > 0).map(Look::ratio);
    let (least, most) = (ratios().fold(f64::INFINITY, f64::min), ratios().fold(0.0, f64::max));
    let columns = [
        of(|look| look.series),
        of(|look| look.index_bytes >> 10),
        of(|look| look.resident_bytes >> 20),
        of(|look| look.live_bytes >> 10),
        of(|look| look.disk_bytes >> 10),
    ];
    format!("| {quarter} | {} | {least:.2} - {most:.2} |", columns.join(" | "))
}

/// Adds up what a backup would hold of the blocks, by partition.
#[derive(Default)]
pub struct Live(BTreeMap<u32, u64>);

impl Live {
    pub fn of(store: &Store) -> anyhow::Result<Self> {
        let mut live = Self::default();
        store.backup(&mut live)?;
        Ok(live)
    }

    fn bytes(&self) -> u64 {
        self.0.values().sum()
    }

    pub fn raw_bytes(&self) -> u64 {
        self.0.iter().filter(|(partition, _)| kind_of(**partition) == RAW).map(|(_, bytes)| bytes).sum()
    }

    /// What each kind of partition takes, and by how much the engine makes more of it.
    fn print_kinds(&self, blocks: &Path) -> anyhow::Result<()> {
        println!(
            "\n| at the end | partitions | live KiB | disk KiB | disk / live | without live |\n|---|---|---|---|---|---|"
        );
        let mut kinds: BTreeMap<&str, (u32, u64, u64, u32)> = BTreeMap::new();
        for entry in std::fs::read_dir(blocks)? {
            let entry = entry?;
            let partition: u32 = entry.file_name().to_string_lossy().parse()?;
            let live = self.0.get(&partition).copied().unwrap_or(0);
            let (partitions, of_live, of_disk, empty) = kinds.entry(kind_of(partition)).or_default();
            *partitions += 1;
            *of_live += live;
            *of_disk += disk_bytes(&entry.path())?;
            *empty += u32::from(live == 0);
        }
        for (kind, (partitions, live, disk, empty)) in kinds {
            let ratio = disk as f64 / live.max(1) as f64;
            println!("| {kind} | {partitions} | {} | {} | {ratio:.2} | {empty} |", live >> 10, disk >> 10);
        }
        Ok(())
    }
}

const RAW: &str = "raw";

/// As proto/FORMATS.md names partitions.
fn kind_of(partition: u32) -> &'static str {
    match partition {
        100_000_000..200_000_000 => "windows of 10 s",
        200_000_000..300_000_000 => "windows of 5 min",
        _ => RAW,
    }
}

impl BackupSink for Live {
    fn begin(&mut self, _values: u64) -> io::Result<()> {
        Ok(())
    }

    fn file(&mut self, _name: &str, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn value(&mut self, partition: u32, _number: u32, bytes: &[u8]) -> io::Result<()> {
        *self.0.entry(partition).or_default() += bytes.len() as u64;
        Ok(())
    }
}

/// What one host pushes.
struct Pushed {
    number: u32,
    group: GroupId,
    slots: Vec<Slot>,
    /// Series that others have taken the place of.
    replaced: u32,
    values: Host,
    sequence: u64,
}

impl Pushed {
    fn new(store: &Store, number: u32, args: &Args) -> anyhow::Result<Self> {
        let group = store.define_group(GroupKey { agent: agent(number), name: "status".into() }, WriteMode::Delta)?;
        let values = Host::new(number, args.series);
        let mut host = Self { number, group, slots: Vec::new(), replaced: 0, values, sequence: 0 };
        host.slots = (0..args.series).map(|series| host.define(store, series, 0)).collect::<Result<_, _>>()?;
        Ok(host)
    }

    fn define(&self, store: &Store, series: u32, born: u32) -> anyhow::Result<Slot> {
        let (name, instance) = (format!("bench_status_value_{series:04}"), format!("db-{:05}.example", self.number));
        let born = born.to_string();
        let pairs = [(METRIC_NAME, &*name), ("instance", &instance), ("job", "mysql"), ("table", &born)];
        let key = SeriesKey { labels: Labels::from_pairs(pairs), meta: None };
        Ok(store.define_series(self.group, &[key]).remove(0)?)
    }

    /// So many series end and others begin; the next tick must say all.
    fn churn(&mut self, store: &Store, many: u32) -> anyhow::Result<()> {
        for _ in 0..many {
            let at = self.replaced % self.slots.len() as u32;
            self.replaced += 1;
            self.slots[at as usize] = self.define(store, at, self.replaced)?;
        }
        Ok(())
    }

    fn tick(&mut self, store: &Store, timestamp_ms: i64, key: bool) -> anyhow::Result<()> {
        let before = self.values.clone();
        self.values.step();
        let changed = |series: &u32| key || self.values.units(*series) != before.units(*series);
        let value = |series: u32| (self.slots[series as usize], Value::Float(self.values.value(series)));
        let mut values: Vec<(Slot, Value)> = (0..self.slots.len() as u32).filter(changed).map(value).collect();
        values.sort_unstable_by_key(|(slot, _)| *slot);
        self.sequence += 1;
        let frame = FrameId { agent: agent(self.number), epoch: 1, sequence: self.sequence };
        let tick = TickBatch { group: self.group, timestamp_ms, run: Run::Live, key, values };
        store.append(&Batch { frame: Some(frame), ticks: vec![tick] })?;
        Ok(())
    }
}

fn agent(number: u32) -> AgentId {
    let mut id = [1; 16];
    id[..4].copy_from_slice(&number.to_le_bytes());
    AgentId(id)
}
