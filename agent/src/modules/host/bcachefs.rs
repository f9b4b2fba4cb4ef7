//! File systems of the bcachefs kind: their own counters, errors, compression, and I/O by device.
//!
//! Source: `/sys/fs/bcachefs/<uuid>` and its `dev-*`, as the file system writes them.
//! Shape:  `node_bcachefs_*{uuid}`; a counter for each file below `counters`, named by the file; `device`, `type` and the like
//!         where it is told by them.
//! Units:  bytes; the kernel rounds most sizes to three digits (`2.05G`), and so are the series.
//! Errors: `Absent` without such a file system; a file or line that is odd is left out.

use std::path::{Path, PathBuf};

use lampad_proto::v1::MetricType;

use super::reader::Reader;
use super::source::{ModuleResult, absent, attribute, names_in};
use crate::module::Desc;
use crate::tick::Tick;

const INFO: Desc = Desc::gauge("node_bcachefs_info", "The file system is mounted.").labels(&["uuid"]);
const CACHE: Desc =
    Desc::gauge("node_bcachefs_btree_cache_size_bytes", "Memory that the tree's cache takes.").labels(&["uuid"]);
const ALGORITHM: &[&str] = &["uuid", "algorithm"];
const COMPRESSED: Desc =
    Desc::gauge("node_bcachefs_compression_compressed_bytes", "Data as it is on disk.").labels(ALGORITHM);
const UNCOMPRESSED: Desc =
    Desc::gauge("node_bcachefs_compression_uncompressed_bytes", "Data as it is read.").labels(ALGORITHM);
const ERRORS: Desc = Desc::counter("node_bcachefs_errors_total", "Errors found since the file system was made.")
    .labels(&["uuid", "error_type"]);
const WRITES: Desc =
    Desc::counter("node_bcachefs_btree_writes_total", "Writes of tree nodes.").labels(&["uuid", "type"]);
const WRITE_SIZE: Desc =
    Desc::gauge("node_bcachefs_btree_write_average_size_bytes", "Mean size of such a write.").labels(&["uuid", "type"]);
const DEVICE: &[&str] = &["uuid", "device"];
const DEVICE_INFO: Desc = Desc::gauge("node_bcachefs_device_info", "Label and state of a device.")
    .labels(&["uuid", "device", "label", "state"]);
const IO_DONE: Desc = Desc::counter("node_bcachefs_device_io_done_bytes_total", "I/O by operation and kind of data.")
    .labels(&["uuid", "device", "operation", "data_type"]);
const IO_ERRORS: Desc =
    Desc::counter("node_bcachefs_device_io_errors_total", "I/O errors since the file system was made.")
        .labels(&["uuid", "device", "type"]);

/// File of a device, family.
const DEVICE_ROWS: &[(&str, Desc)] = &[
    ("bucket_size", Desc::gauge("node_bcachefs_device_bucket_size_bytes", "Size of a bucket.").labels(DEVICE)),
    ("nbuckets", Desc::gauge("node_bcachefs_device_buckets", "Buckets of the device.").labels(DEVICE)),
    ("durability", Desc::gauge("node_bcachefs_device_durability", "Copies that one on it counts for.").labels(DEVICE)),
];

pub struct Bcachefs(PathBuf);

impl Bcachefs {
    pub fn new(sysfs: &Path) -> Self {
        Self(sysfs.join("fs/bcachefs"))
    }
}

impl Reader for Bcachefs {
    fn descs(&self) -> Vec<Desc> {
        let fixed =
            [INFO, CACHE, COMPRESSED, UNCOMPRESSED, ERRORS, WRITES, WRITE_SIZE, DEVICE_INFO, IO_DONE, IO_ERRORS];
        fixed.into_iter().chain(DEVICE_ROWS.iter().map(|(_, desc)| desc.clone())).collect()
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let mut found = false;
        for uuid in names_in(&self.0)? {
            let dir = self.0.join(&uuid);
            if !dir.join("counters").is_dir() {
                continue;
            }
            found = true;
            out.push(&INFO, &[&uuid], 1.0);
            if let Some(bytes) = attribute(dir.join("btree_cache_size")).and_then(|text| size(&text)) {
                out.push(&CACHE, &[&uuid], bytes);
            }
            push_counters(&dir.join("counters"), &uuid, out);
            push_tables(&dir, &uuid, out);
            for name in names_in(&dir)? {
                if let Some(device) = name.strip_prefix("dev-") {
                    push_device(&dir.join(&name), &uuid, device, out);
                }
            }
        }
        if found { Ok(()) } else { Err(absent(&self.0.join("*/counters"))) }
    }
}

/// `since filesystem creation:     44.5T`
fn push_counters(dir: &Path, uuid: &str, out: &mut Tick) {
    for counter in names_in(dir).unwrap_or_default() {
        let text = attribute(dir.join(&counter)).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("since filesystem creation:"));
        let Some(value) = line.and_then(|value| size(value.trim())) else { continue };
        let name = format!("node_bcachefs_{counter}_total");
        let help = format!("Counter {counter} since the file system was made.");
        out.push(&Desc::named(MetricType::Counter, name, help).labels(&["uuid"]), &[uuid], value);
    }
}

/// Errors, compression and writes, each a table of words.
fn push_tables(dir: &Path, uuid: &str, out: &mut Tick) {
    let table = |file: &str| attribute(dir.join(file)).unwrap_or_default();
    // `bset_bad_csum     2     1767112063`: error, count, when last seen.
    for line in table("errors").lines() {
        if let [error, count, ..] = *words(line)
            && let Some(count) = size(count)
        {
            out.push(&ERRORS, &[uuid, error], count);
        }
    }
    // `zstd     226G     603G     115k`: algorithm, compressed, uncompressed, mean extent.
    for line in table("compression_stats").lines() {
        if let [algorithm, compressed, uncompressed, ..] = *words(line)
            && let (Some(compressed), Some(uncompressed)) = (size(compressed), size(uncompressed))
        {
            out.push(&COMPRESSED, &[uuid, algorithm], compressed);
            out.push(&UNCOMPRESSED, &[uuid, algorithm], uncompressed);
        }
    }
    // `initial:     3298401     100k`: kind, writes, mean size.
    for line in table("btree_write_stats").lines() {
        if let [kind, writes, mean] = *words(line)
            && let (Some(kind), Some(writes), Some(mean)) = (kind.strip_suffix(':'), size(writes), size(mean))
        {
            out.push(&WRITES, &[uuid, kind], writes);
            out.push(&WRITE_SIZE, &[uuid, kind], mean);
        }
    }
}

fn push_device(dir: &Path, uuid: &str, device: &str, out: &mut Tick) {
    let text = |file: &str| attribute(dir.join(file)).unwrap_or_default();
    out.push(&DEVICE_INFO, &[uuid, device, &text("label"), &text("state")], 1.0);
    for (file, desc) in DEVICE_ROWS {
        if let Some(value) = size(&text(file)) {
            out.push(desc, &[uuid, device], value);
        }
    }
    // `read:`, then `btree       :     8912896` and more, then `write:` likewise.
    let io_done = text("io_done");
    let mut operation = "";
    for (key, value) in io_done.lines().filter_map(|line| line.split_once(':')) {
        match value.trim() {
            "" => operation = key.trim(),
            value => {
                if let Some(bytes) = size(value) {
                    out.push(&IO_DONE, &[uuid, device, operation, key.trim()], bytes);
                }
            }
        }
    }
    // Two sections: since the file system was made, and since somebody set the second one back.
    let io_errors = text("io_errors");
    for (kind, count) in io_errors.lines().skip(1).map_while(|line| line.split_once(':')) {
        if let Some(count) = size(count.trim()) {
            out.push(&IO_ERRORS, &[uuid, device, kind.trim()], count);
        }
    }
}

fn words(line: &str) -> Box<[&str]> {
    line.split_ascii_whitespace().collect()
}

/// A number with the kernel's suffix, in whole bytes.
fn size(text: &str) -> Option<f64> {
    let number = text.trim_end_matches(['k', 'M', 'G', 'T', 'P', 'E']);
    let power = match &text[number.len()..] {
        "" => return text.parse().ok(),
        "k" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        "P" => 5,
        "E" => 6,
        _ => return None,
    };
    Some((number.parse::<f64>().ok()? * 1024f64.powi(power)).trunc())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn counters_tables_and_devices() {
        let tree = Tree::new(&[
            ("fs/bcachefs/u/btree_cache_size", "2.05G\n"),
            ("fs/bcachefs/u/counters/data_read", "since mount:       475G\nsince filesystem creation:     44.5T\n"),
            ("fs/bcachefs/u/errors", "bset_bad_csum     2     1767112063\n"),
            ("fs/bcachefs/u/compression_stats", "typetype   compressed  uncompressed\nzstd  226G  603G  115k\n"),
            ("fs/bcachefs/u/btree_write_stats", "          nr    size\ninterior:  303   1.26k\n"),
            ("fs/bcachefs/u/dev-6/label", "disk-6\n"),
            ("fs/bcachefs/u/dev-6/nbuckets", "953864\n"),
            ("fs/bcachefs/u/dev-6/io_done", "read:\nsb   :   86016\nwrite:\nsb   :   7\n"),
            ("fs/bcachefs/u/dev-6/io_errors", "IO errors since a\n  read:    18\nIO errors since b\n  read:  9\n"),
        ]);
        assert_eq!(
            dump(&mut Bcachefs::new(tree.path())),
            [
                r#"node_bcachefs_btree_cache_size_bytes{uuid="u"} 2201170739"#,
                r#"node_bcachefs_btree_write_average_size_bytes{uuid="u",type="interior"} 1290"#,
                r#"node_bcachefs_btree_writes_total{uuid="u",type="interior"} 303"#,
                r#"node_bcachefs_compression_compressed_bytes{uuid="u",algorithm="zstd"} 242665652224"#,
                r#"node_bcachefs_compression_uncompressed_bytes{uuid="u",algorithm="zstd"} 647466319872"#,
                r#"node_bcachefs_data_read_total{uuid="u"} 48928267436032"#,
                r#"node_bcachefs_device_buckets{uuid="u",device="6"} 953864"#,
                r#"node_bcachefs_device_info{uuid="u",device="6",label="disk-6",state=""} 1"#,
                r#"node_bcachefs_device_io_done_bytes_total{uuid="u",device="6",operation="read",data_type="sb"} 86016"#,
                r#"node_bcachefs_device_io_done_bytes_total{uuid="u",device="6",operation="write",data_type="sb"} 7"#,
                r#"node_bcachefs_device_io_errors_total{uuid="u",device="6",type="read"} 18"#,
                r#"node_bcachefs_errors_total{uuid="u",error_type="bset_bad_csum"} 2"#,
                r#"node_bcachefs_info{uuid="u"} 1"#,
            ]
        );
    }
}
