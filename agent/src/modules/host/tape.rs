//! Tape drives.
//!
//! Source: `/sys/class/scsi_tape/st<number>/stats`, see the kernel's ABI/testing/sysfs-class-scsi_tape.
//! Shape:  `node_tape_*{device}`; the other names of a drive (`nst0`, `st0a`, ...) are left out.
//! Units:  seconds (the kernel counts nanoseconds), bytes.
//! Errors: `Absent` without a drive.

use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::source::{ModuleResult, absent, names_in, number};
use crate::module::Desc;
use crate::tick::Tick;

const fn counter(name: &'static str, help: &'static str) -> Desc {
    Desc::counter(name, help).labels(&["device"])
}

/// File, units of the file in a base unit, family.
const ROWS: &[(&str, f64, Desc)] = &[
    ("in_flight", 1.0, Desc::gauge("node_tape_io_now", "I/O under way.").labels(&["device"])),
    ("io_ns", 1e9, counter("node_tape_io_time_seconds_total", "Time of all I/O.")),
    ("other_cnt", 1.0, counter("node_tape_io_others_total", "Operations that neither read nor write.")),
    ("read_byte_cnt", 1.0, counter("node_tape_read_bytes_total", "Bytes read so far.")),
    ("read_cnt", 1.0, counter("node_tape_reads_completed_total", "Reads completed.")),
    ("read_ns", 1e9, counter("node_tape_read_time_seconds_total", "Time of reads.")),
    ("write_byte_cnt", 1.0, counter("node_tape_written_bytes_total", "Bytes written.")),
    ("write_cnt", 1.0, counter("node_tape_writes_completed_total", "Writes completed.")),
    ("write_ns", 1e9, counter("node_tape_write_time_seconds_total", "Time of writes.")),
    ("resid_cnt", 1.0, counter("node_tape_residual_total", "Reads or writes that moved less than asked.")),
];

pub struct Tape(PathBuf);

impl Tape {
    pub fn new(sysfs: &Path) -> Self {
        Self(sysfs.join("class/scsi_tape"))
    }
}

impl Reader for Tape {
    fn descs(&self) -> Vec<Desc> {
        ROWS.iter().map(|(.., desc)| desc.clone()).collect()
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let mut found = false;
        for device in names_in(&self.0)? {
            if device.strip_prefix("st").is_none_or(|number| number.parse::<u32>().is_err()) {
                continue;
            }
            found = true;
            for (file, units, desc) in ROWS {
                if let Some(value) = number(self.0.join(&device).join("stats").join(file)) {
                    out.push(desc, &[&device], value / units);
                }
            }
        }
        if found { Ok(()) } else { Err(absent(&self.0.join("st*"))) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn a_drive_is_told_once() {
        let tree = Tree::new(&[
            ("class/scsi_tape/st0/stats/io_ns", "9247011087720\n"),
            ("class/scsi_tape/nst0/stats/io_ns", "9247011087720\n"),
            ("class/scsi_tape/st0a/stats/io_ns", "9247011087720\n"),
        ]);
        assert_eq!(
            dump(&mut Tape::new(tree.path())),
            [r#"node_tape_io_time_seconds_total{device="st0"} 9247.01108772"#]
        );
    }
}
