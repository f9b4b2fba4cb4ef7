//! The collector's own metrics: counted where things happen, written once a second as a group of its own, so that they are
//! queried, kept and scraped like anybody's.

mod agents;
mod out;
mod samples;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

use self::samples::Written;
use crate::clock::now_ms;
use crate::fleet::Registry;
use crate::own::Own;
use crate::sink::Sink;
use crate::store::{AgentId, Label, Refused, StoreStats};

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
        let mut written = Written::default();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = every.tick() => {}
            }
            self.samples(&mut written, &registry, &own, &stats(), started);
            if let Err(error) = group.write(now_ms(), &written.samples) {
                tracing::debug!(%error, "the collector's own metrics are not written");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{Attach, Hello, Lease};
    use crate::own::OwnSample;
    use crate::store::Labels;

    fn attach(registry: &Arc<Registry>, id: u8, instance: &str) -> Lease {
        let hello = Hello { instance: instance.into(), ..Hello::default() };
        let peer = ([127, 0, 0, 1], 1).into();
        registry.attach(Attach { id: AgentId([id; 16]), hello, modules: vec![], peer, now_ms: 0 }).unwrap()
    }

    /// A reinstalled agent has a new id and the old name.
    #[tokio::test]
    async fn of_agents_with_one_name_the_newest_is_told_of() {
        let registry = Registry::new(9, []);
        let attach = |id: u8, lag_ms: i64| {
            let lease = attach(&registry, id, "db1");
            lease.pushed(1000, lag_ms);
            lease
        };
        drop(attach(9, 5000));
        let _new = attach(1, 7000);
        let telemetry = Telemetry::default();
        let mut first = Written::default();
        telemetry.samples(&mut first, &registry, &[], &StoreStats::default(), 0);
        let is_lag = |sample: &&OwnSample| {
            sample.labels.metric().is_some_and(|name| &**name == "lampad_collector_agent_lag_seconds")
        };
        let lag = first.samples.iter().filter(is_lag);
        assert_eq!(lag.map(|sample| sample.value).collect::<Vec<_>>(), [7.0]);
        let mut labels: Vec<&Labels> = first.samples.iter().map(|sample| &sample.labels).collect();
        labels.sort();
        labels.dedup();
        assert_eq!(labels.len(), first.samples.len());
    }

    /// Labels are taken over from the second before, also when agents come, get their first frame and go.
    #[tokio::test]
    async fn labels_are_those_of_the_agents_that_are_there_now() {
        let registry = Registry::new(9, []);
        let attach = |id: u8| attach(&registry, id, &format!("db{id}"));
        let telemetry = Telemetry::default();
        let texts = |written: &mut Written| -> Vec<String> {
            telemetry.samples(written, &registry, &[], &StoreStats::default(), 0);
            written.samples.iter().map(|sample| sample.labels.to_string()).collect()
        };
        let mut written = Written::default();
        let _leases: Vec<_> = [5, 3, 7]
            .into_iter()
            .map(|id| {
                let lease = attach(id);
                if id > 3 {
                    telemetry.freshness(AgentId([id; 16]));
                }
                assert_eq!(texts(&mut written), texts(&mut Written::default()), "after agent {id}");
                assert_eq!(texts(&mut written), texts(&mut Written::default()), "nothing has changed");
                lease
            })
            .collect();
        telemetry.freshness(AgentId([3; 16]));
        assert_eq!(texts(&mut written), texts(&mut Written::default()));
        registry.forget(AgentId([5; 16]));
        assert_eq!(texts(&mut written), texts(&mut Written::default()));
        written.samples.rotate_left(1);
        written.agents = Default::default();
        assert_eq!(texts(&mut written), texts(&mut Written::default()), "all in other places");
    }

    /// What every frame changes is written now and then, all else each time; of a new agent all is there at once.
    #[tokio::test]
    async fn histograms_of_agents_are_written_now_and_then() {
        let registry = Registry::new(9, []);
        let attach = |id: u8| attach(&registry, id, &format!("db{id}"));
        let telemetry = Telemetry::default();
        let mut written = Written::default();
        let mut values = |agent: &str| {
            telemetry.samples(&mut written, &registry, &[], &StoreStats::default(), 0);
            let value = |name: &str| {
                let name = format!("lampad_collector_agent_{name}");
                let is_it = |sample: &&OwnSample| {
                    let labels = &sample.labels;
                    labels.metric().is_some_and(|metric| **metric == *name)
                        && labels.get("agent").is_some_and(|of| **of == *agent)
                };
                written.samples.iter().find(is_it).map(|sample| sample.value)
            };
            (value("lag_seconds"), value("freshness_seconds_count"))
        };
        let lease = attach(1);
        let seen = telemetry.freshness(AgentId([1; 16]));
        let mut told = Vec::new();
        for at in 1..=7 {
            seen.observe(Duration::from_millis(3));
            lease.pushed(1000, at * 1000);
            told.push(values("db1"));
        }
        let lags: Vec<_> = told.iter().map(|(lag, _)| lag.unwrap()).collect();
        let counts: Vec<_> = told.iter().map(|(_, count)| count.unwrap()).collect();
        assert_eq!(lags, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        assert_eq!(counts, [1.0, 1.0, 1.0, 1.0, 1.0, 6.0, 6.0]);
        let _second = attach(2);
        telemetry.freshness(AgentId([2; 16])).observe(Duration::from_millis(3));
        assert_eq!(values("db2").1, Some(1.0));
        assert_eq!(values("db1").1, Some(7.0), "with the second agent");
    }

    #[test]
    fn bounds_are_written_as_they_are() {
        let texts = BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        assert_eq!(texts.collect::<Vec<_>>(), BOUND_TEXTS);
    }
}
