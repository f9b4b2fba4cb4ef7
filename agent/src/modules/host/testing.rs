//! What the modules' tests share: small trees of files, and samples as sorted lines of text.

use std::fs;
use std::path::Path;

use super::reader::Reader;
use crate::tick::Tick;

/// A directory of files that goes with the test.
pub struct Tree(tempfile::TempDir);

impl Tree {
    pub fn new(files: &[(&str, &str)]) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        files.iter().for_each(|(name, text)| tree.write(name, text));
        tree
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn link(&self, name: &str, target: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, path).unwrap();
    }
}

/// All samples of one read as `name{label="value"} number`, sorted. Panics when the read fails.
pub fn dump(reader: &mut impl Reader) -> Vec<String> {
    let mut tick = Tick::new();
    reader.read(&mut tick).unwrap();
    assert_eq!(tick.repeated(), 0, "a series was pushed twice");
    lines(&tick)
}

pub fn lines(tick: &Tick) -> Vec<String> {
    let mut lines: Vec<String> = tick
        .samples()
        .map(|(name, labels, value)| {
            let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}={value:?}")).collect();
            match labels.is_empty() {
                true => format!("{name} {value}"),
                false => format!("{name}{{{}}} {value}", labels.join(",")),
            }
        })
        .collect();
    lines.sort();
    lines
}
