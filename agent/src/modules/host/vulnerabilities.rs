//! Known weaknesses of the CPU, and what the kernel does about them. Off by default, as with node_exporter.
//!
//! Source: `/sys/devices/system/cpu/vulnerabilities/*`.
//! Shape:  `node_cpu_vulnerabilities_info{codename,state,mitigation}` with value 1.
//! Units:  none.
//! Errors: `Absent` without the directory.

use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::source::{ModuleResult, attribute, names_in};
use crate::module::Desc;
use crate::tick::Tick;

const INFO: Desc = Desc::gauge("node_cpu_vulnerabilities_info", "State of each known weakness of the CPU.").labels(&[
    "codename",
    "state",
    "mitigation",
]);

pub struct Vulnerabilities(PathBuf);

impl Vulnerabilities {
    pub fn new(sysfs: &Path) -> Self {
        Self(sysfs.join("devices/system/cpu/vulnerabilities"))
    }
}

impl Reader for Vulnerabilities {
    fn descs(&self) -> Vec<Desc> {
        vec![INFO]
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        for name in names_in(&self.0)? {
            let text = attribute(self.0.join(&name)).unwrap_or_default();
            let (state, mitigation) = match text.split_once(':') {
                Some(("Mitigation", mitigation)) => ("mitigation", mitigation.trim()),
                Some((state, rest)) if state.starts_with("Vulnerable") => ("vulnerable", rest.trim()),
                _ if text.starts_with("Vulnerable") => ("vulnerable", ""),
                _ if text.starts_with("Not affected") => ("not affected", ""),
                _ => ("unknown", ""),
            };
            out.push(&INFO, &[&name, state, mitigation], 1.0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn states_are_told_apart() {
        let dir = "devices/system/cpu/vulnerabilities";
        let tree = Tree::new(&[
            (&format!("{dir}/a"), "Not affected\n"),
            (&format!("{dir}/b"), "Mitigation: Retpolines; X: Y\n"),
            (&format!("{dir}/c"), "Vulnerable: no microcode\n"),
            (&format!("{dir}/d"), "KVM: odd\n"),
        ]);
        assert_eq!(
            dump(&mut Vulnerabilities::new(tree.path())),
            [
                r#"node_cpu_vulnerabilities_info{codename="a",state="not affected",mitigation=""} 1"#,
                r#"node_cpu_vulnerabilities_info{codename="b",state="mitigation",mitigation="Retpolines; X: Y"} 1"#,
                r#"node_cpu_vulnerabilities_info{codename="c",state="vulnerable",mitigation="no microcode"} 1"#,
                r#"node_cpu_vulnerabilities_info{codename="d",state="unknown",mitigation=""} 1"#,
            ]
        );
    }
}
