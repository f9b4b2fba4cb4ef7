//! Multipath devices: their paths, and how many of them work.
//!
//! Source: `/sys/block/dm-*/{dm,slaves,size}`, `/sys/block/*/device/state` of each path.
//! Shape:  `node_dmmultipath_device_*{device,sysfs_name}`, `node_dmmultipath_path_state{device,path,state}` with value 1.
//! Units:  paths; bytes.
//! Errors: `Absent` without a multipath device.

use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::source::{ModuleResult, absent, attribute, names_in, number};
use crate::module::Desc;
use crate::tick::Tick;

const fn gauge(name: &'static str, help: &'static str) -> Desc {
    Desc::gauge(name, help).labels(&["device", "sysfs_name"])
}

const ACTIVE: Desc = gauge("node_dmmultipath_device_active", "1 unless the device is suspended.");
const SIZE: Desc = gauge("node_dmmultipath_device_size_bytes", "Size of the device.");
const PATHS: Desc = gauge("node_dmmultipath_device_paths", "Paths to the device.");
const PATHS_ACTIVE: Desc = gauge("node_dmmultipath_device_paths_active", "Paths to the device that work.");
const PATHS_FAILED: Desc = gauge("node_dmmultipath_device_paths_failed", "Paths to the device that do not work.");
const INFO: Desc =
    Desc::gauge("node_dmmultipath_device_info", "What the device is.").labels(&["device", "sysfs_name", "uuid"]);
const STATE: Desc =
    Desc::gauge("node_dmmultipath_path_state", "State of a path to the device.").labels(&["device", "path", "state"]);

const SECTOR_BYTES: f64 = 512.0;

pub struct DmMultipath(PathBuf);

impl DmMultipath {
    pub fn new(sysfs: &Path) -> Self {
        Self(sysfs.join("block"))
    }
}

impl Reader for DmMultipath {
    fn descs(&self) -> Vec<Desc> {
        vec![ACTIVE, SIZE, PATHS, PATHS_ACTIVE, PATHS_FAILED, INFO, STATE]
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let mut found = false;
        for name in names_in(&self.0)?.iter().filter(|name| name.starts_with("dm-")) {
            let dir = self.0.join(name);
            let uuid = attribute(dir.join("dm/uuid")).unwrap_or_default();
            if !uuid.starts_with("mpath-") {
                continue;
            }
            found = true;
            let device = attribute(dir.join("dm/name")).unwrap_or_default();
            let paths = names_in(&dir.join("slaves")).unwrap_or_default();
            let mut working = 0;
            for path in &paths {
                let state = attribute(self.0.join(path).join("device/state")).unwrap_or_else(|| "unknown".into());
                // SCSI says `running`, NVMe `live`.
                working += usize::from(matches!(state.as_str(), "running" | "live"));
                out.push(&STATE, &[&device, path, &state], 1.0);
            }
            let labels = [device.as_str(), name.as_str()];
            let suspended = number(dir.join("dm/suspended")).unwrap_or(0.0);
            out.push(&ACTIVE, &labels, if suspended == 0.0 { 1.0 } else { 0.0 });
            out.push(&SIZE, &labels, number(dir.join("size")).unwrap_or(0.0) * SECTOR_BYTES);
            out.push(&PATHS, &labels, paths.len() as f64);
            out.push(&PATHS_ACTIVE, &labels, working as f64);
            out.push(&PATHS_FAILED, &labels, (paths.len() - working) as f64);
            out.push(&INFO, &[&device, name, &uuid], 1.0);
        }
        if found { Ok(()) } else { Err(absent(&self.0.join("dm-*/slaves of multipath"))) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn paths_are_counted_by_state() {
        let tree = Tree::new(&[
            ("block/dm-5/dm/uuid", "mpath-36\n"),
            ("block/dm-5/dm/name", "data\n"),
            ("block/dm-5/dm/suspended", "0\n"),
            ("block/dm-5/size", "8\n"),
            ("block/dm-5/slaves/sdb/x", ""),
            ("block/dm-5/slaves/sdc/x", ""),
            ("block/sdb/device/state", "running\n"),
            ("block/sdc/device/state", "offline\n"),
            ("block/dm-1/dm/uuid", "LVM-x\n"),
        ]);
        let got = dump(&mut DmMultipath::new(tree.path()));
        for line in [
            r#"node_dmmultipath_device_paths_failed{device="data",sysfs_name="dm-5"} 1"#,
            r#"node_dmmultipath_device_size_bytes{device="data",sysfs_name="dm-5"} 4096"#,
            r#"node_dmmultipath_path_state{device="data",path="sdc",state="offline"} 1"#,
        ] {
            assert!(got.contains(&line.to_owned()), "{line} not in {got:#?}");
        }
        assert_eq!(got.len(), 8);
    }
}
