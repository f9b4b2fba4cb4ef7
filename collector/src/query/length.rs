//! Durations that a query computes: ranges, offsets and steps of subqueries such as `[2 * step() + 5m]`.

use super::plan::BinaryOp;

/// What `step()` and `range()` stand for, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scale {
    pub step: f64,
    pub range: f64,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Length {
    /// Written as `5m` or as a number of seconds.
    Seconds(f64),
    Step,
    Range,
    Negative(Box<Length>),
    Combined(BinaryOp, Box<Length>, Box<Length>),
    Smaller(Box<Length>, Box<Length>),
    Larger(Box<Length>, Box<Length>),
    /// Between parentheses.
    Wrapped(Box<Length>),
}

impl Length {
    /// Milliseconds; the error is one of the query, not of its data.
    pub fn ms(&self, scale: Scale) -> Result<i64, String> {
        let ms = self.seconds(scale)? * 1000.0;
        // What is written is rounded, what is computed is cut off, as in Prometheus.
        let ms = if matches!(self, Self::Seconds(_)) { ms.round() } else { ms.trunc() };
        // Far below an overflow when times are added; NaN is none either.
        if ms.abs() <= super::parse::LONGEST_MS as f64 { Ok(ms as i64) } else { Err("duration is out of range".into()) }
    }

    /// As [`Self::ms`], for what has to take time.
    pub fn positive_ms(&self, scale: Scale) -> Result<i64, String> {
        match self.ms(scale)? {
            ms if ms > 0 => Ok(ms),
            _ => Err("duration must be greater than 0".to_owned()),
        }
    }

    fn seconds(&self, scale: Scale) -> Result<f64, String> {
        Ok(match self {
            Self::Seconds(seconds) => *seconds,
            Self::Step => scale.step,
            Self::Range => scale.range,
            Self::Negative(inner) => -inner.seconds(scale)?,
            Self::Wrapped(inner) => inner.seconds(scale)?,
            Self::Smaller(left, right) => left.seconds(scale)?.min(right.seconds(scale)?),
            Self::Larger(left, right) => left.seconds(scale)?.max(right.seconds(scale)?),
            Self::Combined(op, left, right) => {
                let (left, right) = (left.seconds(scale)?, right.seconds(scale)?);
                match op {
                    BinaryOp::Add => left + right,
                    BinaryOp::Sub => left - right,
                    BinaryOp::Mul => left * right,
                    BinaryOp::Div if right == 0.0 => return Err("division by zero".to_owned()),
                    BinaryOp::Div => left / right,
                    BinaryOp::Mod if right == 0.0 => return Err("modulo by zero".to_owned()),
                    BinaryOp::Mod => left % right,
                    BinaryOp::Pow => left.powf(right),
                    other => return Err(format!("unexpected duration expression operator {:?}", other.symbol())),
                }
            }
        })
    }
}
