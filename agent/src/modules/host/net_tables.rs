//! Two tables of the network stack, off by default as with node_exporter: counters of its caches by CPU, and of IPsec.
//!
//! Source: `/proc/net/stat/*` (a line of names, then hexadecimal numbers for each CPU) and `/proc/net/xfrm_stat`.
//! Shape:  `node_lnstat_<name>_total{subsystem,cpu}`; `node_xfrm_<name>_packets_total`.
//! Units:  events, packets.
//! Errors: `Absent` where the kernel was built without it; `Parse` for numbers that are none.

use std::fs;
use std::path::{Path, PathBuf};

use lampad_proto::v1::MetricType;

use super::reader::Reader;
use super::source::{ModuleResult, ProcFile, names_in, parse_decimal, parse_error, read_error};
use crate::module::Desc;
use crate::tick::Tick;

pub struct LnStat(PathBuf);

impl LnStat {
    pub fn new(procfs: &Path) -> Self {
        Self(procfs.join("net/stat"))
    }
}

impl Reader for LnStat {
    fn descs(&self) -> Vec<Desc> {
        vec![lnstat("entries")]
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        for subsystem in names_in(&self.0)? {
            let path = self.0.join(&subsystem);
            let text = fs::read_to_string(&path).map_err(|source| read_error(&path, source))?;
            let mut lines = text.lines();
            let descs: Vec<Desc> = lines.next().unwrap_or_default().split_ascii_whitespace().map(lnstat).collect();
            for (cpu, line) in lines.enumerate() {
                let cpu = cpu.to_string();
                for (desc, word) in descs.iter().zip(line.split_ascii_whitespace()) {
                    let number = u64::from_str_radix(word, 16);
                    let number = number.map_err(|_| parse_error(&path, format!("{word:?} is not hexadecimal")))?;
                    out.push(desc, &[&subsystem, &cpu], number as f64);
                }
            }
        }
        Ok(())
    }
}

fn lnstat(name: &str) -> Desc {
    let help = "Counter of a cache of the network stack.";
    Desc::named(MetricType::Counter, format!("node_lnstat_{name}_total"), help).labels(&["subsystem", "cpu"])
}

pub struct Xfrm(ProcFile);

impl Xfrm {
    pub fn new(procfs: &Path) -> Self {
        Self(ProcFile::new(procfs.join("net/xfrm_stat")))
    }
}

impl Reader for Xfrm {
    fn descs(&self) -> Vec<Desc> {
        vec![xfrm("XfrmInError")]
    }

    /// `XfrmInNoStates          3`
    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let path = self.0.path().to_owned();
        for line in self.0.text()?.lines() {
            let Some((name, value)) = line.split_once(char::is_whitespace) else { continue };
            let value = parse_decimal(value.trim());
            out.push(&xfrm(name), &[], value.ok_or_else(|| parse_error(&path, format!("no number in {line:?}")))?);
        }
        Ok(())
    }
}

/// `XfrmInNoStates` is `node_xfrm_in_no_states_packets_total`.
fn xfrm(name: &str) -> Desc {
    let mut words = String::from("node");
    for character in name.chars() {
        if character.is_ascii_uppercase() {
            words.push('_');
        }
        words.push(character.to_ascii_lowercase());
    }
    Desc::named(MetricType::Counter, format!("{words}_packets_total"), "IPsec packets with this fate.")
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn each_cpu_and_each_fate() {
        let tree = Tree::new(&[
            ("net/stat/arp_cache", "entries  allocs\n00000014  00000001\n00000014  0000000d\n"),
            ("net/xfrm_stat", "XfrmInNoStates     \t3\nXfrmFwdHdrError   6654\n"),
        ]);
        assert_eq!(
            dump(&mut LnStat::new(tree.path())),
            [
                r#"node_lnstat_allocs_total{subsystem="arp_cache",cpu="0"} 1"#,
                r#"node_lnstat_allocs_total{subsystem="arp_cache",cpu="1"} 13"#,
                r#"node_lnstat_entries_total{subsystem="arp_cache",cpu="0"} 20"#,
                r#"node_lnstat_entries_total{subsystem="arp_cache",cpu="1"} 20"#,
            ]
        );
        let told = ["node_xfrm_fwd_hdr_error_packets_total 6654", "node_xfrm_in_no_states_packets_total 3"];
        assert_eq!(dump(&mut Xfrm::new(tree.path())), told);
        tree.write("net/stat/arp_cache", "entries\nxyz\n");
        assert!(LnStat::new(tree.path()).read(&mut Tick::new()).is_err());
    }
}
