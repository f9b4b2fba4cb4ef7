//! `info()`: adds the labels of an info metric to the series of the same target.

use std::collections::HashMap;

use crate::query::QueryError;
use crate::query::plan::{Expr, Selector, Shift};
use crate::query::value::{Row, Steps, absent, filter, is_absent};
use crate::store::{Labels, METRIC_NAME, MatchOp, Matcher};

use super::{Eval, merge};

/// What names a target.
const IDENTITY: [&str; 2] = ["instance", "job"];

impl Eval<'_> {
    pub fn info(&self, args: &[Expr], steps: Steps) -> Result<Vec<Row>, QueryError> {
        let base = match args.first() {
            Some(vector) => self.rows(vector, steps)?,
            None => return Err(QueryError::execution("info() needs an instant vector")),
        };
        let wanted: Vec<Matcher> = match args.get(1).map(Expr::without_parens) {
            None => Vec::new(),
            Some(Expr::Selector(selector)) => selector.any_of.first().cloned().unwrap_or_default(),
            Some(_) => return Err(QueryError::execution("info(): the second argument must be a label selector")),
        };
        let (names, data): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|matcher| matcher.name == METRIC_NAME);
        let names = match names.is_empty() {
            true => vec![Matcher { name: METRIC_NAME.to_owned(), op: MatchOp::Equal, value: "target_info".to_owned() }],
            false => names,
        };
        let matchers = names.iter().chain(&data).cloned().collect();
        let selector = Selector { any_of: vec![matchers], shift: Shift { at: None, offset_ms: 0 } };
        let infos = self.instant_rows(&selector, steps)?;
        let mut by_target: HashMap<Labels, Vec<Row>> = HashMap::new();
        for row in infos {
            by_target.entry(target(&row.labels)).or_default().push(row);
        }
        // A series without its info metric stays as it is, unless a label was asked for that it cannot have then.
        let optional = data.iter().all(|matcher| matcher.matches(""));
        let mut rows = Vec::new();
        for row in base {
            let is_info = row.labels.metric().is_some_and(|name| names.iter().all(|matcher| matcher.matches(name)));
            let infos = if is_info { None } else { by_target.get(&target(&row.labels)) };
            match infos {
                Some(infos) => rows.extend(joined(&row, infos, &data, optional, steps)?),
                None if optional || is_info => rows.push(row),
                None => {}
            }
        }
        merge(rows)
    }
}

fn target(labels: &Labels) -> Labels {
    filter(labels, |name| IDENTITY.contains(&name))
}

/// The base row split by which info series covers each step.
fn joined(base: &Row, infos: &[Row], data: &[Matcher], optional: bool, steps: Steps) -> Result<Vec<Row>, QueryError> {
    for step in 0..steps.count {
        if infos.iter().filter(|info| !is_absent(info.cells[step])).count() > 1 {
            let target = target(&base.labels);
            return Err(QueryError::execution(format!("found duplicate series for info metric: {target}")));
        }
    }
    let mut rows: Vec<Row> = infos
        .iter()
        .map(|info| {
            let asked = |name: &str| data.is_empty() || data.iter().any(|matcher| matcher.name == name);
            let added = info.labels.iter().filter(|label| {
                &*label.name != METRIC_NAME && base.labels.get(&label.name).is_none() && asked(&label.name)
            });
            let labels = Labels::new(base.labels.iter().chain(added).cloned());
            let cells = base.cells.iter().zip(&info.cells);
            let cells = cells.map(|(cell, info)| if is_absent(*info) { absent() } else { *cell }).collect();
            base.with_cells(labels, cells)
        })
        .collect();
    if optional {
        let covered = |step: usize| infos.iter().any(|info| !is_absent(info.cells[step]));
        let cells = base.cells.iter().enumerate().map(|(step, cell)| if covered(step) { absent() } else { *cell });
        rows.push(base.with_cells(base.labels.clone(), cells.collect()));
    }
    rows.retain(Row::has_any);
    Ok(rows)
}
