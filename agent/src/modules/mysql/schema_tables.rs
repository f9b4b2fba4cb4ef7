//! Sizes of tables, and how far their AUTO_INCREMENT columns are from their end. Off unless asked for.
//!
//! Source: information_schema.tables and .columns, a statement per schema, so that the vital signs find room between. Rights:
//!         SHOW VIEW on everything lists tables with their sizes, SELECT their columns too; without them the answer is empty and
//!         no error.
//! Shape:  gauges by schema and table; of the tables beyond the budget the sizes are told together, as table `other`.
//! Units:  bytes, rows; values of the column.
//! Errors: those of the session.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;

use super::budget::{Budget, Key, Object, rows_wanted};
use super::rows::{Row, Rows};
use super::session::Session;
use super::table::OTHER_OBJECTS;
use crate::module::{Desc, Module, ModuleError};
use crate::tick::Tick;

const BY_TABLE: &[&str] = &["schema", "table"];
const VERSION: Desc = Desc::gauge("mysql_info_schema_table_version", "Version of the table's definition.").labels(&[
    "schema",
    "table",
    "type",
    "engine",
    "row_format",
    "create_options",
]);
const ROWS: Desc = Desc::gauge("mysql_info_schema_table_rows", "Rows of the table, as estimated.").labels(BY_TABLE);
const SIZE: Desc = Desc::gauge("mysql_info_schema_table_size", "Bytes of the table by component.").labels(&[
    "schema",
    "table",
    "component",
]);
/// Columns of the numbers, in order: version, rows, and the components of the size.
const COMPONENTS: [&str; 3] = ["data_length", "index_length", "data_free"];
const COLLECTOR: &str = "collect.info_schema.tables";

/// Schemas whose tables are looked at; `mysql` has columns that count, and its sizes are no news.
const SCHEMAS: &str = "SELECT schema_name FROM information_schema.schemata \
                       WHERE schema_name NOT IN ('mysql', 'performance_schema', 'information_schema')";
const SCHEMAS_THAT_COUNT: &str = "SELECT schema_name FROM information_schema.schemata \
                                  WHERE schema_name NOT IN ('performance_schema', 'information_schema')";

pub struct SchemaTables {
    session: Arc<Session>,
    budget: Budget,
}

impl SchemaTables {
    pub fn new(session: Arc<Session>) -> Self {
        let budget = Budget::new(session.settings().objects_max);
        Self { session, budget }
    }
}

#[async_trait]
impl Module for SchemaTables {
    fn descs(&self) -> Vec<Desc> {
        vec![VERSION, ROWS, SIZE, OTHER_OBJECTS]
    }

    async fn sample(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let mut tables = Vec::new();
        for rows in by_schema(&self.session, "schema_tables", SCHEMAS, |schema| {
            format!(
                "SELECT table_schema AS s, table_name AS t, table_type AS kind, IFNULL(engine, 'NONE') AS engine, \
                 IFNULL(row_format, 'NONE') AS row_format, IFNULL(create_options, 'NONE') AS create_options, \
                 IFNULL(version, 0) AS version, IFNULL(table_rows, 0) AS table_rows, IFNULL(data_length, 0) AS data_length, \
                 IFNULL(index_length, 0) AS index_length, IFNULL(data_free, 0) AS data_free \
                 FROM information_schema.tables WHERE table_schema = {schema}"
            )
        })
        .await?
        {
            tables.extend(rows.iter().map(|row| table(&row)));
        }
        push_tables(&mut self.budget, self.session.settings().objects_max, tables, out);
        Ok(())
    }
}

fn table(row: &Row) -> Object {
    let text = |name: &str| Box::from(row.get(name).unwrap_or_default());
    let key: Key = [text("s"), text("t")].into();
    let about: Key = [text("kind"), text("engine"), text("row_format"), text("create_options")].into();
    let numbers = ["version", "table_rows"].iter().chain(&COMPONENTS).map(|name| row.number(name)).collect();
    Object { key, about, numbers }
}

fn push_tables(budget: &mut Budget, max: usize, mut tables: Vec<Object>, out: &mut Tick) {
    let bytes = |table: &Object| table.numbers[2..].iter().flatten().sum::<f64>();
    tables.sort_by(|a, b| bytes(b).total_cmp(&bytes(a)));
    let count = tables.len();
    let mut others = [0.0; COMPONENTS.len()];
    for table in &tables {
        for (sum, number) in others.iter_mut().zip(&table.numbers[2..]) {
            *sum += number.unwrap_or(0.0);
        }
    }
    tables.truncate(rows_wanted(max));
    budget.choose(tables);
    for told in budget.told() {
        let [schema, table] = &**told.key else { continue };
        let [kind, engine, row_format, options] = &**told.about else { continue };
        let [version, rows, sizes @ ..] = told.numbers.as_slice() else { continue };
        out.push(&VERSION, &[schema, table, kind, engine, row_format, options], version.unwrap_or(0.0));
        out.push(&ROWS, &[schema, table], rows.unwrap_or(0.0));
        for ((component, size), sum) in COMPONENTS.iter().zip(sizes).zip(&mut others) {
            out.push(&SIZE, &[schema, table, component], size.unwrap_or(0.0));
            *sum -= size.unwrap_or(0.0);
        }
    }
    if count > budget.len() {
        out.push(&OTHER_OBJECTS, &[COLLECTOR], (count - budget.len()) as f64);
        for (component, sum) in COMPONENTS.iter().zip(others) {
            out.push(&SIZE, &["other", "other", component], sum);
        }
    }
}

const BY_COLUMN: &[&str] = &["schema", "table", "column"];
const NEXT: Desc = Desc::gauge("mysql_info_schema_auto_increment_column", "The column's next value.").labels(BY_COLUMN);
const MOST: Desc =
    Desc::gauge("mysql_info_schema_auto_increment_column_max", "The largest value that fits the column.")
        .labels(BY_COLUMN);

pub struct AutoIncrement {
    session: Arc<Session>,
    budget: Budget,
}

impl AutoIncrement {
    pub fn new(session: Arc<Session>) -> Self {
        let budget = Budget::new(session.settings().objects_max);
        Self { session, budget }
    }
}

#[async_trait]
impl Module for AutoIncrement {
    fn descs(&self) -> Vec<Desc> {
        vec![NEXT, MOST, OTHER_OBJECTS]
    }

    async fn sample(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let mut columns = Vec::new();
        for rows in by_schema(&self.session, "auto_increment", SCHEMAS_THAT_COUNT, |schema| {
            format!(
                "SELECT c.table_schema AS s, c.table_name AS t, c.column_name AS c, c.column_type AS kind, \
                 t.auto_increment AS next FROM information_schema.columns c STRAIGHT_JOIN information_schema.tables t \
                 ON t.table_schema = {schema} AND t.table_name = c.table_name \
                 WHERE c.table_schema = {schema} AND c.extra = 'auto_increment' AND t.auto_increment IS NOT NULL"
            )
        })
        .await?
        {
            columns.extend(rows.iter().filter_map(|row| column(&row)));
        }
        // Those closest to their end are the ones to look at.
        let used = |object: &Object| object.numbers[0].unwrap_or(0.0) / object.numbers[1].unwrap_or(1.0);
        columns.sort_by(|a, b| used(b).total_cmp(&used(a)));
        let count = columns.len();
        self.budget.choose(columns);
        for told in self.budget.told() {
            let [schema, table, column] = &**told.key else { continue };
            for (desc, value) in [&NEXT, &MOST].into_iter().zip(told.numbers) {
                out.push(desc, &[schema, table, column], value.unwrap_or(0.0));
            }
        }
        if count > self.budget.len() {
            out.push(&OTHER_OBJECTS, &["collect.auto_increment.columns"], (count - self.budget.len()) as f64);
        }
        Ok(())
    }
}

fn column(row: &Row) -> Option<Object> {
    let text = |name: &str| Box::from(row.get(name).unwrap_or_default());
    let numbers = vec![Some(row.number("next")?), Some(largest(row.get("kind")?)?)];
    Some(Object { key: [text("s"), text("t"), text("c")].into(), about: [].into(), numbers })
}

/// The largest value of an integer type: `int(10) unsigned`, `bigint`.
fn largest(kind: &str) -> Option<f64> {
    let name = kind.split(['(', ' ']).next()?;
    let bits = match name.to_ascii_lowercase().as_str() {
        "tinyint" => 7,
        "smallint" => 15,
        "mediumint" => 23,
        "int" => 31,
        "bigint" => 63,
        // Floating point columns can count too; there is no end to name.
        _ => return None,
    };
    Some(2f64.powi(bits + i32::from(kind.contains(" unsigned"))) - 1.0)
}

/// The answers to a statement for each schema of users.
async fn by_schema(
    session: &Arc<Session>,
    key: &'static str,
    schemas: &'static str,
    statement: impl Fn(&str) -> String,
) -> Result<Vec<Rows>, ModuleError> {
    let schemas = session.query(key, move |_| Ok(Cow::Borrowed(schemas))).await?;
    let mut answers = Vec::new();
    for row in schemas.rows.iter() {
        let sql = statement(&quoted(row.at(0).unwrap_or_default()));
        answers.push(session.query(key, |_| Ok(Cow::Owned(sql))).await?.rows);
    }
    Ok(answers)
}

/// A string of SQL. The session's sql_mode is empty, so a backslash escapes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_their_largest_values() {
        for (kind, most) in [
            ("tinyint(4)", Some(127.0)),
            ("smallint(5) unsigned", Some(65_535.0)),
            ("mediumint(8) unsigned zerofill", Some(16_777_215.0)),
            ("int", Some(2_147_483_647.0)),
            ("int(10) unsigned", Some(4_294_967_295.0)),
            ("bigint(20)", Some(9_223_372_036_854_775_807.0)),
            ("double", None),
        ] {
            assert_eq!(largest(kind), most, "{kind}");
        }
        assert_eq!(quoted(r"a'b\c"), r"'a\'b\\c'");
    }

    #[test]
    fn sizes_beyond_the_budget_are_told_together() {
        let table = |name: &str, bytes: f64| Object {
            key: [Box::from("s"), Box::from(name)].into(),
            about: ["BASE TABLE", "InnoDB", "Dynamic", ""].map(Box::from).into(),
            numbers: vec![Some(10.0), Some(1.0), Some(bytes), Some(1.0), Some(0.0)],
        };
        let mut tick = Tick::new();
        push_tables(&mut Budget::new(1), 1, vec![table("a", 1.0), table("b", 9.0), table("c", 3.0)], &mut tick);
        let sizes: Vec<_> = tick
            .samples()
            .filter(|(name, ..)| name.ends_with("_size") || name.ends_with("objects"))
            .map(|(_, labels, value)| {
                format!("{} {value}", labels.iter().map(|(_, text)| *text).collect::<Vec<_>>().join("."))
            })
            .collect();
        assert_eq!(
            sizes,
            [
                "s.b.data_length 9",
                "s.b.index_length 1",
                "s.b.data_free 0",
                "collect.info_schema.tables 2",
                "other.other.data_length 4",
                "other.other.index_length 2",
                "other.other.data_free 0",
            ]
        );
    }
}
