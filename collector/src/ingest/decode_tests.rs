use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};

use lampad_proto::v1::{
    BucketSpan, DecimalColumn, Dictionary, Frame, GroupDef, GroupTick, Histogram, IntegerColumn, MetricDef, SeriesDef,
};
use lampad_proto::{Number, STALE_BITS, decimal, stale};
use proptest::prelude::*;
use prost::Message as _;
use roaring::RoaringBitmap;

use super::*;

const GROUPS: u32 = 2;
const SERIES: u32 = 12;

/// Two groups of six series: even references are of group 0, odd ones of group 1.
fn dictionary() -> Dictionary {
    let symbols = ["", "g0", "g1", "m", "job", "node", "i"].map(String::from).into_iter();
    let symbols = symbols.chain((0..SERIES).map(|series| series.to_string())).collect();
    Dictionary {
        reset: true,
        symbols,
        groups: (0..GROUPS).map(|at| GroupDef { name: 1 + at, labels: vec![4, 5], interval_ms: 1000 }).collect(),
        metrics: vec![MetricDef { name: 3, ..MetricDef::default() }],
        series: (0..SERIES).map(|at| SeriesDef { group: at % GROUPS, metric: 0, labels: vec![6, 7 + at] }).collect(),
        ..Dictionary::default()
    }
}

fn lane() -> Lane {
    let mut lane = Lane::new(Arc::new(Limits::default()), Arc::default());
    let added = lane.define(dictionary()).unwrap();
    assert!(added.groups.iter().all(|group| group.definition.is_ok()));
    assert!(added.series.iter().all(|series| series.definition.is_ok()));
    lane
}

fn refs(series: impl IntoIterator<Item = u32>) -> Vec<u32> {
    let mut last = None;
    series.into_iter().map(|series| series - last.replace(series).unwrap_or(0)).collect()
}

/// What a sender does, in the plainest way: it knows the values it sent last.
#[derive(Default)]
struct Sender {
    present: [BTreeMap<u32, u64>; GROUPS as usize],
    keyed: [bool; GROUPS as usize],
}

impl Sender {
    fn tick(&mut self, step: &Step) -> GroupTick {
        let group = step.group % GROUPS;
        let present = &mut self.present[group as usize];
        let key = step.key || !self.keyed[group as usize];
        self.keyed[group as usize] = true;
        let before = if key { BTreeMap::new() } else { present.clone() };
        let mut wanted = present.clone();
        for (series, bits) in &step.values {
            wanted.insert(series % (SERIES / GROUPS) * GROUPS + group, *bits);
        }
        for series in &step.ended {
            wanted.remove(&(series % (SERIES / GROUPS) * GROUPS + group));
        }
        let mut tick = GroupTick { group, offset_ms: 0, key, ..GroupTick::default() };
        let (mut floats, mut decimals) = (Vec::new(), BTreeMap::<u32, Vec<(u32, i64)>>::new());
        for (series, bits) in wanted.iter().filter(|(series, bits)| before.get(series) != Some(bits)) {
            let base = decimal::base(before.get(series).map_or(0.0, |bits| f64::from_bits(*bits)));
            match decimal::delta(base, f64::from_bits(*bits), 0) {
                Some((digits, delta)) => decimals.entry(digits).or_default().push((*series, delta)),
                None => floats.push((*series, *bits)),
            }
        }
        tick.float_refs = refs(floats.iter().map(|(series, _)| *series));
        tick.float_bits = floats.iter().map(|(_, bits)| *bits).collect();
        for (digits, column) in decimals {
            let (series, deltas): (Vec<u32>, Vec<i64>) = column.into_iter().unzip();
            tick.decimals.push(DecimalColumn { digits, refs: refs(series), deltas });
        }
        tick.ended = refs(before.keys().filter(|series| !wanted.contains_key(series)).copied());
        wanted.retain(|_, bits| *bits != STALE_BITS);
        *present = wanted;
        tick
    }
}

#[derive(Debug, Clone)]
struct Step {
    group: u32,
    key: bool,
    values: Vec<(u32, u64)>,
    ended: Vec<u32>,
    /// The store did not take the tick before.
    owed: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bits = prop_oneof![
        4 => (-1000i64..1000).prop_map(|value| (value as f64 / 100.0).to_bits()),
        1 => any::<u64>(),
        1 => prop_oneof![Just(f64::NAN.to_bits()), Just((-0.0f64).to_bits()), Just(STALE_BITS), Just(f64::INFINITY.to_bits())],
    ];
    let values = prop::collection::vec((0..6u32, bits), 0..6);
    let step =
        (0..GROUPS, prop::bool::weighted(0.1), values, prop::collection::vec(0..6u32, 0..2), prop::bool::weighted(0.1))
            .prop_map(|(group, key, values, ended, owed)| Step { group, key, values, ended, owed });
    prop::collection::vec(step, 1..40)
}

/// Applies a tick as the store does.
fn apply(state: &mut BTreeMap<u32, u64>, tick: &Tick) {
    if tick.key {
        state.clear();
    }
    for (series, value) in &tick.values {
        match value {
            Value::Float(value) if lampad_proto::is_stale(*value) => drop(state.remove(series)),
            Value::Float(value) => drop(state.insert(*series, value.to_bits())),
            Value::Integer(_) | Value::Histogram(_) => unreachable!("none is sent here"),
        }
    }
}

/// Each tick is later than all before it, in this frame and in others.
fn frame(mut ticks: Vec<GroupTick>) -> Frame {
    static NEXT_MS: AtomicI64 = AtomicI64::new(1_000_000);
    let base_ms = NEXT_MS.fetch_add(1 << 20, Ordering::Relaxed);
    (0..).zip(&mut ticks).for_each(|(at, tick)| tick.offset_ms += at);
    Frame { sequence: 1, base_ms, ticks, ..Frame::default() }
}

proptest! {
    #[test]
    fn what_was_sent_is_what_is_decoded(steps in steps()) {
        let (mut sender, mut lane) = (Sender::default(), lane());
        let mut stored: [BTreeMap<u32, u64>; 2] = Default::default();
        for step in &steps {
            let tick = sender.tick(step);
            let at = tick.group as usize;
            if step.owed {
                lane.owe_keys([tick.group]);
                stored[at].clear();
            }
            let must_be_key = step.owed || tick.key;
            let ticks = lane.decode(&frame(vec![tick])).unwrap();
            prop_assert!(ticks[0].key || !must_be_key);
            apply(&mut stored[at], &ticks[0]);
            prop_assert_eq!(&stored[at], &sender.present[at]);
        }
    }

    #[test]
    fn mutated_frames_never_panic(steps in steps(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let (mut sender, mut lane) = (Sender::default(), lane());
        for step in &steps {
            let mut bytes = frame(vec![sender.tick(step)]).encode_to_vec();
            for (at, byte) in &flips {
                let at = at.index(bytes.len());
                bytes[at] ^= byte;
            }
            if let Ok(frame) = Frame::decode(&*bytes) && lane.decode(&frame).is_err() {
                prop_assert!(!lane.is_sound());
                lane = self::lane();
                sender = Sender::default();
            }
        }
    }

    #[test]
    fn random_bytes_as_dictionaries_never_panic(all in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..8)) {
        let mut lane = lane();
        for bytes in all {
            if let Ok(dictionary) = Dictionary::decode(&*bytes) {
                let _ = lane.define(dictionary);
            }
            if let Ok(frame) = Frame::decode(&*bytes) {
                let _ = lane.decode(&frame);
            }
        }
    }
}

#[test]
fn integers_keep_their_last_digit_and_equal_numbers_are_equal() {
    let mut lane = lane();
    let column = |negative, refs: &[u32], magnitudes: &[u64]| IntegerColumn {
        negative,
        refs: refs.into(),
        magnitudes: magnitudes.into(),
    };
    let integers = vec![column(false, &[0, 2], &[u64::MAX, 1 << 60]), column(true, &[4], &[(1 << 53) + 1])];
    let key = GroupTick { key: true, integers, ..GroupTick::default() };
    let float = GroupTick { float_refs: vec![0], float_bits: vec![7f64.to_bits()], ..GroupTick::default() };
    let ticks = lane.decode(&frame(vec![key.clone(), float])).unwrap();
    let wanted = [
        (0, Number::from(u64::MAX).into()),
        (2, Value::Float((1u64 << 60) as f64)),
        (4, Number::from(-(1i64 << 53) - 1).into()),
    ];
    assert_eq!(ticks[0].values, wanted, "what a double holds is a float");
    assert_eq!(ticks[1].values, [(0, Value::Float(7.0))]);
    // For a reader of protocol 1 there is a double of that size, from which no decimal counts.
    let decimals = vec![DecimalColumn { digits: 0, refs: vec![0], deltas: vec![7] }];
    let error = lane.decode(&frame(vec![key, GroupTick { decimals, ..GroupTick::default() }])).unwrap_err();
    assert!(error.to_string().contains("no exact value"), "{error}");
}

#[test]
fn what_is_wrong_with_a_frame_is_named() {
    let key = GroupTick { key: true, ..GroupTick::default() };
    let column = |refs: &[u32], deltas: &[i64]| DecimalColumn { digits: 0, refs: refs.into(), deltas: deltas.into() };
    let with = |column: DecimalColumn| GroupTick { decimals: vec![column], ..key.clone() };
    for (tick, part) in [
        (GroupTick::default(), "g0 has had no key tick"),
        (GroupTick { group: 9, ..key.clone() }, "group 9 is not in the dictionary, which has 2"),
        (with(column(&[99], &[1])), "series 99 is not in the dictionary, which has 12"),
        (with(column(&[1], &[1])), "series 1 is of another group"),
        (with(column(&[0, 0], &[1, 1])), "do not ascend"),
        (with(column(&[2, u32::MAX], &[1, 1])), "do not ascend"),
        (with(column(&[0, 2], &[1])), "2 references and 1 values"),
        (with(DecimalColumn { digits: 99, ..column(&[0], &[1]) }), "99 digits"),
        (with(column(&[0], &[i64::MAX])), "no exact value"),
        (GroupTick { decimals: vec![column(&[0], &[1]), column(&[0], &[1])], ..key.clone() }, "twice"),
        (
            GroupTick { integers: vec![IntegerColumn { refs: vec![0], ..Default::default() }], ..key.clone() },
            "0 values",
        ),
        (GroupTick { offset_ms: i64::MIN, ..key.clone() }, "is none"),
        (GroupTick { ended: vec![99], ..key.clone() }, "series 99"),
    ] {
        let mut lane = lane();
        let error = lane.decode(&frame(vec![tick])).unwrap_err().to_string();
        assert!(error.contains(part), "{error:?} lacks {part:?}");
        assert_eq!(lane.decode(&frame(vec![])), Err(DecodeError::NoDictionary), "{part}");
        assert!(lane.define(dictionary()).is_some(), "a reset mends it");
        assert!(lane.decode(&frame(vec![key.clone()])).is_ok());
    }
}

#[test]
fn what_is_over_a_limit_is_refused_alone() {
    let limits = Limits { series_per_agent: 3, dictionary_bytes: 19, labels_per_series: 1, ..Limits::default() };
    let mut lane = Lane::new(Arc::new(limits), Arc::default());
    let symbols = ["", "g", "m", "a", "b", "0123456789abcdef"].map(String::from).into();
    let series = |labels: &[u32]| SeriesDef { group: 0, metric: 0, labels: labels.into() };
    let added = lane.define(Dictionary {
        reset: true,
        symbols,
        groups: vec![GroupDef { name: 1, ..GroupDef::default() }],
        metrics: vec![MetricDef { name: 2, ..MetricDef::default() }],
        series: vec![series(&[3, 4]), series(&[3, 4, 4, 3]), series(&[3, 5]), series(&[])],
        ..Dictionary::default()
    });
    let added = added.unwrap();
    let reason = |at: usize| added.series[at].definition.as_ref().map(|_| ()).map_err(String::as_str);
    assert_eq!(reason(0), Ok(()));
    assert!(reason(1).unwrap_err().contains("at most 1 are taken"));
    assert!(reason(2).unwrap_err().contains("larger than 19 bytes"));
    let over = &added.over[0];
    assert_eq!((over.series.clone(), over.first.as_str()), (3..4, "m{}"));
    assert!(over.reason.contains("3 series already"), "{}", over.reason);
    // The refused ones keep their numbers, and the rest goes on.
    let tick = GroupTick { key: true, float_refs: vec![0, 3], float_bits: vec![1, 2], ..GroupTick::default() };
    assert_eq!(lane.decode(&frame(vec![tick])).unwrap()[0].values.len(), 1);
}

/// Far beyond a limit the stream ended, and nothing of the agent was stored any more.
#[test]
fn a_dictionary_of_any_size_costs_what_is_taken_of_it() {
    let limits = Limits { series_per_agent: 4, groups_per_agent: 1, ..Limits::default() };
    let mut lane = Lane::new(Arc::new(limits), Arc::default());
    let add = |reset, first: u32| Dictionary {
        reset,
        symbols: (first..first + 50).map(|at| format!("s{at}")).collect(),
        groups: (first..first + 50).map(|at| GroupDef { name: at, ..GroupDef::default() }).collect(),
        metrics: (first..first + 50).map(|at| MetricDef { name: at, ..MetricDef::default() }).collect(),
        series: (first..first + 50).map(|at| SeriesDef { group: at % 2, metric: at, labels: vec![] }).collect(),
        ..Dictionary::default()
    };
    let added = lane.define(add(true, 0)).unwrap();
    assert_eq!((added.groups.len(), added.series.len()), (1, 4));
    assert!(added.over[0].reason.contains("more than 1 groups") && added.over[0].first == "s1");
    assert_eq!(added.over[1].series, 4..50);
    let added = lane.define(add(false, 50)).unwrap();
    assert_eq!((added.groups.len(), added.series.len(), added.over[1].series.clone()), (0, 0, 50..100));
    assert_eq!((lane.symbols.len(), lane.groups.len(), lane.metrics.len(), lane.series.len()), (32, 1, 4, 4));
    // Series 0 and 2 are in group 0; 98 is over the limit; group 77 too. What is unknown stays an error.
    let tick = |group, refs: &[u32]| GroupTick {
        group,
        key: true,
        float_refs: refs.to_vec(),
        float_bits: vec![7; refs.len()],
        ..GroupTick::default()
    };
    let ticks = lane.decode(&frame(vec![tick(0, &[0, 2, 96]), tick(77, &[1])])).unwrap();
    assert_eq!((ticks.len(), ticks[0].values.len()), (1, 2));
    assert!(lane.decode(&frame(vec![tick(0, &[100])])).unwrap_err().to_string().contains("which has 100"));
}

#[test]
fn ticks_beyond_the_limit_are_left_out_and_the_next_one_says_all() {
    let mut lane = Lane::new(Arc::new(Limits { ticks_per_frame: 2, ..Limits::default() }), Arc::default());
    lane.define(dictionary()).unwrap();
    let tick = |key, value: f64| GroupTick {
        key,
        float_refs: vec![0],
        float_bits: vec![value.to_bits()],
        ..GroupTick::default()
    };
    let second = GroupTick { float_refs: vec![2], ..tick(false, 8.0) };
    let ticks = lane.decode(&frame(vec![tick(true, 1.0), second, tick(false, 2.0)])).unwrap();
    assert_eq!(ticks.len(), 2);
    assert_eq!(lane.take_left_out(), LeftOut { series: RoaringBitmap::new(), ticks: 1 });
    let ticks = lane.decode(&frame(vec![GroupTick::default()])).unwrap();
    assert_eq!(ticks[0].values, [(0, Value::Float(2.0)), (2, Value::Float(8.0))], "as if nothing had been left out");
    assert!(ticks[0].key);
}

#[test]
fn histograms_beyond_one_record_are_left_out() {
    let mut lane = lane();
    let long = Histogram {
        positive_spans: vec![BucketSpan { offset: 0, length: 4096 }],
        positive_deltas: vec![i64::MAX / 2; 4096],
        ..Histogram::default()
    };
    lane.limits = Arc::new(Limits { histogram_buckets: usize::MAX, ..Limits::default() });
    let long = Histogram { custom_values: vec![0.5; 1 << 20], ..long };
    let histogram_refs = vec![0, 2, 2, 2];
    let tick = GroupTick { key: true, histogram_refs, histograms: vec![long; 4], ..GroupTick::default() };
    let ticks = lane.decode(&frame(vec![tick])).unwrap();
    assert_eq!(ticks[0].values.len(), 2, "of 8 MiB each, in 24 MiB with what stands beside them");
    assert_eq!(lane.take_left_out().series, RoaringBitmap::from([4, 6]));
}

#[test]
fn a_series_that_ended_begins_from_zero() {
    let mut lane = lane();
    let one = |delta| vec![DecimalColumn { digits: 0, refs: vec![0], deltas: vec![delta] }];
    let key = GroupTick { key: true, decimals: one(7), ..GroupTick::default() };
    let end = GroupTick { ended: vec![0], ..GroupTick::default() };
    let again = GroupTick { decimals: one(5), ..GroupTick::default() };
    let ticks = lane.decode(&frame(vec![key, end.clone(), end, again])).unwrap();
    let values: Vec<_> = ticks.iter().map(|tick| tick.values.len()).collect();
    assert_eq!(values, [1, 1, 0, 1], "an end of what is not present is no news");
    let Value::Float(ended) = ticks[1].values[0].1 else { panic!() };
    assert_eq!(ended.to_bits(), stale().to_bits());
    assert_eq!(ticks[3].values, [(0, Value::Float(5.0))]);
}

/// Such a frame was answered with the wish for a key frame, which is larger still, for ever.
#[test]
fn of_a_frame_with_too_many_values_the_rest_is_stored() {
    let mut lane = Lane::new(Arc::new(Limits { values_per_frame: 8, ..Limits::default() }), Arc::default());
    lane.define(dictionary()).unwrap();
    let mut sender = Sender::default();
    let all = |value: f64| (0..6).map(|series| (series, value.to_bits())).collect();
    let mut frame = |lane: &mut Lane, steps: [Step; 2]| {
        let ticks = steps.iter().map(|step| sender.tick(step)).collect();
        let ticks = lane.decode(&self::frame(ticks)).unwrap();
        let shape: Vec<_> = ticks.iter().map(|tick| (tick.key, tick.values.len())).collect();
        (shape, lane.take_left_out())
    };
    let step = |group, values| Step { group, key: false, values, ended: Vec::new(), owed: false };
    let told = frame(&mut lane, [step(0, all(1.0)), step(1, all(2.0))]);
    assert_eq!(told, (vec![(true, 6), (true, 2)], LeftOut { series: [5, 7, 9, 11].into(), ticks: 0 }));
    let (shape, left_out) = frame(&mut lane, [step(0, vec![(0, 3f64.to_bits())]), step(1, vec![(5, 4f64.to_bits())])]);
    assert_eq!(shape, [(false, 1), (true, 6)], "with room again all of the group is listed");
    assert_eq!(left_out, LeftOut::default());
}

#[test]
fn ticks_that_do_not_ascend_are_refused() {
    for offset_ms in [0, -1, i64::from(i32::MIN)] {
        let mut lane = lane();
        let tick = GroupTick { key: true, ..GroupTick::default() };
        let other = GroupTick { group: 1, ..tick.clone() };
        let mut frame = frame(vec![tick.clone(), other]);
        frame.base_ms += 1_000_000_000_000;
        assert!(lane.decode(&frame).is_ok(), "of another group");
        frame.ticks = vec![GroupTick { offset_ms, ..tick }];
        let error = lane.decode(&frame).unwrap_err().to_string();
        assert!(error.contains("ticks of a group ascend"), "{error}");
    }
}

/// A frame of 10 KB made a thousand lists of all that its agent has, and of all that was left out of them.
#[test]
fn a_group_is_cut_once_in_a_frame() {
    let mut lane = Lane::new(Arc::new(Limits { values_per_frame: 8, ..Limits::default() }), Arc::default());
    lane.define(dictionary()).unwrap();
    let tick = |key| GroupTick { key, float_refs: vec![0, 2, 2, 2, 2], float_bits: vec![1; 5], ..GroupTick::default() };
    let one = |bits| GroupTick { float_refs: vec![0], float_bits: vec![bits], ..GroupTick::default() };
    let ticks = lane.decode(&frame(vec![tick(true), tick(false), one(2), one(3)])).unwrap();
    let shape: Vec<_> = ticks.iter().map(|tick| (tick.key, tick.values.len())).collect();
    assert_eq!(shape, [(true, 5), (true, 3)]);
    assert_eq!(lane.take_left_out(), LeftOut { series: [6, 8].into(), ticks: 2 });
    let ticks = lane.decode(&frame(vec![GroupTick::default()])).unwrap();
    assert_eq!((ticks[0].key, ticks[0].values.len()), (true, 5));
    assert_eq!(ticks[0].values[0], (0, Value::Float(f64::from_bits(3))), "the lane has what was left out");
}

/// So the store wants them; where there are very many columns it has to sort.
#[test]
fn values_of_some_columns_ascend() {
    let column = |digits: u32, series: &[u32]| DecimalColumn {
        digits,
        refs: refs(series.iter().copied()),
        deltas: series.iter().map(|series| i64::from(*series) + 1).collect(),
    };
    let references = |decimals: Vec<DecimalColumn>| {
        let tick = GroupTick { key: true, decimals, ..GroupTick::default() };
        let ticks = lane().decode(&frame(vec![tick])).unwrap();
        ticks[0].values.iter().map(|(reference, _)| *reference).collect::<Vec<_>>()
    };
    let few = vec![column(3, &[2, 6]), column(0, &[0, 8, 10]), column(1, &[]), column(2, &[4])];
    assert_eq!(references(few), [0, 2, 4, 6, 8, 10]);
    let empty = (0..7).map(|digits| column(digits, &[]));
    let many = empty.chain([column(3, &[2, 6]), column(0, &[0, 8, 10]), column(2, &[4])]);
    assert_eq!(references(many.collect()), [2, 6, 0, 4, 8, 10]);
}
