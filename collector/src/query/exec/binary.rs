//! Operators between two expressions: arithmetic and comparisons.

use std::collections::HashMap;

use crate::query::QueryError;
use crate::query::plan::{BinaryOp, Cardinality, Expr, Grouping, Kind, Matching};
use crate::query::value::{Cell, Row, Steps, Value, absent, braced, filter, is_absent, is_metadata, with};
use crate::store::{Budget, Labels, METRIC_NAME};

use super::mixed::{between, go_together};
use super::pace::{Pace, take_rows};
use super::selector::map_rows;
use super::{Eval, Here};

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
            (Kind::Scalar, Kind::Scalar) if op.is_trim() => {
                Err(QueryError::execution(format!("operator {:?} not allowed for Scalar operations", op.symbol())))
            }
            (Kind::Scalar, Kind::Scalar) => {
                let (left, right) = (self.scalar(left, steps)?, self.scalar(right, steps)?);
                self.take_rows(1, steps)?;
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
                    return self.set(op, left, right, &matching.keys, steps).map(Value::Rows);
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
            if row.has_histograms() || op.is_trim() {
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
        if filters || op.is_trim() {
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
        let mut pace = self.pace();
        for row in one {
            pace.work(row.labels.len() + 1)?;
            ones.entry(signature(&row.labels, &matching.keys)).or_default().push(row);
        }
        check_unique(&ones, occupied.as_deref(), swapped, &mut pace)?;
        let mut groups: HashMap<Labels, (Vec<Row>, Vec<Row>)> = HashMap::new();
        let mut order = Vec::new();
        for row in many {
            pace.work(row.labels.len() + 1)?;
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
        let work = Work { op, matching, swapped, fill_many, fill_one, delayed, here, budget: self.budget };
        let groups: Vec<_> =
            order.into_iter().filter_map(|key| groups.remove(&key).map(|group| (key, group))).collect();
        let groups: Vec<_> = groups.into_iter().enumerate().collect();
        let rows = map_rows(groups, steps.count, |(at, (key, (many, one)))| {
            let pace = Pace::of_item(self.budget, at)?;
            work.group(&key, many, one, steps, pace)
        });
        let mut all = Vec::new();
        for rows in rows {
            all.extend(rows?);
        }
        if matches!(matching.cardinality, Cardinality::OneToOne) {
            return self.merge(all);
        }
        self.merge(all).map_err(|error| match error {
            QueryError::Execution(_) => {
                QueryError::execution("multiple matches for labels: grouping labels must ensure unique matches")
            }
            other => other,
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
    budget: &'a Budget,
}

impl Work<'_> {
    /// All rows of one match group.
    fn group(
        &self,
        key: &Labels,
        many: Vec<Row>,
        one: Vec<Row>,
        steps: Steps,
        mut pace: Pace<'_>,
    ) -> Result<Vec<Row>, QueryError> {
        let mut rows = Vec::new();
        let mut made = |rows: usize| {
            take_rows(self.budget, rows, steps)?;
            pace.work(rows.saturating_mul(steps.count))
        };
        if matches!(self.matching.cardinality, Cardinality::OneToOne) {
            check_one_to_one(self.op, &many, &one, steps)?;
        }
        for left in &many {
            made(one.len())?;
            for right in &one {
                rows.push(match left.has_histograms() || right.has_histograms() || self.op.is_trim() {
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
                made(1)?;
                let missing = |step: usize| one.iter().all(|row| is_absent(row.cells[step]));
                let cells = |step| (left.cell(step), missing(step).then_some(Cell::Float(fill)));
                rows.push(self.mixed_pair((&left.labels, None), cells, steps));
            }
        }
        if let Some(fill) = self.fill_many {
            for right in &one {
                made(1)?;
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
        let drop_name = !filters && !self.op.is_trim();
        let labels = self.result_labels(many, one, drop_name);
        let mut row = Row::blank(labels, steps.count).dropping(drop_name && self.delayed);
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

/// Refuses two rows of one match group with a sample at the same step. Of several such pairs the first in time is told, then
/// the first by labels: the answer to a query does not change with the order of rows.
fn check_unique(
    groups: &HashMap<Labels, Vec<Row>>,
    occupied: Option<&[bool]>,
    swapped: bool,
    pace: &mut Pace<'_>,
) -> Result<(), QueryError> {
    let mut worst: Option<(usize, &Labels, &Labels, &Labels)> = None;
    for (key, rows) in groups.iter().filter(|(_, rows)| rows.len() > 1) {
        pace.work(rows.len().saturating_mul(rows[0].cells.len()))?;
        let mut steps = (0..rows[0].cells.len()).filter(|step| occupied.is_none_or(|occupied| occupied[*step]));
        let two = steps.find_map(|step| {
            let mut present: Vec<&Labels> =
                rows.iter().filter(|row| !is_absent(row.cells[step])).map(|row| &row.labels).collect();
            present.sort_unstable();
            let [known, new, ..] = present.as_slice() else { return None };
            Some((step, *known, *new, key))
        });
        worst = [worst, two].into_iter().flatten().min();
    }
    let Some((_, known, new, key)) = worst else { return Ok(()) };
    let side = if swapped { "left" } else { "right" };
    Err(QueryError::execution(format!(
        "found duplicate series for the match group {} on the {side} hand-side of the operation: [{}, {}];\
         many-to-many matching not allowed: matching labels must be unique on one side",
        braced(key),
        braced(known),
        braced(new)
    )))
}

/// Two samples on the left for one on the right are an error, even where a comparison would filter them out; but not those
/// that the operator knows nothing to do with.
fn check_one_to_one(op: BinaryOp, many: &[Row], one: &[Row], steps: Steps) -> Result<(), QueryError> {
    let mixed = many.iter().chain(one).any(Row::has_histograms);
    let twice = |step: usize| {
        let Some(right) = one.iter().find(|row| !is_absent(row.cells[step])) else { return false };
        let matches = |left: &Row| match mixed {
            false => !is_absent(left.cells[step]),
            true => left.cell(step).zip(right.cell(step)).is_some_and(|(left, right)| go_together(op, &left, &right)),
        };
        many.iter().filter(|left| matches(left)).count() > 1
    };
    if many.len() > 1 && (0..steps.count).any(twice) {
        return Err(QueryError::execution(
            "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
        ));
    }
    Ok(())
}

pub fn signature(labels: &Labels, keys: &Grouping) -> Labels {
    match keys {
        Grouping::By(names) => filter(labels, |name| names.iter().any(|key| key == name)),
        Grouping::Without(names) => filter(labels, |name| name != METRIC_NAME && !names.iter().any(|key| key == name)),
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
        // Never between two numbers.
        BinaryOp::And | BinaryOp::Or | BinaryOp::Unless | BinaryOp::TrimUpper | BinaryOp::TrimLower => f64::NAN,
    }
}
