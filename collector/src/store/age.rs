//! The clock by which data is too old. It does not believe every other: where the machine's clock has leapt ahead, what it says
//! of the age of samples would cost them all, and setting it right again would not bring them back.
//!
//! It stands where the newest data stands at the start, goes at most so many times as fast as time itself, and is at most
//! [`LEAP`] away from the machine's clock beyond that. After a long standstill old data goes a little later for it.

use std::time::{Duration, Instant};

/// So far the clock is believed at once.
const LEAP: Duration = Duration::from_secs(2 * 24 * 3600);

/// After a leap further than that, so many times as fast as time goes.
const CATCH_UP: u32 = 10;

#[derive(Debug)]
pub(super) struct Age {
    slow_ms: i64,
    looked: Instant,
    told: bool,
}

impl Age {
    /// `newest_ms` is the time of the newest data, `None` where there is none.
    pub fn new(now_ms: i64, newest_ms: Option<i64>) -> Self {
        let slow_ms = newest_ms.map_or(now_ms, |newest_ms| newest_ms.min(now_ms));
        Self { slow_ms, looked: Instant::now(), told: false }
    }

    /// The time by which the age of data is judged, when the machine's clock says this.
    pub fn now_ms(&mut self, clock_ms: i64) -> i64 {
        let elapsed = self.looked.elapsed();
        self.looked = Instant::now();
        let now_ms = self.after(clock_ms, elapsed);
        let waits = now_ms < clock_ms;
        if waits && !self.told {
            let ahead = humantime::format_duration(Duration::from_secs((clock_ms - now_ms).unsigned_abs() / 1000));
            tracing::warn!(%ahead, "the clock is far ahead of the newest data; if it is right, what is too old is deleted bit by bit");
        }
        self.told = waits;
        now_ms
    }

    fn after(&mut self, clock_ms: i64, elapsed: Duration) -> i64 {
        let gone = i64::try_from((elapsed * CATCH_UP).as_millis()).unwrap_or(i64::MAX);
        self.slow_ms = clock_ms.min(self.slow_ms.saturating_add(gone));
        clock_ms.min(self.slow_ms.saturating_add(LEAP.as_millis() as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const HOUR_MS: i64 = 3_600_000;

    #[test]
    fn a_clock_that_leaps_ahead_is_believed_bit_by_bit() {
        let mut age = Age::new(1000 * HOUR_MS, Some(999 * HOUR_MS));
        assert_eq!(age.after(1000 * HOUR_MS, Duration::ZERO), 1000 * HOUR_MS);
        assert_eq!(age.after(1001 * HOUR_MS, HOUR), 1001 * HOUR_MS);
        // A year ahead for an hour, and right again.
        assert_eq!(age.after(9766 * HOUR_MS, Duration::ZERO), 1049 * HOUR_MS);
        assert_eq!(age.after(9767 * HOUR_MS, HOUR), 1059 * HOUR_MS);
        assert_eq!(age.after(1002 * HOUR_MS, Duration::ZERO), 1002 * HOUR_MS);
        assert_eq!(age.after(9767 * HOUR_MS, Duration::ZERO), 1050 * HOUR_MS);
    }

    #[test]
    fn after_a_standstill_it_catches_up() {
        let mut age = Age::new(1000 * HOUR_MS, Some(0));
        assert_eq!(age.after(1000 * HOUR_MS, Duration::ZERO), 48 * HOUR_MS);
        assert_eq!(age.after(1100 * HOUR_MS, HOUR * 100), 1048 * HOUR_MS);
        assert_eq!(age.after(1200 * HOUR_MS, HOUR * 100), 1200 * HOUR_MS);
        assert_eq!(Age::new(5, None).after(5, Duration::ZERO), 5);
    }
}
