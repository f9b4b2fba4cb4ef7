//! Sockets in use, by protocol.
//!
//! Source: `/proc/net/{sockstat,sockstat6}`, see proc_pid_net(5).
//! Shape:  `node_sockstat_<Protocol>_<field>` for each pair of the files, no labels.
//! Units:  sockets; `mem` counts pages and is told again in bytes as `mem_bytes`; `memory` is in bytes.
//! Errors: `Parse` for a field without a number; a host without IPv6 has no `sockstat6`.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;

use lampad_proto::v1::MetricType;

use super::reader::Reader;
use super::source::{ProcFile, parse_decimal, parse_error};
use crate::module::{Desc, ModuleError};
use crate::tick::Tick;

pub struct SockStat {
    files: [ProcFile; 2],
    page_bytes: f64,
    descs: HashMap<String, Desc>,
    key: String,
}

impl SockStat {
    pub fn new(procfs: &Path) -> Self {
        Self {
            files: ["net/sockstat", "net/sockstat6"].map(|name| ProcFile::new(procfs.join(name))),
            page_bytes: procfs::page_size() as f64,
            descs: HashMap::new(),
            key: String::new(),
        }
    }
}

impl Reader for SockStat {
    fn descs(&self) -> Vec<Desc> {
        ["sockets_used", "TCP_inuse", "TCP_tw", "TCP_alloc", "TCP_mem_bytes"].map(family).to_vec()
    }

    fn read(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        for (number, file) in self.files.iter_mut().enumerate() {
            let path = file.path().to_owned();
            let text = match file.text() {
                Ok(text) => text,
                Err(ModuleError::Absent { .. }) if number > 0 => continue,
                Err(error) => return Err(error),
            };
            for line in text.lines() {
                let Some((protocol, fields)) = line.split_once(':') else { continue };
                let mut words = fields.split_ascii_whitespace();
                while let Some(field) = words.next() {
                    let value = words.next().and_then(parse_decimal);
                    let value =
                        value.ok_or_else(|| parse_error(&path, format!("no number for {field} in {line:?}")))?;
                    push(&mut self.descs, &mut self.key, out, protocol, field, value);
                    if field == "mem" {
                        push(&mut self.descs, &mut self.key, out, protocol, "mem_bytes", value * self.page_bytes);
                    }
                }
            }
        }
        Ok(())
    }
}

fn push(descs: &mut HashMap<String, Desc>, key: &mut String, out: &mut Tick, protocol: &str, field: &str, value: f64) {
    key.clear();
    // Writing to a string does not fail.
    let _ = write!(key, "{protocol}_{field}");
    if !descs.contains_key(key) {
        descs.insert(key.clone(), family(key));
    }
    out.push(&descs[key], &[], value);
}

fn family(key: &str) -> Desc {
    let help = format!("Sockets: {} of /proc/net/sockstat.", key.replace('_', " "));
    Desc::named(MetricType::Gauge, format!("node_sockstat_{key}"), help)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn pairs_become_series() {
        let tree = Tree::new(&[
            ("net/sockstat", "sockets: used 229\nTCP: inuse 4 mem 2\nFRAG: inuse 0 memory 8\n"),
            ("net/sockstat6", "TCP6: inuse 17\n"),
        ]);
        let mut sockstat = SockStat::new(tree.path());
        sockstat.page_bytes = 4096.0;
        assert_eq!(
            dump(&mut sockstat),
            [
                "node_sockstat_FRAG_inuse 0",
                "node_sockstat_FRAG_memory 8",
                "node_sockstat_TCP6_inuse 17",
                "node_sockstat_TCP_inuse 4",
                "node_sockstat_TCP_mem 2",
                "node_sockstat_TCP_mem_bytes 8192",
                "node_sockstat_sockets_used 229",
            ]
        );
        tree.write("net/sockstat", "TCP: inuse\n");
        assert!(sockstat.read(&mut Tick::new()).is_err());
    }
}
