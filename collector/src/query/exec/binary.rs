//! Operators between two expressions: arithmetic, comparisons, and the set operators.

use std::collections::HashMap;

use crate::query::QueryError;
use crate::query::plan::{BinaryOp, Cardinality, Expr, Grouping, Kind, Matching};
use crate::query::value::{Cell, Row, Steps, Value, absent, braced, filter, is_absent, is_metadata, with};
use crate::store::{Labels, METRIC_NAME};

use super::mixed::between;
use super::selector::map_rows;
use super::{Eval, Here, merge};

impl Eval<'_> {
    pub fn binary(
        &self,
        op: BinaryOp,
        left: &Expr,
        right: &Expr,
        matching: &Matching,
        steps: Steps,
    ) -> Result<Value, QueryError> {
        let here = self.notes.at(left.place());
        match (left.kind(), right.kind()) {
            (Kind::Scalar, Kind::Scalar) => {
                let (left, right) = (self.scalar(left, steps)?, self.scalar(right, steps)?);
                Ok(Value::Scalar(left.into_iter().zip(right).map(|(l, r)| compute(op, l, r)).collect()))
            }
            (Kind::Vector, Kind::Scalar) => {
                let (rows, numbers) = (self.rows(left, steps)?, self.scalar(right, steps)?);
                self.with_scalar(op, rows, &numbers, false, matching.returns_bool, here)
            }
            (Kind::Scalar, Kind::Vector) => {
                let (numbers, rows) = (self.scalar(left, steps)?, self.rows(right, steps)?);
                self.with_scalar(op, rows, &numbers, true, matching.returns_bool, here)
            }
            (Kind::Vector, Kind::Vector) => {
                let (left, right) = (self.rows(left, steps)?, self.rows(right, steps)?);
                self.budget.check()?;
                if op.is_set() {
                    return set(op, left, right, &matching.keys, steps).map(Value::Rows);
                }
                self.matched(op, left, right, matching, steps, here).map(Value::Rows)
            }
            _ => Err(QueryError::execution("binary operators work on scalars and instant vectors only")),
        }
    }

    /// Between each row and the number at the same step.
    fn with_scalar(
        &self,
        op: BinaryOp,
        rows: Vec<Row>,
        numbers: &[f64],
        scalar_left: bool,
        returns_bool: bool,
        here: Here<'_>,
    ) -> Result<Value, QueryError> {
        let filters = op.is_comparison() && !returns_bool;
        let rows = map_rows(rows, numbers.len(), |mut row| {
            if row.has_histograms() {
                return mixed_with_scalar(op, row, numbers, scalar_left, returns_bool, here);
            }
            for (cell, number) in row.cells.iter_mut().zip(numbers) {
                if is_absent(*cell) {
                    continue;
                }
                let result = if scalar_left { compute(op, *number, *cell) } else { compute(op, *cell, *number) };
                if !filters {
                    *cell = result;
                } else if result == 0.0 {
                    *cell = absent();
                }
            }
            row
        });
        if filters {
            return Ok(Value::Rows(rows.into_iter().filter(Row::has_any).collect()));
        }
        self.nameless(rows.into_iter().filter(|row| !row.has_histograms() || row.has_any()).collect()).map(Value::Rows)
    }

    /// Between rows whose labels agree.
    fn matched(
        &self,
        op: BinaryOp,
        left: Vec<Row>,
        right: Vec<Row>,
        matching: &Matching,
        steps: Steps,
        here: Here<'_>,
    ) -> Result<Vec<Row>, QueryError> {
        // From here on "many" may hold several rows per match group; with group_right it is the right side.
        let swapped = matches!(matching.cardinality, Cardinality::OneToMany(_));
        let (many, one) = if swapped { (right, left) } else { (left, right) };
        let (fill_many, fill_one) = match swapped {
            true => (matching.fill_right, matching.fill_left),
            false => (matching.fill_left, matching.fill_right),
        };
        let occupied = if fill_many.is_none() { Some(columns_in_use(&many, steps)) } else { None };
        let mut ones: HashMap<Labels, Vec<Row>> = HashMap::new();
        for row in one {
            ones.entry(signature(&row.labels, &matching.keys)).or_default().push(row);
        }
        for (key, rows) in &ones {
            check_unique(key, rows, occupied.as_deref(), swapped)?;
        }
        let mut groups: HashMap<Labels, (Vec<Row>, Vec<Row>)> = HashMap::new();
        let mut order = Vec::new();
        for row in many {
            let key = signature(&row.labels, &matching.keys);
            let group = groups.entry(key.clone()).or_insert_with(|| {
                order.push(key.clone());
                (Vec::new(), ones.remove(&key).unwrap_or_default())
            });
            group.0.push(row);
        }
        if fill_many.is_some() {
            for (key, rows) in ones {
                order.push(key.clone());
                groups.insert(key, (Vec::new(), rows));
            }
        }
        let delayed = self.features.delayed_name_removal;
        let work = Work { op, matching, swapped, fill_many, fill_one, delayed, here };
        let groups: Vec<_> =
            order.into_iter().filter_map(|key| groups.remove(&key).map(|group| (key, group))).collect();
        let rows = map_rows(groups, steps.count, |(key, (many, one))| work.group(&key, many, one, steps));
        let mut all = Vec::new();
        for rows in rows {
            all.extend(rows?);
        }
        if matches!(matching.cardinality, Cardinality::OneToOne) {
            return merge(all);
        }
        merge(all).map_err(|_| {
            QueryError::execution("multiple matches for labels: grouping labels must ensure unique matches")
        })
    }
}

fn mixed_with_scalar(
    op: BinaryOp,
    mut row: Row,
    numbers: &[f64],
    scalar_left: bool,
    returns_bool: bool,
    here: Here<'_>,
) -> Row {
    for (step, number) in numbers.iter().enumerate() {
        let Some(cell) = row.cell(step) else { continue };
        let number = Cell::Float(*number);
        let (left, right) = if scalar_left { (&number, &cell) } else { (&cell, &number) };
        let outcome = between(op, left, right, here);
        row.set(step, outcome.cell(&cell, op.is_comparison() && !returns_bool));
    }
    row
}

struct Work<'a> {
    op: BinaryOp,
    matching: &'a Matching,
    swapped: bool,
    fill_many: Option<f64>,
    fill_one: Option<f64>,
    delayed: bool,
    here: Here<'a>,
}

impl Work<'_> {
    /// All rows of one match group.
    fn group(&self, key: &Labels, many: Vec<Row>, one: Vec<Row>, steps: Steps) -> Result<Vec<Row>, QueryError> {
        let mut rows = Vec::new();
        if matches!(self.matching.cardinality, Cardinality::OneToOne) {
            check_one_to_one(&many, &one, steps)?;
        }
        for left in &many {
            for right in &one {
                rows.push(match left.has_histograms() || right.has_histograms() {
                    true => {
                        self.mixed_pair((&left.labels, Some(&right.labels)), |s| (left.cell(s), right.cell(s)), steps)
                    }
                    false => {
                        let cells = |step: usize| (left.cells[step], right.cells[step]);
                        self.pair(&left.labels, Some(&right.labels), cells, steps)
                    }
                });
            }
            if let Some(fill) = self.fill_one {
                let missing = |step: usize| one.iter().all(|row| is_absent(row.cells[step]));
                let cells = |step| (left.cell(step), missing(step).then_some(Cell::Float(fill)));
                rows.push(self.mixed_pair((&left.labels, None), cells, steps));
            }
        }
        if let Some(fill) = self.fill_many {
            for right in &one {
                let missing = |step: usize| many.iter().all(|row| is_absent(row.cells[step]));
                let cells = |step| (missing(step).then_some(Cell::Float(fill)), right.cell(step));
                rows.push(self.mixed_pair((key, Some(&right.labels)), cells, steps));
            }
        }
        rows.retain(Row::has_any);
        Ok(rows)
    }

    fn pair(&self, many: &Labels, one: Option<&Labels>, cells: impl Fn(usize) -> (f64, f64), steps: Steps) -> Row {
        let filters = self.op.is_comparison() && !self.matching.returns_bool;
        let cells = (0..steps.count).map(|step| {
            let (many, one) = cells(step);
            if is_absent(many) || is_absent(one) {
                return absent();
            }
            let (left, right) = if self.swapped { (one, many) } else { (many, one) };
            let result = compute(self.op, left, right);
            match (filters, result == 0.0) {
                (false, _) => result,
                (true, true) => absent(),
                // The left side's value, whichever side the labels come from.
                (true, false) => left,
            }
        });
        let cells = cells.collect();
        let drop_name = !filters;
        Row::new(self.result_labels(many, one, drop_name), cells).dropping(drop_name && self.delayed)
    }

    /// As [`Self::pair`], for cells of any type.
    fn mixed_pair(
        &self,
        (many, one): (&Labels, Option<&Labels>),
        cells: impl Fn(usize) -> (Option<Cell>, Option<Cell>),
        steps: Steps,
    ) -> Row {
        let filters = self.op.is_comparison() && !self.matching.returns_bool;
        let labels = self.result_labels(many, one, !filters);
        let mut row = Row::blank(labels, steps.count).dropping(!filters && self.delayed);
        for step in 0..steps.count {
            let (Some(many), Some(one)) = cells(step) else { continue };
            let (left, right) = if self.swapped { (one, many) } else { (many, one) };
            row.set(step, between(self.op, &left, &right, self.here).cell(&left, filters));
        }
        row
    }

    fn result_labels(&self, many: &Labels, one: Option<&Labels>, drop_name: bool) -> Labels {
        let kept = |name: &str| !is_metadata(name) || !drop_name || self.delayed;
        match &self.matching.cardinality {
            Cardinality::OneToOne => match &self.matching.keys {
                Grouping::By(names) => filter(many, |name| kept(name) && names.iter().any(|key| key == name)),
                Grouping::Without(names) => filter(many, |name| kept(name) && !names.iter().any(|key| key == name)),
            },
            Cardinality::ManyToOne(include) | Cardinality::OneToMany(include) => {
                let many = filter(many, kept);
                let Some(one) = one else { return many };
                if include.is_empty() {
                    return many;
                }
                let value = |name: &String| one.get(name).map(|value| value.to_string()).unwrap_or_default();
                with(&many, include.iter().map(|name| (name.clone(), value(name))))
            }
        }
    }
}

/// Steps at which any row has a sample: a side without any at a step makes no result there, and no error either.
fn columns_in_use(rows: &[Row], steps: Steps) -> Vec<bool> {
    let mut used = vec![false; steps.count];
    for row in rows {
        for (used, cell) in used.iter_mut().zip(&row.cells) {
            *used |= !is_absent(*cell);
        }
    }
    used
}

fn check_unique(key: &Labels, rows: &[Row], occupied: Option<&[bool]>, swapped: bool) -> Result<(), QueryError> {
    if rows.len() < 2 {
        return Ok(());
    }
    for step in 0..rows[0].cells.len() {
        if occupied.is_some_and(|occupied| !occupied[step]) {
            continue;
        }
        let mut present = rows.iter().filter(|row| !is_absent(row.cells[step]));
        if let (Some(first), Some(second)) = (present.next(), present.next()) {
            let side = if swapped { "left" } else { "right" };
            return Err(QueryError::execution(format!(
                "found duplicate series for the match group {} on the {side} hand-side of the operation: [{}, {}];\
                 many-to-many matching not allowed: matching labels must be unique on one side",
                braced(key),
                braced(&first.labels),
                braced(&second.labels)
            )));
        }
    }
    Ok(())
}

/// Two samples on the left for one on the right are an error, even where a comparison would filter them out.
fn check_one_to_one(many: &[Row], one: &[Row], steps: Steps) -> Result<(), QueryError> {
    let present = |rows: &[Row], step: usize| rows.iter().filter(|row| !is_absent(row.cells[step])).count();
    if many.len() > 1 && (0..steps.count).any(|step| present(many, step) > 1 && present(one, step) > 0) {
        return Err(QueryError::execution(
            "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
        ));
    }
    Ok(())
}

fn signature(labels: &Labels, keys: &Grouping) -> Labels {
    match keys {
        Grouping::By(names) => filter(labels, |name| names.iter().any(|key| key == name)),
        Grouping::Without(names) => filter(labels, |name| name != METRIC_NAME && !names.iter().any(|key| key == name)),
    }
}

fn set(op: BinaryOp, left: Vec<Row>, right: Vec<Row>, keys: &Grouping, steps: Steps) -> Result<Vec<Row>, QueryError> {
    let presence = |rows: &[Row]| {
        let mut present: HashMap<Labels, Vec<bool>> = HashMap::new();
        for row in rows {
            let used = present.entry(signature(&row.labels, keys)).or_insert_with(|| vec![false; steps.count]);
            for (used, cell) in used.iter_mut().zip(&row.cells) {
                *used |= !is_absent(*cell);
            }
        }
        present
    };
    // Keeps of each row the cells whose match group has (or lacks) a sample on the other side.
    let masked = |rows: Vec<Row>, other: &HashMap<Labels, Vec<bool>>, wanted: bool| {
        rows.into_iter()
            .filter_map(|mut row| {
                let used = other.get(&signature(&row.labels, keys));
                for (step, cell) in row.cells.iter_mut().enumerate() {
                    if used.is_some_and(|used| used[step]) != wanted {
                        *cell = absent();
                    }
                }
                row.has_any().then_some(row)
            })
            .collect::<Vec<_>>()
    };
    match op {
        BinaryOp::And => Ok(masked(left, &presence(&right), true)),
        BinaryOp::Unless => Ok(masked(left, &presence(&right), false)),
        _ => {
            let present = presence(&left);
            let mut rows = left;
            rows.extend(masked(right, &present, false));
            merge(rows)
        }
    }
}

/// One operation on two numbers; comparisons give 1 or 0.
pub(super) fn compute(op: BinaryOp, left: f64, right: f64) -> f64 {
    let truth = |holds: bool| if holds { 1.0 } else { 0.0 };
    match op {
        BinaryOp::Add => left + right,
        BinaryOp::Sub => left - right,
        BinaryOp::Mul => left * right,
        BinaryOp::Div => left / right,
        BinaryOp::Mod => left % right,
        BinaryOp::Pow => left.powf(right),
        BinaryOp::Atan2 => left.atan2(right),
        BinaryOp::Equal => truth(left == right),
        BinaryOp::NotEqual => truth(left != right),
        BinaryOp::Greater => truth(left > right),
        BinaryOp::Less => truth(left < right),
        BinaryOp::GreaterEqual => truth(left >= right),
        BinaryOp::LessEqual => truth(left <= right),
        // Only between vectors; handled before.
        BinaryOp::And | BinaryOp::Or | BinaryOp::Unless => f64::NAN,
    }
}
