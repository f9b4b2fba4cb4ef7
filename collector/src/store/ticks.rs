//! The ticks of a sealed run, as bytes.
//!
//! ```text
//! ticks   varint count, signed first tick, signed first step, then signed change of step each;
//!         a change of 0 is followed by a varint: so many more of 0 come after it
//! ```
//! An agent stamps its ticks with the moments at which they were due, so most runs have one step from end to end. Where reads
//! were late a tick costs a byte or two.

use std::sync::Arc;

use super::bytes::{Reader, put_signed, put_varint};

/// More than a run can have; a longer list is damage, not a reason to allocate.
const TICKS_MAX: usize = 1 << 24;

pub(super) fn put_ticks(out: &mut Vec<u8>, ticks: &[i64]) {
    put_varint(out, ticks.len() as u64);
    let mut deltas = Changes::default();
    let mut rest = ticks.iter();
    while let Some(tick) = rest.next() {
        let change = deltas.of(*tick);
        put_signed(out, change);
        if change == 0 {
            let mut same = 0;
            while rest.as_slice().first().is_some_and(|tick| deltas.clone().of(*tick) == 0) {
                deltas.of(rest.as_slice()[0]);
                rest.next();
                same += 1;
            }
            put_varint(out, same);
        }
    }
}

/// `None` when they cannot be read or do not ascend.
pub(super) fn read_ticks(reader: &mut Reader<'_>) -> Option<Vec<i64>> {
    let count = usize::try_from(reader.varint()?).ok().filter(|count| *count <= TICKS_MAX)?;
    let mut ticks = Vec::with_capacity(count.min(1 << 17));
    let mut changes = Changes::default();
    while ticks.len() < count {
        let change = reader.signed()?;
        ticks.push(changes.tick(change));
        if change == 0 {
            let same = usize::try_from(reader.varint()?).ok()?;
            if same > count - ticks.len() {
                return None;
            }
            ticks.extend((0..same).map(|_| changes.tick(0)));
        }
    }
    ticks.is_sorted().then_some(ticks)
}

/// The ticks of a sealed run as they are kept in memory: many runs are known at a time, and few of them are read.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ticks {
    Even(Even),
    Listed(Arc<[i64]>),
}

/// Ticks of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Even {
    first_ms: i64,
    step_ms: i64,
    count: usize,
}

impl Ticks {
    pub fn of(ticks: Vec<i64>) -> Self {
        let Some(first_ms) = ticks.first().copied() else { return Self::Listed(Arc::default()) };
        let step_ms = ticks.get(1).map_or(0, |second| second.wrapping_sub(first_ms));
        let even = Even { first_ms, step_ms, count: ticks.len() };
        if even.iter().eq(ticks.iter().copied()) { Self::Even(even) } else { Self::Listed(ticks.into()) }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Even(even) => even.count,
            Self::Listed(ticks) => ticks.len(),
        }
    }

    /// Memory that they take beside themselves.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Even(_) => 0,
            Self::Listed(ticks) => size_of_val(&**ticks),
        }
    }

    pub fn list(&self) -> Arc<[i64]> {
        match self {
            Self::Even(even) => even.iter().collect(),
            Self::Listed(ticks) => ticks.clone(),
        }
    }
}

impl Even {
    fn iter(self) -> impl Iterator<Item = i64> {
        (0..self.count).map(move |tick| self.first_ms.wrapping_add(self.step_ms.wrapping_mul(tick as i64)))
    }
}

/// From ticks to changes of step and back. Wrapping, because foreign times may be anything.
#[derive(Debug, Default, Clone)]
struct Changes {
    seen: u8,
    before: i64,
    step: i64,
}

impl Changes {
    fn of(&mut self, tick: i64) -> i64 {
        let next = tick.wrapping_sub(self.before);
        let change = next.wrapping_sub(self.step);
        self.take(tick, next);
        change
    }

    fn tick(&mut self, change: i64) -> i64 {
        let next = self.step.wrapping_add(change);
        let tick = self.before.wrapping_add(next);
        self.take(tick, next);
        tick
    }

    /// The first tick is no step.
    fn take(&mut self, tick: i64, next: i64) {
        self.before = tick;
        if self.seen > 0 {
            self.step = next;
        }
        self.seen = 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ticks_come_back(ticks in prop::collection::btree_set(any::<i64>(), 0..50), steps in prop::collection::vec(0i64..3, 0..300)) {
            let mut at = 1_700_000_000_000i64;
            let regular = steps.iter().map(|step| { at += 1000 + step / 2; at });
            for ticks in [ticks.into_iter().collect::<Vec<i64>>(), regular.collect()] {
                let mut out = Vec::new();
                put_ticks(&mut out, &ticks);
                let mut reader = Reader(&out);
                prop_assert_eq!(read_ticks(&mut reader), Some(ticks.clone()));
                prop_assert!(reader.is_empty());
                let kept = Ticks::of(ticks.clone());
                prop_assert_eq!((kept.len(), &*kept.list()), (ticks.len(), &*ticks));
            }
        }

        #[test]
        fn garbage_is_none_or_ascends(bytes: Vec<u8>) {
            if let Some(ticks) = read_ticks(&mut Reader(&bytes)) {
                prop_assert!(ticks.is_sorted());
            }
        }
    }

    #[test]
    fn a_day_of_equal_steps_is_some_bytes() {
        let ticks: Vec<i64> = (0..86_400).map(|tick| 1_700_000_000_000 + tick * 1000).collect();
        let mut out = Vec::new();
        put_ticks(&mut out, &ticks);
        assert!(out.len() < 20, "{} bytes", out.len());
        assert_eq!(read_ticks(&mut Reader(&out)).as_ref(), Some(&ticks));
        assert_eq!(Ticks::of(ticks).bytes(), 0);
    }
}
