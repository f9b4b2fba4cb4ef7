//! Room and commits of each btrfs file system.
//!
//! Source: `/sys/fs/btrfs/<uuid>`. node_exporter's per-device figures, which need an ioctl as root, are not told.
//! Shape:  `node_btrfs_*{uuid}` with `block_group_type` and `mode`, or `device`.
//! Units:  bytes; seconds (the kernel counts milliseconds).
//! Errors: `Absent` without a mounted btrfs.

use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::source::{ModuleResult, absent, attribute, names_in, number, parse_decimal};
use crate::module::Desc;
use crate::tick::Tick;

const INFO: Desc = Desc::gauge("node_btrfs_info", "Label of the file system.").labels(&["label", "uuid"]);
const GLOBAL: Desc =
    Desc::gauge("node_btrfs_global_rsv_size_bytes", "Room kept back for the file system itself.").labels(&["uuid"]);
const DEVICE: Desc =
    Desc::gauge("node_btrfs_device_size_bytes", "Size of a device of the file system.").labels(&["device", "uuid"]);
const RESERVED: Desc = Desc::gauge("node_btrfs_reserved_bytes", "Room reserved in groups of a type.")
    .labels(&["block_group_type", "uuid"]);
const BY_MODE: &[&str] = &["block_group_type", "mode", "uuid"];
const USED: Desc = Desc::gauge("node_btrfs_used_bytes", "Room used in groups of a type and mode.").labels(BY_MODE);
const SIZE: Desc = Desc::gauge("node_btrfs_size_bytes", "Room allocated to groups of a type and mode.").labels(BY_MODE);
const RATIO: Desc = Desc::gauge("node_btrfs_allocation_ratio", "Bytes on disk for each byte stored.").labels(BY_MODE);

/// Key of `commit_stats`, factor to the base unit, family.
const COMMITS: &[(&str, f64, Desc)] = &[
    ("commits", 1.0, Desc::counter("node_btrfs_commits_total", "Commits so far.").labels(&["uuid"])),
    (
        "last_commit_ms",
        1e-3,
        Desc::gauge("node_btrfs_last_commit_seconds", "Time that the last commit took.").labels(&["uuid"]),
    ),
    (
        "max_commit_ms",
        1e-3,
        Desc::gauge("node_btrfs_max_commit_seconds", "Time that the longest commit took.").labels(&["uuid"]),
    ),
    (
        "total_commit_ms",
        1e-3,
        Desc::counter("node_btrfs_commit_seconds_total", "Time that all commits took.").labels(&["uuid"]),
    ),
];

const SECTOR_BYTES: f64 = 512.0;

pub struct Btrfs(PathBuf);

impl Btrfs {
    pub fn new(sysfs: &Path) -> Self {
        Self(sysfs.join("fs/btrfs"))
    }
}

impl Reader for Btrfs {
    fn descs(&self) -> Vec<Desc> {
        let fixed = [INFO, GLOBAL, DEVICE, RESERVED, USED, SIZE, RATIO];
        fixed.into_iter().chain(COMMITS.iter().map(|(.., desc)| desc.clone())).collect()
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let mut found = false;
        for uuid in names_in(&self.0)? {
            let dir = self.0.join(&uuid);
            // `features` stands beside the file systems.
            if !dir.join("allocation").is_dir() {
                continue;
            }
            found = true;
            out.push(&INFO, &[&attribute(dir.join("label")).unwrap_or_default(), &uuid], 1.0);
            if let Some(bytes) = number(dir.join("allocation/global_rsv_size")) {
                out.push(&GLOBAL, &[&uuid], bytes);
            }
            let devices = names_in(&dir.join("devices")).unwrap_or_default();
            for device in &devices {
                // A device that is missing is told with size 0.
                let sectors = number(dir.join("devices").join(device).join("size")).unwrap_or(0.0);
                out.push(&DEVICE, &[device, &uuid], sectors * SECTOR_BYTES);
            }
            let commits = attribute(dir.join("commit_stats")).unwrap_or_default();
            for (key, factor, desc) in COMMITS {
                let line = commits.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
                // Kernels before 6.0 do not count commits; node_exporter tells zero then.
                out.push(desc, &[&uuid], line.and_then(parse_decimal).unwrap_or(0.0) * factor);
            }
            for kind in ["data", "metadata", "system"] {
                push_groups(&dir.join("allocation").join(kind), kind, &uuid, devices.len() as f64, out);
            }
        }
        if found { Ok(()) } else { Err(absent(&self.0.join("*/allocation"))) }
    }
}

fn push_groups(dir: &Path, kind: &str, uuid: &str, devices: f64, out: &mut Tick) {
    if let Some(bytes) = number(dir.join("bytes_reserved")) {
        out.push(&RESERVED, &[kind, uuid], bytes);
    }
    for mode in names_in(dir).unwrap_or_default() {
        let (Some(used), Some(total)) =
            (number(dir.join(&mode).join("used_bytes")), number(dir.join(&mode).join("total_bytes")))
        else {
            continue;
        };
        out.push(&USED, &[kind, &mode, uuid], used);
        out.push(&SIZE, &[kind, &mode, uuid], total);
        out.push(&RATIO, &[kind, &mode, uuid], ratio(&mode, devices));
    }
}

/// Bytes on disk for each byte stored: copies, or the share of parity among the devices.
fn ratio(mode: &str, devices: f64) -> f64 {
    match mode {
        "dup" | "raid1" | "raid10" => 2.0,
        "raid1c3" => 3.0,
        "raid1c4" => 4.0,
        "raid5" => devices / (devices - 1.0),
        "raid6" => devices / (devices - 2.0),
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn groups_devices_and_commits() {
        let tree = Tree::new(&[
            ("fs/btrfs/u1/label", "data\n"),
            ("fs/btrfs/u1/allocation/data/bytes_reserved", "5\n"),
            ("fs/btrfs/u1/allocation/data/raid1/used_bytes", "7\n"),
            ("fs/btrfs/u1/allocation/data/raid1/total_bytes", "9\n"),
            ("fs/btrfs/u1/devices/sda/size", "2\n"),
            ("fs/btrfs/u1/commit_stats", "commits 3\ntotal_commit_ms 1500\n"),
            ("fs/btrfs/features/raid56", "0\n"),
        ]);
        let got = dump(&mut Btrfs::new(tree.path()));
        for line in [
            r#"node_btrfs_allocation_ratio{block_group_type="data",mode="raid1",uuid="u1"} 2"#,
            r#"node_btrfs_commit_seconds_total{uuid="u1"} 1.5"#,
            r#"node_btrfs_device_size_bytes{device="sda",uuid="u1"} 1024"#,
            r#"node_btrfs_info{label="data",uuid="u1"} 1"#,
            r#"node_btrfs_reserved_bytes{block_group_type="data",uuid="u1"} 5"#,
        ] {
            assert!(got.contains(&line.to_owned()), "{line} not in {got:#?}");
        }
        assert_eq!(got.len(), 10);
        assert_eq!(ratio("raid5", 4.0), 4.0 / 3.0);
    }
}
