//! What the files of a data directory say, read and put together; nothing is written.

use std::io;
use std::path::Path;
use std::sync::mpsc::sync_channel;

use super::OpenError;
use super::Progress;
use super::datadir::Paths;
use super::entry::Entry;
use super::group::Window;
use super::log::{self, Event, Replayed};
use super::manifest::{self, Header, Loaded};
use super::restore::Restored;

pub(super) struct ReadBack {
    pub restored: Restored,
    pub loaded: Loaded,
    pub replayed: Replayed,
    /// The manifest must be written anew even though nothing is new.
    pub say_everything: bool,
}

/// What the log says next.
enum Step {
    Entry { lsn: u64, entry: Entry },
    Unreadable,
    Gap,
}

/// Steps that go from one thread to the other at once, and how often at most before one waits for the other.
const STEPS: usize = 256;
const AHEAD: usize = 4;

/// Reads the log: it is read and decoded by another thread while this one takes the steps.
fn replay(dir: &Path, floor: u64, progress: &Progress, mut take: impl FnMut(Step)) -> io::Result<Replayed> {
    let (sender, receiver) = sync_channel::<Vec<Step>>(AHEAD);
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut steps = Vec::new();
            let replayed = log::replay(dir, floor, progress, |event| {
                steps.push(match event {
                    Event::Record { lsn, kind, mut payload } => match super::entry::read(kind, &mut payload) {
                        Some(entry) => Step::Entry { lsn, entry },
                        None => Step::Unreadable,
                    },
                    Event::Gap => Step::Gap,
                });
                if steps.len() >= STEPS {
                    // The other one is gone only when it panicked, and that is told by whoever joins it.
                    let _ = sender.send(std::mem::take(&mut steps));
                }
            });
            let _ = sender.send(steps);
            replayed
        });
        receiver.into_iter().flatten().for_each(&mut take);
        reader.join().unwrap_or_else(|_| Err(io::Error::other("the thread that reads the log panicked")))
    })
}

impl ReadBack {
    /// Reads manifest and log; sealed samples are left to whoever selects them.
    pub fn of(paths: &Paths, now_ms: i64, progress: &Progress, header: Header) -> Result<Self, OpenError> {
        let window = Window { now_ms, oldest_ms: i64::MIN, newest_ms: i64::MAX };
        let mut restored = Restored::default();
        let path = paths.manifest();
        let loaded = manifest::load(&path, header, |fact| {
            restored.fact(fact, now_ms);
            progress.named(1);
        });
        let loaded = loaded.map_err(OpenError::io(&path))?;
        let log_dir = paths.log();
        let replayed = replay(&log_dir, loaded.released_lsn, progress, |step| match step {
            Step::Entry { lsn, entry } => restored.apply(entry, lsn, window, now_ms),
            Step::Unreadable => restored.unreadable += 1,
            Step::Gap => restored.gap(),
        });
        let replayed = replayed.map_err(OpenError::io(log_dir))?;
        let say_everything = replayed.records > 0;
        Ok(Self { restored, loaded, replayed, say_everything })
    }

    /// Damaged places of manifest and log.
    pub fn damage(&self) -> impl Iterator<Item = &String> {
        self.loaded.damage.iter().chain(&self.replayed.damage)
    }
}
