//! Queries inside InnoDB and open read views. Off unless asked for: InnoDB writes pages of text for three numbers.
//!
//! Source: SHOW ENGINE INNODB STATUS. Right: PROCESS.
//! Shape:  gauges without labels; one that this server does not print is left out.
//! Errors: those of the session.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;

use super::session::Session;
use crate::module::{Desc, Module, ModuleError};
use crate::tick::Tick;

/// Family, and the words behind its number.
const ROWS: &[(Desc, &str)] = &[
    (Desc::gauge("mysql_engine_innodb_queries_inside_innodb", "Queries inside InnoDB."), "queries inside InnoDB"),
    (Desc::gauge("mysql_engine_innodb_queries_in_queue", "Queries in queue."), "queries in queue"),
    (
        Desc::gauge("mysql_engine_innodb_read_views_open_inside_innodb", "Read views open inside InnoDB."),
        "read views open inside InnoDB",
    ),
];

pub struct InnodbStatus {
    pub session: Arc<Session>,
}

#[async_trait]
impl Module for InnodbStatus {
    fn descs(&self) -> Vec<Desc> {
        ROWS.iter().map(|(desc, _)| desc.clone()).collect()
    }

    async fn sample(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let statement = "SHOW ENGINE INNODB STATUS";
        let answer = self.session.query("engine_innodb_status", move |_| Ok(Cow::Borrowed(statement))).await?;
        let text = answer.rows.iter().next().and_then(|row| row.get("Status")).unwrap_or_default();
        for (desc, words) in ROWS {
            if let Some(value) = number_before(text, words) {
                out.push(desc, &[], value);
            }
        }
        Ok(())
    }
}

fn number_before(text: &str, words: &str) -> Option<f64> {
    let (before, _) = text.split_once(words)?;
    before.trim_end().rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_before_their_words() {
        let text = "ROW OPERATIONS\n3 queries inside InnoDB, 14 queries in queue\n2 read views open inside InnoDB\n";
        let values: Vec<_> = ROWS.iter().map(|(_, words)| number_before(text, words)).collect();
        assert_eq!(values, [Some(3.0), Some(14.0), Some(2.0)]);
        assert_eq!(number_before("none", "queries in queue"), None);
    }
}
