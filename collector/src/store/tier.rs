//! Tiers: what is kept of samples once they are older than anyone looks at one by one.
//!
//! ```text
//! raw        partitions named by the second they began, as disk.rs has them
//! tier 10s   windows of ten seconds; partitions 100,000,000 + the minute they began
//! tier 5m    windows of five minutes; partitions 200,000,000 + the minute they began
//! ```
//! A tier's runs are runs like others: ticks are the ends of windows, and each series has a few columns, see window.rs. They
//! lie in partitions of their own, so that each tier has its own retention. Built by thin.rs, read by windows.rs.

use std::sync::Arc;
use std::time::Duration;

use super::block::SealedRun;
use super::core::Core;

const HOUR_S: u64 = 3600;
const MINUTE_S: u64 = 60;

/// A width of windows.
#[derive(Debug)]
pub(super) struct Tier {
    pub name: &'static str,
    pub window_ms: i64,
    /// The least name of its partitions.
    base: u32,
    /// The longest time that one of its partitions is written to: one run per group and two hours come of that, and the
    /// partition is folded when it is closed.
    span: Duration,
}

pub(super) const TIERS: [Tier; 2] = [
    Tier { name: "10s", window_ms: 10_000, base: 100_000_000, span: Duration::from_secs(24 * HOUR_S) },
    Tier { name: "5m", window_ms: 300_000, base: 200_000_000, span: Duration::from_secs(8 * 24 * HOUR_S) },
];

/// Names of each tier; the tiers' names lie between those of clocks that stand in 1973 and in 1979.
const NAMES: u32 = 100_000_000;

/// The first name behind those of the tiers.
const AFTER_TIERS: u32 = 300_000_000;

/// The tier to which a partition belongs, `None` for raw samples.
pub(super) fn tier_of(partition: u32) -> Option<usize> {
    TIERS.iter().position(|tier| (tier.base..tier.base + NAMES).contains(&partition))
}

/// A name for raw samples; a clock that stands in the seventies must not name a tier.
pub(super) fn raw_name(seconds: u32) -> u32 {
    if tier_of(seconds).is_some() { AFTER_TIERS } else { seconds }
}

impl Tier {
    /// The end of the window in which a sample of this time lies: windows are open on the left, as PromQL's ranges are.
    pub fn end_of(&self, at_ms: i64) -> i64 {
        self.floor(at_ms.saturating_sub(1)).saturating_add(self.window_ms)
    }

    /// The last end of a window that is not after this time.
    pub fn floor(&self, at_ms: i64) -> i64 {
        // Far beyond any sample, where nothing can be subtracted any more.
        if at_ms < i64::MIN + self.window_ms { i64::MIN } else { at_ms - at_ms.rem_euclid(self.window_ms) }
    }

    /// Where what is built now goes: the partition that grows, while that is not too old.
    pub fn partition(&self, now_ms: i64, growing: Option<(u32, u32)>, retention: Duration) -> (u32, u32) {
        let minutes = u32::try_from(now_ms / 1000 / MINUTE_S as i64).unwrap_or(0).min(NAMES - 1);
        let name = self.base + minutes;
        let span = if retention.is_zero() { self.span } else { (retention / 32).min(self.span) };
        let span_minutes = (span.as_secs() / MINUTE_S).max(2 * HOUR_S / MINUTE_S);
        match growing {
            Some((begun, number)) if u64::from(name.saturating_sub(begun)) < span_minutes => (begun, number),
            Some((begun, _)) => (name.max(begun + 1), 0),
            None => (name, 0),
        }
    }
}

/// What a group has in a tier.
#[derive(Debug, Clone)]
pub(super) struct Tiered {
    /// In the order in which they were built.
    pub runs: Arc<Vec<Arc<SealedRun>>>,
    /// Windows up to this end are built.
    pub until_ms: i64,
    /// From the raw samples in partitions below this name; those beyond count again for windows that they touch.
    pub through: u32,
}

impl Default for Tiered {
    fn default() -> Self {
        Self { runs: Arc::default(), until_ms: i64::MIN, through: 0 }
    }
}

impl Tiered {
    pub fn is_unused(&self) -> bool {
        self.runs.is_empty() && self.until_ms == i64::MIN
    }

    /// In the order in which they count: what was built again for late samples first, the newest of it before all.
    pub fn by_rank(&self) -> Vec<Arc<SealedRun>> {
        let again = self.runs.iter().rev().filter(|run| !run.live);
        again.chain(self.runs.iter().filter(|run| run.live)).cloned().collect()
    }
}

impl Core {
    /// Windows that end before this are gone; `None` where the tier is switched off.
    pub fn tier_oldest_ms(&self, tier: usize, now_ms: i64) -> Option<i64> {
        match self.options.tiers[tier]? {
            Duration::ZERO => Some(i64::MIN),
            retention => Some(now_ms.saturating_sub(i64::try_from(retention.as_millis()).unwrap_or(i64::MAX))),
        }
    }

    pub fn has_tiers(&self) -> bool {
        self.options.tiers.iter().any(Option::is_some)
    }

    /// Nothing of times before this is kept in any form.
    pub fn oldest_kept_ms(&self, now_ms: i64) -> i64 {
        let tiers = (0..TIERS.len()).filter_map(|tier| self.tier_oldest_ms(tier, now_ms));
        tiers.chain([self.oldest_ms(now_ms)]).min().unwrap_or(i64::MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_open_on_the_left() {
        for (at_ms, end_ms) in [(1, 10_000), (9_999, 10_000), (10_000, 10_000), (10_001, 20_000), (0, 0), (-1, 0)] {
            assert_eq!(TIERS[0].end_of(at_ms), end_ms, "{at_ms}");
        }
        assert_eq!((TIERS[0].floor(i64::MIN), TIERS[0].floor(-1), TIERS[1].floor(299_999)), (i64::MIN, -10_000, 0));
    }

    #[test]
    fn names_of_raw_samples_and_tiers_stay_apart() {
        let now_ms = 1_700_000_000_000;
        let names: Vec<u32> = TIERS.iter().map(|tier| tier.partition(now_ms, None, Duration::ZERO).0).collect();
        assert_eq!(names, [128_333_333, 228_333_333]);
        assert_eq!(names.into_iter().map(tier_of).collect::<Vec<_>>(), [Some(0), Some(1)]);
        assert_eq!((tier_of(1_700_000_000), tier_of(0), raw_name(150_000_000)), (None, None, AFTER_TIERS));
    }

    #[test]
    fn a_partition_grows_for_a_while() {
        let day = Duration::from_secs(24 * HOUR_S);
        let (begun, _) = TIERS[0].partition(0, None, Duration::ZERO);
        let after = |hours: i64, retention| TIERS[0].partition(hours * 3_600_000, Some((begun, 7)), retention);
        assert_eq!(after(23, 90 * day), (begun, 7));
        assert_eq!(after(24, 90 * day), (begun + 24 * 60, 0));
        assert_eq!(after(3, day), (begun + 3 * 60, 0), "a short retention needs short partitions");
    }
}
