//! Remarks on a query's data that go into the reply beside the result: `PromQL warning: ... (1:8)`.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::query::histogram::Remarks;
use crate::query::plan::Place;

#[derive(Default)]
pub struct Notes {
    warnings: Mutex<BTreeSet<String>>,
    infos: Mutex<BTreeSet<String>>,
    samples: AtomicU64,
}

/// Prometheus shows ten of a kind; more would drown the reply.
const SHOWN_MAX: usize = 10;
/// So many different ones are told apart; what comes then is not even counted.
const KEPT_MAX: usize = 1_000;

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

fn shown(all: Mutex<BTreeSet<String>>, kind: &str) -> Vec<String> {
    let mut all: Vec<String> = all.into_inner().into_iter().collect();
    if all.len() > SHOWN_MAX {
        let omitted = all.len() - SHOWN_MAX;
        all.truncate(SHOWN_MAX);
        all.push(format!("{omitted} more {kind} annotations omitted"));
    }
    all
}

fn keep(all: &Mutex<BTreeSet<String>>, text: String) {
    let mut all = all.lock();
    if all.len() < KEPT_MAX {
        all.insert(text);
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
        keep(&self.notes.warnings, format!("PromQL warning: {text} ({})", self.place));
    }

    pub fn info(&self, text: &str) {
        keep(&self.notes.infos, format!("PromQL info: {text} ({})", self.place));
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
