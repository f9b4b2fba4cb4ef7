//! Batteries and mains.
//!
//! Source: `/sys/class/power_supply/*`, see the kernel's ABI/testing/sysfs-class-power.
//! Shape:  `node_power_supply_*{power_supply}`; `node_power_supply_info` with value 1.
//! Units:  volts, amperes, watts and their hours (the files count millionths); celsius (tenths).
//! Errors: `Absent` without a supply; a file that is missing is left out.

use std::path::{Path, PathBuf};

use lampad_proto::v1::MetricType;

use super::reader::Reader;
use super::source::{ModuleResult, absent, attribute, names_in, number};
use crate::module::Desc;
use crate::tick::Tick;

const INFO: Desc = Desc::gauge("node_power_supply_info", "What the supply is, and its state in words.").labels(&[
    "power_supply",
    "capacity_level",
    "charge_type",
    "health",
    "manufacturer",
    "model_name",
    "scope",
    "serial_number",
    "status",
    "technology",
    "type",
    "usb_type",
]);

/// Files whose number is told as it is, under its own name.
const PLAIN: &[&str] =
    &["authentic", "calibrate", "capacity", "capacity_alert_max", "capacity_alert_min", "online", "present"];
/// Files in millionths, told under their own name.
const MILLIONTHS: &[&str] = &[
    "charge_control_limit",
    "charge_control_limit_max",
    "charge_counter",
    "charge_empty",
    "charge_empty_design",
    "charge_full",
    "charge_full_design",
    "charge_term_current",
    "constant_charge_current",
    "constant_charge_current_max",
    "constant_charge_voltage",
    "constant_charge_voltage_max",
    "current_boot",
    "current_max",
    "energy_empty",
    "energy_empty_design",
    "energy_full",
    "energy_full_design",
    "input_current_limit",
    "precharge_current",
    "voltage_boot",
    "voltage_max",
    "voltage_max_design",
    "voltage_min",
    "voltage_min_design",
    "voltage_ocv",
];
/// File, rest of the family's name, units of the file in a base unit.
const RENAMED: &[(&str, &str, f64)] = &[
    ("cycle_count", "cyclecount", 1.0),
    ("time_to_empty_now", "time_to_empty_seconds", 1.0),
    ("time_to_full_now", "time_to_full_seconds", 1.0),
    ("charge_now", "charge_ampere", 1e6),
    ("current_now", "current_ampere", 1e6),
    ("energy_now", "energy_watthour", 1e6),
    ("power_now", "power_watt", 1e6),
    ("voltage_now", "voltage_volt", 1e6),
    ("temp", "temp_celsius", 10.0),
    ("temp_alert_max", "temp_alert_max_celsius", 10.0),
    ("temp_alert_min", "temp_alert_min_celsius", 10.0),
    ("temp_ambient", "temp_ambient_celsius", 10.0),
    ("temp_ambient_max", "temp_ambient_max_celsius", 10.0),
    ("temp_ambient_min", "temp_ambient_min_celsius", 10.0),
    ("temp_max", "temp_max_celsius", 10.0),
    ("temp_min", "temp_min_celsius", 10.0),
];

pub struct PowerSupply {
    dir: PathBuf,
    rows: Vec<(&'static str, f64, Desc)>,
}

impl PowerSupply {
    pub fn new(sysfs: &Path) -> Self {
        let plain = PLAIN.iter().map(|file| (*file, *file, 1.0));
        let millionths = MILLIONTHS.iter().map(|file| (*file, *file, 1e6));
        let rows = plain.chain(millionths).chain(RENAMED.iter().copied());
        let rows = rows.map(|(file, name, units)| {
            let help = format!("Power supply: {}.", name.replace('_', " "));
            let desc = Desc::named(MetricType::Gauge, format!("node_power_supply_{name}"), help);
            (file, units, desc.labels(&["power_supply"]))
        });
        Self { dir: sysfs.join("class/power_supply"), rows: rows.collect() }
    }
}

impl Reader for PowerSupply {
    fn descs(&self) -> Vec<Desc> {
        self.rows.iter().map(|(.., desc)| desc.clone()).chain([INFO]).collect()
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let supplies = names_in(&self.dir)?;
        if supplies.is_empty() {
            return Err(absent(&self.dir.join("*")));
        }
        for name in supplies {
            let dir = self.dir.join(&name);
            for (file, units, desc) in &self.rows {
                if let Some(value) = number(dir.join(file)) {
                    out.push(desc, &[&name], value / units);
                }
            }
            let words: Vec<String> =
                INFO.labels[1..].iter().map(|file| attribute(dir.join(file)).unwrap_or_default()).collect();
            let labels: Vec<&str> = [name.as_str()].into_iter().chain(words.iter().map(String::as_str)).collect();
            out.push(&INFO, &labels, 1.0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn batteries_are_told_in_base_units() {
        let tree = Tree::new(&[
            ("class/power_supply/BAT0/voltage_now", "11660000\n"),
            ("class/power_supply/BAT0/temp", "215\n"),
            ("class/power_supply/BAT0/capacity", "81\n"),
            ("class/power_supply/BAT0/type", "Battery\n"),
        ]);
        let got = dump(&mut PowerSupply::new(tree.path()));
        assert_eq!(got[0], r#"node_power_supply_capacity{power_supply="BAT0"} 81"#);
        assert!(got[1].contains(r#"type="Battery""#), "{got:?}");
        assert_eq!(got[2], r#"node_power_supply_temp_celsius{power_supply="BAT0"} 21.5"#);
        assert_eq!(got[3], r#"node_power_supply_voltage_volt{power_supply="BAT0"} 11.66"#);
    }
}
