//! One lane's tables and values, and the messages that follow from them.

use std::borrow::Cow;
use std::collections::HashMap;

use lampad_proto::v1::{
    DecimalColumn, Dictionary, Frame, GroupDef, GroupTick as WireTick, IntegerColumn, Lane, MetricDef, SeriesDef,
};
use lampad_proto::{Number, decimal};

use super::catalog::{Batch, Catalog, Group, GroupTick};
use crate::module::Desc;

/// A series or group that the lane has no definition of yet.
const UNDEFINED: u32 = u32::MAX;

/// Digits 0 to [`decimal::DIGITS_MAX`], one column each.
const COLUMNS: usize = decimal::DIGITS_MAX as usize + 1;

/// Definitions of series that ended, beyond as many as are live, after which the lane begins anew: a collector bounds what one
/// lane may define, and a stream that lives for months would come to that by series that come and go.
const ENDED_MAX: u32 = if cfg!(test) { 4 } else { 10_000 };

/// The messages for one batch. The dictionary, when there is one, goes first.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    pub dictionary: Option<Dictionary>,
    pub frame: Frame,
}

/// Encodes batches for one lane. Holds the value of every present series, so that a lane can start anew at any batch.
#[derive(Debug, Clone)]
pub struct Encoder {
    lane: Lane,
    /// The next dictionary starts with empty tables.
    reset: bool,
    symbols: HashMap<Box<str>, u32>,
    metrics: HashMap<Cow<'static, str>, u32>,
    groups: Vec<GroupState>,
    groups_defined: u32,
    series_defined: u32,
    /// How many it must be before it is looked how many of them are live.
    look_at: u32,
    /// Definitions that the next message must bring.
    pending: Dictionary,
    scratch: Scratch,
}

#[derive(Debug, Clone, Default)]
struct GroupState {
    reference: Option<u32>,
    /// The lane's reader knows this group's values; otherwise its next tick is a key tick.
    current: bool,
    slots: Vec<Slot>,
}

/// 16 bytes per series and lane.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// Of the double, or the magnitude of the integer.
    bits: u64,
    reference: u32,
    /// Digits that the last float took: tried first for the next one.
    digits: u8,
    holds: Holds,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Nothing,
    Float,
    Integer { negative: bool },
}

const ABSENT: Slot = Slot { bits: 0, reference: UNDEFINED, digits: 0, holds: Holds::Nothing };

/// Reused between ticks, so that a sample costs no allocation.
#[derive(Debug, Clone, Default)]
struct Scratch {
    /// (reference, slot, value before: 0 for a key tick or a series that begins).
    listed: Vec<(u32, u32, f64)>,
    ended: Vec<u32>,
}

impl Encoder {
    pub fn new(lane: Lane) -> Self {
        Self {
            lane,
            reset: true,
            symbols: HashMap::new(),
            metrics: HashMap::new(),
            groups: Vec::new(),
            groups_defined: 0,
            series_defined: 0,
            look_at: ENDED_MAX,
            pending: Dictionary::default(),
            scratch: Scratch::default(),
        }
    }

    /// Starts the lane anew: empty tables, and the next tick of every group is a key tick. Values stay.
    pub fn reset(&mut self) {
        self.reset = true;
        self.symbols.clear();
        self.metrics.clear();
        self.groups_defined = 0;
        self.series_defined = 0;
        self.look_at = ENDED_MAX;
        self.pending = Dictionary::default();
        for group in &mut self.groups {
            group.reference = None;
            group.current = false;
            group.slots.iter_mut().for_each(|slot| slot.reference = UNDEFINED);
        }
    }

    /// Takes over a batch that this lane does not carry: values move on, and the next tick of its groups is a key tick.
    pub fn pass(&mut self, batch: &Batch) {
        for tick in &batch.ticks {
            let group = self.group(tick.group);
            group.current = false;
            for (slot, value) in &tick.changes.values {
                group.slot(*slot).set(*value);
            }
            for slot in &tick.changes.ended {
                group.slot(*slot).holds = Holds::Nothing;
            }
        }
    }

    /// Takes over all values of another encoder, and starts anew.
    pub fn adopt(&mut self, other: &Self) {
        self.groups =
            other.groups.iter().map(|group| GroupState { slots: group.slots.clone(), ..Default::default() }).collect();
        self.reset();
    }

    /// The messages that tell this batch to the lane's reader.
    pub fn encode(&mut self, catalog: &Catalog, batch: &Batch, sent_ms: i64) -> Encoded {
        self.forget_ended();
        let base_ms = batch.ticks.iter().map(|tick| tick.at_ms).min().unwrap_or(sent_ms);
        let mut ticks = Vec::with_capacity(batch.ticks.len());
        for tick in &batch.ticks {
            if let Some(group) = catalog.group(tick.group) {
                ticks.push(self.tick(group, tick, base_ms));
            }
        }
        let frame = Frame { lane: self.lane.into(), sequence: batch.sequence, base_ms, sent_ms, ticks };
        Encoded { dictionary: self.take_dictionary(), frame }
    }

    fn forget_ended(&mut self) {
        // A segment of the spool is short and has a dictionary of its own.
        if self.series_defined < self.look_at || self.lane != Lane::Live {
            return;
        }
        let live = self.groups.iter().flat_map(|group| &group.slots).filter(|slot| slot.is_present()).count() as u32;
        self.look_at = live.saturating_mul(2).saturating_add(ENDED_MAX);
        if self.series_defined >= self.look_at {
            self.reset();
        }
    }

    /// The series that a reference of this lane's current tables stands for: (group, series) in the catalog.
    pub fn resolve(&self, reference: u32) -> Option<(u32, u32)> {
        self.groups.iter().enumerate().find_map(|(number, group)| {
            let slot = group.slots.iter().position(|slot| slot.reference == reference)?;
            Some((number as u32, slot as u32))
        })
    }

    fn tick(&mut self, group: &Group, tick: &GroupTick, base_ms: i64) -> WireTick {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.listed.clear();
        scratch.ended.clear();
        let reference = self.define_group(tick.group, group);
        let key = !self.group(tick.group).current;
        if key {
            self.list_all(group, tick, &mut scratch);
        } else {
            self.list_changes(group, tick, &mut scratch);
        }
        // References are given in order of first use, which need not be the order of slots.
        scratch.listed.sort_unstable_by_key(|(reference, ..)| *reference);
        scratch.ended.sort_unstable();
        let mut wire = WireTick { group: reference, offset_ms: tick.at_ms - base_ms, key, ..Default::default() };
        self.group(tick.group).write(&scratch.listed, &mut wire);
        wire.ended = gaps(&scratch.ended);
        self.scratch = scratch;
        wire
    }

    fn list_all(&mut self, group: &Group, tick: &GroupTick, out: &mut Scratch) {
        let state = self.group(tick.group);
        for (slot, value) in &tick.changes.values {
            state.slot(*slot).set(*value);
        }
        for slot in &tick.changes.ended {
            state.slot(*slot).holds = Holds::Nothing;
        }
        state.current = true;
        for number in 0..state.slots.len() as u32 {
            if self.groups[tick.group as usize].slots[number as usize].is_present() {
                let reference = self.define_series(tick.group, group, number);
                out.listed.push((reference, number, 0.0));
            }
        }
    }

    fn list_changes(&mut self, group: &Group, tick: &GroupTick, out: &mut Scratch) {
        for (number, value) in &tick.changes.values {
            let slot = self.group(tick.group).slot(*number);
            let before = slot.before();
            slot.set(*value);
            let reference = match slot.reference {
                UNDEFINED => self.define_series(tick.group, group, *number),
                reference => reference,
            };
            out.listed.push((reference, *number, decimal::base(before)));
        }
        let state = self.group(tick.group);
        for number in &tick.changes.ended {
            let slot = state.slot(*number);
            if slot.is_present() && slot.reference != UNDEFINED {
                out.ended.push(slot.reference);
            }
            slot.holds = Holds::Nothing;
        }
    }

    fn group(&mut self, number: u32) -> &mut GroupState {
        let number = number as usize;
        if self.groups.len() <= number {
            self.groups.resize_with(number + 1, GroupState::default);
        }
        &mut self.groups[number]
    }

    fn define_group(&mut self, number: u32, group: &Group) -> u32 {
        if let Some(reference) = self.group(number).reference {
            return reference;
        }
        let labels = group.labels.iter().flat_map(|(name, value)| [self.symbol(name), self.symbol(value)]).collect();
        let definition = GroupDef { name: self.symbol(&group.name), labels, interval_ms: group.interval_ms };
        self.pending.groups.push(definition);
        let reference = self.groups_defined;
        self.groups_defined += 1;
        self.group(number).reference = Some(reference);
        reference
    }

    fn define_series(&mut self, number: u32, group: &Group, slot: u32) -> u32 {
        let known = self.group(number).slot(slot).reference;
        if known != UNDEFINED {
            return known;
        }
        let Some(series) = group.series.get(slot as usize) else {
            // The catalog grows before a batch that uses it is made; a batch that breaks this is not sent half.
            debug_assert!(false, "series {slot} of {} is not in the catalog", group.name);
            return UNDEFINED;
        };
        let metric = self.metric(&series.desc);
        let names = series.desc.labels.iter().copied();
        let labels = names
            .zip(series.labels.iter())
            .filter(|(_, value)| !value.is_empty()) // an empty value means that the label is not there
            .flat_map(|(name, value)| [self.symbol(name), self.symbol(value)])
            .collect();
        let group_reference = self.group(number).reference.unwrap_or_default();
        self.pending.series.push(SeriesDef { group: group_reference, metric, labels });
        let reference = self.series_defined;
        self.series_defined += 1;
        self.group(number).slot(slot).reference = reference;
        reference
    }

    fn metric(&mut self, desc: &Desc) -> u32 {
        if let Some(reference) = self.metrics.get(&desc.name) {
            return *reference;
        }
        let definition = MetricDef {
            name: self.symbol(&desc.name),
            r#type: desc.kind.into(),
            help: self.symbol(&desc.help),
            unit: self.symbol(desc.unit),
        };
        self.pending.metrics.push(definition);
        let reference = self.metrics.len() as u32;
        self.metrics.insert(desc.name.clone(), reference);
        reference
    }

    fn symbol(&mut self, text: &str) -> u32 {
        if let Some(reference) = self.symbols.get(text) {
            return *reference;
        }
        let reference = self.symbols.len() as u32;
        self.symbols.insert(text.into(), reference);
        self.pending.symbols.push(text.to_owned());
        reference
    }

    fn take_dictionary(&mut self) -> Option<Dictionary> {
        if !self.reset && self.pending == Dictionary::default() {
            return None;
        }
        let reset = std::mem::take(&mut self.reset);
        Some(Dictionary { lane: self.lane.into(), reset, ..std::mem::take(&mut self.pending) })
    }
}

impl GroupState {
    fn slot(&mut self, number: u32) -> &mut Slot {
        let number = number as usize;
        if self.slots.len() <= number {
            self.slots.resize(number + 1, ABSENT);
        }
        &mut self.slots[number]
    }

    /// Sorts the listed values into columns by their digits; what no column gives back exactly goes as bits.
    fn write(&mut self, listed: &[(u32, u32, f64)], wire: &mut WireTick) {
        let mut columns: [DecimalColumn; COLUMNS] = Default::default();
        let mut last = [0; COLUMNS];
        let mut last_float = 0;
        let mut last_integer = [0; 2];
        for (reference, number, before) in listed {
            let slot = &mut self.slots[*number as usize];
            if let Holds::Integer { negative } = slot.holds {
                let last = &mut last_integer[usize::from(negative)];
                push_integer(&mut wire.integers, negative, reference - *last, slot.bits);
                *last = *reference;
                continue;
            }
            match decimal::delta(*before, f64::from_bits(slot.bits), slot.digits.into()) {
                Some((digits, delta)) => {
                    slot.digits = digits as u8;
                    let at = digits as usize;
                    columns[at].refs.push(reference - last[at]);
                    columns[at].deltas.push(delta);
                    last[at] = *reference;
                }
                None => {
                    wire.float_refs.push(reference - last_float);
                    wire.float_bits.push(slot.bits);
                    last_float = *reference;
                }
            }
        }
        for (digits, mut column) in columns.into_iter().enumerate() {
            if !column.refs.is_empty() {
                column.digits = digits as u32;
                wire.decimals.push(column);
            }
        }
    }
}

impl Slot {
    fn set(&mut self, value: Number) {
        (self.bits, self.holds) = match value {
            Number::Float(value) => (value.to_bits(), Holds::Float),
            Number::Integer(value) => (value.magnitude(), Holds::Integer { negative: value.is_negative() }),
        };
    }

    fn is_present(&self) -> bool {
        self.holds != Holds::Nothing
    }

    /// What a decimal counts from. From an integer none can, as from every number beyond 2^53.
    fn before(&self) -> f64 {
        match self.holds {
            Holds::Nothing => 0.0,
            Holds::Float => f64::from_bits(self.bits),
            Holds::Integer { .. } => self.bits as f64,
        }
    }
}

/// Few series have integers, so their columns are made where one comes.
fn push_integer(columns: &mut Vec<IntegerColumn>, negative: bool, step: u32, magnitude: u64) {
    let at = columns.iter().position(|column| column.negative == negative).unwrap_or_else(|| {
        columns.push(IntegerColumn { negative, ..IntegerColumn::default() });
        columns.len() - 1
    });
    columns[at].refs.push(step);
    columns[at].magnitudes.push(magnitude);
}

/// Ascending references as first reference, then gaps.
fn gaps(references: &[u32]) -> Vec<u32> {
    let mut last = 0;
    references.iter().map(|reference| reference - std::mem::replace(&mut last, *reference)).collect()
}

#[cfg(test)]
#[path = "encoder_tests.rs"]
mod tests;
