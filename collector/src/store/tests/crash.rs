//! The store after a crash at every moment of its life, with the disk's cache lost as it may be.
//!
//! Every value is a function of (agent, series, tick), so that each sample found tells whether it belongs there. Of what was
//! acked all must be there; of what was not, nothing that nobody sent; and a frame that the store says it has must be whole.

use std::collections::BTreeMap;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::journal::{Journal, Memory, Op, Trouble, crash_before};
use super::*;
use crate::store::datadir::DataDir;

/// The last one states every sample.
const AGENTS: u8 = 4;
const SERIES: [&str; 4] = ["a", "b", "c", "d"];

/// Ticks of one agent, with what was said of each.
#[derive(Debug)]
struct Sent {
    /// Per sequence: its place in the log.
    lsns: BTreeMap<u64, u64>,
    /// The sequence of the next frame, and those that come late.
    next: u64,
    skipped: Vec<u64>,
    /// The next tick lists all.
    key: bool,
}

impl Default for Sent {
    fn default() -> Self {
        Self { lsns: BTreeMap::new(), next: 1, skipped: Vec::new(), key: false }
    }
}

fn value(agent: u8, series: usize, sequence: u64) -> f64 {
    // Changes at every second tick, so that half of what is there was never said again.
    (u64::from(agent) * 1_000_000 + series as u64 * 100_000 + sequence / 2) as f64
}

fn at_ms(sequence: u64) -> i64 {
    NOW_MS - 100_000 + sequence as i64 * 100
}

fn name(agent: u8, series: usize) -> String {
    format!("{}{agent}", SERIES[series])
}

fn open_on(dir: &Path, disk: Arc<dyn Disk>, engine: Arc<Memory>) -> Result<Arc<Store>, OpenError> {
    let locked = Arc::new(DataDir::open(dir, 0)?);
    Store::open_on(options(dir), disk, engine, locked, |_| {})
}

struct Life {
    ops: Vec<(Op, u64)>,
    sent: BTreeMap<u8, Sent>,
}

/// A store that takes frames, some of them late, flushes, seals and compacts at random, and ends in the middle of it.
fn live(seed: u64, steps: u32, failing: u32) -> Life {
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::new(dir.path());
    let engine = Arc::new(Memory::new(BTreeMap::new(), Some(journal.clone())));
    let store = open_on(dir.path(), Arc::new(journal.clone()), engine.clone()).unwrap();
    journal.watch(store.durable());
    let mut sent: BTreeMap<u8, Sent> = BTreeMap::new();
    journal.fail_one_of(failing);
    for _ in 0..steps {
        match random.random_range(0..40) {
            0 => _ = store.compact(Duration::from_secs(20)),
            1 if failing > 0 => {
                engine.tell([Trouble::PutFails, Trouble::FlushFails][random.random_range(0..2)]);
                assert!(!store.seal(Duration::from_secs(20)) || store.stats().head_bytes == 0, "seed {seed}");
                engine.tell(Trouble::None);
            }
            1..3 => _ = store.seal(Duration::from_secs(20)),
            3..8 => assert!(store.flush(Duration::from_secs(20)), "seed {seed}"),
            _ => {
                let number = random.random_range(1..=AGENTS);
                let sent = sent.entry(number).or_default();
                let late = sent.skipped.first().copied().filter(|_| random.random_bool(0.3));
                let sequence = late.unwrap_or(sent.next);
                if late.is_none() {
                    sent.next += 1;
                    // What comes late is a whole tick, and so is the next one after it.
                    if sequence > 1 && random.random_bool(0.1) {
                        sent.skipped.push(sequence);
                        sent.key = true;
                        continue;
                    }
                }
                let mode = if number == AGENTS { WriteMode::Stated } else { WriteMode::Delta };
                let group = group(&store, number, "host.cpu", mode);
                let names: Vec<String> = (0..SERIES.len()).map(|series| name(number, series)).collect();
                let slots = series(&store, group, &names.iter().map(String::as_str).collect::<Vec<_>>());
                let key = late.is_some() || sequence == 1 || std::mem::take(&mut sent.key) || random.random_bool(0.1);
                let all = slots.iter().enumerate().map(|(at, slot)| (*slot, value(number, at, sequence)));
                let whole = key || mode == WriteMode::Stated || sequence.is_multiple_of(2);
                let values: Vec<(Slot, f64)> = all.filter(|_| whole).collect();
                let run = if late.is_some() && mode == WriteMode::Delta { Run::Backfill } else { Run::Live };
                let key = key && mode == WriteMode::Delta;
                let tick = TickBatch { run, ..tick(group, at_ms(sequence), key, &values) };
                let frame = FrameId { agent: agent(number), epoch: 7, sequence };
                let appended = store.append(&Batch { frame: Some(frame), ticks: vec![tick] }).unwrap();
                assert!(appended.refused.is_empty() && !appended.duplicate, "seed {seed}");
                sent.lsns.insert(sequence, appended.lsn.0);
                sent.skipped.retain(|skipped| *skipped != sequence);
            }
        }
    }
    assert!(store.flush(Duration::from_secs(60)), "seed {seed}");
    let ops = journal.ops();
    store.crash();
    Life { ops, sent }
}

/// Opens what a crash left, and judges it; says how many acked samples are missing.
fn judge(what: &str, store: &Store, sent: &BTreeMap<u8, Sent>, acked: u64) -> usize {
    let mut lost = 0;
    for (number, sent) in sent {
        let stored = store.stored(agent(*number), 7);
        for series in 0..SERIES.len() {
            let found: BTreeMap<i64, u64> =
                range(store, &name(*number, series), i64::MIN, i64::MAX).into_iter().collect();
            let right: BTreeMap<i64, u64> = sent
                .lsns
                .keys()
                .map(|sequence| (at_ms(*sequence), value(*number, series, *sequence).to_bits()))
                .collect();
            for (at_ms, bits) in &found {
                assert_eq!(
                    right.get(at_ms),
                    Some(bits),
                    "{what}: nobody sent this sample of agent {number} at {at_ms}"
                );
            }
            for (sequence, lsn) in &sent.lsns {
                let there = found.contains_key(&at_ms(*sequence));
                lost += usize::from(*lsn <= acked && !there);
                assert!(
                    there || !stored.contains(*sequence) || store.stats().damaged > 0,
                    "{what}: frame {sequence} of agent {number} would never be sent again"
                );
            }
        }
    }
    lost
}

/// `LAMPAD_CRASH_RUNS=100` for a long run.
fn runs() -> u64 {
    std::env::var("LAMPAD_CRASH_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(2)
}

fn seeds() -> impl Iterator<Item = u64> {
    let first = std::env::var("LAMPAD_CRASH_SEED").ok().and_then(|seed| seed.parse().ok());
    let first: u64 = first.unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    eprintln!("seeds from {first}");
    first..first + runs()
}

#[test]
fn a_crash_at_any_moment_costs_nothing_that_was_acked() {
    for seed in seeds() {
        // Every second life has a disk on which flushes fail.
        let life = live(seed, 150, if seed % 2 == 0 { 0 } else { 13 });
        let mut random = StdRng::seed_from_u64(seed);
        for at in 0..=life.ops.len() {
            // Every moment of a short life, a part of a long one.
            if life.ops.len() > 300 && random.random_bool(1.0 - 300.0 / life.ops.len() as f64) {
                continue;
            }
            let what = format!("seed {seed}, crash before operation {at} of {}", life.ops.len());
            let dir = tempfile::tempdir().unwrap();
            let values = crash_before(&life.ops, at, dir.path(), &mut random);
            let acked = life.ops.get(at).or(life.ops.last()).map_or(0, |(_, durable)| *durable);
            let store = open_on(dir.path(), Arc::new(RealDisk), Arc::new(Memory::new(values, None)))
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(store.stats().damaged, 0, "{what}: a crash is no damage");
            assert_eq!(judge(&what, &store, &life.sent, acked), 0, "{what}: acked samples are lost");
            store.crash();
        }
    }
}

#[test]
fn a_flipped_bit_is_told_and_costs_no_other_samples() {
    for seed in seeds() {
        let life = live(seed, 100, 0);
        let mut random = StdRng::seed_from_u64(seed);
        for round in 0..40 {
            let at = random.random_range(0..=life.ops.len());
            let what = format!("seed {seed}, round {round}");
            let dir = tempfile::tempdir().unwrap();
            let mut values = crash_before(&life.ops, at, dir.path(), &mut random);
            let acked = life.ops.get(at).or(life.ops.last()).map_or(0, |(_, durable)| *durable);
            let flipped = flip(dir.path(), &mut values, &mut random);
            let store = match open_on(dir.path(), Arc::new(RealDisk), Arc::new(Memory::new(values, None))) {
                Ok(store) => store,
                Err(OpenError::Damaged { .. }) => continue,
                Err(other) => panic!("{what}, {flipped}: {other}"),
            };
            let lost = judge(&format!("{what}, {flipped}"), &store, &life.sent, acked);
            assert!(lost == 0 || store.stats().damaged > 0, "{what}, {flipped}: {lost} samples are lost in silence");
            store.crash();
        }
    }
}

/// Flips a bit of a file or a value; says where. In files only of the first half: a write that was cut short looks like damage of
/// the last record, and is none.
fn flip(dir: &Path, values: &mut BTreeMap<(u32, u32), Vec<u8>>, random: &mut StdRng) -> String {
    let logs = std::fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = logs.chain([dir.join("MANIFEST")]).filter(|path| path.exists()).collect();
    if !values.is_empty() && random.random_bool(0.4) {
        let chosen = random.random_range(0..values.len());
        let Some((key, value)) = values.iter_mut().nth(chosen) else { return String::new() };
        let at = random.random_range(0..value.len());
        value[at] ^= 1 << random.random_range(0..8);
        return format!("byte {at} of value {key:?}");
    }
    if files.is_empty() {
        return "nothing".into();
    }
    let path = &files[random.random_range(0..files.len())];
    let mut bytes = std::fs::read(path).unwrap();
    if bytes.len() < 40 {
        return "nothing".into();
    }
    let at = random.random_range(0..bytes.len() / 2);
    bytes[at] ^= 1 << random.random_range(0..8);
    std::fs::write(path, bytes).unwrap();
    format!("byte {at} of {}", path.display())
}
