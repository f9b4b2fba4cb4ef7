//! A table of the server as a module: a statement, the columns that are labels, and a row per family.
//!
//! Source: the statement that the table gives for this server; what it needs stands with each table.
//! Shape:  per row of the answer one series of each family; a value that is NULL, or that this server has no column for, is
//!         left out. Of objects that users make, such as tables, the statement asks for the 1,000 busiest at most.
//! Errors: those of the session; `Absent` where the server has no such table.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;

use super::dialect::{Right, Server};
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
}

impl Family {
    pub const fn new(desc: Desc, column: &'static str) -> Self {
        Self { desc, column, part: None, factor: 1.0 }
    }

    pub const fn part(mut self, part: &'static str) -> Self {
        self.part = Some(part);
        self
    }

    /// The column counts picoseconds, as performance_schema does.
    pub const fn picoseconds(mut self) -> Self {
        self.factor = 1e-12;
        self
    }
}

pub struct TableModule {
    pub session: Arc<Session>,
    pub table: &'static Table,
}

#[async_trait]
impl Module for TableModule {
    fn descs(&self) -> Vec<Desc> {
        let mut descs: Vec<Desc> = self.table.families.iter().map(|family| family.desc.clone()).collect();
        descs.dedup();
        descs
    }

    async fn sample(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let table = self.table;
        let answer = self.session.query(table.name, table.statement).await?;
        for row in answer.rows.iter() {
            let mut labels: Vec<&str> = table.labels.iter().map(|name| row.get(name).unwrap_or_default()).collect();
            for family in table.families {
                let Some(value) = row.number(family.column) else { continue };
                labels.truncate(table.labels.len());
                labels.extend(family.part);
                out.push(&family.desc, &labels, value * family.factor);
            }
        }
        Ok(())
    }
}

/// `sql`, where performance_schema is on.
pub(super) fn with_performance_schema(server: &Server, sql: &'static str) -> Statement {
    if server.performance_schema {
        return Ok(Cow::Borrowed(sql));
    }
    Err(ModuleError::Absent { what: "performance_schema (it is off)".into() })
}
