//! What queries cost: the same samples in our collector, Prometheus and VictoriaMetrics, the same questions to each.
//!
//! One question at a time over a connection that is kept. The servers take turns, so that what else the machine does meets
//! all of them. CPU is user and system time of a server's process; memory is by how much its resident set was larger at its
//! peak than before the question. An answer is compared with Prometheus', number by number.

mod list;
mod same;
mod storm;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::ensure;
use lampad_tests::load::wide::Fleet;
use lampad_tests::servers::{Server, installed};
use lampad_tests::{Collector, Cost};

use crate::quantiles::Quantiles;

use list::{Question, questions};

/// How often each server's turn comes.
const TURNS: u32 = 3;

/// One answer, at most.
const PATIENCE: Duration = Duration::from_secs(300);

const MIB: f64 = (1 << 20) as f64;

#[derive(clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 100)]
    hosts: u32,
    /// Series per host; 65 are the counters that most questions are about
    #[arg(long, default_value_t = 1000)]
    series: u32,
    /// Seconds of data, a sample of each series in each
    #[arg(long, default_value_t = 300)]
    ticks: u32,
    /// How often each question is put to each server
    #[arg(long, default_value_t = 30)]
    runs: u32,
    /// Connections for loading, to each server
    #[arg(long, default_value_t = 2)]
    connections: u32,
    /// Only questions with this in their text
    #[arg(long, default_value = "")]
    only: String,
    /// Prometheus' program, if not the one on PATH
    #[arg(long, env = "LAMPAD_BENCH_PROMETHEUS")]
    prometheus: Option<PathBuf>,
    /// VictoriaMetrics' program, if not the one on PATH
    #[arg(long, env = "LAMPAD_BENCH_VICTORIA_METRICS")]
    victoria_metrics: Option<PathBuf>,
    /// Our collector alone
    #[arg(long)]
    alone: bool,
    /// Seal what was loaded by a restart, so that our collector reads blocks
    #[arg(long)]
    sealed: bool,
    /// Seconds of ingest without and with heavy queries at the end; 0 for none
    #[arg(long, default_value_t = 20)]
    storm: u32,
}

/// A server that is asked.
struct Asked {
    name: &'static str,
    url: String,
    pid: u32,
    client: reqwest::Client,
}

/// What a question cost one server.
#[derive(Default)]
struct Price {
    times: Vec<Duration>,
    cpu: Duration,
    peak_bytes: u64,
    body: String,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut collector = Collector::start().await?;
    let mut peers = Vec::new();
    let wanted = [("prometheus", &args.prometheus), ("victoria-metrics", &args.victoria_metrics)];
    for (name, path) in wanted.into_iter().filter(|_| !args.alone) {
        match path.clone().or_else(|| installed(name)) {
            Some(path) => peers.push((name, Server::receiver(name, path).await?)),
            None => println!("{name} is not installed"),
        }
    }
    let end_ms = jiff::Timestamp::now().as_second() * 1000;
    let fleet = Fleet { hosts: args.hosts, series: args.series, ticks: args.ticks, end_ms };
    let addresses = std::iter::once(collector.http()).chain(peers.iter().map(|(_, server)| server.address));
    let urls: Vec<String> = addresses.map(|address| format!("http://{address}/api/v1/write")).collect();
    let began = Instant::now();
    fleet.write(&urls, args.connections).await?;
    let samples = u64::from(args.hosts) * u64::from(args.series) * u64::from(args.ticks);
    println!("{samples} samples, loaded in {:.0} s\n", began.elapsed().as_secs_f64());
    if args.sealed {
        collector.process.terminate(PATIENCE).await?;
        collector.restart().await?;
    }
    let mut asked = vec![Asked::new("lampad", collector.http().to_string(), collector.process.id())?];
    for (name, server) in &peers {
        asked.push(Asked::new(name, server.address.to_string(), server.process.id())?);
    }
    header(&asked);
    for question in questions(&fleet).into_iter().filter(|question| question.text.contains(&args.only)) {
        row(&question, &prices(&asked, &question, args.runs).await?, &asked);
    }
    drop(peers);
    println!("\nNames and instances of lampad are more than the others': it stores what it says about itself.");
    if args.storm > 0 {
        storm::run(&collector, args.storm, &questions(&fleet)).await?;
    }
    Ok(())
}

async fn prices(asked: &[Asked], question: &Question, runs: u32) -> anyhow::Result<Vec<Price>> {
    let mut prices: Vec<Price> = asked.iter().map(|_| Price::default()).collect();
    // The first answer may have to read what later ones find in a cache.
    for (server, price) in asked.iter().zip(&mut prices) {
        price.body = server.ask(question).await?;
    }
    for turn in 0..TURNS {
        for (server, price) in asked.iter().zip(&mut prices) {
            let before = server.calm()?;
            for _ in (turn..runs).step_by(TURNS as usize) {
                let began = Instant::now();
                server.ask(question).await?;
                price.times.push(began.elapsed());
            }
            let after = Cost::of(server.pid)?;
            price.cpu += after.cpu - before.cpu;
            price.peak_bytes = price.peak_bytes.max(after.peak_bytes.saturating_sub(before.resident_bytes));
        }
    }
    Ok(prices)
}

impl Asked {
    fn new(name: &'static str, address: String, pid: u32) -> anyhow::Result<Self> {
        // Without compression, which would be most of what a large answer costs.
        let client = reqwest::Client::builder().no_proxy().no_gzip().timeout(PATIENCE).build()?;
        Ok(Self { name, url: format!("http://{address}"), pid, client })
    }

    async fn ask(&self, question: &Question) -> anyhow::Result<String> {
        // VictoriaMetrics would else answer from its cache of results.
        let asked = self.client.get(format!("{}{}", self.url, question.path)).query(&question.params);
        let reply = asked.query(&[("nocache", "1")]).send().await?;
        let (status, body) = (reply.status(), reply.text().await?);
        ensure!(status.is_success(), "{} answered {} with {status}: {body}", self.name, question.text);
        Ok(body)
    }

    fn calm(&self) -> anyhow::Result<Cost> {
        Cost::forget_peak(self.pid)?;
        Cost::of(self.pid)
    }
}

fn header(asked: &[Asked]) {
    let names: Vec<String> = asked.iter().map(|server| format!("{} ms, CPU ms, MiB", server.name)).collect();
    let (names, rules) = (names.join(" | "), "---|".repeat(asked.len()));
    println!(
        "| query | series | {names} | best of the others / lampad: ms, CPU | as Prometheus |\n|---|---|{rules}---|---|"
    );
}

fn row(question: &Question, prices: &[Price], asked: &[Asked]) {
    let figures: Vec<(f64, f64)> = prices.iter().map(Price::figures).collect();
    let cells: Vec<String> = prices
        .iter()
        .zip(&figures)
        .map(|(price, (ms, cpu))| format!("{ms:.1}, {cpu:.1}, {:.0}", price.peak_bytes as f64 / MIB))
        .collect();
    let best = |pick: fn(&(f64, f64)) -> f64| {
        figures[1..].iter().map(pick).fold(f64::INFINITY, f64::min) / pick(&figures[0]).max(0.1)
    };
    let ratios = match figures.len() {
        1 => "-".to_owned(),
        _ => format!("{:.1}, {:.1}", best(|of| of.0), best(|of| of.1)),
    };
    let prometheus = asked.iter().position(|server| server.name == "prometheus");
    let same = prometheus.map_or("-".to_owned(), |at| same::verdict(&prices[0].body, &prices[at].body));
    let series = same::series(&prices[0].body);
    println!("| {} | {series} | {} | {ratios} | {same} |", question.text, cells.join(" | "));
}

impl Price {
    /// Milliseconds at the median, and of CPU per answer.
    fn figures(&self) -> (f64, f64) {
        let times = Quantiles::of(self.times.clone());
        (times.ms(0.5), self.cpu.as_secs_f64() * 1e3 / times.count().max(1) as f64)
    }
}
