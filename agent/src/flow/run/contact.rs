//! How a stream begins, is kept alive and ends: Hello, pings, and what follows from a failure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::BoxFuture;
use lampad_proto::v1::{Hello, ModuleState, Ping, upward};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::{Flow, Stream, Uplink};
use crate::flow::backfill::Backfill;
use crate::flow::{DISK_ANSWERS_WITHIN, SILENCE_MAX};
use crate::spool::Command;
use crate::stats::add;
use crate::uplink::{Link, UplinkError, Verdict};

impl Flow {
    pub(super) fn connect(&self) -> BoxFuture<'static, Result<Link, UplinkError>> {
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
            name: module.id.clone(),
            interval_ms: module.schedule().interval.as_millis() as u32,
            up: module.is_up(),
            error: module.error(),
            absent: module.is_absent(),
        };
        self.parts.shared.modules().iter().map(state).collect()
    }

    pub(super) fn connected(&mut self, link: Box<Link>) {
        self.attempts.welcomed(&self.parts.target.collector);
        add(&self.parts.shared.stats.connects, 1);
        self.parts.shared.stats.connected.store(true, Ordering::Relaxed);
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

    pub(super) fn ping_if_due(&mut self) {
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
    pub(super) fn lose(&mut self, reason: &str) {
        tracing::info!(reason, "connecting anew");
        self.lost();
        self.uplink = Uplink::Waiting(Instant::now() + Duration::from_millis(50));
    }

    pub(super) fn lost(&mut self) {
        if let Uplink::Up(stream) = &self.uplink {
            tracing::debug!(seconds = stream.since.elapsed().as_secs_f64(), "stream ended");
        }
        self.parts.shared.stats.connected.store(false, Ordering::Relaxed);
        self.refusal_reasons.clear();
        self.queue.lost(self.generation);
        // From here on no stream of this number is alive: the spool may send its frames.
        self.generation += 1;
        self.uplink = Uplink::Waiting(Instant::now());
    }

    pub(super) fn failed(&mut self, error: &UplinkError) {
        if error.verdict() == Verdict::NewEpoch {
            self.parts.identity.new_epoch();
        }
        self.uplink = Uplink::Waiting(Instant::now() + self.attempts.failed(error));
    }
}
