//! `info()`: adds the labels of info metrics to the series of the same target.
//!
//! Of two info series of one metric and target the one with the newer sample counts; of equal age they contradict each other.
//! Info series of different metrics add up.

use std::collections::{BTreeMap, HashMap};

use crate::query::QueryError;
use crate::query::plan::{Edges, Expr, Selector, Shift};
use crate::query::value::{Row, Steps, absent, filter, is_absent};
use crate::store::{Budget, Label, Labels, METRIC_NAME, MatchOp, Matcher};

use super::Eval;
use super::pace::{Pace, take_rows};

/// What names a target.
const IDENTITY: [&str; 2] = ["instance", "job"];

impl Eval<'_> {
    pub fn info(&self, args: &[Expr], steps: Steps) -> Result<Vec<Row>, QueryError> {
        let Some(vector) = args.first() else {
            return Err(QueryError::execution("info() needs an instant vector"));
        };
        let base = self.rows(vector, steps)?;
        let wanted: Vec<Matcher> = match args.get(1) {
            None => Vec::new(),
            Some(Expr::Selector(selector)) => selector.matchers.clone(),
            Some(_) => return Err(QueryError::execution("info(): the second argument must be a label selector")),
        };
        let (names, data): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|matcher| matcher.name == METRIC_NAME);
        let names = match names.is_empty() {
            true => vec![Matcher { name: METRIC_NAME.to_owned(), op: MatchOp::Equal, value: "target_info".to_owned() }],
            false => names,
        };
        let selector = Selector {
            name: None,
            matchers: names.iter().chain(&data).cloned().collect(),
            shift: shift_of(vector),
            edges: Edges::Plain,
            place: vector.place(),
        };
        // Their cells are the times of their samples, by which the newer one is told.
        let mut targets: HashMap<Labels, BTreeMap<String, Vec<Row>>> = HashMap::new();
        for row in self.instant_times(&selector, steps)? {
            let name = row.labels.metric().map(|name| name.to_string()).unwrap_or_default();
            targets.entry(target(&row.labels)).or_default().entry(name).or_default().push(row);
        }
        let rule = Rule { optional: data.iter().all(|matcher| matcher.matches("")), data };
        let mut rows = Vec::new();
        for row in base {
            let is_info = row.labels.metric().is_some_and(|name| names.iter().all(|matcher| matcher.matches(name)));
            let of_target = target(&row.labels);
            match targets.get(&of_target).filter(|_| !is_info && !of_target.is_empty()) {
                Some(infos) => rows.extend(rule.joined(&row, infos, steps, self.budget)?),
                None if rule.optional || is_info => rows.push(row),
                None => {}
            }
        }
        self.merge(rows)
    }
}

/// The info series are read at the time of the first selector of the vector.
fn shift_of(expr: &Expr) -> Shift {
    match expr {
        Expr::Selector(selector) | Expr::Range { selector, .. } => selector.shift.clone(),
        Expr::Paren { inner, .. }
        | Expr::Unary { inner, .. }
        | Expr::Aggregate { inner, .. }
        | Expr::Subquery { inner, .. } => shift_of(inner),
        Expr::Binary { left, .. } => shift_of(left),
        Expr::Call { args, .. } => args.iter().map(shift_of).find(|shift| !shift.is_none()).unwrap_or_default(),
        Expr::Number { .. } | Expr::Text { .. } => Shift::default(),
    }
}

fn target(labels: &Labels) -> Labels {
    filter(labels, |name| IDENTITY.contains(&name))
}

struct Rule {
    /// Conditions on labels of the info series; where there are any only these labels are added.
    data: Vec<Matcher>,
    /// A series without its info metric stays as it is, unless a label was asked for that it cannot have then.
    optional: bool,
}

impl Rule {
    /// The base row split by which labels it gets at each step.
    fn joined(
        &self,
        base: &Row,
        infos: &BTreeMap<String, Vec<Row>>,
        steps: Steps,
        budget: &Budget,
    ) -> Result<Vec<Row>, QueryError> {
        let mut by_labels: BTreeMap<Labels, Vec<f64>> = BTreeMap::new();
        let mut pace = Pace::new(budget);
        for step in (0..steps.count).filter(|step| !is_absent(base.cells[*step])) {
            let mut newest = Vec::with_capacity(infos.len());
            for rows in infos.values() {
                pace.work(rows.len())?;
                newest.extend(newest_at(rows, step)?);
            }
            if newest.is_empty() && !self.optional {
                continue;
            }
            let labels = self.labels(&base.labels, &newest)?;
            if !by_labels.contains_key(&labels) {
                take_rows(budget, 1, steps)?;
            }
            by_labels.entry(labels).or_insert_with(|| vec![absent(); steps.count])[step] = base.cells[step];
        }
        Ok(by_labels.into_iter().map(|(labels, cells)| base.with_cells(labels, cells)).collect())
    }

    fn labels(&self, base: &Labels, infos: &[&Row]) -> Result<Labels, QueryError> {
        let asked = |name: &str| self.data.is_empty() || self.data.iter().any(|matcher| matcher.name == name);
        let mut added: Vec<&Label> = Vec::new();
        for label in infos.iter().flat_map(|info| info.labels.iter()) {
            if &*label.name == METRIC_NAME || !asked(&label.name) {
                continue;
            }
            match added.iter().find(|known| known.name == label.name) {
                Some(known) if known.value != label.value => {
                    return Err(QueryError::execution(format!("conflicting label: {}", label.name)));
                }
                Some(_) => {}
                None if base.get(&label.name).is_none() => added.push(label),
                None => {}
            }
        }
        Ok(Labels::new(base.iter().chain(added).cloned()))
    }
}

fn newest_at(rows: &[Row], step: usize) -> Result<Option<&Row>, QueryError> {
    let mut newest: Option<&Row> = None;
    for row in rows.iter().filter(|row| !is_absent(row.cells[step])) {
        let Some(known) = newest else {
            newest = Some(row);
            continue;
        };
        let (at, known_at) = (row.cells[step], known.cells[step]);
        if at == known_at {
            let ms = (at * 1000.0) as i64;
            return Err(QueryError::execution(format!(
                "found duplicate series for info metric: existing {} @ {ms}, new {} @ {ms}",
                known.labels, row.labels
            )));
        }
        if at > known_at {
            newest = Some(row);
        }
    }
    Ok(newest)
}
