//! The kernel's load balancer: its traffic, and the servers behind it.
//!
//! Source: `/proc/net/ip_vs_stats` and `/proc/net/ip_vs`.
//! Shape:  `node_ipvs_*_total`; `node_ipvs_backend_*` by service (address and port, or mark) and server. Servers that share
//!         all labels are told as one, summed.
//! Units:  packets, bytes, connections.
//! Errors: `Absent` where the kernel balances nothing; `Parse` for odd lines.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::reader::Reader;
use super::source::{ModuleResult, ProcFile, parse_decimal, parse_error};
use crate::module::Desc;
use crate::tick::Tick;

/// In the order of the columns of `ip_vs_stats`.
const TOTALS: &[Desc] = &[
    Desc::counter("node_ipvs_connections_total", "Connections made."),
    Desc::counter("node_ipvs_incoming_packets_total", "Packets received."),
    Desc::counter("node_ipvs_outgoing_packets_total", "Packets sent."),
    Desc::counter("node_ipvs_incoming_bytes_total", "Bytes received."),
    Desc::counter("node_ipvs_outgoing_bytes_total", "Bytes sent."),
];

const BACKEND: &[&str] = &["local_address", "local_port", "remote_address", "remote_port", "proto", "local_mark"];
const WEIGHT: Desc =
    Desc::gauge("node_ipvs_backend_weight", "Share of the traffic that it is meant to get.").labels(BACKEND);
const ACTIVE: Desc = Desc::gauge("node_ipvs_backend_connections_active", "Connections in use.").labels(BACKEND);
const INACTIVE: Desc = Desc::gauge("node_ipvs_backend_connections_inactive", "Connections not in use.").labels(BACKEND);

pub struct Ipvs {
    stats: ProcFile,
    services: ProcFile,
}

impl Ipvs {
    pub fn new(procfs: &Path) -> Self {
        Self { stats: ProcFile::new(procfs.join("net/ip_vs_stats")), services: ProcFile::new(procfs.join("net/ip_vs")) }
    }
}

/// Address, port and mark of a service, and its protocol.
#[derive(Clone, Default)]
struct Service {
    proto: String,
    address: String,
    port: String,
    mark: String,
}

impl Reader for Ipvs {
    fn descs(&self) -> Vec<Desc> {
        TOTALS.iter().cloned().chain([WEIGHT, ACTIVE, INACTIVE]).collect()
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let path = self.stats.path().to_owned();
        // Two lines of headings; then hexadecimal totals.
        let text = self.stats.text()?;
        let line = text.lines().nth(2).ok_or_else(|| parse_error(&path, "it has no third line"))?;
        let numbers: Vec<u64> =
            line.split_ascii_whitespace().map_while(|word| u64::from_str_radix(word, 16).ok()).collect();
        if numbers.len() != TOTALS.len() {
            return Err(parse_error(&path, format!("not five hexadecimal numbers in {line:?}")));
        }
        for (desc, number) in TOTALS.iter().zip(numbers) {
            out.push(desc, &[], number as f64);
        }
        push_servers(&mut self.services, out)
    }
}

fn push_servers(file: &mut ProcFile, out: &mut Tick) -> ModuleResult {
    let path = file.path().to_owned();
    let mut service = Service::default();
    let mut servers: BTreeMap<[String; 6], [f64; 3]> = BTreeMap::new();
    for line in file.text()?.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let odd = || parse_error(&path, format!("no service or server in {line:?}"));
        match *words.as_slice() {
            [proto @ ("TCP" | "UDP" | "SCTP"), local, ..] => {
                let (address, port) = address(local).ok_or_else(odd)?;
                service = Service { proto: proto.into(), address, port, mark: String::new() };
            }
            ["FWM", mark, ..] => {
                service = Service { proto: "FWM".into(), mark: mark.into(), port: "0".into(), ..Service::default() };
            }
            // The headings have an arrow too.
            ["->", "RemoteAddress:Port", ..] => {}
            ["->", remote, _, weight, active, inactive] => {
                let (address, port) = address(remote).ok_or_else(odd)?;
                let Service { proto, address: local, port: local_port, mark } = service.clone();
                let sums = servers.entry([local, local_port, address, port, proto, mark]).or_default();
                for (sum, word) in sums.iter_mut().zip([weight, active, inactive]) {
                    *sum += parse_decimal(word).ok_or_else(odd)?;
                }
            }
            _ => {}
        }
    }
    for (labels, [weight, active, inactive]) in &servers {
        let labels = labels.each_ref().map(String::as_str);
        out.push(&WEIGHT, &labels, *weight);
        out.push(&ACTIVE, &labels, *active);
        out.push(&INACTIVE, &labels, *inactive);
    }
    Ok(())
}

/// `C0A80016:0CEA` or `[2620:0000:...]:0CEA`.
fn address(text: &str) -> Option<(String, String)> {
    let (address, port) = text.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?.to_string();
    let address = match address.strip_prefix('[') {
        Some(v6) => v6.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.to_string(),
        None => Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?).to_string(),
    };
    Some((address, port))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn totals_services_and_marks() {
        let tree = Tree::new(&[
            ("net/ip_vs_stats", "   Total Incoming\n   Conns  Packets\n 16AA  E3 0 51D8 0\n\n Conns/s\n 4 5 0 6 0\n"),
            (
                "net/ip_vs",
                "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port \
                 Forward Weight ActiveConn InActConn\nTCP  C0A80016:0CEA wlc  \n  -> C0A85216:0CEA      Tunnel  100    248        2\n\
                 FWM  10001000 wlc\n  -> [fd80:0000:0000:0000:0000:0000:0000:0001]:0050 Tunnel  20 64 1\n",
            ),
        ]);
        let server = r#"local_address="192.168.0.22",local_port="3306",remote_address="192.168.82.22",remote_port="3306",proto="TCP",local_mark="""#;
        let marked = r#"local_address="",local_port="0",remote_address="fd80::1",remote_port="80",proto="FWM",local_mark="10001000""#;
        let told = dump(&mut Ipvs::new(tree.path()));
        for line in [
            format!("node_ipvs_backend_connections_active{{{server}}} 248"),
            format!("node_ipvs_backend_connections_inactive{{{marked}}} 1"),
            format!("node_ipvs_backend_weight{{{server}}} 100"),
            "node_ipvs_connections_total 5802".to_owned(),
            "node_ipvs_incoming_bytes_total 20952".to_owned(),
        ] {
            assert!(told.contains(&line), "{line} in {told:#?}");
        }
        tree.write("net/ip_vs_stats", "a\nb\nxyz\n");
        assert!(Ipvs::new(tree.path()).read(&mut Tick::new()).is_err());
    }
}
