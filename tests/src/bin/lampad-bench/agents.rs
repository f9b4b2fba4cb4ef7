//! What watching one server costs at one sample a second and better: our agent beside node_exporter and mysqld_exporter.
//!
//! All of them run at once on the same host and database. Bytes are counted by a proxy in front of each: payload of TCP, both
//! ways, requests and acks included.

use std::time::{Duration, Instant};

use anyhow::ensure;
use lampad_tests::mariadb::Server as Database;
use lampad_tests::servers::Server;
use lampad_tests::{Agent, Collector, Cost, PATIENCE, Proxy, until_ok};

#[derive(clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

struct Measured {
    name: &'static str,
    pid: u32,
    proxy: Proxy,
    series: f64,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let database = Database::mariadb(&[]).await?;
    let user = "create user bench@localhost identified by 'bench'; grant process, binlog monitor, slave monitor on *.* to bench@localhost";
    database.execute(user).await?;
    let collector = Collector::start().await?;
    let link = Proxy::to(collector.grpc()).await?;
    let dsn = format!("mysql://bench:bench@localhost/?socket={}", database.socket().display());
    let agent = Agent::start(&link.url(), "db1", &["--mysql", &dsn])?;

    let node = Server::node_exporter(&[]).await?;
    let mysqld = Server::mysqld_exporter(&format!("bench:bench@unix({})/", database.socket().display())).await?;
    let (node_link, mysqld_link) = (Proxy::to(node.address).await?, Proxy::to(mysqld.address).await?);
    let targets = [("node", node_link.address()), ("mysql", mysqld_link.address())];
    let prometheus = Server::prometheus(&targets, Duration::from_secs(1), "").await?;
    let (ours, theirs) = (collector.api(), prometheus.api());
    until_ok("our agent", PATIENCE, || ours.value("mysql_up")).await?;
    until_ok("the exporters", PATIENCE, || theirs.value("mysql_up")).await?;
    tokio::time::sleep(Duration::from_secs(5)).await; // dictionaries and first key frames are no steady state

    let count = |job: &str| format!("count({{__name__=~\".+\",job=\"{job}\",__name__!~\"scrape_.*|up\"}})");
    let own_series = ours.value("count({__name__=~\".+\",instance=\"db1\"})").await?;
    let (node_series, mysql_series) = (theirs.value(&count("node")).await?, theirs.value(&count("mysql")).await?);
    let all = [
        Measured { name: "lampad-agent, defaults", pid: agent.process.id(), proxy: link, series: own_series },
        Measured { name: "node_exporter, 1 s", pid: node.process.id(), proxy: node_link, series: node_series },
        Measured { name: "mysqld_exporter, 1 s", pid: mysqld.process.id(), proxy: mysqld_link, series: mysql_series },
    ];
    let before: Vec<_> = all.iter().map(look).collect::<Result<_, _>>()?;
    let start = Instant::now();
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    let seconds = start.elapsed().as_secs_f64();
    let after: Vec<_> = all.iter().map(look).collect::<Result<_, _>>()?;
    ensure!(ours.value("mysql_up").await? == 1.0 && theirs.value("mysql_up").await? == 1.0, "a database was lost");

    println!("| over {seconds:.0} s | % of a core | resident MiB | series | bytes/s to the collector | bytes/s back |");
    println!("|---|---|---|---|---|---|");
    let mut peers = [0.0; 5];
    for (one, (before, after)) in all.iter().zip(before.iter().zip(&after)) {
        // An exporter's answers flow from the proxied server to Prometheus, an agent's frames the other way.
        let ((up0, down0), (up1, down1)) = (before.1, after.1);
        let (up, down) = ((up1 - up0) as f64 / seconds, (down1 - down0) as f64 / seconds);
        let (towards, back) = if one.pid == all[0].pid { (up, down) } else { (down, up) };
        let cpu = (after.0.cpu - before.0.cpu).as_secs_f64() / seconds * 100.0;
        let row = [cpu, after.0.resident_bytes as f64 / 1048576.0, one.series, towards, back];
        if one.pid != all[0].pid {
            peers.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        print_row(one.name, row);
    }
    print_row("both exporters together", peers);
    Ok(())
}

fn look(one: &Measured) -> anyhow::Result<(Cost, (u64, u64))> {
    Ok((Cost::of(one.pid)?, one.proxy.bytes()))
}

fn print_row(name: &str, [cpu, resident, series, towards, back]: [f64; 5]) {
    println!("| {name} | {cpu:.2} | {resident:.1} | {series:.0} | {towards:.0} | {back:.0} |");
}
