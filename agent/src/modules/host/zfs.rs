//! ZFS: its caches, transactions and logs, its pools and their data sets.
//!
//! Source: `/proc/spl/kstat/zfs`: files of `name type data` after two heading lines; per pool `io`, `state`, `objset-*`.
//! Shape:  untyped `node_zfs_<part>_<name>`, `node_zfs_zpool_<name>{zpool}`, `node_zfs_zpool_dataset_<name>{zpool,dataset}`;
//!         `node_zfs_zpool_state{zpool,state}` with 1 for the state that the pool is in.
//! Units:  the kernel's: bytes, counts, nanoseconds.
//! Errors: `Absent` without the module of the kernel; a line without a number is left out.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use lampad_proto::Number;
use lampad_proto::v1::MetricType;

use super::reader::Reader;
use super::source::{ModuleResult, attribute, names_in, parse_counter};
use crate::module::Desc;
use crate::tick::Tick;

/// File, part of the families' names.
const FILES: &[(&str, &str)] = &[
    ("abdstats", "abd"),
    ("arcstats", "arc"),
    ("dbufstats", "dbuf"),
    ("dmu_tx", "dmu_tx"),
    ("dnodestats", "dnode"),
    ("fm", "fm"),
    ("vdev_cache_stats", "vdev_cache"),
    ("vdev_mirror_stats", "vdev_mirror"),
    ("xuio_stats", "xuio"),
    ("zfetchstats", "zfetch"),
    ("zil", "zil"),
];

const STATE: Desc =
    Desc::gauge("node_zfs_zpool_state", "1 for the state that the pool is in.").labels(&["zpool", "state"]);
const STATES: [&str; 7] = ["online", "degraded", "faulted", "offline", "removed", "unavail", "suspended"];

/// The kernel's types of a number: 32 and 64 bits, signed (even less one) and not.
const NUMBERS: [&str; 4] = ["1", "2", "3", "4"];

pub struct Zfs {
    dir: PathBuf,
    descs: HashMap<String, Desc>,
}

impl Zfs {
    pub fn new(procfs: &Path) -> Self {
        Self { dir: procfs.join("spl/kstat/zfs"), descs: HashMap::new() }
    }

    fn push(&mut self, name: String, labels: &'static [&'static str], values: &[&str], value: Number, out: &mut Tick) {
        let desc = self.descs.entry(name).or_insert_with_key(|name| family(name, labels));
        out.push(desc, values, value);
    }

    fn push_pool(&mut self, pool: &str, out: &mut Tick) {
        let dir = self.dir.join(pool);
        if let Some(state) = attribute(dir.join("state")) {
            let state = state.to_ascii_lowercase();
            for name in STATES {
                out.push(&STATE, &[pool, name], if name == state { 1.0 } else { 0.0 });
            }
        }
        // A line of names, then a line of numbers, after one heading line.
        let io = attribute(dir.join("io")).unwrap_or_default();
        let mut lines = io.lines().skip(1).map(str::split_ascii_whitespace);
        if let (Some(names), Some(values)) = (lines.next(), lines.next()) {
            for (name, value) in names.zip(values) {
                if let Some(value) = parse_counter(value) {
                    self.push(format!("zpool_{name}"), &["zpool"], &[pool], value, out);
                }
            }
        }
        for file in names_in(&dir).unwrap_or_default().iter().filter(|file| file.starts_with("objset-")) {
            let text = attribute(dir.join(file)).unwrap_or_default();
            let Some(dataset) = rows(&text).find_map(|(name, _, value)| (name == "dataset_name").then_some(value))
            else {
                continue;
            };
            for (name, kind, value) in rows(&text) {
                if let Some(value) = parse_counter(value).filter(|_| NUMBERS.contains(&kind)) {
                    let name = format!("zpool_dataset_{name}");
                    self.push(name, &["zpool", "dataset"], &[pool, dataset], value, out);
                }
            }
        }
    }
}

impl Reader for Zfs {
    fn descs(&self) -> Vec<Desc> {
        let usual = ["arc_size", "arc_hits", "arc_misses", "arc_c_max", "zil_zil_commit_count"];
        usual.iter().map(|name| family(name, &[])).chain([STATE]).collect()
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let names = names_in(&self.dir)?;
        for (file, part) in FILES {
            let text = attribute(self.dir.join(file)).unwrap_or_default();
            for (name, kind, value) in rows(&text) {
                if let Some(value) = parse_counter(value).filter(|_| NUMBERS.contains(&kind)) {
                    self.push(format!("{part}_{}", name.replace('-', "_")), &[], &[], value, out);
                }
            }
        }
        for pool in &names {
            if self.dir.join(pool).is_dir() {
                self.push_pool(pool, out);
            }
        }
        Ok(())
    }
}

/// Name, type and data of each line. The name of a data set may hold blanks.
fn rows(text: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    text.lines().skip(2).filter_map(|line| {
        let (name, rest) = line.trim_start().split_once(char::is_whitespace)?;
        let (kind, data) = rest.trim_start().split_once(char::is_whitespace)?;
        Some((name, kind, data.trim()))
    })
}

fn family(name: &str, labels: &'static [&'static str]) -> Desc {
    let help = format!("ZFS: {}.", name.replace('_', " "));
    Desc::named(MetricType::Unknown, format!("node_zfs_{name}"), help).labels(labels)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn caches_pools_and_data_sets() {
        let tree = Tree::new(&[
            ("spl/kstat/zfs/arcstats", "6 1 0x01\nname type data\nhits 4 8772612\nodd 7 text\n"),
            ("spl/kstat/zfs/tank/state", "DEGRADED\n"),
            ("spl/kstat/zfs/tank/io", "12 3 0x00\nnread nwritten\n7 8\n"),
            ("spl/kstat/zfs/tank/objset-1", "23 1\nname type data\ndataset_name 7 tank/my  db\nwrites 4 9\n"),
        ]);
        let got = dump(&mut Zfs::new(tree.path()));
        for line in [
            "node_zfs_arc_hits 8772612",
            r#"node_zfs_zpool_dataset_writes{zpool="tank",dataset="tank/my  db"} 9"#,
            r#"node_zfs_zpool_nwritten{zpool="tank"} 8"#,
            r#"node_zfs_zpool_state{zpool="tank",state="degraded"} 1"#,
        ] {
            assert!(got.contains(&line.to_owned()), "{line} not in {got:#?}");
        }
        assert_eq!(got.len(), 1 + 7 + 2 + 1);
    }
}
