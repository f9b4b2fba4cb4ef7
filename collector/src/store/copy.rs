//! A backup as a data directory of its own.
//!
//! It is marked as incomplete until all of it is durable; what was cut short is not opened.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::BackupSink;
use super::datadir::{self, INCOMPLETE, Paths};
use super::disk::{Engine, Sled};

/// Bytes of values per partition that wait for a flush.
const UNFLUSHED_BYTES_MAX: usize = 8 << 20;

#[derive(Debug)]
pub struct CopyDir {
    paths: Paths,
    engine: Sled,
    /// Values of one partition that are not handed to the engine yet.
    waiting: (u32, Vec<(u32, Vec<u8>)>, usize),
    open: Option<(String, File)>,
}

impl CopyDir {
    /// Makes the directory; one that holds anything is refused.
    pub fn new(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        if fs::read_dir(dir)?.next().is_some() {
            let text = format!("{} is not empty; name a new directory", dir.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        datadir::write_durably(&dir.join(INCOMPLETE), b"")?;
        let paths = Paths::of(dir);
        fs::create_dir(paths.log())?;
        fs::create_dir(paths.blocks())?;
        let engine = Sled::new(&paths.blocks());
        Ok(Self { paths, engine, waiting: (0, Vec::new(), 0), open: None })
    }

    pub fn path(&self) -> &Path {
        self.paths.dir()
    }

    /// Makes all durable, and the directory one that can be opened.
    pub fn finish(mut self) -> io::Result<PathBuf> {
        self.put()?;
        for partition in self.engine.partitions()? {
            self.engine.flush(partition)?;
        }
        self.close()?;
        let dir = self.paths.dir().to_owned();
        drop(self);
        for sub in ["log", "blocks"] {
            File::open(dir.join(sub))?.sync_all()?;
        }
        datadir::write_format(&dir)?;
        fs::remove_file(dir.join(INCOMPLETE))?;
        File::open(&dir)?.sync_all()?;
        Ok(dir)
    }

    fn put(&mut self) -> io::Result<()> {
        let (partition, values, bytes) = &mut self.waiting;
        if !values.is_empty() {
            self.engine.put(*partition, values)?;
            self.engine.flush(*partition)?;
            values.clear();
            *bytes = 0;
        }
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        match self.open.take() {
            Some((_, file)) => file.sync_all(),
            None => Ok(()),
        }
    }
}

impl BackupSink for CopyDir {
    fn begin(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let plain = |part: &str| !part.is_empty() && !part.starts_with('.');
        if name.starts_with('/') || !name.split('/').all(plain) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no name of a backup")));
        }
        if self.open.as_ref().is_none_or(|(open, _)| open != name) {
            self.close()?;
            let path = self.paths.dir().join(name);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            let file = OpenOptions::new().append(true).create(true).open(path)?;
            self.open = Some((name.to_owned(), file));
        }
        match &mut self.open {
            Some((_, file)) => file.write_all(bytes),
            None => Ok(()),
        }
    }

    fn value(&mut self, partition: u32, number: u32, bytes: &[u8]) -> io::Result<()> {
        if self.waiting.0 != partition || self.waiting.2 > UNFLUSHED_BYTES_MAX {
            self.put()?;
        }
        self.waiting.0 = partition;
        self.waiting.1.push((number, bytes.to_vec()));
        self.waiting.2 += bytes.len();
        Ok(())
    }
}
