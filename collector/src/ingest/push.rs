//! Plain samples in one call: answered when they are durable.
//!
//! Every series of one `job`/`instance` makes a group in which each sample is stated, whoever pushes it: a job that cron
//! starts is another pusher each time, and goes on with the series of the one before. A request that was stored before, told
//! by pusher id and sequence, is answered and not stored again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use lampad_proto::v1::{PushRefusal, PushReply, PushRequest, PushSample, PushSeries};
use tokio::time::timeout;
use tonic::Status;

use super::Ingest;
use super::admit::cut;
use crate::clock::now_ms;
use crate::sink::Unavailable;
use crate::store::{
    AgentId, Batch, FrameId, GroupId, GroupKey, Label, Labels, METRIC_NAME, Meta, PUSHER_EPOCH, Run, SeriesKey, Slot,
    TickBatch, Value, WriteMode,
};

/// How far ahead of our clock a sample may be.
const AHEAD_MAX_MS: i64 = 10 * 60 * 1000;

/// How long a caller waits for the disk. After it the samples are queryable and may or may not survive; the caller repeats.
pub(super) const DURABLE_WITHIN: Duration = Duration::from_secs(30);

/// Samples of one request.
pub(super) const SAMPLES_MAX: usize = 1_000_000;

pub async fn push(ingest: &Ingest, request: PushRequest) -> Result<PushReply, Status> {
    ingest.telemetry.pushes.one();
    let frame = frame(&request)?;
    let mut durable = ingest.sink.durable();
    let plan = Plan::new(ingest, frame, request.series)?;
    let mut reply = PushReply { stored: plan.samples, refused: plan.refused };
    reply.refused.sort_by_key(|refusal| refusal.series);
    let appended = ingest.sink.append(&plan.batch).map_err(unavailable)?;
    if appended.duplicate {
        ingest.telemetry.pushes_repeated.one();
    } else {
        let refused = appended.refused.len() as u64;
        reply.stored = reply.stored.saturating_sub(refused);
        ingest.telemetry.pushed_samples.add(reply.stored);
        ingest.telemetry.refused(&appended.refused);
        // The store names the series in its text; its place in the request is no longer known.
        reply.refused.extend(
            appended.refused.iter().map(|refused| PushRefusal { series: u32::MAX, reason: refused.to_string() }),
        );
    }
    match timeout(DURABLE_WITHIN, durable.wait_for(|lsn| *lsn >= appended.lsn)).await {
        Ok(Ok(_)) => Ok(reply),
        Ok(Err(_)) => Err(Status::unavailable("the collector is shutting down; push again")),
        Err(_) => Err(Status::unavailable("the samples are not on disk yet; push again with the same sequence")),
    }
}

fn frame(request: &PushRequest) -> Result<Option<FrameId>, Status> {
    if request.pusher_id.is_empty() {
        return Ok(None);
    }
    let id = <[u8; 16]>::try_from(&*request.pusher_id).map_err(|_| {
        let bytes = request.pusher_id.len();
        Status::invalid_argument(format!("pusher_id has {bytes} bytes; it is 16 random bytes, or empty"))
    })?;
    Ok(Some(FrameId { agent: AgentId(id), epoch: PUSHER_EPOCH, sequence: request.sequence }))
}

/// Series by the name of their group, with their place in the request.
pub(super) type Groups = BTreeMap<Arc<str>, Vec<(u32, SeriesKey, Vec<PushSample>)>>;

/// What a request comes to.
pub(super) struct Plan {
    pub batch: Batch,
    pub samples: u64,
    pub refused: Vec<PushRefusal>,
}

impl Plan {
    fn new(ingest: &Ingest, frame: Option<FrameId>, series: Vec<PushSeries>) -> Result<Self, Status> {
        let samples: usize = series.iter().map(|series| series.samples.len()).sum();
        if samples > SAMPLES_MAX {
            let text = format!("{samples} samples in one push; send at most {SAMPLES_MAX}");
            return Err(Status::resource_exhausted(text));
        }
        let mut refused = Vec::new();
        let mut groups = Groups::new();
        let now = now_ms();
        for (index, mut series) in series.into_iter().enumerate() {
            let mut samples = std::mem::take(&mut series.samples);
            samples.iter_mut().filter(|sample| sample.timestamp_ms == 0).for_each(|sample| sample.timestamp_ms = now);
            match key(ingest, series) {
                Ok((group, key)) => groups.entry(group).or_default().push((index as u32, key, samples)),
                Err(reason) => refused.push(PushRefusal { series: index as u32, reason }),
            }
        }
        Self::of(ingest, frame, groups, refused).map_err(unavailable)
    }

    /// What is to be stored of series that are named and grouped; their place in the request stands beside them.
    pub(super) fn of(
        ingest: &Ingest,
        frame: Option<FrameId>,
        groups: Groups,
        refused: Vec<PushRefusal>,
    ) -> Result<Self, Unavailable> {
        let mut plan = Self { batch: Batch { frame, ticks: Vec::new() }, samples: 0, refused };
        for (name, series) in groups {
            let key = GroupKey { agent: AgentId([0; 16]), name };
            let group = ingest.sink.define_group(key, WriteMode::Stated);
            match Unavailable::unless_lasting(group)? {
                Ok(group) => plan.add(ingest, group, series)?,
                Err(refused) => {
                    let refuse = |series| PushRefusal { series, reason: refused.to_string() };
                    plan.refused.extend(series.into_iter().map(|(index, ..)| refuse(index)));
                }
            }
        }
        ingest.telemetry.series_refused.add(plan.refused.len() as u64);
        Ok(plan)
    }

    fn add(
        &mut self,
        ingest: &Ingest,
        group: GroupId,
        series: Vec<(u32, SeriesKey, Vec<PushSample>)>,
    ) -> Result<(), Unavailable> {
        let keys: Vec<SeriesKey> = series.iter().map(|(_, key, _)| key.clone()).collect();
        let slots = ingest.sink.define_series(group, &keys);
        let now = now_ms();
        let mut ticks = BTreeMap::<i64, HashMap<Slot, Value>>::new();
        for ((index, key, samples), slot) in series.into_iter().zip(slots) {
            let refuse = |reason: String| PushRefusal { series: index, reason };
            let slot = match Unavailable::unless_lasting(slot)? {
                Ok(slot) => slot,
                Err(error) => {
                    self.refused.push(refuse(error.to_string()));
                    continue;
                }
            };
            for sample in samples {
                let timestamp_ms = sample.timestamp_ms;
                let value = match check(ingest, &key.labels, timestamp_ms, now, sample) {
                    Ok(value) => value,
                    Err(reason) => {
                        self.refused.push(refuse(reason));
                        continue;
                    }
                };
                let tick = ticks.entry(timestamp_ms).or_default();
                if tick.contains_key(&slot) {
                    let text = format!("{} has two samples at {timestamp_ms}; the first one counts", key.labels);
                    self.refused.push(refuse(text));
                    continue;
                }
                tick.insert(slot, value);
                self.samples += 1;
            }
        }
        for (timestamp_ms, values) in ticks {
            let mut values: Vec<_> = values.into_iter().collect();
            values.sort_unstable_by_key(|(slot, _)| *slot);
            self.batch.ticks.push(TickBatch { group, timestamp_ms, run: Run::Live, key: false, values });
        }
        Ok(())
    }
}

fn check(ingest: &Ingest, labels: &Labels, timestamp_ms: i64, now: i64, sample: PushSample) -> Result<Value, String> {
    if timestamp_ms < 0 {
        return Err(format!("sample of {labels} at {timestamp_ms} is before 1970"));
    }
    if timestamp_ms > now.saturating_add(AHEAD_MAX_MS) {
        return Err(format!(
            "sample of {labels} at {timestamp_ms} is more than 10 minutes ahead; set the pusher's clock"
        ));
    }
    match sample.histogram {
        Some(histogram) => {
            ingest.limits.histogram(&histogram).map_err(|trouble| format!("{labels}: {trouble}"))?;
            Ok(Value::Histogram(Arc::new(histogram)))
        }
        None => Ok(Value::Float(sample.value)),
    }
}

/// The group and the labels of a series.
fn key(ingest: &Ingest, series: PushSeries) -> Result<(Arc<str>, SeriesKey), String> {
    let limits = &ingest.limits;
    limits.metric(&series.name)?;
    limits.label_count(&series.name, series.labels.len())?;
    let mut pairs = BTreeMap::new();
    for label in &series.labels {
        limits.label(&label.name, &label.value).map_err(|trouble| format!("{}: {trouble}", cut(&series.name)))?;
        if pairs.insert(&*label.name, &*label.value).is_some() {
            return Err(format!("{}: label {} comes twice", cut(&series.name), cut(&label.name)));
        }
    }
    let of = |name: &str| pairs.get(name).copied().unwrap_or("");
    let group = format!("push {}/{}", of("job"), of("instance")).into();
    let (help, unit) = (limits.described(&series.help).into(), limits.described(&series.unit).into());
    let meta = Meta { kind: series.r#type(), help, unit };
    let name = Label { name: METRIC_NAME.into(), value: series.name.as_str().into() };
    let label = |(name, value): (&&str, &&str)| Label { name: (*name).into(), value: (*value).into() };
    let labels = Labels::new(pairs.iter().map(label).chain([name]));
    Ok((group, SeriesKey { labels, meta: Some(meta) }))
}

fn unavailable(error: Unavailable) -> Status {
    Status::unavailable(format!("the collector cannot store at present: {error}; push again later"))
}
