//! Long transactions and waits for row locks: what stops an application while every counter looks well.
//!
//! Source: information_schema.innodb_trx, one row out of it. Right: PROCESS.
//! Shape:  gauges without labels, 0 when nothing runs or waits.
//! Units:  transactions, seconds, rows.
//! Errors: those of the session.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;

use super::session::Session;
use crate::module::{Desc, Module, ModuleError};
use crate::tick::Tick;

/// Family, and the expression over innodb_trx that gives it.
const ROWS: &[(Desc, &str)] = &[
    (Desc::gauge("lampad_mysql_transactions", "InnoDB transactions that are open."), "COUNT(*)"),
    (
        Desc::gauge("lampad_mysql_longest_transaction_seconds", "Age of the oldest open InnoDB transaction."),
        "MAX(TIMESTAMPDIFF(SECOND, trx_started, NOW()))",
    ),
    (
        Desc::gauge("lampad_mysql_row_lock_waits", "InnoDB transactions that wait for a row lock now."),
        "SUM(trx_state = 'LOCK WAIT')",
    ),
    (
        Desc::gauge("lampad_mysql_longest_row_lock_wait_seconds", "How long the longest of them has waited."),
        "MAX(TIMESTAMPDIFF(SECOND, trx_wait_started, NOW()))",
    ),
    (
        Desc::gauge("lampad_mysql_transaction_rows_locked_max", "Rows that the greediest open transaction has locked."),
        "MAX(trx_rows_locked)",
    ),
    (
        Desc::gauge("lampad_mysql_transaction_rows_modified_max", "Rows that one open transaction would roll back."),
        "MAX(trx_rows_modified)",
    ),
];

pub struct Transactions {
    pub session: Arc<Session>,
}

fn statement() -> String {
    let columns: Vec<_> = ROWS.iter().map(|(_, expression)| format!("COALESCE({expression}, 0)")).collect();
    format!("SELECT {} FROM information_schema.innodb_trx", columns.join(", "))
}

#[async_trait]
impl Module for Transactions {
    fn descs(&self) -> Vec<Desc> {
        ROWS.iter().map(|(desc, _)| desc.clone()).collect()
    }

    async fn sample(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let answer = self.session.query("transactions", |_| Ok(Cow::Owned(statement()))).await?;
        for row in answer.rows.iter() {
            for (column, (desc, _)) in ROWS.iter().enumerate() {
                if let Some(value) = row.at(column).and_then(|text| text.parse::<f64>().ok()) {
                    // The two clocks may differ by a rounding; an age is never below 0.
                    out.push(desc, &[], value.max(0.0));
                }
            }
        }
        Ok(())
    }
}
