//! Benchmarks that print the figures of the README, each beside the peers in the same run.
#![allow(clippy::print_stdout)]

mod agents;
mod burden;
mod codecs;
mod crash;
mod fleet;
mod freshness;
mod ingest;
mod quantiles;
mod queries;
mod reads;
mod record;
mod replay;
mod stuck;
mod week;

use clap::{Parser, Subcommand};

/// As the collector has it: some benches have the store in this process.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// From a change in MariaDB to an answer that shows it; beside Prometheus and mysqld_exporter at 1 s
    Freshness(freshness::Args),
    /// CPU, memory and bytes on the wire of the agent; beside both exporters scraped at 1 s
    Agents(agents::Args),
    /// What watching costs a database with many tables and sessions that is in trouble
    Burden(burden::Args),
    /// CPU, memory and disk that taking samples in costs; beside Prometheus and VictoriaMetrics
    Ingest(ingest::Args),
    /// Kills, starts and harms a collector under load, and judges every sample
    Crash(crash::Args),
    /// Time until ready after kill -9
    Replay(replay::Args),
    /// CPU, memory, wire and disk of many agents, by the share of their series that change
    Fleet(fleet::Args),
    /// Bytes and time per sample of codecs, on recordings and on the synthetic set
    Codecs(codecs::Args),
    /// Time, CPU and memory per query, and ingest under a storm of queries; beside Prometheus and VictoriaMetrics
    Queries(queries::Args),
    /// What a query of one metric over many hosts and a day reads of the blocks, beside what the metric takes there
    Reads(reads::Args),
    /// Recordings of a host and its MariaDB, for `codecs`
    Record(record::Args),
    /// Ack times of many agents with and without stuck ones among them
    Stuck(stuck::Args),
    /// Memory and disk of a store over a week of simulated time
    Week(week::Args),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Args::parse().what {
        What::Freshness(args) => freshness::run(args).await,
        What::Agents(args) => agents::run(args).await,
        What::Burden(args) => burden::run(args).await,
        What::Ingest(args) => ingest::run(args).await,
        What::Crash(args) => crash::run(args).await,
        What::Replay(args) => replay::run(args).await,
        What::Fleet(args) => fleet::run(args).await,
        What::Codecs(args) => codecs::run(args).await,
        What::Queries(args) => queries::run(args).await,
        What::Reads(args) => reads::run(args).await,
        What::Record(args) => record::run(args).await,
        What::Stuck(args) => stuck::run(args).await,
        What::Week(args) => week::run(args).await,
    }
}
