//! The back-fill lane of one stream: segments of the spool, oldest first, a bounded number of bytes at a time.

use std::collections::VecDeque;

use lampad_proto::v1::{Upward, upward};
use prost::Message;

use super::BACKFILL_BYTES_MAX;
use crate::spool::{Chunk, Ranges, Wanted};

/// Segments that were refused so often are given up.
const REFUSALS_MAX: u32 = 3;

#[derive(Debug, Default)]
pub struct Backfill {
    messages: VecDeque<Upward>,
    frames: Ranges,
    /// Frames sent and not acked: number and bytes.
    in_flight: VecDeque<(u64, usize)>,
    bytes: usize,
    /// Segments that this stream carried.
    sent: Vec<u64>,
    highest: u64,
    asked: bool,
    /// Nothing was left when last asked.
    exhausted: bool,
    /// More came to the spool since it was asked, so an answer that nothing is left is out of date.
    more: bool,
}

/// What to do with a segment that the spool gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    Yes,
    Nothing,
    /// It is older than what this stream carried; only a new stream can take it, since numbers ascend within a lane.
    NeedsNewStream,
}

impl Backfill {
    /// What to ask the spool for, if it is time.
    pub fn ask(&mut self, generation: u64) -> Option<Wanted> {
        if self.asked || self.exhausted || !self.messages.is_empty() {
            return None;
        }
        self.asked = true;
        self.more = false;
        Some(Wanted { generation, sent: self.sent.clone() })
    }

    /// The question did not reach the spool, or there may be more now.
    pub fn ask_again(&mut self, lost: bool) {
        self.exhausted = false;
        self.more = true;
        if lost {
            self.asked = false;
        }
    }

    pub fn take(&mut self, chunk: Option<Chunk>) -> Taken {
        self.asked = false;
        let Some(chunk) = chunk else {
            self.exhausted = !self.more;
            return Taken::Nothing;
        };
        if chunk.frames.first().is_some_and(|first| first <= self.highest) {
            return Taken::NeedsNewStream;
        }
        self.highest = chunk.frames.last().unwrap_or(self.highest);
        self.sent.push(chunk.segment);
        self.messages = chunk.messages.into();
        self.frames = chunk.frames;
        Taken::Yes
    }

    /// The next message, while the window is open.
    pub fn peek(&self, window_frames: usize) -> Option<&Upward> {
        let open = self.bytes < BACKFILL_BYTES_MAX && self.in_flight.len() < window_frames;
        if open { self.messages.front() } else { None }
    }

    /// Takes the message that was peeked at, which is under way now. Returns its length.
    pub fn sent(&mut self) -> Option<(Upward, usize)> {
        let message = self.messages.pop_front()?;
        let bytes = message.encoded_len();
        if let Some(upward::Message::Frame(frame)) = &message.message {
            self.in_flight.push_back((frame.sequence, bytes));
            self.bytes += bytes;
        }
        Some((message, bytes))
    }

    /// The frames that an ack covers.
    pub fn acked(&mut self, through: u64) -> Ranges {
        let mut acked = Ranges::default();
        while let Some((sequence, bytes)) = self.in_flight.pop_front_if(|(sequence, _)| *sequence <= through) {
            self.bytes -= bytes;
            acked.push(sequence);
        }
        acked
    }

    /// The frames to give up when the collector refuses a segment again and again.
    pub fn hopeless(&self, refusals: u32) -> Option<&Ranges> {
        (refusals >= REFUSALS_MAX).then_some(&self.frames)
    }
}
