//! A partition of the engine as a copy: the engine writes to whatever it opens, and who only looks must not.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::OpenError;
use super::disk::{Engine, Sled};

/// Holds one copy at a time.
pub(super) struct Scratch {
    blocks: PathBuf,
    dir: PathBuf,
    open: Option<(u32, Sled)>,
    /// The open partition cannot be read at all.
    broken: Option<(u32, String)>,
}

impl Scratch {
    pub fn new(blocks: &Path, dir: &Path) -> Self {
        Self { blocks: blocks.to_owned(), dir: dir.to_owned(), open: None, broken: None }
    }

    /// A value, or what is wrong with it. Trouble with the scratch directory is an error.
    pub fn get(&mut self, partition: u32, number: u32) -> Result<Result<Option<Vec<u8>>, String>, OpenError> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != partition) {
            self.turn_to(partition)?;
        }
        if let Some((_, what)) = &self.broken {
            return Ok(Err(what.clone()));
        }
        let Some((_, engine)) = &self.open else { return Ok(Ok(None)) };
        Ok(engine.get(partition, number).map_err(|error| error.to_string()))
    }

    /// The partition at hand when it could not be opened.
    pub fn unopened(&self) -> Option<u32> {
        self.broken.as_ref().map(|(partition, _)| *partition)
    }

    fn turn_to(&mut self, partition: u32) -> Result<(), OpenError> {
        self.close();
        let from = Sled::path_in(&self.blocks, partition);
        let to = Sled::path_in(&self.dir, partition);
        if from.exists() {
            copy(&from, &to).map_err(OpenError::io(&self.dir))?;
        }
        let engine = Sled::new(&self.dir);
        // Any number: what counts is whether the partition opens.
        if let Err(error) = engine.get(partition, 0) {
            self.broken = Some((partition, format!("the partition does not open: {error}")));
        }
        self.open = Some((partition, engine));
        Ok(())
    }

    fn close(&mut self) {
        self.broken = None;
        if let Some((partition, engine)) = self.open.take() {
            drop(engine);
            let _ = fs::remove_dir_all(Sled::path_in(&self.dir, partition));
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.close();
    }
}

/// Copies a directory with all in it.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()? {
            kind if kind.is_dir() => copy(&entry.path(), &target)?,
            kind if kind.is_file() => _ = fs::copy(entry.path(), target)?,
            _ => {}
        }
    }
    Ok(())
}
