//! Three small tables of the kernel, off by default as with node_exporter: free memory by size of block, control groups, and
//! pages that are merged (KSM).
//!
//! Source: `/proc/buddyinfo`, `/proc/cgroups`, `/sys/kernel/mm/ksm`.
//! Shape:  `node_buddyinfo_blocks{node,zone,size}`, `node_cgroups_*{subsys_name}`, `node_ksmd_*`.
//! Units:  blocks of 2^size pages; pages; seconds (the kernel counts milliseconds).
//! Errors: `Absent` where the kernel was built without it; `Parse` for an odd line.

use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::source::{ModuleResult, ProcFile, absent, number, parse_decimal, parse_error};
use crate::module::Desc;
use crate::tick::Tick;

const BLOCKS: Desc =
    Desc::gauge("node_buddyinfo_blocks", "Free blocks of memory by size.").labels(&["node", "zone", "size"]);

pub struct BuddyInfo(ProcFile);

impl BuddyInfo {
    pub fn new(procfs: &Path) -> Self {
        Self(ProcFile::new(procfs.join("buddyinfo")))
    }
}

impl Reader for BuddyInfo {
    fn descs(&self) -> Vec<Desc> {
        vec![BLOCKS]
    }

    /// `Node 0, zone    DMA32    759    572`
    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let path = self.0.path().to_owned();
        for line in self.0.text()?.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some("Node"), Some(node), Some("zone"), Some(zone)) =
                (words.next(), words.next(), words.next(), words.next())
            else {
                return Err(parse_error(&path, format!("no zone in {line:?}")));
            };
            let node = node.trim_end_matches(',');
            for (size, word) in words.enumerate() {
                let blocks = parse_decimal(word).ok_or_else(|| parse_error(&path, format!("{word:?} in {line:?}")))?;
                out.push(&BLOCKS, &[node, zone, &size.to_string()], blocks);
            }
        }
        Ok(())
    }
}

const GROUPS: Desc = Desc::gauge("node_cgroups_cgroups", "Control groups of the controller.").labels(&["subsys_name"]);
const ENABLED: Desc = Desc::gauge("node_cgroups_enabled", "1 if the controller is on.").labels(&["subsys_name"]);

pub struct Cgroups(ProcFile);

impl Cgroups {
    pub fn new(procfs: &Path) -> Self {
        Self(ProcFile::new(procfs.join("cgroups")))
    }
}

impl Reader for Cgroups {
    fn descs(&self) -> Vec<Desc> {
        vec![GROUPS, ENABLED]
    }

    /// `cpuset  5  47  1`: name, hierarchy, groups, enabled.
    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let path = self.0.path().to_owned();
        for line in self.0.text()?.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let &[name, _, groups, enabled] = words.as_slice() else {
                return Err(parse_error(&path, format!("not four columns in {line:?}")));
            };
            for (desc, word) in [(&GROUPS, groups), (&ENABLED, enabled)] {
                let value = parse_decimal(word).ok_or_else(|| parse_error(&path, format!("{word:?} in {line:?}")))?;
                out.push(desc, &[name], value);
            }
        }
        Ok(())
    }
}

/// File, units of the file in a base unit, family.
const KSM: &[(&str, f64, Desc)] = &[
    ("full_scans", 1.0, Desc::counter("node_ksmd_full_scans_total", "Times all memory was looked through.")),
    ("general_profit", 1.0, Desc::gauge("node_ksmd_general_profit_bytes", "Memory saved, less what it costs.")),
    (
        "merge_across_nodes",
        1.0,
        Desc::gauge("node_ksmd_merge_across_nodes", "1 if pages of different nodes are merged."),
    ),
    ("pages_shared", 1.0, Desc::gauge("node_ksmd_pages_shared", "Pages that others share.")),
    ("pages_sharing", 1.0, Desc::gauge("node_ksmd_pages_sharing", "Pages that share another one.")),
    ("pages_to_scan", 1.0, Desc::gauge("node_ksmd_pages_to_scan", "Pages looked at before each rest.")),
    ("pages_unshared", 1.0, Desc::gauge("node_ksmd_pages_unshared", "Pages without an equal.")),
    ("pages_volatile", 1.0, Desc::gauge("node_ksmd_pages_volatile", "Pages that change too fast.")),
    ("run", 1.0, Desc::gauge("node_ksmd_run", "1 if pages are merged, 2 if they are being parted.")),
    ("sleep_millisecs", 1e3, Desc::gauge("node_ksmd_sleep_seconds", "Length of each rest.")),
];

pub struct Ksmd(PathBuf);

impl Ksmd {
    pub fn new(sysfs: &Path) -> Self {
        Self(sysfs.join("kernel/mm/ksm"))
    }
}

impl Reader for Ksmd {
    fn descs(&self) -> Vec<Desc> {
        KSM.iter().map(|(.., desc)| desc.clone()).collect()
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        if !self.0.is_dir() {
            return Err(absent(&self.0));
        }
        for (file, units, desc) in KSM {
            if let Some(value) = number(self.0.join(file)) {
                out.push(desc, &[], value / units);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn tables_become_series() {
        let tree = Tree::new(&[
            ("buddyinfo", "Node 0, zone    DMA      1      5\n"),
            ("cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t3\t172\t1\n"),
            ("kernel/mm/ksm/sleep_millisecs", "20\n"),
        ]);
        assert_eq!(
            dump(&mut BuddyInfo::new(tree.path())),
            [
                r#"node_buddyinfo_blocks{node="0",zone="DMA",size="0"} 1"#,
                r#"node_buddyinfo_blocks{node="0",zone="DMA",size="1"} 5"#
            ]
        );
        assert_eq!(
            dump(&mut Cgroups::new(tree.path())),
            [r#"node_cgroups_cgroups{subsys_name="cpu"} 172"#, r#"node_cgroups_enabled{subsys_name="cpu"} 1"#]
        );
        assert_eq!(dump(&mut Ksmd::new(tree.path())), ["node_ksmd_sleep_seconds 0.02"]);
        for (name, text) in [("buddyinfo", "zone DMA 1\n"), ("cgroups", "cpu 3\n")] {
            tree.write(name, text);
        }
        assert!(BuddyInfo::new(tree.path()).read(&mut Tick::new()).is_err());
        assert!(Cgroups::new(tree.path()).read(&mut Tick::new()).is_err());
    }
}
