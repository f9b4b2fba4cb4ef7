//! From a request to what is stored: series that are known go by the bytes of their labels, others are defined first.
//!
//! Groups: the series of one `job`/`instance`; every sample is stated, silence means absent.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Receiver;
use super::known::{Fingerprint, Place};
use super::request::{Request, Series, labels};
use crate::ingest::admit::cut;
use crate::sink::Unavailable;
use crate::store::{
    AgentId, Batch, GroupId, GroupKey, Label, Labels, METRIC_NAME, Run, SeriesKey, Slot, TickBatch, Value, WriteMode,
};

/// What a request comes to.
#[derive(Default)]
pub struct Plan {
    pub batch: Batch,
    /// Samples in the batch.
    pub samples: u64,
    pub refused: Refusals,
}

/// What is not stored, and why.
#[derive(Default)]
pub struct Refusals {
    pub series: u64,
    pub samples: u64,
    /// The first ones.
    pub reasons: Vec<String>,
}

/// Refusals that an answer names.
const NAMED_MAX: usize = 10;

impl Refusals {
    pub fn name(&mut self, reason: impl FnOnce() -> String) {
        if self.reasons.len() < NAMED_MAX {
            self.reasons.push(reason());
        }
    }
}

/// Series that are to be defined in one group, by their place in the request.
type Undefined = BTreeMap<Arc<str>, Vec<(usize, SeriesKey)>>;

impl Plan {
    pub fn of(receiver: &Receiver, request: &Request<'_>) -> Result<Self, Unavailable> {
        let mut plan = Self::default();
        let fingerprints: Vec<Fingerprint> =
            request.series.iter().map(|series| receiver.known.fingerprint(&series.labels)).collect();
        let mut places = receiver.known.find(&fingerprints);
        if places.iter().any(Option::is_none) {
            plan.define(receiver, request, &fingerprints, &mut places)?;
        }
        let mut ticks = Ticks { expected: request.samples.len(), ..Ticks::default() };
        let (mut samples, mut histograms) = (request.samples.iter(), request.histograms.iter());
        for (series, place) in request.series.iter().zip(places) {
            let samples = samples.by_ref().take(series.samples as usize);
            let histograms = histograms.by_ref().take(series.histograms as usize);
            let Some(place) = place else {
                plan.refused.samples += (samples.count() + histograms.count()) as u64;
                continue;
            };
            for sample in samples {
                ticks.add(place, sample.timestamp_ms, Value::Float(sample.value));
            }
            for histogram in histograms {
                let stored = histogram.stored();
                // Prometheus marks the end of a histogram series in its sum.
                if lampad_proto::is_stale(stored.sum) {
                    ticks.add(place, histogram.timestamp, Value::Float(lampad_proto::stale()));
                    continue;
                }
                match receiver.ingest.limits.histogram(&stored) {
                    Ok(()) => ticks.add(place, histogram.timestamp, Value::Histogram(Arc::new(stored))),
                    Err(trouble) => {
                        plan.refused.samples += 1;
                        plan.refused.name(|| format!("{}: {trouble}", shown(series)));
                    }
                }
            }
        }
        (plan.batch.ticks, plan.samples) = ticks.finish(&mut plan.refused);
        Ok(plan)
    }

    fn define(
        &mut self,
        receiver: &Receiver,
        request: &Request<'_>,
        fingerprints: &[Fingerprint],
        places: &mut [Option<Place>],
    ) -> Result<(), Unavailable> {
        let mut undefined = Undefined::new();
        for (at, series) in request.series.iter().enumerate().filter(|(at, _)| places[*at].is_none()) {
            match receiver.key(series) {
                Ok((group, key)) => undefined.entry(group).or_default().push((at, key)),
                Err(reason) => {
                    self.refused.series += 1;
                    self.refused.name(|| reason);
                }
            }
        }
        let sink = &receiver.ingest.sink;
        for (name, series) in undefined {
            let group = GroupKey { agent: AgentId([0; 16]), name };
            let group = match Unavailable::unless_lasting(sink.define_group(group, WriteMode::Stated))? {
                Ok(group) => group,
                Err(refused) => {
                    self.refused.series += series.len() as u64;
                    self.refused.name(|| refused.to_string());
                    continue;
                }
            };
            let (at, keys): (Vec<usize>, Vec<SeriesKey>) = series.into_iter().unzip();
            for (at, slot) in at.into_iter().zip(sink.define_series(group, &keys)) {
                match Unavailable::unless_lasting(slot)? {
                    Ok(slot) => places[at] = Some((group, slot)),
                    Err(refused) => {
                        self.refused.series += 1;
                        self.refused.name(|| refused.to_string());
                    }
                }
            }
        }
        receiver.known.add(fingerprints.iter().zip(places).filter_map(|(series, place)| Some((*series, (*place)?))));
        Ok(())
    }
}

impl Receiver {
    /// The name of the group of a series, and the series.
    pub fn key(&self, series: &Series<'_>) -> Result<(Arc<str>, SeriesKey), String> {
        let limits = &self.ingest.limits;
        let mut pairs = BTreeMap::new();
        for label in labels(&series.labels) {
            let (name, value) = label.map_err(|malformed| malformed.to_string())?;
            let (name, value) = (text(name)?, text(value)?);
            if pairs.insert(name, value).is_some() {
                return Err(format!("label {:?} comes twice in one series", cut(name)));
            }
        }
        let metric = pairs.get(METRIC_NAME).copied().unwrap_or_default();
        limits.metric(metric)?;
        limits.label_count(metric, pairs.len() - 1)?;
        for (name, value) in pairs.iter().filter(|(name, _)| **name != METRIC_NAME) {
            limits.label(name, value).map_err(|trouble| format!("{}: {trouble}", cut(metric)))?;
        }
        let of = |name: &str| pairs.get(name).copied().unwrap_or_default();
        let group = format!("remote_write {}/{}", of("job"), of("instance")).into();
        let labels = pairs.iter().map(|(name, value)| Label { name: (*name).into(), value: (*value).into() });
        Ok((group, SeriesKey { labels: Labels::new(labels), meta: self.families.of(metric) }))
    }
}

/// A series as people write it.
fn shown(series: &Series<'_>) -> String {
    let lossy = |bytes| cut(&String::from_utf8_lossy(bytes)).to_owned();
    let pairs: Vec<(String, String)> =
        labels(&series.labels).flatten().map(|(name, value)| (lossy(name), lossy(value))).collect();
    Labels::from_pairs(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))).to_string()
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| {
        let shown = String::from_utf8_lossy(bytes);
        format!("label name or value {:?} is no UTF-8", cut(&shown))
    })
}

/// Samples by group and time.
#[derive(Default)]
struct Ticks {
    ticks: Vec<TickBatch>,
    at: HashMap<(GroupId, i64), usize>,
    /// Where the last sample went: the next one mostly goes there too.
    last: usize,
    /// Samples that the first tick has room for: mostly it gets all of them.
    expected: usize,
}

impl Ticks {
    fn add(&mut self, (group, slot): Place, timestamp_ms: i64, value: Value) {
        let is_last = |tick: &&mut TickBatch| (tick.group, tick.timestamp_ms) == (group, timestamp_ms);
        if let Some(tick) = self.ticks.get_mut(self.last).filter(is_last) {
            tick.values.push((slot, value));
            return;
        }
        self.last = *self.at.entry((group, timestamp_ms)).or_insert_with(|| {
            let values = Vec::with_capacity(std::mem::take(&mut self.expected));
            self.ticks.push(TickBatch { group, timestamp_ms, run: Run::Live, key: false, values });
            self.ticks.len() - 1
        });
        self.ticks[self.last].values.push((slot, value));
    }

    /// The ticks of each group in the order of their times, and how many samples they have.
    fn finish(mut self, refused: &mut Refusals) -> (Vec<TickBatch>, u64) {
        self.ticks.retain(|tick| {
            let good = tick.timestamp_ms >= 0;
            if !good {
                refused.samples += tick.values.len() as u64;
                refused.name(|| format!("samples at {} ms are before 1970", tick.timestamp_ms));
            }
            good
        });
        self.ticks.sort_by_key(|tick| (tick.group, tick.timestamp_ms));
        let by_slot = |(slot, _): &(Slot, Value)| *slot;
        for tick in self.ticks.iter_mut().filter(|tick| !tick.values.is_sorted_by_key(by_slot)) {
            // Stable: of two samples of one series and time the first one counts.
            tick.values.sort_by_key(by_slot);
        }
        let samples = self.ticks.iter().map(|tick| tick.values.len() as u64).sum();
        (self.ticks, samples)
    }
}
