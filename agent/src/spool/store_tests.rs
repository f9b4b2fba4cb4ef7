//! The spool against a model: the set of frames that were kept and neither released nor dropped.

use std::sync::Arc;

use std::collections::{BTreeMap, BTreeSet};

use lampad_proto::Number;
use lampad_proto::v1::upward;
use proptest::prelude::*;

use super::*;
use crate::delta::{Decoder, Group, GroupTick, Series};
use crate::module::Desc;
use crate::tick::Changes;

const VALUE: Desc = Desc::gauge("value", "A value.").labels(&["n"]);
const SERIES: u32 = 3;
const OWNER: Owner = Owner { agent_id: [7; 16], epoch: 9 };

fn catalog() -> RwLock<Catalog> {
    let mut catalog = Catalog::new();
    let mut group = Group::new("test", "node", 100);
    group.series =
        (0..SERIES).map(|n| Arc::new(Series { desc: VALUE, labels: Box::new([n.to_string().into()]) })).collect();
    catalog.add(group);
    RwLock::new(catalog)
}

/// Of each batch only one series changes, so that a frame is of use only on the right base.
fn batch(sequence: u64) -> Arc<Batch> {
    let slot = (sequence % u64::from(SERIES)) as u32;
    let changes = Changes { values: vec![(slot, value(sequence))], ended: Vec::new() };
    Arc::new(Batch { sequence, ticks: vec![GroupTick { group: 0, at_ms: sequence as i64, changes }] })
}

/// One of the series counts where doubles skip.
fn value(sequence: u64) -> Number {
    let from = if sequence.is_multiple_of(u64::from(SERIES)) { 1 << 60 } else { 0 };
    (from + sequence).into()
}

/// What the samples of a frame must be: each series has the number of the last batch that changed it.
fn truth(sequence: u64) -> BTreeMap<String, Number> {
    let first = sequence.saturating_sub(u64::from(SERIES) - 1).max(1);
    let changed = (first..=sequence).map(|at| (at % u64::from(SERIES), value(at)));
    changed.map(|(slot, value)| (format!("test/value{{n={slot}}}"), value)).collect()
}

fn open(dir: &Path, bytes_max: u64) -> Spool {
    Spool::open(dir, OWNER, bytes_max).unwrap()
}

fn kept(sequence: u64, acked: bool) -> Kept {
    Kept { batch: batch(sequence), generation: 0, acked }
}

fn waiting(spool: &Spool) -> BTreeSet<u64> {
    spool.pending().into_iter().flat_map(|range| range.first..=range.last).collect()
}

/// Reads the whole spool as a back-fill lane would, checks every value, and returns the frames.
fn back_fill(spool: &mut Spool) -> BTreeSet<u64> {
    let mut frames = BTreeSet::new();
    let mut wanted = Wanted { generation: 1, ..Wanted::default() };
    let mut decoder = Decoder::default();
    while let Some(chunk) = spool.next(&wanted).unwrap() {
        wanted.sent.push(chunk.segment);
        for message in chunk.messages {
            match message.message {
                Some(upward::Message::Dictionary(dictionary)) => decoder.dictionary(&dictionary),
                Some(upward::Message::Frame(frame)) => {
                    decoder.samples.clear();
                    decoder.frame(&frame);
                    let found: BTreeMap<_, _> =
                        decoder.samples.iter().map(|(series, samples)| (series.clone(), samples[0].1)).collect();
                    assert_eq!(found, truth(frame.sequence), "frame {}", frame.sequence);
                    assert!(frames.insert(frame.sequence), "ascending, each once");
                }
                _ => panic!("neither dictionary nor frame"),
            }
        }
    }
    frames
}

#[derive(Debug, Clone)]
enum Op {
    /// So many batches leave memory, unacked.
    Keep(u64),
    /// So many were acked in memory.
    Pass(u64),
    /// An ack for what waits: a part of the number line, in percent.
    Release(u64, u64),
    /// The segment that is being written ends.
    Roll,
    /// The agent is killed and starts again; the disk lost the last so many bytes of the newest segment.
    Crash(u64),
    /// One bit of a segment flips while the agent is down.
    Flip(u64, u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1u64..6).prop_map(Op::Keep),
        3 => (1u64..4).prop_map(Op::Pass),
        3 => (0u64..100, 0u64..40).prop_map(|(from, length)| Op::Release(from, length)),
        1 => Just(Op::Roll),
        1 => (0u64..200).prop_map(Op::Crash),
        1 => (any::<u64>(), any::<u64>()).prop_map(|(file, bit)| Op::Flip(file, bit)),
    ]
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| number_of(path).is_some());
    files.sort();
    files
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn the_spool_keeps_what_it_was_given(ops in prop::collection::vec(op(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let catalog = catalog();
        let mut spool = open(dir.path(), 1 << 30);
        let mut next = 1;
        let mut model = BTreeSet::new();
        for op in ops {
            match op {
                Op::Keep(count) | Op::Pass(count) => {
                    let acked = matches!(op, Op::Pass(_));
                    let batches: Vec<_> = (next..next + count).map(|sequence| kept(sequence, acked)).collect();
                    spool.keep(&catalog, &batches, Instant::now()).unwrap();
                    if !acked {
                        model.extend(next..next + count);
                    }
                    next += count;
                }
                Op::Release(from, length) => {
                    let (first, last) = (next * from / 100, next * (from + length) / 100);
                    spool.release([SequenceRange { first, last }].into_iter());
                    model.retain(|sequence| *sequence < first || *sequence > last);
                }
                Op::Roll => spool.roll(),
                Op::Crash(torn) => {
                    drop(spool);
                    if let Some(path) = files(dir.path()).last() {
                        segment::cut(path, fs::metadata(path).unwrap().len().saturating_sub(torn)).unwrap();
                    }
                    spool = open(dir.path(), 1 << 30);
                    let found = waiting(&spool);
                    if torn == 0 {
                        prop_assert!(found.is_superset(&model), "a crash loses nothing that was kept");
                    }
                    // Acks are not kept on disk: the collector says again what it has.
                    model = found;
                    // The values that the next frames build on are gone with memory.
                    spool.keep(&catalog, &(1..next).map(|at| kept(at, true)).collect::<Vec<_>>(), Instant::now()).unwrap();
                }
                Op::Flip(file, bit) => {
                    drop(spool);
                    let files = files(dir.path());
                    if !files.is_empty() {
                        let path = &files[file as usize % files.len()];
                        let mut bytes = fs::read(path).unwrap();
                        let bit = bit as usize % (bytes.len() * 8);
                        bytes[bit / 8] ^= 1 << (bit % 8);
                        fs::write(path, bytes).unwrap();
                    }
                    spool = open(dir.path(), 1 << 30);
                    model = waiting(&spool);
                    spool.keep(&catalog, &(1..next).map(|at| kept(at, true)).collect::<Vec<_>>(), Instant::now()).unwrap();
                }
            }
            prop_assert_eq!(waiting(&spool), model.clone());
        }
        prop_assert!(back_fill(&mut spool).is_superset(&model));
        prop_assert_eq!(waiting(&spool), model, "reading loses nothing");
    }
}

#[test]
fn a_segment_goes_when_all_of_it_is_acked() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), 1 << 30);
    spool.keep(&catalog(), &[kept(1, false), kept(2, false)], Instant::now()).unwrap();
    spool.release([SequenceRange { first: 2, last: 2 }].into_iter());
    assert_eq!(files(dir.path()).len(), 1);
    spool.release([SequenceRange { first: 1, last: 1 }].into_iter());
    assert_eq!(files(dir.path()).len(), 0);
    spool.keep(&catalog(), &[kept(3, false)], Instant::now()).unwrap();
    assert_eq!(back_fill(&mut spool), BTreeSet::from([3]), "the next one begins a segment of its own");
}

#[test]
fn what_a_living_stream_carries_is_not_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), 1 << 30);
    spool.keep(&catalog(), &[Kept { generation: 4, ..kept(1, false) }], Instant::now()).unwrap();
    spool.keep(&catalog(), &[Kept { generation: 0, ..kept(2, false) }], Instant::now()).unwrap();
    let mut next = |generation| {
        let chunk = spool.next(&Wanted { generation, ..Wanted::default() }).unwrap();
        chunk.and_then(|chunk| chunk.frames.first())
    };
    assert_eq!(next(4), Some(2));
    assert_eq!(next(5), Some(1), "once that stream is lost");
    spool.release_live(4, 9);
    assert_eq!(waiting(&spool), BTreeSet::from([2]), "an ack of the live lane covers what it carried");
}

#[test]
fn a_full_spool_drops_its_oldest_segment_and_counts() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), 600);
    for sequence in 1..=6 {
        spool.keep(&catalog(), &[kept(sequence, false)], Instant::now()).unwrap();
        spool.roll();
    }
    let left = waiting(&spool);
    assert!(spool.bytes() <= 600 && left.contains(&6) && !left.contains(&1), "{left:?}");
    assert_eq!(spool.dropped_frames(), 6 - left.len() as u64);
}

#[test]
fn a_segment_that_is_given_up_is_kept_for_people_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), 1 << 30);
    spool.keep(&catalog(), &[kept(1, false), kept(2, false)], Instant::now()).unwrap();
    spool.roll();
    spool.keep(&catalog(), &[kept(3, false)], Instant::now()).unwrap();
    let chunk = spool.next(&Wanted { generation: 1, ..Wanted::default() }).unwrap().unwrap();
    spool.give_up(chunk.segment);
    assert_eq!((spool.dropped_frames(), spool.set_aside()), (2, 1));
    assert!(dir.path().join(format!("{:016x}.bad", chunk.segment)).exists());
    drop(spool);
    assert_eq!(back_fill(&mut open(dir.path(), 1 << 30)), BTreeSet::from([3]));
}

#[test]
fn a_segment_that_cannot_be_read_is_no_end_of_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), 1 << 30);
    for sequence in 1..=3 {
        spool.keep(&catalog(), &[kept(sequence, false)], Instant::now()).unwrap();
        spool.roll();
    }
    let first = files(dir.path()).remove(0);
    fs::remove_file(&first).unwrap();
    fs::create_dir(&first).unwrap();
    let chunk = spool.next(&Wanted { generation: 1, ..Wanted::default() }).unwrap().unwrap();
    assert_eq!(chunk.frames.first(), Some(2));
    assert_eq!(spool.dropped_frames(), 1);
    drop(spool);
    let mut spool = open(dir.path(), 1 << 30);
    assert_eq!(
        (back_fill(&mut spool), spool.set_aside()),
        (BTreeSet::from([2, 3]), 1),
        "nor does it keep from starting"
    );
}

#[test]
fn an_end_that_is_missing_is_damage_in_all_but_the_newest_segment() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), 1 << 30);
    for sequence in [1, 3] {
        spool.keep(&catalog(), &[kept(sequence, false), kept(sequence + 1, false)], Instant::now()).unwrap();
        spool.roll();
    }
    drop(spool);
    let found = files(dir.path());
    for file in &found {
        segment::cut(file, fs::metadata(file).unwrap().len() - 1).unwrap();
    }
    assert_eq!(open(dir.path(), 1 << 30).set_aside(), 1);
    assert!(found[0].with_extension("bad").exists() && !found[1].with_extension("bad").exists());
}

/// The disk held the lock of the catalog while it wrote, and the live lane waited for it to add a series.
#[test]
fn nobody_waits_for_the_catalog_while_the_disk_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), 1 << 30);
    let hanging = dir.path().join(format!("{:016x}.seg", 1));
    rustix::fs::mkfifoat(rustix::fs::CWD, &hanging, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    let catalog = Arc::new(catalog());
    let (say, said) = std::sync::mpsc::channel();
    let theirs = catalog.clone();
    let writer = std::thread::spawn(move || {
        say.send(fs::read_link("/proc/thread-self").unwrap()).unwrap();
        // Opening a pipe that nobody reads waits.
        let _ = spool.keep(&theirs, &[kept(1, false)], Instant::now());
    });
    let stat = Path::new("/proc").join(said.recv().unwrap()).join("stat");
    let sleeps = || fs::read_to_string(&stat).unwrap().contains(") S ");
    while !(sleeps() && sleeps() && sleeps()) {
        std::thread::yield_now();
    }
    assert!(catalog.try_write().is_ok());
    drop(fs::File::open(&hanging).unwrap());
    writer.join().unwrap();
}

#[test]
fn frames_wait_in_memory_while_the_disk_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spool");
    let mut spool = open(&path, 1 << 30);
    fs::remove_dir(&path).unwrap();
    let error = spool.keep(&catalog(), &[kept(1, false)], Instant::now()).unwrap_err().to_string();
    assert!(error.contains("make room"), "{error}");
    fs::create_dir(&path).unwrap();
    spool.keep(&catalog(), &[kept(2, false)], Instant::now()).unwrap();
    drop(spool);
    assert_eq!(back_fill(&mut open(&path, 1 << 30)), BTreeSet::from([1, 2]));
}

#[test]
fn strange_files_are_set_aside_and_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), 1 << 30);
    spool.keep(&catalog(), &[kept(1, false)], Instant::now()).unwrap();
    drop(spool);
    let other = Owner { agent_id: [8; 16], epoch: 9 };
    fs::write(dir.path().join("0000000000000000.seg"), other.header()).unwrap();
    fs::write(dir.path().join("00000000000000aa.seg"), [b'x'; 100]).unwrap();
    fs::write(dir.path().join("00000000000000ac.seg"), b"").unwrap();
    let spool = open(dir.path(), 1 << 30);
    assert_eq!(waiting(&spool), BTreeSet::from([1]));
    assert_eq!(spool.set_aside(), 2);
    assert_eq!(files(dir.path()).len(), 1);
}

/// Eight files were kept whatever their size, and the others went without a word.
#[test]
fn what_is_set_aside_is_bounded_by_its_bytes_and_what_is_deleted_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let other = Owner { agent_id: [8; 16], epoch: 9 };
    let write = |numbers: std::ops::Range<u64>| {
        for number in numbers {
            fs::write(dir.path().join(format!("{number:016x}.seg")), other.header()).unwrap();
        }
    };
    let of = |extension: &str| {
        let entries = fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.path());
        entries.filter(|path| path.extension().is_some_and(|is| is == extension)).count()
    };
    write(0..15);
    let (log, spool) = logged(|| open(dir.path(), 1 << 30));
    assert_eq!((of("old"), of("seg"), spool.set_aside()), (15, 0, 15));
    assert!(!log.contains("deleted"), "{log}");
    drop(spool);
    write(15..20);
    // Room for 17 headers.
    let bytes_max = 2 * 17 * segment::HEADER_BYTES as u64;
    let (log, spool) = logged(|| open(dir.path(), bytes_max));
    assert_eq!((of("old"), of("seg"), spool.set_aside()), (17, 0, 5));
    assert!(log.contains("deleted") && log.contains("files=3") && log.contains("bytes=120"), "{log}");
}

#[test]
fn a_spool_of_a_newer_agent_is_refused_and_nothing_in_it_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("0000000000000001.seg"), [b'x'; 100]).unwrap();
    let mut newer = OWNER.header();
    newer[8] = 3;
    let check = crc32fast::hash(&newer[..36]);
    newer[36..].copy_from_slice(&check.to_le_bytes());
    fs::write(dir.path().join("0000000000000002.seg"), newer).unwrap();
    let error = Spool::open(dir.path(), OWNER, 1 << 30).err().unwrap().to_string();
    assert!(error.contains("0000000000000002.seg") && error.contains("run a newer lampad-agent"), "{error}");
    assert_eq!(files(dir.path()).len(), 2);
}

/// What is logged meanwhile by this thread.
fn logged<T>(act: impl FnOnce() -> T) -> (String, T) {
    #[derive(Clone, Default)]
    struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);
    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let result = tracing::subscriber::with_default(subscriber, act);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    (text, result)
}
