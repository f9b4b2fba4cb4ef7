//! Whether SELinux is on, and whether it enforces.
//!
//! Source: `/sys/fs/selinux/enforce`, `/etc/selinux/config`.
//! Shape:  `node_selinux_enabled`; the modes only where it is on.
//! Units:  1 enforcing, 0 permissive, -1 disabled.
//! Errors: none; a host without SELinux tells 0.

use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::source::{attribute, number};
use crate::module::{Desc, ModuleError};
use crate::tick::Tick;

const ENABLED: Desc = Desc::gauge("node_selinux_enabled", "1 if SELinux is on.");
const CURRENT: Desc = Desc::gauge("node_selinux_current_mode", "Mode that SELinux is in now.");
const CONFIG: Desc = Desc::gauge("node_selinux_config_mode", "Mode that SELinux is configured to start in.");

pub struct Selinux {
    enforce: PathBuf,
    config: PathBuf,
}

impl Selinux {
    pub fn new(sysfs: &Path, rootfs: &Path) -> Self {
        Self { enforce: sysfs.join("fs/selinux/enforce"), config: rootfs.join("etc/selinux/config") }
    }
}

impl Reader for Selinux {
    fn descs(&self) -> Vec<Desc> {
        vec![ENABLED, CURRENT, CONFIG]
    }

    fn read(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let Some(current) = number(&self.enforce) else {
            out.push(&ENABLED, &[], 0.0);
            return Ok(());
        };
        out.push(&ENABLED, &[], 1.0);
        out.push(&CURRENT, &[], current);
        let config = attribute(&self.config).unwrap_or_default();
        let mode = config.lines().find_map(|line| line.trim().strip_prefix("SELINUX="));
        out.push(
            &CONFIG,
            &[],
            match mode.map(str::trim) {
                Some("enforcing") => 1.0,
                Some("permissive") => 0.0,
                _ => -1.0,
            },
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn modes_are_told_where_it_is_on() {
        let tree = Tree::new(&[("etc/selinux/config", "#SELINUX=x\nSELINUX=permissive\nSELINUXTYPE=targeted\n")]);
        assert_eq!(dump(&mut Selinux::new(tree.path(), tree.path())), ["node_selinux_enabled 0"]);
        tree.write("fs/selinux/enforce", "1");
        assert_eq!(
            dump(&mut Selinux::new(tree.path(), tree.path())),
            ["node_selinux_config_mode 0", "node_selinux_current_mode 1", "node_selinux_enabled 1"]
        );
    }
}
