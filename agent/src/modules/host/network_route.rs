//! Routes. Off by default: a series per route.
//!
//! Source: rtnetlink, RTM_GETROUTE; unicast routes of both IP versions.
//! Shape:  `node_network_route_info{device,src,dest,gw,priority,proto,weight}` with value 1; `node_network_routes{device}`.
//! Units:  routes.
//! Errors: `Read` where the kernel does not answer.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use super::netlink::{self, attribute, u16_at, u32_at};
use super::reader::Reader;
use super::source::ModuleResult;
use crate::module::Desc;
use crate::tick::Tick;

const INFO: Desc = Desc::gauge("node_network_route_info", "A route of the host.")
    .labels(&["device", "src", "dest", "gw", "priority", "proto", "weight"]);
const ROUTES: Desc = Desc::gauge("node_network_routes", "Routes by device.").labels(&["device"]);

const RTM_GETROUTE: u16 = 26;
/// struct rtmsg: family, bits of destination and source, service, table, protocol, scope, type, flags.
const MESSAGE_BYTES: usize = 12;
const UNICAST: u8 = 1;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_MULTIPATH: u16 = 9;
/// struct rtnexthop: length, flags, hops, number of the device.
const NEXT_HOP_BYTES: usize = 8;

pub struct NetworkRoute(PathBuf);

impl NetworkRoute {
    pub fn new(sysfs: &Path) -> Self {
        Self(sysfs.to_owned())
    }
}

impl Reader for NetworkRoute {
    fn descs(&self) -> Vec<Desc> {
        vec![INFO, ROUTES]
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let names = netlink::device_names(&self.0);
        let mut counts = BTreeMap::new();
        for message in netlink::dump(RTM_GETROUTE, MESSAGE_BYTES)? {
            push(&message, &names, &mut counts, out);
        }
        for (device, count) in counts {
            out.push(&ROUTES, &[device], f64::from(count));
        }
        Ok(())
    }
}

/// A message that is shorter than it should be is left out.
fn push<'a>(
    message: &[u8],
    names: &'a [(u32, String)],
    counts: &mut BTreeMap<&'a str, u32>,
    out: &mut Tick,
) -> Option<()> {
    let (bits, proto, kind) = (*message.get(1)?, *message.get(5)?, *message.get(7)?);
    if kind != UNICAST {
        return None;
    }
    let attributes = message.get(MESSAGE_BYTES..)?;
    let address = |bytes: &[u8], kind| attribute(bytes, kind).and_then(address).unwrap_or_default();
    let dest = match address(attributes, RTA_DST) {
        none if none.is_empty() => "default".to_owned(),
        dest => format!("{dest}/{bits}"),
    };
    let source = address(attributes, RTA_PREFSRC);
    let priority = attribute(attributes, RTA_PRIORITY).and_then(|bytes| u32_at(bytes, 0)).unwrap_or(0).to_string();
    let mut tell = |device: u32, gateway: &str, weight: &str| {
        let device = netlink::name_of(names, device);
        out.push(&INFO, &[device, &source, &dest, gateway, &priority, protocol(proto), weight], 1.0);
        *counts.entry(device).or_default() += 1;
    };
    match attribute(attributes, RTA_MULTIPATH) {
        Some(mut hops) => {
            while let Some(hop) = hops.get(..u16_at(hops, 0)? as usize).filter(|hop| hop.len() >= NEXT_HOP_BYTES) {
                let gateway = address(&hop[NEXT_HOP_BYTES..], RTA_GATEWAY);
                tell(u32_at(hop, 4)?, &gateway, &(u32::from(hop[3]) + 1).to_string());
                hops = hops.get(hop.len().next_multiple_of(4)..)?;
            }
        }
        None => {
            let device = attribute(attributes, RTA_OIF).and_then(|bytes| u32_at(bytes, 0)).unwrap_or(0);
            tell(device, &address(attributes, RTA_GATEWAY), "");
        }
    }
    Some(())
}

fn address(bytes: &[u8]) -> Option<String> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).to_string()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_string()),
        _ => None,
    }
}

/// Who made the route, by the kernel's numbers.
fn protocol(number: u8) -> &'static str {
    match number {
        0 => "unspec",
        1 => "redirect",
        2 => "kernel",
        3 => "boot",
        4 => "static",
        8 => "gated",
        9 => "ra",
        10 => "mrt",
        11 => "zebra",
        12 => "bird",
        13 => "dnrouted",
        14 => "xorp",
        15 => "ntk",
        16 => "dhcp",
        17 => "mrouted",
        42 => "babel",
        186 => "bgp",
        187 => "isis",
        188 => "ospf",
        189 => "rip",
        192 => "eigrp",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::super::netlink::tests::attribute_bytes;
    use super::super::testing::lines;
    use super::*;

    #[test]
    fn routes_with_one_hop_and_with_several() {
        let names = [(2, "eth0".to_owned()), (3, "eth1".to_owned())];
        let head = |bits: u8, proto: u8, kind: u8| vec![2, bits, 0, 0, 254, proto, 0, kind, 0, 0, 0, 0];
        let device = attribute_bytes(RTA_OIF, &2u32.to_ne_bytes());
        let gateway = attribute_bytes(RTA_GATEWAY, &[10, 0, 0, 1]);
        let hop = |number: u32, hops: u8| {
            let mut bytes = ((NEXT_HOP_BYTES + gateway.len()) as u16).to_ne_bytes().to_vec();
            bytes.extend([0, hops]);
            [bytes, number.to_ne_bytes().to_vec(), gateway.clone()].concat()
        };
        let (mut tick, mut counts) = (Tick::new(), BTreeMap::new());
        let plain = [head(24, 2, UNICAST), attribute_bytes(RTA_DST, &[10, 0, 0, 0]), device.clone()].concat();
        let several = [head(0, 3, UNICAST), attribute_bytes(RTA_MULTIPATH, &[hop(2, 0), hop(3, 4)].concat())].concat();
        push(&plain, &names, &mut counts, &mut tick);
        push(&several, &names, &mut counts, &mut tick);
        push(&[head(0, 2, 2), device].concat(), &names, &mut counts, &mut tick);
        assert_eq!(
            lines(&tick),
            [
                r#"node_network_route_info{device="eth0",src="",dest="10.0.0.0/24",gw="",priority="0",proto="kernel",weight=""} 1"#,
                r#"node_network_route_info{device="eth0",src="",dest="default",gw="10.0.0.1",priority="0",proto="boot",weight="1"} 1"#,
                r#"node_network_route_info{device="eth1",src="",dest="default",gw="10.0.0.1",priority="0",proto="boot",weight="5"} 1"#,
            ]
        );
        assert_eq!(counts, BTreeMap::from([("eth0", 2), ("eth1", 1)]));
    }
}
