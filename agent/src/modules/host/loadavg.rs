//! Load averages.
//!
//! Source: `/proc/loadavg`, see proc_loadavg(5). Read by hand: procfs keeps `f32`, which would tell 0.21 as 0.2099999.
//! Shape:  three gauges without labels.
//! Units:  tasks that run, could run or wait for a disk, averaged over 1, 5 and 15 minutes.
//! Errors: `Parse` unless there are three numbers.

use std::path::Path;

use super::reader::Reader;
use super::source::{ProcFile, parse_decimal, parse_error};
use crate::module::{Desc, ModuleError};
use crate::tick::Tick;

const LOADS: [Desc; 3] = [
    Desc::gauge("node_load1", "Load average of the last minute."),
    Desc::gauge("node_load5", "Load average of the last 5 minutes."),
    Desc::gauge("node_load15", "Load average of the last 15 minutes."),
];

pub struct LoadAvg(ProcFile);

impl LoadAvg {
    pub fn new(procfs: &Path) -> Self {
        Self(ProcFile::new(procfs.join("loadavg")))
    }
}

impl Reader for LoadAvg {
    fn descs(&self) -> Vec<Desc> {
        LOADS.to_vec()
    }

    fn read(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let path = self.0.path().to_owned();
        let text = self.0.text()?;
        let mut words = text.split_ascii_whitespace();
        for desc in &LOADS {
            let load = words.next().and_then(parse_decimal);
            out.push(desc, &[], load.ok_or_else(|| parse_error(&path, format!("no three numbers in {text:?}")))?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn loads_are_exact() {
        let tree = Tree::new(&[("loadavg", "0.21 0.37 12.39 1/719 19737\n")]);
        assert_eq!(dump(&mut LoadAvg::new(tree.path())), ["node_load1 0.21", "node_load15 12.39", "node_load5 0.37"]);
        tree.write("loadavg", "0.21 0.37\n");
        assert!(LoadAvg::new(tree.path()).read(&mut Tick::new()).is_err());
    }
}
