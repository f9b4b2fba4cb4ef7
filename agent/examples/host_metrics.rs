//! Prints what the host modules see as text exposition, and on stderr what each sample cost.
//!
//! `cargo run -p lampad-agent --example host_metrics [ROUNDS [SETTINGS.toml]]`

#![allow(clippy::print_stdout, reason = "a tool that prints")]

use std::fmt::Write;
use std::time::Instant;

use lampad_agent::module::ModuleError;
use lampad_agent::modules::host::{HostSettings, modules};
use lampad_agent::tick::Tick;
use lampad_proto::v1::MetricType;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let rounds: u32 = args.next().map_or(Ok(1), |rounds| rounds.parse())?;
    let settings: HostSettings = match args.next() {
        Some(path) => toml::from_str(&std::fs::read_to_string(path)?)?,
        None => HostSettings::default(),
    };
    for mut entry in modules(&settings) {
        let mut tick = Tick::new();
        let mut result = entry.module.sample(&mut tick).await;
        let start = Instant::now();
        for _ in 1..rounds {
            tick.finish();
            result = entry.module.sample(&mut tick).await;
        }
        let micros = start.elapsed().as_secs_f64() * 1e6 / f64::from(rounds.max(2) - 1);
        let name = entry.spec.name;
        match result {
            Ok(()) => {
                eprintln!("{name:24} {:>8?} {micros:9.1} us {:5} series", entry.spec.tier, tick.samples().count())
            }
            Err(error @ ModuleError::Absent { .. }) => eprintln!("{name:24} {error}"),
            Err(error) => eprintln!("{name:24} FAILED: {error}"),
        }
        print!("{}", exposition(&tick));
    }
    Ok(())
}

fn exposition(tick: &Tick) -> String {
    let mut families: Vec<&str> = Vec::new();
    let mut text = String::new();
    for (name, ..) in tick.samples() {
        if !families.contains(&name) {
            families.push(name);
        }
    }
    for family in families {
        if let Some(series) = tick.series().find(|series| series.desc.name == family) {
            let kind = match series.desc.kind {
                MetricType::Counter => "counter",
                MetricType::Gauge => "gauge",
                _ => "untyped",
            };
            let _ = writeln!(text, "# HELP {family} {}\n# TYPE {family} {kind}", series.desc.help);
        }
        for (_, labels, value) in tick.samples().filter(|(name, ..)| *name == family) {
            let escape = |value: &str| value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            let labels: Vec<String> =
                labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escape(value))).collect();
            let _ = writeln!(text, "{family}{{{}}} {value}", labels.join(","));
        }
    }
    text
}
