//! The CPUs themselves: which are online or isolated, throttling for heat, model and flags.
//!
//! Source: `/sys/devices/system/cpu`, `/proc/cpuinfo` through procfs. CPU time is in [`super::stat`].
//! Shape:  by `cpu`, `package` or `core`; `node_cpu_info` and flags only when configured, as with node_exporter.
//! Units:  events since the start; hertz.
//! Errors: `Parse` for a cpuinfo that procfs does not understand; what sysfs lacks is left out.

use std::collections::BTreeMap;
use std::path::PathBuf;

use procfs::{CpuInfo, FromBufRead};

use super::reader::Reader;
use super::settings::{HostSettings, Pattern};
use super::source::{ProcFile, attribute, names_in, number, parse_decimal, parse_error};
use crate::module::{Desc, ModuleError};
use crate::tick::Tick;

const ISOLATED: Desc = Desc::gauge("node_cpu_isolated", "1 for each CPU kept out of scheduling.").labels(&["cpu"]);
const ONLINE: Desc = Desc::gauge("node_cpu_online", "1 if the CPU is online, 0 if it was taken out.").labels(&["cpu"]);
const CORE_THROTTLES: Desc = Desc::counter("node_cpu_core_throttles_total", "Times the core was slowed down for heat.")
    .labels(&["package", "core"]);
const PACKAGE_THROTTLES: Desc =
    Desc::counter("node_cpu_package_throttles_total", "Times the package was slowed down for heat.")
        .labels(&["package"]);
const INFO: Desc = Desc::gauge("node_cpu_info", "What the CPU is.").labels(&[
    "package",
    "core",
    "cpu",
    "vendor",
    "family",
    "model",
    "model_name",
    "microcode",
    "stepping",
    "cachesize",
]);
const FREQUENCY: Desc = Desc::gauge("node_cpu_frequency_hertz", "Frequency of the CPU as cpuinfo tells it.")
    .labels(&["package", "core", "cpu"]);
const FLAG: Desc = Desc::gauge("node_cpu_flag_info", "Flags of the first CPU that were asked for.").labels(&["flag"]);
const BUG: Desc = Desc::gauge("node_cpu_bug_info", "Known bugs of the first CPU that were asked for.").labels(&["bug"]);

pub struct Cpu {
    sysfs: PathBuf,
    cpuinfo: ProcFile,
    info: bool,
    flags: Option<Pattern>,
    bugs: Option<Pattern>,
}

impl Cpu {
    pub fn new(settings: &HostSettings) -> Self {
        let (flags, bugs) = (settings.cpu_info_flags_include.clone(), settings.cpu_info_bugs_include.clone());
        Self {
            sysfs: settings.path_sysfs.join("devices/system/cpu"),
            cpuinfo: ProcFile::new(settings.path_procfs.join("cpuinfo")),
            info: settings.cpu_info || flags.is_some() || bugs.is_some(),
            flags,
            bugs,
        }
    }

    fn push_sysfs(&self, out: &mut Tick) {
        let names = names_in(&self.sysfs).unwrap_or_default();
        // Hyperthreads of one core, and cores of one package, tell the same count.
        let mut cores: BTreeMap<(String, String), f64> = BTreeMap::new();
        let mut packages: BTreeMap<String, f64> = BTreeMap::new();
        for name in &names {
            let Some(cpu) = name.strip_prefix("cpu").filter(|number| number.parse::<u32>().is_ok()) else { continue };
            let dir = self.sysfs.join(name);
            if let Some(online) = number(dir.join("online")) {
                out.push(&ONLINE, &[cpu], online);
            }
            let id = |file: &str| attribute(dir.join("topology").join(file));
            let (Some(package), Some(core)) = (id("physical_package_id"), id("core_id")) else { continue };
            let throttles = |file: &str| number(dir.join("thermal_throttle").join(file));
            if let Some(count) = throttles("package_throttle_count") {
                packages.entry(package.clone()).or_insert(count);
            }
            if let Some(count) = throttles("core_throttle_count") {
                cores.entry((package, core)).or_insert(count);
            }
        }
        for ((package, core), count) in &cores {
            out.push(&CORE_THROTTLES, &[package, core], *count);
        }
        for (package, count) in &packages {
            out.push(&PACKAGE_THROTTLES, &[package], *count);
        }
        for cpu in ranges(&attribute(self.sysfs.join("isolated")).unwrap_or_default()) {
            out.push(&ISOLATED, &[&cpu.to_string()], 1.0);
        }
    }

    fn push_info(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let path = self.cpuinfo.path().to_owned();
        let info = CpuInfo::from_buf_read(self.cpuinfo.bytes()?);
        let info = info.map_err(|error| parse_error(&path, error.to_string()))?;
        for number in 0..info.num_cores() {
            let get = |key: &str| info.get_field(number, key).unwrap_or_default();
            let (package, core, cpu) = (get("physical id"), get("core id"), get("processor"));
            let (model, name) = (get("model"), get("model name"));
            let [vendor, family, microcode] = [get("vendor_id"), get("cpu family"), get("microcode")];
            let [stepping, cache] = [get("stepping"), get("cache size")];
            out.push(&INFO, &[package, core, cpu, vendor, family, model, name, microcode, stepping, cache], 1.0);
            if let Some(megahertz) = parse_decimal(get("cpu MHz")) {
                out.push(&FREQUENCY, &[package, core, cpu], megahertz * 1e6);
            }
        }
        for (key, pattern, desc) in [("flags", &self.flags, &FLAG), ("bugs", &self.bugs, &BUG)] {
            let Some(pattern) = pattern else { continue };
            for word in info.get_field(0, key).unwrap_or_default().split_ascii_whitespace() {
                if pattern.matches(word) {
                    out.push(desc, &[word], 1.0);
                }
            }
        }
        Ok(())
    }
}

impl Reader for Cpu {
    fn descs(&self) -> Vec<Desc> {
        vec![ISOLATED, ONLINE, CORE_THROTTLES, PACKAGE_THROTTLES, INFO, FREQUENCY, FLAG, BUG]
    }

    fn read(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        self.push_sysfs(out);
        if self.info { self.push_info(out) } else { Ok(()) }
    }
}

/// `1,3-5` is 1, 3, 4, 5.
fn ranges(text: &str) -> Vec<u32> {
    let range = |part: &str| -> Option<std::ops::RangeInclusive<u32>> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn cores_and_packages_are_counted_once() {
        let cpu = |n: u32, file: &str| format!("sys/devices/system/cpu/cpu{n}/{file}");
        let tree =
            Tree::new(&[("sys/devices/system/cpu/isolated", "1,3-4\n"), ("sys/devices/system/cpu/cpufreq/x", "")]);
        for n in 0..2 {
            tree.write(&cpu(n, "topology/physical_package_id"), "0\n");
            tree.write(&cpu(n, "topology/core_id"), "7\n");
            tree.write(&cpu(n, "thermal_throttle/core_throttle_count"), "5\n");
            tree.write(&cpu(n, "thermal_throttle/package_throttle_count"), "9\n");
        }
        tree.write(&cpu(1, "online"), "1\n");
        tree.write("proc/cpuinfo", "processor\t: 0\nmodel name\t: X\ncpu MHz\t\t: 2000.5\nflags\t\t: aes avx\n\n");
        let settings = HostSettings {
            path_sysfs: tree.path().join("sys"),
            path_procfs: tree.path().join("proc"),
            cpu_info_flags_include: Some(Pattern::try_from("^a.s$".to_owned()).unwrap()),
            ..HostSettings::default()
        };
        assert_eq!(
            dump(&mut Cpu::new(&settings)),
            [
                r#"node_cpu_core_throttles_total{package="0",core="7"} 5"#,
                r#"node_cpu_flag_info{flag="aes"} 1"#,
                r#"node_cpu_frequency_hertz{package="",core="",cpu="0"} 2000500000"#,
                r#"node_cpu_info{package="",core="",cpu="0",vendor="",family="",model="",model_name="X",microcode="",stepping="",cachesize=""} 1"#,
                r#"node_cpu_isolated{cpu="1"} 1"#,
                r#"node_cpu_isolated{cpu="3"} 1"#,
                r#"node_cpu_isolated{cpu="4"} 1"#,
                r#"node_cpu_online{cpu="1"} 1"#,
                r#"node_cpu_package_throttles_total{package="0"} 9"#,
            ]
        );
    }
}
