//! How each CPU keeps up with received packets.
//!
//! Source: `/proc/net/softnet_stat`: a line per CPU, hexadecimal, columns by age of the kernel.
//! Shape:  `node_softnet_*{cpu}`; a column that this kernel lacks is told as zero.
//! Units:  packets or events since the start; `backlog_len` packets now.
//! Errors: `Parse` for a line with fewer than 9 columns.

use std::path::Path;

use super::reader::Reader;
use super::source::{ProcFile, parse_error};
use crate::module::{Desc, ModuleError};
use crate::tick::Tick;

const fn counter(name: &'static str, help: &'static str) -> Desc {
    Desc::counter(name, help).labels(&["cpu"])
}

/// Column, family.
const ROWS: &[(usize, Desc)] = &[
    (0, counter("node_softnet_processed_total", "Packets that the CPU worked off.")),
    (1, counter("node_softnet_dropped_total", "Packets dropped because the CPU's backlog was full.")),
    (2, counter("node_softnet_times_squeezed_total", "Times the CPU stopped with packets left, its share used up.")),
    (
        8,
        counter(
            "node_softnet_cpu_collision_total",
            "Times the device's send lock was taken when packets were to go out.",
        ),
    ),
    (9, counter("node_softnet_received_rps_total", "Times another CPU passed packets to this one.")),
    (10, counter("node_softnet_flow_limit_count_total", "Times a flow's limit was reached.")),
    (11, Desc::gauge("node_softnet_backlog_len", "Packets in the CPU's backlog.").labels(&["cpu"])),
];
const COLUMNS_MIN: usize = 9;
const COLUMNS_MAX: usize = 16;
/// The CPU's own number. Before Linux 5.14 the line's place stands for it, wrong when a CPU is offline.
const CPU: usize = 12;

pub struct Softnet(ProcFile);

impl Softnet {
    pub fn new(procfs: &Path) -> Self {
        Self(ProcFile::new(procfs.join("net/softnet_stat")))
    }
}

impl Reader for Softnet {
    fn descs(&self) -> Vec<Desc> {
        ROWS.iter().map(|(_, desc)| desc.clone()).collect()
    }

    fn read(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let path = self.0.path().to_owned();
        // Bytes: an odd tail must not cost the CPUs.
        let text = String::from_utf8_lossy(self.0.bytes()?);
        for (place, line) in text.lines().enumerate() {
            let mut columns = [0u32; COLUMNS_MAX];
            let mut count = 0;
            for (column, word) in columns.iter_mut().zip(line.split_ascii_whitespace()) {
                *column = u32::from_str_radix(word, 16)
                    .map_err(|_| parse_error(&path, format!("{word:?} in {line:?} is not hexadecimal")))?;
                count += 1;
            }
            if count < COLUMNS_MIN {
                return Err(parse_error(&path, format!("too few columns in {line:?}")));
            }
            let cpu = if count > CPU { columns[CPU] as usize } else { place };
            let cpu = cpu.to_string();
            for (column, desc) in ROWS {
                out.push(desc, &[&cpu], f64::from(columns[*column]));
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
    fn columns_by_age_of_the_kernel() {
        let tree = Tree::new(&[("net/softnet_stat", "0a 01 02 0 0 0 0 0 3\n10 0 0 0 0 0 0 0 0 4 5 6 7\n")]);
        let got = dump(&mut Softnet::new(tree.path()));
        assert_eq!(got.len(), 14);
        assert!(got.contains(&r#"node_softnet_processed_total{cpu="0"} 10"#.to_owned()));
        assert!(got.contains(&r#"node_softnet_cpu_collision_total{cpu="0"} 3"#.to_owned()));
        assert!(got.contains(&r#"node_softnet_backlog_len{cpu="7"} 6"#.to_owned()));
        for odd in ["0a 01\n", "0 0 0 0 0 0 0 0 xyz\n"] {
            tree.write("net/softnet_stat", odd);
            assert!(Softnet::new(tree.path()).read(&mut Tick::new()).is_err(), "{odd}");
        }
    }
}
