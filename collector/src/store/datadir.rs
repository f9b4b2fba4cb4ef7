//! The data directory: whose it is, and who has it.
//!
//! ```text
//! FORMAT      "lampad-collector data, format 6\n"
//! LOCK        flock, held while a collector runs
//! RESERVE     zeros; deleted to get an almost full disk open, and to delete what is too old; made again when there is room
//! log/        see log.rs
//! blocks/     see disk.rs: one database directory per span of writing
//! MANIFEST    see manifest.rs
//! INCOMPLETE  there while this directory is made by a backup
//! damaged/    what a repair has set aside, by time
//! snapshots/  what was asked for over HTTP, by time
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock, statvfs};

use super::OpenError;

/// Format of everything in the directory. What an older one wrote is read as it lies, so that migrating is to write the number:
/// - 1 had no whole numbers beyond 2^53 (class 3 in the log, what 3 and 4 in a column);
/// - 2 had no packed columns (pieces of kinds 4 and 5);
/// - 3 had all of a series' name in the manifest (no record of kind 24), and databases with larger segments (disk.rs);
/// - 4 had no tiers (partitions below 300,000,000, manifest records of kind 25);
/// - 5 had one database in each partition, and all values in its default tree (disk.rs), and all of a series' name in the log too
///   (no record of kind 7 there).
const FORMAT: u32 = 6;

/// There while a copy is being made; what was not finished is not opened.
pub(super) const INCOMPLETE: &str = "INCOMPLETE";

const FORMAT_TEXT: &str = "lampad-collector data, format ";

/// Below this the store takes nothing more, so that retention still has room to work.
const FREE_BYTES_MIN: u64 = 32 * 1024 * 1024;

/// Where what lies.
#[derive(Debug, Clone)]
pub(super) struct Paths(PathBuf);

impl Paths {
    pub fn of(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    pub fn dir(&self) -> &Path {
        &self.0
    }

    pub fn format(&self) -> PathBuf {
        self.0.join("FORMAT")
    }

    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    pub fn blocks(&self) -> PathBuf {
        self.0.join("blocks")
    }

    pub fn manifest(&self) -> PathBuf {
        self.0.join("MANIFEST")
    }

    fn reserve(&self) -> PathBuf {
        self.0.join("RESERVE")
    }
}

#[derive(Debug)]
pub(super) struct DataDir {
    paths: Paths,
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
        if path.join(INCOMPLETE).exists() {
            return Err(OpenError::Incomplete { path: path.to_owned() });
        }
        let found = match fs::read_to_string(&format) {
            Ok(text) => check_format(path, &text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                check_empty(path)?;
                None
            }
            Err(error) => return Err(OpenError::io(format)(error)),
        };
        let lock = lock(path)?;
        let dir = Self { paths: Paths::of(path), reserve_bytes, _lock: lock };
        for sub in [dir.paths.log(), dir.paths.blocks()] {
            fs::create_dir_all(&sub).map_err(OpenError::io(sub))?;
        }
        if found != Some(FORMAT) {
            // Before anything of the new format is written: from here on an older build refuses the directory.
            write_format(path).map_err(OpenError::io(&format))?;
        }
        if let Some(found) = found.filter(|found| *found < FORMAT) {
            tracing::info!(path = %path.display(), "data format {found} becomes {FORMAT}; older builds cannot read it any more");
        }
        // An almost full disk is opened on the reserve, which is made again once there is room.
        if dir.free_bytes().is_ok_and(|free| free < FREE_BYTES_MIN) {
            dir.spend_reserve();
        }
        Ok(dir)
    }

    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = statvfs(self.paths.dir())?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    /// Gives the reserve up to get room for deleting; whether there was one.
    pub fn spend_reserve(&self) -> bool {
        fs::remove_file(self.paths.reserve()).is_ok()
    }

    /// Whether the disk is so full that nothing more may be taken. Makes the reserve where there is room for it.
    pub fn is_full(&self) -> bool {
        let Ok(free) = self.free_bytes() else { return false };
        let reserve = self.paths.reserve();
        if reserve.exists() {
            return free < FREE_BYTES_MIN;
        }
        // What was set aside and is in use is not for ingest to spend.
        if free < FREE_BYTES_MIN + self.reserve_bytes {
            return true;
        }
        if free > FREE_BYTES_MIN * 2 + self.reserve_bytes {
            let made = File::create(&reserve)
                .and_then(|file| Ok(fallocate(&file, FallocateFlags::empty(), 0, self.reserve_bytes.max(1))?));
            if let Err(error) = made {
                tracing::debug!(%error, "no reserve file: this file system cannot set room aside");
            }
        }
        false
    }
}

/// Says in which format the directory is. Last of all where one is made by copying.
pub(super) fn write_format(dir: &Path) -> io::Result<()> {
    write_durably(&dir.join("FORMAT"), format!("{FORMAT_TEXT}{FORMAT}\n").as_bytes())
}

/// Locks a directory that is only read, or refuses what is not there, not ours, or in use. Says what is wrong with FORMAT
/// where everything else shows that it is ours.
pub(super) fn lock_for_reading(path: &Path) -> Result<(Option<File>, Option<String>), OpenError> {
    if path.join(INCOMPLETE).exists() {
        return Err(OpenError::Incomplete { path: path.to_owned() });
    }
    let file = Paths::of(path).format();
    let text = match fs::read(&file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(OpenError::io(file)(error)),
        read => String::from_utf8_lossy(&read.unwrap_or_default()).into_owned(),
    };
    let wrong = match number_in(&text) {
        Some(found) if found > FORMAT => return Err(OpenError::Newer { path: path.to_owned(), found, known: FORMAT }),
        Some(_) => None,
        None if Paths::of(path).log().is_dir() => Some(format!("{}: missing or damaged", file.display())),
        None if !path.exists() => return Err(OpenError::Missing { path: path.to_owned() }),
        None => return Err(OpenError::NoData { path: path.to_owned() }),
    };
    // Nobody holds a lock that was never made; it is not made here, because the medium may be read only.
    let lock = match File::open(path.join("LOCK")) {
        Ok(file) => Some(hold(file, path)?),
        Err(_) => None,
    };
    Ok((lock, wrong))
}

fn number_in(text: &str) -> Option<u32> {
    text.strip_prefix(FORMAT_TEXT)?.trim_end().parse().ok()
}

/// The format that the file names.
fn check_format(path: &Path, text: &str) -> Result<Option<u32>, OpenError> {
    match number_in(text) {
        Some(found) if found > FORMAT => Err(OpenError::Newer { path: path.to_owned(), found, known: FORMAT }),
        Some(found) => Ok(Some(found)),
        // A crash at the very first start can leave the file empty: there is no data yet then.
        None if text.is_empty() => Ok(None),
        None => Err(OpenError::NotOurs { path: path.to_owned() }),
    }
}

/// Without a FORMAT file there may be nothing but what a start that was cut short has made.
fn check_empty(path: &Path) -> Result<(), OpenError> {
    for entry in fs::read_dir(path).map_err(OpenError::io(path))? {
        let entry = entry.map_err(OpenError::io(path))?;
        let name = entry.file_name();
        let ours = match name.to_str() {
            Some("LOCK" | "FORMAT.new" | "lost+found") => true,
            Some("log") => all_named(&entry.path(), |name| name.ends_with(".log"))?,
            Some("blocks") => all_named(&entry.path(), |name| name.bytes().all(|byte| byte.is_ascii_digit()))?,
            _ => false,
        };
        if !ours {
            return Err(OpenError::NotOurs { path: path.to_owned() });
        }
    }
    Ok(())
}

/// Whether a directory holds nothing but what is named as ours is.
fn all_named(path: &Path, ours: impl Fn(&str) -> bool) -> Result<bool, OpenError> {
    let entries = fs::read_dir(path).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let entries = entries.map_err(OpenError::io(path))?;
    Ok(entries.iter().all(|entry| entry.file_name().to_str().is_some_and(&ours)))
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let name = path.join("LOCK");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&name).map_err(OpenError::io(&name))?;
    hold(file, path)
}

fn hold(file: File, path: &Path) -> Result<File, OpenError> {
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Locked { path: path.to_owned() }),
        Err(error) => Err(OpenError::io(path.join("LOCK"))(error.into())),
    }
}

pub(super) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
