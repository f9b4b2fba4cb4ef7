//! Traffic, errors and drops of each network interface.
//!
//! Source: `/proc/net/dev`, see proc_pid_net(5); `nohandler`, which that file lacks, from `/sys/class/net/*/statistics`.
//!         Read by hand: procfs makes a map with a string per interface, each second.
//! Shape:  `node_network_{receive,transmit}_*_total{device}`. The file adds errors up as node_exporter does.
//! Units:  bytes and packets.
//! Errors: `Parse` for an interface with fewer than 16 columns.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::settings::DeviceFilter;
use super::source::{ProcFile, parse_counter, parse_error};
use crate::module::{Desc, ModuleError};
use crate::tick::Tick;

const fn counter(name: &'static str, help: &'static str) -> Desc {
    Desc::counter(name, help).labels(&["device"])
}

const COLUMNS: [Desc; 16] = [
    counter("node_network_receive_bytes_total", "Bytes received."),
    counter("node_network_receive_packets_total", "Packets received."),
    counter("node_network_receive_errs_total", "Packets received with an error."),
    counter("node_network_receive_drop_total", "Packets received and dropped for want of room."),
    counter("node_network_receive_fifo_total", "Packets lost because the device's queue was full."),
    counter("node_network_receive_frame_total", "Packets received with a length, alignment or checksum error."),
    counter("node_network_receive_compressed_total", "Compressed packets received."),
    counter("node_network_receive_multicast_total", "Multicast packets received."),
    counter("node_network_transmit_bytes_total", "Bytes sent."),
    counter("node_network_transmit_packets_total", "Packets sent."),
    counter("node_network_transmit_errs_total", "Packets that could not be sent."),
    counter("node_network_transmit_drop_total", "Packets dropped before they were sent."),
    counter("node_network_transmit_fifo_total", "Packets not sent because the device's queue ran empty."),
    counter("node_network_transmit_colls_total", "Collisions on the wire."),
    counter("node_network_transmit_carrier_total", "Packets not sent because the carrier was lost."),
    counter("node_network_transmit_compressed_total", "Compressed packets sent."),
];
const NO_HANDLER: Desc = counter("node_network_receive_nohandler_total", "Packets received that no protocol wanted.");

pub struct NetDev {
    file: ProcFile,
    class: PathBuf,
    filter: DeviceFilter,
    devices: HashMap<String, Device>,
}

struct Device {
    taken: bool,
    no_handler: ProcFile,
    seen: bool,
}

impl NetDev {
    pub fn new(procfs: &Path, sysfs: &Path, filter: DeviceFilter) -> Self {
        Self {
            file: ProcFile::new(procfs.join("net/dev")),
            class: sysfs.join("class/net"),
            filter,
            devices: HashMap::new(),
        }
    }
}

impl Reader for NetDev {
    fn descs(&self) -> Vec<Desc> {
        COLUMNS.into_iter().chain([NO_HANDLER]).collect()
    }

    fn read(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let path = self.file.path().to_owned();
        // Two lines of headings come first.
        for line in self.file.text()?.lines().skip(2) {
            let Some((name, numbers)) = line.rsplit_once(':') else { continue };
            let name = name.trim();
            if !self.devices.contains_key(name) {
                let no_handler = ProcFile::new(self.class.join(name).join("statistics/rx_nohandler"));
                let device = Device { taken: self.filter.takes(name), no_handler, seen: true };
                self.devices.insert(name.to_owned(), device);
            }
            let Some(device) = self.devices.get_mut(name) else { continue };
            device.seen = true;
            if !device.taken {
                continue;
            }
            let mut words = numbers.split_ascii_whitespace();
            for desc in &COLUMNS {
                let value = words.next().and_then(parse_counter);
                out.push(desc, &[name], value.ok_or_else(|| parse_error(&path, format!("no 16 numbers in {line:?}")))?);
            }
            if let Some(count) = device.no_handler.text().ok().and_then(|text| parse_counter(text.trim())) {
                out.push(&NO_HANDLER, &[name], count);
            }
        }
        // An interface that is gone takes its open file with it; one that comes back under the name gets a new one.
        self.devices.retain(|_, device| std::mem::take(&mut device.seen));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn each_interface_has_its_columns() {
        let tree = Tree::new(&[
            (
                "proc/net/dev",
                "Inter-|   Receive\n face |bytes\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\nveth1:1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\neth0:5 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
            ),
            ("sys/class/net/lo/statistics/rx_nohandler", "3\n"),
        ]);
        let (procfs, sysfs) = (tree.path().join("proc"), tree.path().join("sys"));
        let mut netdev = NetDev::new(&procfs, &sysfs, DeviceFilter::without("^veth"));
        let got = dump(&mut netdev);
        assert_eq!(got.len(), 17 + 16);
        assert!(got.contains(&r#"node_network_transmit_compressed_total{device="lo"} 16"#.to_owned()));
        assert!(got.contains(&r#"node_network_receive_nohandler_total{device="lo"} 3"#.to_owned()));
        assert!(got.contains(&r#"node_network_receive_bytes_total{device="eth0"} 5"#.to_owned()));
        tree.write("proc/net/dev", "a\nb\n lo: 1 2 3\n");
        assert!(matches!(netdev.read(&mut Tick::new()), Err(ModuleError::Parse { .. })));
    }
}
