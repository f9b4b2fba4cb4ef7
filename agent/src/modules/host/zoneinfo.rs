//! Memory by zone: watermarks, pages by use, and where NUMA nodes found theirs. Off by default.
//!
//! Source: `/proc/zoneinfo`, see proc_zoneinfo(5).
//! Shape:  `node_zoneinfo_*{node,zone}`; what the kernel counts by node it prints with the first zone, and so it is told.
//! Units:  pages; allocations for `numa_*`.
//! Errors: `Absent` without the file; a line that this kernel lacks is left out.

use std::path::Path;

use super::reader::Reader;
use super::source::{ModuleResult, ProcFile, parse_decimal};
use crate::module::Desc;
use crate::tick::Tick;

const LABELS: &[&str] = &["node", "zone"];

const fn gauge(name: &'static str, help: &'static str) -> Desc {
    Desc::gauge(name, help).labels(LABELS)
}

const fn counter(name: &'static str, help: &'static str) -> Desc {
    Desc::counter(name, help).labels(LABELS)
}

/// Key of the file, family.
const ROWS: &[(&str, Desc)] = &[
    ("min", gauge("node_zoneinfo_min_pages", "Free pages below which only urgent requests are served.")),
    ("low", gauge("node_zoneinfo_low_pages", "Free pages below which the kernel begins to reclaim.")),
    ("high", gauge("node_zoneinfo_high_pages", "Free pages above which it stops.")),
    ("scanned", gauge("node_zoneinfo_scanned_pages", "Pages looked at since the last reclaim.")),
    ("spanned", gauge("node_zoneinfo_spanned_pages", "Pages from the zone's begin to its end.")),
    ("present", gauge("node_zoneinfo_present_pages", "Pages that exist in it.")),
    ("managed", gauge("node_zoneinfo_managed_pages", "Pages that can be allocated.")),
    ("nr_free_pages", gauge("node_zoneinfo_nr_free_pages", "Pages that are free.")),
    ("nr_active_anon", gauge("node_zoneinfo_nr_active_anon_pages", "Anonymous pages used of late.")),
    ("nr_inactive_anon", gauge("node_zoneinfo_nr_inactive_anon_pages", "Anonymous pages not used of late.")),
    ("nr_isolated_anon", gauge("node_zoneinfo_nr_isolated_anon_pages", "Anonymous pages taken off the lists.")),
    ("nr_anon_pages", gauge("node_zoneinfo_nr_anon_pages", "Anonymous pages of processes.")),
    (
        "nr_anon_transparent_hugepages",
        gauge("node_zoneinfo_nr_anon_transparent_hugepages", "Anonymous huge pages made by the kernel itself."),
    ),
    ("nr_active_file", gauge("node_zoneinfo_nr_active_file_pages", "Pages of files used of late.")),
    ("nr_inactive_file", gauge("node_zoneinfo_nr_inactive_file_pages", "Pages of files not used of late.")),
    ("nr_isolated_file", gauge("node_zoneinfo_nr_isolated_file_pages", "Pages of files taken off the lists.")),
    ("nr_file_pages", gauge("node_zoneinfo_nr_file_pages", "Pages of files.")),
    ("nr_slab_reclaimable", gauge("node_zoneinfo_nr_slab_reclaimable_pages", "Slab pages that can be given back.")),
    ("nr_slab_unreclaimable", gauge("node_zoneinfo_nr_slab_unreclaimable_pages", "Slab pages that cannot.")),
    ("nr_mlock_stack", gauge("node_zoneinfo_nr_mlock_stack_pages", "Locked pages of stacks.")),
    ("nr_kernel_stack", gauge("node_zoneinfo_nr_kernel_stacks", "Stacks of the kernel, in KiB.")),
    ("nr_mapped", gauge("node_zoneinfo_nr_mapped_pages", "Pages of files that are mapped.")),
    ("nr_dirty", gauge("node_zoneinfo_nr_dirty_pages", "Pages to be written.")),
    ("nr_writeback", gauge("node_zoneinfo_nr_writeback_pages", "Pages being written.")),
    ("nr_unevictable", gauge("node_zoneinfo_nr_unevictable_pages", "Pages that cannot be taken out.")),
    ("nr_shmem", gauge("node_zoneinfo_nr_shmem_pages", "Shared memory.")),
    ("nr_dirtied", counter("node_zoneinfo_nr_dirtied_total", "Pages that became dirty.")),
    ("nr_written", counter("node_zoneinfo_nr_written_total", "Pages written.")),
    ("numa_hit", counter("node_zoneinfo_numa_hit_total", "Allocated on the node wanted.")),
    ("numa_miss", counter("node_zoneinfo_numa_miss_total", "Allocated here, wanted elsewhere.")),
    ("numa_foreign", counter("node_zoneinfo_numa_foreign_total", "Wanted here, allocated elsewhere.")),
    ("numa_interleave", counter("node_zoneinfo_numa_interleave_total", "Interleaved and allocated here.")),
    ("numa_local", counter("node_zoneinfo_numa_local_total", "Allocated for a process of this node.")),
    ("numa_other", counter("node_zoneinfo_numa_other_total", "Allocated for a process of another node.")),
];

const PROTECTION_HELP: &str = "Pages kept back from requests that could be served by another zone.";
const PROTECTION: &[Desc] = &[
    gauge("node_zoneinfo_protection_0", PROTECTION_HELP),
    gauge("node_zoneinfo_protection_1", PROTECTION_HELP),
    gauge("node_zoneinfo_protection_2", PROTECTION_HELP),
    gauge("node_zoneinfo_protection_3", PROTECTION_HELP),
    gauge("node_zoneinfo_protection_4", PROTECTION_HELP),
];

pub struct ZoneInfo(ProcFile);

impl ZoneInfo {
    pub fn new(procfs: &Path) -> Self {
        Self(ProcFile::new(procfs.join("zoneinfo")))
    }
}

impl Reader for ZoneInfo {
    fn descs(&self) -> Vec<Desc> {
        ROWS.iter().map(|(_, desc)| desc.clone()).chain(PROTECTION.iter().cloned()).collect()
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let (mut node, mut zone) = ("", "");
        for line in self.0.text()?.lines() {
            // `Node 0, zone   Normal`
            if let Some((of, name)) = line.strip_prefix("Node ").and_then(|rest| rest.split_once(", zone")) {
                (node, zone) = (of, name.trim());
                continue;
            }
            let line = line.trim_start();
            if let Some(pages) = line.strip_prefix("protection:") {
                let pages = pages.trim().trim_matches(['(', ')']).split(", ");
                for (desc, pages) in PROTECTION.iter().zip(pages.filter_map(parse_decimal)) {
                    out.push(desc, &[node, zone], pages);
                }
            } else if let Some((key, value)) = line.split_once(char::is_whitespace)
                && let Some((_, desc)) = ROWS.iter().find(|(row, _)| *row == key)
                && let Some(value) = parse_decimal(value.trim())
            {
                out.push(desc, &[node, zone], value);
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
    fn zones_are_told_apart() {
        let text = "Node 0, zone      DMA\n  per-node stats\n      nr_dirtied   118\n  pages free     2949\n        high     14\n        \
                    protection: (0, 2039)\n      numa_hit     1\n  pagesets\n    cpu: 0\n              high:  378\n\
                    Node 1, zone   Normal\n        high     31\n";
        let tree = Tree::new(&[("zoneinfo", text)]);
        assert_eq!(
            dump(&mut ZoneInfo::new(tree.path())),
            [
                r#"node_zoneinfo_high_pages{node="0",zone="DMA"} 14"#,
                r#"node_zoneinfo_high_pages{node="1",zone="Normal"} 31"#,
                r#"node_zoneinfo_nr_dirtied_total{node="0",zone="DMA"} 118"#,
                r#"node_zoneinfo_numa_hit_total{node="0",zone="DMA"} 1"#,
                r#"node_zoneinfo_protection_0{node="0",zone="DMA"} 0"#,
                r#"node_zoneinfo_protection_1{node="0",zone="DMA"} 2039"#,
            ]
        );
    }
}
