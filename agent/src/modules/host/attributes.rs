//! Sources that are a directory of devices with a file per number: one table each instead of one program each.
//!
//! Source: classes below `/sys`: heat zones and cooling, CPU frequency, energy meters, watchdogs, memory errors.
//! Shape:  by device; labels that describe the device are read from its files.
//! Units:  base units; the factor stands in the table.
//! Errors: `Absent` without a device; a file that is missing or holds no number is left out.

use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::source::{ModuleResult, absent, attribute, names_in, number};
use crate::module::Desc;
use crate::tick::Tick;

/// Reads all devices of a class.
type Push = fn(&Path, &str, &mut Tick);

/// Devices of one directory whose names begin with `prefix`.
pub struct Attributes {
    dir: PathBuf,
    prefix: &'static str,
    descs: &'static [&'static [Desc]],
    push: Push,
}

impl Reader for Attributes {
    fn descs(&self) -> Vec<Desc> {
        self.descs.concat()
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let mut found = false;
        for name in names_in(&self.dir)? {
            if let Some(rest) = name.strip_prefix(self.prefix) {
                (self.push)(&self.dir.join(&name), rest, out);
                found = true;
            }
        }
        if found { Ok(()) } else { Err(absent(&self.dir.join(format!("{}*", self.prefix)))) }
    }
}

const THERMAL: &[Desc] =
    &[Desc::gauge("node_thermal_zone_temp", "Temperature of the zone in degrees Celsius.").labels(&["zone", "type"])];
const COOLING: &[Desc] = &[
    Desc::gauge("node_cooling_device_cur_state", "How hard the device cools now.").labels(&["name", "type"]),
    Desc::gauge("node_cooling_device_max_state", "How hard the device can cool.").labels(&["name", "type"]),
];

/// Heat zones and cooling devices share a class, and node_exporter's collector.
pub struct Thermal([Attributes; 2]);

impl Thermal {
    pub fn new(sysfs: &Path) -> Self {
        let dir = sysfs.join("class/thermal");
        Self([
            Attributes { dir: dir.clone(), prefix: "thermal_zone", descs: &[THERMAL], push: push_zone },
            Attributes { dir, prefix: "cooling_device", descs: &[COOLING], push: push_cooling },
        ])
    }
}

impl Reader for Thermal {
    fn descs(&self) -> Vec<Desc> {
        [THERMAL, COOLING].concat()
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let [zones, cooling] = &mut self.0;
        match (zones.read(out), cooling.read(out)) {
            (Err(error), Err(_)) => Err(error),
            _ => Ok(()),
        }
    }
}

fn push_zone(dir: &Path, zone: &str, out: &mut Tick) {
    let kind = attribute(dir.join("type")).unwrap_or_default();
    if let Some(millidegrees) = number(dir.join("temp")) {
        out.push(&THERMAL[0], &[zone, &kind], millidegrees / 1e3);
    }
}

fn push_cooling(dir: &Path, name: &str, out: &mut Tick) {
    let kind = attribute(dir.join("type")).unwrap_or_default();
    for (file, desc) in ["cur_state", "max_state"].iter().zip(COOLING) {
        if let Some(state) = number(dir.join(file)) {
            out.push(desc, &[name, &kind], state);
        }
    }
}

const fn hertz(name: &'static str, help: &'static str) -> Desc {
    Desc::gauge(name, help).labels(&["cpu"])
}
const GOVERNOR: &[Desc] = &[Desc::gauge("node_cpu_scaling_governor", "1 for the governor in force, 0 for the others.")
    .labels(&["cpu", "governor"])];
/// In the order of [`FREQUENCY_FILES`], which count kHz.
const FREQUENCIES: &[Desc] = &[
    hertz("node_cpu_frequency_min_hertz", "Lowest frequency of the CPU."),
    hertz("node_cpu_frequency_max_hertz", "Highest frequency of the CPU."),
    hertz("node_cpu_frequency_avg_hertz", "Mean frequency of the CPU of late."),
    hertz("node_cpu_scaling_frequency_hertz", "Frequency that the governor chose."),
    hertz("node_cpu_scaling_frequency_min_hertz", "Lowest frequency that the governor may choose."),
    hertz("node_cpu_scaling_frequency_max_hertz", "Highest frequency that the governor may choose."),
];
const FREQUENCY_FILES: [&str; 6] = [
    "cpuinfo_min_freq",
    "cpuinfo_max_freq",
    "cpuinfo_avg_freq",
    "scaling_cur_freq",
    "scaling_min_freq",
    "scaling_max_freq",
];

pub fn cpufreq(sysfs: &Path) -> Attributes {
    let dir = sysfs.join("devices/system/cpu");
    Attributes { dir, prefix: "cpu", descs: &[FREQUENCIES, GOVERNOR], push: push_frequencies }
}

fn push_frequencies(dir: &Path, cpu: &str, out: &mut Tick) {
    if cpu.parse::<u32>().is_err() {
        return;
    }
    let dir = dir.join("cpufreq");
    for (file, desc) in FREQUENCY_FILES.iter().zip(FREQUENCIES) {
        if let Some(kilohertz) = number(dir.join(file)) {
            out.push(desc, &[cpu], kilohertz * 1e3);
        }
    }
    let governor = attribute(dir.join("scaling_governor")).unwrap_or_default();
    let available = attribute(dir.join("scaling_available_governors")).unwrap_or_default();
    for name in available.split_ascii_whitespace() {
        out.push(&GOVERNOR[0], &[cpu, name], if name == governor { 1.0 } else { 0.0 });
    }
}

const fn watchdog_gauge(name: &'static str, help: &'static str) -> Desc {
    Desc::gauge(name, help).labels(&["name"])
}
const WATCHDOG: &[Desc] = &[
    watchdog_gauge("node_watchdog_bootstatus", "Why the watchdog last restarted the host, as a code."),
    watchdog_gauge("node_watchdog_fw_version", "Version of the watchdog's firmware."),
    watchdog_gauge("node_watchdog_nowayout", "1 if the watchdog cannot be stopped."),
    watchdog_gauge("node_watchdog_timeleft_seconds", "Time left before the watchdog acts."),
    watchdog_gauge("node_watchdog_timeout_seconds", "Time that the watchdog gives."),
    watchdog_gauge("node_watchdog_pretimeout_seconds", "Time before the timeout at which the watchdog warns."),
    watchdog_gauge("node_watchdog_access_cs0", "1 if the host was started from its second flash chip."),
];
const WATCHDOG_FILES: [&str; 7] =
    ["bootstatus", "fw_version", "nowayout", "timeleft", "timeout", "pretimeout", "access_cs0"];
const WATCHDOG_INFO: &[Desc] = &[Desc::gauge("node_watchdog_info", "What the watchdog is and does.").labels(&[
    "name",
    "options",
    "identity",
    "state",
    "status",
    "pretimeout_governor",
])];

pub fn watchdog(sysfs: &Path) -> Attributes {
    let dir = sysfs.join("class/watchdog");
    Attributes { dir, prefix: "", descs: &[WATCHDOG, WATCHDOG_INFO], push: push_watchdog }
}

fn push_watchdog(dir: &Path, name: &str, out: &mut Tick) {
    for (file, desc) in WATCHDOG_FILES.iter().zip(WATCHDOG) {
        if let Some(value) = number(dir.join(file)) {
            out.push(desc, &[name], value);
        }
    }
    let get = |file: &str| attribute(dir.join(file)).unwrap_or_default();
    let (options, identity, state) = (get("options"), get("identity"), get("state"));
    let (status, governor) = (get("status"), get("pretimeout_governor"));
    out.push(&WATCHDOG_INFO[0], &[name, &options, &identity, &state, &status, &governor], 1.0);
}

const fn errors(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Desc {
    Desc::counter(name, help).labels(labels)
}
const EDAC: &[Desc] = &[
    errors("node_edac_correctable_errors_total", "Memory errors that were corrected.", &["controller"]),
    errors("node_edac_uncorrectable_errors_total", "Memory errors that were not corrected.", &["controller"]),
    errors("node_edac_csrow_correctable_errors_total", "The same by row of chips.", &["controller", "csrow"]),
    errors("node_edac_csrow_uncorrectable_errors_total", "The same by row of chips.", &["controller", "csrow"]),
    errors(
        "node_edac_channel_correctable_errors_total",
        "The same by channel of the row.",
        &["controller", "csrow", "channel", "dimm_label"],
    ),
    errors(
        "node_edac_channel_uncorrectable_errors_total",
        "The same by channel of the row.",
        &["controller", "csrow", "channel", "dimm_label"],
    ),
];

/// Memory errors. node_exporter tells those that no row is known for as row `unknown`.
pub fn edac(sysfs: &Path) -> Attributes {
    Attributes { dir: sysfs.join("devices/system/edac/mc"), prefix: "mc", descs: &[EDAC], push: push_memory_controller }
}

fn push_memory_controller(dir: &Path, controller: &str, out: &mut Tick) {
    if controller.parse::<u32>().is_err() {
        return;
    }
    let mut push = |desc: &Desc, labels: &[&str], path: PathBuf| {
        if let Some(count) = number(path) {
            out.push(desc, labels, count);
        }
    };
    push(&EDAC[0], &[controller], dir.join("ce_count"));
    push(&EDAC[1], &[controller], dir.join("ue_count"));
    push(&EDAC[2], &[controller, "unknown"], dir.join("ce_noinfo_count"));
    push(&EDAC[3], &[controller, "unknown"], dir.join("ue_noinfo_count"));
    for name in names_in(dir).unwrap_or_default() {
        let Some(row) = name.strip_prefix("csrow").filter(|row| row.parse::<u32>().is_ok()) else { continue };
        let dir = dir.join(&name);
        push(&EDAC[2], &[controller, row], dir.join("ce_count"));
        push(&EDAC[3], &[controller, row], dir.join("ue_count"));
        for file in names_in(&dir).unwrap_or_default() {
            let Some((channel, desc)) = (match file.strip_prefix("ch").and_then(|rest| rest.split_once('_')) {
                Some((channel, "ce_count")) => Some((channel, &EDAC[4])),
                Some((channel, "ue_count")) => Some((channel, &EDAC[5])),
                _ => None,
            }) else {
                continue;
            };
            let label = attribute(dir.join(format!("ch{channel}_dimm_label"))).unwrap_or_default();
            // Without a name from the firmware the kernel makes one up, which is told as node_exporter writes it.
            let made_up = label.replace('#', "") == format!("mc{controller}csrow{row}channel{channel}");
            let label = if made_up { format!("mc{controller}_csrow{row}_channel{channel}") } else { label };
            push(desc, &[controller, row, channel, &label], dir.join(&file));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;
    use crate::module::ModuleError;

    #[test]
    fn zones_and_coolers() {
        let tree = Tree::new(&[
            ("class/thermal/thermal_zone3/temp", "12376\n"),
            ("class/thermal/thermal_zone3/type", "cpu\n"),
            ("class/thermal/cooling_device0/cur_state", "1\n"),
            ("class/thermal/cooling_device0/max_state", "\n"),
        ]);
        assert_eq!(
            dump(&mut Thermal::new(tree.path())),
            [
                r#"node_cooling_device_cur_state{name="0",type=""} 1"#,
                r#"node_thermal_zone_temp{zone="3",type="cpu"} 12.376"#
            ]
        );
        assert!(matches!(Thermal::new(Path::new("/no")).read(&mut Tick::new()), Err(ModuleError::Absent { .. })));
    }

    #[test]
    fn frequencies_are_hertz() {
        let tree = Tree::new(&[
            ("devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1699981\n"),
            ("devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n"),
            ("devices/system/cpu/cpu0/cpufreq/scaling_available_governors", "performance powersave\n"),
            ("devices/system/cpu/cpufreq/boost", "1\n"),
        ]);
        assert_eq!(
            dump(&mut cpufreq(tree.path())),
            [
                r#"node_cpu_scaling_frequency_hertz{cpu="0"} 1699981000"#,
                r#"node_cpu_scaling_governor{cpu="0",governor="performance"} 0"#,
                r#"node_cpu_scaling_governor{cpu="0",governor="powersave"} 1"#,
            ]
        );
    }

    #[test]
    fn memory_errors_by_row_and_channel() {
        let mc = "devices/system/edac/mc/mc0";
        let tree = Tree::new(&[
            (&format!("{mc}/ce_count"), "1"),
            (&format!("{mc}/ue_noinfo_count"), "6"),
            (&format!("{mc}/csrow2/ce_count"), "3"),
            (&format!("{mc}/csrow2/ch1_ce_count"), "2"),
            (&format!("{mc}/csrow2/ch1_dimm_label"), "DIMM_A"),
            ("devices/system/edac/mc/power/control", "auto"),
        ]);
        assert_eq!(
            dump(&mut edac(tree.path())),
            [
                r#"node_edac_channel_correctable_errors_total{controller="0",csrow="2",channel="1",dimm_label="DIMM_A"} 2"#,
                r#"node_edac_correctable_errors_total{controller="0"} 1"#,
                r#"node_edac_csrow_correctable_errors_total{controller="0",csrow="2"} 3"#,
                r#"node_edac_csrow_uncorrectable_errors_total{controller="0",csrow="unknown"} 6"#,
            ]
        );
    }

    #[test]
    fn watchdogs() {
        let tree =
            Tree::new(&[("class/watchdog/watchdog0/timeout", "60\n"), ("class/watchdog/watchdog0/state", "active\n")]);
        assert_eq!(
            dump(&mut watchdog(tree.path())),
            [
                r#"node_watchdog_info{name="watchdog0",options="",identity="",state="active",status="",pretimeout_governor=""} 1"#,
                r#"node_watchdog_timeout_seconds{name="watchdog0"} 60"#,
            ]
        );
    }
}
