//! A number that no double holds, from a real MariaDB to `/metrics`, over a crash of the collector and its stop.

use anyhow::{Context, ensure};
use lampad_tests::mariadb::Server;
use lampad_tests::{Agent, Collector, PATIENCE, until_ok};

/// Set and told as the server prints it. Beyond 2^53, and no double; the second one is beyond 2^63 too.
const NUMBERS: [&str; 2] = ["123456789012345679", "18446744073709551613"];

const FAMILY: &str = "mysql_global_variables_max_join_size";

/// Whether `/metrics` says just this of the agent's series.
async fn told(collector: &Collector, number: &str) -> anyhow::Result<()> {
    let (_, page) = collector.api().get("/metrics", &[]).await?;
    let line = page.lines().find(|line| line.starts_with(&format!("{FAMILY}{{")));
    let line = line.with_context(|| format!("/metrics has no {FAMILY}"))?;
    ensure!(line.ends_with(&format!(" {number}")), "{line}, not {number}");
    Ok(())
}

#[tokio::test]
async fn a_variable_of_18_digits_is_told_to_the_last_one() -> anyhow::Result<()> {
    let server = Server::mariadb(&[]).await?;
    let mut collector = Collector::start().await?;
    let mut agent = Agent::start(&collector.grpc_url(), "db1", &["--mysql", &server.dsn()])?;
    for number in NUMBERS {
        server.execute(&format!("SET GLOBAL max_join_size = {number}")).await?;
        until_ok(number, PATIENCE, || told(&collector, number)).await?;
        // The nearest double, as everywhere in Prometheus.
        assert_eq!(collector.api().value(FAMILY).await?, number.parse::<f64>()?);
        collector.process.kill()?;
        collector.restart().await?;
        until_ok("after kill -9", PATIENCE, || told(&collector, number)).await?;
        collector.process.terminate(PATIENCE).await?;
        collector.restart().await?;
        until_ok("after SIGTERM", PATIENCE, || told(&collector, number)).await?;
    }
    agent.process.terminate(PATIENCE).await
}
