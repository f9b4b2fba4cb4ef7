//! The value of a series at a tick, and what a value tells of itself.
//!
//! `agent * 10^11 + series * 10^7 + changes`, where `changes` counts how often the series changed up to this tick: whole
//! numbers that a double holds exactly, of which each names its agent, its series and the ticks at which it may stand.

/// Bounds within which the digits do not run into each other and 2^53 is not reached.
pub const AGENTS_MAX: u32 = 90_000;
pub const SERIES_MAX: u32 = 10_000;
const CHANGES_MAX: u64 = 10_000_000;

/// How often `series` has changed up to `tick`, when `percent` of all series change at each tick. The phase differs from
/// series to series, so that every tick changes about the same number of them.
fn changes(series: u32, tick: u64, percent: u8) -> u64 {
    let phase = u64::from(series).wrapping_mul(61) % 100;
    (tick * u64::from(percent) + phase) / 100
}

pub fn value(agent: u32, series: u32, tick: u64, percent: u8) -> f64 {
    debug_assert!(agent < AGENTS_MAX && series < SERIES_MAX);
    let changes = changes(series, tick, percent) % CHANGES_MAX;
    (u64::from(agent) * 100_000_000_000 + u64::from(series) * CHANGES_MAX + changes) as f64
}

/// Whether the value at `tick` differs from the one at the tick before.
pub fn changed(series: u32, tick: u64, percent: u8) -> bool {
    tick == 0 || changes(series, tick, percent) != changes(series, tick - 1, percent)
}

/// The (agent, series) that a value names, when it is one of ours.
pub fn owner(value: f64) -> Option<(u32, u32)> {
    if !(0.0..9e15).contains(&value) || value.fract() != 0.0 {
        return None;
    }
    let series = value as u64 / CHANGES_MAX;
    Some(((series / 10_000) as u32, (series % 10_000) as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_asked_share_changes_at_every_tick() {
        for percent in [0, 5, 36, 100] {
            for tick in 1..200 {
                let count = (0..1000).filter(|series| changed(*series, tick, percent)).count();
                assert!(count.abs_diff(usize::from(percent) * 10) <= 10, "{count} of 1000 at tick {tick}, {percent} %");
            }
        }
    }

    #[test]
    fn a_value_names_its_owner() {
        for (agent, series) in [(0, 0), (7, 1599), (AGENTS_MAX - 1, SERIES_MAX - 1)] {
            for tick in [0, 1, 86_400] {
                assert_eq!(owner(value(agent, series, tick, 100)), Some((agent, series)));
            }
        }
        assert_eq!(owner(0.5), None);
        assert_eq!(owner(-1.0), None);
        assert_eq!(owner(f64::NAN), None);
    }
}
