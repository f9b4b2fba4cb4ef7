//! The ticks of a run: in a list where their steps differ, else by the first of them, and as the bytes of a sealed run.
//!
//! ```text
//! ticks   varint count, signed first tick, signed first step, then signed change of step each;
//!         a change of 0 is followed by a varint: so many more of 0 come after it
//! ```
//! An agent stamps its ticks with the moments at which they were due, so most runs have one step from end to end. Where reads
//! were late a tick costs a byte or two.

use std::borrow::Cow;
use std::ops::Deref;
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

/// The ticks of a run as they are kept in memory, where there are many runs: nearly all have one step from end to end, and cost
/// nothing. The list of a sealed run is shared with those who read it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ticks<L = Arc<[i64]>> {
    Even(Even),
    Listed(L),
}

/// The ticks of a run that grows.
pub(super) type Growing = Ticks<Vec<i64>>;

/// Ticks of one step.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Even {
    first_ms: i64,
    step_ms: i64,
    count: usize,
}

impl<L: Deref<Target = [i64]>> Ticks<L> {
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
}

impl Ticks {
    pub fn of(ticks: Vec<i64>) -> Self {
        let mut even = Even::default();
        match ticks.iter().all(|tick| even.push(*tick)) {
            true => Self::Even(even),
            false => Self::Listed(ticks.into()),
        }
    }

    pub fn list(&self) -> Arc<[i64]> {
        match self {
            Self::Even(even) => even.iter().collect(),
            Self::Listed(ticks) => ticks.clone(),
        }
    }
}

impl Growing {
    pub fn new() -> Self {
        Self::Even(Even::default())
    }

    /// Adds one that is newer than all that are there.
    pub fn push(&mut self, tick: i64) {
        match self {
            Self::Even(even) => {
                if !even.push(tick) {
                    *self = Self::Listed(even.iter().chain([tick]).collect());
                }
            }
            Self::Listed(ticks) => ticks.push(tick),
        }
    }

    pub fn get(&self, at: usize) -> Option<i64> {
        match self {
            Self::Even(even) => (at < even.count).then(|| even.at(at)),
            Self::Listed(ticks) => ticks.get(at).copied(),
        }
    }

    pub fn first(&self) -> Option<i64> {
        self.get(0)
    }

    pub fn last(&self) -> Option<i64> {
        self.get(self.len().checked_sub(1)?)
    }

    /// How many there are at the begin of which this is true.
    pub fn partition_point(&self, is_before: impl Fn(i64) -> bool) -> usize {
        match self {
            Self::Even(even) => even.partition_point(is_before),
            Self::Listed(ticks) => ticks.partition_point(|tick| is_before(*tick)),
        }
    }

    /// The number of the tick at this time.
    pub fn find(&self, at_ms: i64) -> Option<usize> {
        let at = self.partition_point(|tick| tick < at_ms);
        self.get(at).filter(|tick| *tick == at_ms).map(|_| at)
    }

    /// Whether some tick lies in `(after_ms, until_ms]`.
    pub fn has_in(&self, after_ms: i64, until_ms: i64) -> bool {
        self.get(self.partition_point(|tick| tick <= after_ms)).is_some_and(|tick| tick <= until_ms)
    }

    pub fn list(&self) -> Cow<'_, [i64]> {
        match self {
            Self::Even(even) => even.iter().collect(),
            Self::Listed(ticks) => Cow::Borrowed(ticks),
        }
    }
}

impl Even {
    fn at(self, tick: usize) -> i64 {
        self.first_ms.wrapping_add(self.step_ms.wrapping_mul(tick as i64))
    }

    fn iter(self) -> impl Iterator<Item = i64> {
        (0..self.count).map(move |tick| self.at(tick))
    }

    /// False where the tick is not in step.
    fn push(&mut self, tick: i64) -> bool {
        match self.count {
            0 => self.first_ms = tick,
            1 => self.step_ms = tick.wrapping_sub(self.first_ms),
            count if self.at(count) != tick => return false,
            _ => {}
        }
        self.count += 1;
        true
    }

    fn partition_point(self, is_before: impl Fn(i64) -> bool) -> usize {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            match is_before(self.at(middle)) {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low
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
        fn growing_ticks_are_as_in_a_list(first in any::<i64>(), steps in prop::collection::vec(1i64..3, 0..20), asked in -2i64..40) {
            let mut growing = Growing::new();
            let mut ticks: Vec<i64> = Vec::new();
            let mut at = first.clamp(i64::MIN + 100, i64::MAX - 100);
            for step in [0].into_iter().chain(steps) {
                at += step;
                growing.push(at);
                ticks.push(at);
                let even = ticks.windows(3).all(|three| three[2] - three[1] == three[1] - three[0]);
                prop_assert_eq!(growing.bytes(), if even { 0 } else { ticks.len() * 8 });
            }
            let asked = ticks[0] + asked;
            prop_assert_eq!(&*growing.list(), &*ticks);
            prop_assert_eq!(growing.len(), ticks.len());
            prop_assert_eq!((growing.first(), growing.last()), (ticks.first().copied(), ticks.last().copied()));
            prop_assert_eq!(growing.get(ticks.len()), None);
            prop_assert_eq!(growing.find(asked), ticks.binary_search(&asked).ok());
            prop_assert_eq!(growing.partition_point(|tick| tick < asked), ticks.partition_point(|tick| *tick < asked));
            let within = |tick: &&i64| **tick > asked && **tick <= asked + 1;
            prop_assert_eq!(growing.has_in(asked, asked + 1), ticks.iter().find(within).is_some());
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
