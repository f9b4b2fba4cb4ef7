use std::sync::Arc;

use std::collections::BTreeMap;

use lampad_proto::{Number, stale};
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::delta::Series;
use crate::delta::decoder::{Decoder, Samples};
use crate::tick::Changes;

const VALUE: Desc = Desc::gauge("value", "A value.").labels(&["n"]);
const SERIES: u32 = 6;

fn catalog() -> Catalog {
    let mut catalog = Catalog::new();
    for name in ["one", "two"] {
        let mut group = Group::new(name, "node", 1000);
        group.series =
            (0..SERIES).map(|n| Arc::new(Series { desc: VALUE, labels: Box::new([n.to_string().into()]) })).collect();
        catalog.add(group);
    }
    catalog
}

/// What happens between two frames, and to the lane.
#[derive(Debug, Clone)]
enum Op {
    /// A tick: group, and what it does to some series (`None`: the series ends).
    Tick(u32, Vec<(u32, Option<Number>)>),
    Reset,
    /// A batch that goes by another lane.
    Pass(u32, Vec<(u32, Option<Number>)>),
    /// The other encoder takes over.
    Adopt,
}

fn value() -> impl Strategy<Value = Number> {
    prop_oneof![
        4 => (-1000i64..1000).prop_map(|n| Number::Float(n as f64 / 100.0)),
        2 => (0u64..1 << 60).prop_map(|n| Number::Float(n as f64)),
        2 => ((1u64 << 53)..=u64::MAX, any::<bool>()).prop_map(|(n, negative)| Number::whole(n, negative)),
        1 => any::<u64>().prop_map(|bits| Number::Float(f64::from_bits(bits))),
        1 => prop_oneof![Just(f64::NAN), Just(-0.0), Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(stale())]
            .prop_map(Number::Float),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let what = || prop::collection::vec((0..SERIES, prop::option::weighted(0.8, value())), 0..5);
    prop_oneof![
        8 => (0u32..2, what()).prop_map(|(group, what)| Op::Tick(group, what)),
        1 => Just(Op::Reset),
        1 => (0u32..2, what()).prop_map(|(group, what)| Op::Pass(group, what)),
        1 => Just(Op::Adopt),
    ]
}

/// The truth that the sampler knows: present values per group.
type Present = [BTreeMap<u32, Number>; 2];

fn batch(sequence: u64, group: u32, what: &[(u32, Option<Number>)], present: &mut Present) -> Batch {
    let present = &mut present[group as usize];
    let mut changes = Changes::default();
    let each_once: BTreeMap<u32, Option<Number>> = what.iter().copied().collect();
    for (series, value) in each_once {
        match value {
            Some(value) if present.insert(series, value) != Some(value) => changes.values.push((series, value)),
            None if present.remove(&series).is_some() => changes.ended.push(series),
            _ => {}
        }
    }
    Batch { sequence, ticks: vec![GroupTick { group, at_ms: 1_000_000 + sequence as i64, changes }] }
}

fn record(truth: &mut Samples, batch: &Batch, present: &Present) {
    for tick in &batch.ticks {
        let name = ["one", "two"][tick.group as usize];
        for (series, value) in &present[tick.group as usize] {
            truth.entry(format!("{name}/value{{n={series}}}")).or_default().push((tick.at_ms, *value));
        }
    }
}

/// Through the bytes, as the wire carries them.
fn deliver(decoder: &mut Decoder, encoded: &Encoded) {
    if let Some(dictionary) = &encoded.dictionary {
        decoder.dictionary(&Dictionary::decode(&*dictionary.encode_to_vec()).unwrap());
    }
    decoder.frame(&Frame::decode(&*encoded.frame.encode_to_vec()).unwrap());
}

proptest! {
    #[test]
    fn the_decoder_gives_back_every_sample_bit_by_bit(ops in prop::collection::vec(op(), 1..40)) {
        let catalog = catalog();
        let mut encoder = Encoder::new(Lane::Live);
        let mut decoder = Decoder::default();
        let mut present = Present::default();
        let mut truth = Samples::new();
        for (sequence, op) in (1..).zip(ops) {
            match op {
                Op::Tick(group, what) => {
                    let batch = batch(sequence, group, &what, &mut present);
                    record(&mut truth, &batch, &present);
                    deliver(&mut decoder, &encoder.encode(&catalog, &batch, 0));
                }
                Op::Pass(group, what) => encoder.pass(&batch(sequence, group, &what, &mut present)),
                Op::Reset => encoder.reset(),
                Op::Adopt => {
                    let mut next = Encoder::new(Lane::Live);
                    next.adopt(&encoder);
                    encoder = next;
                }
            }
        }
        prop_assert_eq!(decoder.samples, truth);
    }
}

#[test]
fn an_unchanged_tick_costs_a_few_bytes() {
    let catalog = catalog();
    let mut encoder = Encoder::new(Lane::Live);
    let mut present = Present::default();
    let what: Vec<_> = (0..SERIES).map(|n| (n, Some(Number::Float(f64::from(n))))).collect();
    encoder.encode(&catalog, &batch(1, 0, &what, &mut present), 1_000_000);
    let silent = encoder.encode(&catalog, &batch(2, 0, &what, &mut present), 1_000_000);
    assert_eq!(silent.dictionary, None);
    assert!(silent.frame.encoded_len() <= 24, "{}", silent.frame.encoded_len());
}

/// What goes to a collector of protocol 1 is the nearest double, whatever stood before.
#[test]
fn a_lowered_frame_has_the_nearest_doubles() {
    let catalog = catalog();
    let (mut encoder, mut decoder) = (Encoder::new(Lane::Live), Decoder::default());
    let (mut present, mut truth) = (Present::default(), Samples::new());
    let values = [Number::from(u64::MAX), Number::Float(7.0), Number::from(-(1i64 << 53) - 1), Number::Float(0.25)];
    for (sequence, value) in (1..).zip(values) {
        let batch = batch(sequence, 0, &[(3, Some(value)), (1, Some(Number::Float(1.0)))], &mut present);
        let mut encoded = encoder.encode(&catalog, &batch, 0);
        lampad_proto::lower(&mut encoded.frame);
        assert!(encoded.frame.ticks[0].integers.is_empty());
        deliver(&mut decoder, &encoded);
        record(&mut truth, &batch, &present);
    }
    truth.values_mut().flatten().for_each(|(_, value)| *value = Number::Float(value.as_f64()));
    assert_eq!(decoder.samples, truth);
}

#[test]
fn references_lead_back_to_series() {
    let catalog = catalog();
    let mut encoder = Encoder::new(Lane::Live);
    encoder.encode(
        &catalog,
        &batch(1, 1, &[(4, Some(Number::Float(1.0))), (2, Some(Number::Float(1.0)))], &mut Present::default()),
        0,
    );
    assert_eq!(encoder.resolve(0), Some((1, 2)));
    assert_eq!(encoder.resolve(1), Some((1, 4)));
    assert_eq!(encoder.resolve(2), None);
}

/// Series that came and went filled the collector's dictionary until it took no new ones.
#[test]
fn definitions_of_what_has_ended_do_not_pile_up() {
    let mut catalog = Catalog::new();
    let mut group = Group::new("one", "node", 1000);
    group.series =
        (0..200).map(|n: u32| Arc::new(Series { desc: VALUE, labels: Box::new([n.to_string().into()]) })).collect();
    catalog.add(group);
    let mut encoder = Encoder::new(Lane::Live);
    let mut decoder = Decoder::default();
    let mut present = Present::default();
    let (mut resets, mut most) = (0, 0);
    for n in 0..200u32 {
        let what: Vec<_> =
            [(n, Some(Number::Float(1.0)))].into_iter().chain(n.checked_sub(2).map(|ended| (ended, None))).collect();
        let encoded = encoder.encode(&catalog, &batch(u64::from(n) + 1, 0, &what, &mut present), 0);
        resets += encoded.dictionary.iter().filter(|dictionary| dictionary.reset).count();
        deliver(&mut decoder, &encoded);
        most = most.max(encoder.series_defined);
    }
    assert!(resets > 5 && most < 20, "{resets} resets, {most} definitions");
}
