//! Memory of each NUMA node, and how often memory came from the node that was asked. Off by default, as with node_exporter.
//!
//! Source: `/sys/devices/system/node/node*/{meminfo,numastat}`.
//! Shape:  `node_memory_numa_<Key>{node}`, gauges; keys of `numastat` end in `_total`, counters.
//! Units:  bytes, where the line ends in `kB`; pages.
//! Errors: `Absent` without the directory; a line without a number is left out.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use lampad_proto::Number;
use lampad_proto::v1::MetricType;

use super::reader::Reader;
use super::source::{ModuleResult, absent, attribute, names_in, parse_counter, parse_decimal};
use crate::module::Desc;
use crate::tick::Tick;

pub struct Numa {
    dir: PathBuf,
    descs: HashMap<String, Desc>,
}

impl Numa {
    pub fn new(sysfs: &Path) -> Self {
        Self { dir: sysfs.join("devices/system/node"), descs: HashMap::new() }
    }

    fn push(&mut self, key: &str, kind: MetricType, node: &str, value: impl Into<Number>, out: &mut Tick) {
        if !self.descs.contains_key(key) {
            self.descs.insert(key.to_owned(), family(key, kind));
        }
        out.push(&self.descs[key], &[node], value);
    }
}

impl Reader for Numa {
    fn descs(&self) -> Vec<Desc> {
        let gauges = ["MemTotal", "MemFree", "MemUsed"].map(|key| family(key, MetricType::Gauge));
        let counters = ["numa_hit_total", "numa_miss_total"].map(|key| family(key, MetricType::Counter));
        [gauges.as_slice(), counters.as_slice()].concat()
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let mut found = false;
        for name in names_in(&self.dir)? {
            let Some(node) = name.strip_prefix("node").filter(|node| node.parse::<u32>().is_ok()) else { continue };
            let dir = self.dir.join(&name);
            // `Node 0 Active(anon):   5 kB`
            for line in attribute(dir.join("meminfo")).unwrap_or_default().lines() {
                let mut words = line.split_ascii_whitespace().skip(2);
                let (Some(key), Some(value)) = (words.next(), words.next().and_then(parse_decimal)) else { continue };
                let key = key.trim_end_matches(':').replace('(', "_").replace(')', "");
                let factor = if words.next() == Some("kB") { 1024.0 } else { 1.0 };
                self.push(&key, MetricType::Gauge, node, value * factor, out);
                found = true;
            }
            for line in attribute(dir.join("numastat")).unwrap_or_default().lines() {
                let Some((key, value)) = line.split_once(' ') else { continue };
                let Some(value) = parse_counter(value.trim()) else { continue };
                self.push(&format!("{key}_total"), MetricType::Counter, node, value, out);
            }
        }
        if found { Ok(()) } else { Err(absent(&self.dir.join("node*/meminfo"))) }
    }
}

fn family(key: &str, kind: MetricType) -> Desc {
    let help = format!("Memory of the NUMA node: {}.", key.replace('_', " "));
    Desc::named(kind, format!("node_memory_numa_{key}"), help).labels(&["node"])
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn nodes_have_memory_and_hits() {
        let tree = Tree::new(&[
            ("devices/system/node/node1/meminfo", "\nNode 1 Active(anon):   2 kB\nNode 1 HugePages_Free:   3\n"),
            ("devices/system/node/node1/numastat", "numa_hit 7\n"),
            ("devices/system/node/online", "0-1\n"),
        ]);
        assert_eq!(
            dump(&mut Numa::new(tree.path())),
            [
                r#"node_memory_numa_Active_anon{node="1"} 2048"#,
                r#"node_memory_numa_HugePages_Free{node="1"} 3"#,
                r#"node_memory_numa_numa_hit_total{node="1"} 7"#,
            ]
        );
    }
}
