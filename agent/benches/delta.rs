//! What the encoder costs: nanoseconds and bytes per changed value, for a server of 1,600 series of which a share changes.
//!
//! `cargo bench -p lampad-agent --bench delta`

use std::sync::Arc;

use std::time::Instant;

use lampad_agent::delta::{Batch, Catalog, Encoder, Group, GroupTick, Series};
use lampad_agent::module::Desc;
use lampad_agent::tick::Changes;
use lampad_proto::v1::Lane;
use prost::Message;

const VALUE: Desc = Desc::counter("bench_value_total", "A value.").labels(&["n"]);
const SERIES: u32 = 1600;
const TICKS: u64 = 2000;

/// The value of a series after so many ticks.
type Value = fn(u32, u64) -> f64;

/// What kinds of values there are, and how they move.
const KINDS: [(&str, Value); 3] = [
    ("counters, whole steps", |n, t| (u64::from(n) * 1_000_003 + t * u64::from(n % 50 + 1)) as f64),
    ("CPU seconds, two digits", |n, t| (u64::from(n) * 100_000 + t * 7) as f64 / 100.0),
    ("ratios, all bits", |n, t| 1.0 / (f64::from(n) + t as f64 + 3.0)),
];

#[allow(clippy::print_stdout)]
fn main() {
    println!("{:<28}{:>10}{:>16}{:>16}{:>14}", "values", "changed", "ns / changed", "bytes / changed", "bytes / tick");
    for (kind, value) in KINDS {
        for changed in [16, 160, 1600] {
            let (ns, bytes) = run(value, changed);
            let values = f64::from(changed) * TICKS as f64;
            let tick = bytes as f64 / TICKS as f64;
            println!("{kind:<28}{changed:>10}{:>16.1}{:>16.2}{tick:>14.0}", ns as f64 / values, bytes as f64 / values);
        }
    }
}

/// Time and bytes to encode `TICKS` ticks, to the very bytes of the wire.
fn run(value: Value, changed: u32) -> (u128, usize) {
    let mut catalog = Catalog::new();
    let mut group = Group::new("bench", "node", 1000);
    group.series =
        (0..SERIES).map(|n| Arc::new(Series { desc: VALUE, labels: Box::new([n.to_string().into()]) })).collect();
    catalog.add(group);
    let batch = |sequence: u64, series: &mut dyn Iterator<Item = u32>| {
        let values = series.map(|n| (n, value(n, sequence).into())).collect();
        let changes = Changes { values, ended: Vec::new() };
        Batch { sequence, ticks: vec![GroupTick { group: 0, at_ms: sequence as i64 * 1000, changes }] }
    };
    let mut encoder = Encoder::new(Lane::Live);
    encoder.encode(&catalog, &batch(0, &mut (0..SERIES)), 0);
    let step = (SERIES / changed) as usize;
    let batches: Vec<_> = (1..=TICKS).map(|sequence| batch(sequence, &mut (0..SERIES).step_by(step))).collect();
    let mut out = Vec::new();
    let mut bytes = 0;
    let begun = Instant::now();
    for batch in &batches {
        out.clear();
        let encoded = encoder.encode(&catalog, batch, 0);
        assert!(encoded.dictionary.is_none());
        out.reserve(encoded.frame.encoded_len());
        encoded.frame.encode_raw(&mut out);
        bytes += out.len();
    }
    (begun.elapsed().as_nanos(), bytes)
}
