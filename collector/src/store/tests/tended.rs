//! What the store's thread does by itself with what is sealed: what goes wrong for one group, and what is done for nothing.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use super::journal::{Memory, Trouble};
use super::*;
use crate::store::block::{Address, COLUMNS_MAX, SealedRun};
use crate::store::datadir::DataDir;
use crate::store::job::Pace;
use crate::store::thin::thin;

const WITHIN: Duration = Duration::from_secs(20);
const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

/// A store on an engine in memory, with a clock that the test sets.
struct Tended {
    store: Arc<Store>,
    engine: Arc<Memory>,
    clock: Arc<AtomicI64>,
    _dir: tempfile::TempDir,
}

impl Tended {
    fn new(tiers: [Option<Duration>; 2]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = Arc::new(Memory::new(Default::default(), None));
        let clock = Arc::new(AtomicI64::new(NOW_MS));
        let store = Self::open(dir.path(), &engine, &clock, tiers);
        Self { store, engine, clock, _dir: dir }
    }

    fn open(dir: &Path, engine: &Arc<Memory>, clock: &Arc<AtomicI64>, tiers: [Option<Duration>; 2]) -> Arc<Store> {
        let told = clock.clone();
        let clock = Clock::new(move || told.load(Ordering::SeqCst));
        let options = Options { clock, tiers, ..options(dir) };
        let dir = Arc::new(DataDir::open(dir, 0).unwrap());
        Store::open_on(options, Arc::new(RealDisk), engine.clone(), dir, |_| {}).unwrap()
    }

    /// Ticks of one group and series, 10 ms apart.
    fn write(&self, agent: u8, from_ms: i64, ticks: i64) {
        let group = group(&self.store, agent, "host.cpu", WriteMode::Delta);
        let slots = series(&self.store, group, &[&name(agent)]);
        for at_ms in (0..ticks).map(|at| from_ms + at * 10) {
            let value = 1.0 / (at_ms - NOW_MS + 3) as f64;
            let ticks = vec![tick(group, at_ms, false, &[(slots[0], value)])];
            self.store.append(&Batch { frame: None, ticks }).unwrap();
        }
    }

    fn tend(&self) {
        assert!(self.store.seal(WITHIN) && self.store.tend(WITHIN));
    }

    fn wait_until(&self, at_ms: i64) {
        self.clock.store(at_ms, Ordering::SeqCst);
    }

    fn runs(&self, agent: u8, tier: Option<usize>) -> Vec<Arc<SealedRun>> {
        let groups = self.store.core.groups.read();
        let state = groups.all[usize::from(agent) - 1].state.lock();
        state.sealed_of(tier).to_vec()
    }

    fn samples(&self, agent: u8) -> Vec<(i64, u64)> {
        range(&self.store, &name(agent), i64::MIN, i64::MAX)
    }
}

fn name(agent: u8) -> String {
    format!("of{agent}")
}

const KEPT: [Option<Duration>; 2] = [Some(Duration::ZERO); 2];

#[test]
fn a_bad_place_of_the_disk_costs_no_other_group_its_folding() {
    let tended = Tended::new([None; 2]);
    for round in 0..5 {
        for agent in 1..=3 {
            tended.write(agent, NOW_MS + round * MINUTE_MS, 100);
            // One by one, so that no two groups share a value.
            assert!(tended.store.seal(WITHIN));
        }
    }
    let before: Vec<_> = (1..=3).map(|agent| tended.samples(agent)).collect();
    let bad = tended.runs(2, None)[2].parts[0];
    tended.engine.tell(Trouble::Unreadable(bad.partition, bad.number));
    assert!(tended.store.compact(WITHIN));
    tended.engine.tell(Trouble::None);
    let runs = |agent: u8| tended.runs(agent, None).len();
    assert_eq!((runs(1), runs(2), runs(3)), (1, 3, 1));
    assert_eq!((1..=3).map(|agent| tended.samples(agent)).collect::<Vec<_>>(), before);
}

#[test]
fn a_bad_place_of_the_disk_costs_no_other_group_its_windows() {
    let tended = Tended::new(KEPT);
    (1..=3).for_each(|agent| tended.write(agent, NOW_MS, 1500));
    assert!(tended.store.seal(WITHIN));
    let Address { partition, number, .. } = tended.runs(2, None)[0].parts[0];
    tended.engine.tell(Trouble::Unreadable(partition, number));
    tended.wait_until(NOW_MS + 3 * HOUR_MS);
    tended.tend();
    let windows = |agent: u8| tended.runs(agent, Some(0)).len();
    assert_eq!((windows(1), windows(2), windows(3)), (1, 0, 1));
    tended.engine.tell(Trouble::None);
    // With the next partition it is tried again.
    tended.write(1, NOW_MS + 3 * HOUR_MS, 1);
    assert!(tended.store.seal(WITHIN));
    tended.wait_until(NOW_MS + 6 * HOUR_MS);
    tended.tend();
    assert_eq!((windows(2), windows(3)), (1, 1));
}

#[test]
fn the_cuts_of_a_wide_group_are_folded_into_as_few() {
    let tended = Tended::new([None; 2]);
    let group = group(&tended.store, 1, "host.cpu", WriteMode::Delta);
    let names: Vec<String> = (0..COLUMNS_MAX + 100).map(|number| format!("m{number:05}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let slots = series(&tended.store, group, &names);
    for round in 0..3 {
        for at in 0..4 {
            let number = round * 4 + at;
            let value = |slot: &Slot| (*slot, f64::from(slot.0) + number as f64);
            let values: Vec<(Slot, f64)> = slots.iter().map(value).collect();
            let ticks = vec![tick(group, NOW_MS + number * 1000, at == 0, &values)];
            tended.store.append(&Batch { frame: None, ticks }).unwrap();
        }
        assert!(tended.store.seal(WITHIN));
    }
    assert_eq!(tended.runs(1, None).len(), 6);
    let of = |name: &str| range(&tended.store, name, i64::MIN, i64::MAX);
    let all = || names.iter().step_by(1000).chain(names.last()).map(|name| of(name)).collect::<Vec<_>>();
    let before = all();
    assert!(before.iter().all(|samples| samples.len() == 12));
    assert!(tended.store.compact(WITHIN));
    assert_eq!(tended.runs(1, None).len(), 2);
    assert_eq!(all(), before);
}

#[test]
fn what_an_idle_group_had_is_not_built_again_when_it_is_folded_with_others() {
    let tended = Tended::new(KEPT);
    tended.write(1, NOW_MS, 1500);
    for hours in 0..24 {
        tended.wait_until(NOW_MS + hours * HOUR_MS);
        tended.write(2, NOW_MS + hours * HOUR_MS, 10);
        tended.tend();
    }
    let folded = tended.runs(1, None)[0].head.partition;
    assert!(folded > (NOW_MS / 1000) as u32 + 4 * 3600, "it was folded: {folded}");
    for tier in [0, 1] {
        let runs = tended.runs(1, Some(tier));
        assert!(runs.len() == 1 && runs[0].live, "{runs:?}");
    }
}

#[test]
fn building_a_tier_ends_soon_when_the_store_closes() {
    let tended = Tended::new(KEPT);
    // Each day is a span of windows by itself.
    for day in 0..30 {
        tended.write(1, NOW_MS + day * 24 * HOUR_MS, 1500);
        assert!(tended.store.seal(WITHIN));
    }
    tended.wait_until(NOW_MS + 31 * 24 * HOUR_MS);
    let current = (NOW_MS / 1000) as u32 + 31 * 24 * 3600;
    let reads = |stop: bool| {
        let before = tended.engine.reads();
        let pace = Pace::stopped_by(Arc::new(AtomicBool::new(stop)));
        let places = [Some((100_000_000, 0)), None];
        let built = thin(&tended.store.core, &*tended.engine, current, places, &pace);
        (built.is_ok(), tended.engine.reads() - before)
    };
    let (is_built, all) = reads(false);
    assert!(is_built && all >= 30, "{all}");
    assert_eq!(reads(true), (false, 0));
}
