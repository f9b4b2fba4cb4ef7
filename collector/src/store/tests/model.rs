//! Random operations on the store and on a plain map; what is selected must be the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};

use proptest::prelude::*;

use super::*;

const DELTA: [&str; 4] = ["d0", "d1", "d2", "d3"];
const STATED: [&str; 3] = ["s0", "s1", "s2"];
const RETENTION_MS: i64 = 60_000;

#[derive(Debug, Clone)]
enum Op {
    /// A live tick, so much later: per series nothing new, a value, or its end.
    Live {
        step_ms: i64,
        key: bool,
        values: Vec<Option<Option<i8>>>,
    },
    /// Ticks that come late, so long ago.
    Backfill {
        ago_ms: i64,
        ticks: Vec<Vec<Option<Option<i8>>>>,
    },
    /// The next tick of what comes late.
    FillOn {
        changes: Vec<Option<Option<i8>>>,
    },
    /// A live tick that is not newer than the last one, so long ago.
    Behind {
        ago_ms: i64,
        changes: Vec<Option<Option<i8>>>,
    },
    Stated {
        ago_ms: i64,
        values: Vec<Option<i8>>,
    },
    /// The last frame once more, with other values.
    Again,
    Silence {
        after_ms: i64,
    },
    Flush,
    Seal,
    Compact,
    Advance {
        ms: i64,
    },
    Crash,
    Reopen,
}

fn change() -> impl Strategy<Value = Option<Option<i8>>> {
    prop_oneof![3 => Just(None), 4 => (0i8..4).prop_map(|value| Some(Some(value))), 1 => Just(Some(None))]
}

fn op() -> impl Strategy<Value = Op> {
    let changes = || prop::collection::vec(change(), DELTA.len());
    prop_oneof![
        8 => (1i64..3000, prop::bool::weighted(0.2), changes())
            .prop_map(|(step_ms, key, values)| Op::Live { step_ms, key, values }),
        2 => (1i64..20_000, prop::collection::vec(changes(), 1..4))
            .prop_map(|(ago_ms, ticks)| Op::Backfill { ago_ms, ticks }),
        4 => changes().prop_map(|changes| Op::FillOn { changes }),
        2 => (0i64..3000, changes()).prop_map(|(ago_ms, changes)| Op::Behind { ago_ms, changes }),
        6 => (-500i64..8, prop::collection::vec(prop::option::of(-1i8..3), STATED.len()))
            .prop_map(|(ago, values)| Op::Stated { ago_ms: if ago < 0 { 0 } else { ago * 1000 }, values }),
        1 => Just(Op::Again),
        2 => (1i64..5000).prop_map(|after_ms| Op::Silence { after_ms }),
        2 => Just(Op::Flush),
        2 => Just(Op::Seal),
        2 => Just(Op::Compact),
        1 => prop_oneof![3 => 1i64..20_000, 1 => Just(3 * 3_600_000)].prop_map(|ms| Op::Advance { ms }),
        1 => Just(Op::Crash),
        1 => Just(Op::Reopen),
    ]
}

#[derive(Debug, Clone, Default)]
struct Model {
    samples: BTreeMap<(String, i64), u64>,
    present: BTreeMap<usize, u64>,
    /// Present at the newest tick, which may not be the last one that came.
    newest: BTreeMap<usize, u64>,
    /// The last live tick was not the newest one, and is not sealed: a restart brings back what was present then.
    apart: bool,
    /// What comes late goes on after this time, with this present.
    filling: Option<(i64, BTreeMap<usize, u64>)>,
    ticks: BTreeSet<i64>,
    marks: Vec<(i64, i64)>,
    last_ms: Option<i64>,
    sequences: u64,
}

impl Model {
    fn delta_tick(&mut self, at_ms: i64, present: &mut BTreeMap<usize, u64>, key: bool, values: &[(usize, f64)]) {
        let stale = lampad_proto::STALE_BITS;
        let mut ended: Vec<usize> = Vec::new();
        if key {
            ended.extend(present.keys().filter(|series| !values.iter().any(|(listed, _)| listed == *series)));
        }
        for (series, value) in values {
            match lampad_proto::is_stale(*value) {
                true => ended.extend(present.contains_key(series).then_some(*series)),
                false => {
                    present.insert(*series, value.to_bits());
                }
            }
        }
        ended.iter().for_each(|series| _ = present.remove(series));
        let now = present.iter().map(|(series, bits)| (*series, *bits));
        for (series, bits) in now.chain(ended.iter().map(|series| (*series, stale))) {
            self.samples.entry((DELTA[series].to_owned(), at_ms)).or_insert(bits);
        }
        self.ticks.insert(at_ms);
    }

    fn select(&self, name: &str, from_ms: i64, to_ms: i64, oldest_ms: i64) -> Vec<(i64, u64)> {
        let mut found: BTreeMap<i64, u64> = BTreeMap::new();
        let from_ms = from_ms.max(oldest_ms);
        found.extend(self.samples.iter().filter(|((of, _), _)| of == name).map(|((_, at_ms), bits)| (*at_ms, *bits)));
        let is_delta = DELTA.contains(&name);
        for (after_ms, at_ms) in self.marks.iter().filter(|_| is_delta) {
            let there = self.samples.get(&(name.to_owned(), *after_ms));
            let silent = self.ticks.range(after_ms + 1..=*at_ms).next().is_none() && *after_ms >= oldest_ms;
            if silent && there.is_some_and(|bits| *bits != lampad_proto::STALE_BITS) {
                found.entry(*at_ms).or_insert(lampad_proto::STALE_BITS);
            }
        }
        found.into_iter().filter(|(at_ms, _)| (from_ms..=to_ms).contains(at_ms)).collect()
    }
}

struct Bench {
    clock: Arc<AtomicI64>,
    store: Arc<Store>,
    delta: GroupId,
    stated: GroupId,
    delta_slots: Vec<Slot>,
    stated_slots: Vec<Slot>,
    key_next: bool,
    model: Model,
    durable: Model,
    tiers: bool,
    /// Last, so that the store is closed before its directory goes.
    dir: tempfile::TempDir,
}

impl Bench {
    fn new(tiers: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(AtomicI64::new(NOW_MS));
        let store = Self::open(&dir, &clock, tiers);
        let mut run = Self {
            tiers,
            dir,
            clock,
            store,
            delta: GroupId(0),
            stated: GroupId(0),
            delta_slots: Vec::new(),
            stated_slots: Vec::new(),
            key_next: true,
            model: Model::default(),
            durable: Model::default(),
        };
        run.define();
        run
    }

    fn open(dir: &tempfile::TempDir, clock: &Arc<AtomicI64>, tiers: bool) -> Arc<Store> {
        let clock = clock.clone();
        let options = Options {
            retention: Duration::from_millis(RETENTION_MS as u64),
            tiers: [tiers.then_some(Duration::ZERO); 2],
            // Nothing becomes durable unless an operation says so.
            commit_delay: Duration::from_secs(3600),
            clock: Clock::new(move || clock.load(Ordering::SeqCst)),
            ..options(dir.path())
        };
        Store::open(options, Arc::new(RealDisk)).unwrap()
    }

    fn define(&mut self) {
        self.delta = group(&self.store, 1, "delta", WriteMode::Delta);
        self.stated = group(&self.store, 0, "stated", WriteMode::Stated);
        self.delta_slots = series(&self.store, self.delta, &DELTA);
        self.stated_slots = series(&self.store, self.stated, &STATED);
    }

    fn now(&self) -> i64 {
        self.clock.load(Ordering::SeqCst)
    }

    fn oldest(&self) -> i64 {
        self.now() - RETENTION_MS
    }

    fn append(&mut self, ticks: Vec<TickBatch>) {
        self.model.sequences += 1;
        let appended = self.store.append(&frame(self.model.sequences, ticks)).unwrap();
        assert!(!appended.duplicate);
    }

    /// A tick that says changes only. Where the store has forgotten what it builds on, it asks for all that is present; what
    /// ended just then has no end of its own.
    fn go_on(&mut self, at_ms: i64, run: Run, present: &mut BTreeMap<usize, u64>, changes: &[Option<Option<i8>>]) {
        let values = self.values(changes);
        let before = present.clone();
        self.model.delta_tick(at_ms, present, false, &values);
        self.model.sequences += 1;
        let sequence = self.model.sequences;
        let appended = self.store.append(&frame(sequence, vec![self.delta_tick(at_ms, false, run, &values)]));
        if let Err(AppendError::NeedsKey(_)) = appended {
            for series in before.into_keys().filter(|series| !present.contains_key(series)) {
                self.model.samples.remove(&(DELTA[series].to_owned(), at_ms));
            }
            let listed: Vec<(usize, f64)> = present.iter().map(|(at, bits)| (*at, f64::from_bits(*bits))).collect();
            self.store.append(&frame(sequence, vec![self.delta_tick(at_ms, true, run, &listed)])).unwrap();
        } else {
            assert!(!appended.unwrap().duplicate);
        }
    }

    fn values(&self, changes: &[Option<Option<i8>>]) -> Vec<(usize, f64)> {
        let value = |change: &Option<i8>| change.map_or(lampad_proto::stale(), f64::from);
        changes.iter().enumerate().filter_map(|(at, change)| Some((at, value(change.as_ref()?)))).collect()
    }

    fn delta_tick(&self, at_ms: i64, key: bool, run: Run, values: &[(usize, f64)]) -> TickBatch {
        let values: Vec<(Slot, f64)> = values.iter().map(|(at, value)| (self.delta_slots[*at], *value)).collect();
        let mut tick = tick(self.delta, at_ms, key, &values);
        tick.values.sort_by_key(|(slot, _)| *slot);
        TickBatch { run, ..tick }
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Live { step_ms, key, values } => {
                let at_ms = self.clock.fetch_add(*step_ms, Ordering::SeqCst) + step_ms;
                let key = *key || std::mem::take(&mut self.key_next);
                let mut values = self.values(values);
                if key {
                    values.retain(|(_, value)| !lampad_proto::is_stale(*value));
                }
                self.append(vec![self.delta_tick(at_ms, key, Run::Live, &values)]);
                let mut present = std::mem::take(&mut self.model.present);
                let newest = std::mem::take(&mut self.model.newest);
                self.model.delta_tick(at_ms, &mut present, key, &values);
                // What the newest tick had and this one has not ends here, though it may have ended in between.
                for series in newest.into_keys().filter(|series| !present.contains_key(series)) {
                    let sample = (DELTA[series].to_owned(), at_ms);
                    self.model.samples.entry(sample).or_insert(lampad_proto::STALE_BITS);
                }
                self.model.newest = present.clone();
                self.model.present = present;
                self.model.last_ms = Some(at_ms);
                self.model.apart = false;
            }
            Op::Backfill { ago_ms, ticks } => {
                // A time that no live tick has, so that only the order of late ticks decides between two.
                let Some(last_ms) = self.model.last_ms else { return };
                let from_ms = last_ms - ago_ms - ticks.len() as i64;
                if from_ms < self.oldest() {
                    return;
                }
                let mut present = BTreeMap::new();
                let mut batch = Vec::new();
                for (at, changes) in ticks.iter().enumerate() {
                    let mut values = self.values(changes);
                    if at == 0 {
                        values.retain(|(_, value)| !lampad_proto::is_stale(*value));
                    }
                    let at_ms = from_ms + at as i64;
                    batch.push(self.delta_tick(at_ms, at == 0, Run::Backfill, &values));
                    self.model.delta_tick(at_ms, &mut present, at == 0, &values);
                }
                self.model.filling = Some((from_ms + ticks.len() as i64 - 1, present));
                self.append(batch);
            }
            Op::FillOn { changes } => {
                let Some((last_ms, mut present)) = self.model.filling.take() else { return };
                let at_ms = last_ms + 1;
                if at_ms < self.oldest() || self.model.ticks.contains(&at_ms) {
                    return;
                }
                self.go_on(at_ms, Run::Backfill, &mut present, changes);
                self.model.filling = Some((at_ms, present));
            }
            Op::Behind { ago_ms, changes } => {
                let Some(at_ms) = self.model.last_ms.map(|last_ms| last_ms - ago_ms) else { return };
                if self.key_next || at_ms < self.oldest() || self.model.ticks.contains(&at_ms) {
                    return;
                }
                let mut present = std::mem::take(&mut self.model.present);
                self.go_on(at_ms, Run::Live, &mut present, changes);
                self.model.present = present;
                self.model.apart = true;
            }
            Op::Stated { ago_ms, values } => {
                let at_ms = self.now() - ago_ms;
                let value = |value: i8| if value < 0 { lampad_proto::stale() } else { f64::from(value) };
                let values = values.iter().zip(&self.stated_slots).zip(STATED);
                let values: Vec<(Slot, &str, f64)> =
                    values.filter_map(|((v, slot), name)| Some((*slot, name, value((*v)?)))).collect();
                let mut tick = tick(self.stated, at_ms, false, &[]);
                tick.values = values.iter().map(|(slot, _, value)| (*slot, Value::Float(*value))).collect();
                tick.values.sort_by_key(|(slot, _)| *slot);
                self.store.append(&Batch { frame: None, ticks: vec![tick] }).unwrap();
                for (_, name, value) in values {
                    self.model.samples.entry((name.to_owned(), at_ms)).or_insert(value.to_bits());
                }
            }
            Op::Again => {
                let tick = self.delta_tick(self.now() + 1, true, Run::Live, &[(0, 99.0)]);
                if self.model.sequences > 0 {
                    assert!(self.store.append(&frame(self.model.sequences, vec![tick])).unwrap().duplicate);
                }
            }
            Op::Silence { after_ms } => {
                let Some(last_ms) = self.model.last_ms else { return };
                self.store.silence(agent(1), last_ms + after_ms);
                if self.model.marks.iter().all(|(after, _)| *after != last_ms) {
                    self.model.marks.push((last_ms, last_ms + after_ms));
                }
            }
            Op::Flush => {
                assert!(self.store.flush(Duration::from_secs(20)));
                self.durable = self.model.clone();
            }
            Op::Seal | Op::Compact => {
                let within = Duration::from_secs(20);
                assert!(if matches!(op, Op::Seal) { self.store.seal(within) } else { self.store.compact(within) });
                self.forget();
                self.model.apart = false;
                self.durable = self.model.clone();
                self.define();
                if self.tiers && matches!(op, Op::Compact) {
                    self.check_tiers();
                }
            }
            Op::Advance { ms } => {
                self.clock.fetch_add(*ms, Ordering::SeqCst);
            }
            Op::Crash => {
                self.store.crash();
                self.model = self.durable.clone();
                self.restart();
            }
            Op::Reopen => {
                self.store.shutdown();
                self.forget();
                self.model.apart = false;
                self.restart();
            }
        }
    }

    /// With its last sample beyond the retention a series need not be ended any more.
    fn forget(&mut self) {
        if self.model.last_ms.is_some_and(|last_ms| last_ms < self.oldest()) {
            self.model.present.clear();
            self.model.newest.clear();
        }
    }

    fn restart(&mut self) {
        // The old one must let go of the directory first.
        let aside = tempfile::tempdir().unwrap();
        self.store = Store::open(options(aside.path()), Arc::new(RealDisk)).unwrap();
        self.store = Self::open(&self.dir, &self.clock, self.tiers);
        assert_eq!(self.store.stats().damaged, 0);
        if !self.model.apart {
            self.model.present = self.model.newest.clone();
        }
        self.model.filling = None;
        self.define();
        let sequences: Vec<(u64, u64)> = self.store.stored(agent(1), 7).ranges().collect();
        let wanted = (self.model.sequences > 0).then_some((1, self.model.sequences));
        assert_eq!(sequences, wanted.into_iter().collect::<Vec<_>>());
        self.durable = self.model.clone();
    }

    /// Whatever has become of raw samples: what is old enough to be complete is in the tiers.
    fn check_tiers(&self) {
        const AHEAD_MS: i64 = 10 * 60 * 1000;
        for width_ms in [10_000, 300_000] {
            let until_ms = (self.now() - AHEAD_MS) / width_ms * width_ms;
            for name in DELTA.iter().chain(&STATED) {
                let mut wanted: BTreeMap<i64, Vec<(i64, f64)>> = BTreeMap::new();
                for ((_, at_ms), bits) in self.model.samples.iter().filter(|((of, _), _)| of == name) {
                    let end_ms = (at_ms - 1).div_euclid(width_ms) * width_ms + width_ms;
                    if *bits != lampad_proto::STALE_BITS && end_ms <= until_ms {
                        wanted.entry(end_ms).or_default().push((*at_ms, f64::from_bits(*bits)));
                    }
                }
                let time = ((NOW_MS - 86_400_000) / width_ms * width_ms, until_ms);
                let found = self.store.select_windows(&[named(name)], width_ms, time, &budget()).unwrap();
                let found: Vec<&Window> = found.iter().flat_map(|series| &series.windows).collect();
                assert!(found.len() == wanted.len(), "{name}: {found:?}, wanted {wanted:?}");
                for (found, samples) in found.into_iter().zip(wanted.values()) {
                    let values = || samples.iter().map(|(_, value)| *value);
                    let decreases = samples.windows(2).filter(|pair| pair[1].1 < pair[0].1);
                    let wanted = Window {
                        first_ms: samples[0].0,
                        last_ms: samples[samples.len() - 1].0,
                        count: samples.len() as u64,
                        first: samples[0].1,
                        last: samples[samples.len() - 1].1,
                        sum: values().sum(),
                        min: values().fold(f64::INFINITY, f64::min),
                        max: values().fold(f64::NEG_INFINITY, f64::max),
                        resets: decreases.map(|pair| pair[0].1).sum(),
                    };
                    assert_eq!(*found, wanted, "{name} by {width_ms} ms");
                }
            }
        }
    }

    fn check(&self, (from, length): (i64, i64)) {
        assert_eq!(self.store.stats().damaged, 0);
        let oldest_ms = self.oldest();
        let near = (self.now() - from, self.now() - from + length);
        for name in DELTA.iter().chain(&STATED) {
            for (from_ms, to_ms) in [(i64::MIN, i64::MAX), near] {
                let wanted = self.model.select(name, from_ms, to_ms, oldest_ms);
                let found = range(&self.store, name, from_ms, to_ms);
                assert_eq!(found, wanted, "{name} from {from_ms} to {to_ms}");
                assert_eq!(last(&self.store, name, from_ms, to_ms), wanted.last().copied(), "last of {name}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    /// On failure proptest prints the shortest list of operations that fails.
    #[test]
    fn the_store_agrees_with_a_map(tiers: bool, ops in prop::collection::vec((op(), (0i64..70_000, 0i64..10_000)), 1..60)) {
        let mut run = Bench::new(tiers);
        for (op, near) in &ops {
            run.apply(op);
            run.check(*near);
        }
        run.apply(&Op::Reopen);
        run.check((10_000, 5_000));
    }
}

/// `LAMPAD_MODEL_CASES=5000` for a long run.
fn cases() -> u32 {
    std::env::var("LAMPAD_MODEL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(24)
}
