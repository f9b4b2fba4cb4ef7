//! What the module `ethtool` tells of this machine's devices is what node_exporter tells of them.

use std::collections::BTreeSet;

use anyhow::ensure;
use lampad_tests::servers::Server;
use lampad_tests::{Agent, Collector, PATIENCE, needs, until_ok};

/// Families of that collector, by their beginnings.
const FAMILIES: &[&str] = &[
    "node_ethtool_",
    "node_network_supported_",
    "node_network_advertised_",
    "node_network_autonegotiate",
    "node_network_pause_",
    "node_network_asymmetricpause_",
];

/// Family and device of all that is on a page.
fn told(page: &str) -> BTreeSet<(&str, &str)> {
    let ours = page.lines().filter(|line| FAMILIES.iter().any(|family| line.starts_with(family)));
    ours.filter_map(|line| {
        let (family, labels) = line.split_once('{')?;
        let (_, device) = labels.split_once("device=\"")?;
        Some((family, device.split('"').next()?))
    })
    .collect()
}

#[tokio::test]
async fn every_series_of_the_exporter_is_ours() -> anyhow::Result<()> {
    if !needs::program("ethtool") || !needs::program("prometheus-node-exporter") {
        return Ok(());
    }
    let exporter = Server::node_exporter(&["--collector.ethtool"]).await?;
    let (_, theirs) = exporter.api().get("/metrics", &[]).await?;
    ensure!(theirs.contains("collector=\"ethtool\""), "the exporter does not run this collector");
    let collector = Collector::start().await?;
    let config = collector.directory().join("agent.toml");
    std::fs::write(&config, "[host]\nenabled = ['ethtool']\n")?;
    let _agent = Agent::start(&collector.grpc_url(), "db1", &["--config", &config.display().to_string()])?;
    let (api, up) = (collector.api(), "lampad_module_up{module=\"host.ethtool\"} == 1");
    until_ok(up, PATIENCE, || api.value(up)).await?;
    let (_, ours) = api.get("/metrics", &[]).await?;
    assert_eq!(told(&ours), told(&theirs));
    Ok(())
}
