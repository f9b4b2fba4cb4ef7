//! Settings of the kernel that the configuration names. Off by default.
//!
//! Source: files below `/proc/sys`, named as sysctl(8) does: `vm.swappiness`.
//! Shape:  `node_sysctl_<name>`; several numbers in one file have label `index`, or, asked for as `name:a,b,c`, a family each.
//!         What is named under `info` is told as text: `node_sysctl_info{name,value,index}` with value 1.
//! Units:  the kernel's own.
//! Errors: `Read` for a name that is not there; `Parse` for text where numbers were asked for.

use std::path::{Path, PathBuf};

use lampad_proto::v1::MetricType;
use serde::Deserialize;

use super::reader::Reader;
use super::source::{ModuleResult, parse_decimal, parse_error, read_error};
use crate::module::{Desc, ModuleError};
use crate::tick::Tick;

const INFO: Desc =
    Desc::gauge("node_sysctl_info", "A setting of the kernel that is text.").labels(&["name", "value", "index"]);

/// What is told, as `--collector.sysctl.include` and `--collector.sysctl.include-info` of node_exporter.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SysctlSettings {
    pub include: Vec<String>,
    pub include_info: Vec<String>,
}

pub struct Sysctl {
    dir: PathBuf,
    settings: SysctlSettings,
}

impl Sysctl {
    pub fn new(procfs: &Path, settings: SysctlSettings) -> Self {
        Self { dir: procfs.join("sys"), settings }
    }

    fn words(&self, name: &str) -> Result<Vec<String>, ModuleError> {
        let path = self.path(name);
        let text = std::fs::read_to_string(&path).map_err(|source| read_error(&path, source))?;
        Ok(text.split_ascii_whitespace().map(str::to_owned).collect())
    }

    /// Dots part the folders; a dot within a name (of a network device) is written `/`, as sysctl(8) has it.
    fn path(&self, name: &str) -> PathBuf {
        let swapped: String = name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect();
        self.dir.join(swapped)
    }
}

impl Reader for Sysctl {
    fn descs(&self) -> Vec<Desc> {
        vec![INFO]
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        if self.settings.include.is_empty() && self.settings.include_info.is_empty() {
            return Err(ModuleError::Absent { what: "a setting named in [host.sysctl] include".into() });
        }
        for wanted in &self.settings.include {
            let (name, parts) = wanted.split_once(':').unwrap_or((wanted, ""));
            let mut numbers = Vec::new();
            for word in self.words(name)? {
                let number = parse_decimal(&word);
                numbers.push(number.ok_or_else(|| {
                    parse_error(&self.path(name), format!("{word:?} is no number; ask for it by include_info"))
                })?);
            }
            push_numbers(name, parts, &numbers, out);
        }
        for name in &self.settings.include_info {
            for (index, word) in self.words(name)?.iter().enumerate() {
                out.push(&INFO, &[name, word, &index.to_string()], 1.0);
            }
        }
        Ok(())
    }
}

fn push_numbers(name: &str, parts: &str, numbers: &[f64], out: &mut Tick) {
    let base = format!("node_sysctl_{}", metric_part(name));
    let desc = |name: String| Desc::named(MetricType::Unknown, name, "A setting of the kernel.");
    if !parts.is_empty() {
        for (part, number) in parts.split(',').zip(numbers) {
            out.push(&desc(format!("{base}_{}", metric_part(part))), &[], *number);
        }
    } else if let [number] = numbers {
        out.push(&desc(base), &[], *number);
    } else {
        let desc = desc(base).labels(&["index"]);
        for (index, number) in numbers.iter().enumerate() {
            out.push(&desc, &[&index.to_string()], *number);
        }
    }
}

fn metric_part(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    fn sysctl(tree: &Tree, include: &[&str], info: &[&str]) -> Sysctl {
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        Sysctl::new(tree.path(), SysctlSettings { include: names(include), include_info: names(info) })
    }

    #[test]
    fn one_number_several_and_text() {
        let tree = Tree::new(&[
            ("sys/fs/file-nr", "1024\t0\t163\n"),
            ("sys/vm/swappiness", "60\n"),
            ("sys/net/ipv4/conf/eth0.1/mtu", "9\n"),
            ("sys/kernel/seccomp", "kill trap\n"),
        ]);
        let names = ["fs.file-nr", "fs.file-nr:total,current,max", "vm.swappiness", "net.ipv4.conf.eth0/1.mtu"];
        assert_eq!(
            dump(&mut sysctl(&tree, &names, &["kernel.seccomp"])),
            [
                r#"node_sysctl_fs_file_nr_current 0"#,
                r#"node_sysctl_fs_file_nr_max 163"#,
                r#"node_sysctl_fs_file_nr_total 1024"#,
                r#"node_sysctl_fs_file_nr{index="0"} 1024"#,
                r#"node_sysctl_fs_file_nr{index="1"} 0"#,
                r#"node_sysctl_fs_file_nr{index="2"} 163"#,
                r#"node_sysctl_info{name="kernel.seccomp",value="kill",index="0"} 1"#,
                r#"node_sysctl_info{name="kernel.seccomp",value="trap",index="1"} 1"#,
                r#"node_sysctl_net_ipv4_conf_eth0_1_mtu 9"#,
                r#"node_sysctl_vm_swappiness 60"#,
            ]
        );
        let text = sysctl(&tree, &["kernel.seccomp"], &[]).read(&mut Tick::new()).unwrap_err().to_string();
        assert!(text.contains("ask for it by include_info"), "{text}");
        assert!(sysctl(&tree, &[], &[]).read(&mut Tick::new()).unwrap_err().is_absence());
    }
}
