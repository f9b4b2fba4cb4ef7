//! Disks that are cached on faster ones by bcache.
//!
//! Source: `/sys/fs/bcache/<uuid>` and its `bdev*` and `cache*`, see the kernel's admin-guide/bcache.
//! Shape:  `node_bcache_*{uuid}`, with `backing_device` or `cache_device` where it is told by device.
//! Units:  bytes, sectors and seconds, by the rules that node_exporter reads the kernel's rounded sizes by: `1.1M` is 1 MiB
//!         and 100 KiB, and the mean time of a read is taken for nanoseconds although its file says `_us`.
//! Errors: `Absent` without such a file system; a file that is missing is left out.

use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::source::{ModuleResult, absent, attribute, names_in};
use crate::module::Desc;
use crate::tick::Tick;

const SET: &[&str] = &["uuid"];
const BACKING: &[&str] = &["backing_device", "uuid"];
const CACHE: &[&str] = &["cache_device", "uuid"];

/// File, factor to the base unit, family.
type Row = (&'static str, f64, Desc);

const fn gauge(file: &'static str, name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Row {
    (file, 1.0, Desc::gauge(name, help).labels(labels))
}

const fn counter(file: &'static str, name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Row {
    (file, 1.0, Desc::counter(name, help).labels(labels))
}

const SET_ROWS: &[Row] = &[
    gauge("average_key_size", "node_bcache_average_key_size_sectors", "Mean data of a key of the tree.", SET),
    gauge("btree_cache_size", "node_bcache_btree_cache_size_bytes", "Memory that the tree's cache takes.", SET),
    gauge("cache_available_percent", "node_bcache_cache_available_percent", "Cache without data to write back.", SET),
    gauge("congested", "node_bcache_congested", "How far the cache is from keeping up.", SET),
    gauge("root_usage_percent", "node_bcache_root_usage_percent", "Fill of the tree's root.", SET),
    gauge("tree_depth", "node_bcache_tree_depth", "Depth of the tree.", SET),
    gauge(
        "internal/active_journal_entries",
        "node_bcache_active_journal_entries",
        "Entries newer than the index.",
        SET,
    ),
    gauge("internal/btree_nodes", "node_bcache_btree_nodes", "Nodes of the tree.", SET),
    (
        "internal/btree_read_average_duration_us",
        1e-9,
        Desc::gauge("node_bcache_btree_read_average_duration_seconds", "Mean time to read a node.").labels(SET),
    ),
    counter(
        "internal/cache_read_races",
        "node_bcache_cache_read_races_total",
        "Times that data was overwritten while it was read.",
        SET,
    ),
];

const BACKING_ROWS: &[Row] = &[
    gauge("dirty_data", "node_bcache_dirty_data_bytes", "Data that is only in the cache.", BACKING),
    counter("stats_total/bypassed", "node_bcache_bypassed_bytes_total", "I/O that went past the cache.", BACKING),
    counter("stats_total/cache_hits", "node_bcache_cache_hits_total", "Reads that the cache served.", BACKING),
    counter("stats_total/cache_misses", "node_bcache_cache_misses_total", "Reads that went to the disk.", BACKING),
    counter(
        "stats_total/cache_bypass_hits",
        "node_bcache_cache_bypass_hits_total",
        "Hits of I/O meant to go past the cache.",
        BACKING,
    ),
    counter(
        "stats_total/cache_bypass_misses",
        "node_bcache_cache_bypass_misses_total",
        "Misses of I/O meant to go past the cache.",
        BACKING,
    ),
    counter(
        "stats_total/cache_miss_collisions",
        "node_bcache_cache_miss_collisions_total",
        "Misses whose data was written before the cache had it.",
        BACKING,
    ),
    // Gone from newer kernels, where node_exporter tells zero.
    counter("stats_total/cache_readaheads", "node_bcache_cache_readaheads_total", "Reads ahead.", BACKING),
];

/// Key of `writeback_rate_debug`, family.
const WRITEBACK: &[Row] = &[
    gauge("target", "node_bcache_dirty_target_bytes", "Data only in the cache that the device aims at.", BACKING),
    gauge("rate", "node_bcache_writeback_rate", "Bytes written back each second.", BACKING),
    gauge("proportional", "node_bcache_writeback_rate_proportional_term", "Proportional part of the rate.", BACKING),
    gauge("integral", "node_bcache_writeback_rate_integral_term", "Integral part of the rate.", BACKING),
    gauge("change", "node_bcache_writeback_change", "Last change of the rate.", BACKING),
];

const CACHE_ROWS: &[Row] = &[
    gauge("io_errors", "node_bcache_io_errors", "I/O errors of the device of late, decaying.", CACHE),
    counter("metadata_written", "node_bcache_metadata_written_bytes_total", "Written that is no data.", CACHE),
    counter("written", "node_bcache_written_bytes_total", "Data written to the cache.", CACHE),
];

/// Key of `priority_stats`, family.
const PRIORITY: &[Row] = &[
    gauge("Unused", "node_bcache_priority_stats_unused_percent", "Cache that holds no data.", CACHE),
    gauge("Metadata", "node_bcache_priority_stats_metadata_percent", "Cache that holds metadata.", CACHE),
];

pub struct Bcache {
    dir: PathBuf,
    priority_stats: bool,
}

impl Bcache {
    /// `priority_stats` costs the kernel a walk over the whole cache.
    pub fn new(sysfs: &Path, priority_stats: bool) -> Self {
        Self { dir: sysfs.join("fs/bcache"), priority_stats }
    }

    fn push_cache(&self, dir: &Path, labels: &[&str], out: &mut Tick) {
        push_files(dir, CACHE_ROWS, labels, out);
        if self.priority_stats {
            push_lines(&attribute(dir.join("priority_stats")).unwrap_or_default(), PRIORITY, labels, out);
        }
    }
}

impl Reader for Bcache {
    fn descs(&self) -> Vec<Desc> {
        let tables = [SET_ROWS, BACKING_ROWS, WRITEBACK, CACHE_ROWS, PRIORITY];
        tables.into_iter().flatten().map(|(.., desc)| desc.clone()).collect()
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let mut found = false;
        for uuid in names_in(&self.dir)? {
            // `register` and the like stand beside the sets.
            let dir = self.dir.join(&uuid);
            if !dir.join("cache_available_percent").exists() {
                continue;
            }
            found = true;
            push_files(&dir, SET_ROWS, &[&uuid], out);
            for name in names_in(&dir)? {
                let member = dir.join(&name);
                if name.starts_with("bdev") {
                    push_files(&member, BACKING_ROWS, &[&name, &uuid], out);
                    let debug = attribute(member.join("writeback_rate_debug")).unwrap_or_default();
                    push_lines(&debug, WRITEBACK, &[&name, &uuid], out);
                } else if name.starts_with("cache") && member.is_dir() {
                    self.push_cache(&member, &[&name, &uuid], out);
                }
            }
        }
        if found { Ok(()) } else { Err(absent(&self.dir.join("*/cache_available_percent"))) }
    }
}

fn push_files(dir: &Path, rows: &[Row], labels: &[&str], out: &mut Tick) {
    for (file, factor, desc) in rows {
        if let Some(value) = attribute(dir.join(file)).and_then(|text| rounded(&text)) {
            out.push(desc, labels, value * factor);
        }
    }
}

/// `rate:           1.1M/sec`, `Unused:         99%`
fn push_lines(text: &str, rows: &[Row], labels: &[&str], out: &mut Tick) {
    for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
        let value = value.trim().trim_end_matches("/sec").trim_end_matches('%');
        if let (Some((.., desc)), Some(value)) = (rows.iter().find(|(row, ..)| *row == key), rounded(value)) {
            out.push(desc, labels, value);
        }
    }
}

/// A size that the kernel rounded. Its digit behind the point counts hundreds of the next smaller unit.
fn rounded(text: &str) -> Option<f64> {
    let (text, unit) = match text.char_indices().last()? {
        (at, suffix @ ('k' | 'M' | 'G' | 'T' | 'P' | 'E' | 'Z' | 'Y')) => {
            (&text[..at], "kMGTPEZY".find(suffix).map_or(0, |place| place as i32 + 1))
        }
        _ => (text, 0),
    };
    let Some((whole, tenth)) = text.split_once('.') else {
        return Some(text.parse::<f64>().ok()? * 1024f64.powi(unit));
    };
    let sign = if whole.starts_with('-') { -1.0 } else { 1.0 };
    let (whole, tenth) = (whole.parse::<f64>().ok()?, tenth.parse::<f64>().ok()?);
    Some(whole * 1024f64.powi(unit) + sign * tenth * 100.0 * 1024f64.powi(unit - 1))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn sizes_are_read_as_node_exporter_reads_them() {
        for (text, value) in [
            ("0", Some(0.0)),
            ("512", Some(512.0)),
            ("1.1M", Some(1_150_976.0)),
            ("20.4G", Some(21_894_266_880.0)),
            ("-321.5k", Some(-329_204.0)),
            ("4k", Some(4096.0)),
            ("", None),
            ("k", None),
            ("N/A", None),
        ] {
            assert_eq!(rounded(text), value, "{text:?}");
        }
    }

    #[test]
    fn sets_and_their_devices() {
        let tree = Tree::new(&[
            ("fs/bcache/register", ""),
            ("fs/bcache/u/cache_available_percent", "99\n"),
            ("fs/bcache/u/internal/btree_read_average_duration_us", "1305\n"),
            ("fs/bcache/u/bdev0/stats_total/cache_hits", "546\n"),
            ("fs/bcache/u/bdev0/writeback_rate_debug", "rate:\t\t1.1M/sec\nnext io:\t17ms\n"),
            ("fs/bcache/u/cache0/written", "2.0k\n"),
            ("fs/bcache/u/cache0/priority_stats", "Unused:\t\t99%\nQuantiles:\t[0 0]\n"),
        ]);
        assert_eq!(
            dump(&mut Bcache::new(tree.path(), true)),
            [
                r#"node_bcache_btree_read_average_duration_seconds{uuid="u"} 0.000001305"#,
                r#"node_bcache_cache_available_percent{uuid="u"} 99"#,
                r#"node_bcache_cache_hits_total{backing_device="bdev0",uuid="u"} 546"#,
                r#"node_bcache_priority_stats_unused_percent{cache_device="cache0",uuid="u"} 99"#,
                r#"node_bcache_writeback_rate{backing_device="bdev0",uuid="u"} 1150976"#,
                r#"node_bcache_written_bytes_total{cache_device="cache0",uuid="u"} 2048"#,
            ]
        );
        assert!(!dump(&mut Bcache::new(tree.path(), false)).iter().any(|line| line.contains("priority")));
    }
}
