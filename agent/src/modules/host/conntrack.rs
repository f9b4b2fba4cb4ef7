//! The table of tracked connections: how full it is, and what was dropped.
//!
//! Source: `/proc/sys/net/netfilter/nf_conntrack_{count,max}`, `/proc/net/stat/nf_conntrack` (hexadecimal, a line per CPU).
//! Shape:  `node_nf_conntrack_*` without labels; the counters of all CPUs are added up.
//! Units:  entries; events since the start.
//! Errors: `Absent` where connections are not tracked.

use std::path::Path;

use super::reader::Reader;
use super::source::{ProcFile, parse_decimal, parse_error};
use crate::module::{Desc, ModuleError};
use crate::tick::Tick;

const ENTRIES: Desc = Desc::gauge("node_nf_conntrack_entries", "Connections that are tracked.");
const LIMIT: Desc = Desc::gauge("node_nf_conntrack_entries_limit", "Connections that can be tracked.");

/// Heading of the column, family.
const STATS: &[(&str, Desc)] = &[
    ("found", Desc::gauge("node_nf_conntrack_stat_found", "Searches that found an entry.")),
    ("invalid", Desc::gauge("node_nf_conntrack_stat_invalid", "Packets that cannot be tracked.")),
    ("ignore", Desc::gauge("node_nf_conntrack_stat_ignore", "Packets that were tracked already.")),
    ("insert", Desc::gauge("node_nf_conntrack_stat_insert", "Entries that were added.")),
    ("insert_failed", Desc::gauge("node_nf_conntrack_stat_insert_failed", "Entries that were there already.")),
    ("drop", Desc::gauge("node_nf_conntrack_stat_drop", "Packets dropped because no entry could be made.")),
    ("early_drop", Desc::gauge("node_nf_conntrack_stat_early_drop", "Entries given up to make room for new ones.")),
    ("search_restart", Desc::gauge("node_nf_conntrack_stat_search_restart", "Searches begun anew as the table grew.")),
];

pub struct Conntrack {
    count: ProcFile,
    max: ProcFile,
    stats: ProcFile,
}

impl Conntrack {
    pub fn new(procfs: &Path) -> Self {
        Self {
            count: ProcFile::new(procfs.join("sys/net/netfilter/nf_conntrack_count")),
            max: ProcFile::new(procfs.join("sys/net/netfilter/nf_conntrack_max")),
            stats: ProcFile::new(procfs.join("net/stat/nf_conntrack")),
        }
    }
}

impl Reader for Conntrack {
    fn descs(&self) -> Vec<Desc> {
        [ENTRIES, LIMIT].into_iter().chain(STATS.iter().map(|(_, desc)| desc.clone())).collect()
    }

    fn read(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        for (file, desc) in [(&mut self.count, &ENTRIES), (&mut self.max, &LIMIT)] {
            let value = parse_decimal(file.text()?.trim());
            out.push(desc, &[], value.ok_or_else(|| parse_error(file.path(), "it holds no number"))?);
        }
        let path = self.stats.path().to_owned();
        let mut lines = self.stats.text()?.lines();
        let headings: Vec<&str> = lines.next().unwrap_or_default().split_ascii_whitespace().collect();
        let mut sums = vec![0u64; headings.len()];
        for line in lines {
            for (sum, word) in sums.iter_mut().zip(line.split_ascii_whitespace()) {
                let value = u64::from_str_radix(word, 16);
                *sum += value.map_err(|_| parse_error(&path, format!("{word:?} is not hexadecimal")))?;
            }
        }
        for (heading, desc) in STATS {
            // Newer kernels dropped some columns; node_exporter tells zero then.
            let at = headings.iter().position(|name| name == heading);
            out.push(desc, &[], at.map_or(0.0, |at| sums[at] as f64));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn cpus_are_added_up() {
        let tree = Tree::new(&[
            ("sys/net/netfilter/nf_conntrack_count", "123\n"),
            ("sys/net/netfilter/nf_conntrack_max", "65536\n"),
            ("net/stat/nf_conntrack", "entries found drop\n0a 0b 00\n0a 01 10\n"),
        ]);
        let got = dump(&mut Conntrack::new(tree.path()));
        assert_eq!(got.len(), 10);
        for line in
            ["node_nf_conntrack_entries 123", "node_nf_conntrack_stat_found 12", "node_nf_conntrack_stat_drop 16"]
        {
            assert!(got.contains(&line.to_owned()), "{line}");
        }
        let empty = Tree::new(&[]);
        assert!(matches!(Conntrack::new(empty.path()).read(&mut Tick::new()), Err(ModuleError::Absent { .. })));
    }
}
