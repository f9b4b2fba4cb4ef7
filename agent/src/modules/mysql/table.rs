//! A table of the server as a module: a statement, the columns that are labels, and a row per family.
//!
//! Source: the statement that the table gives for this server; what it needs stands with each table.
//! Shape:  per row of the answer one series of each family; a value that is NULL, or that this server has no column for, is
//!         left out. Objects that users make, such as tables, have a [`Budget`]: beyond it all others are told as one, whose
//!         labels are `other`, and `lampad_mysql_other_objects{collector}` says how many they are.
//! Errors: those of the session; `Absent` where the server has no such table.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use lampad_proto::Number;
use lampad_proto::v1::MetricType;

use super::budget::{Budget, Key, Numbers, Object, Sum, Told, rows_wanted};
use super::dialect::{Right, Server};
use super::rows::{Row, Rows};
use super::session::Session;
use crate::module::{Desc, Module, ModuleError, Tier};
use crate::tick::Tick;

pub type Statement = Result<Cow<'static, str>, ModuleError>;

/// What is read, and what becomes of it.
#[derive(Debug)]
pub struct Table {
    /// The module.
    pub name: &'static str,
    /// mysqld_exporter's name for it.
    pub collector: &'static str,
    pub tier: Tier,
    /// The right without which the server refuses, where it is one of the documented set.
    pub right: Option<Right>,
    pub statement: fn(&Server) -> Statement,
    pub objects: Objects,
    /// Columns whose values are the first labels of every family.
    pub labels: &'static [&'static str],
    pub families: &'static [Family],
}

/// A number of each row.
#[derive(Debug)]
pub struct Family {
    pub desc: Desc,
    pub column: &'static str,
    /// Value of the last label, where the column decides it: `fetch`, `insert`, ...
    pub part: Option<&'static str>,
    pub factor: f64,
    /// A sum over objects means nothing: a quantile.
    pub summed: bool,
}

impl Family {
    pub const fn new(desc: Desc, column: &'static str) -> Self {
        Self { desc, column, part: None, factor: 1.0, summed: true }
    }

    pub const fn part(mut self, part: &'static str) -> Self {
        self.part = Some(part);
        self
    }

    /// A sum over objects would mean nothing.
    pub const fn unsummed(mut self) -> Self {
        self.summed = false;
        self
    }

    fn sum(&self) -> Sum {
        match self.desc.kind {
            _ if !self.summed => Sum::Meaningless,
            MetricType::Gauge => Sum::Stands,
            _ => Sum::Grows,
        }
    }

    /// The column counts picoseconds, as performance_schema does.
    pub const fn picoseconds(mut self) -> Self {
        self.factor = 1e-12;
        self
    }
}

/// How many rows a table can have, and what becomes of too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objects {
    /// As many as the server was made with.
    Fixed,
    /// As many as users make. The statement is ordered by work and has no LIMIT; this many labels identify a row.
    Counted { key: usize },
    /// The same, and a sum over all would mean nothing.
    Unsummed { key: usize },
}

pub const OTHER_OBJECTS: Desc = Desc::gauge(
    "lampad_mysql_other_objects",
    "Objects of a collector beyond its budget; their sums are told with labels `other`.",
)
.labels(&["collector"]);

pub struct TableModule {
    session: Arc<Session>,
    table: &'static Table,
    budget: Budget,
}

impl TableModule {
    pub fn new(session: Arc<Session>, table: &'static Table) -> Self {
        let budget = Budget::new(session.settings().objects_max);
        Self { session, table, budget }
    }

    async fn sample_fixed(&self, out: &mut Tick) -> Result<(), ModuleError> {
        let table = self.table;
        let answer = self.session.query(table.name, table.statement).await?;
        for row in answer.rows.iter() {
            let labels: Vec<&str> = table.labels.iter().map(|name| row.get(name).unwrap_or_default()).collect();
            push(table, &labels, table.families.iter().map(|family| row.exact(family.column)), out);
        }
        Ok(())
    }

    async fn sample_budgeted(&mut self, key: usize, summed: bool, out: &mut Tick) -> Result<(), ModuleError> {
        let table = self.table;
        let max = self.session.settings().objects_max;
        let limited = move |server: &Server| {
            let statement = (table.statement)(server)?;
            Ok(Cow::Owned(format!("{statement} LIMIT {}", rows_wanted(max))))
        };
        let answer = self.session.query(table.name, limited).await?;
        let objects: Vec<Object> = answer.rows.iter().map(|row| object(table, key, &row)).collect();
        let read = objects.len();
        let grown = self.budget.choose(objects);
        for Told { key, about, numbers } in self.budget.told() {
            let labels: Vec<&str> = key.iter().chain(about).map(|label| &**label).collect();
            push(table, &labels, plain(numbers), out);
        }
        if read <= self.budget.len() {
            self.budget.forget_others();
            return Ok(());
        }
        let columns = columns_of(table, &answer.rows);
        let answer = self.session.query(table.collector, move |server| sums(table, &columns, server)).await?;
        let Some(sums) = answer.rows.iter().next() else { return Ok(()) };
        let others = sums.number("objects").unwrap_or(0.0) - self.budget.len() as f64;
        out.push(&OTHER_OBJECTS, &[table.collector], others.max(0.0));
        if summed {
            let labels = vec!["other"; table.labels.len()];
            let columns: Vec<Sum> = table.families.iter().map(Family::sum).collect();
            push(table, &labels, plain(self.budget.others(numbers(table, &sums), &grown, &columns)), out);
        }
        Ok(())
    }
}

#[async_trait]
impl Module for TableModule {
    fn descs(&self) -> Vec<Desc> {
        let mut descs: Vec<Desc> = self.table.families.iter().map(|family| family.desc.clone()).collect();
        descs.dedup();
        if self.table.objects != Objects::Fixed {
            descs.push(OTHER_OBJECTS);
        }
        descs
    }

    async fn sample(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        match self.table.objects {
            Objects::Fixed => self.sample_fixed(out).await,
            Objects::Counted { key } => self.sample_budgeted(key, true, out).await,
            Objects::Unsummed { key } => self.sample_budgeted(key, false, out).await,
        }
    }
}

fn object(table: &Table, key: usize, row: &Row) -> Object {
    let mut key_and_about: Vec<Box<str>> =
        table.labels.iter().map(|name| Box::from(row.get(name).unwrap_or_default())).collect();
    let about: Key = key_and_about.split_off(key).into();
    Object { key: key_and_about.into(), about, numbers: numbers(table, row) }
}

fn numbers(table: &Table, row: &Row) -> Numbers {
    table.families.iter().map(|family| row.number(family.column)).collect()
}

/// What was calculated with.
fn plain(numbers: &Numbers) -> impl Iterator<Item = Option<Number>> {
    numbers.iter().map(|number| number.map(Number::Float))
}

fn push(table: &Table, labels: &[&str], numbers: impl Iterator<Item = Option<Number>>, out: &mut Tick) {
    let mut labels = labels.to_vec();
    for (family, value) in table.families.iter().zip(numbers) {
        let Some(value) = value else { continue };
        labels.truncate(table.labels.len());
        labels.extend(family.part);
        let value = if family.factor == 1.0 { value } else { (value.as_f64() * family.factor).into() };
        out.push(&family.desc, &labels, value);
    }
}

/// Of the columns of all families those that this server has; others differ between versions.
fn columns_of(table: &Table, rows: &Rows) -> Vec<&'static str> {
    let mut columns: Vec<&str> = table.families.iter().map(|family| family.column).collect();
    columns.sort_unstable();
    columns.dedup();
    columns.retain(|column| rows.has(column));
    columns
}

/// The sums of these columns over all rows of the table's statement.
fn sums(table: &Table, columns: &[&str], server: &Server) -> Statement {
    let sums: String = columns.iter().map(|column| format!(", SUM({column}) AS {column}")).collect();
    let statement = (table.statement)(server)?;
    Ok(Cow::Owned(format!("SELECT COUNT(*) AS objects{sums} FROM ({statement}) AS rows_of_table")))
}

/// `sql`, where performance_schema is on.
pub(super) fn with_performance_schema(server: &Server, sql: &'static str) -> Statement {
    if server.performance_schema {
        return Ok(Cow::Borrowed(sql));
    }
    Err(ModuleError::SwitchedOff { what: "performance_schema = OFF".into() })
}
