//! Remarks on a query's data that go into the reply beside the result: `PromQL warning: ... (1:8)`.
//!
//! A remark is told once however often it is made; of several places the one that is evaluated last is shown.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::query::histogram::{Remarks, exponential, short};
use crate::query::plan::Place;

#[derive(Default)]
pub struct Notes {
    warnings: Mutex<Kept>,
    infos: Mutex<Kept>,
    samples: AtomicU64,
}

/// What was said, where, and of how much.
type Kept = BTreeMap<String, (Place, Option<Mended>)>;

/// Prometheus shows ten of a kind; more would drown the reply.
const SHOWN_MAX: usize = 10;
/// So many different ones are told apart; what comes then is not even counted.
const KEPT_MAX: usize = 1_000;

/// Buckets of classic histograms whose counts fell, and were mended: over how many samples, and by how much at the most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mended {
    pub first_ms: i64,
    pub last_ms: i64,
    pub lowest: f64,
    pub highest: f64,
    pub most: f64,
    pub samples: u64,
}

impl Mended {
    pub fn and(self, other: Self) -> Self {
        Self {
            first_ms: self.first_ms.min(other.first_ms),
            last_ms: self.last_ms.max(other.last_ms),
            lowest: self.lowest.min(other.lowest),
            highest: self.highest.max(other.highest),
            most: self.most.max(other.most),
            samples: self.samples + other.samples,
        }
    }

    fn text(&self) -> String {
        let second = |ms: i64| Timestamp::from_second(ms / 1000).unwrap_or_default();
        format!(
            ", from buckets {} to {}, with a max diff of {}, over {} samples from {} to {}",
            short(self.lowest),
            short(self.highest),
            two_digits(self.most),
            self.samples,
            second(self.first_ms),
            second(self.last_ms),
        )
    }
}

/// As Go's `%.2g` has it.
fn two_digits(value: f64) -> String {
    let rounded = format!("{value:.1e}").parse().unwrap_or(value);
    if f64::abs(rounded) < 100.0 { short(rounded) } else { exponential(rounded) }
}

impl Notes {
    /// Where remarks are about what begins there.
    pub fn at(&self, place: Place) -> Here<'_> {
        Here { notes: self, place }
    }

    pub fn count_samples(&self, samples: u64) {
        self.samples.fetch_add(samples, Ordering::Relaxed);
    }

    pub fn samples(&self) -> u64 {
        self.samples.load(Ordering::Relaxed)
    }

    /// Warnings and infos.
    pub fn into_lists(self) -> (Vec<String>, Vec<String>) {
        (shown(self.warnings, "warning"), shown(self.infos, "info"))
    }
}

fn shown(all: Mutex<Kept>, kind: &str) -> Vec<String> {
    let all = all.into_inner();
    let omitted = all.len().saturating_sub(SHOWN_MAX);
    let line = |(text, (place, mended)): (String, (Place, Option<Mended>))| {
        format!("PromQL {kind}: {text}{} ({place})", mended.map_or(String::new(), |mended| mended.text()))
    };
    let mut lines: Vec<String> = all.into_iter().take(SHOWN_MAX).map(line).collect();
    if omitted > 0 {
        lines.push(format!("{omitted} more {kind} annotations omitted"));
    }
    lines
}

fn keep(all: &Mutex<Kept>, text: &str, place: Place, mended: Option<Mended>) {
    let mut all = all.lock();
    let is_full = all.len() >= KEPT_MAX;
    match all.get_mut(text) {
        Some((known, sum)) => {
            // Prometheus keeps the first place of those that add up.
            if mended.is_none() {
                *known = place;
            }
            *sum = sum.zip(mended).map(|(sum, more)| sum.and(more)).or(*sum);
        }
        None if !is_full => drop(all.insert(text.to_owned(), (place, mended))),
        None => {}
    }
}

/// A part of the query, and where remarks on it go.
#[derive(Clone, Copy)]
pub struct Here<'a> {
    notes: &'a Notes,
    place: Place,
}

impl Here<'_> {
    pub fn warn(&self, text: &str) {
        keep(&self.notes.warnings, text, self.place, None);
    }

    pub fn info(&self, text: &str) {
        keep(&self.notes.infos, text, self.place, None);
    }

    /// An info that says how much there is of it.
    pub fn info_of(&self, text: &str, mended: Mended) {
        keep(&self.notes.infos, text, self.place, Some(mended));
    }

    /// What happened when histograms were added or subtracted.
    pub fn remark(&self, remarks: Remarks, operation: &str) {
        if remarks.bounds_differ {
            self.info(&format!("mismatched custom buckets were reconciled during {operation}"));
        }
        if remarks.resets_collide {
            self.warn(&format!("conflicting counter resets during histogram {operation}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_told_once_at_its_last_place() {
        let notes = Notes::default();
        let at = |column| Place { line: 1, column };
        notes.at(at(3)).warn("odd");
        notes.at(at(9)).warn("odd");
        let mended = Mended { first_ms: 5_000, last_ms: 5_000, lowest: 1.0, highest: 2.5, most: 123.0, samples: 1 };
        notes.at(at(7)).info_of("mended", mended);
        notes.at(at(7)).info_of("mended", Mended { first_ms: 65_000, last_ms: 65_000, lowest: 0.5, ..mended });
        let (warnings, infos) = notes.into_lists();
        assert_eq!(warnings, ["PromQL warning: odd (1:9)"]);
        let spans = "from 1970-01-01T00:00:05Z to 1970-01-01T00:01:05Z";
        let text = format!("from buckets 0.5 to 2.5, with a max diff of 1.2e+02, over 2 samples {spans}");
        assert_eq!(infos, [format!("PromQL info: mended, {text} (1:7)")]);
    }

    #[test]
    fn two_digits_are_enough() {
        for (value, expected) in [(10.0, "10"), (5.5, "5.5"), (100.0, "1e+02"), (0.0123, "0.012"), (1.26e-7, "1.3e-07")]
        {
            assert_eq!(two_digits(value), expected);
        }
    }
}
