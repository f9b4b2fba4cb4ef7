//! What XFS does on each device.
//!
//! Source: `/sys/fs/xfs/*/stats/stats`: a line per group of counters, see the kernel's XFS statistics.
//! Shape:  counters by `device`.
//! Units:  operations, blocks, extents and inodes since the mount.
//! Errors: `Absent` without a mounted XFS; a group that this kernel lacks is left out.

use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::source::{ModuleResult, absent, attribute, names_in, parse_counter};
use crate::module::Desc;
use crate::tick::Tick;

const fn counter(name: &'static str, help: &'static str) -> Desc {
    Desc::counter(name, help).labels(&["device"])
}

/// First word of the line, then the families in the order of its numbers.
const GROUPS: &[(&str, &[Desc])] = &[
    (
        "extent_alloc",
        &[
            counter("node_xfs_extent_allocation_extents_allocated_total", "Extents that were allocated."),
            counter("node_xfs_extent_allocation_blocks_allocated_total", "Blocks that were allocated."),
            counter("node_xfs_extent_allocation_extents_freed_total", "Extents that were freed."),
            counter("node_xfs_extent_allocation_blocks_freed_total", "Blocks that were freed."),
        ],
    ),
    (
        "abt",
        &[
            counter("node_xfs_allocation_btree_lookups_total", "Look-ups in the trees of free room."),
            counter("node_xfs_allocation_btree_compares_total", "Comparisons in the trees of free room."),
            counter("node_xfs_allocation_btree_records_inserted_total", "Records put into the trees of free room."),
            counter("node_xfs_allocation_btree_records_deleted_total", "Records taken from the trees of free room."),
        ],
    ),
    (
        "blk_map",
        &[
            counter("node_xfs_block_mapping_reads_total", "Block maps for reading."),
            counter("node_xfs_block_mapping_writes_total", "Block maps for writing."),
            counter("node_xfs_block_mapping_unmaps_total", "Block maps taken back."),
            counter("node_xfs_block_mapping_extent_list_insertions_total", "Extents put into lists."),
            counter("node_xfs_block_mapping_extent_list_deletions_total", "Extents taken from lists."),
            counter("node_xfs_block_mapping_extent_list_lookups_total", "Look-ups in lists of extents."),
            counter("node_xfs_block_mapping_extent_list_compares_total", "Comparisons in lists of extents."),
        ],
    ),
    (
        "bmbt",
        &[
            counter("node_xfs_block_map_btree_lookups_total", "Look-ups in block map trees."),
            counter("node_xfs_block_map_btree_compares_total", "Comparisons in block map trees."),
            counter("node_xfs_block_map_btree_records_inserted_total", "Records put into block map trees."),
            counter("node_xfs_block_map_btree_records_deleted_total", "Records taken from block map trees."),
        ],
    ),
    (
        "dir",
        &[
            counter("node_xfs_directory_operation_lookup_total", "Names looked up in directories."),
            counter("node_xfs_directory_operation_create_total", "Names put into directories."),
            counter("node_xfs_directory_operation_remove_total", "Names taken from directories."),
            counter("node_xfs_directory_operation_getdents_total", "Reads of directories."),
        ],
    ),
    (
        "ig",
        &[
            counter("node_xfs_inode_operation_attempts_total", "Inodes looked for in the cache."),
            counter("node_xfs_inode_operation_found_total", "Inodes found in the cache."),
            counter("node_xfs_inode_operation_recycled_total", "Inodes found in the cache while being given up."),
            counter("node_xfs_inode_operation_missed_total", "Inodes not found in the cache."),
            counter("node_xfs_inode_operation_duplicates_total", "Inodes that another task put into the cache first."),
            counter("node_xfs_inode_operation_reclaims_total", "Inodes taken from the cache."),
            counter("node_xfs_inode_operation_attribute_changes_total", "Changes of inode attributes."),
        ],
    ),
    // Writes stand before reads.
    (
        "rw",
        &[
            counter("node_xfs_write_calls_total", "Calls of write on files."),
            counter("node_xfs_read_calls_total", "Calls of read on files."),
        ],
    ),
    (
        "vnodes",
        &[
            counter("node_xfs_vnode_active_total", "Vnodes not on the free list."),
            counter("node_xfs_vnode_allocate_total", "Times a vnode was allocated."),
            counter("node_xfs_vnode_get_total", "Times a vnode was got."),
            counter("node_xfs_vnode_hold_total", "Times a vnode was held."),
            counter("node_xfs_vnode_release_total", "Times a vnode was released."),
            counter("node_xfs_vnode_reclaim_total", "Times a vnode was reclaimed."),
            counter("node_xfs_vnode_remove_total", "Times a vnode was removed."),
        ],
    ),
];

pub struct Xfs(PathBuf);

impl Xfs {
    pub fn new(sysfs: &Path) -> Self {
        Self(sysfs.join("fs/xfs"))
    }
}

impl Reader for Xfs {
    fn descs(&self) -> Vec<Desc> {
        GROUPS.iter().flat_map(|(_, descs)| descs.iter().cloned()).collect()
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let mut found = false;
        for device in names_in(&self.0)? {
            // `stats` beside the devices holds the sums of all.
            let Some(text) = attribute(self.0.join(&device).join("stats/stats")) else { continue };
            found = true;
            for line in text.lines() {
                let mut words = line.split_ascii_whitespace();
                let key = words.next().unwrap_or_default();
                let Some((_, descs)) = GROUPS.iter().find(|(name, _)| *name == key) else { continue };
                for (desc, word) in descs.iter().zip(words) {
                    if let Some(value) = parse_counter(word) {
                        out.push(desc, &[&device], value);
                    }
                }
            }
        }
        if found { Ok(()) } else { Err(absent(&self.0.join("*/stats/stats"))) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn groups_are_found_by_name() {
        let tree =
            Tree::new(&[("fs/xfs/sda1/stats/stats", "rw 28 3\nnew 1 2\ndir 3 2\nqm 0\n"), ("fs/xfs/stats/clear", "")]);
        assert_eq!(
            dump(&mut Xfs::new(tree.path())),
            [
                r#"node_xfs_directory_operation_create_total{device="sda1"} 2"#,
                r#"node_xfs_directory_operation_lookup_total{device="sda1"} 3"#,
                r#"node_xfs_read_calls_total{device="sda1"} 3"#,
                r#"node_xfs_write_calls_total{device="sda1"} 28"#,
            ]
        );
    }
}
