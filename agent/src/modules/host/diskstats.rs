//! Reads, writes, discards and flushes of each disk, and the time they took.
//!
//! Source: `/proc/diskstats`, see the kernel's admin-guide/iostats. Read by hand: it is a vital sign, read four times a second.
//! Shape:  `node_disk_*{device}`; kernels before 4.18 have no discards, those before 5.5 no flushes: left out then.
//! Units:  bytes (a sector here is 512 bytes whatever the disk's is), seconds (the file counts milliseconds).
//! Errors: `Parse` for a line with fewer than 14 columns.

use std::collections::HashMap;
use std::path::Path;

use super::reader::Reader;
use super::settings::DeviceFilter;
use super::source::{ProcFile, parse_decimal, parse_error};
use crate::module::{Desc, ModuleError};
use crate::tick::Tick;

const SECTOR_BYTES: f64 = 512.0;

const fn counter(name: &'static str, help: &'static str) -> Desc {
    Desc::counter(name, help).labels(&["device"])
}

enum Unit {
    One,
    Sectors,
    Millis,
}
use Unit::{Millis, One, Sectors};

/// The columns after the device's name, in their order.
const COLUMNS: &[(Desc, Unit)] = &[
    (counter("node_disk_reads_completed_total", "Reads that were completed."), One),
    (counter("node_disk_reads_merged_total", "Reads that were merged with a neighbour."), One),
    (counter("node_disk_read_bytes_total", "Bytes that were read."), Sectors),
    (counter("node_disk_read_time_seconds_total", "Time that all reads took together."), Millis),
    (counter("node_disk_writes_completed_total", "Writes that were completed."), One),
    (counter("node_disk_writes_merged_total", "Writes that were merged with a neighbour."), One),
    (counter("node_disk_written_bytes_total", "Bytes that were written."), Sectors),
    (counter("node_disk_write_time_seconds_total", "Time that all writes took together."), Millis),
    (Desc::gauge("node_disk_io_now", "Requests under way.").labels(&["device"]), One),
    (counter("node_disk_io_time_seconds_total", "Time in which some request was under way."), Millis),
    (counter("node_disk_io_time_weighted_seconds_total", "Time under way, summed over the requests."), Millis),
    (counter("node_disk_discards_completed_total", "Discards that were completed."), One),
    (counter("node_disk_discards_merged_total", "Discards that were merged with a neighbour."), One),
    (counter("node_disk_discarded_sectors_total", "Sectors that were discarded."), One),
    (counter("node_disk_discard_time_seconds_total", "Time that all discards took together."), Millis),
    (counter("node_disk_flush_requests_total", "Flushes that were completed."), One),
    (counter("node_disk_flush_requests_time_seconds_total", "Time that all flushes took together."), Millis),
];
/// Columns that every kernel has.
const COLUMNS_MIN: usize = 11;

pub struct DiskStats {
    file: ProcFile,
    filter: DeviceFilter,
    /// What the filter said of each device, so that the pattern is run once.
    taken: HashMap<String, bool>,
}

impl DiskStats {
    pub fn new(procfs: &Path, filter: DeviceFilter) -> Self {
        Self { file: ProcFile::new(procfs.join("diskstats")), filter, taken: HashMap::new() }
    }
}

/// Devices of `/proc/diskstats` that the filter takes: (major, minor, name).
pub fn devices(file: &mut ProcFile, filter: &DeviceFilter) -> Result<Vec<(String, String, String)>, ModuleError> {
    let text = file.text()?;
    let mut devices = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if let (Some(major), Some(minor), Some(name)) = (words.next(), words.next(), words.next())
            && filter.takes(name)
        {
            devices.push((major.to_owned(), minor.to_owned(), name.to_owned()));
        }
    }
    Ok(devices)
}

impl Reader for DiskStats {
    fn descs(&self) -> Vec<Desc> {
        COLUMNS.iter().map(|(desc, _)| desc.clone()).collect()
    }

    fn read(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let path = self.file.path().to_owned();
        for line in self.file.text()?.lines() {
            let mut words = line.split_ascii_whitespace().skip(2);
            let Some(device) = words.next() else { continue };
            let taken = match self.taken.get(device) {
                Some(taken) => *taken,
                None => {
                    let taken = self.filter.takes(device);
                    self.taken.insert(device.to_owned(), taken);
                    taken
                }
            };
            if !taken {
                continue;
            }
            let mut count = 0;
            for ((desc, unit), word) in COLUMNS.iter().zip(words) {
                let raw = parse_decimal(word).ok_or_else(|| parse_error(&path, format!("{word:?} in {line:?}")))?;
                let value = match unit {
                    One => raw,
                    Sectors => raw * SECTOR_BYTES,
                    Millis => raw / 1000.0,
                };
                out.push(desc, &[device], value);
                count += 1;
            }
            if count < COLUMNS_MIN {
                return Err(parse_error(&path, format!("too few columns in {line:?}")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    fn disks(tree: &Tree) -> DiskStats {
        DiskStats::new(tree.path(), DeviceFilter::without("^sda1$"))
    }

    #[test]
    fn columns_by_age_of_the_kernel() {
        let tree = Tree::new(&[(
            "diskstats",
            "   8  0 sda 1 2 3 4 5 6 7 8 9 10 11\n   8  1 sda1 1 2 3 4 5 6 7 8 9 10 11\n 8 16 sdb 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n",
        )]);
        let got = dump(&mut disks(&tree));
        assert_eq!(got.len(), 11 + 17);
        for line in [
            r#"node_disk_read_bytes_total{device="sda"} 1536"#,
            r#"node_disk_read_time_seconds_total{device="sda"} 0.004"#,
            r#"node_disk_io_now{device="sda"} 9"#,
            r#"node_disk_discarded_sectors_total{device="sdb"} 14"#,
            r#"node_disk_flush_requests_time_seconds_total{device="sdb"} 0.017"#,
        ] {
            assert!(got.contains(&line.to_owned()), "{line} not in {got:#?}");
        }
    }

    #[test]
    fn a_short_or_odd_line_is_refused() {
        for text in ["8 0 sda 1 2 3\n", "8 0 sda a 2 3 4 5 6 7 8 9 10 11\n"] {
            let tree = Tree::new(&[("diskstats", text)]);
            assert!(matches!(disks(&tree).read(&mut Tick::new()), Err(ModuleError::Parse { .. })), "{text}");
        }
    }
}
