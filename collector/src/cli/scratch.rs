//! A directory for copies that only the command needs, gone with it.

use std::path::{Path, PathBuf};

use anyhow::Context;

pub struct ScratchDir(PathBuf);

impl ScratchDir {
    pub fn new(parent: Option<&Path>) -> anyhow::Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let dir = parent.join(format!("lampad-check-{}", std::process::id()));
        std::fs::create_dir(&dir)
            .with_context(|| format!("cannot make {}; name another place with --scratch", dir.display()))?;
        Ok(Self(dir))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
