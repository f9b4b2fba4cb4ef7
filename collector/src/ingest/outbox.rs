//! What waits to go down a stream. Each kind of message has a bounded place, and newer replaces older where that loses
//! nothing, so that an agent that never reads costs one outbox and delays nobody.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use futures::task::AtomicWaker;
use lampad_proto::v1::downward::Message;
use lampad_proto::v1::{Ack, Downward, KeyFrameWanted, Lane, Order, Pong, Refusal, Welcome};
use parking_lot::Mutex;
use tonic::Status;

/// Refusals that wait; the oldest is dropped, the collector's log and counters have it.
const REFUSALS_MAX: usize = 64;
/// Orders that wait for an agent to read them.
const ORDERS_MAX: usize = 16;

#[derive(Debug, Default)]
pub struct Outbox {
    waiting: Mutex<Waiting>,
    reader: AtomicWaker,
}

#[derive(Debug, Default)]
struct Waiting {
    welcome: Option<Welcome>,
    pong: Option<Pong>,
    /// Live, back-fill: the newest covers all before it.
    acks: [Option<u64>; 2],
    key_frames: [Option<String>; 2],
    refusals: VecDeque<Refusal>,
    orders: VecDeque<Order>,
    end: Option<Option<Status>>,
}

const LANES: [Lane; 2] = [Lane::Live, Lane::Backfill];

impl Outbox {
    fn put(&self, put: impl FnOnce(&mut Waiting)) {
        put(&mut self.waiting.lock());
        self.reader.wake();
    }

    pub fn welcome(&self, welcome: Welcome) {
        self.put(|waiting| waiting.welcome = Some(welcome));
    }

    pub fn pong(&self, pong: Pong) {
        self.put(|waiting| waiting.pong = Some(pong));
    }

    pub fn ack(&self, lane: usize, through: u64) {
        self.put(|waiting| waiting.acks[lane] = waiting.acks[lane].max(Some(through)));
    }

    /// Asks for a key frame. An ack that waits covers only frames before the reset, and goes first.
    pub fn key_frame_wanted(&self, lane: usize, reason: String) {
        self.put(|waiting| waiting.key_frames[lane] = Some(reason));
    }

    pub fn refuse(&self, refusal: Refusal) {
        self.put(|waiting| {
            if waiting.refusals.len() == REFUSALS_MAX {
                waiting.refusals.pop_front();
            }
            waiting.refusals.push_back(refusal);
        });
    }

    /// Hands an order to the agent; given back where too many wait already.
    pub fn order(&self, order: Order) -> Result<(), Order> {
        let mut waiting = self.waiting.lock();
        if waiting.orders.len() == ORDERS_MAX {
            return Err(order);
        }
        waiting.orders.push_back(order);
        drop(waiting);
        self.reader.wake();
        Ok(())
    }

    /// Ends the stream after what waits; the first end counts.
    pub fn end(&self, status: Option<Status>) {
        self.put(|waiting| {
            waiting.end.get_or_insert(status);
        });
    }
}

impl Waiting {
    fn next(&mut self) -> Option<Message> {
        if let Some(welcome) = self.welcome.take() {
            return Some(Message::Welcome(welcome));
        }
        for (at, lane) in LANES.into_iter().enumerate() {
            if let Some(through) = self.acks[at].take() {
                return Some(Message::Ack(Ack { lane: lane.into(), through }));
            }
            if let Some(reason) = self.key_frames[at].take() {
                return Some(Message::KeyFrameWanted(KeyFrameWanted { lane: lane.into(), reason }));
            }
        }
        if let Some(refusal) = self.refusals.pop_front() {
            return Some(Message::Refusal(refusal));
        }
        if let Some(order) = self.orders.pop_front() {
            return Some(Message::Order(order));
        }
        // Last, so that it answers for all that was said before the ping.
        self.pong.take().map(Message::Pong)
    }
}

/// The reading end, which the transport polls when the agent has room for more.
#[derive(Debug)]
pub struct Replies(pub Arc<Outbox>);

impl Stream for Replies {
    type Item = Result<Downward, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.reader.register(context.waker());
        let mut waiting = self.0.waiting.lock();
        if let Some(message) = waiting.next() {
            return Poll::Ready(Some(Ok(Downward { message: Some(message) })));
        }
        match &mut waiting.end {
            Some(Some(_)) => {
                let status = waiting.end.replace(None).flatten();
                Poll::Ready(status.map(Err))
            }
            Some(None) => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;

    #[tokio::test]
    async fn a_reader_that_slept_gets_the_newest_ack_only() {
        let outbox = Arc::new(Outbox::default());
        for through in 1..=100_000 {
            outbox.ack(0, through);
        }
        for _ in 0..1000 {
            outbox.refuse(Refusal::default());
        }
        outbox.end(Some(Status::unavailable("x")));
        let replies: Vec<_> = Replies(outbox).collect().await;
        assert_eq!(replies.len(), 1 + REFUSALS_MAX + 1);
        let first = replies[0].as_ref().unwrap().message.clone();
        assert_eq!(first, Some(Message::Ack(Ack { lane: Lane::Live.into(), through: 100_000 })));
        assert!(replies.last().unwrap().is_err(), "the end comes last");
    }
}
