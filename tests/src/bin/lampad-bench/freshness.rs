//! Freshness: from 50 connections opened (then closed) in a real MariaDB until the query API shows it.
//!
//! The clock starts when the last of them is open (closed) and stops when an answer shows the new count. The moments are
//! spread at random over a second, so that no server's rhythm is met. Lampad and its peer are asked for the same changes,
//! in the same run, by one task each.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use lampad_tests::mariadb::Server as Database;
use lampad_tests::servers::{Server, installed};
use lampad_tests::{Agent, Api, Collector, PATIENCE, until_ok};
use rand::Rng;
use sqlx::mysql::MySqlConnection;
use sqlx::{ConnectOptions, Connection};

use crate::quantiles::Quantiles;

const QUERY: &str = "mysql_global_status_threads_connected";

/// Between two questions. Both peers are asked as often, and neither so often that asking is what costs.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// After this an answer is taken for one that does not come.
const NEVER: Duration = Duration::from_secs(20);

#[derive(clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 200)]
    trials: usize,
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// Statements per second that another connection runs meanwhile
    #[arg(long, default_value_t = 200)]
    load: u64,
    /// Leave the peer out
    #[arg(long)]
    alone: bool,
}

struct Peer {
    name: &'static str,
    api: Api,
    took: Vec<Duration>,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let database = Database::mariadb(&["--max-connections=500"]).await?;
    let user = "create user bench@localhost identified by 'bench'; grant process, binlog monitor, slave monitor on *.* to bench@localhost";
    database.execute(user).await?;
    let collector = Collector::start().await?;
    let dsn = format!("mysql://bench:bench@localhost/?socket={}", database.socket().display());
    let _agent = Agent::start(&collector.grpc_url(), "db1", &["--mysql", &dsn])?;
    let mut peers = vec![Peer { name: "Lampad, defaults", api: collector.api(), took: vec![] }];

    let mut others = Vec::new();
    if !args.alone && installed("prometheus").is_some() && installed("prometheus-mysqld-exporter").is_some() {
        let exporter = Server::mysqld_exporter(&format!("bench:bench@unix({})/", database.socket().display())).await?;
        let targets = [("mysql", exporter.address)];
        let prometheus = Server::prometheus(&targets, Duration::from_secs(1), "").await?;
        peers.push(Peer { name: "Prometheus + mysqld_exporter, 1 s", api: prometheus.api(), took: vec![] });
        others.extend([exporter, prometheus]);
    }
    for peer in &peers {
        until_ok(peer.name, PATIENCE, || peer.api.value(QUERY)).await?;
    }

    let load = tokio::spawn(keep_busy(database.connect().await?, args.load));
    let mut open: Vec<MySqlConnection> = Vec::new();
    for _ in 0..args.trials {
        let pause = rand::rng().random_range(1200..2200);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let before = peers[0].api.value(QUERY).await?;
        let half = args.connections as f64 / 2.0;
        let rising = open.is_empty();
        if rising {
            for _ in 0..args.connections {
                open.push(database.root().connect().await?);
            }
        } else {
            for connection in open.drain(..) {
                connection.close().await?;
            }
        }
        let start = Instant::now();
        let seen = move |value: f64| if rising { value > before + half } else { value < before - half };
        let waits = peers.iter().map(|peer| wait(&peer.api, start, seen));
        let took = futures::future::try_join_all(waits).await?;
        for (peer, took) in peers.iter_mut().zip(took) {
            peer.took.push(took);
        }
    }
    load.abort();
    println!(
        "| {} connections opened or closed, until a query shows it | trials | p50 ms | p99 ms | max ms |",
        args.connections
    );
    println!("|---|---|---|---|---|");
    for peer in peers {
        let q = Quantiles::of(peer.took);
        println!("| {} | {} | {:.0} | {:.0} | {:.0} |", peer.name, q.count(), q.ms(0.5), q.ms(0.99), q.ms(1.0));
    }
    drop(others);
    Ok(())
}

async fn wait(api: &Api, start: Instant, seen: impl Fn(f64) -> bool) -> anyhow::Result<Duration> {
    loop {
        let value = api.value(QUERY).await?;
        let took = start.elapsed();
        if seen(value) {
            return Ok(took);
        }
        if took > NEVER {
            bail!("{} still shows {value} after {NEVER:?}", api.base());
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// A server under load, not an idle one.
async fn keep_busy(mut connection: MySqlConnection, per_second: u64) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / per_second.max(1)));
    loop {
        ticks.tick().await;
        sqlx::raw_sql("select count(*) from information_schema.processlist")
            .execute(&mut connection)
            .await
            .context("load on the database")?;
    }
}
