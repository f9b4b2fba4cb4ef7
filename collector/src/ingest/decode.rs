//! One lane of one stream: its tables, the value that every series had last, and what a frame makes of them.
//!
//! Source: `Dictionary` and `Frame` messages, see `lampad/v1/ingest.proto`.
//! Shape:  [`Tick`]s with series as the lane numbers them; `resolve` turns these into the store's slots.
//! Errors: [`DecodeError`]; after one the lane takes nothing until its dictionary is reset, because the frame that failed may
//!         have changed some values and not others.

use std::sync::Arc;

use lampad_proto::decimal;
use lampad_proto::v1::{self, GroupTick};

use super::admit::{Limits, cut};
use crate::store::{Label, Meta, Value};

/// One tick, in the lane's own numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Tick {
    pub group: u32,
    /// By the agent's clock.
    pub timestamp_ms: i64,
    /// `values` are all present series.
    pub key: bool,
    /// Series that changed or began, and with the stale marker those that ended. Each once, in no order.
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
    #[error("frame carries {count} {what}, at most {most} are taken; send smaller frames")]
    TooMuch { what: &'static str, count: usize, most: usize },
}

/// A dictionary that cannot be taken at all; the stream ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("dictionary has more than {most} {what}; reset it or let the agent define fewer")]
pub struct DictionaryFull {
    what: &'static str,
    most: usize,
}

/// What a dictionary added, for `resolve`.
#[derive(Debug, Default)]
pub struct Added {
    pub reset: bool,
    pub groups: Vec<NewGroup>,
    pub series: Vec<NewSeries>,
}

#[derive(Debug)]
pub struct NewGroup {
    pub reference: u32,
    /// Name and labels, or why the group is not taken.
    pub definition: Result<(Arc<str>, Vec<Label>), String>,
}

#[derive(Debug)]
pub struct NewSeries {
    pub reference: u32,
    pub group: u32,
    /// The series' own labels, or why it is not taken.
    pub definition: Result<Definition, String>,
}

#[derive(Debug)]
pub struct Definition {
    pub metric: Arc<str>,
    pub labels: Vec<Label>,
    pub meta: Option<Meta>,
}

#[derive(Debug)]
struct Group {
    name: Arc<str>,
    series: Vec<u32>,
    /// Counts key ticks: a series is present only if it was seen since the last one.
    generation: u64,
    /// What goes to the store next must list all present series.
    key_owed: bool,
    /// Counts ticks, to find a series that comes twice in one.
    round: u64,
}

#[derive(Debug)]
struct Series {
    group: u32,
    generation: u64,
    round: u64,
    last: Value,
}

#[derive(Debug, Clone)]
struct Metric {
    name: Option<Arc<str>>,
    meta: Meta,
}

/// The decoder's state of one lane.
#[derive(Debug)]
pub struct Lane {
    limits: Arc<Limits>,
    /// Whether a dictionary was there and no frame has failed since.
    sound: bool,
    symbols: Vec<Option<Arc<str>>>,
    symbol_bytes: usize,
    groups: Vec<Group>,
    metrics: Vec<Metric>,
    series: Vec<Series>,
}

/// Definitions kept beyond what is admitted, as entries that are refused: the numbering must go on.
const REFUSED_FACTOR: usize = 2;

impl Lane {
    pub fn new(limits: Arc<Limits>) -> Self {
        Self {
            limits,
            sound: false,
            symbols: Vec::new(),
            symbol_bytes: 0,
            groups: Vec::new(),
            metrics: Vec::new(),
            series: Vec::new(),
        }
    }

    /// Whether frames are taken; false until a dictionary resets the lane.
    pub fn is_sound(&self) -> bool {
        self.sound
    }

    /// Adds to the tables. `None` where the lane awaits a reset and this is none: it belongs to what was lost.
    pub fn define(&mut self, dictionary: v1::Dictionary) -> Result<Option<Added>, DictionaryFull> {
        if dictionary.reset {
            *self = Self::new(self.limits.clone());
            self.sound = true;
        } else if !self.sound {
            return Ok(None);
        }
        self.add_symbols(dictionary.symbols)?;
        let mut added = Added { reset: dictionary.reset, ..Added::default() };
        for group in dictionary.groups {
            room("groups", self.groups.len(), self.limits.groups_per_agent * REFUSED_FACTOR)?;
            added.groups.push(self.add_group(&group));
        }
        for metric in dictionary.metrics {
            room("metrics", self.metrics.len(), self.limits.series_per_agent * REFUSED_FACTOR)?;
            let text = |symbol: u32| self.symbol(symbol).unwrap_or_else(|_| Arc::from(""));
            let meta = Meta { kind: metric.r#type(), help: text(metric.help), unit: text(metric.unit) };
            let name = self.symbol(metric.name).ok();
            self.metrics.push(Metric { name, meta });
        }
        for series in dictionary.series {
            room("series", self.series.len(), self.limits.series_per_agent * REFUSED_FACTOR)?;
            added.series.push(self.add_series(&series));
        }
        Ok(Some(added))
    }

    fn add_symbols(&mut self, symbols: Vec<String>) -> Result<(), DictionaryFull> {
        for symbol in symbols {
            room("symbols", self.symbols.len(), self.limits.series_per_agent * REFUSED_FACTOR)?;
            self.symbol_bytes = self.symbol_bytes.saturating_add(symbol.len());
            let fits = self.symbol_bytes <= self.limits.dictionary_bytes;
            self.symbols.push(fits.then(|| symbol.into()));
        }
        Ok(())
    }

    fn symbol(&self, reference: u32) -> Result<Arc<str>, String> {
        match self.symbols.get(reference as usize) {
            Some(Some(symbol)) => Ok(symbol.clone()),
            Some(None) => Err(format!(
                "the dictionary is larger than {} bytes; define fewer series",
                self.limits.dictionary_bytes
            )),
            None => Err(format!("symbol {reference} is not in the dictionary, which has {}", self.symbols.len())),
        }
    }

    /// Labels from symbols: name, value, name, value. An empty value means that the label is not there.
    fn labels(&self, symbols: &[u32]) -> Result<Vec<Label>, String> {
        let (pairs, rest) = symbols.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(format!("{} symbols do not make pairs of label name and value", symbols.len()));
        }
        let mut labels: Vec<Label> = Vec::with_capacity(pairs.len());
        for [name, value] in pairs {
            let (name, value) = (self.symbol(*name)?, self.symbol(*value)?);
            self.limits.label(&name, &value)?;
            if labels.iter().any(|label| label.name == name) {
                return Err(format!("label {} comes twice", cut(&name)));
            }
            labels.push(Label { name, value });
        }
        Ok(labels)
    }

    fn add_group(&mut self, group: &v1::GroupDef) -> NewGroup {
        let reference = self.groups.len() as u32;
        let name = self.symbol(group.name).unwrap_or_else(|_| Arc::from(""));
        let definition = if reference as usize >= self.limits.groups_per_agent {
            Err(format!("more than {} groups; let the agent run fewer modules", self.limits.groups_per_agent))
        } else if name.is_empty() {
            Err("a group without a name; give it one".into())
        } else if self.groups.iter().any(|other| other.name == name) {
            Err(format!("group {} is defined twice", cut(&name)))
        } else {
            self.limits
                .label("group", &name)
                .and_then(|()| self.labels(&group.labels))
                .map(|labels| (name.clone(), labels))
        };
        self.groups.push(Group { name, series: Vec::new(), generation: 0, key_owed: true, round: 0 });
        NewGroup { reference, definition }
    }

    fn add_series(&mut self, series: &v1::SeriesDef) -> NewSeries {
        let reference = self.series.len() as u32;
        let definition = self.definition(series);
        let last = Value::Float(0.0);
        self.series.push(Series { group: series.group, generation: 0, round: 0, last });
        if let Some(group) = self.groups.get_mut(series.group as usize) {
            group.series.push(reference);
        }
        NewSeries { reference, group: series.group, definition }
    }

    fn definition(&self, series: &v1::SeriesDef) -> Result<Definition, String> {
        let most = self.limits.series_per_agent;
        if self.series.len() >= most {
            return Err(format!("the agent has {most} series already; switch off what makes so many"));
        }
        let Some(metric) = self.metrics.get(series.metric as usize) else {
            return Err(format!("metric {} is not in the dictionary, which has {}", series.metric, self.metrics.len()));
        };
        let name = metric.name.clone().unwrap_or_else(|| Arc::from(""));
        self.limits.metric(&name)?;
        self.limits.label_count(&name, series.labels.len() / 2)?;
        let labels = self.labels(&series.labels).map_err(|trouble| format!("{}: {trouble}", cut(&name)))?;
        Ok(Definition { metric: name, labels, meta: Some(metric.meta.clone()) })
    }

    /// What a frame says. On an error the lane awaits a reset.
    pub fn decode(&mut self, frame: &v1::Frame) -> Result<Vec<Tick>, DecodeError> {
        if !self.sound {
            return Err(DecodeError::NoDictionary);
        }
        let ticks = self.decode_ticks(frame);
        self.sound = ticks.is_ok();
        ticks
    }

    fn decode_ticks(&mut self, frame: &v1::Frame) -> Result<Vec<Tick>, DecodeError> {
        let count = frame.ticks.len();
        if count > self.limits.ticks_per_frame {
            return Err(DecodeError::TooMuch { what: "ticks", count, most: self.limits.ticks_per_frame });
        }
        let count = frame.ticks.iter().map(values).sum();
        if count > self.limits.values_per_frame {
            return Err(DecodeError::TooMuch { what: "values", count, most: self.limits.values_per_frame });
        }
        frame.ticks.iter().map(|tick| self.decode_tick(frame.base_ms, tick)).collect()
    }

    fn decode_tick(&mut self, base_ms: i64, tick: &GroupTick) -> Result<Tick, DecodeError> {
        let known = self.groups.len();
        let Some(group) = self.groups.get_mut(tick.group as usize) else {
            return Err(DecodeError::Unknown { what: "group", reference: tick.group.into(), known });
        };
        if !tick.key && group.generation == 0 {
            return Err(DecodeError::NoBase(cut(&group.name).to_owned()));
        }
        group.generation += u64::from(tick.key);
        group.round += 1;
        let key = tick.key || std::mem::take(&mut group.key_owed);
        group.key_owed = false;
        let at = At { group: tick.group, generation: group.generation, round: group.round };
        let name = group.name.clone();
        let malformed = |trouble: String| DecodeError::Malformed { group: cut(&name).to_owned(), trouble };

        let timestamp_ms = base_ms
            .checked_add(tick.offset_ms)
            .filter(|timestamp_ms| *timestamp_ms >= 0)
            .ok_or_else(|| malformed(format!("time {base_ms} {:+} ms is none", tick.offset_ms)))?;
        let mut values = self.changes(&at, tick).map_err(|error| match error {
            Trouble::Unknown(error) => error,
            Trouble::Text(text) => malformed(text),
        })?;
        if key && !tick.key {
            values = self.present(tick.group);
        }
        Ok(Tick { group: tick.group, timestamp_ms, key, values })
    }

    fn changes(&mut self, at: &At, tick: &GroupTick) -> Result<Vec<(u32, Value)>, Trouble> {
        let mut out = Vec::with_capacity(values(tick));
        for column in &tick.decimals {
            same_length("decimal column", column.refs.len(), column.deltas.len())?;
            let mut refs = Refs::default();
            for (step, delta) in column.refs.iter().zip(&column.deltas) {
                let reference = refs.next(*step)?;
                let digits = column.digits;
                self.set(at, reference, &mut out, |last| {
                    let base = match last {
                        Some(Value::Float(value)) => decimal::base(*value),
                        _ => 0.0,
                    };
                    decimal::apply(base, digits, *delta).map(Value::Float).ok_or_else(|| {
                        format!("{base} and delta {delta} at {digits} digits give no exact value").into()
                    })
                })?;
            }
        }
        same_length("float column", tick.float_refs.len(), tick.float_bits.len())?;
        let mut refs = Refs::default();
        for (step, bits) in tick.float_refs.iter().zip(&tick.float_bits) {
            self.set(at, refs.next(*step)?, &mut out, |_| Ok(Value::Float(f64::from_bits(*bits))))?;
        }
        same_length("histogram column", tick.histogram_refs.len(), tick.histograms.len())?;
        let mut refs = Refs::default();
        for (step, histogram) in tick.histogram_refs.iter().zip(&tick.histograms) {
            self.limits.histogram(histogram)?;
            // Prometheus marks the end of a histogram series in its sum.
            let value = match lampad_proto::is_stale(histogram.sum) {
                true => Value::Float(lampad_proto::stale()),
                false => Value::Histogram(Arc::new(histogram.clone())),
            };
            self.set(at, refs.next(*step)?, &mut out, |_| Ok(value))?;
        }
        let mut refs = Refs::default();
        for step in &tick.ended {
            let reference = refs.next(*step)?;
            // An end of what is not present changes nothing: a key tick has left it out already.
            if self.find(at, reference)?.generation == at.generation {
                self.set(at, reference, &mut out, |_| Ok(Value::Float(lampad_proto::stale())))?;
            }
        }
        Ok(out)
    }

    fn find(&mut self, at: &At, reference: u32) -> Result<&mut Series, Trouble> {
        let known = self.series.len();
        let Some(series) = self.series.get_mut(reference as usize) else {
            let reference = reference.into();
            return Err(Trouble::Unknown(DecodeError::Unknown { what: "series", reference, known }));
        };
        if series.group != at.group {
            return Err(format!("series {reference} is of another group").into());
        }
        Ok(series)
    }

    fn set(
        &mut self,
        at: &At,
        reference: u32,
        out: &mut Vec<(u32, Value)>,
        next: impl FnOnce(Option<&Value>) -> Result<Value, Trouble>,
    ) -> Result<(), Trouble> {
        let series = self.find(at, reference)?;
        if series.round == at.round {
            return Err(format!("series {reference} comes twice in a tick").into());
        }
        let present = series.generation == at.generation;
        let value = next(present.then_some(&series.last))?;
        series.round = at.round;
        // No key tick has generation 0, so a series with it is not present.
        series.generation = if is_stale(&value) { 0 } else { at.generation };
        series.last = value.clone();
        out.push((reference, value));
        Ok(())
    }

    /// All present series of a group with their values.
    fn present(&self, group: u32) -> Vec<(u32, Value)> {
        let group = &self.groups[group as usize];
        let series = group.series.iter().map(|reference| (*reference, &self.series[*reference as usize]));
        let present = series.filter(|(_, series)| series.generation == group.generation);
        present.map(|(reference, series)| (reference, series.last.clone())).collect()
    }

    /// Takes nothing until the next reset: the stream is out of step.
    pub fn spoil(&mut self) {
        self.sound = false;
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

struct At {
    group: u32,
    generation: u64,
    round: u64,
}

/// What is wrong with a tick; its group is added by the caller.
enum Trouble {
    Unknown(DecodeError),
    Text(String),
}

impl From<String> for Trouble {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// References as the wire has them: the first one, then gaps.
#[derive(Default)]
struct Refs {
    last: Option<u32>,
}

impl Refs {
    fn next(&mut self, step: u32) -> Result<u32, Trouble> {
        let next = match self.last {
            None => Some(step),
            Some(_) if step == 0 => None,
            Some(last) => last.checked_add(step),
        };
        let next = next.ok_or_else(|| Trouble::Text(format!("series references do not ascend (gap {step})")))?;
        self.last = Some(next);
        Ok(next)
    }
}

fn values(tick: &GroupTick) -> usize {
    let decimals: usize = tick.decimals.iter().map(|column| column.refs.len()).sum();
    decimals + tick.float_refs.len() + tick.histogram_refs.len() + tick.ended.len()
}

fn same_length(what: &str, refs: usize, values: usize) -> Result<(), Trouble> {
    if refs == values { Ok(()) } else { Err(format!("{what} has {refs} references and {values} values").into()) }
}

fn room(what: &'static str, used: usize, most: usize) -> Result<(), DictionaryFull> {
    if used < most { Ok(()) } else { Err(DictionaryFull { what, most }) }
}

fn is_stale(value: &Value) -> bool {
    matches!(value, Value::Float(value) if lampad_proto::is_stale(*value))
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
