//! Regular expressions over the values of a label, tested while nobody waits.
//!
//! A label may have a hundred thousand values and a query two thousand patterns: with the index locked meanwhile, nobody could
//! define a series, and behind whoever waits to define one all others wait. So the values are taken out of the index, tested
//! without it, and what was defined meanwhile is tested once more, until so little is left that it is tested in passing.
//!
//! Conditions on one label are tested together, each value until the first that it does not meet.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLockReadGuard;
use roaring::RoaringBitmap;

use super::core::Core;
use super::index::Index;
use super::{Budget, MatchOp, Matcher, SelectError};

/// So many tests are made with the index locked.
const TESTS_LOCKED: usize = 256;
/// Tests between two looks at the clock.
const TESTS_PACE: usize = 1_000;

/// A label's name, and the conditions on it.
pub type Key = (String, String);

/// What conditions come to, by label and conditions.
#[derive(Debug, Default)]
pub struct Tested {
    pub of: HashMap<Key, Split>,
}

/// The values of a label by whether they meet the conditions.
#[derive(Debug, Clone)]
pub struct Split {
    /// Of the label's values when they were tested.
    pub version: u64,
    /// Those that meet them (true), or those that do not: whichever are fewer.
    pub passing: bool,
    pub chosen: Arc<[Arc<str>]>,
    /// All that were tested, ascending; none where nobody needs to know.
    values: Arc<[Arc<str>]>,
}

impl Split {
    fn new(version: u64, values: Arc<[Arc<str>]>, passes: Vec<bool>) -> Self {
        let passing = passes.iter().filter(|passes| **passes).count() * 2 <= passes.len();
        let chosen = values.iter().zip(passes).filter(|(_, passes)| *passes == passing);
        Self { version, passing, chosen: chosen.map(|(value, _)| value.clone()).collect(), values: values.clone() }
    }

    /// Tests all values at once.
    pub fn now(version: u64, values: Arc<[Arc<str>]>, conditions: &[&Matcher]) -> Self {
        let passes = values.iter().map(|value| conditions.iter().all(|matcher| matcher.matches(value))).collect();
        Self::new(version, values, passes)
    }

    /// The same for those who know that nothing has changed.
    pub fn without_values(&self) -> Self {
        Self { values: Arc::from([]), ..self.clone() }
    }
}

/// Conditions with the values that they have not seen.
pub struct Untested {
    key: Key,
    conditions: Vec<Matcher>,
    version: u64,
    values: Arc<[Arc<str>]>,
    /// What is known of each value.
    passes: Vec<Option<bool>>,
}

impl Untested {
    pub fn new(key: Key, conditions: &[&Matcher], version: u64, values: Arc<[Arc<str>]>, tested: &Tested) -> Self {
        let mut passes = vec![None; values.len()];
        if let Some(known) = tested.of.get(&key) {
            let mut before = known.values.iter().peekable();
            let mut chosen = known.chosen.iter().peekable();
            for (value, passes) in values.iter().zip(&mut passes) {
                while before.next_if(|other| ***other < **value).is_some() {}
                while chosen.next_if(|other| ***other < **value).is_some() {}
                if before.peek().is_some_and(|other| Arc::ptr_eq(other, value) || ***other == **value) {
                    *passes = Some((chosen.peek().is_some_and(|other| ***other == **value)) == known.passing);
                }
            }
        }
        let conditions = conditions.iter().map(|matcher| (*matcher).clone()).collect();
        Self { key, conditions, version, values, passes }
    }

    /// How many tests it takes.
    fn tests(&self) -> usize {
        self.passes.iter().filter(|passes| passes.is_none()).count().saturating_mul(self.conditions.len())
    }

    fn test(self, budget: &Budget, tested: &mut Tested) -> Result<(), SelectError> {
        let mut made = 0;
        let mut passes = Vec::with_capacity(self.passes.len());
        for (value, known) in self.values.iter().zip(&self.passes) {
            if let Some(known) = known {
                passes.push(*known);
                continue;
            }
            let mut meets = true;
            for matcher in &self.conditions {
                if made % TESTS_PACE == 0 {
                    budget.check()?;
                }
                made += 1;
                if !matcher.matches(value) {
                    meets = false;
                    break;
                }
            }
            passes.push(meets);
        }
        tested.of.insert(self.key, Split::new(self.version, self.values, passes));
        Ok(())
    }
}

pub fn is_regex(matcher: &Matcher) -> bool {
    matches!(matcher.op, MatchOp::Match(_) | MatchOp::NoMatch(_))
}

/// What tells conditions on one label from others.
pub fn key(conditions: &[&Matcher]) -> Key {
    let name = conditions.first().map_or(String::new(), |matcher| matcher.name.clone());
    let mut texts = String::new();
    for matcher in conditions {
        let sign = if matches!(matcher.op, MatchOp::NoMatch(_)) { '!' } else { '=' };
        // The length keeps two conditions apart from one that looks like both.
        texts.push_str(&format!("{sign}{}:{}", matcher.value.len(), matcher.value));
    }
    (name, texts)
}

impl Core {
    /// The series that meet any of the lists, all where there is none, and the index in which they do.
    pub fn found(
        &self,
        any_of: &[impl AsRef<[Matcher]>],
        budget: &Budget,
    ) -> Result<(RwLockReadGuard<'_, Index>, RoaringBitmap), SelectError> {
        let mut tested = Tested::default();
        loop {
            let index = self.index.read();
            let untested = index.postings.untested(any_of, &mut tested);
            let is_little = untested.iter().map(Untested::tests).sum::<usize>() <= TESTS_LOCKED;
            let index = Some(index).filter(|_| is_little);
            for untested in untested {
                untested.test(budget, &mut tested)?;
            }
            if let Some(index) = index {
                index.postings.keep(&tested);
                let found = index.postings.any_of(any_of, &tested);
                return Ok((index, found));
            }
            budget.check()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(texts: &[&str]) -> Arc<[Arc<str>]> {
        texts.iter().map(|text| Arc::from(*text)).collect()
    }

    fn budget() -> Budget {
        Budget::new(0, std::time::Instant::now() + std::time::Duration::from_secs(3600))
    }

    /// Values that came meanwhile are tested, those that are known are not.
    #[test]
    fn only_what_is_new_is_tested_again() {
        let matcher = Matcher {
            name: "id".into(),
            op: MatchOp::Match(regex::Regex::new("^(?s:a.*)$").unwrap()),
            value: "a.*".into(),
        };
        let (conditions, mut tested) = ([&matcher], Tested::default());
        let first = Untested::new(key(&conditions), &conditions, 1, values(&["a1", "b1", "b2", "b3"]), &tested);
        assert_eq!(first.tests(), 4);
        first.test(&budget(), &mut tested).unwrap();
        let second = Untested::new(key(&conditions), &conditions, 2, values(&["a1", "a2", "b0", "b2", "b3"]), &tested);
        assert_eq!(second.tests(), 2);
        second.test(&budget(), &mut tested).unwrap();
        let split = &tested.of[&key(&conditions)];
        assert_eq!((split.version, split.passing, &split.chosen), (2, true, &values(&["a1", "a2"])));
        let third = Untested::new(key(&conditions), &conditions, 3, values(&["a1", "a2", "a3", "b0"]), &tested);
        third.test(&budget(), &mut tested).unwrap();
        let split = &tested.of[&key(&conditions)];
        assert_eq!((split.passing, &split.chosen), (false, &values(&["b0"])));
    }

    #[test]
    fn whoever_has_left_is_not_tested_for() {
        let matcher = Matcher {
            name: "id".into(),
            op: MatchOp::NoMatch(regex::Regex::new("^(?s:a.*)$").unwrap()),
            value: "a.*".into(),
        };
        let untested = Untested::new(key(&[&matcher]), &[&matcher], 1, values(&["a"]), &Tested::default());
        let budget = budget();
        budget.cancel();
        assert!(matches!(untested.test(&budget, &mut Tested::default()), Err(SelectError::Cancelled)));
    }
}
