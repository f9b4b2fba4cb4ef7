//! The loop itself.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::future::BoxFuture;
use lampad_proto::v1::{
    Ack, Downward, Hello, KeyFrameWanted, Label, Lane, ModuleState, Order, OrderResult, Ping, Refusal, Upward,
    downward, order, upward,
};
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::backfill::{Backfill, Taken};
use super::queue::Queue;
use super::{
    DISK_ANSWERS_WITHIN, DRAIN, FRAME_SERIES_MAX, GOODBYE, IDLE_PING, MEMORY_MAX, MEMORY_VALUES_MAX, PING,
    REFUSALS_MAX, SILENCE_MAX,
};
use crate::clock::Clock;
use crate::delta::{Batch, Catalog, Encoder, GroupTick};
use crate::identity::Identity;
use crate::sampler::Sampled;
use crate::spool::{self, Command, SpoolDisk};
use crate::stats::{Shared, add};
use crate::uplink::{Attempts, Link, Target, UplinkError, Verdict};

/// What the loop is built from.
pub struct Parts {
    pub identity: Identity,
    pub target: Target,
    pub labels: Vec<Label>,
    pub hostname: String,
    pub clock: Arc<Clock>,
    pub catalog: Arc<RwLock<Catalog>>,
    pub samples: mpsc::Receiver<Sampled>,
    pub control: mpsc::Receiver<Control>,
    pub disk: SpoolDisk,
    pub chunks: mpsc::Receiver<spool::Event>,
    pub shared: Shared,
}

/// Orders from the rest of the agent.
#[derive(Debug)]
pub enum Control {
    /// Labels or the way to the collector have changed: connect anew.
    Reconnect { target: Target, labels: Vec<Label> },
    /// Groups have changed: define them anew.
    Redefine,
}

pub struct Flow {
    parts: Parts,
    live: Encoder,
    queue: Queue,
    /// Numbers live streams, and lane restarts within one, from 1.
    generation: u64,
    uplink: Uplink,
    attempts: Attempts,
    /// Numbers back-fill lanes.
    askers: u64,
    /// The spool segment that the collector refused last, and how often.
    refused_segment: (u64, u32),
    /// Whether it was said that the spool does not answer.
    disk_hangs: Arc<AtomicBool>,
    told_modules: Vec<ModuleState>,
    refusal_reasons: Vec<String>,
}

enum Uplink {
    Waiting(Instant),
    Connecting(BoxFuture<'static, Result<Link, UplinkError>>),
    Up(Box<Stream>),
}

/// A stream that is up.
struct Stream {
    link: Box<Link>,
    window: usize,
    /// Live frames sent and not acked.
    in_flight: VecDeque<(u64, Instant)>,
    backfill: Backfill,
    since: Instant,
    last_sent: Instant,
    last_ping: Instant,
    last_heard: Instant,
    pings: u64,
}

/// Something happened.
enum Event {
    Connected(Result<Box<Link>, UplinkError>),
    Down(Result<Option<Downward>, Status>),
    Retry,
}

impl Flow {
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            live: Encoder::new(Lane::Live),
            queue: Queue::default(),
            generation: 0,
            uplink: Uplink::Waiting(Instant::now()),
            attempts: Attempts::default(),
            askers: 0,
            refused_segment: (0, 0),
            disk_hangs: Arc::default(),
            told_modules: Vec::new(),
            refusal_reasons: Vec::new(),
        }
    }

    /// Runs until `stop`, then drains: what is not acked by then is on disk when this returns.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            self.move_on();
            let due = self.due();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                event = next_event(&mut self.uplink) => self.happened(event),
                Some(sampled) = self.parts.samples.recv() => self.sampled(sampled).await,
                Some(chunk) = self.parts.chunks.recv() => self.chunk(chunk),
                Some(control) = self.parts.control.recv() => self.controlled(control),
                () = sleep_until(due) => self.ping_if_due(),
            }
        }
        self.drain().await
    }

    /// Numbers what the samplers have finished, as one batch.
    async fn sampled(&mut self, first: Sampled) {
        // Modules tick in step: those that are about to finish join this frame.
        tokio::task::yield_now().await;
        let mut ticks = Vec::new();
        let read = first.read;
        self.define(first, &mut ticks);
        while let Ok(next) = self.parts.samples.try_recv() {
            self.define(next, &mut ticks);
        }
        add(&self.parts.shared.stats.ticks, ticks.len() as u64);
        for ticks in self.split(ticks) {
            let epoch = self.parts.identity.epoch();
            let sequence = self.parts.identity.number();
            if self.parts.identity.epoch() != epoch {
                self.lose("the numbers of a new epoch need a stream of their own");
            }
            self.queue.push(Batch { sequence, ticks });
        }
        self.send_live();
        add(&self.parts.shared.stats.encode_us, read.elapsed().as_micros() as u64);
    }

    /// One frame for all, or several where their key ticks would make it too large.
    fn split(&self, ticks: Vec<GroupTick>) -> Vec<Vec<GroupTick>> {
        let catalog = self.parts.catalog.read().unwrap_or_else(PoisonError::into_inner);
        let mut frames = Vec::with_capacity(1);
        let mut frame = Vec::with_capacity(ticks.len());
        let mut total = 0;
        for tick in ticks {
            let series = catalog.group(tick.group).map_or(0, |group| group.series.len());
            if !frame.is_empty() && total + series > FRAME_SERIES_MAX {
                frames.push(std::mem::take(&mut frame));
                total = 0;
            }
            total += series;
            frame.push(tick);
        }
        frames.push(frame);
        frames
    }

    fn define(&self, sampled: Sampled, ticks: &mut Vec<GroupTick>) {
        if !sampled.new_series.is_empty() {
            let mut catalog = self.parts.catalog.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(group) = catalog.group_mut(sampled.group) {
                group.series.extend(sampled.new_series);
            }
        }
        ticks.push(GroupTick { group: sampled.group, at_ms: sampled.at_ms, changes: sampled.changes });
    }

    /// Does all that can be done now.
    fn move_on(&mut self) {
        self.send_live();
        self.queue.expire(MEMORY_MAX, self.generation, &mut self.live);
        let spooled = self.queue.hand_over(&self.parts.disk);
        let lost = self.queue.enforce_bound(MEMORY_VALUES_MAX, &mut self.live);
        if lost > 0 {
            tracing::error!(frames = lost, "the disk is too slow and memory is full: frames are lost");
            add(&self.parts.shared.stats.frames_dropped, lost);
        }
        self.send_backfill(spooled);
        let waiting = self.queue.frames() as u64;
        self.parts.shared.stats.frames_waiting.store(waiting, std::sync::atomic::Ordering::Relaxed);
    }

    fn send_live(&mut self) {
        let Uplink::Up(stream) = &mut self.uplink else { return };
        while let Some(batch) = self.queue.next_unsent() {
            // A dictionary may go with the frame.
            if stream.in_flight.len() >= stream.window || stream.link.up.capacity() < 2 {
                return;
            }
            let catalog = self.parts.catalog.read().unwrap_or_else(PoisonError::into_inner);
            let encoded = self.live.encode(&catalog, batch, self.parts.clock.now_ms());
            drop(catalog);
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
    fn send_backfill(&mut self, spooled: bool) {
        let Uplink::Up(stream) = &mut self.uplink else { return };
        if spooled {
            stream.backfill.ask_again(false);
        }
        // Only with an empty queue: nothing live waits behind it.
        while stream.link.up.capacity() == stream.link.up.max_capacity() || self.queue.next_unsent().is_none() {
            if stream.link.up.capacity() < 2 || stream.backfill.peek(stream.window).is_none() {
                break;
            }
            let Some((message, bytes)) = stream.backfill.sent() else { break };
            let is_frame = matches!(message.message, Some(upward::Message::Frame(_)));
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

    fn chunk(&mut self, chunk: spool::Event) {
        let Uplink::Up(stream) = &mut self.uplink else { return };
        if stream.backfill.take(chunk) == Taken::NeedsNewStream {
            self.lose("older frames have to be sent than those that the collector could not use");
        }
    }

    fn controlled(&mut self, control: Control) {
        match control {
            Control::Redefine => {
                self.live.reset();
                // A full command queue: the segment ends by its age or size at the latest.
                let _ = self.parts.disk.send(Command::Roll);
            }
            Control::Reconnect { target, labels } => {
                self.parts.target = target;
                self.parts.labels = labels;
                self.lose("the configuration has changed");
                self.uplink = Uplink::Waiting(Instant::now());
            }
        }
    }

    fn happened(&mut self, event: Event) {
        match event {
            Event::Retry => {
                self.attempts.begin();
                self.uplink = Uplink::Connecting(self.connect());
            }
            Event::Connected(Ok(link)) => self.connected(link),
            Event::Connected(Err(error)) => {
                add(&self.parts.shared.stats.connect_failures, 1);
                self.failed(&error);
            }
            Event::Down(Ok(Some(Downward { message: Some(message) }))) => self.heard(message),
            // A message of a later version: not for us.
            Event::Down(Ok(Some(Downward { message: None }))) => {}
            Event::Down(Ok(None)) => {
                let collector = self.parts.target.collector.clone();
                self.lost();
                self.failed(&UplinkError::Ended { collector, detail: "it said goodbye".to_owned() });
            }
            Event::Down(Err(status)) => {
                let error = UplinkError::from_status(&self.parts.target.collector, &status);
                self.lost();
                self.failed(&error);
            }
        }
    }

    fn connect(&self) -> BoxFuture<'static, Result<Link, UplinkError>> {
        let (answer, pending) = oneshot::channel();
        // The disk is behind: the collector will recognise what it has by the numbers.
        let asked = self.parts.disk.send(Command::Pending(answer)).is_ok();
        let mut hello = self.hello();
        let target = self.parts.target.clone();
        let clock = self.parts.clock.clone();
        let hangs = self.disk_hangs.clone();
        Box::pin(async move {
            let answered = match timeout(DISK_ANSWERS_WITHIN, pending).await {
                Ok(Ok(pending)) if asked => {
                    hello.pending = pending.into_iter().filter(|range| range.last < hello.next_sequence).collect();
                    true
                }
                _ => false,
            };
            if !hangs.swap(!answered, Ordering::Relaxed) && !answered {
                tracing::warn!("the spool's disk does not answer; connecting without what waits on it");
            }
            hello.clock_ms = clock.now_ms();
            target.connect(hello).await
        })
    }

    fn hello(&self) -> Hello {
        let next = self.queue.first_unsent().unwrap_or(self.parts.identity.next_sequence());
        Hello {
            protocol_min: *lampad_proto::PROTOCOL.start(),
            protocol_max: *lampad_proto::PROTOCOL.end(),
            agent_id: self.parts.identity.agent_id().to_vec(),
            epoch: self.parts.identity.epoch(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            hostname: self.parts.hostname.clone(),
            labels: self.parts.labels.clone(),
            modules: self.modules(),
            next_sequence: next,
            pending: Vec::new(),
            clock_ms: 0, // when it leaves
        }
    }

    fn modules(&self) -> Vec<ModuleState> {
        let state = |module: &Arc<crate::sampler::ModuleHealth>| ModuleState {
            name: module.spec.name.to_owned(),
            interval_ms: module.schedule().interval.as_millis() as u32,
            up: module.up.load(std::sync::atomic::Ordering::Relaxed),
            error: module.error(),
        };
        self.parts.shared.modules().iter().map(state).collect()
    }

    fn connected(&mut self, link: Box<Link>) {
        self.attempts.worked(&self.parts.target.collector);
        add(&self.parts.shared.stats.connects, 1);
        self.parts.shared.stats.connected.store(true, std::sync::atomic::Ordering::Relaxed);
        self.generation += 1;
        self.askers += 1;
        self.live.reset();
        self.told_modules = Vec::new();
        if !link.welcome.durable.is_empty() {
            let _ = self.parts.disk.send(Command::Release(link.welcome.durable.clone()));
        }
        let now = Instant::now();
        self.uplink = Uplink::Up(Box::new(Stream {
            window: (link.welcome.window_frames as usize).max(1),
            link,
            in_flight: VecDeque::new(),
            backfill: Backfill::new(self.askers),
            since: now,
            last_sent: now,
            last_ping: now,
            last_heard: now,
            pings: 0,
        }));
        self.ping();
    }

    fn heard(&mut self, message: downward::Message) {
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
                let has_spooled = self.parts.shared.spool.frames.load(std::sync::atomic::Ordering::Relaxed) > 0;
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

    fn say(&mut self, message: upward::Message) {
        if let Uplink::Up(stream) = &mut self.uplink {
            // A full queue: what waits in it says as well that the agent lives.
            let _ = stream.link.up.try_send(Upward { message: Some(message) });
            stream.last_sent = Instant::now();
        }
    }

    fn ping_if_due(&mut self) {
        let Uplink::Up(stream) = &self.uplink else { return };
        if stream.last_heard.elapsed() >= SILENCE_MAX {
            self.lose("nothing came down for too long");
        } else if stream.ping_due() <= Instant::now() {
            self.ping();
        }
    }

    fn ping(&mut self) {
        let modules = self.modules();
        let news = modules.iter().filter(|module| !self.told_modules.contains(module)).cloned().collect();
        let clock_ms = self.parts.clock.now_ms();
        let Uplink::Up(stream) = &mut self.uplink else { return };
        stream.pings += 1;
        stream.last_ping = Instant::now();
        let id = stream.pings;
        self.say(upward::Message::Ping(Ping { id, clock_ms, modules: news }));
        self.told_modules = modules;
    }

    /// Gives up the stream for a reason of our own.
    fn lose(&mut self, reason: &str) {
        tracing::info!(reason, "connecting anew");
        self.lost();
        self.uplink = Uplink::Waiting(Instant::now() + Duration::from_millis(50));
    }

    fn lost(&mut self) {
        if let Uplink::Up(stream) = &self.uplink {
            tracing::debug!(seconds = stream.since.elapsed().as_secs_f64(), "stream ended");
        }
        self.parts.shared.stats.connected.store(false, std::sync::atomic::Ordering::Relaxed);
        self.refusal_reasons.clear();
        self.queue.lost(self.generation);
        // From here on no stream of this number is alive: the spool may send its frames.
        self.generation += 1;
        self.uplink = Uplink::Waiting(Instant::now());
    }

    fn failed(&mut self, error: &UplinkError) {
        if error.verdict() == Verdict::NewEpoch {
            self.parts.identity.new_epoch();
        }
        self.uplink = Uplink::Waiting(Instant::now() + self.attempts.failed(error));
    }

    /// When the loop has to look again though nothing happens.
    fn due(&self) -> Instant {
        let now = Instant::now();
        let mut due = now + PING;
        if let Some(expiry) = self.queue.due(MEMORY_MAX) {
            due = due.min(expiry);
        }
        if self.queue.is_behind() {
            due = due.min(now + Duration::from_millis(100));
        }
        if let Uplink::Up(stream) = &self.uplink {
            due = due.min(stream.ping_due());
            // The connection is taking what was handed over; nothing tells when it has.
            let live_waits = self.queue.next_unsent().is_some() && stream.in_flight.len() < stream.window;
            if live_waits || stream.backfill.peek(stream.window).is_some() {
                due = due.min(now + Duration::from_millis(2));
            }
        }
        due
    }

    /// Sends what is left, waits a moment for acks, and puts the rest on disk.
    async fn drain(mut self) -> anyhow::Result<()> {
        while let Ok(sampled) = self.parts.samples.try_recv() {
            self.sampled(sampled).await;
        }
        let deadline = Instant::now() + DRAIN;
        while matches!(self.uplink, Uplink::Up(_)) && !self.queue.all_acked() {
            self.send_live();
            match timeout_at(deadline, next_event(&mut self.uplink)).await {
                Ok(Event::Down(Ok(Some(Downward { message: Some(message) })))) => self.heard(message),
                _ => break,
            }
        }
        if let Uplink::Up(stream) = std::mem::replace(&mut self.uplink, Uplink::Waiting(deadline)) {
            goodbye(*stream.link).await;
        }
        self.queue.lost(self.generation);
        self.queue.expire(Duration::ZERO, self.generation, &mut self.live);
        let unacked = self.queue.frames();
        while self.queue.is_behind() {
            self.queue.hand_over(&self.parts.disk);
            if self.queue.is_behind() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        let (answer, flushed) = oneshot::channel();
        let mut command = Command::Flush(answer);
        while let Err(back) = self.parts.disk.send(command) {
            command = back;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        flushed.await??;
        self.parts.identity.close()?;
        tracing::info!(spooled = unacked, "stopped");
        Ok(())
    }
}

impl Stream {
    fn ping_due(&self) -> Instant {
        (self.last_sent + IDLE_PING).min(self.last_ping + PING).max(self.last_ping + Duration::from_millis(100))
    }
}

/// Ends the stream from our side and lets the collector end it from its own, so that it sees no broken connection.
async fn goodbye(link: Link) {
    let Link { up, mut down, .. } = link;
    drop(up);
    // Late acks are of no account: what they cover is recognised when it comes again.
    let ended = async { while let Ok(Some(_)) = down.message().await {} };
    let _ = tokio::time::timeout(GOODBYE, ended).await;
}

async fn next_event(uplink: &mut Uplink) -> Event {
    match uplink {
        Uplink::Waiting(until) => {
            sleep_until(*until).await;
            Event::Retry
        }
        Uplink::Connecting(connecting) => Event::Connected(connecting.await.map(Box::new)),
        Uplink::Up(stream) => Event::Down(stream.link.down.message().await),
    }
}
