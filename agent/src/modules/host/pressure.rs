//! How long tasks waited for CPU, memory, disks and interrupts (pressure stall information).
//!
//! Source: `/proc/pressure/{cpu,memory,io,irq}`. Read by hand: procfs does not know `irq`, fails on kernels whose `cpu` file has
//!         one line, and makes a map of each line, four times a second.
//! Shape:  `waiting`: some task stood still, `stalled`: all did; no labels.
//! Units:  seconds; the files count microseconds.
//! Errors: `Absent` without the directory (kernels before 4.20, or `psi=0`); a file that this kernel lacks is left out.

use std::path::Path;

use super::reader::Reader;
use super::source::{ProcFile, absent, parse_decimal, parse_error};
use crate::module::{Desc, ModuleError};
use crate::tick::Tick;

/// File, first word of the line, family. The CPU's `full` line says nothing on the level of the host.
const ROWS: &[(&str, &str, Desc)] = &[
    (
        "cpu",
        "some",
        Desc::counter("node_pressure_cpu_waiting_seconds_total", "Time in which some task waited for a CPU."),
    ),
    (
        "io",
        "some",
        Desc::counter("node_pressure_io_waiting_seconds_total", "Time in which some task waited for a disk."),
    ),
    (
        "io",
        "full",
        Desc::counter("node_pressure_io_stalled_seconds_total", "Time in which all tasks waited for disks."),
    ),
    (
        "memory",
        "some",
        Desc::counter("node_pressure_memory_waiting_seconds_total", "Time in which some task waited for memory."),
    ),
    (
        "memory",
        "full",
        Desc::counter("node_pressure_memory_stalled_seconds_total", "Time in which all tasks waited for memory."),
    ),
    (
        "irq",
        "full",
        Desc::counter("node_pressure_irq_stalled_seconds_total", "Time in which interrupts held up all tasks."),
    ),
];

pub struct Pressure {
    files: Vec<(&'static str, ProcFile)>,
}

impl Pressure {
    pub fn new(procfs: &Path) -> Self {
        let files =
            ["cpu", "io", "memory", "irq"].map(|name| (name, ProcFile::new(procfs.join("pressure").join(name))));
        Self { files: files.into() }
    }
}

impl Reader for Pressure {
    fn descs(&self) -> Vec<Desc> {
        ROWS.iter().map(|(_, _, desc)| desc.clone()).collect()
    }

    fn read(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let mut found = false;
        for (name, file) in &mut self.files {
            let path = file.path().to_owned();
            let text = match file.text() {
                Ok(text) => text,
                Err(ModuleError::Absent { .. }) => continue,
                // Built in but switched off at start.
                Err(ModuleError::Read { source, .. }) if source.raw_os_error() == Some(EOPNOTSUPP) => continue,
                Err(error) => return Err(error),
            };
            for line in text.lines() {
                let row = ROWS.iter().find(|(file, word, _)| file == name && line.starts_with(word));
                let Some((_, _, desc)) = row else { continue };
                let total = line.rsplit_once("total=").and_then(|(_, micros)| parse_decimal(micros.trim()));
                let micros = total.ok_or_else(|| parse_error(&path, format!("no total in {line:?}")))?;
                out.push(desc, &[], micros / 1e6);
                found = true;
            }
        }
        match found {
            true => Ok(()),
            false => Err(absent(Path::new("pressure stall information (kernel option psi=1)"))),
        }
    }
}

/// "Operation not supported", the answer of a kernel with `psi=0`.
const EOPNOTSUPP: i32 = 95;

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn microseconds_become_seconds() {
        let tree = Tree::new(&[
            (
                "pressure/cpu",
                "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n",
            ),
            ("pressure/irq", "full avg10=0.00 avg60=0.00 avg300=0.00 total=8494"),
        ]);
        assert_eq!(
            dump(&mut Pressure::new(tree.path())),
            ["node_pressure_cpu_waiting_seconds_total 1.5", "node_pressure_irq_stalled_seconds_total 0.008494"]
        );
        tree.write("pressure/cpu", "some avg10=0.00\n");
        assert!(matches!(Pressure::new(tree.path()).read(&mut Tick::new()), Err(ModuleError::Parse { .. })));
        assert!(matches!(
            Pressure::new(&tree.path().join("no")).read(&mut Tick::new()),
            Err(ModuleError::Absent { .. })
        ));
    }
}
