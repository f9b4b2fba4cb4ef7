//! The crash campaign: a collector under load is killed again and again, its files harmed now and then, and every sample judged.
//!
//! Each round the collector is killed by SIGKILL at a random moment and started again on the same directory, while agents go on
//! pushing and send again what was not acked. Every value is a function of (agent, series, tick), so that the judge tells lost,
//! doubled, shifted and invented samples apart. In rounds with harm a bit of a file is flipped, or a file cut, while the
//! collector is down: samples may be lost then, and must be reported (by the collector's own counter and by `check`), and none
//! may be invented. A seed gives the same moments and harms.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lampad_tests::load::{self, Plan, Record, Verdict, verify};
use lampad_tests::{Collector, PATIENCE, binary, until_ok};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

#[derive(clap::Args)]
pub struct Args {
    /// Kills
    #[arg(long, default_value_t = 100)]
    rounds: u32,
    /// The same moments as in an earlier run
    #[arg(long)]
    seed: Option<u64>,
    #[arg(long, default_value_t = 10)]
    agents: u32,
    /// Series per agent
    #[arg(long, default_value_t = 200)]
    series: u32,
    /// Longest time between a start and the kill, in milliseconds
    #[arg(long, default_value_t = 1500)]
    up_ms: u64,
    /// After so many rounds a file is harmed, in a campaign of its own; 0 for never
    #[arg(long, default_value_t = 10)]
    harm_every: u32,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let seed = args.seed.unwrap_or_else(rand::random);
    println!("seed {seed}: {} kills of a collector with {} agents of {} series", args.rounds, args.agents, args.series);
    let mut random = StdRng::seed_from_u64(seed);
    println!("| campaign | kills | longest start s | verdict | damage reported |\n|---|---|---|---|---|");
    let verdict = campaign(&args, args.rounds, false, &mut random).await?;
    ensure!(verdict.is_clean(), "samples were lost, doubled or invented: {verdict}");
    for _ in 0..args.rounds.checked_div(args.harm_every).unwrap_or(0) {
        campaign(&args, 2, true, &mut random).await?;
    }
    println!("\nall is well: of what was acked everything is there once, what was harmed was reported");
    Ok(())
}

/// So many kills of one collector; with harm, its files are harmed after the last one.
async fn campaign(args: &Args, kills: u32, harmed: bool, random: &mut StdRng) -> anyhow::Result<Verdict> {
    let mut collector = Collector::start().await?;
    let interval = Duration::from_millis(100);
    let mut longest = Duration::ZERO;
    // How long it takes is not known before: agents push on until they are told that it was the last round.
    let span = Duration::from_millis(args.up_ms) * kills + Duration::from_secs(5);
    let plan = Plan {
        agents: args.agents,
        series: args.series,
        groups: 4,
        interval,
        ticks: (span.as_millis() / interval.as_millis()) as u64,
        patience: Duration::from_secs(60) + Duration::from_secs(5) * kills,
        begun: std::sync::Arc::default(),
        ..Plan::small(collector.grpc_url())
    };
    let pushing = tokio::spawn(async move { load::run(&plan).await });
    for kill in 1..=kills {
        tokio::time::sleep(Duration::from_millis(random.random_range(1..=args.up_ms))).await; // the random moment is the subject
        collector.process.kill()?;
        if harmed && kill == kills {
            break;
        }
        let began = Instant::now();
        collector.restart().await.with_context(|| format!("start after kill {kill}"))?;
        longest = longest.max(began.elapsed());
    }
    let told = if harmed { harm(collector.data(), random)? } else { String::new() };
    let checked = if harmed { check(collector.data())? } else { None };
    if harmed {
        collector.restart().await.with_context(|| format!("start after harm: {told}"))?;
    }
    let records = pushing.await?;
    let unacked: usize = records.iter().map(|record: &Record| record.unacked.len()).sum();
    ensure!(unacked == 0, "{unacked} ticks were never acked: what was not acked is sent again");
    let verdict = verify(&collector.api(), &records).await?;
    let api = collector.api();
    let counted = until_ok("the own metrics", PATIENCE, || api.value("max(lampad_collector_damaged_total)")).await?;
    let reported = if harmed {
        format!("{told}: counted {counted}, check: {}", checked.as_deref().unwrap_or("nothing"))
    } else {
        format!("{counted}")
    };
    let name = if harmed { "harm" } else { "kill -9" };
    println!("| {name} | {kills} | {:.2} | {verdict} | {reported} |", longest.as_secs_f64());
    ensure!(verdict.doubled + verdict.shifted + verdict.invented == 0, "samples that nobody sent: {verdict}");
    ensure!(harmed || counted == 0.0, "damage was reported though nothing was harmed");
    ensure!(verdict.lost == 0 || counted > 0.0, "lost in silence: {verdict} after {told}");
    ensure!(verdict.lost == 0 || checked.is_some(), "check saw nothing: {verdict} after {told}");
    collector.process.terminate(PATIENCE).await?;
    Ok(verdict)
}

/// What `check` says of the directory; `None` when it finds nothing.
fn check(data: &Path) -> anyhow::Result<Option<String>> {
    let output = Command::new(binary("lampad-collector")?).arg("check").arg("--data-dir").arg(data).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.code() {
        Some(0) => Ok(None),
        Some(1) => Ok(text.lines().find(|line| line.starts_with("damaged")).map(str::to_owned)),
        other => anyhow::bail!("check ended with {other:?}: {text}{}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// Flips a bit in the first half of a file of log or manifest: what is harmed at the very end cannot be told from a write that
/// was cut short. Says what was done.
fn harm(data: &Path, random: &mut StdRng) -> anyhow::Result<String> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(data.join("log"))?.flatten().map(|entry| entry.path()).collect();
    files.push(data.join("MANIFEST"));
    files.sort();
    files.retain(|path| std::fs::metadata(path).is_ok_and(|meta| meta.len() > 200));
    let path = &files[random.random_range(0..files.len())];
    let mut bytes = std::fs::read(path)?;
    // The manifest's own first bytes are refused at the start, which is another test's subject.
    let at = random.random_range(16..bytes.len() / 2);
    bytes[at] ^= 1 << random.random_range(0..8);
    std::fs::write(path, &bytes)?;
    let name = path.strip_prefix(data)?.display().to_string();
    Ok(format!("bit of byte {at} of {} in {name}", bytes.len()))
}
