//! The end: what is not acked by then is on disk.

use std::sync::atomic::Ordering;
use std::time::Duration;

use lampad_proto::v1::Downward;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::{Event, Flow, Uplink, next_event};
use crate::flow::{DRAIN, GOODBYE};
use crate::spool::Command;
use crate::uplink::Link;

impl Flow {
    /// Sends what is left, waits a moment for acks, and puts the rest on disk.
    pub(super) async fn drain(mut self) -> anyhow::Result<()> {
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
        while self.queue.is_behind() {
            self.queue.hand_over(&self.parts.disk);
            if self.queue.is_behind() {
                self.pause().await;
            }
        }
        let (answer, flushed) = oneshot::channel();
        let mut command = Command::Flush(answer);
        while let Err(back) = self.parts.disk.send(command) {
            command = back;
            self.pause().await;
        }
        let mut flushed = flushed;
        loop {
            tokio::select! {
                answer = &mut flushed => break answer??,
                Some(_) = self.parts.chunks.recv() => {}
            }
        }
        self.parts.identity.close()?;
        tracing::info!(spooled = self.parts.disk.health.frames.load(Ordering::Relaxed), "stopped");
        Ok(())
    }

    /// Lets the disk's thread go on, which waits where an answer of it is not taken.
    async fn pause(&mut self) {
        while self.parts.chunks.try_recv().is_ok() {}
        tokio::time::sleep(Duration::from_millis(10)).await;
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
