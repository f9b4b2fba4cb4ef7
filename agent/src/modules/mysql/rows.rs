//! The answer to a statement, as text: what the text protocol sends, without the driver's guesses about types.

use lampad_proto::Number;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Column, Row as _};

/// Columns and cells of one answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rows {
    columns: Vec<String>,
    cells: Vec<Option<String>>,
}

impl Rows {
    /// Runs one statement by COM_QUERY, which leaves the Com_stmt_ counters alone.
    pub async fn fetch(connection: &mut MySqlConnection, sql: &str) -> Result<Self, sqlx::Error> {
        let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(connection).await?;
        Self::of(&rows)
    }

    fn of(rows: &[MySqlRow]) -> Result<Self, sqlx::Error> {
        let mut answer = Self::default();
        if let Some(first) = rows.first() {
            answer.columns = first.columns().iter().map(|column| column.name().to_owned()).collect();
        }
        answer.cells.reserve(rows.len() * answer.columns.len());
        for row in rows {
            for column in 0..answer.columns.len() {
                // Unchecked: a number arrives as its digits, and we want just those.
                let bytes: Option<&[u8]> = row.try_get_unchecked(column)?;
                answer.cells.push(bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()));
            }
        }
        Ok(answer)
    }

    pub fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        let width = self.columns.len().max(1);
        self.cells.chunks(width).map(|cells| Row { columns: &self.columns, cells })
    }

    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Whether there is such a column, in any case; without rows the answer does not say.
    pub fn has(&self, name: &str) -> bool {
        self.columns.iter().any(|column| column.eq_ignore_ascii_case(name))
    }

    /// The first two columns of each row, as SHOW STATUS and SHOW VARIABLES answer.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.iter().filter_map(|row| Some((row.at(0)?, row.at(1)?)))
    }

    /// Made up, for tests.
    #[cfg(test)]
    pub fn made_up(columns: &[&str], rows: &[&[Option<&str>]]) -> Self {
        Self {
            columns: columns.iter().map(|column| column.to_string()).collect(),
            cells: rows.iter().flat_map(|row| row.iter().map(|cell| cell.map(str::to_owned))).collect(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    columns: &'a [String],
    cells: &'a [Option<String>],
}

impl<'a> Row<'a> {
    /// `None` for NULL and for a column that is not there.
    pub fn at(&self, column: usize) -> Option<&'a str> {
        self.cells.get(column)?.as_deref()
    }

    /// By name, in any case: servers differ in that.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        let column = self.columns.iter().position(|column| column.eq_ignore_ascii_case(name))?;
        self.at(column)
    }

    /// As [`Self::get`], as a number.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.exact(name).map(Number::as_f64)
    }

    /// As [`Self::get`], as a number with all its digits.
    pub fn exact(&self, name: &str) -> Option<Number> {
        Number::parse(self.get(name)?.trim())
    }

    /// Columns that are not NULL, with their names.
    pub fn cells(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.columns.iter().zip(self.cells).filter_map(|(column, cell)| Some((column.as_str(), cell.as_deref()?)))
    }
}
