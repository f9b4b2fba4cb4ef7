//! For tests: real files whose flush does as it is told.

use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::{Disk, DiskFile, RealDisk};

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Flush {
    Works,
    Hangs,
    Fails,
}

#[derive(Debug)]
struct Shared {
    flush: Mutex<(Flush, u32)>,
    changed: Condvar,
}

#[derive(Debug, Clone)]
pub struct Told(Arc<Shared>);

impl Default for Told {
    fn default() -> Self {
        Self(Arc::new(Shared { flush: Mutex::new((Flush::Works, 0)), changed: Condvar::new() }))
    }
}

impl Told {
    pub fn tell(&self, flush: Flush) {
        self.0.flush.lock().0 = flush;
        self.0.changed.notify_all();
    }

    /// Flushes begun so far.
    pub fn tried(&self) -> u32 {
        self.0.flush.lock().1
    }
}

#[derive(Debug)]
struct ToldFile(Box<dyn DiskFile>, Told);

impl Disk for Told {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(ToldFile(RealDisk.create(path)?, self.clone())))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(ToldFile(RealDisk.append(path)?, self.clone())))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn flush_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.flush_dir(path)
    }
}

impl DiskFile for ToldFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        let Shared { flush, changed } = &*self.1.0;
        let mut told = flush.lock();
        told.1 += 1;
        while told.0 == Flush::Hangs {
            changed.wait(&mut told);
        }
        match told.0 {
            Flush::Fails => Err(io::Error::other("told to fail")),
            _ => self.0.flush(),
        }
    }
}
