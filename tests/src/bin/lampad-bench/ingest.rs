//! What taking samples in costs.
//!
//! Each server gets an empty directory and the same samples as fast as it takes them, one server after the other. With `--paced`
//! it is a tick a second, of all hosts at the same moment, for a load that comes drop by drop costs each server more; the
//! machine idles most of the time then, and all servers take it side by side, so that what else goes on costs them alike. CPU is
//! user and system time of its process, from the first sample until all are answered, and until it has ended after SIGTERM.
//! Memory is its resident set half way, when all is answered, and at its peak. Disk is what its data directory holds after the
//! end; Prometheus keeps its head as a write-ahead log there. With `--growth` each server takes the first half of the ticks a
//! second time, into another empty directory: the difference of both directories is what a further sample costs on disk.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use lampad_tests::load::pushed::{Amount, native, remote_write};
use lampad_tests::servers::{Server, installed};
use lampad_tests::{Collector, Cost, Process, Signal, until};

const PATIENCE: Duration = Duration::from_secs(60);

/// How often the resident set is looked at.
const RESIDENT_EVERY: Duration = Duration::from_millis(200);

#[derive(clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 100)]
    hosts: u32,
    /// Series per host
    #[arg(long, default_value_t = 1000)]
    series: u32,
    #[arg(long, default_value_t = 300)]
    ticks: u32,
    /// Groups per host
    #[arg(long, default_value_t = 8)]
    groups: u32,
    /// Connections for remote write
    #[arg(long, default_value_t = 4)]
    connections: u32,
    /// A tick a second, as in life, to all servers at the same time
    #[arg(long)]
    paced: bool,
    /// Measure also what the second half of the ticks adds on disk
    #[arg(long)]
    growth: bool,
    /// Only these: lampad, lampad-remote-write, victoria-metrics, prometheus
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

#[derive(Default)]
struct Figures {
    seconds: f64,
    cpu: Duration,
    cpu_with_end: Duration,
    half_bytes: u64,
    full_bytes: u64,
    peak_bytes: u64,
    disk_bytes: u64,
    /// What the collector handed to its engine.
    sealed_bytes: Option<u64>,
}

/// Who takes the samples.
enum Taker {
    Lampad,
    LampadRemoteWrite,
    Peer(&'static str, PathBuf),
}

impl Taker {
    fn name(&self) -> &str {
        match self {
            Self::Lampad => "lampad, native stream",
            Self::LampadRemoteWrite => "lampad, remote write",
            Self::Peer(name, _) => name,
        }
    }

    async fn take(&self, amount: Amount, connections: u32) -> anyhow::Result<Figures> {
        match self {
            Self::Lampad => lampad(amount, None).await,
            Self::LampadRemoteWrite => lampad(amount, Some(connections)).await,
            Self::Peer(name, path) => peer(name, path, amount, connections).await,
        }
    }

    /// With `--growth` also the number of samples of a second run, and what they took on disk.
    async fn measured(&self, amount: Amount, args: &Args) -> anyhow::Result<(Figures, Option<(u64, u64)>)> {
        let whole = self.take(amount, args.connections).await?;
        let half = Amount { ticks: amount.ticks / 2, ..amount };
        let growth = match args.growth {
            true => Some((half.samples(), self.take(half, args.connections).await?.disk_bytes)),
            false => None,
        };
        Ok((whole, growth))
    }
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let Args { hosts, series, ticks, groups, paced, .. } = args;
    let amount = Amount { hosts, series, ticks, groups, paced };
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    println!("{} series, {} ticks, {} samples\n", args.hosts * args.series, args.ticks, amount.samples());
    println!(
        "| server | seconds | CPU s per 1 M samples | with the end | RSS MiB half way | at the end | peak | disk B/sample | growth B/sample | sealed B/sample |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let ours = [("lampad", Taker::Lampad), ("lampad-remote-write", Taker::LampadRemoteWrite)];
    let mut servers: Vec<Taker> = ours.into_iter().filter(|(name, _)| wanted(name)).map(|(_, server)| server).collect();
    for name in ["victoria-metrics", "prometheus"].into_iter().filter(|name| wanted(name)) {
        match installed(name) {
            Some(path) => servers.push(Taker::Peer(name, path)),
            None => println!("| {name} | not installed | | | | | | | | |"),
        }
    }
    let together = if args.paced { servers.len().max(1) } else { 1 };
    for some in servers.chunks(together) {
        let measured = try_join_all(some.iter().map(|server| server.measured(amount, &args))).await?;
        for (server, (whole, growth)) in some.iter().zip(measured) {
            row(server.name(), amount.samples(), &whole, growth);
        }
    }
    Ok(())
}

/// `growth` is of a run with fewer samples: how many, and what they took on disk.
fn row(server: &str, samples: u64, figures: &Figures, growth: Option<(u64, u64)>) {
    let growth = growth.map_or("-".to_owned(), |(fewer, bytes)| {
        format!("{:.3}", (figures.disk_bytes as f64 - bytes as f64) / (samples - fewer) as f64)
    });
    let samples = samples as f64;
    let sealed = figures.sealed_bytes.map_or("-".to_owned(), |bytes| format!("{:.3}", bytes as f64 / samples));
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "| {server} | {:.1} | {:.3} | {:.3} | {:.0} | {:.0} | {:.0} | {:.3} | {growth} | {sealed} |",
        figures.seconds,
        figures.cpu.as_secs_f64() / samples * 1e6,
        figures.cpu_with_end.as_secs_f64() / samples * 1e6,
        mib(figures.half_bytes),
        mib(figures.full_bytes),
        mib(figures.peak_bytes),
        figures.disk_bytes as f64 / samples,
    );
}

async fn lampad(amount: Amount, connections: Option<u32>) -> anyhow::Result<Figures> {
    let mut collector = Collector::start().await?;
    let url = format!("http://{}/api/v1/write", collector.http());
    let grpc = collector.grpc_url();
    let load = async {
        match connections {
            None => native(&grpc, amount).await,
            Some(connections) => remote_write(&url, amount, connections).await.map(|()| Vec::new()),
        }
    };
    let mut figures = measure(&mut collector.process, load).await?;
    figures.disk_bytes = disk_bytes(collector.data())?;
    figures.sealed_bytes = sealed_bytes(&collector.process.log());
    Ok(figures)
}

/// The collector says at its end how much it has sealed.
fn sealed_bytes(log: &str) -> Option<u64> {
    let (_, rest) = log.rsplit_once("sealed_bytes=")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

async fn peer(name: &str, path: &Path, amount: Amount, connections: u32) -> anyhow::Result<Figures> {
    let mut server = Server::receiver(name, path.to_owned()).await?;
    let (url, data) = (format!("http://{}/api/v1/write", server.address), server.data());
    let mut figures = measure(&mut server.process, remote_write(&url, amount, connections)).await?;
    figures.disk_bytes = disk_bytes(&data)?;
    Ok(figures)
}

/// Measures a process under load, ends it, and measures that too. What the load leaves is held until it has been looked at.
async fn measure<T>(process: &mut Process, load: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<Figures> {
    let (pid, begin) = (process.id(), Instant::now());
    let before = Cost::of(pid)?;
    let mut resident = Vec::new();
    let mut load = std::pin::pin!(load);
    let left = loop {
        tokio::select! {
            done = &mut load => break done?,
            () = tokio::time::sleep(RESIDENT_EVERY) => resident.push(Cost::of(pid)?.resident_bytes),
        }
    };
    let seconds = begin.elapsed().as_secs_f64();
    let loaded = Cost::of(pid)?;
    drop(left);
    let half_bytes = resident.get(resident.len() / 2).copied().unwrap_or(loaded.resident_bytes);
    process.signal(Signal::TERM)?;
    let (id, mut last) = (process.id(), loaded);
    // An ended process has no memory left to tell of; it is reaped after this.
    until("the end", PATIENCE, || {
        let now = Cost::of(id);
        let ended = now.is_err();
        last = now.unwrap_or(last);
        async move { ended }
    })
    .await?;
    process.ended(PATIENCE).await?;
    Ok(Figures {
        seconds,
        cpu: loaded.cpu - before.cpu,
        cpu_with_end: last.cpu - before.cpu,
        half_bytes,
        full_bytes: loaded.resident_bytes,
        peak_bytes: last.peak_bytes,
        ..Figures::default()
    })
}

pub fn disk_bytes(directory: &Path) -> anyhow::Result<u64> {
    let mut waiting: Vec<PathBuf> = vec![directory.to_owned()];
    let mut bytes = 0;
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            match meta.is_dir() {
                true => waiting.push(entry.path()),
                // Room that is set aside is no data.
                false if entry.file_name() == "RESERVE" => {}
                false => bytes += meta.len(),
            }
        }
    }
    Ok(bytes)
}
