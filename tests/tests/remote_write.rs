//! A real Prometheus that writes what it scrapes to a collector.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use lampad_tests::{Api, Collector, Program, free_port, needs, servers, until_ok};
use tempfile::TempDir;

const WITHIN: Duration = Duration::from_secs(60);

/// Samples, labels, types and the end of a target arrive as they are in Prometheus itself.
#[tokio::test]
async fn prometheus_writes_what_it_scrapes() -> anyhow::Result<()> {
    if !needs::program("prometheus") {
        return Ok(());
    }
    let collector = Collector::start().await?;
    let directory = TempDir::with_prefix("lampad-remote-write-")?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let gone = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let config = directory.path().join("prometheus.yml");
    std::fs::write(
        &config,
        format!(
            "global: {{scrape_interval: 250ms, scrape_timeout: 250ms}}\n\
             scrape_configs:\n\
             - job_name: self\n  static_configs: [{{targets: ['{address}', '{gone}']}}]\n\
             remote_write:\n- url: http://{}/api/v1/write\n  metadata_config: {{send_interval: 1s}}\n  \
             queue_config: {{batch_send_deadline: 200ms}}\n",
            collector.http()
        ),
    )?;
    let mut process =
        Program::at(servers::installed("prometheus").unwrap_or_default(), directory.path().join("prometheus.log"))
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .start()?;
    let api = collector.api();
    let count = |job: &str| format!("count({{job=\"{job}\", instance=\"{address}\"}})");
    until_ok("the series of Prometheus", WITHIN, || async {
        let found = api.value(&count("self")).await?;
        anyhow::ensure!(found > 300.0, "{found} series");
        Ok(())
    })
    .await?;
    // What does not answer is down there, so it is here.
    until_ok("the target that is gone", WITHIN, || async {
        let up = api.value(&format!("up{{instance=\"{gone}\"}}")).await?;
        anyhow::ensure!(up == 0.0, "up is {up}");
        Ok(())
    })
    .await?;
    until_ok("metadata", WITHIN, || async {
        let metadata = api.data("/api/v1/metadata", &[("metric", "prometheus_tsdb_head_series")]).await?;
        let kind = &metadata["prometheus_tsdb_head_series"][0]["type"];
        anyhow::ensure!(kind == "gauge", "{metadata}");
        Ok(())
    })
    .await?;
    let own = Api::new(format!("http://{address}"));
    let failed = "prometheus_remote_storage_samples_failed_total + prometheus_remote_storage_samples_dropped_total";
    assert_eq!(own.value(failed).await?, 0.0, "what was sent was taken");
    // The same samples with the same times, bit by bit, where both have them.
    let query = format!("scrape_samples_scraped{{instance=\"{address}\"}}[5s]");
    let there = own.instant(&query, None).await?;
    until_ok("the same samples", WITHIN, || async {
        let here = api.instant(&query.replace("[5s]", "[1m]"), None).await?;
        let missing = there[0].samples.iter().filter(|sample| !here[0].samples.contains(sample)).count();
        anyhow::ensure!(missing == 0 && !there[0].samples.is_empty(), "{missing} are missing");
        Ok(())
    })
    .await?;
    process.terminate(WITHIN).await
}
