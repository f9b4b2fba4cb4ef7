//! What the files of a data directory say, read and put together; nothing is written.

use super::OpenError;
use super::Progress;
use super::datadir::Paths;
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
        let replayed = log::replay(&log_dir, loaded.released_lsn, progress, |event| match event {
            Event::Record { lsn, kind, mut payload } => match super::entry::read(kind, &mut payload) {
                Some(entry) => restored.apply(entry, lsn, window, now_ms),
                None => restored.unreadable += 1,
            },
            Event::Gap => restored.gap(),
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
