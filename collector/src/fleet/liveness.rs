//! `up{job,instance}`, with the agent's own labels: what the collector itself saw of every agent, second by second.
//!
//! 1 while an agent's lease holds, 0 once it has been silent for [`super::LEASE`] or has ended its stream. A known agent stays 0
//! after a restart of the collector until it is forgotten. Never back-filled: it says what was seen then.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use lampad_proto::v1::MetricType;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::agent::hex;
use super::job::Job;
use super::registry::Registry;
use crate::clock::now_ms;
use crate::own::{Own, OwnSample};
use crate::sink::Sink;
use crate::store::{AgentId, Labels, METRIC_NAME, Meta};

pub const UP_HELP: &str = "Whether the agent pushes: 1 while it does, 0 when it has been silent for 3 seconds.";

/// How often every `up` gets a sample.
const EVERY: Duration = Duration::from_secs(1);

/// How soon the end of a lease is noticed at the latest. Most leases are renewed long before, and nobody looks meanwhile.
const LOOK: Duration = Duration::from_millis(100);

/// Between two looks, when agents come and go: a thousand that come at once would cost a thousand looks at a thousand.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Time that agents have to come back after the collector's start before the missing ones count as down.
const GRACE: Duration = Duration::from_secs(5);

/// By job and the agent's labels.
type Seen = BTreeMap<(String, BTreeMap<String, String>), bool>;

/// Writes `up`, and tells the store of agents that have fallen silent.
pub struct Liveness {
    registry: Arc<Registry>,
    sink: Arc<dyn Sink>,
    own: Own,
    started: Instant,
    /// Agents whose lease held when last looked at.
    up: HashSet<AgentId>,
    /// The registry's revision, and who lived of whom something is claimed, when last looked at.
    looked: (u64, Vec<(AgentId, bool)>),
    /// What came of that.
    seen: Seen,
    samples: Vec<OwnSample>,
    /// When the first of those who are up may be down, or the other way round.
    due: Instant,
    forget_after: Duration,
}

impl Liveness {
    /// An agent is forgotten after `forget_after` without a push.
    pub fn new(registry: Arc<Registry>, sink: Arc<dyn Sink>, forget_after: Duration) -> Self {
        let own = Own::new(sink.clone(), "up");
        let (up, looked, seen, samples) = (HashSet::new(), (0, Vec::new()), BTreeMap::new(), Vec::new());
        let (started, due) = (Instant::now(), Instant::now());
        Self { registry, sink, own, started, up, looked, seen, samples, due, forget_after }
    }

    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut wrote = None::<Instant>;
        let (mut again, mut look) = (Instant::now(), Instant::now());
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.registry.changed() => tokio::time::sleep_until(again).await,
                () = tokio::time::sleep_until(look) => {}
            }
            let now = Instant::now();
            again = now + LOOK_AGAIN;
            if self.look(now, now_ms()) || wrote.is_none_or(|at| now.duration_since(at) >= EVERY) {
                if let Err(error) = self.own.write(now_ms(), &self.samples) {
                    tracing::debug!(%error, "up is not written");
                }
                wrote = Some(now);
            }
            look = wrote.map_or(now, |wrote| wrote + EVERY).min(self.due).max(now + LOOK);
        }
    }

    /// Looks who lives now, and ends the series of those who no longer do; says whether any `up` has changed. Mostly none has,
    /// and then nothing is made: this is done up to ten times a second.
    fn look(&mut self, now: Instant, now_ms: i64) -> bool {
        let revision = self.registry.revision();
        let mut agents = self.registry.unsorted();
        self.due = now + EVERY;
        agents.retain(|agent| {
            let again = agent.look_again(now);
            self.due = again.map_or(self.due, |again| again.min(self.due));
            let is_up = again.is_some_and(|again| again > now);
            if is_up {
                self.up.insert(agent.id);
            } else if self.up.remove(&agent.id) {
                agent.lapse();
                self.sink.silence(agent.id, now_ms);
            }
            if !is_up && agent.idle(now, now_ms) > self.forget_after {
                tracing::info!(agent = hex(agent.id), "forgotten: no push for {:?}", self.forget_after);
                self.registry.forget(agent.id);
                return false;
            }
            // After a start nobody has had time to come back: what is not known yet is not claimed.
            is_up || agent.was_seen() || now.duration_since(self.started) >= GRACE
        });
        let looked = (revision, agents.iter().map(|agent| (agent.id, self.up.contains(&agent.id))).collect());
        if looked == self.looked {
            return false;
        }
        self.looked = looked;
        let mut seen = Seen::new();
        for agent in agents {
            let is_up = self.up.contains(&agent.id);
            let (labels, jobs) = agent.jobs();
            for Job { name, instance } in jobs {
                let mut labels = labels.clone();
                labels.extend(instance.map(|instance| ("instance".to_owned(), instance)));
                // A replaced server has the labels of the old one: it is up if any of them is.
                *seen.entry((name, labels)).or_insert(false) |= is_up;
            }
        }
        if seen == self.seen {
            return false;
        }
        self.samples = samples(&seen);
        self.seen = seen;
        true
    }
}

fn samples(seen: &Seen) -> Vec<OwnSample> {
    let meta = Meta { kind: MetricType::Gauge, help: UP_HELP.into(), unit: "".into() };
    let sample = |((job, labels), up): (&(String, BTreeMap<String, String>), &bool)| {
        let labels = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let labels = Labels::from_pairs(labels.chain([(METRIC_NAME, "up"), ("job", job)]));
        OwnSample { labels, meta: meta.clone(), value: f64::from(u8::from(*up)) }
    };
    seen.iter().map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::agent::{Hello, LEASE, State};
    use crate::fleet::registry::Attach;
    use crate::recorder::{Recorder, until};
    use crate::store::Value;

    fn attach(id: u8, instance: &str) -> Attach {
        let hello = Hello { instance: instance.into(), ..Hello::default() };
        let peer = ([127, 0, 0, 1], 1).into();
        Attach { id: AgentId([id; 16]), hello, modules: vec![], peer, now_ms: now_ms() }
    }

    /// The last value written of every `up`.
    fn up(recorder: &Recorder) -> BTreeMap<String, f64> {
        let mut up = BTreeMap::new();
        for tick in recorder.ticks() {
            for (slot, value) in tick.values {
                let Value::Float(value) = value else { continue };
                up.insert(recorder.labels(tick.group, slot), value);
            }
        }
        up
    }

    const DB1: &str = r#"up{instance="db1", job="node"}"#;
    const OLD: &str = r#"up{instance="old", job="mysql"}"#;

    /// As Prometheus puts a target's labels on `up`: dashboards choose by them.
    #[tokio::test(start_paused = true)]
    async fn up_has_the_agents_labels() {
        let recorder = Arc::new(Recorder::new(true));
        let registry = Registry::new(9, []);
        let liveness = Liveness::new(registry.clone(), recorder.clone(), Duration::from_secs(60));
        tokio::spawn(liveness.run(CancellationToken::new()));
        let mut attach = attach(1, "db1");
        attach.hello.labels = BTreeMap::from([("env".to_owned(), "prod".to_owned())]);
        let lease = registry.attach(attach).unwrap();
        lease.jobs([Job::at("node", None), Job::at("mysql", Some("db1:3307"))].into_iter());
        for series in
            [r#"up{env="prod", instance="db1", job="node"}"#, r#"up{env="prod", instance="db1:3307", job="mysql"}"#]
        {
            until("up", || up(&recorder).get(series) == Some(&1.0)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn up_is_zero_within_three_seconds_of_silence_and_one_on_return() {
        let recorder = Arc::new(Recorder::new(true));
        let registry = Registry::new(9, []);
        let liveness = Liveness::new(registry.clone(), recorder.clone(), Duration::from_secs(60));
        tokio::spawn(liveness.run(CancellationToken::new()));
        let lease = registry.attach(attach(1, "db1")).unwrap();
        lease.jobs([Job::at("node", None)].into_iter());
        until("up", || up(&recorder).get(DB1) == Some(&1.0)).await;

        let died = Instant::now();
        lease.seen();
        until("down", || up(&recorder).get(DB1) == Some(&0.0)).await;
        let took = died.elapsed();
        assert!(took >= LEASE && took < Duration::from_secs(3), "{took:?}");
        assert_eq!(recorder.silenced(), [AgentId([1; 16])]);
        assert!(lease.take_lapsed(), "its next tick must list everything");

        lease.seen();
        let back = Instant::now();
        until("up again", || up(&recorder).get(DB1) == Some(&1.0)).await;
        assert!(back.elapsed() < 3 * LOOK, "a stream that is open is looked at often while its agent is down");
        let stopped = Instant::now();
        lease.goodbye();
        drop(lease);
        until("down at once", || up(&recorder).get(DB1) == Some(&0.0)).await;
        assert!(stopped.elapsed() < Duration::from_millis(500));
    }

    #[tokio::test(start_paused = true)]
    async fn a_known_agent_is_down_after_a_restart_until_it_is_forgotten() {
        let recorder = Arc::new(Recorder::new(true));
        let hello = Hello { instance: "old".into(), ..Hello::default() };
        let state = State::known(hello, [Job::at("mysql", None)].into(), BTreeMap::new(), now_ms() - 60_000);
        let registry = Registry::new(9, [(AgentId([7; 16]), state)]);
        let started = Instant::now();
        let liveness = Liveness::new(registry.clone(), recorder.clone(), Duration::from_secs(3600));
        tokio::spawn(liveness.run(CancellationToken::new()));
        until("down", || up(&recorder).get(OLD) == Some(&0.0)).await;
        assert!(started.elapsed() >= GRACE, "it had no time to come back");

        let mut forgetful = Liveness::new(registry.clone(), recorder.clone(), Duration::from_secs(30));
        forgetful.look(Instant::now(), now_ms());
        until("the end of its series", || up(&recorder).get(OLD).is_some_and(|value| value.is_nan())).await;
        assert!(registry.agents().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn every_up_has_a_sample_each_second() {
        let recorder = Arc::new(Recorder::new(true));
        let liveness = Liveness::new(Registry::new(9, []), recorder.clone(), Duration::from_secs(60));
        tokio::spawn(liveness.run(CancellationToken::new()));
        tokio::time::sleep(Duration::from_millis(10_500)).await;
        let ticks = recorder.ticks();
        assert!((10..=12).contains(&ticks.len()), "{}", ticks.len());
        assert!(ticks[0].key && ticks[1..].iter().all(|tick| !tick.key));
        assert!(ticks.windows(2).all(|pair| pair[0].timestamp_ms < pair[1].timestamp_ms));
    }
}
