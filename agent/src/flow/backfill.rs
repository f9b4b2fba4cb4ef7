//! The back-fill lane of one stream: segments of the spool, oldest first, a bounded number of bytes at a time.
//!
//! A segment is asked for when every frame of the one before it is acked. So a refusal can only speak of the segment that is
//! under way, and no ack that is still to come can be taken for one of an older segment that turns up later.

use std::collections::VecDeque;
use std::time::Duration;

use lampad_proto::v1::{Upward, upward};
use prost::Message;
use tokio::time::Instant;

use super::BACKFILL_BYTES_MAX;
use crate::spool::{Event, Ranges, Wanted};

/// How long a disk that failed is left alone.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct Backfill {
    /// Tells the answers to this lane's questions from those to an earlier one's.
    asker: u64,
    /// The segment under way and its highest frame.
    segment: Option<(u64, u64)>,
    messages: VecDeque<Upward>,
    /// Frames sent and not acked: number and bytes.
    in_flight: VecDeque<(u64, usize)>,
    bytes: usize,
    /// Segments that this stream carried.
    sent: Vec<u64>,
    /// What was under way when the lane began anew: acks for it may still come.
    refused: Option<(u64, u64)>,
    asked: bool,
    /// Nothing was left when last asked.
    exhausted: bool,
    /// The disk failed; it is not asked before this.
    not_before: Option<Instant>,
    /// More came to the spool since it was asked, so an answer that nothing is left is out of date.
    more: bool,
}

/// What to do with a segment that the spool gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    Yes,
    Nothing,
    /// An ack for what was refused could be taken for one of this segment, which is older; only a new stream tells them apart.
    NeedsNewStream,
}

impl Backfill {
    pub fn new(asker: u64) -> Self {
        Self { asker, ..Self::default() }
    }

    /// What to ask the spool for, if it is time.
    pub fn ask(&mut self, generation: u64) -> Option<Wanted> {
        let too_soon = self.not_before.is_some_and(|until| Instant::now() < until);
        if too_soon || self.asked || self.exhausted || !self.messages.is_empty() || !self.in_flight.is_empty() {
            return None;
        }
        self.asked = true;
        self.more = false;
        Some(Wanted { asker: self.asker, generation, sent: self.sent.clone() })
    }

    /// The question did not reach the spool, or there may be more now.
    pub fn ask_again(&mut self, lost: bool) {
        self.exhausted = false;
        self.more = true;
        if lost {
            self.asked = false;
        }
    }

    pub fn take(&mut self, event: Event) -> Taken {
        if event.asker != self.asker {
            return Taken::Nothing;
        }
        self.asked = false;
        self.not_before = event.failed.then(|| Instant::now() + AFTER_FAILURE);
        let Some(chunk) = event.chunk else {
            self.exhausted = !self.more && !event.failed;
            return Taken::Nothing;
        };
        let first = chunk.frames.first().unwrap_or(u64::MAX);
        if self.refused.is_some_and(|(segment, highest)| segment != chunk.segment && first <= highest) {
            return Taken::NeedsNewStream;
        }
        self.refused = None;
        self.segment = Some((chunk.segment, chunk.frames.last().unwrap_or_default()));
        self.sent.push(chunk.segment);
        self.messages = chunk.messages.into();
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

    /// Begins the lane anew on the same stream, because the collector wants so. Returns the segment that it could not use.
    pub fn restart(&mut self, asker: u64) -> Option<u64> {
        let refused = self.segment.or(self.refused);
        let number = refused.map(|(segment, _)| segment);
        let mut sent = std::mem::take(&mut self.sent);
        sent.retain(|segment| Some(*segment) != number);
        *self = Self { asker, sent, refused, ..Self::default() };
        number
    }
}

#[cfg(test)]
mod tests {
    use lampad_proto::v1::Frame;

    use super::*;
    use crate::spool::Chunk;

    fn event(asker: u64, segment: u64, frames: std::ops::RangeInclusive<u64>) -> Event {
        let mut ranges = Ranges::default();
        frames.clone().for_each(|sequence| ranges.push(sequence));
        let message =
            |sequence| Upward { message: Some(upward::Message::Frame(Frame { sequence, ..Frame::default() })) };
        Event {
            asker,
            chunk: Some(Chunk { segment, messages: frames.map(message).collect(), frames: ranges }),
            failed: false,
        }
    }

    /// An answer that came late was taken for one of the stream after, and cost that one as well.
    #[test]
    fn an_answer_to_the_lane_before_is_dropped() {
        let mut lane = Backfill::new(2);
        assert!(lane.ask(1).is_some());
        assert_eq!(lane.take(event(1, 7, 1..=3)), Taken::Nothing);
        assert!(lane.peek(10).is_none());
        assert!(lane.ask(1).is_none(), "its own answer is still to come");
        assert_eq!(lane.take(event(2, 7, 1..=3)), Taken::Yes);
    }

    /// An answer of a failing disk was taken for "nothing waits", and what waited stayed until something else was spooled.
    #[tokio::test(start_paused = true)]
    async fn a_disk_that_failed_is_asked_again_a_little_later() {
        let mut lane = Backfill::new(1);
        lane.ask(1).unwrap();
        assert_eq!(lane.take(Event { asker: 1, chunk: None, failed: true }), Taken::Nothing);
        assert!(lane.ask(1).is_none());
        tokio::time::advance(AFTER_FAILURE).await;
        assert!(lane.ask(1).is_some());
        assert_eq!(lane.take(Event { asker: 1, chunk: None, failed: false }), Taken::Nothing);
        assert!(lane.ask(1).is_none(), "nothing waits");
    }

    #[test]
    fn the_next_segment_waits_for_the_last_ack() {
        let mut lane = Backfill::new(1);
        lane.ask(1).unwrap();
        lane.take(event(1, 7, 5..=6));
        while lane.sent().is_some() {}
        lane.acked(5);
        assert!(lane.ask(1).is_none());
        assert_eq!(lane.acked(6).count(), 1);
        assert_eq!(lane.ask(1).unwrap().sent, [7]);
        assert_eq!(lane.take(event(1, 8, 1..=2)), Taken::Yes, "older numbers do no harm then");
    }

    #[test]
    fn after_a_refusal_the_same_segment_comes_or_a_later_one() {
        for (segment, frames, taken) in
            [(7, 5..=9, Taken::Yes), (8, 10..=12, Taken::Yes), (6, 1..=4, Taken::NeedsNewStream)]
        {
            let mut lane = Backfill::new(1);
            lane.ask(1).unwrap();
            lane.take(event(1, 7, 5..=9));
            lane.sent();
            assert_eq!(lane.restart(2), Some(7));
            assert_eq!(lane.ask(1).unwrap().sent, [0; 0]);
            assert_eq!(lane.take(event(2, segment, frames)), taken, "segment {segment}");
        }
    }
}
