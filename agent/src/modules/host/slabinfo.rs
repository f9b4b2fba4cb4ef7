//! The kernel's own caches of objects. Off by default: many series, and for root alone.
//!
//! Source: `/proc/slabinfo`, see slabinfo(5).
//! Shape:  `node_slabinfo_*{slab}`.
//! Units:  objects, bytes, pages.
//! Errors: `Read` without the right to see it; `Parse` for an odd line.

use std::path::Path;

use super::reader::Reader;
use super::settings::DeviceFilter;
use super::source::{ModuleResult, ProcFile, parse_decimal, parse_error};
use crate::module::Desc;
use crate::tick::Tick;

const fn gauge(name: &'static str, help: &'static str) -> Desc {
    Desc::gauge(name, help).labels(&["slab"])
}

/// In the order of the columns behind the name.
const ROWS: &[Desc] = &[
    gauge("node_slabinfo_active_objects", "Objects in use."),
    gauge("node_slabinfo_objects", "Objects allocated."),
    gauge("node_slabinfo_object_size_bytes", "Size of an object."),
    gauge("node_slabinfo_objects_per_slab", "Objects that a slab holds."),
    gauge("node_slabinfo_pages_per_slab", "Pages that a slab takes."),
];

pub struct SlabInfo {
    file: ProcFile,
    filter: DeviceFilter,
}

impl SlabInfo {
    pub fn new(procfs: &Path, filter: DeviceFilter) -> Self {
        Self { file: ProcFile::new(procfs.join("slabinfo")), filter }
    }
}

impl Reader for SlabInfo {
    fn descs(&self) -> Vec<Desc> {
        ROWS.to_vec()
    }

    /// `kmem_cache   320   320   256   32   2 : tunables ...`, behind two lines of headings.
    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let path = self.file.path().to_owned();
        for line in self.file.text()?.lines().skip(2) {
            let mut words = line.split_ascii_whitespace();
            let Some(slab) = words.next().filter(|slab| self.filter.takes(slab)) else { continue };
            for desc in ROWS {
                let value = words.next().and_then(parse_decimal);
                out.push(
                    desc,
                    &[slab],
                    value.ok_or_else(|| parse_error(&path, format!("not five numbers in {line:?}")))?,
                );
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
    fn a_line_is_five_numbers() {
        let tree =
            Tree::new(&[("slabinfo", "slabinfo - version: 2.1\n# name\nkmem_cache 320 321 256 32 2 : tunables 0\n")]);
        let mut module = SlabInfo::new(tree.path(), DeviceFilter::default());
        assert_eq!(
            dump(&mut module),
            [
                r#"node_slabinfo_active_objects{slab="kmem_cache"} 320"#,
                r#"node_slabinfo_object_size_bytes{slab="kmem_cache"} 256"#,
                r#"node_slabinfo_objects_per_slab{slab="kmem_cache"} 32"#,
                r#"node_slabinfo_objects{slab="kmem_cache"} 321"#,
                r#"node_slabinfo_pages_per_slab{slab="kmem_cache"} 2"#,
            ]
        );
        tree.write("slabinfo", "a\nb\nkmem_cache 320\n");
        assert!(module.read(&mut Tick::new()).is_err());
    }
}
