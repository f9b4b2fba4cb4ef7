//! What may follow an expression: ranges, subqueries, `offset`, `@`, `anchored`, `smoothed`.

use super::super::plan::{At, Edges, Expr, Kind, Place, Shift};
use super::super::value::float;
use super::lex::Kind as Token;
use super::tokens::{Parsed, Tokens, wrong};

impl Tokens<'_> {
    pub fn modified(&mut self) -> Parsed<Expr> {
        let mut expr = self.primary()?;
        // What cannot be modified so is told at its beginning.
        let place = expr.place();
        loop {
            if self.is_sign("[") {
                expr = self.range(expr)?;
            } else if self.is_word("offset") {
                self.take();
                let offset = self.offset_length()?;
                let shift = shift_of(&mut expr).ok_or_else(|| wrong(place, misplaced("offset modifier")))?;
                if shift.offset.is_some() {
                    return Err(wrong(place, "offset may not be set multiple times"));
                }
                shift.offset = Some(offset);
            } else if self.is_sign("@") {
                self.take();
                let at = self.at(place)?;
                let shift = shift_of(&mut expr).ok_or_else(|| wrong(place, misplaced("@ modifier")))?;
                if shift.at.is_some() {
                    return Err(wrong(place, "@ <timestamp> may not be set multiple times"));
                }
                shift.at = Some(at);
            } else if self.is_word("anchored") || self.is_word("smoothed") {
                self.edges(&mut expr)?;
            } else {
                return Ok(expr);
            }
        }
    }

    /// `[5m]` or `[5m:1m]`
    fn range(&mut self, inner: Expr) -> Parsed<Expr> {
        let open = self.take();
        if !self.begins_length() {
            return Err(self.unexpected("subquery or range selector", LENGTHS));
        }
        let range = self.positive_length()?;
        if self.accept("]") {
            let message = match inner {
                Expr::Selector(selector) if selector.shift.offset.is_some() => {
                    "no offset modifiers allowed before range"
                }
                Expr::Selector(selector) if selector.shift.at.is_some() => "no @ modifiers allowed before range",
                Expr::Selector(selector) => return Ok(Expr::Range { selector, range }),
                _ => "ranges only allowed for vector selectors",
            };
            return Err(wrong(open.place, message));
        }
        self.expect(":", "subquery or range", "\":\" or \"]\"")?;
        let step = match self.is_sign("]") {
            true => None,
            false if !self.begins_length() => {
                return Err(self.unexpected("subquery selector", &format!("{LENGTHS} or \"]\"")));
            }
            false => Some(self.positive_length()?),
        };
        self.expect("]", "subquery selector", "\"]\"")?;
        if inner.kind() != Kind::Vector {
            // By the type's short name, unlike other messages.
            let kind = match inner.kind() {
                Kind::Matrix => "matrix",
                kind => kind.name(),
            };
            return Err(wrong(
                inner.place(),
                format!("subquery is only allowed on instant vector, got {kind} instead"),
            ));
        }
        Ok(Expr::Subquery { inner: Box::new(inner), range, step, shift: Shift::default() })
    }

    fn at(&mut self, place: Place) -> Parsed<At> {
        for (word, at) in [("start", At::Start), ("end", At::End)] {
            if self.is_word(word) {
                self.take();
                self.expect("(", "@", "timestamp")?;
                self.expect(")", "@", "timestamp")?;
                return Ok(at);
            }
        }
        let negative = self.is_sign("-");
        if negative || self.is_sign("+") {
            self.take();
        }
        let is_number =
            matches!(self.peek().kind, Token::Number | Token::Duration) || self.is_word("inf") || self.is_word("nan");
        if !is_number {
            return Err(self.unexpected("@", "timestamp"));
        }
        let seconds = self.number_literal()?;
        let seconds = if negative { -seconds } else { seconds };
        if seconds.is_nan() || seconds.abs() > FURTHEST_SECONDS {
            let seconds = if seconds.is_finite() { format!("{seconds:.6}") } else { float(seconds) };
            return Err(wrong(place, format!("timestamp out of bounds for @ modifier: {seconds}")));
        }
        Ok(At::Ms((seconds * 1000.0).round() as i64))
    }

    fn edges(&mut self, expr: &mut Expr) -> Parsed<()> {
        let token = self.peek();
        let word = token.text.to_ascii_lowercase();
        let edges = if word == "anchored" { Edges::Anchored } else { Edges::Smoothed };
        let selector = match expr {
            Expr::Selector(selector) | Expr::Range { selector, .. } => selector,
            Expr::Subquery { .. } => {
                return Err(self.wrong(format!("{word} modifier is not supported for subqueries")));
            }
            _ => return Err(self.wrong(format!("{word} modifier not implemented"))),
        };
        if !self.features.extended_range_selectors {
            return Err(self.wrong(format!(
                "{word} modifier is experimental; switch on --enable-feature=promql-extended-range-selectors"
            )));
        }
        if selector.edges != Edges::Plain && selector.edges != edges {
            return Err(self.wrong("anchored and smoothed modifiers cannot be used together"));
        }
        selector.edges = edges;
        self.take();
        Ok(())
    }
}

/// A quarter of what milliseconds can count, so that ranges can be added to it.
const FURTHEST_SECONDS: f64 = (i64::MAX / 4_000) as f64;

pub const LENGTHS: &str = "number, duration, step(), or range()";

fn misplaced(what: &str) -> String {
    format!("{what} must be preceded by an instant vector selector or range vector selector or a subquery")
}

fn shift_of(expr: &mut Expr) -> Option<&mut Shift> {
    match expr {
        Expr::Selector(selector) | Expr::Range { selector, .. } => Some(&mut selector.shift),
        Expr::Subquery { shift, .. } => Some(shift),
        _ => None,
    }
}
