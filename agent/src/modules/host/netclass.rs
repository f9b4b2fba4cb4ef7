//! State and settings of each network interface: carrier, speed, MTU, addresses.
//!
//! Source: attributes of `/sys/class/net/*`, see the kernel's ABI/testing/sysfs-class-net.
//! Shape:  `node_network_*{device}`; `node_network_info` with value 1.
//! Units:  `speed_bytes` per second (the attribute is in Mbit/s; -1 where the driver does not know); MTU in bytes.
//! Errors: `Absent` without the directory; an attribute that does not apply to a device is left out.

use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::settings::DeviceFilter;
use super::source::{attribute, names_in, number};
use crate::module::{Desc, ModuleError};
use crate::tick::Tick;

const fn gauge(name: &'static str, help: &'static str) -> Desc {
    Desc::gauge(name, help).labels(&["device"])
}

const fn counter(name: &'static str, help: &'static str) -> Desc {
    Desc::counter(name, help).labels(&["device"])
}

/// Attribute, family.
const ROWS: &[(&str, Desc)] = &[
    ("addr_assign_type", gauge("node_network_address_assign_type", "How the address was assigned, as a code.")),
    ("carrier", gauge("node_network_carrier", "1 if the link is physically up.")),
    ("carrier_changes", counter("node_network_carrier_changes_total", "Times the link went up or down.")),
    ("carrier_up_count", counter("node_network_carrier_up_changes_total", "Times the link went up.")),
    ("carrier_down_count", counter("node_network_carrier_down_changes_total", "Times the link went down.")),
    ("dev_id", gauge("node_network_device_id", "Number among devices that share an address.")),
    ("dormant", gauge("node_network_dormant", "1 if the device waits for something outside, such as 802.1X.")),
    ("flags", gauge("node_network_flags", "The device's flags as a bit mask.")),
    ("ifindex", gauge("node_network_iface_id", "Number of the device.")),
    ("iflink", gauge("node_network_iface_link", "Number of the device below this one.")),
    ("link_mode", gauge("node_network_iface_link_mode", "0 for the default link mode, 1 for dormant.")),
    ("mtu", gauge("node_network_mtu_bytes", "Largest packet that the device carries.")),
    ("name_assign_type", gauge("node_network_name_assign_type", "How the name was assigned, as a code.")),
    ("netdev_group", gauge("node_network_net_dev_group", "Group that the device was put into.")),
    ("tx_queue_len", gauge("node_network_transmit_queue_length", "Packets that the send queue holds.")),
    ("type", gauge("node_network_protocol_type", "Kind of the device as a code of the kernel.")),
];
const SPEED: Desc = gauge("node_network_speed_bytes", "Speed of the link per second.");
const UP: Desc = gauge("node_network_up", "1 if the operating state is up.");
const INFO: Desc = Desc::gauge("node_network_info", "State and addresses of the device.").labels(&[
    "device",
    "address",
    "broadcast",
    "duplex",
    "operstate",
    "adminstate",
    "ifalias",
]);

const BYTES_PER_MEGABIT: f64 = 1e6 / 8.0;
/// Bit "administratively up" of the flags.
const IFF_UP: u64 = 1;

pub struct NetClass {
    class: PathBuf,
    filter: DeviceFilter,
    ignore_invalid_speed: bool,
}

impl NetClass {
    pub fn new(sysfs: &Path, filter: DeviceFilter, ignore_invalid_speed: bool) -> Self {
        Self { class: sysfs.join("class/net"), filter, ignore_invalid_speed }
    }
}

impl Reader for NetClass {
    fn descs(&self) -> Vec<Desc> {
        ROWS.iter().map(|(_, desc)| desc.clone()).chain([SPEED, UP, INFO]).collect()
    }

    fn read(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        for device in names_in(&self.class)? {
            let dir = self.class.join(&device);
            // `bonding_masters` is a file among the devices.
            if !self.filter.takes(&device) || !dir.is_dir() {
                continue;
            }
            for (name, desc) in ROWS {
                if let Some(value) = number(dir.join(name)) {
                    out.push(desc, &[&device], value);
                }
            }
            if let Some(megabits) = number(dir.join("speed"))
                && !(self.ignore_invalid_speed && megabits < 0.0)
            {
                out.push(&SPEED, &[&device], megabits * BYTES_PER_MEGABIT);
            }
            let get = |name: &str| attribute(dir.join(name)).unwrap_or_default();
            let (operstate, flags) = (get("operstate"), number(dir.join("flags")).unwrap_or_default());
            let adminstate = if flags as u64 & IFF_UP != 0 { "up" } else { "down" };
            out.push(&UP, &[&device], if operstate == "up" { 1.0 } else { 0.0 });
            let (address, broadcast) = (get("address"), get("broadcast"));
            let (duplex, alias) = (get("duplex"), get("ifalias"));
            out.push(&INFO, &[&device, &address, &broadcast, &duplex, &operstate, adminstate, &alias], 1.0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn attributes_become_series() {
        let tree = Tree::new(&[
            ("class/net/eth0/flags", "0x1003\n"),
            ("class/net/eth0/speed", "1000\n"),
            ("class/net/eth0/operstate", "up\n"),
            ("class/net/eth1/speed", "-1\n"),
            ("class/net/eth1/carrier", "\n"),
            ("class/net/bonding_masters", "bond0\n"),
        ]);
        let got = dump(&mut NetClass::new(tree.path(), DeviceFilter::default(), true));
        assert_eq!(
            got,
            [
                r#"node_network_flags{device="eth0"} 4099"#,
                r#"node_network_info{device="eth0",address="",broadcast="",duplex="",operstate="up",adminstate="up",ifalias=""} 1"#,
                r#"node_network_info{device="eth1",address="",broadcast="",duplex="",operstate="",adminstate="down",ifalias=""} 1"#,
                r#"node_network_speed_bytes{device="eth0"} 125000000"#,
                r#"node_network_up{device="eth0"} 1"#,
                r#"node_network_up{device="eth1"} 0"#,
            ]
        );
        let got = dump(&mut NetClass::new(tree.path(), DeviceFilter::default(), false));
        assert!(
            got.contains(&r#"node_network_speed_bytes{device="eth1"} -125000"#.to_owned()),
            "as node_exporter has it"
        );
    }
}
