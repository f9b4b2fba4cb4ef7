//! Batches in memory, in the order of their numbers: first those that the stream carries, then those that wait for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::delta::{Batch, Encoder};
use crate::spool::{Command, Kept, SpoolDisk};

#[derive(Debug)]
struct Queued {
    batch: Arc<Batch>,
    since: Instant,
}

/// Memory's part of what is not acked.
#[derive(Debug, Default)]
pub struct Queue {
    /// Sent on the live stream `generation`.
    sent: VecDeque<Queued>,
    unsent: VecDeque<Queued>,
    /// On the way to the disk thread.
    leaving: Vec<Kept>,
    /// What the disk thread must know before `leaving`, after batches were dropped.
    adopt: Option<Box<Encoder>>,
    values: usize,
}

impl Queue {
    pub fn push(&mut self, batch: Batch) {
        self.values += batch.values();
        self.unsent.push_back(Queued { batch: Arc::new(batch), since: Instant::now() });
    }

    /// The next batch for the live lane.
    pub fn next_unsent(&self) -> Option<&Arc<Batch>> {
        self.unsent.front().map(|queued| &queued.batch)
    }

    /// Notes that the first unsent batch is under way.
    pub fn mark_sent(&mut self) {
        self.sent.extend(self.unsent.pop_front());
    }

    /// The stream has acked all up to `through`.
    pub fn acked(&mut self, generation: u64, through: u64) {
        while self.sent.front().is_some_and(|queued| queued.batch.sequence <= through) {
            let queued = self.sent.pop_front();
            self.leaving.extend(queued.map(|queued| Kept { batch: queued.batch, generation, acked: true }));
        }
    }

    /// The stream is lost: what it carried without an ack goes to the spool.
    pub fn lost(&mut self, generation: u64) {
        let sent = self.sent.drain(..);
        self.leaving.extend(sent.map(|queued| Kept { batch: queued.batch, generation, acked: false }));
    }

    /// Moves what waited for `age` towards the disk. Of batches that the live lane has not carried, it takes the values.
    pub fn expire(&mut self, age: Duration, generation: u64, live: &mut Encoder) {
        while self.sent.front().is_some_and(|queued| queued.since.elapsed() >= age) {
            let queued = self.sent.pop_front();
            self.leaving.extend(queued.map(|queued| Kept { batch: queued.batch, generation, acked: false }));
        }
        // Numbers ascend on disk: nothing overtakes what the stream still carries.
        if !self.sent.is_empty() {
            return;
        }
        while let Some(queued) = self.unsent.pop_front_if(|queued| queued.since.elapsed() >= age) {
            live.pass(&queued.batch);
            self.leaving.push(Kept { batch: queued.batch, generation: 0, acked: false });
        }
    }

    /// Hands over to the disk thread what it takes. Returns whether frames went to the spool that no stream carries.
    pub fn hand_over(&mut self, disk: &SpoolDisk) -> bool {
        if let Some(values) = self.adopt.take()
            && let Err(Command::Adopt(values)) = disk.send(Command::Adopt(values))
        {
            self.adopt = Some(values);
            return false;
        }
        if self.leaving.is_empty() {
            return false;
        }
        let values: usize = self.leaving.iter().map(|kept| kept.batch.values()).sum();
        let spooled = self.leaving.iter().any(|kept| !kept.acked);
        match disk.send(Command::Keep(std::mem::take(&mut self.leaving))) {
            Ok(()) => {
                self.values -= values;
                spooled
            }
            Err(Command::Keep(leaving)) => {
                self.leaving = leaving;
                false
            }
            Err(_) => false,
        }
    }

    /// Drops what is in memory when that is more than `values_max`; returns how many unacked frames were lost. What the live
    /// lane has carried and not yet had acked counts as lost too, since nothing would bring it again.
    pub fn enforce_bound(&mut self, values_max: usize, live: &mut Encoder) -> u64 {
        if self.values <= values_max {
            return 0;
        }
        let mut lost = self.sent.len() + self.unsent.len();
        lost += self.leaving.iter().filter(|kept| !kept.acked).count();
        self.unsent.iter().for_each(|queued| live.pass(&queued.batch));
        *self = Self { adopt: Some(Box::new(live.clone())), ..Self::default() };
        lost as u64
    }

    /// When the oldest batch in memory has to leave.
    pub fn due(&self, age: Duration) -> Option<Instant> {
        let first = self.sent.front().or(self.unsent.front())?;
        Some(first.since + age)
    }

    /// Whether the disk thread did not take all that left.
    pub fn is_behind(&self) -> bool {
        self.adopt.is_some() || !self.leaving.is_empty()
    }

    pub fn frames(&self) -> usize {
        self.sent.len() + self.unsent.len() + self.leaving.len()
    }

    /// The lowest number that the live lane will carry next, if any waits.
    pub fn first_unsent(&self) -> Option<u64> {
        self.unsent.front().map(|queued| queued.batch.sequence)
    }

    pub fn all_acked(&self) -> bool {
        self.sent.is_empty() && self.unsent.is_empty()
    }
}
