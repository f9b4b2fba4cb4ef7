//! From a lane's numbers to the store's: which group and slot a series reference means.
//!
//! A series' labels are the agent's, then its group's, then its own: of one name the most specific value counts, so that a
//! relayed exporter may keep its own `instance`.

use std::collections::BTreeMap;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::decode::{Added, NewGroup, NewSeries, Tick};
use crate::fleet::Job;
use crate::sink::{Sink, Unavailable};
use crate::store::{
    AgentId, GroupId, GroupKey, Label, Labels, METRIC_NAME, Refused, Run, SeriesKey, Slot, TickBatch, Value, WriteMode,
};

/// Series that are not taken, and the one reason for all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NotTaken {
    pub series: Vec<u32>,
    /// One of them, for people.
    pub first: String,
    pub reason: String,
    /// It is a matter of time: they would be taken a minute later.
    pub passes: bool,
}

/// Series that are not taken, by reason.
#[derive(Default)]
struct Refusals(BTreeMap<String, NotTaken>);

impl Refusals {
    fn of(&mut self, reason: String, first: impl FnOnce() -> String) -> &mut NotTaken {
        self.0.entry(reason).or_insert_with_key(|reason| NotTaken {
            reason: reason.clone(),
            first: first(),
            ..NotTaken::default()
        })
    }

    fn add(&mut self, reason: String, series: u32) {
        self.of(reason, String::new).series.push(series);
    }
}

#[derive(Debug)]
struct Group {
    id: GroupId,
    labels: Vec<Label>,
    /// Who has a slot: a series that is defined twice would state two values at once.
    taken: RoaringBitmap,
}

/// No slot. The store numbers a group's series from 0, and no group has so many.
const NONE: u32 = u32::MAX;

/// The references of one lane.
#[derive(Debug)]
pub struct References {
    agent: AgentId,
    labels: Arc<[Label]>,
    /// [`METRIC_NAME`], once for all series.
    metric_name: Arc<str>,
    groups: Vec<Option<Group>>,
    /// Slot of each series, [`NONE`] where it was refused.
    slots: Vec<u32>,
}

impl References {
    /// `labels` are those of the agent.
    pub fn new(agent: AgentId, labels: Arc<[Label]>) -> Self {
        Self { agent, labels, metric_name: METRIC_NAME.into(), groups: Vec::new(), slots: Vec::new() }
    }

    /// Registers what a dictionary added; what was refused for good comes back by reason. After an error the lane is half
    /// defined: the stream must end and begin anew.
    pub fn define(&mut self, sink: &dyn Sink, added: Added) -> Result<Vec<NotTaken>, Unavailable> {
        if added.reset {
            self.groups.clear();
            self.slots.clear();
        }
        let mut not_taken = Refusals::default();
        for over in added.over {
            not_taken.of(over.reason, || over.first).series.extend(over.series);
        }
        for group in added.groups {
            let group = self.define_group(sink, group, &mut not_taken)?;
            self.groups.push(group);
        }
        let mut by_group = BTreeMap::<u32, Vec<(u32, SeriesKey)>>::new();
        self.slots.reserve_exact(added.series.len());
        self.slots.resize(self.slots.len() + added.series.len(), NONE);
        for series in added.series {
            let (group, reference) = (series.group, series.reference);
            match self.key(series) {
                Ok(key) => by_group.entry(group).or_default().push((reference, key)),
                Err(reason) => not_taken.add(reason, reference),
            }
        }
        for (group, series) in by_group {
            self.define_series(sink, group, series, &mut not_taken)?;
        }
        Ok(not_taken.0.into_values().collect())
    }

    fn define_group(
        &self,
        sink: &dyn Sink,
        group: NewGroup,
        not_taken: &mut Refusals,
    ) -> Result<Option<Group>, Unavailable> {
        let defined = match group.definition {
            Ok((name, labels)) => {
                let id = sink.define_group(GroupKey { agent: self.agent, name }, WriteMode::Delta);
                let id = Unavailable::unless_lasting(id)?.map_err(|refused| refused.to_string());
                id.map(|id| Group { id, labels, taken: RoaringBitmap::new() })
            }
            Err(reason) => Err(reason),
        };
        // Told with no series: those of the group follow with a reason of their own.
        let told = defined.inspect_err(|reason| {
            not_taken.of(format!("group {}: {reason}", group.reference), String::new);
        });
        Ok(told.ok())
    }

    fn key(&self, series: NewSeries) -> Result<SeriesKey, String> {
        let definition = series.definition?;
        let Some(Some(group)) = self.groups.get(series.group as usize) else {
            return Err(format!("group {} is unknown or was refused", series.group));
        };
        let name = Label { name: self.metric_name.clone(), value: definition.metric };
        // In this order most are sorted already: no series has a label of its own that is named as its metric is.
        let labels = [name].into_iter().chain(self.labels.iter().cloned()).chain(group.labels.iter().cloned());
        Ok(SeriesKey { labels: Labels::new(labels.chain(definition.labels)), meta: definition.meta })
    }

    fn define_series(
        &mut self,
        sink: &dyn Sink,
        group: u32,
        series: Vec<(u32, SeriesKey)>,
        not_taken: &mut Refusals,
    ) -> Result<(), Unavailable> {
        let Some(Some(group)) = self.groups.get_mut(group as usize) else { return Ok(()) };
        let (references, keys): (Vec<u32>, Vec<SeriesKey>) = series.into_iter().unzip();
        let slots = sink.define_series(group.id, &keys);
        for ((reference, key), slot) in references.into_iter().zip(keys).zip(slots) {
            let reason = match Unavailable::unless_lasting(slot)? {
                Ok(slot) if group.taken.insert(slot.0) => {
                    self.slots[reference as usize] = slot.0;
                    continue;
                }
                Ok(_) => format!("{} is defined twice; define each series once", key.labels),
                Err(Refused::Limit { series, reason }) => {
                    not_taken.of(reason, || series).series.push(reference);
                    continue;
                }
                Err(Refused::Rate { series, reason }) => {
                    let refused = not_taken.of(reason, || series);
                    refused.series.push(reference);
                    refused.passes = true;
                    continue;
                }
                Err(refused) => refused.to_string(),
            };
            not_taken.add(reason, reference);
        }
        Ok(())
    }

    /// The ticks as the store takes them; series that were refused are left out. `shift_ms` is added to every time.
    pub fn batches(&self, ticks: Vec<Tick>, run: Run, shift_ms: i64) -> Vec<TickBatch> {
        let batch = |tick: Tick| {
            let group = self.groups.get(tick.group as usize)?.as_ref()?;
            let timestamp_ms = tick.timestamp_ms.saturating_add(shift_ms).max(0);
            Some(TickBatch { group: group.id, timestamp_ms, run, key: tick.key, values: self.by_slot(tick.values) })
        };
        ticks.into_iter().filter_map(batch).collect()
    }

    /// Values by their slots, ascending.
    fn by_slot(&self, values: Vec<(u32, Value)>) -> Vec<(Slot, Value)> {
        let (mut ascends, mut least) = (true, 0);
        // In the memory in which they came.
        let mut out: Vec<(Slot, Value)> = values
            .into_iter()
            .filter_map(|(reference, value)| {
                let slot = self.slots.get(reference as usize).copied().filter(|slot| *slot != NONE)?;
                ascends &= slot >= least;
                least = slot;
                Some((Slot(slot), value))
            })
            .collect();
        if !ascends {
            out.sort_unstable_by_key(|(slot, _)| *slot);
        }
        out
    }

    /// What the groups are for, by their labels.
    pub fn jobs(&self) -> impl Iterator<Item = Job> {
        self.groups.iter().flatten().filter_map(|group| {
            let value = |name| group.labels.iter().find(|label| &*label.name == name).map(|label| &*label.value);
            Some(Job::at(value("job")?, value("instance")))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn values_ascend_by_slot_without_those_that_were_refused(
            slots in prop::collection::vec(prop::option::weighted(0.9, 0u32..1000), 0..60),
            sorted in any::<bool>(),
        ) {
            let mut slots: Vec<u32> = slots.into_iter().map(|slot| slot.unwrap_or(NONE)).collect();
            if sorted {
                slots.sort_unstable();
            }
            let mut wanted: Vec<u32> = slots.iter().copied().filter(|slot| *slot != NONE).collect();
            wanted.sort_unstable();
            let values = (0..).zip(&slots).map(|(reference, slot)| (reference, Value::Float(f64::from(*slot)))).collect();
            let mut references = References::new(AgentId([1; 16]), Arc::default());
            references.slots = slots;
            let found = references.by_slot(values);
            prop_assert!(found.iter().all(|(slot, value)| *value == Value::Float(f64::from(slot.0))));
            prop_assert_eq!(found.into_iter().map(|(slot, _)| slot.0).collect::<Vec<_>>(), wanted);
        }
    }
}
