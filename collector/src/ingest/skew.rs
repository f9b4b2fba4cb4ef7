//! How far an agent's clock is from ours, and by how much its ticks are shifted.
//!
//! Every message with the agent's time in it measures `arrival - stamp`: the clocks' distance plus the way here. The way is
//! never negative, so the least of the recent measurements is nearest to the truth, and a stalled link does not look like a
//! slow clock.

use std::collections::VecDeque;

/// A distance up to here is left alone: ticks keep the agent's own time.
pub const TOLERATED_MS: i64 = 2_000;

/// Measurements that count.
const RECENT: usize = 16;

#[derive(Debug, Default)]
pub struct Skew {
    recent: VecDeque<i64>,
    shift_ms: i64,
}

impl Skew {
    /// Takes a measurement; true when the shift has changed.
    pub fn measure(&mut self, arrival_ms: i64, stamp_ms: i64) -> bool {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(arrival_ms.saturating_sub(stamp_ms));
        let offset = self.offset_ms();
        // The shift stays while it is good enough: every change of it bends the time of the series.
        if offset.saturating_sub(self.shift_ms).saturating_abs() <= TOLERATED_MS {
            return false;
        }
        let shift = if offset.saturating_abs() <= TOLERATED_MS { 0 } else { offset };
        let changed = shift != self.shift_ms;
        self.shift_ms = shift;
        changed
    }

    /// Our clock minus the agent's.
    pub fn offset_ms(&self) -> i64 {
        self.recent.iter().min().copied().unwrap_or(0)
    }

    /// What is added to the agent's ticks.
    pub fn shift_ms(&self) -> i64 {
        self.shift_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_shifted_and_a_stall_is_not() {
        let mut skew = Skew::default();
        assert!(!skew.measure(10_000, 9_950));
        assert!(!skew.measure(20_000, 12_000), "eight seconds on the way");
        assert_eq!(skew.shift_ms(), 0);

        let hour = 3_600_000;
        for stamp in [-hour, hour] {
            let mut skew = Skew::default();
            assert!(skew.measure(hour * 10, hour * 10 + stamp));
            assert_eq!(skew.shift_ms(), -stamp);
            assert!(!skew.measure(hour * 10 + 1_000, hour * 10 + stamp + 500), "small changes leave the shift");
        }
    }

    #[test]
    fn extremes_do_not_overflow() {
        let mut skew = Skew::default();
        skew.measure(i64::MAX, i64::MIN);
        skew.measure(i64::MIN, i64::MAX);
        skew.measure(0, 0);
    }

    #[test]
    fn a_mended_clock_ends_the_shift() {
        let mut skew = Skew::default();
        skew.measure(1_000_000, 990_000);
        assert_eq!(skew.shift_ms(), 10_000);
        assert!(skew.measure(1_001_000, 1_001_000));
        assert_eq!(skew.shift_ms(), 0);
    }
}
