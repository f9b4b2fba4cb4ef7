//! Addresses of the network interfaces. Off by default: a series per address.
//!
//! Source: rtnetlink, RTM_GETADDR; both IP versions.
//! Shape:  `node_network_address_info{device,address,netmask,scope}` with value 1; the mask as its number of bits.
//! Units:  none.
//! Errors: `Read` where the kernel does not answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use super::netlink::{self, attribute, u32_at};
use super::reader::Reader;
use super::settings::DeviceFilter;
use super::source::ModuleResult;
use crate::module::Desc;
use crate::tick::Tick;

const INFO: Desc = Desc::gauge("node_network_address_info", "An address of the host.")
    .labels(&["device", "address", "netmask", "scope"]);

const RTM_GETADDR: u16 = 22;
/// struct ifaddrmsg: family, bits of the mask, flags, scope, number of the device.
const MESSAGE_BYTES: usize = 8;
const IFA_ADDRESS: u16 = 1;
/// Our own end of a link between two hosts, where the other attribute is the other's.
const IFA_LOCAL: u16 = 2;

pub struct AddressInfo {
    sysfs: PathBuf,
    devices: DeviceFilter,
}

impl AddressInfo {
    pub fn new(sysfs: &Path, devices: DeviceFilter) -> Self {
        Self { sysfs: sysfs.to_owned(), devices }
    }
}

impl Reader for AddressInfo {
    fn descs(&self) -> Vec<Desc> {
        vec![INFO]
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let names = netlink::device_names(&self.sysfs);
        for message in netlink::dump(RTM_GETADDR, MESSAGE_BYTES)? {
            if let Some((index, bits, address)) = parse(&message) {
                let device = netlink::name_of(&names, index);
                if self.devices.takes(device) {
                    out.push(&INFO, &[device, &address.to_string(), &bits.to_string(), scope(address)], 1.0);
                }
            }
        }
        Ok(())
    }
}

/// Number of the device, bits of the mask, address. A message that is shorter than it should be is left out.
fn parse(message: &[u8]) -> Option<(u32, u8, IpAddr)> {
    let (bits, index) = (*message.get(1)?, u32_at(message, 4)?);
    let attributes = message.get(MESSAGE_BYTES..)?;
    let address = attribute(attributes, IFA_LOCAL).or_else(|| attribute(attributes, IFA_ADDRESS))?;
    let address = match address.len() {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?).into(),
        16 => Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?).into(),
        _ => return None,
    };
    Some((index, bits, address))
}

/// How far the address reaches, by the address itself and in node_exporter's words: 127.0.0.1 is of the link, too.
fn scope(address: IpAddr) -> &'static str {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.octets()[..3] == [224, 0, 0],
        IpAddr::V6(address) => address.is_unicast_link_local() || address.segments()[0] & 0xff0f == 0xff02,
    };
    if address.is_loopback() || link_local {
        return "link-local";
    }
    match address {
        IpAddr::V6(address) if address.segments()[0] & 0xff0f == 0xff01 => "interface-local",
        IpAddr::V4(address) if address.is_broadcast() => "",
        _ if address.is_multicast() || address.is_unspecified() => "",
        _ => "global",
    }
}

#[cfg(test)]
mod tests {
    use super::super::netlink::tests::attribute_bytes;
    use super::*;

    #[test]
    fn our_own_end_of_a_link_is_told() {
        let head = |bits: u8| [vec![2, bits, 0, 0], 3u32.to_ne_bytes().to_vec()].concat();
        let peer = attribute_bytes(IFA_ADDRESS, &[10, 0, 0, 2]);
        let own = attribute_bytes(IFA_LOCAL, &[10, 0, 0, 1]);
        assert_eq!(parse(&[head(32), peer.clone(), own].concat()), Some((3, 32, [10, 0, 0, 1].into())));
        assert_eq!(parse(&[head(24), peer].concat()), Some((3, 24, [10, 0, 0, 2].into())));
        assert_eq!(parse(&head(24)), None);
        assert_eq!(parse(&[2, 24, 0]), None);
    }

    #[test]
    fn scopes_are_called_as_node_exporter_calls_them() {
        for (address, expected) in [
            ("127.0.0.1", "link-local"),
            ("::1", "link-local"),
            ("169.254.1.1", "link-local"),
            ("fe80::1", "link-local"),
            ("192.0.2.2", "global"),
            ("fd00::2", "global"),
            ("ff01::1", "interface-local"),
            ("0.0.0.0", ""),
        ] {
            assert_eq!(scope(address.parse().unwrap()), expected, "{address}");
        }
    }
}
