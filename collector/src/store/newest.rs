//! The run of a group's newest data, with the ticks that are not in its columns yet.
//!
//! A tick changes some of a group's series, each in a column of its own, and with many servers none of these columns is in a
//! cache when the next tick comes. So ticks of nothing but floats wait in the order in which they came, and go into the columns
//! some at a time: a column is fetched once for all of them. Whoever reads has what it reads put there first, and no more.

use super::run::Run;
use super::{Slot, Value};

/// Ticks that wait, at most: with twice as many little is gained, and they take four times the memory of points.
const WAITING_MAX: usize = 8;

/// The same of their values: of more the columns are in no cache either, and whoever comes last would wait long.
const VALUES_MAX: usize = 1 << 14;

/// Values that are put into columns in the time in which those of one slot are looked up.
const VALUES_PER_SLOT: usize = 16;

#[derive(Debug)]
pub(super) struct Newest {
    run: Run,
    waiting: Waiting,
}

/// Values of some ticks, one tick after the other, each ascending by slot.
#[derive(Debug, Default)]
struct Waiting {
    /// Number of each tick, and where its values end.
    ticks: Vec<(u32, usize)>,
    slots: Vec<u32>,
    values: Vec<f64>,
}

impl Newest {
    pub fn new() -> Self {
        Self { run: Run::new(), waiting: Waiting::default() }
    }

    /// All but its columns is as it will be.
    pub fn unsettled(&self) -> &Run {
        &self.run
    }

    pub fn bytes(&self) -> usize {
        self.run.bytes() + self.waiting.bytes()
    }

    /// As [`Run::delta_tick`].
    pub fn delta_tick(&mut self, timestamp_ms: i64, key: bool, values: &[(Slot, Value)]) {
        // A key tick ends what it does not list, so that all before it must be known.
        if !key && !self.run.is_empty() && self.waiting.put(self.run.ticks.len() as u32, values) {
            self.run.push_tick(timestamp_ms);
            if self.waiting.ticks.len() >= WAITING_MAX || self.waiting.values.len() >= VALUES_MAX {
                self.settle();
            }
            return;
        }
        self.settled().delta_tick(timestamp_ms, key, values);
    }

    /// With all of its points.
    #[inline]
    pub fn settled(&mut self) -> &mut Run {
        if !self.waiting.ticks.is_empty() {
            self.settle();
        }
        &mut self.run
    }

    fn settle(&mut self) {
        for (tick, values) in self.waiting.by_tick() {
            values.for_each(|(slot, value)| self.run.catch_up(tick, slot, value));
        }
        self.waiting.clear();
    }

    /// With all points of these slots.
    pub fn settled_for(&mut self, slots: &[Slot]) -> &Run {
        self.expect(slots.len());
        if !self.waiting.ticks.is_empty() {
            for slot in slots {
                for (tick, value) in self.waiting.of(slot.0) {
                    self.run.catch_up(tick, slot.0, value);
                }
            }
        }
        &self.run
    }

    /// So many slots will be asked for, all at once or one by one: where these are many, nothing waits any more.
    pub fn expect(&mut self, slots: usize) {
        if slots * VALUES_PER_SLOT >= self.waiting.values.len() {
            self.settled();
        }
    }

    pub fn into_run(mut self) -> Run {
        self.settled();
        self.run
    }
}

impl Waiting {
    /// Adds a tick; false where it must go into the columns at once.
    fn put(&mut self, tick: u32, values: &[(Slot, Value)]) -> bool {
        let waits = values.iter().all(|(_, value)| matches!(value, Value::Float(_)))
            && values.is_sorted_by(|(one, _), (next, _)| one < next);
        if !waits {
            return false;
        }
        if !values.is_empty() {
            self.slots.reserve_exact(values.len());
            self.values.reserve_exact(values.len());
            self.slots.extend(values.iter().map(|(slot, _)| slot.0));
            // All of them are floats.
            let float = |(_, value): &(Slot, Value)| if let Value::Float(value) = value { *value } else { 0.0 };
            self.values.extend(values.iter().map(float));
            self.ticks.push((tick, self.values.len()));
        }
        true
    }

    fn by_tick(&self) -> impl Iterator<Item = (u32, impl Iterator<Item = (u32, f64)> + '_)> + '_ {
        let mut begun = 0;
        self.ticks.iter().map(move |(tick, end)| {
            let range = std::mem::replace(&mut begun, *end)..*end;
            (*tick, self.slots[range.clone()].iter().copied().zip(self.values[range].iter().copied()))
        })
    }

    /// What waits of one slot.
    fn of(&self, slot: u32) -> impl Iterator<Item = (u32, f64)> + '_ {
        let mut begun = 0;
        self.ticks.iter().filter_map(move |(tick, end)| {
            let from = std::mem::replace(&mut begun, *end);
            let at = self.slots[from..*end].binary_search(&slot).ok()?;
            Some((*tick, self.values[from + at]))
        })
    }

    /// Keeps the memory for the next ticks.
    fn clear(&mut self) {
        self.ticks.clear();
        self.slots.clear();
        self.values.clear();
    }

    fn bytes(&self) -> usize {
        self.values.capacity() * (size_of::<f64>() + size_of::<u32>())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lampad_proto::Number;
    use proptest::prelude::*;

    use super::*;
    use crate::store::column::Samples;

    /// Values of a tick: of each slot none, a float, the stale marker or an integer.
    fn tick() -> impl Strategy<Value = (bool, Vec<Option<Value>>)> {
        let value = prop_oneof![
            4 => Just(None),
            4 => (0..3).prop_map(|value| Some(Value::Float(f64::from(value)))),
            1 => Just(Some(Value::Float(lampad_proto::stale()))),
        ];
        let integers = prop_oneof![9 => Just(false), 1 => Just(true)];
        (prop::bool::weighted(0.05), integers, prop::collection::vec(value, 6)).prop_map(
            |(key, integer, mut values)| {
                if integer {
                    values[3] = Some(Number::whole(u64::MAX, false).into());
                }
                (key, values)
            },
        )
    }

    fn samples(run: &Run, slot: u32) -> Vec<(i64, u64)> {
        let mut out = Samples::default();
        assert!(run.expand(slot, i64::MIN, i64::MAX, &mut out));
        out.floats.iter().map(|sample| (sample.timestamp_ms, sample.value.to_bits())).collect()
    }

    proptest! {
        #[test]
        fn what_waits_is_read_as_if_it_did_not(
            ticks in prop::collection::vec(tick(), 1..40),
            read in prop::collection::vec((prop::option::of(0u32..6), 0usize..40), 0..12),
        ) {
            let (mut newest, mut plain) = (Newest::new(), Run::new());
            for (at, (key, values)) in ticks.iter().enumerate() {
                let values: Vec<(Slot, Value)> =
                    values.iter().zip(0..).filter_map(|(value, slot)| Some((Slot(slot), value.clone()?))).collect();
                let key = *key || at == 0;
                newest.delta_tick(at as i64, key, &values);
                plain.delta_tick(at as i64, key, &values);
                for (slot, _) in read.iter().filter(|(_, when)| *when == at) {
                    let Some(slot) = slot else {
                        newest.settled();
                        continue;
                    };
                    // Whatever is cheaper: what is read is there.
                    let run = newest.settled_for(&[Slot(*slot)]);
                    prop_assert_eq!(samples(run, *slot), samples(&plain, *slot));
                    prop_assert_eq!(format!("{:?}", run.current(*slot)), format!("{:?}", plain.current(*slot)));
                }
            }
            prop_assert_eq!(newest.unsettled().span(), plain.span());
            let run = newest.into_run();
            prop_assert_eq!((&run.ticks, run.bytes(), run.longest), (&plain.ticks, plain.bytes(), plain.longest));
            let columns = |run: &Run| -> BTreeMap<u32, Vec<u8>> {
                run.slots.iter().enumerate().map(|(at, slot)| (*slot, run.column_bytes(at).into())).collect()
            };
            prop_assert_eq!(columns(&run), columns(&plain));
        }
    }
}
