//! The operators `and`, `or` and `unless` between two vectors.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::query::QueryError;
use crate::query::plan::{BinaryOp, Grouping};
use crate::query::value::{Row, Steps, absent, is_absent};
use crate::store::Labels;

use super::Eval;
use super::binary::signature;

/// The match groups of one side, and at which steps they have a sample.
type Presence = HashMap<Labels, Vec<bool>>;

impl Eval<'_> {
    pub fn set(
        &self,
        op: BinaryOp,
        left: Vec<Row>,
        right: Vec<Row>,
        keys: &Grouping,
        steps: Steps,
    ) -> Result<Vec<Row>, QueryError> {
        match op {
            BinaryOp::And => self.masked(left, keys, &self.presence(&right, keys, steps)?, true),
            BinaryOp::Unless => self.masked(left, keys, &self.presence(&right, keys, steps)?, false),
            _ => {
                let present = self.presence(&left, keys, steps)?;
                let mut rows = left;
                rows.extend(self.masked(right, keys, &present, false)?);
                self.merge(rows)
            }
        }
    }

    fn presence(&self, rows: &[Row], keys: &Grouping, steps: Steps) -> Result<Presence, QueryError> {
        let mut pace = self.pace();
        let mut present = Presence::new();
        for row in rows {
            pace.work(row.cells.len() + row.labels.len())?;
            let key = signature(&row.labels, keys);
            let used = match present.entry(key) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    self.budget.take_bytes(steps.count as u64)?;
                    entry.insert(vec![false; steps.count])
                }
            };
            for (used, cell) in used.iter_mut().zip(&row.cells) {
                *used |= !is_absent(*cell);
            }
        }
        Ok(present)
    }

    /// Keeps of each row the cells whose match group has (or lacks) a sample on the other side.
    fn masked(&self, rows: Vec<Row>, keys: &Grouping, other: &Presence, wanted: bool) -> Result<Vec<Row>, QueryError> {
        let mut pace = self.pace();
        let mut kept = Vec::with_capacity(rows.len());
        for mut row in rows {
            pace.work(row.cells.len() + row.labels.len())?;
            let used = other.get(&signature(&row.labels, keys));
            for (step, cell) in row.cells.iter_mut().enumerate() {
                if used.is_some_and(|used| used[step]) != wanted {
                    *cell = absent();
                }
            }
            if row.has_any() {
                kept.push(row);
            }
        }
        Ok(kept)
    }
}
