//! The clock that stamps ticks: monotonic, anchored to the wall clock.
//!
//! The wall clock of a server is set forward and back by others; ticks must ascend within their group. So the time of a
//! tick is an anchor plus what a monotonic clock counted since. Where both drift apart, the anchor follows:
//!
//! * the wall clock is ahead by more than [`STEP_MS`] (it was set, or the machine slept): the anchor jumps at once;
//! * otherwise it is slewed by at most one part in [`SLEW_PARTS`] of the time since it was last read, so that time never
//!   runs back, however long both agreed before.
//!
//! A wall clock that was set back by an hour is thus approached over ten hours. Until then the agent's clock is ahead, the
//! collector measures by how much (`Ping.clock_ms` is this clock) and shifts the stream.

use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A lead of the wall clock beyond this is a step and is followed at once, in milliseconds.
const STEP_MS: i64 = 1000;

/// One millisecond of correction in so many milliseconds.
const SLEW_PARTS: i64 = 10;

/// Reads the wall clock: milliseconds since 1970.
type Wall = Box<dyn Fn() -> i64 + Send + Sync>;

pub struct Clock {
    wall: Wall,
    anchor: Mutex<Anchor>,
}

/// What the last call gave, and when.
struct Anchor {
    at: Instant,
    ms: i64,
    /// Milliseconds that went by and were too few for one of correction.
    unslewed_ms: i64,
}

impl Clock {
    pub fn system() -> Self {
        Self::new(Box::new(wall_ms))
    }

    pub fn new(wall: Wall) -> Self {
        let anchor = Anchor { at: Instant::now(), ms: wall(), unslewed_ms: 0 };
        Self { wall, anchor: Mutex::new(anchor) }
    }

    /// Milliseconds since 1970. Never less than what an earlier call gave.
    pub fn now_ms(&self) -> i64 {
        let wall = (self.wall)();
        let mut anchor = self.anchor.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // The anchor moves by whole milliseconds, so that many short calls lose no fractions. Being at most as old as the
        // last call but for such a fraction, it also bounds by how much this one may be slewed.
        let passed_ms = anchor.at.elapsed().as_millis() as i64;
        anchor.at += Duration::from_millis(passed_ms as u64);
        let now = anchor.ms + passed_ms;
        let lead = wall - now;
        let most = anchor.slewable(passed_ms);
        anchor.ms = if lead > STEP_MS { wall } else { now + lead.clamp(-most, most) };
        anchor.ms
    }
}

impl Anchor {
    /// Milliseconds of correction that the time since the last call allows; the rest of it is kept for the next call.
    fn slewable(&mut self, passed_ms: i64) -> i64 {
        self.unslewed_ms = (self.unslewed_ms % SLEW_PARTS) + passed_ms;
        self.unslewed_ms / SLEW_PARTS
    }
}

fn wall_ms() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_millis() as i64,
        Err(before) => -(before.duration().as_millis() as i64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    fn clock(start_ms: i64) -> (Clock, Arc<AtomicI64>) {
        let wall = Arc::new(AtomicI64::new(start_ms));
        let reader = wall.clone();
        (Clock::new(Box::new(move || reader.load(Ordering::Relaxed))), wall)
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_forward_is_followed_at_once() {
        let (clock, wall) = clock(1_000_000);
        wall.store(9_000_000, Ordering::Relaxed);
        assert_eq!(clock.now_ms(), 9_000_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_back_is_slewed_and_time_never_runs_back() {
        let (clock, wall) = clock(1_000_000);
        let mut last = clock.now_ms();
        for second in 1..=30 {
            tokio::time::advance(Duration::from_secs(1)).await;
            wall.store(1_000_000 - 2000 + second * 1000, Ordering::Relaxed);
            let now = clock.now_ms();
            assert!(now >= last + 900, "second {second}: {last} -> {now}");
            last = now;
        }
        assert_eq!(last, wall.load(Ordering::Relaxed), "caught up after 20 s");
    }

    /// The correction was bounded by the age of an anchor that had not moved for as long as both clocks agreed.
    #[tokio::test(start_paused = true)]
    async fn a_step_back_after_hours_of_agreement_is_slewed_too() {
        let (clock, wall) = clock(1_000_000);
        let mut last = clock.now_ms();
        for second in 1..=36_000 {
            tokio::time::advance(Duration::from_secs(1)).await;
            wall.store(1_000_000 + second * 1000, Ordering::Relaxed);
            last = clock.now_ms();
        }
        wall.fetch_sub(3_600_000, Ordering::Relaxed);
        assert_eq!(clock.now_ms(), last);
        tokio::time::advance(Duration::from_secs(1)).await;
        wall.fetch_add(1000, Ordering::Relaxed);
        assert_eq!(clock.now_ms(), last + 900);
    }

    #[tokio::test(start_paused = true)]
    async fn frequent_reads_lose_no_time() {
        let (clock, _wall) = clock(0);
        for _ in 0..10_000 {
            tokio::time::advance(Duration::from_micros(100)).await;
            clock.now_ms();
        }
        // The wall stands still: slewed back by at most a tenth.
        assert!((900..=1000).contains(&clock.now_ms()), "{}", clock.now_ms());
    }
}
