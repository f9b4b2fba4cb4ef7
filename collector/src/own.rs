//! Groups that the collector writes itself: `up` and its own metrics, stored like anybody's series.

use std::collections::HashMap;
use std::sync::Arc;

use crate::sink::{Sink, Unavailable};
use crate::store::{
    AgentId, Batch, GroupId, GroupKey, Labels, Meta, Run, SeriesKey, Slot, TickBatch, Value, WriteMode,
};

/// A sample of a group of the collector's own.
#[derive(Debug, Clone)]
pub struct OwnSample {
    pub labels: Labels,
    pub meta: Meta,
    pub value: f64,
}

/// Writes one such group: each tick states all samples, only what changed goes to the store.
pub struct Own {
    sink: Arc<dyn Sink>,
    name: &'static str,
    group: Option<GroupId>,
    series: HashMap<Labels, Series>,
    round: u64,
    last_ms: i64,
    key: bool,
}

struct Series {
    /// `None` where the store does not take it.
    slot: Option<Slot>,
    round: u64,
    /// Bits written last; `None` while not present.
    written: Option<u64>,
}

impl Own {
    pub fn new(sink: Arc<dyn Sink>, name: &'static str) -> Self {
        Self { sink, name, group: None, series: HashMap::new(), round: 0, last_ms: 0, key: true }
    }

    /// Writes a tick. After an error the next one lists everything again.
    pub fn write(&mut self, now_ms: i64, samples: impl IntoIterator<Item = OwnSample>) -> Result<(), Unavailable> {
        let written = self.try_write(now_ms, samples);
        self.key = written.is_err();
        written
    }

    fn try_write(&mut self, now_ms: i64, samples: impl IntoIterator<Item = OwnSample>) -> Result<(), Unavailable> {
        self.round += 1;
        let group = self.group()?;
        let mut values = Vec::new();
        let mut new = Vec::new();
        for sample in samples {
            match self.series.get_mut(&sample.labels) {
                // Of two with the same labels the first one counts: a series has one value at a time.
                Some(series) if series.round == self.round => {}
                Some(series) => values.extend(series.state(self.round, sample.value, self.key)),
                None => new.push(sample),
            }
        }
        self.define(group, new, &mut values)?;
        for series in self.series.values_mut().filter(|series| series.round != self.round) {
            if let (Some(slot), Some(_), false) = (series.slot, series.written.take(), self.key) {
                values.push((slot, Value::Float(lampad_proto::stale())));
            }
        }
        // What ended is dropped: a fleet that changes would otherwise grow this table for ever.
        let round = self.round;
        self.series.retain(|_, series| series.round == round);
        values.sort_unstable_by_key(|(slot, _)| *slot);
        // A step of the clock back must not end in an overlay.
        let timestamp_ms = now_ms.max(self.last_ms + 1);
        let tick = TickBatch { group, timestamp_ms, run: Run::Live, key: self.key, values };
        self.sink.append(&Batch { frame: None, ticks: vec![tick] })?;
        self.last_ms = timestamp_ms;
        Ok(())
    }

    fn group(&mut self) -> Result<GroupId, Unavailable> {
        if let Some(group) = self.group {
            return Ok(group);
        }
        let key = GroupKey { agent: AgentId([0; 16]), name: self.name.into() };
        let group = self.sink.define_group(key, WriteMode::Delta).map_err(|error| Unavailable(error.to_string()))?;
        self.group = Some(group);
        Ok(group)
    }

    fn define(
        &mut self,
        group: GroupId,
        new: Vec<OwnSample>,
        values: &mut Vec<(Slot, Value)>,
    ) -> Result<(), Unavailable> {
        if new.is_empty() {
            return Ok(());
        }
        let key = |sample: &OwnSample| SeriesKey { labels: sample.labels.clone(), meta: Some(sample.meta.clone()) };
        let keys: Vec<SeriesKey> = new.iter().map(key).collect();
        let slots = self.sink.define_series(group, &keys);
        for (sample, slot) in new.into_iter().zip(slots) {
            let slot = Unavailable::unless_lasting(slot)?.ok();
            if self.series.contains_key(&sample.labels) {
                continue;
            }
            let mut series = Series { slot, round: 0, written: None };
            values.extend(series.state(self.round, sample.value, self.key));
            self.series.insert(sample.labels, series);
        }
        Ok(())
    }
}

impl Series {
    /// States this round's value; what goes to the store, if anything.
    fn state(&mut self, round: u64, value: f64, key: bool) -> Option<(Slot, Value)> {
        self.round = round;
        let changed = self.written.replace(value.to_bits()) != Some(value.to_bits());
        let slot = self.slot.filter(|_| changed || key)?;
        Some((slot, Value::Float(value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::Recorder;
    use crate::store::METRIC_NAME;
    use lampad_proto::v1::MetricType;

    #[test]
    fn of_equal_series_the_first_one_is_written() {
        let recorder = Arc::new(Recorder::new(true));
        let mut own = Own::new(recorder.clone(), "own");
        let sample = |value: f64| OwnSample {
            labels: Labels::from_pairs([(METRIC_NAME, "lag"), ("agent", "db1")]),
            meta: Meta { kind: MetricType::Gauge, help: "".into(), unit: "".into() },
            value,
        };
        // Both new, then both known, then both known in a key tick.
        own.write(1000, [sample(1.0), sample(2.0)]).unwrap();
        own.write(2000, [sample(3.0), sample(4.0)]).unwrap();
        recorder.fill(true);
        own.write(3000, [sample(5.0), sample(6.0)]).unwrap_err();
        recorder.fill(false);
        own.write(4000, [sample(7.0), sample(8.0)]).unwrap();
        let values: Vec<Vec<(Slot, Value)>> = recorder.ticks().into_iter().map(|tick| tick.values).collect();
        let only = |value: f64| vec![(Slot(0), Value::Float(value))];
        assert_eq!(values, [only(1.0), only(3.0), only(7.0)]);
    }
}
