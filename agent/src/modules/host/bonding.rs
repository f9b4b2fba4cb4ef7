//! Bonded interfaces: how many members, and how many of those are up.
//!
//! Source: `/sys/class/net/bonding_masters`, `/sys/class/net/*/bonding`.
//! Shape:  `node_bonding_{slaves,active}{master}`.
//! Units:  interfaces.
//! Errors: `Absent` without bonding.

use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::source::{ModuleResult, absent, attribute};
use crate::module::Desc;
use crate::tick::Tick;

const SLAVES: Desc = Desc::gauge("node_bonding_slaves", "Members of the bond.").labels(&["master"]);
const ACTIVE: Desc = Desc::gauge("node_bonding_active", "Members of the bond whose link is up.").labels(&["master"]);

pub struct Bonding(PathBuf);

impl Bonding {
    pub fn new(sysfs: &Path) -> Self {
        Self(sysfs.join("class/net"))
    }
}

impl Reader for Bonding {
    fn descs(&self) -> Vec<Desc> {
        vec![SLAVES, ACTIVE]
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let path = self.0.join("bonding_masters");
        let masters = attribute(&path).ok_or_else(|| absent(&path))?;
        for master in masters.split_ascii_whitespace() {
            let dir = self.0.join(master);
            let slaves = attribute(dir.join("bonding/slaves")).unwrap_or_default();
            let up = |slave: &&str| {
                // The link is `lower_` since Linux 3.18, and was `slave_` before.
                let status = ["lower_", "slave_"].iter().find_map(|prefix| {
                    attribute(dir.join(format!("{prefix}{slave}")).join("bonding_slave/mii_status"))
                });
                status.is_some_and(|status| status == "up")
            };
            out.push(&SLAVES, &[master], slaves.split_ascii_whitespace().count() as f64);
            out.push(&ACTIVE, &[master], slaves.split_ascii_whitespace().filter(up).count() as f64);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn members_that_are_up_are_counted() {
        let tree = Tree::new(&[
            ("class/net/bonding_masters", "bond0\n"),
            ("class/net/bond0/bonding/slaves", "eth0 eth1 eth2\n"),
            ("class/net/bond0/lower_eth0/bonding_slave/mii_status", "up\n"),
            ("class/net/bond0/slave_eth1/bonding_slave/mii_status", "down\n"),
        ]);
        assert_eq!(
            dump(&mut Bonding::new(tree.path())),
            [r#"node_bonding_active{master="bond0"} 1"#, r#"node_bonding_slaves{master="bond0"} 3"#]
        );
    }
}
