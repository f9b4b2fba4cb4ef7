//! The loop itself: what it waits for, and who acts on it.

mod contact;
mod drain;
mod stream;

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::future::BoxFuture;
use lampad_proto::v1::{Downward, Label, Lane, ModuleState};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::backfill::Backfill;
use super::queue::Queue;
use super::{FRAME_SERIES_MAX, IDLE_PING, MEMORY_MAX, MEMORY_VALUES_MAX, PING};
use crate::clock::Clock;
use crate::delta::{Batch, Catalog, Encoder, GroupTick};
use crate::identity::Identity;
use crate::sampler::Sampled;
use crate::spool::{self, Command, SpoolDisk};
use crate::stats::{Shared, add};
use crate::uplink::{Attempts, Link, Target, UplinkError};

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
}

impl Stream {
    fn ping_due(&self) -> Instant {
        (self.last_sent + IDLE_PING).min(self.last_ping + PING).max(self.last_ping + Duration::from_millis(100))
    }
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
