//! What others ask of the store's thread, and how they wait for it.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::store::backup::Moment;

#[derive(Debug, Default)]
pub(super) struct Requests {
    pub(super) asked: u64,
    pub(super) done: u64,
    /// The last of those done that failed.
    pub(super) failed: u64,
    pub(super) closing: bool,
    /// Those that wait want all compacted too.
    pub(super) compact: bool,
    /// They want what is deleted off the disk.
    pub(super) clean: bool,
    /// They want done what the thread does by itself now and then.
    pub(super) tend: bool,
    /// Those who wait for a moment of the store.
    pub(super) moments: Vec<SyncSender<Result<Moment, String>>>,
}

/// What others ask of the thread.
#[derive(Debug, Default)]
pub struct Asked(pub(super) Mutex<Requests>, pub(super) Condvar);

impl Asked {
    /// Has everything sealed and old data dropped; false when that fails or takes longer.
    pub fn seal_all(&self, within: Duration) -> bool {
        self.ask(within, |_| {})
    }

    /// The same, and has all that lies in closed partitions folded.
    pub fn compact_all(&self, within: Duration) -> bool {
        self.ask(within, |requests| requests.compact = true)
    }

    /// The same as `seal_all`, and takes what is deleted off the disk.
    pub fn clean(&self, within: Duration) -> bool {
        self.ask(within, |requests| requests.clean = true)
    }

    /// The same as `seal_all`, and has done what is worth doing of tiers and compaction, as it is every minute.
    pub fn tend(&self, within: Duration) -> bool {
        self.ask(within, |requests| requests.tend = true)
    }

    fn ask(&self, within: Duration, also: impl FnOnce(&mut Requests)) -> bool {
        let mut requests = self.0.lock();
        requests.asked += 1;
        also(&mut requests);
        let number = requests.asked;
        self.1.notify_all();
        let deadline = Instant::now() + within;
        let waits = |requests: &Requests| requests.done < number && !requests.closing;
        while waits(&requests) && !self.1.wait_until(&mut requests, deadline).timed_out() {}
        requests.done >= number && requests.failed < number
    }

    /// What a backup of this moment consists of.
    pub fn moment(&self, within: Duration) -> Result<Moment, String> {
        let (sender, receiver) = sync_channel(1);
        {
            let mut requests = self.0.lock();
            if requests.closing {
                return Err("the store is closed".into());
            }
            requests.moments.push(sender);
            self.1.notify_all();
        }
        receiver.recv_timeout(within).map_err(|_| format!("nothing came of it within {within:?}"))?
    }

    pub fn close(&self) {
        self.0.lock().closing = true;
        self.1.notify_all();
    }
}

/// What those who wait want beside a checkpoint.
#[derive(Debug, Clone, Copy)]
pub(super) struct Also {
    pub(super) compact: bool,
    pub(super) clean: bool,
    pub(super) tend: bool,
}
