//! NVMe controllers and their namespaces.
//!
//! Source: `/sys/class/nvme/nvme*`, and `nvme*n*` below each.
//! Shape:  `node_nvme_info{device,...}`; `node_nvme_namespace_*{device,nsid}`.
//! Units:  bytes: size and use times the logical block, as node_exporter has it; the kernel counts the size in sectors of
//!         512, so that it is eight times too high for disks formatted with blocks of 4 KiB, here as there.
//! Errors: `Absent` without a controller; a namespace without sizes is left out.

use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::source::{ModuleResult, absent, attribute, names_in, number};
use crate::module::Desc;
use crate::tick::Tick;

const INFO: Desc = Desc::gauge("node_nvme_info", "What the controller is, and its state.").labels(&[
    "device",
    "firmware_revision",
    "model",
    "serial",
    "state",
    "cntlid",
]);
const NAMESPACE: Desc =
    Desc::gauge("node_nvme_namespace_info", "What the namespace is.").labels(&["device", "nsid", "ana_state"]);

const fn of_namespace(name: &'static str, help: &'static str) -> Desc {
    Desc::gauge(name, help).labels(&["device", "nsid"])
}
const CAPACITY: Desc = of_namespace("node_nvme_namespace_capacity_bytes", "Room that can be given to the namespace.");
const SIZE: Desc = of_namespace("node_nvme_namespace_size_bytes", "Size of the namespace.");
const USED: Desc = of_namespace("node_nvme_namespace_used_bytes", "Room that the namespace has been given.");
const BLOCK: Desc = of_namespace("node_nvme_namespace_logical_block_size_bytes", "Size of a block of the namespace.");

pub struct Nvme(PathBuf);

impl Nvme {
    pub fn new(sysfs: &Path) -> Self {
        Self(sysfs.join("class/nvme"))
    }
}

impl Reader for Nvme {
    fn descs(&self) -> Vec<Desc> {
        vec![INFO, NAMESPACE, CAPACITY, SIZE, USED, BLOCK]
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let mut found = false;
        for device in names_in(&self.0)? {
            let dir = self.0.join(&device);
            let get = |file: &str| attribute(dir.join(file)).unwrap_or_default();
            let (firmware, model, serial) = (get("firmware_rev"), get("model"), get("serial"));
            out.push(&INFO, &[&device, &firmware, &model, &serial, &get("state"), &get("cntlid")], 1.0);
            for name in names_in(&dir).unwrap_or_default() {
                if let Some(nsid) = nsid(&device, &name) {
                    push_namespace(&dir.join(&name), &device, nsid, out);
                }
            }
            found = true;
        }
        if found { Ok(()) } else { Err(absent(&self.0)) }
    }
}

/// `nvme0n1` or `nvme0c1n1` of controller `nvme0`.
fn nsid<'a>(device: &str, name: &'a str) -> Option<&'a str> {
    let (before, nsid) = name.strip_prefix(device)?.rsplit_once('n')?;
    let path = before.is_empty() || before.strip_prefix('c').is_some_and(|path| path.parse::<u32>().is_ok());
    (path && nsid.parse::<u32>().is_ok()).then_some(nsid)
}

fn push_namespace(dir: &Path, device: &str, nsid: &str, out: &mut Tick) {
    let (Some(size), Some(used), Some(block)) =
        (number(dir.join("size")), number(dir.join("nuse")), number(dir.join("queue/logical_block_size")))
    else {
        return;
    };
    let ana_state = attribute(dir.join("ana_state")).unwrap_or_else(|| "unknown".into());
    out.push(&NAMESPACE, &[device, nsid, &ana_state], 1.0);
    out.push(&CAPACITY, &[device, nsid], size * block);
    out.push(&SIZE, &[device, nsid], size * block);
    out.push(&USED, &[device, nsid], used * block);
    out.push(&BLOCK, &[device, nsid], block);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn controllers_and_namespaces() {
        let tree = Tree::new(&[
            ("class/nvme/nvme0/model", "Big one  \n"),
            ("class/nvme/nvme0/nvme0n1/size", "8\n"),
            ("class/nvme/nvme0/nvme0n1/nuse", "1\n"),
            ("class/nvme/nvme0/nvme0n1/queue/logical_block_size", "4096\n"),
            ("class/nvme/nvme0/power/control", "auto\n"),
        ]);
        assert_eq!(
            dump(&mut Nvme::new(tree.path())),
            [
                r#"node_nvme_info{device="nvme0",firmware_revision="",model="Big one",serial="",state="",cntlid=""} 1"#,
                r#"node_nvme_namespace_capacity_bytes{device="nvme0",nsid="1"} 32768"#,
                r#"node_nvme_namespace_info{device="nvme0",nsid="1",ana_state="unknown"} 1"#,
                r#"node_nvme_namespace_logical_block_size_bytes{device="nvme0",nsid="1"} 4096"#,
                r#"node_nvme_namespace_size_bytes{device="nvme0",nsid="1"} 32768"#,
                r#"node_nvme_namespace_used_bytes{device="nvme0",nsid="1"} 4096"#,
            ]
        );
        assert_eq!(
            (nsid("nvme0", "nvme0c3n2"), nsid("nvme1", "nvme0n1"), nsid("nvme0", "nvme0n1p1")),
            (Some("2"), None, None)
        );
    }
}
