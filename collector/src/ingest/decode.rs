//! One lane of one stream: its tables, the value that every series had last, and what a frame makes of them.
//!
//! Source: `Dictionary` and `Frame` messages, see `lampad/v1/ingest.proto`.
//! Shape:  [`Tick`]s with series as the lane numbers them; `resolve` turns these into the store's slots.
//! Files:  `dictionary` fills the tables, `frame` reads what is said of them, `decimals` nearly all of it.
//! Errors: [`DecodeError`]; after one the lane takes nothing until its dictionary is reset, because the frame that failed may
//!         have changed some values and not others.

mod decimals;
mod dictionary;
mod frame;

use std::collections::HashMap;
use std::sync::Arc;

use lampad_proto::v1::MetricType;

use super::Symbols;
use crate::limits::Limits;
use crate::store::Value;

pub use dictionary::{Added, NewGroup, NewSeries};
pub use frame::LeftOut;

/// One tick, in the lane's own numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Tick {
    pub group: u32,
    /// By the agent's clock.
    pub timestamp_ms: i64,
    /// `values` are all present series.
    pub key: bool,
    /// Series that changed or began, and with the stale marker those that ended. Each once, and mostly ascending.
    pub values: Vec<(u32, Value)>,
}

/// Why a frame was not taken. All are cured by a new dictionary and key ticks, if anything cures them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the lane awaits a dictionary with reset")]
    NoDictionary,
    #[error("group {0} has had no key tick since the last reset")]
    NoBase(String),
    #[error("{what} {reference} is not in the dictionary, which has {known}")]
    Unknown { what: &'static str, reference: u64, known: usize },
    #[error("group {group}: {trouble}")]
    Malformed { group: String, trouble: String },
}

#[derive(Debug)]
struct Group {
    name: Arc<str>,
    series: Vec<u32>,
    /// Counts ticks, from 1 on.
    round: u32,
    /// That of the last key tick: a series is present only if it came since. 0 before the first.
    key_round: u32,
    /// What goes to the store next must list all present series.
    key_owed: bool,
    /// Time of the last tick.
    last_ms: i64,
    /// A tick of the frame that is being read was cut: those behind it are left out.
    is_cut: bool,
}

/// There is one per series of every stream, so every byte counts.
#[derive(Debug, Clone, Copy)]
struct Series {
    /// The last value, where that is a float; the stale marker once it has ended.
    last: f64,
    /// Of its group, when it came last; 0 if never.
    round: u32,
    /// And [`IS_OTHER`] where the last value is among the lane's `others`.
    group: u32,
}

/// No lane has so many groups.
const IS_OTHER: u32 = 1 << 31;

impl Series {
    fn new(group: u32) -> Self {
        Self { last: 0.0, round: 0, group: group.min(IS_OTHER - 1) }
    }

    fn group(&self) -> u32 {
        self.group & !IS_OTHER
    }

    fn is_other(&self) -> bool {
        self.group & IS_OTHER != 0
    }

    fn is_present(&self, key_round: u32) -> bool {
        self.round >= key_round && !lampad_proto::is_stale(self.last)
    }
}

/// A family, by the numbers of its symbols.
#[derive(Debug)]
struct Metric {
    kind: MetricType,
    name: u32,
    help: u32,
    unit: u32,
}

/// The decoder's state of one lane.
#[derive(Debug)]
pub struct Lane {
    limits: Arc<Limits>,
    /// Whether a dictionary was there and no frame has failed since.
    sound: bool,
    symbols: Vec<Arc<str>>,
    symbol_bytes: usize,
    groups: Vec<Group>,
    metrics: Vec<Metric>,
    series: Vec<Series>,
    /// Last values that are no floats: integers and histograms.
    others: HashMap<u32, Value>,
    shared: Arc<Symbols>,
    /// Definitions behind those of the tables that are over a limit. They have numbers and nothing else, so that they cost
    /// nothing however many come.
    over: Counts,
    /// What was more in the last frame than a frame may bring.
    left_out: LeftOut,
}

#[derive(Debug, Default)]
struct Counts {
    symbols: usize,
    groups: usize,
    metrics: usize,
    series: usize,
}

impl Lane {
    pub fn new(limits: Arc<Limits>, shared: Arc<Symbols>) -> Self {
        Self {
            limits,
            shared,
            sound: false,
            symbols: Vec::new(),
            symbol_bytes: 0,
            groups: Vec::new(),
            metrics: Vec::new(),
            series: Vec::new(),
            others: HashMap::new(),
            over: Counts::default(),
            left_out: LeftOut::default(),
        }
    }

    /// Whether frames are taken; false until a dictionary resets the lane.
    pub fn is_sound(&self) -> bool {
        self.sound
    }

    /// Takes nothing until the next reset: the stream is out of step.
    pub fn spoil(&mut self) {
        self.sound = false;
    }

    /// The value that a series had last, present or not.
    fn last(&self, reference: u32) -> Value {
        let series = &self.series[reference as usize];
        let other = || self.others.get(&reference).cloned();
        series.is_other().then(other).flatten().unwrap_or(Value::Float(series.last))
    }

    /// The store has ended what was present: the next tick of every group must list everything.
    pub fn owe_all_keys(&mut self) {
        self.groups.iter_mut().for_each(|group| group.key_owed = true);
    }

    /// The store has not taken ticks of these groups: the next ones must list everything.
    pub fn owe_keys(&mut self, groups: impl IntoIterator<Item = u32>) {
        for group in groups {
            if let Some(group) = self.groups.get_mut(group as usize) {
                group.key_owed = true;
            }
        }
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
