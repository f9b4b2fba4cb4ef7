//! Reads everything in a data directory that nobody uses, and names what is damaged; nothing in it is changed.
//!
//! Source: manifest and log as a start reads them; every value that the manifest names: checksum, pieces, each column.
//! Shape:  one [`Damage`] per place, with the group and the time that it costs where these are known.
//! Errors: a directory that is in use, no Lampad data, or newer than this build is refused.
//!
//! The engine writes to what it opens, so partitions are copied aside one by one and read there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::block::{self, Address, SealedRun};
use super::column::Samples;
use super::datadir::{Paths, lock_for_reading};
use super::group::Group;
use super::index::Index;
use super::manifest::{self, Header};
use super::piece::{read_head, read_part};
use super::readback::ReadBack;
use super::scratch::Scratch;
use super::{OpenError, Progress};

/// One damaged place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// File, and the key within it.
    pub place: String,
    pub what: String,
    /// Whose samples it costs, and of which time.
    pub cost: Option<Cost>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cost {
    pub group: String,
    pub min_ms: i64,
    pub max_ms: i64,
    /// Series whose samples of this time are lost; all of the group's where it is not known.
    pub series: Option<usize>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)?;
        let Some(Cost { group, min_ms, max_ms, series }) = &self.cost else { return Ok(()) };
        match series {
            Some(series) => write!(f, "; lost: {series} series of {group}")?,
            None => write!(f, "; lost: all series of {group}")?,
        }
        write!(f, ", {} to {}", time(*min_ms), time(*max_ms))
    }
}

fn time(at_ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(at_ms) {
        Ok(at) => at.to_string(),
        Err(_) => format!("{at_ms} ms"),
    }
}

/// What was read.
#[derive(Debug, Default)]
pub struct Report {
    pub damage: Vec<Damage>,
    pub groups: usize,
    pub series: usize,
    pub log_records: u64,
    pub runs: usize,
    pub values: usize,
    pub value_bytes: u64,
    pub(super) bad: Bad,
}

/// What a repair has to leave out.
#[derive(Debug, Default)]
pub(super) struct Bad {
    pub format: bool,
    pub manifest: bool,
    /// Files of the log.
    pub log: bool,
    /// Heads of runs, and parts of runs whose heads are whole.
    pub heads: BTreeSet<Address>,
    pub parts: BTreeSet<Address>,
    /// Partitions that cannot be opened.
    pub partitions: BTreeSet<u32>,
}

/// Told while values are read: how many of how many are done.
pub type Tell<'a> = &'a mut dyn FnMut(usize, usize);

/// Checks the directory; `scratch` is where partitions are copied to, one at a time.
pub fn check(dir: &Path, scratch: &Path, tell: Tell<'_>) -> Result<Report, OpenError> {
    let (_lock, format) = lock_for_reading(dir)?;
    let paths = Paths::of(dir);
    let mut report = Report::default();
    report.bad.format = format.is_some();
    report.file_damage(format);
    let manifest_path = paths.manifest();
    let sealed = std::fs::read_dir(paths.blocks()).is_ok_and(|mut found| found.next().is_some());
    if sealed && !manifest_path.exists() {
        report.bad.manifest = true;
        report.file_damage(Some(format!(
            "{}: missing, and with it the names of all in blocks/",
            manifest_path.display()
        )));
    }
    let read = ReadBack::of(&paths, 0, &Progress::default(), Header::Any)?;
    report.bad.manifest |= !read.loaded.damage.is_empty();
    report.bad.log = !read.replayed.damage.is_empty();
    report.file_damage(read.damage().cloned());
    if read.restored.unreadable > 0 {
        report.file_damage(Some(format!("manifest and log: {} records make no sense", read.restored.unreadable)));
    }
    report.groups = read.restored.groups.all.len();
    report.series = read.restored.index.len();
    report.log_records = read.replayed.records;
    if manifest::was_damaged(&manifest_path) {
        let text = "left by a start that found the manifest damaged; what it did not name any more is lost";
        report.file_damage(Some(format!("{}: {text}", manifest_path.with_extension("damaged").display())));
    }
    let mut runs: Vec<(Arc<Group>, Arc<SealedRun>)> = Vec::new();
    for group in &read.restored.groups.all {
        runs.extend(group.state.lock().all_sealed().map(|run| (group.clone(), run.clone())));
    }
    runs.sort_by_key(|(_, run)| run.head);
    report.runs = runs.len();
    let mut values = Values { scratch: Scratch::new(&paths.blocks(), scratch), checked: BTreeMap::new() };
    for (at, (group, run)) in runs.iter().enumerate() {
        tell(at, runs.len());
        report.run(&mut values, &read.restored.index, group, run)?;
    }
    tell(runs.len(), runs.len());
    report.values = values.checked.len();
    report.value_bytes = values.checked.values().flatten().sum();
    Ok(report)
}

/// Values by partition and number: their lengths, `None` for those that are damaged.
struct Values {
    scratch: Scratch,
    checked: BTreeMap<(u32, u32), Option<u64>>,
}

impl Values {
    /// A piece, or what is wrong with the value in which it lies.
    fn piece(&mut self, address: Address) -> Result<Result<Vec<u8>, String>, OpenError> {
        let key = (address.partition, address.number);
        let value = match self.scratch.get(address.partition, address.number)? {
            Ok(Some(value)) => value,
            Ok(None) => return Ok(self.bad(key, "is missing".into())),
            Err(what) => return Ok(self.bad(key, what)),
        };
        match block::piece(&value, address.piece) {
            Some(piece) => {
                self.checked.insert(key, Some(value.len() as u64));
                Ok(Ok(piece.to_vec()))
            }
            None => Ok(self.bad(key, "its checksum is wrong".into())),
        }
    }

    fn bad(&mut self, key: (u32, u32), what: String) -> Result<Vec<u8>, String> {
        self.checked.insert(key, None);
        Err(what)
    }
}

impl Report {
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty()
    }

    /// Texts of the form `file: what is wrong`.
    fn file_damage(&mut self, texts: impl IntoIterator<Item = String>) {
        for text in texts {
            let (place, what) = text.split_once(": ").unwrap_or((&text, "damaged"));
            self.damage.push(Damage { place: place.into(), what: what.into(), cost: None });
        }
    }

    fn run(&mut self, values: &mut Values, index: &Index, group: &Group, run: &SealedRun) -> Result<(), OpenError> {
        let cost = |series| Some(Cost { group: named(index, group), min_ms: run.min_ms, max_ms: run.max_ms, series });
        let head = match values.piece(run.head)? {
            Ok(piece) => read_head(&piece, group.id.0).ok_or_else(|| "holds no head of this group".to_owned()),
            Err(what) => Err(what),
        };
        let head = match head {
            Ok(head) => head,
            Err(what) => {
                self.bad.heads.insert(run.head);
                self.bad.partitions.extend(values.scratch.unopened());
                self.damage.push(Damage { place: place(run.head), what, cost: cost(None) });
                return Ok(());
            }
        };
        let ticks = head.ticks.list();
        for (address, slots) in run.parts.iter().zip(head.parts()).filter(|(address, _)| !address.is_lost()) {
            let read = match values.piece(*address)? {
                Ok(piece) => {
                    let whole = |_, read: &mut dyn FnMut(&mut Samples) -> bool| read(&mut Samples::default());
                    read_part(&piece, group.id.0, slots, &ticks, (i64::MIN, i64::MAX), whole)
                        .ok_or_else(|| "a column cannot be read".to_owned())
                }
                Err(what) => Err(what),
            };
            if let Err(what) = read {
                self.bad.parts.insert(*address);
                self.damage.push(Damage { place: place(*address), what, cost: cost(Some(slots.len())) });
            }
        }
        Ok(())
    }
}

fn place(address: Address) -> String {
    format!("blocks/{:010}, value {}", address.partition, address.number)
}

/// As people know a group: the module, and the instance of its series.
pub(super) fn named(index: &Index, group: &Group) -> String {
    let series: Vec<u32> = group.state.lock().series.iter().copied().take(16).collect();
    match series.into_iter().find_map(|series| index.label(series, "instance")) {
        Some(instance) => format!("{} of {instance}", group.key.name),
        None => group.key.name.to_string(),
    }
}
