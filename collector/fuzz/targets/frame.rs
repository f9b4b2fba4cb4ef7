//! Any messages of an agent's stream through the decoder of one lane. What is decoded names only series of its own group.
//!
//! ```text
//! (kind u8: even dictionary, odd frame; length u8; message)*
//! ```
#![no_main]

use std::sync::Arc;

use lampad_collector::ingest::Lane;
use lampad_collector::limits::Limits;
use lampad_proto::v1::{Dictionary, Frame};
use libfuzzer_sys::fuzz_target;
use prost::Message as _;

fuzz_target!(|bytes: &[u8]| {
    let mut lane = Lane::new(Arc::new(Limits::default()), Arc::default());
    let mut rest = bytes;
    while let [kind, length, tail @ ..] = rest {
        let (message, after) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = after;
        if kind % 2 == 0 {
            if let Ok(dictionary) = Dictionary::decode(message) {
                lane.define(dictionary);
            }
        } else if let Ok(frame) = Frame::decode(message) {
            let ticks = lane.decode(&frame);
            assert!(lane.is_sound() || ticks.is_err());
            lane.take_left_out();
            for tick in ticks.into_iter().flatten() {
                let mut series: Vec<u32> = tick.values.iter().map(|(series, _)| *series).collect();
                series.sort_unstable();
                assert!(series.windows(2).all(|pair| pair[0] != pair[1]), "a series twice in one tick");
            }
        }
    }
});
