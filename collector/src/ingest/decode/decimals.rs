//! The decimal columns of a tick, in which nearly all of its values come: one for each number of digits.
//!
//! Each column ascends by series. They are read side by side, so that the values of all of them ascend: the store wants them so,
//! and the lane's table is gone through once.

use lampad_proto::decimal;
use lampad_proto::v1::DecimalColumn;

use super::Lane;
use super::frame::{At, Refs, Trouble, same_length};
use crate::store::Value;

/// Columns that are read side by side. A tick has a few; of one that has very many no value takes longer.
const COLUMNS_MAX: usize = 8;

/// What comes next of a column.
struct Cursor<'a> {
    /// Beyond all series at the end.
    reference: u64,
    delta: i64,
    digits: u32,
    refs: Refs,
    rest: std::iter::Zip<std::slice::Iter<'a, u32>, std::slice::Iter<'a, i64>>,
}

impl<'a> Cursor<'a> {
    fn new(column: &'a DecimalColumn) -> Result<Self, Trouble> {
        same_length("decimal column", column.refs.len(), column.deltas.len())?;
        let rest = column.refs.iter().zip(&column.deltas);
        let mut cursor = Self { reference: 0, delta: 0, digits: column.digits, refs: Refs::default(), rest };
        cursor.advance()?;
        Ok(cursor)
    }

    #[inline]
    fn advance(&mut self) -> Result<(), Trouble> {
        (self.reference, self.delta) = match self.rest.next() {
            Some((step, delta)) => (self.refs.next(*step)?.into(), *delta),
            None => (u64::MAX, 0),
        };
        Ok(())
    }
}

/// The one that is to be read next; `None` where all have ended.
#[inline]
fn least<'a, 'b>(cursors: &'b mut [Cursor<'a>]) -> Option<(u32, &'b mut Cursor<'a>)> {
    let mut at = 0;
    for other in 1..cursors.len() {
        at = if cursors[other].reference < cursors[at].reference { other } else { at };
    }
    let cursor = cursors.get_mut(at)?;
    Some((u32::try_from(cursor.reference).ok()?, cursor))
}

impl Lane {
    /// Adds what decimal columns say, ascending by series where there are not too many of them.
    pub(super) fn decimals(
        &mut self,
        at: &At,
        columns: &[DecimalColumn],
        out: &mut Vec<(u32, Value)>,
    ) -> Result<(), Trouble> {
        for some in columns.chunks(COLUMNS_MAX) {
            let mut cursors = some.iter().map(Cursor::new).collect::<Result<Vec<_>, _>>()?;
            while let Some((reference, cursor)) = least(&mut cursors) {
                match self.next_float(at, reference, cursor.digits, cursor.delta) {
                    Some(value) => out.push((reference, Value::Float(value))),
                    None => self.next_decimal(at, reference, cursor.digits, cursor.delta, out)?,
                }
                cursor.advance()?;
            }
        }
        Ok(())
    }

    /// What a difference makes of a series that is a float, or begins as one, as nearly all do. Nothing has changed where it is
    /// another one, or something is wrong.
    #[inline]
    fn next_float(&mut self, at: &At, reference: u32, digits: u32, delta: i64) -> Option<f64> {
        // One whose last value is no float is of no group here: it is marked in the same number.
        let series = self.series.get_mut(reference as usize).filter(|series| series.group == at.group)?;
        if series.round == at.round {
            return None;
        }
        let base = if series.is_present(at.key_round) { decimal::base(series.last) } else { 0.0 };
        let value = decimal::apply(base, digits, delta)?;
        (series.last, series.round) = (value, at.round);
        Some(value)
    }

    /// What it makes of any series.
    fn next_decimal(
        &mut self,
        at: &At,
        reference: u32,
        digits: u32,
        delta: i64,
        out: &mut Vec<(u32, Value)>,
    ) -> Result<(), Trouble> {
        self.set(at, reference, out, |last| {
            let base = match last {
                Some(Value::Float(value)) => decimal::base(*value),
                Some(Value::Integer(value)) => value.as_f64(),
                _ => 0.0,
            };
            let value = decimal::apply(base, digits, delta).map(Value::Float);
            value.ok_or_else(|| format!("{base} and delta {delta} at {digits} digits give no exact value").into())
        })
    }
}
