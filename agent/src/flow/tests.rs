use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use lampad_proto::Number;
use lampad_proto::v1::Lane;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::collector::Collector;
use super::{Control, Flow, Parts};
use crate::clock::Clock;
use crate::delta::{Catalog, Group, Series};
use crate::identity::Identity;
use crate::module::Desc;
use crate::sampler::Sampled;
use crate::spool::{self, Command, Owner, Spool, SpoolDisk};
use crate::stats::Shared;
use crate::tick::Changes;
use crate::uplink::Target;

const VALUE: Desc = Desc::gauge("value", "A value.").labels(&["n"]);

/// A flow whose samples the test makes: tick `t` of series `n` is at millisecond `t`, see [`value`].
struct Rig {
    out: mpsc::Sender<Sampled>,
    _control: mpsc::Sender<Control>,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
    shared: Shared,
    told: bool,
}

impl Rig {
    fn start(dir: &Path, collector: SocketAddr) -> Self {
        let identity = Identity::open(dir).unwrap();
        let catalog = Self::catalog();
        let owner = Owner { agent_id: identity.agent_id(), epoch: identity.epoch() };
        let spool = Spool::open(&dir.join("spool"), owner, 1 << 30).unwrap();
        let disk = SpoolDisk::start(spool, catalog.clone()).unwrap();
        Self::on(identity, collector, catalog, disk)
    }

    fn catalog() -> Arc<RwLock<Catalog>> {
        let mut catalog = Catalog::new();
        catalog.add(Group::new("test", "node", 100));
        Arc::new(RwLock::new(catalog))
    }

    fn on(
        identity: Identity,
        collector: SocketAddr,
        catalog: Arc<RwLock<Catalog>>,
        (disk, chunks): (SpoolDisk, mpsc::Receiver<spool::Event>),
    ) -> Self {
        let (out, samples) = mpsc::channel(64);
        let (control, orders) = mpsc::channel(1);
        let shared = Shared::new(disk.health.clone());
        let collector = format!("http://{collector}");
        let flow = Flow::new(Parts {
            identity,
            target: Target { collector, tls_ca: None, tls_identity: None, token_file: None },
            labels: Vec::new(),
            hostname: "test".to_owned(),
            clock: Arc::new(Clock::system()),
            catalog,
            samples,
            control: orders,
            disk,
            chunks,
            shared: shared.clone(),
        });
        let stop = CancellationToken::new();
        let task = tokio::spawn(flow.run(stop.clone()));
        Self { out, _control: control, stop, task, shared, told: false }
    }

    async fn tick(&mut self, t: i64) {
        let new_series = if std::mem::replace(&mut self.told, true) {
            Vec::new()
        } else {
            (0..3).map(|n: u32| Arc::new(Series { desc: VALUE, labels: Box::new([n.to_string().into()]) })).collect()
        };
        let values = (0..3).map(|n| (n, value(t, n))).collect();
        let changes = Changes { values, ended: Vec::new() };
        let sampled = Sampled { group: 0, at_ms: t, read: Instant::now(), new_series, changes };
        self.out.send(sampled).await.unwrap();
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }

    async fn until_spooled(&self, wanted: impl Fn(u64) -> bool) {
        let waited = tokio::time::timeout(Duration::from_secs(10), async {
            while !wanted(self.spooled()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(waited.await.is_ok(), "{} frames in the spool", self.spooled());
    }

    fn spooled(&self) -> u64 {
        self.shared.spool.frames.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// One of the series counts where doubles skip.
fn value(t: i64, n: u32) -> Number {
    let from = if n == 2 { 1 << 60 } else { 0 };
    Number::from(from + t * 10 + i64::from(n))
}

/// Nothing lost, doubled, shifted or invented.
fn check(collector: &Collector, ticks: impl Iterator<Item = i64>) {
    let truth = ticks.flat_map(|t| (0..3).map(move |n| ((format!("test/value{{n={n}}}"), t), value(t, n)))).collect();
    assert_eq!(collector.state().samples, truth);
}

fn collector() -> Collector {
    let collector = Collector::default();
    collector.state().window = 1000;
    collector.state().protocol = *lampad_proto::PROTOCOL.end();
    collector
}

/// An address at which nobody listens, yet.
async fn free_address() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn what_is_acked_never_reaches_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let collector = collector();
    let (address, _server) = collector.serve("127.0.0.1:0").await;
    let mut rig = Rig::start(dir.path(), address);
    for t in 1..=20 {
        rig.tick(t).await;
    }
    collector.until("all ticks", |state| state.samples.len() == 60).await;
    check(&collector, 1..=20);
    assert!(collector.state().arrived.iter().all(|(lane, _)| *lane == Lane::Live));
    rig.stop().await;
    assert_eq!(std::fs::read_dir(dir.path().join("spool")).unwrap().count(), 0);
}

#[tokio::test]
async fn after_an_outage_the_newest_goes_first_and_nothing_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let address = free_address().await;
    let mut rig = Rig::start(dir.path(), address);
    for t in 1..=50 {
        rig.tick(t).await;
    }
    while rig.spooled() == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let collector = collector();
    let (_, _server) = collector.serve(&address.to_string()).await;
    for t in 51..=60 {
        rig.tick(t).await;
    }
    collector.until("all ticks", |state| state.samples.len() == 180).await;
    check(&collector, 1..=60);
    assert_eq!(collector.state().arrived.first().map(|(lane, _)| *lane), Some(Lane::Live));
    while rig.spooled() != 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    rig.stop().await;
}

/// Rule 15: on neither lane does an older collector get a column that it would step over.
#[tokio::test]
async fn an_older_collector_gets_the_nearest_doubles() {
    let dir = tempfile::tempdir().unwrap();
    let address = free_address().await;
    let mut rig = Rig::start(dir.path(), address);
    for t in 1..=20 {
        rig.tick(t).await;
    }
    rig.until_spooled(|frames| frames > 0).await;
    let collector = collector();
    collector.state().protocol = 1;
    let (_, _server) = collector.serve(&address.to_string()).await;
    // By the live lane goes what is read when the stream is there.
    let mut last = 20;
    let live = tokio::time::timeout(Duration::from_secs(10), async {
        while collector.state().arrived.iter().all(|(lane, _)| *lane != Lane::Live) {
            last += 1;
            rig.tick(last).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(live.await.is_ok(), "nothing by the live lane");
    collector.until("all ticks", |state| state.samples.len() == 3 * last as usize).await;
    let lanes: std::collections::HashSet<Lane> = collector.state().arrived.iter().map(|(lane, _)| *lane).collect();
    assert_eq!(lanes.len(), 2);
    for ((series, t), found) in &collector.state().samples {
        let n = series.trim_end_matches('}').rsplit('=').next().unwrap().parse().unwrap();
        assert_eq!(*found, Number::Float(value(*t, n).as_f64()));
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_stopped_agent_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let collector = collector();
    collector.state().silent = true;
    let (address, server) = collector.serve("127.0.0.1:0").await;
    let mut rig = Rig::start(dir.path(), address);
    for t in 1..=30 {
        rig.tick(t).await;
    }
    rig.stop().await;
    server.abort();
    // The first collector stored frames and never acked: what it has is of no account. A second one starts empty.
    let second = self::collector();
    let (address, _server) = second.serve("127.0.0.1:0").await;
    let mut rig = Rig::start(dir.path(), address);
    for t in 31..=35 {
        rig.tick(t).await;
    }
    second.until("all ticks", |state| state.samples.len() == 105).await;
    check(&second, 1..=35);
    rig.stop().await;
}

#[tokio::test]
async fn what_the_collector_has_is_not_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let collector = collector();
    collector.state().silent = true;
    let (address, _server) = collector.serve("127.0.0.1:0").await;
    let mut rig = Rig::start(dir.path(), address);
    for t in 1..=10 {
        rig.tick(t).await;
    }
    rig.stop().await;
    collector.state().silent = false;
    let mut rig = Rig::start(dir.path(), address);
    rig.tick(11).await;
    collector.until("all ticks", |state| state.samples.len() == 33).await;
    while rig.spooled() != 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    check(&collector, 1..=11);
    assert_eq!(collector.state().repeated, 0, "Welcome said what is durable");
    rig.stop().await;
}

#[tokio::test]
async fn a_wanted_key_frame_starts_the_lane_anew_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let collector = collector();
    let (address, _server) = collector.serve("127.0.0.1:0").await;
    let mut rig = Rig::start(dir.path(), address);
    for t in 1..=10 {
        rig.tick(t).await;
    }
    collector.until("first ticks", |state| state.samples.len() == 30).await;
    collector.state().want_key_frame = true;
    for t in 11..=30 {
        rig.tick(t).await;
    }
    collector.until("all ticks", |state| state.samples.len() == 90).await;
    check(&collector, 1..=30);
    rig.stop().await;
}

/// A frame that no collector can use made the stream flap for ever, and each time the good ones before it went up again.
#[tokio::test]
async fn a_segment_that_is_always_refused_is_set_aside_and_the_stream_stays() {
    let dir = tempfile::tempdir().unwrap();
    let address = free_address().await;
    let mut rig = Rig::start(dir.path(), address);
    for t in 1..=3 {
        rig.tick(t).await;
    }
    rig.until_spooled(|spooled| spooled > 0).await;
    rig.stop().await;
    let mut rig = Rig::start(dir.path(), address);
    let good = rig.spooled();
    rig.tick(4).await;
    rig.until_spooled(|spooled| spooled > good).await;
    rig.tick(5).await;
    rig.until_spooled(|spooled| spooled > good + 1).await;
    rig.stop().await;
    let next = Identity::open(dir.path()).unwrap().next_sequence();
    let collector = collector();
    collector.state().hopeless = Some(next - 1);
    let (_, _server) = collector.serve(&address.to_string()).await;
    let mut rig = Rig::start(dir.path(), address);
    rig.tick(6).await;
    rig.until_spooled(|spooled| spooled == 0).await;
    check(&collector, (1..=4).chain([6]));
    assert_eq!(collector.state().hellos.len(), 1, "only the lane begins anew");
    assert_eq!(rig.shared.spool.dropped_frames.load(std::sync::atomic::Ordering::Relaxed), 1);
    rig.stop().await;
    let left: Vec<_> =
        std::fs::read_dir(dir.path().join("spool")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.len() == 1 && left[0].extension().is_some_and(|extension| extension == "bad"), "{left:?}");
}

/// Key ticks of many large groups in one frame are more than the collector takes, and a key frame more of the same.
#[tokio::test]
async fn groups_that_are_too_large_for_one_frame_go_in_several() {
    let dir = tempfile::tempdir().unwrap();
    let collector = collector();
    let (address, _server) = collector.serve("127.0.0.1:0").await;
    let catalog = Arc::new(RwLock::new(Catalog::new()));
    let series = |n: usize| Arc::new(Series { desc: VALUE, labels: Box::new([n.to_string().into()]) });
    let each = super::FRAME_SERIES_MAX / 2;
    for group in ["a", "b", "c"] {
        let mut group = Group::new(group, "node", 100);
        group.series = (0..each).map(series).collect();
        catalog.write().unwrap().add(group);
    }
    let (disk, _commands, chunks) = SpoolDisk::hanging();
    let rig = Rig::on(Identity::open(dir.path()).unwrap(), address, catalog, (disk, chunks));
    for group in 0..3 {
        let changes = Changes { values: (0..each as u32).map(|n| (n, 1.5.into())).collect(), ended: Vec::new() };
        let sampled = Sampled { group, at_ms: 1, read: Instant::now(), new_series: Vec::new(), changes };
        rig.out.send(sampled).await.unwrap();
    }
    collector.until("all samples", |state| state.samples.len() == 3 * each).await;
    assert!(collector.state().arrived.len() >= 2);
    rig.task.abort();
}

/// A disk that hangs kept the agent from connecting at all.
#[tokio::test]
async fn a_spool_that_does_not_answer_does_not_keep_the_agent_away() {
    let dir = tempfile::tempdir().unwrap();
    let collector = collector();
    let (address, _server) = collector.serve("127.0.0.1:0").await;
    let (disk, commands, chunks) = SpoolDisk::hanging();
    let mut rig = Rig::on(Identity::open(dir.path()).unwrap(), address, Rig::catalog(), (disk, chunks));
    rig.tick(1).await;
    collector.until("the tick", |state| state.samples.len() == 3).await;
    assert!(commands.try_iter().any(|command| matches!(command, Command::Pending(_))), "it was asked");
    rig.task.abort();
}

#[tokio::test]
async fn a_closed_window_sends_the_rest_by_the_spool() {
    let dir = tempfile::tempdir().unwrap();
    let collector = collector();
    collector.state().window = 3;
    collector.state().silent = true;
    let (address, _server) = collector.serve("127.0.0.1:0").await;
    let mut rig = Rig::start(dir.path(), address);
    collector.until("a stream", |state| !state.hellos.is_empty()).await;
    for t in 1..=40 {
        rig.tick(t).await;
        tokio::task::yield_now().await;
    }
    while rig.spooled() == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    collector.state().silent = false;
    for t in 41..=45 {
        rig.tick(t).await;
    }
    rig.stop().await;
    let mut rig = Rig::start(dir.path(), address);
    rig.tick(46).await;
    collector.until("all ticks", |state| state.samples.len() == 138).await;
    check(&collector, 1..=46);
    rig.stop().await;
}
