//! Energy that packages, cores and memory used.
//!
//! Source: `/sys/class/powercap/*`, of Intel's RAPL and those that follow it. Only root may read it on most kernels.
//! Shape:  `node_rapl_<zone>_joules_total{index,path}`: zone `package-0` is family `package`, index 0.
//! Units:  joules; the files count microjoules.
//! Errors: `Absent` without a zone; `Read` when we may not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lampad_proto::v1::MetricType;

use super::reader::Reader;
use super::source::{absent, attribute, names_in, parse_decimal, read_error};
use crate::module::{Desc, ModuleError};
use crate::tick::Tick;

pub struct Rapl {
    dir: PathBuf,
    descs: BTreeMap<String, Desc>,
}

impl Rapl {
    pub fn new(sysfs: &Path) -> Self {
        Self { dir: sysfs.join("class/powercap"), descs: BTreeMap::new() }
    }
}

impl Reader for Rapl {
    fn descs(&self) -> Vec<Desc> {
        ["package", "core", "uncore", "dram", "psys"].map(family).to_vec()
    }

    fn read(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let mut found = false;
        // Zones of one name, such as `core` of two packages, are numbered in their order.
        let mut indexes: BTreeMap<String, u32> = BTreeMap::new();
        for entry in names_in(&self.dir)? {
            let dir = self.dir.join(&entry);
            let Some(name) = attribute(dir.join("name")) else { continue };
            let energy = dir.join("energy_uj");
            let text = std::fs::read_to_string(&energy).map_err(|source| read_error(&energy, source))?;
            let Some(microjoules) = parse_decimal(text.trim()) else { continue };
            let (zone, index) = match name.rsplit_once('-').filter(|(_, n)| n.parse::<u32>().is_ok()) {
                Some((zone, index)) => (zone.to_owned(), index.to_owned()),
                None => {
                    let next = indexes.entry(name.clone()).or_default();
                    let index = next.to_string();
                    *next += 1;
                    (name, index)
                }
            };
            let desc = self.descs.entry(zone).or_insert_with_key(|zone| family(zone));
            out.push(desc, &[&index, &dir.to_string_lossy()], microjoules / 1e6);
            found = true;
        }
        if found { Ok(()) } else { Err(absent(&self.dir.join("*/energy_uj"))) }
    }
}

fn family(zone: &str) -> Desc {
    let zone: String = zone.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    Desc::named(MetricType::Counter, format!("node_rapl_{zone}_joules_total"), format!("Energy that zone {zone} used."))
        .labels(&["index", "path"])
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn zones_have_a_family_and_an_index() {
        let tree = Tree::new(&[
            ("class/powercap/intel-rapl/enabled", "1"),
            ("class/powercap/intel-rapl:1/name", "package-1\n"),
            ("class/powercap/intel-rapl:1/energy_uj", "2500000\n"),
            ("class/powercap/intel-rapl:1:0/name", "core\n"),
            ("class/powercap/intel-rapl:1:0/energy_uj", "1000000\n"),
        ]);
        let dir = tree.path().join("class/powercap");
        assert_eq!(
            dump(&mut Rapl::new(tree.path())),
            [
                format!("node_rapl_core_joules_total{{index=\"0\",path=\"{}/intel-rapl:1:0\"}} 1", dir.display()),
                format!("node_rapl_package_joules_total{{index=\"1\",path=\"{}/intel-rapl:1\"}} 2.5", dir.display()),
            ]
        );
    }
}
