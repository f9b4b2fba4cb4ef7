//! Durations where ranges, steps and offsets stand, with their arithmetic.
//!
//! Shape: a single number or duration is always taken; anything beyond is `promql-duration-expr`. After `offset` a number
//!        ends the duration, so that `a offset 1m + b` adds two vectors; parentheses go on.

use super::super::length::{Length, Scale};
use super::super::plan::{BinaryOp, Place};
use super::expression::{LENGTH_SIGN_BINDS, length_op};
use super::lex::Kind;
use super::literal::LONGEST_MS;
use super::modifier::LENGTHS;
use super::tokens::{Parsed, Tokens, wrong};

const CALLS: [&str; 4] = ["step", "range", "min_of", "max_of"];

impl Tokens<'_> {
    pub fn begins_length(&self) -> bool {
        let token = self.peek();
        matches!(token.kind, Kind::Number | Kind::Duration)
            || ["+", "-", "("].iter().any(|sign| token.is_sign(sign))
            || ["inf", "nan"].iter().any(|word| token.is_word(word))
            || CALLS.iter().any(|name| token.is_word(name))
    }

    /// A range or a step: what does not depend on the query is checked at once.
    pub fn positive_length(&mut self) -> Parsed<Length> {
        let place = self.place();
        let length = self.length(0)?;
        if let Length::Seconds(seconds) = length
            && (seconds <= 0.0 || seconds.is_nan())
        {
            return Err(wrong(place, "duration must be greater than 0"));
        }
        Ok(length)
    }

    pub fn offset_length(&mut self) -> Parsed<Length> {
        let place = self.place();
        if !self.begins_length() {
            return Err(self.unexpected("offset", LENGTHS));
        }
        let mut negative = false;
        while self.is_sign("-") || self.is_sign("+") {
            negative ^= self.take().text == "-";
        }
        if !self.begins_length() {
            return Err(self.unexpected("offset", LENGTHS));
        }
        let length = self.single()?;
        self.negated(length, negative, place)
    }

    /// Arithmetic of operators that bind at least as tightly as this.
    fn length(&mut self, binds: u8) -> Parsed<Length> {
        let place = self.place();
        let mut left = self.signed_length()?;
        while let Some((op, level)) = length_op(self.peek()).filter(|(_, level)| *level >= binds) {
            let sign = self.take();
            let right = self.length(if op == BinaryOp::Pow { level } else { level + 1 })?;
            self.allow_arithmetic(place)?;
            let by_zero = matches!(right, Length::Seconds(seconds) if seconds == 0.0);
            match op {
                BinaryOp::Div if by_zero => return Err(wrong(sign.place, "division by zero")),
                BinaryOp::Mod if by_zero => return Err(wrong(sign.place, "modulo by zero")),
                _ => left = Length::Combined(op, Box::new(left), Box::new(right)),
            }
        }
        Ok(left)
    }

    fn signed_length(&mut self) -> Parsed<Length> {
        let place = self.place();
        let negative = self.is_sign("-");
        if !negative && !self.is_sign("+") {
            return self.single();
        }
        self.take();
        let inner = self.length(LENGTH_SIGN_BINDS)?;
        self.negated(inner, negative, place)
    }

    fn negated(&self, length: Length, negative: bool, place: Place) -> Parsed<Length> {
        Ok(match (negative, length) {
            (true, Length::Seconds(seconds)) => Length::Seconds(-seconds),
            (true, other) => {
                self.allow_arithmetic(place)?;
                Length::Negative(Box::new(other))
            }
            (false, other) => other,
        })
    }

    fn single(&mut self) -> Parsed<Length> {
        let place = self.place();
        if self.accept("(") {
            let inner = self.length(0)?;
            self.expect(")", "duration", "\")\"")?;
            self.allow_arithmetic(place)?;
            return Ok(match inner {
                Length::Seconds(seconds) => Length::Seconds(seconds),
                other => Length::Wrapped(Box::new(other)),
            });
        }
        let Some(name) = CALLS.into_iter().find(|name| self.is_word(name)) else {
            let seconds = self.number_literal()?;
            if seconds.abs() > LONGEST_MS as f64 / 1000.0 {
                return Err(wrong(place, "duration out of range"));
            }
            // As a number that is computed with later; NaN is refused there.
            let whole = Length::Seconds(seconds);
            whole.ms(Scale::default()).map_err(|reason| wrong(place, reason))?;
            return Ok(whole);
        };
        self.allow_arithmetic(place)?;
        self.take();
        self.expect("(", "duration", "\"(\"")?;
        let length = match name {
            "step" => Length::Step,
            "range" => Length::Range,
            _ => {
                let left = Box::new(self.length(0)?);
                self.expect(",", "duration", "\",\"")?;
                let right = Box::new(self.length(0)?);
                if name == "min_of" { Length::Smaller(left, right) } else { Length::Larger(left, right) }
            }
        };
        self.expect(")", "duration", "\")\"")?;
        Ok(length)
    }

    fn allow_arithmetic(&self, place: Place) -> Parsed<()> {
        if self.features.duration_expr {
            return Ok(());
        }
        Err(wrong(
            place,
            "experimental duration expression is not enabled; switch on --enable-feature=promql-duration-expr",
        ))
    }
}
