//! A [`Source`] that does something around what another one answers: what tests of limits, live queries and the like differ in.

use std::sync::Arc;

use lampad_collector::store::{Budget, EachLabels, Matcher, Meta, Select, SelectError, Series, Source, Visit};

pub trait Around: Send + Sync {
    /// Asks the source within.
    fn ask<T>(&self, question: impl FnOnce(&dyn Source) -> T) -> T;

    /// Before samples are selected; an error is the answer.
    fn before(&self, _budget: &Budget) -> Result<(), SelectError> {
        Ok(())
    }

    /// After samples were selected.
    fn after(&self, _budget: &Budget) {}
}

#[derive(Default)]
pub struct Wrapped<A>(pub A);

impl<A: Around> Source for Wrapped<A> {
    fn select(&self, matchers: &[Matcher], select: Select, budget: &Budget) -> Result<Vec<Series>, SelectError> {
        self.0.before(budget)?;
        let found = self.0.ask(|source| source.select(matchers, select, budget));
        self.0.after(budget);
        found
    }

    fn series(
        &self,
        any_of: &[Vec<Matcher>],
        from_ms: i64,
        to_ms: i64,
        budget: &Budget,
        each: EachLabels<'_>,
    ) -> Result<(), SelectError> {
        self.0.ask(|source| source.series(any_of, from_ms, to_ms, budget, each))
    }

    fn label_names(
        &self,
        any_of: &[Vec<Matcher>],
        from_ms: i64,
        to_ms: i64,
        budget: &Budget,
    ) -> Result<Vec<Arc<str>>, SelectError> {
        self.0.ask(|source| source.label_names(any_of, from_ms, to_ms, budget))
    }

    fn label_values(
        &self,
        name: &str,
        any_of: &[Vec<Matcher>],
        from_ms: i64,
        to_ms: i64,
        budget: &Budget,
    ) -> Result<Vec<Arc<str>>, SelectError> {
        self.0.ask(|source| source.label_values(name, any_of, from_ms, to_ms, budget))
    }

    fn metadata(&self, metric: Option<&str>) -> Vec<(Arc<str>, Meta)> {
        self.0.ask(|source| source.metadata(metric))
    }

    fn latest(&self, any_of: &[Vec<Matcher>], visit: Visit<'_>) {
        self.0.ask(|source| source.latest(any_of, visit));
    }
}
