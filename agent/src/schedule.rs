//! When a module is read, and how its ticks are stamped.
//!
//! A module ticks at whole intervals of the wall clock plus its agent's offset. A tick that begins a little after its moment is
//! stamped with that moment: ticks of equal steps cost next to nothing on the wire, in memory and on disk, a millisecond of
//! jitter costs a byte each. One that is later than that is stamped with the time at which it began.
//!
//! The database shares its CPUs with the agent. Were all modules read at one moment, a query would find every CPU taken for some
//! milliseconds: by the agent, by its helpers, and by the server's thread that answers it. So vital signs have their moments,
//! every 250 ms, and the others lie between: the server's once a second in one of them, the host's in two others. What is read
//! every ten seconds or less often is spread over its interval by name. More moments would cost frames.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Clock;
use crate::module::{Spec, Tier};

/// How late, in parts of its interval, a tick may begin and still be stamped with the moment at which it was due.
const LATE_PARTS: i64 = 50;

/// The same for long intervals.
const LATE_MAX: Duration = Duration::from_millis(10);

/// Moments between the vital signs, in milliseconds after the first of a second: those of the host's modules, and the database's.
const HOST: [u64; 2] = [125, 625];
const DATABASE: u64 = 375;

/// When a module is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    pub interval: Duration,
    pub deadline: Duration,
}

impl Schedule {
    pub fn of(tier: Tier) -> Self {
        Self::every(match tier {
            Tier::Vital => Duration::from_millis(250),
            Tier::Standard => Duration::from_secs(1),
            Tier::Heavy => Duration::from_secs(10),
            Tier::Rare => Duration::from_secs(60),
        })
    }

    /// The deadline is the interval, but a second at least (one slow read is no failure) and ten at most.
    pub fn every(interval: Duration) -> Self {
        Self { interval, deadline: interval.clamp(Duration::from_secs(1), Duration::from_secs(10)) }
    }
}

/// How long after its agent's moment a module ticks.
pub fn place(spec: &Spec) -> Duration {
    let mut hasher = DefaultHasher::new();
    spec.name.hash(&mut hasher);
    let hash = hasher.finish();
    let between = match (spec.tier, spec.job) {
        (Tier::Vital, _) => 0,
        (_, "mysql") => DATABASE,
        _ => HOST[(hash % 2) as usize],
    };
    let seconds = Schedule::of(spec.tier).interval.as_secs().max(1);
    Duration::from_secs(hash / 2 % seconds) + Duration::from_millis(between)
}

/// The next moment that is `offset_us` past a whole interval of the wall clock, and not too soon after the read at the start.
pub fn first_tick(interval: Duration, offset_us: u64, clock: &Clock) -> Instant {
    let interval_us = (interval.as_micros() as u64).max(1);
    let now_us = clock.now_ms().max(0) as u64 * 1000;
    let offset_us = offset_us - offset_us % 1000;
    let wait_us = (offset_us + interval_us - now_us % interval_us) % interval_us;
    let soon = wait_us < interval_us / 2 + 1;
    Instant::now() + Duration::from_micros(wait_us + if soon { interval_us } else { 0 })
}

/// The time of a tick that begins now: the moment at which it was due, or now when it is later than may pass for that.
pub fn stamp(now_ms: i64, interval: Duration, offset_us: u64) -> i64 {
    let interval_us = i64::try_from(interval.as_micros()).unwrap_or(i64::MAX);
    if interval_us == 0 || interval_us % 1000 != 0 {
        return now_ms;
    }
    let late_ms = (now_ms - (offset_us / 1000) as i64).rem_euclid(interval_us / 1000);
    let most_ms = (interval_us / 1000 / LATE_PARTS).min(LATE_MAX.as_millis() as i64);
    if late_ms <= most_ms { now_ms - late_ms } else { now_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_a_little_late_is_stamped_with_its_moment() {
        let second = Duration::from_secs(1);
        for (now_ms, stamped_ms) in [(5_250, 5_250), (5_253, 5_250), (5_260, 5_250), (5_261, 5_261), (5_249, 5_249)] {
            assert_eq!(stamp(now_ms, second, 250_900), stamped_ms, "at {now_ms}");
        }
        let vital = Duration::from_millis(250);
        for (now_ms, stamped_ms) in [(1_105, 1_100), (1_106, 1_106), (1_099, 1_099), (-149, -150)] {
            assert_eq!(stamp(now_ms, vital, 100_000), stamped_ms, "at {now_ms}");
        }
        assert_eq!(stamp(7, Duration::from_micros(1500), 0), 7, "moments between milliseconds have no stamp");
    }

    #[test]
    fn modules_lie_between_the_vital_signs_and_dear_ones_in_seconds_of_their_own() {
        let of = |name, job, tier| place(&Spec::new(name, "", job, tier)).as_millis() as u64;
        assert_eq!(of("host.stat", "node", Tier::Vital), 0);
        assert_eq!(of("mysql.status", "mysql", Tier::Standard), 375);
        let host = ["host.vmstat", "host.netdev", "host.netclass", "host.meminfo", "host.arp", "host.softnet"];
        let places: std::collections::BTreeSet<u64> =
            host.iter().map(|name| of(name, "node", Tier::Standard)).collect();
        assert_eq!(places, [125, 625].into());
        let heavy = ["host.cpu", "host.textfile", "host.filesystem", "host.hwmon", "host.edac", "host.btrfs"];
        let seconds: std::collections::BTreeSet<u64> =
            heavy.iter().map(|name| of(name, "node", Tier::Heavy) / 1000).collect();
        assert!(seconds.len() >= 3 && seconds.iter().all(|second| *second < 10), "{seconds:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_tick_is_at_the_offset_and_not_too_soon() {
        let began = Instant::now();
        let clock = Clock::new(Box::new(move || 1_000_400 + began.elapsed().as_millis() as i64));
        let interval = Duration::from_secs(1);
        let wait = |offset_us| (first_tick(interval, offset_us, &clock) - began).as_micros();
        assert_eq!(wait(950_700), 550_000);
        assert_eq!(wait(600_000), 1_200_000, "in 200 ms would be too soon after the read at the start");
        assert_eq!(wait(300_000), 900_000);
    }
}
