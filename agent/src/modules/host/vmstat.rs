//! Paging, swapping, page faults and kills for want of memory.
//!
//! Source: `/proc/vmstat`. Read by hand: of its 180 lines seven count, and procfs makes a map of all.
//! Shape:  one untyped series per line whose key begins as in `TAKEN`, as node_exporter does by default.
//! Units:  events since the start; `pgpgin` and `pgpgout` count KiB.
//! Errors: `Read` only; a line without a number is left out.

use std::collections::HashMap;
use std::path::Path;

use lampad_proto::v1::MetricType;

use super::reader::Reader;
use super::source::{ProcFile, parse_counter};
use crate::module::{Desc, ModuleError};
use crate::tick::Tick;

/// Beginnings of the keys that are told.
const TAKEN: [&str; 4] = ["oom_kill", "pgpg", "pswp", "pg"];
/// Of the keys in `pg...`, those that hold this.
const FAULTS: &str = "fault";

pub struct VmStat {
    file: ProcFile,
    descs: HashMap<String, Desc>,
}

impl VmStat {
    pub fn new(procfs: &Path) -> Self {
        Self { file: ProcFile::new(procfs.join("vmstat")), descs: HashMap::new() }
    }
}

impl Reader for VmStat {
    fn descs(&self) -> Vec<Desc> {
        ["oom_kill", "pgfault", "pgmajfault", "pgpgin", "pgpgout", "pswpin", "pswpout"].map(family).to_vec()
    }

    fn read(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        for line in self.file.text()?.lines() {
            let Some((key, value)) = line.split_once(' ') else { continue };
            if !taken(key) {
                continue;
            }
            let Some(value) = parse_counter(value.trim()) else { continue };
            if !self.descs.contains_key(key) {
                self.descs.insert(key.to_owned(), family(key));
            }
            out.push(&self.descs[key], &[], value);
        }
        Ok(())
    }
}

fn taken(key: &str) -> bool {
    TAKEN[..3].iter().any(|prefix| key.starts_with(prefix)) || (key.starts_with(TAKEN[3]) && key.contains(FAULTS))
}

fn family(key: &str) -> Desc {
    Desc::named(MetricType::Unknown, format!("node_vmstat_{key}"), format!("Field {key} of /proc/vmstat."))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn the_usual_keys_are_told() {
        let tree = Tree::new(&[(
            "vmstat",
            "nr_free_pages 5\npgpgin 1\npgfault 2\npgmajfault 3\npswpout 4\npgfree 6\noom_kill 0\npgpgout x\n",
        )]);
        assert_eq!(
            dump(&mut VmStat::new(tree.path())),
            [
                "node_vmstat_oom_kill 0",
                "node_vmstat_pgfault 2",
                "node_vmstat_pgmajfault 3",
                "node_vmstat_pgpgin 1",
                "node_vmstat_pswpout 4"
            ]
        );
    }
}
