use std::collections::VecDeque;

use async_trait::async_trait;

use super::*;
use crate::module::{Desc, Module, Tier};

const GAUGE: Desc = Desc::gauge("g", "G.");

/// What the next read does.
enum Read {
    Gives(f64),
    Fails,
    Takes(Duration),
    Hangs,
    Panics,
}

struct Scripted(VecDeque<Read>);

#[async_trait]
impl Module for Scripted {
    fn descs(&self) -> Vec<Desc> {
        vec![GAUGE]
    }

    async fn sample(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        match self.0.pop_front() {
            Some(Read::Gives(value)) => out.push(&GAUGE, &[], value),
            Some(Read::Fails) => return Err(ModuleError::Absent { what: "it".to_owned() }),
            Some(Read::Takes(long)) => {
                tokio::time::sleep(long).await;
                out.push(&GAUGE, &[], 7.0);
            }
            Some(Read::Hangs) => std::future::pending().await,
            Some(Read::Panics) => {
                out.push(&GAUGE, &[], 666.0);
                panic!("one bug")
            }
            None => {}
        }
        Ok(())
    }
}

struct Rig {
    clock: Arc<Clock>,
    out: mpsc::Sender<Sampled>,
    samples: mpsc::Receiver<Sampled>,
    stop: CancellationToken,
}

impl Rig {
    fn new() -> Self {
        Self::ahead(Arc::default())
    }

    /// With a wall clock that is so many milliseconds ahead of the one that ticks.
    fn ahead(ahead_ms: Arc<AtomicU64>) -> Self {
        let (out, samples) = mpsc::channel(SAMPLES_MAX);
        let started = Instant::now();
        let wall = move || started.elapsed().as_millis() as i64 + ahead_ms.load(Ordering::Relaxed) as i64;
        let clock = Arc::new(Clock::new(Box::new(move || 1_000_000 + wall())));
        Self { clock, out, samples, stop: CancellationToken::new() }
    }

    fn start(&self, group: u32, script: impl IntoIterator<Item = Read>) -> Arc<ModuleHealth> {
        let spec = Spec::new("test.scripted", "", "node", Tier::Standard);
        let health = Arc::new(ModuleHealth::new(spec.clone(), Schedule::of(Tier::Standard)));
        let module = Box::new(Scripted(script.into_iter().collect()));
        let sampler = Sampler::new(
            Entry { spec, module },
            group,
            health.clone(),
            self.clock.clone(),
            self.out.clone(),
            Arc::default(),
            Remains::default(),
        );
        tokio::spawn(sampler.run(0, self.stop.clone()));
        health
    }
}

#[tokio::test(start_paused = true)]
async fn a_hung_module_stops_no_other_one() {
    let mut rig = Rig::new();
    let hung = rig.start(0, (0..100).map(|_| Read::Hangs));
    rig.start(1, (0..100).map(|n| Read::Gives(f64::from(n))));
    for n in 0..10 {
        let sampled = rig.samples.recv().await.unwrap();
        assert_eq!(sampled.group, 1);
        assert_eq!(sampled.changes.values, vec![(0, f64::from(n).into())]);
    }
    assert!(!hung.up.load(Ordering::Relaxed));
    assert!(hung.error().contains("deadline"), "{}", hung.error());
    assert!(hung.errors.load(Ordering::Relaxed) >= 4);
}

#[tokio::test(start_paused = true)]
async fn a_module_that_panics_fails_and_is_read_again() {
    let mut rig = Rig::new();
    let health = rig.start(0, [Read::Gives(1.0), Read::Panics, Read::Gives(2.0)]);
    assert_eq!(rig.samples.recv().await.unwrap().changes.values, vec![(0, 1.0.into())]);
    let told = async {
        while health.error().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        (health.is_up(), health.error())
    };
    let (up, error) = told.await;
    assert!(!up && error.contains("one bug"), "{error}");
    assert_eq!(rig.samples.recv().await.unwrap().changes.values, vec![(0, 2.0.into())]);
    assert!(health.is_up());
}

#[tokio::test(start_paused = true)]
async fn a_read_that_nothing_can_end_is_told_as_down() {
    let spec = Spec::new("test.blocked", "", "node", Tier::Standard);
    let health = ModuleHealth::new(spec, Schedule::of(Tier::Standard));
    health.up.store(true, Ordering::Relaxed);
    health.begin();
    assert!(health.is_up());
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(!health.is_up() && health.error().contains("60 s"), "{}", health.error());
    health.end();
    assert!(health.is_up());
}

#[tokio::test(start_paused = true)]
async fn ticks_ascend_by_the_interval() {
    let mut rig = Rig::new();
    rig.start(0, (0..100).map(|n| Read::Gives(f64::from(n))));
    let mut last = rig.samples.recv().await.unwrap().at_ms;
    for _ in 0..20 {
        let at = rig.samples.recv().await.unwrap().at_ms;
        assert_eq!(at - last, 1000);
        last = at;
    }
}

/// Two ticks of one time are a frame that no collector takes.
#[tokio::test(start_paused = true)]
async fn a_late_tick_that_comes_to_the_moment_of_the_next_stands_for_both() {
    let ahead_ms = Arc::new(AtomicU64::new(0));
    let mut rig = Rig::ahead(ahead_ms.clone());
    let late = Read::Takes(Duration::from_millis(1997));
    let health = rig.start(
        0,
        [Read::Gives(0.0), Read::Gives(1.0), late].into_iter().chain((2..9).map(|n| Read::Gives(f64::from(n)))),
    );
    health.set_schedule(Schedule { deadline: Duration::from_secs(5), ..Schedule::of(Tier::Standard) });
    let mut times = vec![rig.samples.recv().await.unwrap().at_ms, rig.samples.recv().await.unwrap().at_ms];
    // The wall clock is set by so little that ours follows within a tick.
    ahead_ms.store(3, Ordering::Relaxed);
    for _ in 0..5 {
        times.push(rig.samples.recv().await.unwrap().at_ms);
    }
    assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
    assert!(health.skipped.load(Ordering::Relaxed) >= 2);
}

#[tokio::test(start_paused = true)]
async fn a_single_failure_leaves_a_gap_and_nothing_else() {
    let mut rig = Rig::new();
    rig.start(0, [Read::Gives(1.0), Read::Fails, Read::Gives(1.0)]);
    let first = rig.samples.recv().await.unwrap();
    let second = rig.samples.recv().await.unwrap();
    assert_eq!(second.at_ms - first.at_ms, 2000);
    assert_eq!(second.changes, Changes::default());
}

#[tokio::test(start_paused = true)]
async fn lasting_failure_ends_the_series_at_the_first_one() {
    let mut rig = Rig::new();
    let health = rig.start(0, [Read::Gives(1.0), Read::Fails, Read::Fails, Read::Fails, Read::Fails, Read::Gives(1.0)]);
    let first = rig.samples.recv().await.unwrap();
    let ended = rig.samples.recv().await.unwrap();
    assert_eq!((ended.at_ms - first.at_ms, ended.changes.ended), (1000, vec![0]));
    assert!(!health.up.load(Ordering::Relaxed));
    let again = rig.samples.recv().await.unwrap();
    assert_eq!((again.at_ms - first.at_ms, again.changes.values), (5000, vec![(0, 1.0.into())]));
    assert_eq!(health.error(), "");
    assert_eq!(health.errors.load(Ordering::Relaxed), 0, "a source that is not here is no error");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_loses_ticks_but_no_change() {
    let mut rig = Rig::new();
    let reads = SAMPLES_MAX as u32 + 200;
    rig.start(0, (0..reads).map(|n| Read::Gives(f64::from(n))));
    tokio::time::sleep(Duration::from_secs(u64::from(reads))).await;
    let mut known = None;
    for _ in 0..SAMPLES_MAX + 2 {
        let sampled = rig.samples.recv().await.unwrap();
        assert_ne!(sampled.changes.values, vec![]);
        known = sampled.changes.values.last().copied().or(known);
    }
    assert_eq!(known.map(|(_, value)| value.as_f64() as usize), Some(SAMPLES_MAX + 1));
}

#[test]
fn one_trouble_of_many_modules_is_said_once() {
    let told = Told::default();
    assert!(told.begin("server is gone"));
    assert!(!told.begin("server is gone"));
    assert!(told.begin("another"));
    assert!(!told.end("server is gone"));
    assert!(told.end("server is gone"));
    assert!(told.begin("server is gone"), "said again when it comes again");
}
