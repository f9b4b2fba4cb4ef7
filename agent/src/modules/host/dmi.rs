//! Vendor, model and serial numbers of the host.
//!
//! Source: `/sys/class/dmi/id`. Only root may read the serial numbers.
//! Shape:  `node_dmi_info` with value 1; what cannot be read is an empty label.
//! Units:  none.
//! Errors: `Absent` on hosts without DMI.

use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::source::{ModuleResult, absent, attribute};
use crate::module::Desc;
use crate::tick::Tick;

/// The labels, which are the files' names but for the last.
const LABELS: &[&str] = &[
    "bios_date",
    "bios_release",
    "bios_vendor",
    "bios_version",
    "board_asset_tag",
    "board_name",
    "board_serial",
    "board_vendor",
    "board_version",
    "chassis_asset_tag",
    "chassis_serial",
    "chassis_vendor",
    "chassis_version",
    "product_family",
    "product_name",
    "product_serial",
    "product_sku",
    "product_uuid",
    "product_version",
    "system_vendor",
];
const INFO: Desc = Desc::gauge("node_dmi_info", "What the host is, as its firmware tells.").labels(LABELS);

pub struct Dmi(PathBuf);

impl Dmi {
    pub fn new(sysfs: &Path) -> Self {
        Self(sysfs.join("class/dmi/id"))
    }
}

impl Reader for Dmi {
    fn descs(&self) -> Vec<Desc> {
        vec![INFO]
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        if !self.0.is_dir() {
            return Err(absent(&self.0));
        }
        let file = |label: &&str| if *label == "system_vendor" { "sys_vendor".to_owned() } else { (*label).to_owned() };
        let values: Vec<String> =
            LABELS.iter().map(|label| attribute(self.0.join(file(label))).unwrap_or_default()).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        out.push(&INFO, &values, 1.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn what_is_readable_is_told() {
        let tree = Tree::new(&[("class/dmi/id/sys_vendor", "Maker\n"), ("class/dmi/id/bios_date", "01/02/2020\n")]);
        let got = dump(&mut Dmi::new(tree.path()));
        assert!(got[0].contains(r#"bios_date="01/02/2020""#) && got[0].contains(r#"system_vendor="Maker""#), "{got:?}");
    }
}
