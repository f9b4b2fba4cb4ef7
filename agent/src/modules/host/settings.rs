//! What can be configured of the host modules, with node_exporter's defaults.

use std::path::PathBuf;

use regex::Regex;
use serde::Deserialize;

use super::sysctl::SysctlSettings;
use super::systemd::SystemdSettings;

/// Table `[host]` of the agent's configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostSettings {
    /// Where procfs is mounted.
    pub path_procfs: PathBuf,
    /// Where sysfs is mounted.
    pub path_sysfs: PathBuf,
    /// Where the host's root is seen, for an agent in a container; taken off the mount points told.
    pub path_rootfs: PathBuf,
    /// What udev knows of block devices.
    pub path_udev_data: PathBuf,
    /// Directory of `*.prom` files that others write; none: no such module.
    pub textfile_directory: Option<PathBuf>,
    /// Modules that are off by default and shall run, such as `processes` or `host.processes`.
    #[serde(deserialize_with = "module_names")]
    pub enabled: Vec<String>,
    /// Modules that shall not run.
    #[serde(deserialize_with = "module_names")]
    pub disabled: Vec<String>,
    /// Tells `node_cpu_info` and the like: one series per core that never changes.
    pub cpu_info: bool,
    /// Of the CPU's flags, those to tell; none by default.
    pub cpu_info_flags_include: Option<Pattern>,
    /// Of the CPU's known bugs, those to tell; none by default.
    pub cpu_info_bugs_include: Option<Pattern>,
    /// Tells how much of bcache's devices is in use; the kernel walks all of the cache for it.
    pub bcache_priority_stats: bool,
    /// Tells `node_softirqs_total{vector}` from `/proc/stat`.
    pub stat_softirq: bool,
    pub filesystem: FilesystemSettings,
    pub diskstats: DeviceFilter,
    pub netdev: DeviceFilter,
    pub netclass: DeviceFilter,
    pub arp: DeviceFilter,
    /// Devices whose queues are told.
    pub qdisc: DeviceFilter,
    /// Devices whose drivers are asked.
    pub ethtool: DeviceFilter,
    /// Of the drivers' counters, those to tell, by the drivers' names; all by default.
    pub ethtool_metrics_include: Option<Pattern>,
    /// Caches of the kernel by name.
    pub slabinfo: DeviceFilter,
    pub sysctl: SysctlSettings,
    /// Leaves out speeds below zero, which drivers give for "unknown".
    pub netclass_ignore_invalid_speed: bool,
    /// Chips by the name in label `chip`.
    pub hwmon: DeviceFilter,
    pub systemd: SystemdSettings,
    /// Found out, not configured: files of the kernel's trees are served by a process, which may never answer.
    #[serde(skip)]
    pub files_may_hang: bool,
}

impl Default for HostSettings {
    fn default() -> Self {
        Self {
            path_procfs: "/proc".into(),
            path_sysfs: "/sys".into(),
            path_rootfs: "/".into(),
            path_udev_data: "/run/udev/data".into(),
            textfile_directory: None,
            enabled: Vec::new(),
            disabled: Vec::new(),
            cpu_info: false,
            cpu_info_flags_include: None,
            cpu_info_bugs_include: None,
            bcache_priority_stats: false,
            stat_softirq: false,
            filesystem: FilesystemSettings::default(),
            // Partitions and devices that are no disks; their sums would count twice.
            diskstats: DeviceFilter::without(r"^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$"),
            netdev: DeviceFilter::default(),
            netclass: DeviceFilter::default(),
            arp: DeviceFilter::default(),
            qdisc: DeviceFilter::default(),
            ethtool: DeviceFilter::default(),
            ethtool_metrics_include: None,
            slabinfo: DeviceFilter::default(),
            sysctl: SysctlSettings::default(),
            netclass_ignore_invalid_speed: false,
            hwmon: DeviceFilter::default(),
            systemd: SystemdSettings::default(),
            files_may_hang: false,
        }
    }
}

impl HostSettings {
    /// Whether a module runs, given whether it does by default. What is switched off stays off.
    pub fn wants(&self, module: &str, by_default: bool) -> bool {
        let named = |list: &[String]| list.iter().any(|name| short(name) == short(module));
        !named(&self.disabled) && (by_default || named(&self.enabled))
    }
}

/// The name without `host.`, which users may leave out.
fn short(name: &str) -> &str {
    name.strip_prefix("host.").unwrap_or(name)
}

fn module_names<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(input)?;
    let known: Vec<&str> = super::all_names().collect();
    if let Some((name, why)) = names.iter().find_map(|name| Some((name, unsupported(name)?))) {
        return Err(serde::de::Error::custom(format!("the host module {name:?} is not supported: {why}")));
    }
    match names.iter().find(|name| !known.iter().any(|known| short(known) == short(name))) {
        None => Ok(names),
        Some(name) => Err(serde::de::Error::custom(format!(
            "there is no host module {name:?}; the modules are {}",
            known.iter().map(|name| short(name)).collect::<Vec<_>>().join(", ")
        ))),
    }
}

/// Collectors of node_exporter that users will ask for and that we refuse, with the reason.
pub(super) fn unsupported(name: &str) -> Option<&'static str> {
    match short(name) {
        "ntp" => Some("it asks a server; timex tells whether the clock is in step"),
        "wifi" | "drm" | "pcidevice" | "nvmesubsystem" => Some("no database server we know of needs it"),
        "supervisord" | "runit" => Some("systemd starts services on the systems that the agent is made for"),
        "perf" => Some("it needs perf_event_open, which the agent's sandbox forbids"),
        _ => None,
    }
}

/// Which file systems are told.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FilesystemSettings {
    pub mount_points_include: Option<Pattern>,
    pub mount_points_exclude: Option<Pattern>,
    pub fs_types_include: Option<Pattern>,
    pub fs_types_exclude: Option<Pattern>,
    /// Longest time that one file system may take; after that it is told as stalled until it answers.
    #[serde(with = "humantime_serde")]
    pub mount_timeout: std::time::Duration,
}

impl Default for FilesystemSettings {
    fn default() -> Self {
        Self {
            mount_points_include: None,
            mount_points_exclude: Some(Pattern::of(
                r"^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)",
            )),
            fs_types_include: None,
            fs_types_exclude: Some(Pattern::of(concat!(
                "^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|fusectl|hugetlbfs|iso9660|mqueue|nsfs|",
                "overlay|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|erofs|sysfs|tracefs)$"
            ))),
            mount_timeout: std::time::Duration::from_secs(2),
        }
    }
}

/// Which devices are told: those that `include` matches, or all; without those that `exclude` matches.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeviceFilter {
    pub include: Option<Pattern>,
    pub exclude: Option<Pattern>,
}

impl DeviceFilter {
    pub fn without(pattern: &'static str) -> Self {
        Self { include: None, exclude: Some(Pattern::of(pattern)) }
    }

    pub fn takes(&self, device: &str) -> bool {
        passes(self.include.as_ref(), self.exclude.as_ref(), device)
    }
}

pub fn passes(include: Option<&Pattern>, exclude: Option<&Pattern>, name: &str) -> bool {
    include.is_none_or(|pattern| pattern.matches(name)) && !exclude.is_some_and(|pattern| pattern.matches(name))
}

/// A regular expression that was checked when the configuration was read. An empty one is refused: it would match all.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(Regex);

impl Pattern {
    pub fn of(text: &'static str) -> Self {
        Self(Regex::new(text).expect("a default of ours, which a test compiles"))
    }

    pub fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    pub fn replace_all<'a>(&self, text: &'a str, with: &str) -> std::borrow::Cow<'a, str> {
        self.0.replace_all(text, with)
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() {
            return Err("an empty pattern would match everything; leave the key out instead".into());
        }
        Regex::new(&text).map(Self).map_err(|error| format!("{text:?} is not a regular expression: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_node_exporter() {
        let settings = HostSettings::default();
        for (device, taken) in [
            ("sda", true),
            ("sda1", false),
            ("nvme0n1", true),
            ("nvme0n1p2", false),
            ("dm-0", true),
            ("loop0", false),
            ("md0", true),
            ("vda", true),
            ("mmcblk0p1", true),
        ] {
            assert_eq!(settings.diskstats.takes(device), taken, "{device}");
        }
        let fs = &settings.filesystem;
        for (mount, taken) in [("/", true), ("/dev", false), ("/dev/shm", false), ("/devel", true), ("/proc", false)] {
            assert_eq!(passes(None, fs.mount_points_exclude.as_ref(), mount), taken, "{mount}");
        }
        for (kind, taken) in [("ext4", true), ("tmpfs", true), ("overlay", false), ("cgroup2", false), ("xfs", true)] {
            assert_eq!(passes(None, fs.fs_types_exclude.as_ref(), kind), taken, "{kind}");
        }
    }

    #[test]
    fn settings_refuse_what_they_do_not_know() {
        for (text, told) in [
            ("colour = 1", "unknown field `colour`"),
            ("disabled = [\"cpux\"]", "no host module \"cpux\""),
            ("enabled = [\"ntp\"]", "timex tells"),
            ("netdev.exclude = \"(\"", "is not a regular expression"),
            ("netdev.exclude = \"\"", "would match everything"),
        ] {
            let error = toml::from_str::<HostSettings>(text).unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
        let settings: HostSettings = toml::from_str("disabled = [\"host.arp\"]\nenabled = [\"processes\"]").unwrap();
        assert!(!settings.wants("host.arp", true));
        assert!(settings.wants("host.processes", false));
        assert!(!settings.wants("host.interrupts", false));
    }
}
