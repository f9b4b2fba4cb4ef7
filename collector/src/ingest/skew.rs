//! How far an agent's clock is from ours, and by how much its ticks are shifted.
//!
//! Every message with the agent's time in it measures `arrival - stamp`: the clocks' distance plus the way here. The way is
//! never negative, so the least measurement of the last seconds is nearest to the truth. A stalled link delivers many late
//! messages at once, each of which looks like a slow clock: a distance that a stall explains counts only after it was the
//! least for some seconds.

use std::collections::VecDeque;

/// A distance up to here is left alone: ticks keep the agent's own time.
pub const TOLERATED_MS: i64 = 2_000;

/// For how long, by our clock, a measurement counts.
const RECENT_MS: i64 = 10_000;

/// How long a slow clock must look slow before it is believed, where a stall would look the same.
const CONFIRM_MS: i64 = 5_000;

/// No stall lasts longer: by then the agent has given the stream up.
const STALL_MS_MAX: i64 = 60_000;

#[derive(Debug, Default)]
pub struct Skew {
    /// Arrival and distance of recent measurements, later ones greater: one that a later one undercut never counts again.
    recent: VecDeque<(i64, i64)>,
    /// Since when all measurements were beyond what is tolerated of the shift in force.
    doubted_since_ms: Option<i64>,
    shift_ms: i64,
}

impl Skew {
    /// The agent's clock was off by this much when its last stream ended.
    pub fn shifted_by(shift_ms: i64) -> Self {
        Self { shift_ms, ..Self::default() }
    }

    /// Takes a measurement; true when the shift has changed.
    pub fn measure(&mut self, arrival_ms: i64, stamp_ms: i64) -> bool {
        let distance = arrival_ms.saturating_sub(stamp_ms);
        while self.recent.back().is_some_and(|(_, later)| *later >= distance) {
            self.recent.pop_back();
        }
        self.recent.push_back((arrival_ms, distance));
        while self.recent.front().is_some_and(|(at, _)| arrival_ms.saturating_sub(*at) > RECENT_MS) {
            self.recent.pop_front();
        }
        let offset = self.offset_ms();
        let off = offset.saturating_sub(self.shift_ms);
        // The shift stays while it is good enough: every change of it bends the time of the series.
        if off.saturating_abs() <= TOLERATED_MS {
            self.doubted_since_ms = None;
            return false;
        }
        let since = *self.doubted_since_ms.get_or_insert(arrival_ms);
        let perhaps_a_stall = (0..STALL_MS_MAX).contains(&off);
        if perhaps_a_stall && arrival_ms.saturating_sub(since) < CONFIRM_MS {
            return false;
        }
        self.doubted_since_ms = None;
        let shift = if offset.saturating_abs() <= TOLERATED_MS { 0 } else { offset };
        let changed = shift != self.shift_ms;
        self.shift_ms = shift;
        changed
    }

    /// Our clock minus the agent's.
    pub fn offset_ms(&self) -> i64 {
        self.recent.front().map_or(0, |(_, distance)| *distance)
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
    fn a_burst_after_a_stall_is_no_slow_clock() {
        // Four ticks a second; for 4 s and for 30 s nothing gets through, then all of it at once.
        for stall in [4_000, 30_000] {
            let mut skew = Skew::default();
            for at in (0..2_000).step_by(250) {
                assert!(!skew.measure(at, at));
            }
            for stamp in (2_000..2_000 + stall).step_by(250) {
                assert!(!skew.measure(2_000 + stall, stamp), "a stall of {stall} ms, stamp {stamp}");
            }
            for at in (2_000 + stall..60_000).step_by(250) {
                assert!(!skew.measure(at, at));
            }
        }
    }

    #[test]
    fn a_clock_some_seconds_slow_is_believed_after_a_while() {
        let mut skew = Skew::default();
        let changed: Vec<i64> = (0..20_000).step_by(250).filter(|at| skew.measure(*at, at - 3_000)).collect();
        assert_eq!((changed, skew.shift_ms()), (vec![CONFIRM_MS], 3_000));
    }

    #[test]
    fn a_new_stream_goes_on_with_the_shift_until_the_clock_is_mended() {
        let mut skew = Skew::shifted_by(3_000);
        assert!(!skew.measure(100_000, 96_990));
        assert_eq!(skew.shift_ms(), 3_000);
        assert!(Skew::shifted_by(3_000).measure(100_000, 99_990), "it is right now");
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
        assert!(skew.measure(1_000_000, 900_000));
        assert_eq!(skew.shift_ms(), 100_000);
        assert!(skew.measure(1_001_000, 1_001_000));
        assert_eq!(skew.shift_ms(), 0);
    }
}
