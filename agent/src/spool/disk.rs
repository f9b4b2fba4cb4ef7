//! The thread that owns the spool, so that a slow disk never delays a tick.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::Instant;

use lampad_proto::v1::SequenceRange;
use tokio::sync::{mpsc, oneshot};

use super::{Chunk, Kept, Spool, SpoolError, Wanted};
use crate::delta::{Catalog, Encoder};

/// Commands that may wait for the disk. The sender keeps what does not fit.
const COMMANDS_MAX: usize = 256;

/// What the thread is asked to do, in order.
pub enum Command {
    Keep(Vec<Kept>),
    Adopt(Box<Encoder>),
    Roll,
    Release(Vec<SequenceRange>),
    ReleaseLive {
        generation: u64,
        through: u64,
    },
    Next(Wanted),
    /// The collector cannot use this segment.
    SetAside(u64),
    Pending(oneshot::Sender<Vec<SequenceRange>>),
    /// Everything before is on disk when this is answered; says whether that worked.
    Flush(oneshot::Sender<Result<(), SpoolError>>),
}

/// The answer to [`Command::Next`].
#[derive(Debug)]
pub struct Event {
    /// As in [`Wanted`]: who asked may be gone.
    pub asker: u64,
    /// `None` when nothing waits, or nothing that can be had now.
    pub chunk: Option<Chunk>,
    /// Something waits that the disk has not taken yet.
    pub failed: bool,
}

/// Figures for the agent's own metrics.
#[derive(Debug, Default)]
pub struct Health {
    pub bytes: AtomicU64,
    pub frames: AtomicU64,
    pub dropped_frames: AtomicU64,
    pub set_aside: AtomicU64,
    pub failing: AtomicBool,
}

/// The way to the thread. It ends when this is dropped.
pub struct SpoolDisk {
    commands: SyncSender<Command>,
    pub health: Arc<Health>,
}

impl SpoolDisk {
    /// Starts the thread. Chunks arrive on the receiver.
    pub fn start(spool: Spool, catalog: Arc<RwLock<Catalog>>) -> std::io::Result<(Self, mpsc::Receiver<Event>)> {
        let (commands, orders) = sync_channel(COMMANDS_MAX);
        // One chunk is asked for at a time.
        let (events, chunks) = mpsc::channel(1);
        let health = Arc::new(Health::default());
        let mut worker = Worker { spool, catalog, events, health: health.clone() };
        worker.publish();
        thread::Builder::new().name("spool".to_owned()).spawn(move || worker.run(&orders))?;
        Ok((Self { commands, health }, chunks))
    }

    /// One whose disk never does anything: commands pile up in the receiver.
    #[cfg(test)]
    pub fn hanging() -> (Self, Receiver<Command>, mpsc::Receiver<Event>) {
        let (commands, orders) = sync_channel(COMMANDS_MAX);
        let (_, chunks) = mpsc::channel(1);
        (Self { commands, health: Arc::default() }, orders, chunks)
    }

    /// Hands a command over without waiting; gives it back when the disk is behind.
    pub fn send(&self, command: Command) -> Result<(), Command> {
        self.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(command) | TrySendError::Disconnected(command) => command,
        })
    }
}

struct Worker {
    spool: Spool,
    catalog: Arc<RwLock<Catalog>>,
    events: mpsc::Sender<Event>,
    health: Arc<Health>,
}

impl Worker {
    fn run(&mut self, orders: &Receiver<Command>) {
        while let Ok(command) = orders.recv() {
            self.carry_out(command);
            self.publish();
        }
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Keep(kept) => {
                let result = self.spool.keep(&self.catalog, &kept, Instant::now());
                self.tell(result);
            }
            Command::Adopt(values) => self.spool.adopt(&values),
            Command::Roll => self.spool.roll(),
            Command::Release(ranges) => self.spool.release(ranges.into_iter()),
            Command::ReleaseLive { generation, through } => self.spool.release_live(generation, through),
            Command::Next(wanted) => {
                let (chunk, failed) = match self.spool.next(&wanted) {
                    Ok(chunk) => (chunk, false),
                    Err(error) => {
                        self.tell(Err(error));
                        (None, true)
                    }
                };
                // The receiver is gone only when the agent ends.
                let _ = self.events.blocking_send(Event { asker: wanted.asker, chunk, failed });
            }
            Command::SetAside(number) => self.spool.give_up(number),
            Command::Pending(answer) => {
                let _ = answer.send(self.spool.pending());
            }
            Command::Flush(answer) => {
                let flushed = self.spool.flush();
                self.publish();
                let _ = answer.send(flushed);
            }
        }
    }

    /// Says a disk error once, and once when it is over.
    fn tell(&self, result: Result<(), SpoolError>) {
        let failed = result.is_err();
        let before = self.health.failing.swap(failed, Ordering::Relaxed);
        match result {
            Err(error) if !before => tracing::error!(error = &error as &dyn std::error::Error, "spool"),
            Ok(()) if before => tracing::info!("the spool can write again"),
            _ => {}
        }
    }

    fn publish(&self) {
        self.health.bytes.store(self.spool.bytes(), Ordering::Relaxed);
        self.health.frames.store(self.spool.frames(), Ordering::Relaxed);
        self.health.dropped_frames.store(self.spool.dropped_frames(), Ordering::Relaxed);
        self.health.set_aside.store(self.spool.set_aside(), Ordering::Relaxed);
    }
}
