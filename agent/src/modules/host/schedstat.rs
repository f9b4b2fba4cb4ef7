//! How long tasks ran and waited on each CPU.
//!
//! Source: `/proc/schedstat`, see the kernel's scheduler/sched-stats.
//! Shape:  three counters by `cpu`.
//! Units:  seconds (the file counts nanoseconds); time slices.
//! Errors: `Parse` for a CPU with fewer than nine columns; `Absent` where the kernel was built without it.

use std::path::Path;

use super::reader::Reader;
use super::source::{ProcFile, parse_decimal, parse_error};
use crate::module::{Desc, ModuleError};
use crate::tick::Tick;

const ROWS: [(Desc, f64); 3] = [
    (Desc::counter("node_schedstat_running_seconds_total", "Time that tasks ran.").labels(&["cpu"]), 1e9),
    (Desc::counter("node_schedstat_waiting_seconds_total", "Time that tasks waited to run.").labels(&["cpu"]), 1e9),
    (Desc::counter("node_schedstat_timeslices_total", "Time slices that tasks were given.").labels(&["cpu"]), 1.0),
];
/// First of the three columns, after six on the scheduler's own work.
const FIRST: usize = 6;

pub struct SchedStat(ProcFile);

impl SchedStat {
    pub fn new(procfs: &Path) -> Self {
        Self(ProcFile::new(procfs.join("schedstat")))
    }
}

impl Reader for SchedStat {
    fn descs(&self) -> Vec<Desc> {
        ROWS.iter().map(|(desc, _)| desc.clone()).collect()
    }

    fn read(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let path = self.0.path().to_owned();
        for line in self.0.text()?.lines() {
            let Some((cpu, columns)) = line.strip_prefix("cpu").and_then(|line| line.split_once(' ')) else { continue };
            let mut words = columns.split_ascii_whitespace().skip(FIRST);
            for (desc, per_unit) in &ROWS {
                let value = words.next().and_then(parse_decimal);
                let value = value.ok_or_else(|| parse_error(&path, format!("too few columns in {line:?}")))?;
                out.push(desc, &[cpu], value / per_unit);
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
    fn nanoseconds_become_seconds() {
        let tree = Tree::new(&[("schedstat", "version 15\ncpu3 1 0 2 3 4 5 2000000000 500000000 77\ndomain0 3 1\n")]);
        assert_eq!(
            dump(&mut SchedStat::new(tree.path())),
            [
                r#"node_schedstat_running_seconds_total{cpu="3"} 2"#,
                r#"node_schedstat_timeslices_total{cpu="3"} 77"#,
                r#"node_schedstat_waiting_seconds_total{cpu="3"} 0.5"#,
            ]
        );
        tree.write("schedstat", "cpu3 1 2\n");
        assert!(SchedStat::new(tree.path()).read(&mut Tick::new()).is_err());
    }
}
