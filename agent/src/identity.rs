//! Who this agent is: the file `identity` in the state directory, and the numbers that frames get.
//!
//! ```text
//! lampad-agent identity 1
//! agent_id = 32 hex digits
//! epoch    = 16 hex digits
//! machine  = /etc/machine-id, or empty
//! inode    = DEVICE:INODE of the state directory
//! sequence = a bound: no frame of this epoch was numbered this or higher
//! ```
//!
//! The epoch is new whenever the directory is new or copied: its inode is another one. On another machine the agent id is
//! new as well, so that clones of one image are told apart. The bound is written ahead, [`RESERVE`] numbers at a time, so a
//! killed agent goes on behind it and never gives a number twice; the file is replaced by rename, so it is always whole.
//!
//! While an agent runs the file is written by a thread of its own, so that a slow disk delays no tick, and long before the bound
//! is reached. Where that fails for all this time (a full disk, hours), no number is given beyond the bound: a new epoch begins,
//! which is in the file as soon as the disk takes it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::thread;
use std::time::Duration;

/// Numbers reserved by one write of the file: hours at ten frames a second.
pub const RESERVE: u64 = 1 << 16;

/// With fewer numbers left the next ones are reserved.
const RESERVE_AT: u64 = RESERVE / 2;

/// After a failed write, numbers given until the next try: minutes.
const RETRY_AFTER: u64 = RESERVE / 64;

/// How long the last number of the reserve waits for a write that is under way.
const LAST_WAIT: Duration = Duration::from_millis(100);

const TITLE: &str = "lampad-agent identity ";
const VERSION: u64 = 1;
const FILE: &str = "identity";
const NEW_FILE: &str = "identity.new";
const LOCK: &str = "lock";
/// The spool's directory within the state directory.
pub const SPOOL: &str = "spool";

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot use the state directory {}; make it writable for this user or name another one with --state-dir", dir.display())]
    Directory { dir: PathBuf, source: io::Error },
    #[error("another agent (process {holder}) uses the state directory {}; stop it or name another one with --state-dir", dir.display())]
    Locked { dir: PathBuf, holder: String },
    #[error("{} is not an identity file of this version ({detail}); move it away to start as a new agent", path.display())]
    Format { path: PathBuf, detail: String },
    #[error("{} was written by a newer lampad-agent (version {version}, this one knows {VERSION}); run a newer lampad-agent", path.display())]
    Newer { path: PathBuf, version: u64 },
    #[error("{} holds other things ({example}) and nothing of an agent's state; name an empty directory with --state-dir, or one that is not there yet", dir.display())]
    NotOurs { dir: PathBuf, example: String },
}

/// Holds the state directory for this process as long as it lives.
#[derive(Debug)]
pub struct Identity {
    dir: PathBuf,
    facts: Facts,
    next: u64,
    writing: Option<Writing>,
    /// No write is begun before this number.
    try_at: u64,
    _lock: File,
}

/// What a thread is writing, and its answer.
#[derive(Debug)]
struct Writing {
    facts: Facts,
    done: Receiver<io::Result<()>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    agent_id: [u8; 16],
    epoch: u64,
    machine: String,
    inode: String,
    bound: u64,
}

impl Identity {
    /// Opens the state directory, makes it when it is missing, and takes its lock.
    pub fn open(dir: &Path) -> Result<Self, IdentityError> {
        let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default();
        Self::open_on(dir, machine.trim())
    }

    fn open_on(dir: &Path, machine: &str) -> Result<Self, IdentityError> {
        let failed = |source| IdentityError::Directory { dir: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        check_ours(dir)?;
        let lock = lock(dir)?;
        let stat = fs::metadata(dir).map_err(failed)?;
        let inode = format!("{}:{}", stat.dev(), stat.ino());
        let path = dir.join(FILE);
        let facts = match fs::read_to_string(&path) {
            Ok(text) => {
                if let Some(version) = version(&text).filter(|version| *version > VERSION) {
                    return Err(IdentityError::Newer { path, version });
                }
                let facts = parse(&text).map_err(|detail| IdentityError::Format { path, detail })?;
                facts.on_this_machine(machine, &inode)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Facts::new(machine, &inode),
            Err(source) => return Err(failed(source)),
        };
        let next = facts.bound;
        let facts = Facts { bound: next + RESERVE, ..facts };
        write(dir, &facts).map_err(failed)?;
        Ok(Self { dir: dir.to_owned(), facts, next, writing: None, try_at: 0, _lock: lock })
    }

    pub fn agent_id(&self) -> [u8; 16] {
        self.facts.agent_id
    }

    pub fn epoch(&self) -> u64 {
        self.facts.epoch
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The number that the next frame will get, or a lower one.
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// Numbers a frame. It may be the first one of a new epoch: look at [`Self::epoch`].
    pub fn number(&mut self) -> u64 {
        self.look(Duration::ZERO);
        if self.next >= self.facts.bound {
            self.look(LAST_WAIT);
        }
        if self.next >= self.facts.bound {
            tracing::error!(dir = %self.dir.display(), "no frame numbers could be reserved on disk; a new epoch begins");
            self.new_epoch();
        }
        let sequence = self.next;
        self.next += 1;
        if self.next + RESERVE_AT >= self.facts.bound {
            self.reserve();
        }
        sequence
    }

    /// Starts a new epoch. It is in the file soon; an agent that is killed before falls back to the old one, whose bound holds.
    pub fn new_epoch(&mut self) {
        self.facts.epoch = rand::random();
        self.facts.bound = self.next + RESERVE;
        self.try_at = 0;
        self.reserve();
    }

    /// Gives back the numbers that were reserved and not used. The last call.
    pub fn close(mut self) -> io::Result<()> {
        self.look(LAST_WAIT);
        if self.writing.is_some() {
            // Its late write would overwrite ours; the file stays as it is, with a bound that holds.
            return Ok(());
        }
        write(&self.dir, &Facts { bound: self.next, ..self.facts })
    }

    /// Has a thread write the next bound, unless one is at it.
    fn reserve(&mut self) {
        if self.writing.is_some() || self.next < self.try_at {
            return;
        }
        let facts = Facts { bound: self.next + RESERVE, ..self.facts.clone() };
        let (answer, done) = channel();
        let (dir, written) = (self.dir.clone(), facts.clone());
        let thread = thread::Builder::new().name("identity".to_owned());
        match thread.spawn(move || answer.send(write(&dir, &written))) {
            Ok(_) => self.writing = Some(Writing { facts, done }),
            Err(error) => self.not_written(&error),
        }
    }

    /// Looks whether the thread has written.
    fn look(&mut self, wait: Duration) {
        let Some(writing) = &self.writing else { return };
        let result = match wait {
            Duration::ZERO => writing.done.try_recv().map_err(|error| error == TryRecvError::Empty),
            wait => writing.done.recv_timeout(wait).map_err(|error| error == RecvTimeoutError::Timeout),
        };
        let result = match result {
            Err(true) => return,
            Err(false) => Err(io::Error::other("its thread has died")),
            Ok(result) => result,
        };
        let Some(Writing { facts, .. }) = self.writing.take() else { return };
        match result {
            // What was written before a new epoch began says nothing of that one.
            Ok(()) if facts.epoch == self.facts.epoch => self.facts.bound = facts.bound,
            Ok(()) => self.reserve(),
            Err(error) => self.not_written(&error),
        }
    }

    fn not_written(&mut self, error: &io::Error) {
        tracing::warn!(%error, dir = %self.dir.display(), "cannot reserve frame numbers; will try again");
        self.try_at = self.next + RETRY_AFTER;
    }
}

fn write(dir: &Path, facts: &Facts) -> io::Result<()> {
    let new = dir.join(NEW_FILE);
    let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    file.write_all(facts.to_text().as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, dir.join(FILE))?;
    File::open(dir)?.sync_all()
}

impl Facts {
    fn new(machine: &str, inode: &str) -> Self {
        Self { agent_id: rand::random(), epoch: rand::random(), machine: machine.into(), inode: inode.into(), bound: 1 }
    }

    fn on_this_machine(self, machine: &str, inode: &str) -> Self {
        if self.machine != machine {
            tracing::warn!("the state directory comes from another machine; starting as a new agent");
            return Self::new(machine, inode);
        }
        if self.inode != inode {
            tracing::warn!("the state directory was copied or moved; starting a new epoch");
            return Self { epoch: rand::random(), inode: inode.into(), ..self };
        }
        self
    }

    fn to_text(&self) -> String {
        format!(
            "{TITLE}{VERSION}\nagent_id = {}\nepoch = {:016x}\nmachine = {}\ninode = {}\nsequence = {}\n",
            hex(&self.agent_id),
            self.epoch,
            self.machine,
            self.inode,
            self.bound
        )
    }
}

fn lock(dir: &Path) -> Result<File, IdentityError> {
    let path = dir.join(LOCK);
    let failed = |source| IdentityError::Directory { dir: dir.to_owned(), source };
    let mut file =
        File::options().create(true).truncate(false).read(true).write(true).mode(0o600).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let holder = fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
            return Err(IdentityError::Locked { dir: dir.to_owned(), holder });
        }
        Err(fs::TryLockError::Error(source)) => return Err(failed(source)),
    }
    file.set_len(0).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}

/// A directory that holds something and nothing of ours is a slip of the hand: nothing is put into it.
fn check_ours(dir: &Path) -> Result<(), IdentityError> {
    let failed = |source| IdentityError::Directory { dir: dir.to_owned(), source };
    let mut other = None;
    for entry in fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if [FILE, NEW_FILE, LOCK, SPOOL].iter().any(|ours| name == *ours) {
            return Ok(());
        }
        // A file system of its own is not empty when it is new.
        if name != "lost+found" {
            other = Some(name);
        }
    }
    match other {
        None => Ok(()),
        Some(name) => Err(IdentityError::NotOurs { dir: dir.to_owned(), example: name.to_string_lossy().into_owned() }),
    }
}

/// What the first line says.
fn version(text: &str) -> Option<u64> {
    text.lines().next()?.strip_prefix(TITLE)?.parse().ok()
}

fn parse(text: &str) -> Result<Facts, String> {
    let mut lines = text.lines();
    if lines.next().and_then(version) != Some(VERSION) {
        return Err(format!("it does not begin with \"{TITLE}{VERSION}\""));
    }
    let mut field = |name: &str| {
        let line = lines.next().unwrap_or_default();
        let (key, value) = line.split_once('=').ok_or_else(|| format!("{name} is missing"))?;
        if key.trim() == name { Ok(value.trim().to_owned()) } else { Err(format!("{name} is missing")) }
    };
    Ok(Facts {
        agent_id: u128::from_str_radix(&field("agent_id")?, 16)
            .map_err(|error| format!("agent_id: {error}"))?
            .to_be_bytes(),
        epoch: u64::from_str_radix(&field("epoch")?, 16).map_err(|error| format!("epoch: {error}"))?,
        machine: field("machine")?,
        inode: field("inode")?,
        bound: field("sequence")?.parse().map_err(|error| format!("sequence: {error}"))?,
    })
}

/// As people read an agent id: 32 hex digits.
pub fn hex(id: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_agent_never_gives_a_number_twice() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Identity::open_on(dir.path(), "m").unwrap();
        let (id, epoch) = (first.agent_id(), first.epoch());
        let last = (0..=RESERVE).map(|_| first.number()).last().unwrap();
        assert_eq!(first.epoch(), epoch, "the bound was written ahead");
        first.look(Duration::from_secs(10));
        drop(first);
        let second = Identity::open_on(dir.path(), "m").unwrap();
        assert!(second.next_sequence() > last);
        assert_eq!((second.agent_id(), second.epoch()), (id, epoch));
    }

    /// Frames of after a restart would be taken for those that are stored, and be lost.
    #[test]
    fn no_number_beyond_the_bound_is_given_while_the_disk_refuses() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Identity::open_on(dir.path(), "m").unwrap();
        let epoch = first.epoch();
        // Nothing can be written over a directory.
        fs::create_dir(dir.path().join("identity.new")).unwrap();
        let of_epoch = (0..RESERVE * 3).map(|_| (first.number(), first.epoch())).filter(|(_, at)| *at == epoch);
        let last = of_epoch.map(|(number, _)| number).last().unwrap();
        assert_ne!(first.epoch(), epoch);
        first.look(Duration::from_secs(10));
        drop(first);
        fs::remove_dir(dir.path().join("identity.new")).unwrap();
        let second = Identity::open_on(dir.path(), "m").unwrap();
        assert_eq!(second.epoch(), epoch);
        assert!(second.next_sequence() > last);
    }

    #[test]
    fn a_new_epoch_is_in_the_file_soon() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Identity::open_on(dir.path(), "m").unwrap();
        first.new_epoch();
        let epoch = first.epoch();
        first.look(Duration::from_secs(10));
        drop(first);
        assert_eq!(Identity::open_on(dir.path(), "m").unwrap().epoch(), epoch);
    }

    #[test]
    fn a_closed_agent_goes_on_where_it_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Identity::open_on(dir.path(), "m").unwrap();
        let last = first.number();
        first.close().unwrap();
        assert_eq!(Identity::open_on(dir.path(), "m").unwrap().next_sequence(), last + 1);
    }

    #[test]
    fn a_copied_directory_starts_a_new_epoch_and_a_cloned_machine_a_new_agent() {
        let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = Identity::open_on(dir.path(), "m").unwrap();
        fs::copy(dir.path().join(FILE), copy.path().join(FILE)).unwrap();
        let copied = Identity::open_on(copy.path(), "m").unwrap();
        assert_eq!(copied.agent_id(), first.agent_id());
        assert_ne!(copied.epoch(), first.epoch());
        drop(copied);
        let cloned = Identity::open_on(copy.path(), "other").unwrap();
        assert_ne!(cloned.agent_id(), first.agent_id());
    }

    #[test]
    fn one_agent_per_directory() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Identity::open_on(dir.path(), "m").unwrap();
        let error = Identity::open_on(dir.path(), "m").unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    }

    #[test]
    fn a_strange_file_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "agent_id = 12\n").unwrap();
        let error = Identity::open_on(dir.path(), "m").unwrap_err().to_string();
        assert!(error.contains("identity") && error.contains("move it away"), "{error}");
    }

    /// Whoever moves it away starts a new agent, and the frames that wait are lost.
    #[test]
    fn a_newer_file_asks_for_a_newer_agent() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "lampad-agent identity 2\n").unwrap();
        let error = Identity::open_on(dir.path(), "m").unwrap_err().to_string();
        assert!(error.contains("run a newer lampad-agent") && !error.contains("move"), "{error}");
    }

    #[test]
    fn a_directory_of_other_things_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("lost+found")).unwrap();
        drop(Identity::open_on(dir.path(), "m").unwrap());
        fs::write(dir.path().join("notes"), "").unwrap();
        drop(Identity::open_on(dir.path(), "m").unwrap());
        let photos = tempfile::tempdir().unwrap();
        fs::write(photos.path().join("sea.jpg"), "").unwrap();
        let error = Identity::open_on(photos.path(), "m").unwrap_err().to_string();
        assert!(error.contains("sea.jpg") && error.contains("--state-dir"), "{error}");
        assert_eq!(fs::read_dir(photos.path()).unwrap().count(), 1, "nothing was put there");
    }
}
