//! Flags and configuration as the API tells them: no secrets, and of a reload what it has changed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::api::{Settings, Told};
use crate::config::Config;

/// At the start.
pub fn first(config: &Config) -> Settings {
    let flags = flags(config);
    Settings::new(Told {
        retention: flags.get("retention").map_or("", String::as_str).into(),
        config: text(config, &[]).into(),
        flags: Arc::new(flags),
        read: jiff::Timestamp::now(),
        reload_failed: false,
    })
}

/// The configuration as a file would have it; `waiting` names the settings that come into force with the next start.
pub fn text(config: &Config, waiting: &[&str]) -> String {
    let mut text = String::new();
    for (name, value) in flags(config) {
        let _ = writeln!(text, "{} = {value:?}", name.replace('-', "_"));
    }
    if !waiting.is_empty() {
        let _ = writeln!(text, "# with the next start: {}", waiting.join(", "));
    }
    text
}

fn flags(config: &Config) -> BTreeMap<String, String> {
    let retention = config.retention.map_or("0".to_owned(), crate::config::written);
    let names: Vec<&str> = config.features.iter().map(String::as_str).collect();
    [
        ("data-dir", config.data_dir.display().to_string()),
        ("http-listen", config.http_listen.to_string()),
        ("grpc-listen", config.grpc_listen.to_string()),
        ("retention", retention),
        ("retention-10s", config.tiers[0].to_string()),
        ("retention-5m", config.tiers[1].to_string()),
        ("enable-feature", names.join(",")),
        ("enable-admin-api", config.enable_admin_api.to_string()),
        ("log-level", config.log_level.clone()),
        ("insecure", config.insecure.to_string()),
    ]
    .into_iter()
    .chain(config.limits.list().into_iter().map(|(name, most)| (name, most.to_string())))
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}
