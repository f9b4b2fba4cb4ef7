//! Memory and swap as the kernel counts them.
//!
//! Source: `/proc/meminfo`, see proc_meminfo(5). Read by hand: procfs knows a fixed list of lines, and a kernel's newer ones
//!         (`Zswapped`, `SecPageTables`, ...) shall be told too.
//! Shape:  one gauge per line, named after it: `Active(anon)` is `node_memory_Active_anon_bytes`.
//! Units:  bytes, where the line ends in `kB`; else a count (huge pages).
//! Errors: `Parse` for a line without a number.

use std::collections::HashMap;
use std::path::Path;

use lampad_proto::v1::MetricType;

use super::reader::Reader;
use super::source::{ProcFile, parse_decimal, parse_error};
use crate::module::{Desc, ModuleError};
use crate::tick::Tick;

pub struct Meminfo {
    file: ProcFile,
    descs: HashMap<String, Desc>,
}

impl Meminfo {
    pub fn new(procfs: &Path) -> Self {
        Self { file: ProcFile::new(procfs.join("meminfo")), descs: HashMap::new() }
    }
}

impl Reader for Meminfo {
    fn descs(&self) -> Vec<Desc> {
        ["MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached", "SwapCached", "SwapTotal", "SwapFree", "Dirty"]
            .map(|key| family(key, true))
            .to_vec()
    }

    fn read(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let path = self.file.path().to_owned();
        for line in self.file.text()?.lines() {
            let mut words = line.split_ascii_whitespace();
            let Some(key) = words.next() else { continue };
            let value = words.next().and_then(parse_decimal);
            let value = value.ok_or_else(|| parse_error(&path, format!("no number in {line:?}")))?;
            let kib = words.next() == Some("kB");
            if !self.descs.contains_key(key) {
                self.descs.insert(key.to_owned(), family(key.trim_end_matches(':'), kib));
            }
            out.push(&self.descs[key], &[], if kib { value * 1024.0 } else { value });
        }
        Ok(())
    }
}

fn family(key: &str, kib: bool) -> Desc {
    let suffix = if kib { "_bytes" } else { "" };
    let name = format!("node_memory_{}{suffix}", key.replace('(', "_").replace(')', ""));
    Desc::named(MetricType::Gauge, name, format!("Memory: field {key} of /proc/meminfo."))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn kib_become_bytes_and_counts_stay() {
        let tree = Tree::new(&[("meminfo", "MemTotal:  100 kB\nActive(anon): 2 kB\nHugePages_Free:  7\n\n")]);
        assert_eq!(
            dump(&mut Meminfo::new(tree.path())),
            ["node_memory_Active_anon_bytes 2048", "node_memory_HugePages_Free 7", "node_memory_MemTotal_bytes 102400"]
        );
        tree.write("meminfo", "MemTotal: many kB\n");
        assert!(matches!(Meminfo::new(tree.path()).read(&mut Tick::new()), Err(ModuleError::Parse { .. })));
    }
}
