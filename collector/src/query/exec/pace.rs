//! What a query may still use, asked often enough to end in time and too seldom to cost anything.
//!
//! Bytes are taken before a column is made: an allocation that fails would end the whole program. The clock is read once in
//! [`PACE_CELLS`] cells.

use std::ops::Range;

use crate::query::QueryError;
use crate::query::value::Steps;
use crate::store::Budget;

use super::Eval;

/// So many cells are worked on between two looks at the clock: a millisecond of sorting at the most.
const PACE_CELLS: usize = 1 << 14;
/// Items of a list that is worked on in parallel, between two looks at the clock.
const PACE_ITEMS: usize = 1 << 6;

/// Counts work, and looks from time to time whether it may go on.
pub struct Pace<'a> {
    budget: &'a Budget,
    cells: usize,
}

impl<'a> Pace<'a> {
    pub fn new(budget: &'a Budget) -> Self {
        Self { budget, cells: 0 }
    }

    /// Of one item of many, `item` counting them: the first of each [`PACE_ITEMS`] looks at once, so that many small items
    /// end in time as a large one does.
    pub fn of_item(budget: &'a Budget, item: usize) -> Result<Self, QueryError> {
        if item.is_multiple_of(PACE_ITEMS) {
            budget.check()?;
        }
        Ok(Self::new(budget))
    }

    /// Before or after `cells` were looked at.
    #[inline]
    pub fn work(&mut self, cells: usize) -> Result<(), QueryError> {
        self.cells += cells;
        if self.cells >= PACE_CELLS {
            self.cells = 0;
            self.budget.check()?;
        }
        Ok(())
    }
}

impl Eval<'_> {
    pub fn pace(&self) -> Pace<'_> {
        Pace::new(self.budget)
    }

    /// Before so many rows are made.
    pub fn take_rows(&self, rows: usize, steps: Steps) -> Result<(), QueryError> {
        take_rows(self.budget, rows, steps)
    }

    /// Before the windows of so many steps are found: each thread has those of one group at a time.
    pub fn take_windows(&self, steps: Steps) -> Result<(), QueryError> {
        let bytes = rayon::current_num_threads() * size_of::<Range<usize>>();
        Ok(self.budget.take_bytes((steps.count as u64).saturating_mul(bytes as u64))?)
    }

    /// A number per step.
    pub fn column(&self, steps: Steps, cell: impl FnMut(usize) -> f64) -> Result<Vec<f64>, QueryError> {
        self.take_rows(1, steps)?;
        Ok((0..steps.count).map(cell).collect())
    }

    /// Scalar arguments, laid out step by step.
    pub fn by_step(&self, columns: &[Vec<f64>], steps: Steps) -> Result<ByStep, QueryError> {
        self.take_rows(columns.len(), steps)?;
        let cells = (0..steps.count).flat_map(|step| columns.iter().map(move |column| column[step])).collect();
        Ok(ByStep { cells, width: columns.len(), steps: steps.count })
    }
}

/// As [`Eval::take_rows`].
pub fn take_rows(budget: &Budget, rows: usize, steps: Steps) -> Result<(), QueryError> {
    let cells = (rows as u64).saturating_mul(steps.count as u64);
    Ok(budget.take_bytes(cells.saturating_mul(size_of::<f64>() as u64))?)
}

/// The scalar arguments of a function, of each step.
pub struct ByStep {
    cells: Vec<f64>,
    width: usize,
    steps: usize,
}

impl ByStep {
    #[inline]
    pub fn at(&self, step: usize) -> &[f64] {
        &self.cells[step * self.width..(step + 1) * self.width]
    }

    pub fn iter(&self) -> impl Iterator<Item = &[f64]> {
        (0..self.steps).map(|step| self.at(step))
    }

    /// Whether there are no arguments.
    pub fn has_none(&self) -> bool {
        self.width == 0
    }

    /// Steps.
    pub fn len(&self) -> usize {
        self.steps
    }
}
