//! The data directory: whose it is, and who has it.
//!
//! ```text
//! FORMAT      "lampad-collector data, format 1\n"
//! LOCK        flock, held while a collector runs
//! RESERVE     zeros; deleted to get an almost full disk open, made again when there is room
//! log/        see log.rs
//! blocks/     see disk.rs: one database directory per span of writing
//! MANIFEST    see manifest.rs
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock, statvfs};

use super::OpenError;

/// Format of everything in the directory.
const FORMAT: u32 = 1;

const FORMAT_TEXT: &str = "lampad-collector data, format ";

/// Below this the store takes nothing more, so that retention still has room to work.
const FREE_BYTES_MIN: u64 = 32 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct DataDir {
    path: PathBuf,
    reserve_bytes: u64,
    /// Unlocks when dropped.
    _lock: File,
}

impl DataDir {
    pub fn open(path: &Path, reserve_bytes: u64) -> Result<Self, OpenError> {
        if path.is_file() {
            return Err(OpenError::NotADirectory { path: path.to_owned() });
        }
        fs::create_dir_all(path).map_err(OpenError::io(path))?;
        let format = path.join("FORMAT");
        match fs::read_to_string(&format) {
            Ok(text) => check_format(path, &text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => check_empty(path)?,
            Err(error) => return Err(OpenError::io(format)(error)),
        }
        let lock = lock(path)?;
        let dir = Self { path: path.to_owned(), reserve_bytes, _lock: lock };
        for sub in [dir.log(), dir.blocks()] {
            fs::create_dir_all(&sub).map_err(OpenError::io(sub))?;
        }
        if !format.exists() {
            write_durably(&format, format!("{FORMAT_TEXT}{FORMAT}\n").as_bytes()).map_err(OpenError::io(&format))?;
        }
        // An almost full disk is opened on the reserve, which is made again once there is room.
        if dir.free_bytes().is_ok_and(|free| free < FREE_BYTES_MIN) {
            let _ = fs::remove_file(dir.reserve());
        }
        Ok(dir)
    }

    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    pub fn blocks(&self) -> PathBuf {
        self.path.join("blocks")
    }

    pub fn manifest(&self) -> PathBuf {
        self.path.join("MANIFEST")
    }

    fn reserve(&self) -> PathBuf {
        self.path.join("RESERVE")
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = statvfs(&self.path)?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    /// Whether the disk is so full that nothing more may be taken. Keeps the reserve, gives it up when it is needed.
    pub fn is_full(&self) -> bool {
        let Ok(free) = self.free_bytes() else { return false };
        let reserve = self.reserve();
        if free < FREE_BYTES_MIN {
            return fs::remove_file(&reserve).is_err() || self.free_bytes().is_ok_and(|free| free < FREE_BYTES_MIN);
        }
        if !reserve.exists() && free > FREE_BYTES_MIN * 2 + self.reserve_bytes {
            let made = File::create(&reserve)
                .and_then(|file| Ok(fallocate(&file, FallocateFlags::empty(), 0, self.reserve_bytes.max(1))?));
            if let Err(error) = made {
                tracing::debug!(%error, "no reserve file: this file system cannot set room aside");
            }
        }
        false
    }
}

fn check_format(path: &Path, text: &str) -> Result<(), OpenError> {
    let number = text.strip_prefix(FORMAT_TEXT).and_then(|rest| rest.trim_end().parse::<u32>().ok());
    match number {
        Some(found) if found > FORMAT => Err(OpenError::Newer { path: path.to_owned(), found, known: FORMAT }),
        Some(_) => Ok(()),
        // A crash at the very first start can leave the file empty: there is no data yet then.
        None if text.is_empty() => Ok(fs::remove_file(path.join("FORMAT")).map_err(OpenError::io(path))?),
        None => Err(OpenError::NotOurs { path: path.to_owned() }),
    }
}

/// Without a FORMAT file there may be nothing but what a start that was cut short has made.
fn check_empty(path: &Path) -> Result<(), OpenError> {
    for entry in fs::read_dir(path).map_err(OpenError::io(path))? {
        let name = entry.map_err(OpenError::io(path))?.file_name();
        let ours = ["LOCK", "log", "blocks", "lost+found"].iter().any(|ours| name == *ours);
        if !ours {
            return Err(OpenError::NotOurs { path: path.to_owned() });
        }
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let name = path.join("LOCK");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&name).map_err(OpenError::io(&name))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Locked { path: path.to_owned() }),
        Err(error) => Err(OpenError::io(name)(error.into())),
    }
}

fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
