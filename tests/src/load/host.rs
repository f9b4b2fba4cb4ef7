//! Values as a database server's exporters give them, in fixed shares: 25 % counters that grow a little at every tick, 10 %
//! noisy gauges with three decimals, 5 % constants, 60 % that change about once a minute. So about 36 % change at each tick.

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Counter,
    Noisy,
    Constant,
    Quiet,
}

/// Digits behind the point of a noisy value.
const NOISY_DIGITS: u32 = 3;

/// Of this many ticks a quiet series changes in one.
const QUIET_TICKS: u64 = 64;

/// The series of one simulated server.
#[derive(Debug, Clone)]
pub struct Host {
    /// Values times ten to the power of their digits.
    units: Vec<i64>,
    random: u64,
}

impl Host {
    pub fn new(number: u32, series: u32) -> Self {
        let mut host = Self { units: Vec::new(), random: u64::from(number) + 1 };
        for at in 0..series {
            let random = host.next();
            let units = match kind(at) {
                Kind::Counter => random % 100_000_000,
                Kind::Noisy => random % 1_000_000,
                Kind::Constant => random % 2,
                Kind::Quiet => [0, 0, (random >> 8) % 1_000, (random >> 8) % (1 << 34)][random as usize % 4],
            };
            host.units.push(units as i64);
        }
        host
    }

    /// SplitMix64: a seed gives the same values everywhere.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Goes on to the next tick.
    pub fn step(&mut self) {
        for at in 0..self.units.len() {
            let grow = match kind(at as u32) {
                Kind::Counter => (self.next() >> 57) as i64,
                Kind::Noisy => {
                    let span = 1_000 + self.units[at] / 20;
                    (self.next() >> 11) as i64 % span - span / 2
                }
                Kind::Quiet if self.next().is_multiple_of(QUIET_TICKS) => (self.next() >> 60) as i64,
                Kind::Quiet | Kind::Constant => 0,
            };
            self.units[at] = (self.units[at] + grow).abs();
        }
    }

    /// A series' value in units of its last digit.
    pub fn units(&self, series: u32) -> i64 {
        self.units[series as usize]
    }

    pub fn value(&self, series: u32) -> f64 {
        self.units(series) as f64 / 10f64.powi(digits(series) as i32)
    }
}

/// The kinds are spread over the series by a number without a common factor with 100.
fn kind(series: u32) -> Kind {
    match series.wrapping_mul(37) % 100 {
        0..25 => Kind::Counter,
        25..35 => Kind::Noisy,
        35..40 => Kind::Constant,
        _ => Kind::Quiet,
    }
}

pub fn is_counter(series: u32) -> bool {
    kind(series) == Kind::Counter
}

pub fn digits(series: u32) -> u32 {
    if kind(series) == Kind::Noisy { NOISY_DIGITS } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_a_third_changes_at_each_tick() {
        let mut host = Host::new(3, 1000);
        for _ in 0..50 {
            let before = host.clone();
            host.step();
            let changed = (0..1000).filter(|at| host.units(*at) != before.units(*at)).count();
            assert!((320..400).contains(&changed), "{changed}");
        }
    }
}
