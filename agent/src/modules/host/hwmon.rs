//! Temperatures, voltages, fans and other sensors.
//!
//! Source: `/sys/class/hwmon/*`, see the kernel's hwmon/sysfs-interface. A sensor is asked when its file is read, over a
//!         bus that may be slow: hence the heavy tier, beside the runtime.
//! Shape:  `node_hwmon_<kind>_<element>{chip,sensor}`, from files `<kind><number>_<element>`; labels and names as info series.
//! Units:  volts, celsius, amperes, watts, joules, rpm, hertz (told in MHz), humidity as a ratio.
//! Errors: `Absent` without any chip; a sensor that does not answer is left out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lampad_proto::v1::MetricType;

use super::reader::Reader;
use super::settings::DeviceFilter;
use super::source::{attribute, link_name, names_in, parse_decimal};
use crate::module::{Desc, ModuleError};
use crate::tick::Tick;

const CHIP: Desc =
    Desc::gauge("node_hwmon_chip_names", "Name that the driver gives the chip.").labels(&["chip", "chip_name"]);
const LABEL: Desc = Desc::gauge("node_hwmon_sensor_label", "Name that the driver gives the sensor.")
    .labels(&["chip", "sensor", "label"]);
const BEEP: Desc = Desc::gauge("node_hwmon_beep_enabled", "1 if the chip beeps on an alarm.").labels(&["chip"]);

const KINDS: [&str; 13] = [
    "vrm",
    "beep_enable",
    "update_interval",
    "in",
    "cpu",
    "fan",
    "pwm",
    "temp",
    "curr",
    "power",
    "energy",
    "humidity",
    "intrusion",
];
const FREQUENCY: &str = "freq";

pub struct HwMon {
    class: PathBuf,
    filter: DeviceFilter,
    descs: BTreeMap<String, Desc>,
}

impl HwMon {
    pub fn new(sysfs: &Path, filter: DeviceFilter) -> Self {
        Self { class: sysfs.join("class/hwmon"), filter, descs: BTreeMap::new() }
    }

    fn push_chip(&mut self, dir: &Path, chip: &str, out: &mut Tick) {
        if let Some(human) = driver_name(dir) {
            out.push(&CHIP, &[chip, &human], 1.0);
        }
        // Old drivers keep their sensors beside the device, new ones below the chip; those of the chip count.
        let mut sensors: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for dir in [dir.to_owned(), dir.join("device")] {
            for name in names_in(&dir).unwrap_or_default() {
                let Some((sensor, element)) = split(&name) else { continue };
                if let Some(value) = attribute(dir.join(&name)) {
                    sensors.entry(sensor).or_default().entry(element).or_insert(value);
                }
            }
        }
        for (sensor, elements) in &sensors {
            self.push_sensor(chip, sensor, elements, out);
        }
    }

    fn push_sensor(&mut self, chip: &str, sensor: &str, elements: &BTreeMap<String, String>, out: &mut Tick) {
        let kind = sensor.trim_end_matches(|c: char| c.is_ascii_digit());
        if let Some(label) = elements.get("label").filter(|label| !label.is_empty()) {
            out.push(&LABEL, &[chip, sensor, label], 1.0);
        }
        if kind == "beep_enable" {
            let on = elements.get("").is_some_and(|value| value == "1");
            out.push(&BEEP, &[chip], if on { 1.0 } else { 0.0 });
            return;
        }
        for (element, text) in elements {
            let Some(raw) = parse_decimal(text) else { continue };
            // The mean over time of a power sensor stands for the value where the chip gives no other.
            let mean = kind == "power" && element == "average" && !elements.contains_key("input");
            let element = if mean { "input" } else { element.as_str() };
            let (name, factor) = name_and_factor(kind, element);
            if !self.descs.contains_key(&name) {
                self.descs.insert(name.clone(), family(&name));
            }
            // A frequency goes by its label, which says what is clocked.
            let label = elements.get("label").filter(|_| kind == FREQUENCY);
            out.push(&self.descs[&name], &[chip, label.map_or(sensor, String::as_str)], raw * factor);
        }
    }
}

impl Reader for HwMon {
    fn descs(&self) -> Vec<Desc> {
        let usual = ["temp_celsius", "temp_max_celsius", "temp_crit_celsius", "in_volts", "fan_rpm", "power_watt"];
        [CHIP, LABEL, BEEP].into_iter().chain(usual.map(|name| family(&format!("node_hwmon_{name}")))).collect()
    }

    fn read(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let chips = names_in(&self.class)?;
        if chips.is_empty() {
            return Err(ModuleError::Absent { what: "a sensor chip".into() });
        }
        let dirs: Vec<PathBuf> = chips.iter().map(|name| self.class.join(name)).collect();
        let names: Vec<String> = dirs.iter().map(|dir| chip_name(dir)).collect();
        for (dir, name) in dirs.iter().zip(&names) {
            // Chips of one device are told apart by what the driver calls them.
            let shared = names.iter().filter(|other| *other == name).count() > 1;
            let chip = match driver_name(dir) {
                Some(driver) if shared => format!("{name}_{driver}"),
                _ => name.clone(),
            };
            if self.filter.takes(&chip) {
                self.push_chip(dir, &chip, out);
            }
        }
        Ok(())
    }
}

/// Family and factor to base units of a sensor's element.
fn name_and_factor(kind: &str, element: &str) -> (String, f64) {
    let suffixed = |suffix: &str, factor: f64| {
        let part = if element == "input" || element.is_empty() { String::new() } else { format!("_{element}") };
        (format!("node_hwmon_{kind}{part}{suffix}"), factor)
    };
    match (kind, element) {
        (_, "fault" | "alarm") => suffixed("", 1.0),
        (_, "beep") => suffixed("_enabled", 1.0),
        ("in" | "cpu", _) => suffixed("_volts", 1e-3),
        // As node_exporter: everything of a temperature sensor is divided, and told as degrees.
        ("temp", "type") => suffixed("", 1.0),
        ("temp", _) => suffixed("_celsius", 1e-3),
        ("curr", _) => suffixed("_amps", 1e-3),
        ("energy", _) => suffixed("_joule_total", 1e-6),
        ("power", "accuracy") => suffixed("", 1e-6),
        ("power", "average_interval" | "average_interval_max" | "average_interval_min") => suffixed("_seconds", 1e-3),
        ("power", _) => suffixed("_watt", 1e-6),
        ("humidity", _) => suffixed("", 1e-6),
        ("fan", "input" | "min" | "max" | "target") => suffixed("_rpm", 1.0),
        (FREQUENCY, "input") => ("node_hwmon_freq_freq_mhz".into(), 1e-6),
        _ => suffixed("", 1.0),
    }
}

fn family(name: &str) -> Desc {
    let kind = if name.ends_with("_total") { MetricType::Counter } else { MetricType::Gauge };
    let help = format!("Hardware monitor: {}.", name.trim_start_matches("node_hwmon_").replace('_', " "));
    Desc::named(kind, name.to_owned(), help).labels(&["chip", "sensor"])
}

/// `temp1_crit_alarm` is sensor `temp1`, element `crit_alarm`.
fn split(name: &str) -> Option<(String, String)> {
    let kind = KINDS.iter().chain([&FREQUENCY]).find(|kind| {
        let rest = name.strip_prefix(**kind);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(|c: char| c.is_ascii_digit() || c == '_'))
    })?;
    let rest = &name[kind.len()..];
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, rest) = rest.split_at(digits);
    let element = match rest.strip_prefix('_') {
        Some(element) => element,
        None if rest.is_empty() => "",
        None => return None,
    };
    // Without a number and element it would be a file of another kind, such as `power`, a directory.
    (!number.is_empty() || *kind == "beep_enable").then(|| (format!("{kind}{number}"), element.to_owned()))
}

/// Label `chip`, made of bus and device so that it stays over restarts; of the driver's name where there is no device.
fn chip_name(dir: &Path) -> String {
    let of_device = dir.join("device").canonicalize().ok().and_then(|device| {
        let name = clean(&device.file_name()?.to_string_lossy());
        // Without a subsystem link the directory above tells as much.
        let bus = link_name(device.join("subsystem"))
            .or_else(|| Some(device.parent()?.file_name()?.to_string_lossy().into_owned()))?;
        let bus = clean(&bus);
        Some(if bus.is_empty() { name } else { format!("{bus}_{name}") })
    });
    let of_place = || clean(&dir.file_name().unwrap_or_default().to_string_lossy());
    of_device.or_else(|| driver_name(dir)).unwrap_or_else(of_place)
}

fn driver_name(dir: &Path) -> Option<String> {
    attribute(dir.join("name")).map(|name| clean(&name)).filter(|name| !name.is_empty())
}

/// Letters and digits; all else is one underscore.
fn clean(name: &str) -> String {
    let words: Vec<String> = name
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    words.join("_")
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn names_split_into_sensor_and_element() {
        for (name, split_as) in [
            ("temp1_crit_alarm", Some(("temp1", "crit_alarm"))),
            ("in0_input", Some(("in0", "input"))),
            ("intrusion0_alarm", Some(("intrusion0", "alarm"))),
            ("pwm1", Some(("pwm1", ""))),
            ("power", None),
            ("name", None),
            ("temp1x", None),
        ] {
            let expected = split_as.map(|(sensor, element)| (sensor.to_owned(), element.to_owned()));
            assert_eq!(split(name), expected, "{name}");
        }
    }

    #[test]
    fn sensors_are_told_in_base_units() {
        let tree = Tree::new(&[
            ("class/hwmon/hwmon0/name", "Nct-6779 \n"),
            ("class/hwmon/hwmon0/temp1_input", "55500\n"),
            ("class/hwmon/hwmon0/temp1_label", "Core 0\n"),
            ("class/hwmon/hwmon0/fan2_input", "1200\n"),
            ("class/hwmon/hwmon0/fan2_alarm", "0\n"),
            ("class/hwmon/hwmon0/in1_input", "792\n"),
            ("class/hwmon/hwmon0/power1_average", "2500000\n"),
            ("class/hwmon/hwmon0/temp9_input", "not there\n"),
        ]);
        assert_eq!(
            dump(&mut HwMon::new(tree.path(), DeviceFilter::default())),
            [
                r#"node_hwmon_chip_names{chip="nct_6779",chip_name="nct_6779"} 1"#,
                r#"node_hwmon_fan_alarm{chip="nct_6779",sensor="fan2"} 0"#,
                r#"node_hwmon_fan_rpm{chip="nct_6779",sensor="fan2"} 1200"#,
                r#"node_hwmon_in_volts{chip="nct_6779",sensor="in1"} 0.792"#,
                r#"node_hwmon_power_watt{chip="nct_6779",sensor="power1"} 2.5"#,
                r#"node_hwmon_sensor_label{chip="nct_6779",sensor="temp1",label="Core 0"} 1"#,
                r#"node_hwmon_temp_celsius{chip="nct_6779",sensor="temp1"} 55.5"#,
            ]
        );
    }

    #[test]
    fn a_chip_is_named_after_bus_and_device() {
        let tree = Tree::new(&[("devices/platform/coretemp.0/hwmon/hwmon0/name", "coretemp\n")]);
        tree.link("devices/platform/coretemp.0/subsystem", "../../../bus/platform");
        tree.link("devices/platform/coretemp.0/hwmon/hwmon0/device", "../../../coretemp.0");
        tree.link("class/hwmon/hwmon0", "../../devices/platform/coretemp.0/hwmon/hwmon0");
        tree.write("devices/platform/coretemp.0/hwmon/hwmon0/temp1_input", "1000");
        let got = dump(&mut HwMon::new(tree.path(), DeviceFilter::default()));
        assert_eq!(got[0], r#"node_hwmon_chip_names{chip="platform_coretemp_0",chip_name="coretemp"} 1"#);
    }
}
