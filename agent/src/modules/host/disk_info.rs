//! What each disk is: model, serial number, file system, logical volume.
//!
//! Source: `/run/udev/data/bMAJOR:MINOR` for each device of `/proc/diskstats`, `/sys/block/*/queue/rotational`.
//! Shape:  `node_disk_info` and the like with value 1; ATA properties as gauges. Without udev the labels are empty.
//! Units:  revolutions per minute for `node_disk_ata_rotation_rate_rpm`; else none.
//! Errors: those of `/proc/diskstats`; what udev does not know is left out.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::diskstats::devices;
use super::reader::Reader;
use super::settings::DeviceFilter;
use super::source::{ProcFile, attribute, parse_decimal};
use crate::module::{Desc, ModuleError};
use crate::tick::Tick;

const INFO: Desc = Desc::gauge("node_disk_info", "What the disk is.").labels(&[
    "device",
    "major",
    "minor",
    "path",
    "wwn",
    "model",
    "serial",
    "revision",
    "rotational",
]);
const FILESYSTEM: Desc = Desc::gauge("node_disk_filesystem_info", "What file system is on the disk.")
    .labels(&["device", "type", "usage", "uuid", "version"]);
const MAPPER: Desc = Desc::gauge("node_disk_device_mapper_info", "What logical volume the device is.")
    .labels(&["device", "name", "uuid", "vg_name", "lv_name", "lv_layer"]);

/// udev's key, family. Told of ATA disks, where udev knows the key.
const ATA: &[(&str, Desc)] = &[
    (
        "ID_ATA_ROTATION_RATE_RPM",
        Desc::gauge("node_disk_ata_rotation_rate_rpm", "Revolutions per minute; 0 for a disk without moving parts.")
            .labels(&["device"]),
    ),
    (
        "ID_ATA_WRITE_CACHE",
        Desc::gauge("node_disk_ata_write_cache", "1 if the disk has a write cache.").labels(&["device"]),
    ),
    (
        "ID_ATA_WRITE_CACHE_ENABLED",
        Desc::gauge("node_disk_ata_write_cache_enabled", "1 if the disk's write cache is on.").labels(&["device"]),
    ),
];

pub struct DiskInfo {
    diskstats: ProcFile,
    filter: DeviceFilter,
    udev: PathBuf,
    sysfs: PathBuf,
}

impl DiskInfo {
    pub fn new(procfs: &Path, sysfs: &Path, udev: &Path, filter: DeviceFilter) -> Self {
        Self { diskstats: ProcFile::new(procfs.join("diskstats")), filter, udev: udev.into(), sysfs: sysfs.into() }
    }
}

impl Reader for DiskInfo {
    fn descs(&self) -> Vec<Desc> {
        [INFO, FILESYSTEM, MAPPER].into_iter().chain(ATA.iter().map(|(_, desc)| desc.clone())).collect()
    }

    fn read(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        for (major, minor, device) in devices(&mut self.diskstats, &self.filter)? {
            let text = attribute(self.udev.join(format!("b{major}:{minor}"))).unwrap_or_default();
            let known: HashMap<&str, &str> =
                text.lines().filter_map(|line| line.strip_prefix("E:")?.split_once('=')).collect();
            let get = |key: &str| known.get(key).copied().unwrap_or_default();
            // A SCSI disk behind a controller has its own serial number in the first; cards have the last only.
            let serials = ["SCSI_IDENT_SERIAL", "ID_SERIAL_SHORT", "ID_SERIAL"].map(get);
            let serial = serials.into_iter().find(|serial| !serial.is_empty()).unwrap_or_default();
            let rotational = attribute(self.sysfs.join("block").join(&device).join("queue/rotational"));
            let rotational = rotational.as_deref().unwrap_or("0");
            let labels = [get("ID_PATH"), get("ID_WWN"), get("ID_MODEL"), serial, get("ID_REVISION"), rotational];
            let [path, wwn, model, serial, revision, rotational] = labels;
            out.push(&INFO, &[&device, &major, &minor, path, wwn, model, serial, revision, rotational], 1.0);
            if !get("ID_FS_TYPE").is_empty() {
                let [kind, usage] = [get("ID_FS_TYPE"), get("ID_FS_USAGE")];
                out.push(&FILESYSTEM, &[&device, kind, usage, get("ID_FS_UUID"), get("ID_FS_VERSION")], 1.0);
            }
            if !get("DM_NAME").is_empty() {
                let [group, volume, layer] = [get("DM_VG_NAME"), get("DM_LV_NAME"), get("DM_LV_LAYER")];
                out.push(&MAPPER, &[&device, get("DM_NAME"), get("DM_UUID"), group, volume, layer], 1.0);
            }
            if !get("ID_ATA").is_empty() {
                for (key, desc) in ATA {
                    if let Some(value) = known.get(key).and_then(|value| parse_decimal(value)) {
                        out.push(desc, &[&device], value);
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn udev_names_the_disk() {
        let tree = Tree::new(&[
            ("diskstats", " 8 0 sda 0\n 253 0 dm-0 0\n"),
            (
                "udev/b8:0",
                "S:disk/by-id/x\nE:ID_MODEL=Big=Disk\nE:ID_ATA=1\nE:ID_ATA_ROTATION_RATE_RPM=7200\nE:ID_SERIAL_SHORT=S1\n",
            ),
            ("udev/b253:0", "E:DM_NAME=vg-data\nE:DM_VG_NAME=vg\nE:ID_FS_TYPE=xfs\nE:ID_FS_USAGE=filesystem\n"),
            ("sys/block/sda/queue/rotational", "1\n"),
        ]);
        let (root, udev, sys) = (tree.path(), tree.path().join("udev"), tree.path().join("sys"));
        let got = dump(&mut DiskInfo::new(root, &sys, &udev, DeviceFilter::default()));
        assert_eq!(
            got,
            [
                r#"node_disk_ata_rotation_rate_rpm{device="sda"} 7200"#,
                r#"node_disk_device_mapper_info{device="dm-0",name="vg-data",uuid="",vg_name="vg",lv_name="",lv_layer=""} 1"#,
                r#"node_disk_filesystem_info{device="dm-0",type="xfs",usage="filesystem",uuid="",version=""} 1"#,
                r#"node_disk_info{device="dm-0",major="253",minor="0",path="",wwn="",model="",serial="",revision="",rotational="0"} 1"#,
                r#"node_disk_info{device="sda",major="8",minor="0",path="",wwn="",model="Big=Disk",serial="S1",revision="",rotational="1"} 1"#,
            ]
        );
    }
}
