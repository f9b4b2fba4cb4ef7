//! The collector's own metrics: counted where things happen, written once a second as a group of its own, so that they are
//! queried, kept and scraped like anybody's.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use lampad_proto::v1::MetricType;
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

use crate::clock::now_ms;
use crate::fleet::Registry;
use crate::own::{Own, OwnSample};
use crate::sink::Sink;
use crate::store::{AgentId, Label, Labels, METRIC_NAME, Meta, Refused, StoreStats};

/// How often the metrics are written.
const EVERY: Duration = Duration::from_secs(1);

/// Counts that only grow.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub fn one(&self) {
        self.add(1);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    pub fn add(&self, delta: i64) {
        self.0.fetch_add(delta, Ordering::Relaxed);
    }
}

/// Upper bounds of the buckets, in seconds: around the promise of 0.2 s at p50 and 0.4 s at p99.
const BOUNDS: [f64; 11] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 1.0, 3.0, 10.0];

/// The same as label values, and what is beyond.
const BOUND_TEXTS: [&str; BOUNDS.len() + 1] =
    ["0.001", "0.005", "0.01", "0.025", "0.05", "0.1", "0.2", "0.4", "1", "3", "10", "+Inf"];

/// Durations by bucket.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }
}

/// Why the store refuses samples, in the order of [`reason`].
const REASONS: [&str; 7] = ["invalid", "limit", "rate", "too_old", "too_new", "duplicate", "unavailable"];

fn reason(refused: &Refused) -> usize {
    match refused {
        Refused::Invalid(_) => 0,
        Refused::Limit { .. } => 1,
        Refused::Rate { .. } => 2,
        Refused::TooOld { .. } => 3,
        Refused::TooNew { .. } => 4,
        Refused::Duplicate { .. } => 5,
        Refused::Unavailable(_) => 6,
    }
}

/// Everything that is counted.
#[derive(Debug, Default)]
pub struct Telemetry {
    pub streams: Gauge,
    pub streams_refused: Counter,
    pub frames_live: Counter,
    pub frames_backfill: Counter,
    pub frames_repeated: Counter,
    pub frames_malformed: Counter,
    pub frames_discarded: Counter,
    pub key_frames_wanted: Counter,
    pub ticks: Counter,
    pub values: Counter,
    pub series_refused: Counter,
    pub ticks_refused: Counter,
    samples_refused: [Counter; REASONS.len()],
    pub frames_unacked: Gauge,
    pub pushes: Counter,
    pub pushes_repeated: Counter,
    pub pushed_samples: Counter,
    pub scrapes: Gauge,
    pub scrapes_aborted: Counter,
    pub tls_failed: Counter,
    pub unauthorised: Counter,
    pub queryable: Histogram,
    pub durable: Histogram,
    freshness: RwLock<HashMap<AgentId, Arc<Histogram>>>,
}

impl Telemetry {
    /// From an agent's tick to the moment it was queryable here.
    pub fn freshness(&self, agent: AgentId) -> Arc<Histogram> {
        self.freshness.write().entry(agent).or_default().clone()
    }

    /// Counts samples that the store refused.
    pub fn refused(&self, refused: &[Refused]) {
        refused.iter().for_each(|refused| self.samples_refused[reason(refused)].one());
    }

    /// Writes all metrics every second until `shutdown`.
    pub async fn run(
        self: Arc<Self>,
        sink: Arc<dyn Sink>,
        registry: Arc<Registry>,
        own: Vec<Label>,
        stats: impl Fn() -> StoreStats + Send + 'static,
        shutdown: CancellationToken,
    ) {
        let mut group = Own::new(sink, "lampad.collector");
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let started = now_ms();
        let mut samples = Vec::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = every.tick() => {}
            }
            samples = self.samples(&samples, &registry, &own, &stats(), started);
            if let Err(error) = group.write(now_ms(), samples.iter().cloned()) {
                tracing::debug!(%error, "the collector's own metrics are not written");
            }
        }
    }

    /// `before` are those of the last time.
    fn samples(
        &self,
        before: &[OwnSample],
        registry: &Registry,
        own: &[Label],
        stats: &StoreStats,
        started_ms: i64,
    ) -> Vec<OwnSample> {
        let mut out = Out { own, before, samples: Vec::with_capacity(before.len()) };
        let version = env!("CARGO_PKG_VERSION");
        out.push(&gauge("build_info", "The running version; always 1."), "", &[("version", version)], 1.0);
        let start = gauge("start_time_seconds", "When the collector started, in seconds since 1970.");
        out.push(&start, "", &[], started_ms as f64 / 1000.0);
        for (family, value) in self.counters() {
            out.push(&family, "", &[], value.get() as f64);
        }
        let refused = counter("refused_samples_total", "Samples that the store refused, by reason.");
        for (reason, value) in REASONS.iter().zip(&self.samples_refused) {
            out.push(&refused, "", &[("reason", reason)], value.get() as f64);
        }
        let frames = counter("frames_total", "Frames taken, by the lane that brought them.");
        for (lane, value) in [("live", &self.frames_live), ("backfill", &self.frames_backfill)] {
            out.push(&frames, "", &[("lane", lane)], value.get() as f64);
        }
        for (family, value) in [
            (gauge("streams", "Agents' streams that are open."), &self.streams),
            (gauge("unacked_frames", "Frames that are queryable and not yet durable."), &self.frames_unacked),
            (gauge("scrapes_running", "Readers of /metrics at this moment."), &self.scrapes),
        ] {
            out.push(&family, "", &[], value.0.load(Ordering::Relaxed) as f64);
        }
        let queryable = histogram("queryable_seconds", "From a frame's arrival until its samples were queryable.");
        out.histogram(&queryable, &[], &self.queryable);
        let durable = histogram("durable_seconds", "From a frame's arrival until it was on disk and could be acked.");
        out.histogram(&durable, &[], &self.durable);
        store(stats, &mut out);
        self.agents(registry, &mut out);
        out.samples
    }

    fn counters(&self) -> [(Family, &Counter); 15] {
        [
            (counter("streams_refused_total", "Streams refused at hello."), &self.streams_refused),
            (counter("repeated_frames_total", "Frames that were stored already."), &self.frames_repeated),
            (counter("malformed_frames_total", "Frames that could not be decoded."), &self.frames_malformed),
            (
                counter("discarded_frames_total", "Frames malformed even when sent again, and given up."),
                &self.frames_discarded,
            ),
            (
                counter("key_frames_wanted_total", "Times an agent was asked to send all values."),
                &self.key_frames_wanted,
            ),
            (counter("ticks_total", "Ticks taken from agents."), &self.ticks),
            (counter("values_total", "Values that changed, as agents sent them."), &self.values),
            (counter("refused_series_total", "Series that were over a limit or malformed."), &self.series_refused),
            (counter("refused_ticks_total", "Ticks that were more than a frame may bring."), &self.ticks_refused),
            (counter("pushes_total", "Calls of Push."), &self.pushes),
            (counter("repeated_pushes_total", "Calls of Push that were stored already."), &self.pushes_repeated),
            (counter("pushed_samples_total", "Samples stored by Push."), &self.pushed_samples),
            (counter("aborted_scrapes_total", "Readers of /metrics too slow to go on with."), &self.scrapes_aborted),
            (counter("failed_tls_handshakes_total", "Connections that ended before they were safe."), &self.tls_failed),
            (counter("unauthorised_requests_total", "Requests without the right token."), &self.unauthorised),
        ]
    }

    fn agents(&self, registry: &Registry, out: &mut Out<'_>) {
        let fresh = histogram("agent_freshness_seconds", "From an agent's tick until it was queryable here.");
        let rows = [
            gauge("agent_lag_seconds", "Way of the last frame from the agent to here."),
            gauge("agent_clock_offset_seconds", "The collector's clock minus the agent's."),
            gauge("agent_clock_shift_seconds", "What is added to the agent's ticks because its clock is wrong."),
        ];
        let agents = registry.agents();
        // A server that was installed anew has the name of the old one, which stays known for a day: of each name the one that
        // pushed last is told of.
        let mut newest: BTreeMap<String, (bool, i64, AgentId)> = BTreeMap::new();
        let told: Vec<_> = agents
            .iter()
            .map(|agent| {
                agent.with(|state| {
                    let this = (state.streaming, state.last_push_ms, agent.id);
                    (state.hello.instance.clone(), this, [state.lag_ms, state.clock_offset_ms, state.clock_shift_ms])
                })
            })
            .collect();
        for (instance, this, _) in &told {
            match newest.get_mut(instance) {
                Some(known) => *known = *this.max(known),
                None => _ = newest.insert(instance.clone(), *this),
            }
        }
        let freshness = self.freshness.read().clone();
        for (agent, (instance, this, times)) in agents.iter().zip(&told) {
            if newest.get(instance) != Some(this) {
                continue;
            }
            let labels = [("agent", instance.as_str())];
            for (family, ms) in rows.iter().zip(times) {
                out.push(family, "", &labels, *ms as f64 / 1000.0);
            }
            if let Some(seen) = freshness.get(&agent.id) {
                out.histogram(&fresh, &labels, seen);
            }
        }
        let known: std::collections::HashSet<AgentId> = agents.iter().map(|agent| agent.id).collect();
        self.freshness.write().retain(|id, _| known.contains(id));
    }
}

fn store(stats: &StoreStats, out: &mut Out<'_>) {
    for (family, value) in [
        (gauge("series", "Series that the store knows."), stats.series as f64),
        (gauge("index_bytes", "Memory of the names, labels and postings of all series."), stats.index_bytes as f64),
        (gauge("groups", "Groups that the store knows."), stats.groups as f64),
        (gauge("head_bytes", "Memory of samples that are not sealed."), stats.head_bytes as f64),
        (gauge("log_bytes", "Size of the log on disk."), stats.log_bytes as f64),
        (gauge("log_queue_bytes", "Written to the log and not flushed yet."), stats.log_behind_bytes as f64),
        (counter("log_written_bytes_total", "Written to the log."), stats.log_written_bytes as f64),
        (counter("flushes_total", "Flushes of the log."), stats.flushes as f64),
        (counter("flush_seconds_total", "Time that flushes of the log took."), stats.flush_seconds),
        (counter("failed_flushes_total", "Flushes of the log that failed."), stats.flush_failures as f64),
        (counter("sealed_bytes_total", "Written to blocks."), stats.sealed_bytes as f64),
        (counter("block_read_bytes_total", "Read from blocks."), stats.read_bytes as f64),
        (gauge("block_cached_bytes", "What queries have read from blocks and is kept."), stats.cached_bytes as f64),
        (counter("damaged_total", "Damaged records and values that were stepped over."), stats.damaged as f64),
        (gauge("disk_full", "1 while the disk is too full to take anything."), f64::from(u8::from(stats.disk_full))),
    ] {
        out.push(&family, "", &[], value);
    }
}

/// Of the names of all these metrics.
const PREFIX: &str = "lampad_collector_";

struct Family {
    name: &'static str,
    meta: Meta,
}

fn family(name: &'static str, kind: MetricType, help: &str) -> Family {
    let unit = if name.ends_with("_seconds") { "seconds" } else { "" };
    Family { name, meta: Meta { kind, help: help.into(), unit: unit.into() } }
}

fn counter(name: &'static str, help: &str) -> Family {
    family(name, MetricType::Counter, help)
}

fn gauge(name: &'static str, help: &str) -> Family {
    family(name, MetricType::Gauge, help)
}

fn histogram(name: &'static str, help: &str) -> Family {
    family(name, MetricType::Histogram, help)
}

struct Out<'a> {
    own: &'a [Label],
    /// Samples of the last time: mostly the same series in the same places, whose labels need not be made again.
    before: &'a [OwnSample],
    samples: Vec<OwnSample>,
}

impl Out<'_> {
    fn push(&mut self, family: &Family, suffix: &str, labels: &[(&str, &str)], value: f64) {
        let known = self.before.get(self.samples.len()).map(|before| &before.labels);
        let labels = match known.filter(|known| self.is(known, family, suffix, labels)) {
            Some(known) => known.clone(),
            None => self.labels(family, suffix, labels),
        };
        self.samples.push(OwnSample { labels, meta: family.meta.clone(), value });
    }

    fn labels(&self, family: &Family, suffix: &str, labels: &[(&str, &str)]) -> Labels {
        let label = |(name, value): &(&str, &str)| Label { name: (*name).into(), value: (*value).into() };
        let name = Label { name: METRIC_NAME.into(), value: format!("{PREFIX}{}{suffix}", family.name).into() };
        Labels::new(self.own.iter().cloned().chain(labels.iter().map(label)).chain([name]))
    }

    /// Whether [`Self::labels`] would make these.
    fn is(&self, known: &Labels, family: &Family, suffix: &str, labels: &[(&str, &str)]) -> bool {
        let own = self.own.iter().map(|label| (&*label.name, &*label.value));
        let is_named =
            known.metric().and_then(|name| name.strip_prefix(PREFIX)?.strip_prefix(family.name)) == Some(suffix);
        is_named
            && known.len() == self.own.len() + labels.len() + 1
            && own.chain(labels.iter().copied()).all(|(name, value)| known.get(name).is_some_and(|is| **is == *value))
    }

    fn histogram(&mut self, family: &Family, labels: &[(&str, &str)], histogram: &Histogram) {
        let mut count = 0;
        for (at, bucket) in histogram.buckets.iter().enumerate() {
            count += bucket.load(Ordering::Relaxed);
            let labels: Vec<_> = labels.iter().copied().chain([("le", BOUND_TEXTS[at])]).collect();
            self.push(family, "_bucket", &labels, count as f64);
        }
        self.push(family, "_count", labels, count as f64);
        self.push(family, "_sum", labels, histogram.sum_us.load(Ordering::Relaxed) as f64 / 1e6);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{Attach, Hello};

    /// A reinstalled agent has a new id and the old name.
    #[tokio::test]
    async fn of_agents_with_one_name_the_newest_is_told_of() {
        let registry = Registry::new(9, []);
        let attach = |id: u8, lag_ms: i64| {
            let hello = Hello { instance: "db1".into(), ..Hello::default() };
            let peer = ([127, 0, 0, 1], 1).into();
            let attach = Attach { id: AgentId([id; 16]), hello, modules: vec![], peer, now_ms: 0 };
            let lease = registry.attach(attach).unwrap();
            lease.pushed(1000, lag_ms);
            lease
        };
        drop(attach(9, 5000));
        let _new = attach(1, 7000);
        let telemetry = Telemetry::default();
        let samples = telemetry.samples(&[], &registry, &[], &StoreStats::default(), 0);
        let is_lag = |sample: &&OwnSample| {
            sample.labels.metric().is_some_and(|name| &**name == "lampad_collector_agent_lag_seconds")
        };
        let lag = samples.iter().filter(is_lag);
        assert_eq!(lag.map(|sample| sample.value).collect::<Vec<_>>(), [7.0]);
        let mut labels: Vec<&Labels> = samples.iter().map(|sample| &sample.labels).collect();
        labels.sort();
        labels.dedup();
        assert_eq!(labels.len(), samples.len());
        // Another time, beside those of before, and with all in other places.
        let texts = |samples: &[OwnSample]| samples.iter().map(|sample| sample.labels.to_string()).collect::<Vec<_>>();
        let mut before = samples.clone();
        for _ in 0..2 {
            let again = telemetry.samples(&before, &registry, &[], &StoreStats::default(), 0);
            assert_eq!(texts(&again), texts(&samples));
            before.rotate_left(1);
        }
    }

    #[test]
    fn bounds_are_written_as_they_are() {
        let texts = BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        assert_eq!(texts.collect::<Vec<_>>(), BOUND_TEXTS);
    }
}
