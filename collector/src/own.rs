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
    /// The series of the last tick, in the order of its samples: mostly the next ones come in the same order.
    rows: Vec<(Labels, Series)>,
    last_ms: i64,
    key: bool,
}

#[derive(Default)]
struct Series {
    /// `None` where the store does not take it, and of a second series with the same labels.
    slot: Option<Slot>,
    /// Bits written last; `None` while not present.
    written: Option<u64>,
}

impl Own {
    pub fn new(sink: Arc<dyn Sink>, name: &'static str) -> Self {
        Self { sink, name, group: None, rows: Vec::new(), last_ms: 0, key: true }
    }

    /// Writes a tick. After an error the next one lists everything again.
    pub fn write(&mut self, now_ms: i64, samples: &[OwnSample]) -> Result<(), Unavailable> {
        let written = self.try_write(now_ms, samples);
        self.key = written.is_err();
        written
    }

    fn try_write(&mut self, now_ms: i64, samples: &[OwnSample]) -> Result<(), Unavailable> {
        let group = self.group()?;
        let mut values = Vec::new();
        if !self.goes_on_with(samples) {
            self.arrange(group, samples, &mut values)?;
        }
        for ((_, series), sample) in self.rows.iter_mut().zip(samples) {
            values.extend(series.state(sample.value, self.key));
        }
        values.sort_unstable_by_key(|(slot, _)| *slot);
        // A step of the clock back must not end in an overlay.
        let timestamp_ms = now_ms.max(self.last_ms + 1);
        let tick = TickBatch { group, timestamp_ms, run: Run::Live, key: self.key, values };
        self.sink.append(&Batch { frame: None, ticks: vec![tick] })?;
        self.last_ms = timestamp_ms;
        Ok(())
    }

    /// Whether these are the series of the last tick, by their memory: nobody reads the labels of a thousand agents each second.
    fn goes_on_with(&self, samples: &[OwnSample]) -> bool {
        let mut pairs = self.rows.iter().zip(samples);
        self.rows.len() == samples.len() && pairs.all(|((labels, _), sample)| labels.is_same(&sample.labels))
    }

    /// Makes the rows those of the samples. What is not among them has ended, and is dropped: a fleet that changes would otherwise
    /// grow this table for ever.
    fn arrange(
        &mut self,
        group: GroupId,
        samples: &[OwnSample],
        values: &mut Vec<(Slot, Value)>,
    ) -> Result<(), Unavailable> {
        // Of two with the same labels the first one counts: a series has one value at a time.
        let mut known: HashMap<Labels, Series> = self.rows.drain(..).rev().collect();
        let new: Vec<&OwnSample> = samples.iter().filter(|sample| !known.contains_key(&sample.labels)).collect();
        known.extend(self.define(group, &new)?);
        let row = |sample: &OwnSample| (sample.labels.clone(), known.remove(&sample.labels).unwrap_or_default());
        self.rows = samples.iter().map(row).collect();
        let ended = known.into_values().filter(|series| series.written.is_some() && !self.key);
        values.extend(ended.filter_map(|series| Some((series.slot?, Value::Float(lampad_proto::stale())))));
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

    fn define(&self, group: GroupId, new: &[&OwnSample]) -> Result<Vec<(Labels, Series)>, Unavailable> {
        let key = |sample: &&OwnSample| SeriesKey { labels: sample.labels.clone(), meta: Some(sample.meta.clone()) };
        let keys: Vec<SeriesKey> = new.iter().map(key).collect();
        let slots = if keys.is_empty() { Vec::new() } else { self.sink.define_series(group, &keys) };
        let series = |(sample, slot): (&&OwnSample, _)| {
            let slot = Unavailable::unless_lasting(slot)?.ok();
            Ok((sample.labels.clone(), Series { slot, written: None }))
        };
        new.iter().zip(slots).map(series).collect()
    }
}

impl Series {
    /// States the value of this tick; what goes to the store, if anything.
    fn state(&mut self, value: f64, key: bool) -> Option<(Slot, Value)> {
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
        own.write(1000, &[sample(1.0), sample(2.0)]).unwrap();
        own.write(2000, &[sample(3.0), sample(4.0)]).unwrap();
        recorder.fill(true);
        own.write(3000, &[sample(5.0), sample(6.0)]).unwrap_err();
        recorder.fill(false);
        own.write(4000, &[sample(7.0), sample(8.0)]).unwrap();
        let values: Vec<Vec<(Slot, Value)>> = recorder.ticks().into_iter().map(|tick| tick.values).collect();
        let only = |value: f64| vec![(Slot(0), Value::Float(value))];
        assert_eq!(values, [only(1.0), only(3.0), only(7.0)]);
    }
}
