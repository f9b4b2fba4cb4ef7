//! Swap by device. Off by default.
//!
//! Source: `/proc/swaps`, see proc_swaps(5).
//! Shape:  `node_swap_*{device,swap_type}`.
//! Units:  bytes (the kernel prints KiB).
//! Errors: `Parse` for an odd line; without swap there are no series.

use std::path::Path;

use super::reader::Reader;
use super::source::{ModuleResult, ProcFile, parse_decimal, parse_error};
use crate::module::Desc;
use crate::tick::Tick;

const LABELS: &[&str] = &["device", "swap_type"];

/// Units of the file in a base unit, family; in the order of the columns behind the type.
const ROWS: &[(f64, Desc)] = &[
    (1024.0, Desc::gauge("node_swap_size_bytes", "Size of the swap device.").labels(LABELS)),
    (1024.0, Desc::gauge("node_swap_used_bytes", "Swap of the device in use.").labels(LABELS)),
    (1.0, Desc::gauge("node_swap_priority", "Devices of a higher priority are used first.").labels(LABELS)),
];

pub struct Swap(ProcFile);

impl Swap {
    pub fn new(procfs: &Path) -> Self {
        Self(ProcFile::new(procfs.join("swaps")))
    }
}

impl Reader for Swap {
    fn descs(&self) -> Vec<Desc> {
        ROWS.iter().map(|(_, desc)| desc.clone()).collect()
    }

    /// `/dev/zram0   partition   8388604   76   100`, behind a line of headings.
    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let path = self.0.path().to_owned();
        for line in self.0.text()?.lines().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let (Some(device), Some(kind)) = (words.next(), words.next()) else { continue };
            for (factor, desc) in ROWS {
                let value = words.next().and_then(parse_decimal);
                let value = value.ok_or_else(|| parse_error(&path, format!("not three numbers in {line:?}")))?;
                out.push(desc, &[device, kind], value * factor);
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
    fn sizes_are_bytes() {
        let tree = Tree::new(&[("swaps", "Filename Type Size Used Priority\n/dev/zram0 partition 8 2 -3\n")]);
        assert_eq!(
            dump(&mut Swap::new(tree.path())),
            [
                r#"node_swap_priority{device="/dev/zram0",swap_type="partition"} -3"#,
                r#"node_swap_size_bytes{device="/dev/zram0",swap_type="partition"} 8192"#,
                r#"node_swap_used_bytes{device="/dev/zram0",swap_type="partition"} 2048"#,
            ]
        );
        tree.write("swaps", "heading\n");
        assert_eq!(dump(&mut Swap::new(tree.path())), [] as [&str; 0]);
    }
}
