//! Tests that hold the host modules against node_exporter itself: its list of families, and its own test tree with the
//! exposition that it expects of it. Both lie outside the product; without them these tests say so and pass, and the
//! modules' own tests remain. Where they are is said by `LAMPAD_SHARED`, else a folder `shared` above the workspace is used.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lampad_proto::v1::MetricType;

use super::settings::{DeviceFilter, HostSettings, Pattern, unsupported};
use super::sysctl::SysctlSettings;
use super::{TABLE, modules};
use crate::module::{Entry, ModuleError};
use crate::tick::Tick;

/// Families that upstream can emit with default collectors and that we cannot be seen to emit: beginning of the name, reason.
/// An exact name ends in `$`.
const REASONS: &[(&str, &str)] = &[
    ("node_scrape_collector_", "told by the sampler, which knows of duration and success"),
    ("node_infiniband_", "counters that only some adapters have; all are in one table in infiniband"),
    ("node_network_address_info$", "on request; tested in address_info and compared live"),
    ("node_network_altnames_info$", "only with the netlink variant of netclass"),
    ("node_network_collisions_total$", "only with --collector.netdev.enable-detailed-metrics"),
    ("node_network_multicast_total$", "only with --collector.netdev.enable-detailed-metrics"),
    ("node_network_receive_", "the other names come with --collector.netdev.enable-detailed-metrics"),
    ("node_network_transmit_", "the other names come with --collector.netdev.enable-detailed-metrics"),
    ("node_rapl_joules_total$", "only with --collector.rapl.enable-zone-label"),
    ("node_filesystem_purgeable_bytes$", "other systems than Linux"),
    ("node_textfile_mtime_seconds$", "needs a directory with files; tested in textfile"),
    ("node_selinux_c", "only on a host with SELinux; tested in selinux"),
    ("node_softirqs_total$", "only when configured"),
    ("node_os_support_end_timestamp_seconds$", "only in some distributions' os-release; tested in os"),
    ("node_cpu_frequency_", "by what cpufreq's driver tells; tested in attributes"),
    ("node_cpu_online$", "only for CPUs that can be taken out"),
    ("node_hwmon_beep_enabled$", "only of old chips"),
    ("node_power_supply_", "by what the battery tells; all are in one table in powersupply"),
    ("node_memory_Cma", "lines that only some kernels have; each line of the file is told"),
    ("node_memory_", "lines that only some kernels have; each line of the file is told"),
    ("node_nf_conntrack_", "only where connections are tracked"),
    ("node_netstat_", "fields that only some kernels have"),
    ("node_timex_", "a container may be denied adjtimex"),
    ("node_disk_", "columns that only some kernels have"),
];

/// The same of collectors that run on request.
const REASONS_ON_REQUEST: &[(&str, &str)] = &[
    ("node_ethtool_", "by the drivers' own names; each counter is told"),
    ("node_lnstat_", "columns that only some kernels have; each column of the files is told"),
    ("node_memory_numa_", "lines that only some kernels have; each line of the file is told"),
    ("node_sysctl_", "those that are configured"),
    ("node_systemd_service_restart_total$", "with `restarts` of [host.systemd]"),
    ("node_systemd_unit_start_time_seconds$", "with `start_time` of [host.systemd]"),
    ("node_systemd_unit_tasks_", "with `tasks` of [host.systemd]"),
];

/// What of upstream's expected exposition differs or lacks, and why: beginning of the family's name, reason.
const DIFFERENCES: &[(&str, &str)] = &[
    ("node_scrape_collector_", "told by the sampler"),
    ("node_exporter_build_info", "version of the program"),
    ("node_network_receive_", "upstream asks netlink of the machine that runs the test"),
    (
        "node_network_transmit_",
        "upstream asks netlink of the machine that runs the test; queue length is compared live",
    ),
    ("node_time_seconds", "now"),
    ("node_time_zone_offset_seconds", "here"),
    ("node_power_supply_info", "the tree's battery has bytes in its name that are not UTF-8"),
];

/// Collectors that are off by default and that we do not have.
const OFF_AND_NOT_THERE: &[&str] = &[
    "pcidevice",
    "wifi",
    // Upstream reads these from files of its own, we ask the kernel.
    "qdisc",
    "ethtool",
];

fn shared() -> Option<PathBuf> {
    let from_environment = std::env::var_os("LAMPAD_SHARED").map(PathBuf::from);
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|dir| dir.join("shared"));
    let found = from_environment.into_iter().chain(above).find(|dir| dir.join("parity").is_dir());
    if found.is_none() {
        println!("skipped: no data of node_exporter here; set LAMPAD_SHARED to its folder");
    }
    found
}

/// Upstream's test tree, unpacked.
fn fixtures(shared: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let archive = shared.join("parity/fixtures/node_exporter-fixtures.tar.gz");
    let status = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(dir.path()).status().unwrap();
    assert!(status.success(), "tar could not unpack the fixtures");
    dir
}

/// The flags that upstream's expected exposition was made with, as our settings.
fn fixture_settings(root: &Path) -> HostSettings {
    let pattern = |text: &str| Some(Pattern::try_from(text.to_owned()).unwrap());
    let chips = "(applesmc|asus_nb_wmi|coretemp|hwmon4|ieee80211|nct6779)";
    HostSettings {
        path_procfs: root.join("proc"),
        path_sysfs: root.join("sys"),
        path_rootfs: root.into(),
        path_udev_data: root.join("udev/data"),
        enabled: TABLE.iter().map(|row| row.name.to_owned()).collect(),
        disabled: ["selinux", "filesystem", "timex", "uname", "info", "ethtool"].map(str::to_owned).into(),
        cpu_info: true,
        cpu_info_flags_include: pattern("^(aes|avx.?|constant_tsc)$"),
        cpu_info_bugs_include: pattern("^(cpu_meltdown|spectre_.*|mds)$"),
        bcache_priority_stats: true,
        stat_softirq: true,
        netclass_ignore_invalid_speed: true,
        netclass: DeviceFilter { include: None, exclude: pattern("(dmz|int)") },
        arp: DeviceFilter { include: None, exclude: pattern("nope") },
        sysctl: SysctlSettings {
            include: ["fs.file-nr", "fs.file-nr:total,current,max", "kernel.threads-max"].map(str::to_owned).into(),
            include_info: vec!["kernel.seccomp.actions_avail".to_owned()],
        },
        hwmon: DeviceFilter { include: pattern(chips), exclude: None },
        ..HostSettings::default()
    }
}

type Samples = BTreeMap<String, BTreeMap<String, f64>>;

/// Samples and types by family; labels sorted, without empty ones.
async fn sample(entries: Vec<Entry>, root: &Path) -> (Samples, BTreeMap<String, &'static str>) {
    let (mut samples, mut types) = (Samples::new(), BTreeMap::new());
    let root = root.display().to_string();
    for mut entry in entries {
        let mut tick = Tick::new();
        match entry.module.sample(&mut tick).await {
            Ok(()) => {}
            Err(ModuleError::Absent { .. }) => continue,
            // Energy meters and the clock are for root alone on many machines.
            Err(ModuleError::Read { path, source }) if source.raw_os_error() == Some(1 | 13) => {
                println!("{}: {}: {source}", entry.spec.name, path.display());
                continue;
            }
            Err(error) => panic!("{}: {error:?}", entry.spec.name),
        }
        assert_eq!(tick.repeated(), 0, "{} tells a series twice", entry.spec.name);
        for series in tick.series() {
            let kind = match series.desc.kind {
                MetricType::Counter => "counter",
                MetricType::Gauge => "gauge",
                _ => "untyped",
            };
            types.insert(series.desc.name.to_string(), kind);
        }
        for (name, labels, value) in tick.samples() {
            let labels = labels.into_iter().map(|(name, value)| (name, value.replace(&root, "collector/fixtures")));
            let labels: BTreeMap<&str, String> = labels.filter(|(_, value)| !value.is_empty()).collect();
            samples.entry(name.to_owned()).or_default().insert(format!("{labels:?}"), value.as_f64());
        }
    }
    (samples, types)
}

/// Parses the little of the text format that the expected exposition uses.
fn parse(text: &str) -> (Samples, BTreeMap<String, String>) {
    let (mut samples, mut types) = (Samples::new(), BTreeMap::new());
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            types.insert(name.to_owned(), kind.to_owned());
        }
        if line.starts_with('#') || !line.starts_with("node_") {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let mut found = BTreeMap::new();
        let mut rest = labels.trim_end_matches('}');
        while let Some((label, after)) = rest.split_once("=\"") {
            let mut quotes = after.match_indices('"').map(|(at, _)| at);
            let (value, after) = after.split_at(quotes.find(|at| !after[..*at].ends_with('\\')).unwrap());
            if !value.is_empty() {
                found.insert(label.trim_start_matches(','), value.replace("\\\"", "\"").replace("\\\\", "\\"));
            }
            rest = &after[1..];
        }
        samples.entry(name.to_owned()).or_default().insert(format!("{found:?}"), value.parse().unwrap());
    }
    (samples, types)
}

fn close(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-12 * a.abs().max(b.abs())
}

fn reason<'a>(table: &[(&str, &'a str)], family: &str) -> Option<&'a str> {
    let matches = |pattern: &str| match pattern.strip_suffix('$') {
        Some(exact) => family == exact,
        None => family.starts_with(pattern),
    };
    table.iter().find(|(pattern, _)| matches(pattern)).map(|(_, reason)| *reason)
}

/// Collector of each family, and whether it is on by default.
fn families(shared: &Path) -> BTreeMap<String, (String, bool)> {
    let text = fs::read_to_string(shared.join("parity/node_exporter.metrics.txt")).unwrap();
    let rows = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let columns: Vec<&str> = line.split('\t').collect();
        let &[name, _, _, collector, default, ..] = columns.as_slice() else { return None };
        Some((name.to_owned(), (collector.to_owned(), default == "on")))
    });
    rows.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn upstreams_tree_gives_upstreams_exposition() {
    let Some(shared) = shared() else { return };
    let tree = fixtures(&shared);
    let (ours, types) = sample(modules(&fixture_settings(tree.path())), tree.path()).await;
    let (expected, expected_types) = parse(&fs::read_to_string(tree.path().join("expected.txt")).unwrap());
    let collectors = families(&shared);
    let (mut wrong, mut same) = (Vec::new(), 0);
    for (family, series) in &expected {
        let collector = collectors.get(family).map_or("", |(collector, _)| collector);
        if reason(DIFFERENCES, family).is_some() || OFF_AND_NOT_THERE.contains(&collector) {
            continue;
        }
        let none = BTreeMap::new();
        let mine = ours.get(family).unwrap_or(&none);
        let before = wrong.len();
        for (labels, value) in series {
            match mine.get(labels) {
                None => wrong.push(format!("{family}{labels} {value} is missing")),
                Some(mine) if !close(*mine, *value) => wrong.push(format!("{family}{labels} is {mine}, not {value}")),
                Some(_) => {}
            }
        }
        wrong.extend(
            mine.keys().filter(|key| !series.contains_key(*key)).map(|key| format!("{family}{key} is too much")),
        );
        if let Some(kind) = types.get(family)
            && expected_types.get(family).is_some_and(|expected| expected != kind)
        {
            wrong.push(format!("{family} is a {kind}, not a {}", expected_types[family]));
        }
        same += usize::from(wrong.len() == before);
    }
    println!("{same} families of {} as upstream has them", expected.len());
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_family_of_default_collectors_is_told_or_has_its_reason() {
    let Some(shared) = shared() else { return };
    let tree = fixtures(&shared);
    let (of_tree, _) = sample(modules(&fixture_settings(tree.path())), tree.path()).await;
    let (live, _) = sample(modules(&HostSettings::default()), Path::new("/nowhere")).await;
    let (mut unexplained, mut counts) = (BTreeSet::new(), [0; 3]);
    for (family, (collector, _)) in families(&shared).iter().filter(|(_, (_, on))| *on) {
        if live.contains_key(family) {
            counts[0] += 1;
        } else if of_tree.contains_key(family) {
            counts[1] += 1;
        } else if reason(REASONS, family).is_some() {
            counts[2] += 1;
        } else {
            unexplained.insert(format!("{family} of {collector}"));
        }
    }
    let [live, of_tree, explained] = counts;
    println!("families: {live} seen live, {of_tree} in upstream's tree, {explained} with a reason");
    assert!(unexplained.is_empty(), "neither told nor explained: {unexplained:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_family_of_collectors_on_request_is_told_or_has_its_reason() {
    let Some(shared) = shared() else { return };
    let tree = fixtures(&shared);
    let (of_tree, _) = sample(modules(&fixture_settings(tree.path())), tree.path()).await;
    let all = HostSettings { enabled: super::all_names().map(str::to_owned).collect(), ..HostSettings::default() };
    let described: BTreeSet<String> =
        modules(&all).iter().flat_map(|entry| entry.module.descs()).map(|desc| desc.name.into_owned()).collect();
    let mut unexplained = BTreeSet::new();
    for (family, (collector, _)) in families(&shared).iter().filter(|(_, (_, on))| !*on) {
        let told = of_tree.contains_key(family) || described.contains(family);
        if !told && unsupported(collector).is_none() && reason(REASONS_ON_REQUEST, family).is_none() {
            unexplained.insert(format!("{family} of {collector}"));
        }
    }
    assert!(unexplained.is_empty(), "neither told nor explained: {unexplained:#?}");
}

#[test]
fn every_family_has_a_good_name_and_help() {
    let mut names = BTreeMap::new();
    let settings = HostSettings { enabled: super::all_names().map(str::to_owned).collect(), ..HostSettings::default() };
    for entry in modules(&settings) {
        let descs = entry.module.descs();
        assert!(!descs.is_empty(), "{} describes nothing", entry.spec.name);
        for desc in descs {
            let name = &*desc.name;
            assert!(name.starts_with("node_") || name.starts_with("lampad_"), "{name}: prefix");
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{name}: characters");
            let ends = |ending: &str| name.ends_with(ending);
            // Upstream tells what drivers count without a type.
            let counts = desc.kind == MetricType::Counter || name.starts_with("node_ethtool_") && ends("_total");
            assert_eq!(counts, ends("_total"), "{name}: counters and only they end in _total");
            assert!(!ends("_ms") && !ends("_kb") && !ends("_milliseconds"), "{name}: base units");
            assert!(desc.help.ends_with('.') && desc.help.len() > 10, "{name}: help is a sentence: {:?}", desc.help);
            assert!(desc.unit.is_empty() || name.contains(desc.unit), "{name}: unit {}", desc.unit);
            let distinct: BTreeSet<&&str> = desc.labels.iter().collect();
            assert_eq!(distinct.len(), desc.labels.len(), "{name}: a label twice");
            if let Some(other) = names.insert(name.to_owned(), entry.spec.name) {
                assert_eq!(other, entry.spec.name, "{name} belongs to two modules");
            }
        }
    }
}

#[test]
fn names_of_modules_are_unique_and_of_the_host() {
    let names: BTreeSet<&str> = super::all_names().collect();
    assert_eq!(names.len(), TABLE.len());
    assert!(names.iter().all(|name| name.starts_with("host.")));
    let collectors: Vec<&str> = TABLE.iter().map(|row| row.collector).filter(|name| !name.is_empty()).collect();
    assert_eq!(collectors.iter().collect::<BTreeSet<_>>().len(), collectors.len(), "a collector is told by one module");
}
