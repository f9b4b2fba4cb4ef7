//! Counters of IP, TCP, UDP and ICMP.
//!
//! Source: `/proc/net/{netstat,snmp,snmp6}`. Read by hand: the kernel adds fields with each version, procfs has a fixed set.
//! Shape:  untyped series without labels, those of [`FIELDS`], as node_exporter has them by default.
//! Units:  events since the start; `Tcp_CurrEstab` counts connections now.
//! Errors: `Parse` for a heading without its line of numbers; a host without IPv6 has no `snmp6`.

use std::collections::HashMap;
use std::path::Path;

use lampad_proto::v1::MetricType;
use regex::Regex;

use super::reader::Reader;
use super::source::{ProcFile, parse_counter, parse_error};
use crate::module::{Desc, ModuleError};
use crate::tick::Tick;

/// `Protocol_Field` of what is told.
const FIELDS: &str = concat!(
    r"^(.*_(InErrors|InErrs)|Ip_Forwarding|Ip(6|Ext)_(InOctets|OutOctets)|Icmp6?_(InMsgs|OutMsgs)|",
    r"TcpExt_(Listen.*|Syncookies.*|TCPSynRetrans|TCPTimeouts|TCPOFOQueue|TCPRcvQDrop)|",
    r"Tcp_(ActiveOpens|InSegs|OutSegs|OutRsts|PassiveOpens|RetransSegs|CurrEstab)|",
    r"Udp6?_(InDatagrams|OutDatagrams|NoPorts|RcvbufErrors|SndbufErrors))$"
);

pub struct NetStat {
    fields: Regex,
    pairs: [ProcFile; 2],
    snmp6: ProcFile,
    /// For each heading line: which columns are told, under what name. Headings change with the kernel only.
    headings: HashMap<String, Vec<(usize, Desc)>>,
    /// For each key of `snmp6`: its family, if it is told.
    keys: HashMap<String, Option<Desc>>,
}

impl NetStat {
    pub fn new(procfs: &Path) -> Self {
        Self {
            fields: Regex::new(FIELDS).expect("a constant, compiled by every test"),
            pairs: ["net/netstat", "net/snmp"].map(|name| ProcFile::new(procfs.join(name))),
            snmp6: ProcFile::new(procfs.join("net/snmp6")),
            headings: HashMap::new(),
            keys: HashMap::new(),
        }
    }
}

impl Reader for NetStat {
    fn descs(&self) -> Vec<Desc> {
        let ipv4 =
            ["Tcp_ActiveOpens", "Tcp_PassiveOpens", "Tcp_CurrEstab", "Tcp_RetransSegs", "TcpExt_ListenOverflows"];
        ipv4.iter().map(|name| family(name)).collect()
    }

    fn read(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        for file in &mut self.pairs {
            let path = file.path().to_owned();
            let mut lines = file.text()?.lines();
            while let Some(heading) = lines.next() {
                let numbers = lines.next().ok_or_else(|| parse_error(&path, format!("no numbers for {heading:?}")))?;
                if !self.headings.contains_key(heading) {
                    self.headings.insert(heading.to_owned(), told(&self.fields, heading));
                }
                let mut words = numbers.split_ascii_whitespace();
                let mut next = 0;
                for (column, desc) in &self.headings[heading] {
                    let word = words.nth(column - next);
                    next = column + 1;
                    let value = word.and_then(parse_counter);
                    out.push(desc, &[], value.ok_or_else(|| parse_error(&path, format!("no {} there", desc.name)))?);
                }
            }
        }
        let text = match self.snmp6.text() {
            Ok(text) => text,
            Err(ModuleError::Absent { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(key), Some(value)) = (words.next(), words.next().and_then(parse_counter)) else { continue };
            if !self.keys.contains_key(key) {
                let name = key.find('6').map(|at| format!("{}_{}", &key[..=at], &key[at + 1..]));
                let desc = name.filter(|name| self.fields.is_match(name)).map(|name| family(&name));
                self.keys.insert(key.to_owned(), desc);
            }
            if let Some(desc) = &self.keys[key] {
                out.push(desc, &[], value);
            }
        }
        Ok(())
    }
}

/// Columns of a heading line that are told; column 0 is the protocol.
fn told(fields: &Regex, heading: &str) -> Vec<(usize, Desc)> {
    let mut words = heading.split_ascii_whitespace();
    let protocol = words.next().unwrap_or_default().trim_end_matches(':');
    let names = words.map(|field| format!("{protocol}_{field}"));
    names.enumerate().filter(|(_, name)| fields.is_match(name)).map(|(at, name)| (at + 1, family(&name))).collect()
}

fn family(name: &str) -> Desc {
    let help = format!("Network protocol counter {}.", name.replace('_', " "));
    Desc::named(MetricType::Unknown, format!("node_netstat_{name}"), help)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn fields_are_picked_by_name_not_by_place() {
        let tree = Tree::new(&[
            ("net/netstat", "TcpExt: Odd ListenDrops Other TCPTimeouts\nTcpExt: 1 2 3 4\n"),
            ("net/snmp", "Tcp: MaxConn CurrEstab InErrs\nTcp: -1 7 0\n"),
            ("net/snmp6", "Ip6InReceives  9\nIp6InOctets  10\nUdpLite6InErrors 1\n"),
        ]);
        let mut netstat = NetStat::new(tree.path());
        let expected = [
            "node_netstat_Ip6_InOctets 10",
            "node_netstat_TcpExt_ListenDrops 2",
            "node_netstat_TcpExt_TCPTimeouts 4",
            "node_netstat_Tcp_CurrEstab 7",
            "node_netstat_Tcp_InErrs 0",
            "node_netstat_UdpLite6_InErrors 1",
        ];
        assert_eq!(dump(&mut netstat), expected);
        assert_eq!(dump(&mut netstat), expected, "again, by the remembered headings");
        tree.write("net/snmp", "Tcp: CurrEstab\n");
        assert!(matches!(netstat.read(&mut Tick::new()), Err(ModuleError::Parse { .. })));
    }
}
