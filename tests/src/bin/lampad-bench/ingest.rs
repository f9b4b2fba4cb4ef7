//! What taking samples in costs.
//!
//! Each server gets an empty directory and the same samples as fast as it takes them. CPU is user and system time of its
//! process, from the first sample until all are answered, and until it has ended after SIGTERM. Memory is the peak of its
//! resident set. Disk is what its data directory holds after the end; Prometheus keeps its head as a write-ahead log there.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use lampad_tests::load::flat_out::{Amount, native, remote_write};
use lampad_tests::{Api, Collector, Cost, Process, Program, Signal, free_port, servers, until};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

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
    /// Only these: lampad, lampad-remote-write, victoria-metrics, prometheus
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

struct Figures {
    seconds: f64,
    cpu: Duration,
    cpu_with_end: Duration,
    peak_bytes: u64,
    disk_bytes: u64,
    /// What the collector handed to its engine.
    sealed_bytes: Option<u64>,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let amount = Amount { hosts: args.hosts, series: args.series, ticks: args.ticks, groups: args.groups };
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    println!("{} series, {} ticks, {} samples\n", args.hosts * args.series, args.ticks, amount.samples());
    println!(
        "| server | seconds | CPU s per 1 M samples | with the end | peak RSS MiB | disk B/sample | sealed B/sample |"
    );
    println!("|---|---|---|---|---|---|---|");
    if wanted("lampad") {
        row("lampad, native stream", amount, &lampad(amount, None).await?);
    }
    if wanted("lampad-remote-write") {
        row("lampad, remote write", amount, &lampad(amount, Some(args.connections)).await?);
    }
    for name in ["victoria-metrics", "prometheus"] {
        match servers::installed(name) {
            Some(path) if wanted(name) => row(name, amount, &peer(name, &path, amount, args.connections).await?),
            Some(_) => {}
            None => println!("| {name} | not installed | | | | | |"),
        }
    }
    Ok(())
}

fn row(server: &str, amount: Amount, figures: &Figures) {
    let samples = amount.samples() as f64;
    let sealed = figures.sealed_bytes.map_or("-".to_owned(), |bytes| format!("{:.3}", bytes as f64 / samples));
    println!(
        "| {server} | {:.1} | {:.3} | {:.3} | {:.0} | {:.3} | {sealed} |",
        figures.seconds,
        figures.cpu.as_secs_f64() / samples * 1e6,
        figures.cpu_with_end.as_secs_f64() / samples * 1e6,
        figures.peak_bytes as f64 / f64::from(1 << 20),
        figures.disk_bytes as f64 / samples,
    );
}

async fn lampad(amount: Amount, connections: Option<u32>) -> anyhow::Result<Figures> {
    let mut collector = Collector::start().await?;
    let before = Cost::of(collector.process.id())?;
    let begin = Instant::now();
    match connections {
        None => native(&collector.grpc_url(), amount).await?,
        Some(connections) => {
            let url = format!("http://{}/api/v1/write", collector.http());
            remote_write(&url, amount, connections).await?;
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let mut figures = end(&mut collector.process, before, seconds).await?;
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
    let directory = TempDir::with_prefix(format!("lampad-bench-{name}-"))?;
    let data = directory.path().join("data");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let program = Program::at(path, directory.path().join("log"));
    let (program, ready) = match name {
        "prometheus" => {
            let config = directory.path().join("prometheus.yml");
            std::fs::write(&config, "scrape_configs: []\n")?;
            let program = program
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.tsdb.path={}", data.display()))
                .arg(format!("--web.listen-address={address}"))
                .arg("--web.enable-remote-write-receiver");
            (program, "/-/ready")
        }
        _ => {
            let program = program
                .arg(format!("-storageDataPath={}", data.display()))
                .arg(format!("-httpListenAddr={address}"))
                .arg("-retentionPeriod=1");
            (program, "/health")
        }
    };
    let mut process = program.start()?;
    let api = Api::new(format!("http://{address}"));
    until(name, PATIENCE, || async { matches!(api.get(ready, &[]).await, Ok((200, _))) })
        .await
        .with_context(|| process.log_tail())?;
    let before = Cost::of(process.id())?;
    let begin = Instant::now();
    remote_write(&format!("http://{address}/api/v1/write"), amount, connections).await?;
    let seconds = begin.elapsed().as_secs_f64();
    let mut figures = end(&mut process, before, seconds).await?;
    figures.disk_bytes = disk_bytes(&data)?;
    Ok(figures)
}

/// Measures, ends the process, and measures that too.
async fn end(process: &mut Process, before: Cost, seconds: f64) -> anyhow::Result<Figures> {
    let loaded = Cost::of(process.id())?;
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
        peak_bytes: last.peak_bytes,
        disk_bytes: 0,
        sealed_bytes: None,
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
