//! Three sources of one or two numbers each: open files, entropy, tasks found hung.
//!
//! Source: `/proc/sys/fs/file-nr`, `/proc/sys/kernel/random/{entropy_avail,poolsize}`, `/proc/sys/kernel/hung_task_detect_count`.
//! Shape:  gauges and a counter without labels.
//! Units:  files, bits, tasks.
//! Errors: `Parse` when the number is not there; `Absent` where the kernel was built without it.

use std::path::Path;

use super::reader::Reader;
use super::source::{ProcFile, parse_decimal, parse_error};
use crate::module::{Desc, ModuleError};
use crate::tick::Tick;

/// One number: word `column` of `file`.
struct Row {
    file: &'static str,
    column: usize,
    desc: Desc,
}

const FILEFD: &[Row] = &[
    Row { file: "sys/fs/file-nr", column: 0, desc: Desc::gauge("node_filefd_allocated", "Files that are open.") },
    Row { file: "sys/fs/file-nr", column: 2, desc: Desc::gauge("node_filefd_maximum", "Files that can be open.") },
];
const ENTROPY: &[Row] = &[
    Row {
        file: "sys/kernel/random/entropy_avail",
        column: 0,
        desc: Desc::gauge("node_entropy_available_bits", "Entropy that the kernel has gathered."),
    },
    Row {
        file: "sys/kernel/random/poolsize",
        column: 0,
        desc: Desc::gauge("node_entropy_pool_size_bits", "Entropy that the kernel can keep."),
    },
];
const KERNEL_HUNG: &[Row] = &[Row {
    file: "sys/kernel/hung_task_detect_count",
    column: 0,
    desc: Desc::counter("node_kernel_hung_tasks_total", "Tasks that hung without being runnable for too long."),
}];

pub struct Limits(Vec<(ProcFile, &'static Row)>);

impl Limits {
    pub fn filefd(procfs: &Path) -> Self {
        Self::new(procfs, FILEFD)
    }

    pub fn entropy(procfs: &Path) -> Self {
        Self::new(procfs, ENTROPY)
    }

    pub fn kernel_hung(procfs: &Path) -> Self {
        Self::new(procfs, KERNEL_HUNG)
    }

    fn new(procfs: &Path, rows: &'static [Row]) -> Self {
        Self(rows.iter().map(|row| (ProcFile::new(procfs.join(row.file)), row)).collect())
    }
}

impl Reader for Limits {
    fn descs(&self) -> Vec<Desc> {
        self.0.iter().map(|(_, row)| row.desc.clone()).collect()
    }

    fn read(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        for (file, row) in &mut self.0 {
            let value = file.text()?.split_ascii_whitespace().nth(row.column).and_then(parse_decimal);
            out.push(&row.desc, &[], value.ok_or_else(|| parse_error(file.path(), "the number is missing"))?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn numbers_are_found_by_column() {
        let tree = Tree::new(&[("sys/fs/file-nr", "1024\t0\t1631329\n"), ("sys/kernel/random/poolsize", "256\n")]);
        assert_eq!(
            dump(&mut Limits::filefd(tree.path())),
            ["node_filefd_allocated 1024", "node_filefd_maximum 1631329"]
        );
        let entropy = Limits::entropy(tree.path()).read(&mut Tick::new());
        assert!(matches!(entropy, Err(ModuleError::Absent { .. })), "all or nothing");
        tree.write("sys/fs/file-nr", "\n");
        assert!(matches!(Limits::filefd(tree.path()).read(&mut Tick::new()), Err(ModuleError::Parse { .. })));
    }
}
