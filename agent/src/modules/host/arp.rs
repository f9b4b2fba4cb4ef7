//! Neighbours known by address resolution, by interface.
//!
//! Source: `/proc/net/arp`, see proc_pid_net(5), read through procfs.
//! Shape:  `node_arp_entries{device}`; an interface without entries is left out.
//! Units:  entries.
//! Errors: `Parse` when procfs does not understand a line.

use std::collections::BTreeMap;
use std::path::Path;

use procfs::FromBufRead;
use procfs::net::ArpEntries;

use super::reader::Reader;
use super::settings::DeviceFilter;
use super::source::{ProcFile, parse_error};
use crate::module::{Desc, ModuleError};
use crate::tick::Tick;

const ENTRIES: Desc = Desc::gauge("node_arp_entries", "Neighbours in the address table.").labels(&["device"]);

pub struct Arp {
    file: ProcFile,
    filter: DeviceFilter,
}

impl Arp {
    pub fn new(procfs: &Path, filter: DeviceFilter) -> Self {
        Self { file: ProcFile::new(procfs.join("net/arp")), filter }
    }
}

impl Reader for Arp {
    fn descs(&self) -> Vec<Desc> {
        vec![ENTRIES]
    }

    fn read(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let path = self.file.path().to_owned();
        let entries = ArpEntries::from_buf_read(self.file.bytes()?);
        let ArpEntries(entries) = entries.map_err(|error| parse_error(&path, error.to_string()))?;
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for entry in &entries {
            *counts.entry(&entry.device).or_default() += 1;
        }
        for (device, count) in counts.into_iter().filter(|(device, _)| self.filter.takes(device)) {
            out.push(&ENTRIES, &[device], f64::from(count));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn entries_are_counted_by_interface() {
        let heading = "IP address       HW type     Flags       HW address            Mask     Device\n";
        let line = |ip: &str, device: &str| format!("{ip}  0x1  0x2  00:11:22:33:44:55  *  {device}\n");
        let text = [heading, &line("10.0.0.1", "eth0"), &line("10.0.0.2", "eth0"), &line("10.1.0.1", "eth1")].concat();
        let tree = Tree::new(&[("net/arp", &text)]);
        let got = dump(&mut Arp::new(tree.path(), DeviceFilter::without("eth1")));
        assert_eq!(got, [r#"node_arp_entries{device="eth0"} 2"#]);
        tree.write("net/arp", &format!("{heading}garbage\n"));
        assert!(Arp::new(tree.path(), DeviceFilter::default()).read(&mut Tick::new()).is_err());
    }
}
