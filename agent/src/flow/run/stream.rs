//! What goes up and comes down a stream that is up.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use lampad_proto::PROTOCOL_INTEGERS;
use lampad_proto::v1::{
    Ack, Frame, KeyFrameWanted, Lane, Order, OrderResult, Refusal, Upward, downward, order, upward,
};
use prost::Message;
use tokio::time::Instant;

use super::{Flow, Stream, Uplink};
use crate::flow::REFUSALS_MAX;
use crate::flow::backfill::Taken;
use crate::spool::{self, Command};
use crate::stats::add;

impl Stream {
    /// Leaves in a frame only what the collector's version of the protocol knows.
    fn fit(&self, frame: &mut Frame) {
        if self.link.welcome.protocol < PROTOCOL_INTEGERS {
            lampad_proto::lower(frame);
        }
    }
}

impl Flow {
    pub(super) fn send_live(&mut self) {
        let Uplink::Up(stream) = &mut self.uplink else { return };
        while let Some(batch) = self.queue.next_unsent() {
            // A dictionary may go with the frame.
            if stream.in_flight.len() >= stream.window || stream.link.up.capacity() < 2 {
                return;
            }
            let catalog = self.parts.catalog.read().unwrap_or_else(PoisonError::into_inner);
            let mut encoded = self.live.encode(&catalog, batch, self.parts.clock.now_ms());
            drop(catalog);
            stream.fit(&mut encoded.frame);
            let sequence = batch.sequence;
            let stats = &self.parts.shared.stats;
            let dictionary = encoded.dictionary.map(upward::Message::Dictionary);
            for message in dictionary.into_iter().chain([upward::Message::Frame(encoded.frame)]) {
                let message = Upward { message: Some(message) };
                add(&stats.bytes_sent, message.encoded_len() as u64);
                // Room was seen above, and a stream that has ended says so below: its frames are spooled then.
                let _ = stream.link.up.try_send(message);
            }
            add(&stats.frames_sent, 1);
            stream.in_flight.push_back((sequence, Instant::now()));
            stream.last_sent = Instant::now();
            self.queue.mark_sent();
        }
    }

    /// Sends of the spool what fits behind the live lane.
    pub(super) fn send_backfill(&mut self, spooled: bool) {
        let Uplink::Up(stream) = &mut self.uplink else { return };
        if spooled {
            stream.backfill.ask_again(false);
        }
        // Only with an empty queue: nothing live waits behind it.
        while stream.link.up.capacity() == stream.link.up.max_capacity() || self.queue.next_unsent().is_none() {
            if stream.link.up.capacity() < 2 || stream.backfill.peek(stream.window).is_none() {
                break;
            }
            let Some((mut message, bytes)) = stream.backfill.sent() else { break };
            let is_frame = matches!(message.message, Some(upward::Message::Frame(_)));
            if let Some(upward::Message::Frame(frame)) = &mut message.message {
                stream.fit(frame);
            }
            add(&self.parts.shared.stats.bytes_sent, bytes as u64);
            add(&self.parts.shared.stats.frames_backfilled, u64::from(is_frame));
            let _ = stream.link.up.try_send(message);
            stream.last_sent = Instant::now();
        }
        if let Some(wanted) = stream.backfill.ask(self.generation)
            && self.parts.disk.send(Command::Next(wanted)).is_err()
        {
            stream.backfill.ask_again(true);
        }
    }

    pub(super) fn chunk(&mut self, chunk: spool::Event) {
        let Uplink::Up(stream) = &mut self.uplink else { return };
        if stream.backfill.take(chunk) == Taken::NeedsNewStream {
            self.lose("older frames have to be sent than those that the collector could not use");
        }
    }

    pub(super) fn heard(&mut self, message: downward::Message) {
        if let Uplink::Up(stream) = &mut self.uplink {
            stream.last_heard = Instant::now();
        }
        match message {
            downward::Message::Ack(ack) => self.acked(&ack),
            downward::Message::KeyFrameWanted(wanted) => self.key_frame_wanted(&wanted),
            downward::Message::Refusal(refusal) => self.refused(&refusal),
            downward::Message::Order(order) => self.ordered(order),
            downward::Message::Pong(_) | downward::Message::Welcome(_) => {}
        }
    }

    fn acked(&mut self, ack: &Ack) {
        let Uplink::Up(stream) = &mut self.uplink else { return };
        self.attempts.acked(&self.parts.target.collector);
        match ack.lane() {
            Lane::Live => {
                let stats = &self.parts.shared.stats;
                while let Some((_, sent)) = stream.in_flight.pop_front_if(|(sequence, _)| *sequence <= ack.through) {
                    add(&stats.frames_acked, 1);
                    add(&stats.ack_us, sent.elapsed().as_micros() as u64);
                }
                self.queue.acked(self.generation, ack.through);
                let generation = self.generation;
                // Lost only when the disk is far behind; the collector recognises the frames when they come again.
                let has_spooled = self.parts.shared.spool.frames.load(Ordering::Relaxed) > 0;
                if has_spooled {
                    let _ = self.parts.disk.send(Command::ReleaseLive { generation, through: ack.through });
                }
            }
            Lane::Backfill => {
                let acked = stream.backfill.acked(ack.through);
                if !acked.is_empty() {
                    let _ = self.parts.disk.send(Command::Release(acked.iter().collect()));
                }
            }
            Lane::Unspecified => {}
        }
    }

    /// The collector lacks what a frame builds on. It has stored none since; all of them go the other way.
    fn key_frame_wanted(&mut self, wanted: &KeyFrameWanted) {
        add(&self.parts.shared.stats.key_frames_wanted, 1);
        tracing::info!(lane = wanted.lane().as_str_name(), reason = wanted.reason, "the collector wants a key frame");
        match wanted.lane() {
            Lane::Live => {
                self.queue.lost(self.generation);
                self.generation += 1;
                self.live.reset();
                if let Uplink::Up(stream) = &mut self.uplink {
                    stream.in_flight.clear();
                    stream.backfill.ask_again(false);
                }
            }
            _ => self.segment_refused(),
        }
    }

    /// The lane begins anew, with the same segment; one that is refused again and again would block all behind it.
    fn segment_refused(&mut self) {
        self.askers += 1;
        let Uplink::Up(stream) = &mut self.uplink else { return };
        let Some(segment) = stream.backfill.restart(self.askers) else { return };
        let (last, times) = self.refused_segment;
        let times = if last == segment { times + 1 } else { 1 };
        self.refused_segment = (segment, times);
        if times >= REFUSALS_MAX {
            // A full command queue: it is refused once more then, and set aside after all.
            let _ = self.parts.disk.send(Command::SetAside(segment));
        }
    }

    fn refused(&mut self, refusal: &Refusal) {
        add(&self.parts.shared.stats.series_refused, refusal.series.len() as u64);
        // Each reason once per connection: the collector repeats them for each frame that brings the series.
        if self.refusal_reasons.contains(&refusal.reason) || self.refusal_reasons.len() >= 64 {
            return;
        }
        self.refusal_reasons.push(refusal.reason.clone());
        let catalog = self.parts.catalog.read().unwrap_or_else(PoisonError::into_inner);
        let name = |reference: &u32| {
            let (group, series) = self.live.resolve(*reference)?;
            Some(catalog.group(group)?.series.get(series as usize)?.desc.name.to_string())
        };
        let first = refusal.series.first().filter(|_| refusal.lane() == Lane::Live).and_then(name).unwrap_or_default();
        tracing::warn!(series = refusal.series.len(), first, reason = refusal.reason, "the collector refuses series");
    }

    fn ordered(&mut self, order: Order) {
        let error = match order.order {
            Some(order::Order::Configure(_)) => "this agent takes its settings from its own file only",
            None => "this agent does not know that order",
        };
        tracing::warn!(order = order.id, "order refused: {error}");
        self.say(upward::Message::OrderResult(OrderResult { id: order.id, error: error.to_owned() }));
    }

    pub(super) fn say(&mut self, message: upward::Message) {
        if let Uplink::Up(stream) = &mut self.uplink {
            // A full queue: what waits in it says as well that the agent lives.
            let _ = stream.link.up.try_send(Upward { message: Some(message) });
            stream.last_sent = Instant::now();
        }
    }
}
