//! Operators with a native histogram on one side or both.

use std::sync::Arc;

use crate::query::histogram::{Histogram, Keep, Remarks, WrongPair};
use crate::query::plan::BinaryOp;
use crate::query::value::Cell;

use super::binary::compute;
use super::{Here, changed};

/// What an operator makes of two samples.
pub enum Outcome {
    Sample(Cell),
    /// A comparison.
    Holds(bool),
    /// The types do not go together; a remark tells.
    Nothing,
}

impl Outcome {
    /// The result; a comparison that filters keeps `compared` where it holds.
    pub fn cell(self, compared: &Cell, filters: bool) -> Option<Cell> {
        match (self, filters) {
            (Self::Nothing, _) | (Self::Holds(false), true) => None,
            (Self::Sample(cell), _) => Some(cell),
            (Self::Holds(true), true) => Some(compared.clone()),
            (Self::Holds(holds), false) => Some(Cell::Float(if holds { 1.0 } else { 0.0 })),
        }
    }
}

pub fn between(op: BinaryOp, left: &Cell, right: &Cell, here: Here<'_>) -> Outcome {
    use BinaryOp::{Add, Div, Equal, Mul, NotEqual, Sub, TrimLower, TrimUpper};
    let scaled = |histogram: &Arc<Histogram>| (**histogram).clone();
    match (left, op, right) {
        (Cell::Float(left), op, Cell::Float(right)) if !op.is_trim() => {
            let result = compute(op, *left, *right);
            if op.is_comparison() { Outcome::Holds(result != 0.0) } else { Outcome::Sample(Cell::Float(result)) }
        }
        (Cell::Float(number), Mul, Cell::Histogram(histogram))
        | (Cell::Histogram(histogram), Mul, Cell::Float(number)) => {
            Outcome::Sample(changed(scaled(histogram).scale(*number).compact()))
        }
        (Cell::Histogram(histogram), Div, Cell::Float(number)) => {
            Outcome::Sample(changed(scaled(histogram).divide(*number).compact()))
        }
        (Cell::Histogram(histogram), TrimUpper, Cell::Float(at)) => {
            Outcome::Sample(changed(scaled(histogram).trim(*at, Keep::Below)))
        }
        (Cell::Histogram(histogram), TrimLower, Cell::Float(at)) => {
            Outcome::Sample(changed(scaled(histogram).trim(*at, Keep::Above)))
        }
        (Cell::Histogram(left), Add, Cell::Histogram(right)) => combined(left.add(right), op, "addition", here),
        (Cell::Histogram(left), Sub, Cell::Histogram(right)) => combined(left.subtract(right), op, "subtraction", here),
        (Cell::Histogram(left), Equal, Cell::Histogram(right)) => Outcome::Holds(left == right),
        (Cell::Histogram(left), NotEqual, Cell::Histogram(right)) => Outcome::Holds(left != right),
        _ => {
            let (left, right, op) = (kind(left), kind(right), op.symbol());
            let text = "incompatible sample types encountered for binary operator";
            here.info(&format!("{text} {op:?}: {left} {op} {right}"));
            Outcome::Nothing
        }
    }
}

/// Whether an operator has a meaning between two samples of these types.
pub fn go_together(op: BinaryOp, left: &Cell, right: &Cell) -> bool {
    use BinaryOp::{Add, Div, Equal, Mul, NotEqual, Sub};
    match (left, right) {
        (Cell::Float(_), Cell::Float(_)) => !op.is_trim(),
        (Cell::Float(_), Cell::Histogram(_)) => op == Mul,
        (Cell::Histogram(_), Cell::Float(_)) => matches!(op, Mul | Div) || op.is_trim(),
        (Cell::Histogram(_), Cell::Histogram(_)) => matches!(op, Add | Sub | Equal | NotEqual),
    }
}

fn kind(cell: &Cell) -> &'static str {
    match cell {
        Cell::Float(_) => "float",
        Cell::Histogram(_) => "histogram",
    }
}

fn combined(result: Result<(Histogram, Remarks), WrongPair>, op: BinaryOp, operation: &str, here: Here<'_>) -> Outcome {
    match result {
        Ok((histogram, remarks)) => {
            here.remark(remarks, operation);
            Outcome::Sample(changed(histogram.compact()))
        }
        Err(WrongPair) => {
            here.warn(&format!("incompatible bucket layout encountered for binary operator {}", op.symbol()));
            Outcome::Nothing
        }
    }
}
