//! The clock that stamps ticks: monotonic, anchored to the wall clock.
//!
//! The wall clock of a server is set forward and back by others; ticks must ascend within their group. So the time of a
//! tick is an anchor plus what a monotonic clock counted since. Where both drift apart, the anchor follows:
//!
//! * the wall clock is ahead by more than [`STEP_MS`] (it was set, or the machine slept): the anchor jumps at once;
//! * otherwise it is slewed by at most one part in [`SLEW_PARTS`] of the time that went by, so that time never runs back.
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

struct Anchor {
    at: Instant,
    ms: i64,
}

impl Clock {
    pub fn system() -> Self {
        Self::new(Box::new(wall_ms))
    }

    pub fn new(wall: Wall) -> Self {
        let anchor = Anchor { at: Instant::now(), ms: wall() };
        Self { wall, anchor: Mutex::new(anchor) }
    }

    /// Milliseconds since 1970. Never less than what an earlier call gave.
    pub fn now_ms(&self) -> i64 {
        let wall = (self.wall)();
        let mut anchor = self.anchor.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let passed = anchor.at.elapsed();
        let passed_ms = passed.as_millis() as i64;
        let now = anchor.ms + passed_ms;
        let lead = wall - now;
        let corrected =
            if lead > STEP_MS { wall } else { now + lead.clamp(-passed_ms / SLEW_PARTS, passed_ms / SLEW_PARTS) };
        // Move the anchor only when the correction is whole milliseconds, and by whole milliseconds of monotonic time:
        // otherwise many short calls would lose the fractions.
        if corrected != now {
            anchor.at += Duration::from_millis(passed_ms as u64);
            anchor.ms = corrected;
        }
        corrected
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
