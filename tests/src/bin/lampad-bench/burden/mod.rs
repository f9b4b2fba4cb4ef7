//! What watching costs the database that is watched: a server of 3,000 tables and 300 sessions, with a blocked ALTER and a
//! storm of lock waits.
//!
//! * CPU inside the server is that of the threads that serve the agent's connections, as the kernel counts it.
//! * How fresh the vital signs are is read from their own timestamps.
//! * What a client feels is the p99 of a benchmark query: pairs of turns, the agent running in one and stopped (SIGSTOP) in the
//!   other. What else the machine does comes and goes in tens of seconds; so that it falls on both, the turns of a pair are cut
//!   into slices that alternate, in an order drawn by lot. The median of the ratios is told with its interval, which the ordered
//!   ratios give exactly.
//! * The agent has the priority that its systemd unit gives it. The collector, which in earnest is on another machine, is
//!   scheduled when nobody else wants the CPU: what it does when the agent goes on shall not be what the client feels.
//! * On a machine with other work, all that is measured here is to go before it: `nice -n -15`, and where the kernel schedules
//!   by session (`/proc/sys/kernel/sched_autogroup_enabled`), `setsid` and `echo -15 >/proc/self/autogroup` instead.

mod storm;
mod threads;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lampad_tests::mariadb::Server as Database;
use lampad_tests::{Agent, Api, Collector, Cost, PATIENCE, Signal, until_ok};
use rand::Rng;
use sqlx::mysql::MySqlConnection;

use self::storm::Storm;
use crate::quantiles::Quantiles;

#[derive(clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 3000)]
    tables: usize,
    /// Sessions of the calm server, and of the one in trouble
    #[arg(long, default_value_t = 50)]
    calm: usize,
    #[arg(long, default_value_t = 300)]
    sessions: usize,
    /// Pairs of turns, and the length of a turn
    #[arg(long, default_value_t = 20)]
    pairs: usize,
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Slices that the turns of a pair are cut into, each
    #[arg(long, default_value_t = 6)]
    slices: u32,
    /// Benchmark queries per second
    #[arg(long, default_value_t = 200)]
    queries: u64,
    /// Every collector that MariaDB has something for, not only those that are on by default
    #[arg(long)]
    everything: bool,
    /// The agent is stopped in both turns: tells by how much the pairs differ by themselves
    #[arg(long)]
    sham: bool,
}

/// The account of the agent, by which its connections are known.
const USER: &str = "watcher";

/// As in `systemd/lampad-agent.service`.
const AGENT_NICE: i32 = 5;

/// Until the governor knows what reads cost, and until the books, told every ten seconds, say so.
const SETTLE: Duration = Duration::from_secs(25);

/// After SIGCONT the agent has a backlog; the turn that follows shall not pay for it.
const RECOVER: Duration = Duration::from_secs(2);

const EVERYTHING: &str = "['info_schema.tables', 'auto_increment.columns', 'info_schema.innodb_metrics', \
    'info_schema.innodb_tablespaces', 'engine_innodb_status', 'info_schema.tablestats', 'info_schema.schemastats', \
    'info_schema.userstats', 'info_schema.clientstats', 'perf_schema.eventsstatements', 'perf_schema.eventsstatementssum', \
    'perf_schema.eventswaits', 'perf_schema.file_events', 'perf_schema.file_instances', 'perf_schema.indexiowaits', \
    'perf_schema.memory_events', 'perf_schema.tableiowaits', 'perf_schema.tablelocks']";

pub async fn run(args: Args) -> anyhow::Result<()> {
    let performance_schema = if args.everything { "ON" } else { "OFF" };
    let database = Database::mariadb(&[
        "--max-connections=1000",
        "--innodb-flush-log-at-trx-commit=2",
        &format!("--performance-schema={performance_schema}"),
        "--userstat=1",
    ])
    .await?;
    let rights = "select, process, binlog monitor, slave monitor";
    database
        .execute(&format!(
            "create user {USER}@localhost identified by 'bench'; grant {rights} on *.* to {USER}@localhost"
        ))
        .await?;
    storm::create_tables(&database, args.tables).await?;
    let collector = Collector::start().await?;
    let dsn = format!("mysql://{USER}:bench@localhost/?socket={}", database.socket().display());
    let config = collector.directory().join("agent.toml");
    std::fs::write(&config, if args.everything { format!("[mysql]\nextra = {EVERYTHING}\n") } else { String::new() })?;
    let agent =
        Agent::start(&collector.grpc_url(), "db1", &["--mysql", &dsn, "--config", &config.display().to_string()])?;
    threads::set_priority(agent.process.id(), AGENT_NICE)?;
    threads::set_idle(collector.process.id())?;
    let api = collector.api();
    until_ok("the agent", PATIENCE, || api.value("mysql_up == 1")).await?;

    println!(
        "| {} tables, over {} s | CPU of the agent's threads in the server, % of a core | vital signs every, ms | at most, ms | threads running |",
        args.tables, args.seconds
    );
    println!("|---|---|---|---|---|");
    let calm = Storm::calm(&database, args.calm).await?;
    watch(&format!("{} sessions", args.calm), &database, &api, args.seconds).await?;
    drop(calm);
    let storm = Storm::begin(&database, args.sessions).await?;
    watch(&format!("{} sessions, blocked ALTER, lock waits", args.sessions), &database, &api, args.seconds).await?;
    storm.still_blows(&database).await?;

    let mut client = database.connect().await?;
    let mut ratios = Vec::with_capacity(args.pairs);
    let turn = Duration::from_secs(args.seconds);
    let parties = [agent.process.id(), collector.process.id(), database.pid().context("the server is not running")?];
    for _ in 0..args.pairs {
        let mut took = [Vec::new(), Vec::new()];
        let mut spent = [[Duration::ZERO; 3]; 2];
        for _ in 0..args.slices.max(1) {
            let running_first = rand::rng().random_bool(0.5);
            for running in [running_first, !running_first] {
                agent.process.signal(if running && !args.sham { Signal::CONT } else { Signal::STOP })?;
                tokio::time::sleep(RECOVER).await;
                let slice = turn / args.slices.max(1);
                let before = cpu_of(parties)?;
                ask(&mut client, slice, args.queries, &mut took[usize::from(running)]).await?;
                let after = cpu_of(parties)?;
                (0..3).for_each(|at| spent[usize::from(running)][at] += after[at] - before[at]);
            }
        }
        let took = took.map(Quantiles::of);
        for (what, took, spent) in [("stopped", &took[0], spent[0]), ("running", &took[1], spent[1])] {
            let [p50, p98, p99] = [0.5, 0.98, 0.99].map(|q| took.ms(q));
            let [agent, collector, server] = spent.map(|spent| spent.as_secs_f64() * 1000.0 / turn.as_secs_f64());
            println!(
                "{what}: p50 {p50:.3} p98 {p98:.3} p99 {p99:.3} ms; CPU ms per s: agent {agent:.1}, collector \
                 {collector:.1}, server {server:.1}"
            );
        }
        let ratio = took[1].ms(0.99) / took[0].ms(0.99);
        println!("p99 running / stopped {ratio:.4}");
        ratios.push(ratio);
    }
    agent.process.signal(Signal::CONT)?;
    storm.still_blows(&database).await?;
    if !ratios.is_empty() {
        let (low, median, high) = median_with_interval(ratios);
        println!(
            "p99 running / stopped, {} pairs: median {median:.3}, 95 % interval {low:.3} to {high:.3}",
            args.pairs
        );
    }
    Ok(())
}

/// Prints CPU in the server and the pace of the vital signs.
async fn watch(what: &str, database: &Database, api: &Api, seconds: u64) -> anyhow::Result<()> {
    tokio::time::sleep(SETTLE).await;
    let start = Instant::now();
    let busy = threads::cpu_of(database, USER, Duration::from_secs(seconds)).await?;
    let share = 100.0 * busy.as_secs_f64() / start.elapsed().as_secs_f64();
    let signs = api.instant(&format!("mysql_global_status_threads_running[{seconds}s]"), None).await?;
    let times: Vec<i64> = signs.iter().flat_map(|one| &one.samples).map(|sample| sample.timestamp_ms).collect();
    let mut gaps: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    ensure!(!gaps.is_empty(), "no vital signs within {seconds} s");
    gaps.sort_unstable();
    let running = signs[0].samples.last().context("a sample")?.value;
    println!("| {what} | {share:.2} | {} | {} | {running} |", gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
    let books = "sum by (module) (lampad_mysql_interval_seconds), sum by (module) (lampad_mysql_held_reads_total)";
    for query in books.split(", ") {
        for one in api.instant(query, None).await? {
            let value = one.samples.last().map_or(0.0, |sample| sample.value);
            eprintln!("{what}: {query} {} {value}", one.label("module"));
        }
    }
    Ok(())
}

fn cpu_of(processes: [u32; 3]) -> anyhow::Result<[Duration; 3]> {
    let [a, b, c] = processes.map(Cost::of);
    Ok([a?.cpu, b?.cpu, c?.cpu])
}

/// Asks the benchmark query at a steady pace and tells how long the answers took.
async fn ask(
    client: &mut MySqlConnection,
    slice: Duration,
    per_second: u64,
    took: &mut Vec<Duration>,
) -> anyhow::Result<()> {
    let mut pace = tokio::time::interval(Duration::from_micros(1_000_000 / per_second.max(1)));
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let start = Instant::now();
    while start.elapsed() < slice {
        pace.tick().await;
        let asked = Instant::now();
        sqlx::raw_sql(storm::BENCHMARK).execute(&mut *client).await?;
        took.push(asked.elapsed());
    }
    Ok(())
}

/// The median, and the ordered values that it lies between with a probability of at least 95 % (of few values the extremes).
fn median_with_interval(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    let median = (values[(n - 1) / 2] + values[n / 2]) / 2.0;
    // Binomial(n, 1/2): how many ordered values may be left out at either end.
    let (mut left_out, mut tail, mut term) = (0, 0.0, 0.5_f64.powi(n as i32));
    for k in 0..n / 2 {
        tail += term;
        if tail > 0.025 {
            break;
        }
        left_out = k + 1;
        term *= (n - k) as f64 / (k + 1) as f64;
    }
    let at = left_out.saturating_sub(1);
    (values[at], median, values[n - 1 - at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_median_is_that_of_the_tables() {
        let of = |n: i32| median_with_interval((1..=n).rev().map(f64::from).collect());
        // Tables of the sign test: ranks 6 and 15 of 20, 2 and 9 of 10; of five no two values suffice.
        assert_eq!(of(20), (6.0, 10.5, 15.0));
        assert_eq!(of(10), (2.0, 5.5, 9.0));
        assert_eq!(of(5), (1.0, 3.0, 5.0));
        assert_eq!(of(1), (1.0, 1.0, 1.0));
    }
}
