//! Types and numbers of arguments, as nodes of the tree are made.

use super::super::functions::Function;
use super::super::plan::{AggregateOp, BinaryOp, Cardinality, Edges, Expr, Grouping, Kind, Matching, Place};
use super::tokens::{Parsed, Tokens, wrong};

/// Functions that know what to do with samples outside of their range.
const ANCHORED: [&str; 5] = ["changes", "delta", "increase", "rate", "resets"];
const SMOOTHED: [&str; 3] = ["delta", "increase", "rate"];

impl Tokens<'_> {
    pub fn checked_call(&self, function: &'static Function, args: Vec<Expr>, place: Place) -> Parsed<Expr> {
        let name = function.name;
        let takes = function.takes();
        let (least, most) = (takes.least, takes.most);
        let got = args.len();
        let expected = match most {
            _ if got < least && most == Some(least) => Some(format!("{least}")),
            Some(most) if got > most && most == least => Some(format!("{least}")),
            _ if got < least => Some(format!("at least {least}")),
            Some(most) if got > most => Some(format!("at most {most}")),
            _ => None,
        };
        if let Some(expected) = expected {
            return Err(wrong(place, format!("expected {expected} argument(s) in call to {name:?}, got {got}")));
        }
        for (at, arg) in args.iter().enumerate() {
            if name == "info" && at == 1 {
                label_selector(arg)?;
                continue;
            }
            expect(arg, takes.kind(at), &format!("call to function {name:?}"))?;
            full_selector(arg)?;
        }
        if let Some(Expr::Range { selector, .. }) =
            args.iter().find(|arg| arg.kind() == Kind::Matrix).map(Expr::without_parens)
        {
            let (word, known): (_, &[&str]) = match selector.edges {
                Edges::Plain => ("", &[]),
                Edges::Anchored => ("anchored", &ANCHORED),
                Edges::Smoothed => ("smoothed", &SMOOTHED),
            };
            if !word.is_empty() && !known.contains(&name) {
                let known = known.join(", ");
                return Err(wrong(place, format!("{word} modifier can only be used with: {known} - not with {name}")));
            }
        }
        Ok(Expr::Call { function, args, place })
    }

    pub fn checked_aggregate(
        &self,
        op: AggregateOp,
        mut args: Vec<Expr>,
        grouping: Grouping,
        place: Place,
    ) -> Parsed<Expr> {
        let wanted = if op.has_param() { 2 } else { 1 };
        if args.is_empty() {
            return Err(wrong(place, "no arguments for aggregate expression provided"));
        }
        if args.len() != wanted {
            let got = args.len();
            let text = "wrong number of arguments for aggregate expression provided, expected";
            return Err(wrong(place, format!("{text} {wanted}, got {got}")));
        }
        let inner = args.pop().map(Box::new);
        let param = args.pop().map(Box::new);
        let Some(inner) = inner else { return Err(wrong(place, "no arguments for aggregate expression provided")) };
        expect(&inner, Kind::Vector, "aggregation expression")?;
        full_selector(&inner)?;
        if let Some(param) = &param {
            let kind = if op == AggregateOp::CountValues { Kind::Text } else { Kind::Scalar };
            expect(param, kind, "aggregation parameter")?;
        }
        Ok(Expr::Aggregate { op, param, inner, grouping, place })
    }

    pub fn unary(&self, negative: bool, inner: Expr, place: Place) -> Parsed<Expr> {
        let kind = inner.kind();
        if !matches!(kind, Kind::Scalar | Kind::Vector) {
            let text = "unary expression only allowed on expressions of type scalar or instant vector, got";
            return Err(wrong(place, format!("{text} {:?}", kind.name())));
        }
        full_selector(&inner)?;
        Ok(Expr::Unary { negative, inner: Box::new(inner), place })
    }

    pub fn binary(&self, (op, at_op): (BinaryOp, Place), left: Expr, right: Expr, matching: Matching) -> Parsed<Expr> {
        let place = left.place();
        let (of_left, of_right) = (left.kind(), right.kind());
        if matching.returns_bool && !op.is_comparison() {
            return Err(wrong(at_op, "bool modifier can only be used on comparison operators"));
        }
        if op.is_comparison() && !matching.returns_bool && of_left == Kind::Scalar && of_right == Kind::Scalar {
            return Err(wrong(at_op, "comparisons between scalars must use BOOL modifier"));
        }
        if let (Grouping::By(keys), Cardinality::ManyToOne(include) | Cardinality::OneToMany(include)) =
            (&matching.keys, &matching.cardinality)
            && let Some(both) = keys.iter().find(|key| include.contains(key))
        {
            return Err(wrong(at_op, format!("label {both:?} must not occur in ON and GROUP clause at once")));
        }
        for side in [&left, &right] {
            if !matches!(side.kind(), Kind::Scalar | Kind::Vector) {
                let text = "binary expression must contain only scalar and instant vector types";
                return Err(wrong(side.place(), text));
            }
            full_selector(side)?;
        }
        let vectors = of_left == Kind::Vector && of_right == Kind::Vector;
        let fills = matching.fill_left.is_some() || matching.fill_right.is_some();
        if !vectors && matching.is_explicit() {
            return Err(wrong(place, "vector matching only allowed between instant vectors"));
        }
        if !vectors && fills {
            return Err(wrong(place, "filling in missing series only allowed between instant vectors"));
        }
        if op.is_set() && fills {
            return Err(wrong(place, "filling in missing series not allowed for set operators"));
        }
        if op.is_set() && !vectors {
            let op = op.symbol();
            return Err(wrong(place, format!("set operator {op:?} not allowed in binary scalar expression")));
        }
        Ok(Expr::Binary { op, left: Box::new(left), right: Box::new(right), matching })
    }

    /// The last check of a whole query.
    pub fn checked_root(&self, expr: Expr) -> Parsed<Expr> {
        full_selector(&expr)?;
        Ok(expr)
    }
}

fn expect(expr: &Expr, wanted: Kind, context: &str) -> Parsed<()> {
    let got = expr.kind();
    if got == wanted {
        return Ok(());
    }
    Err(wrong(expr.place(), format!("expected type {} in {context}, got {}", wanted.name(), got.name())))
}

/// A selector that any series meets is refused: it would read the whole store.
fn full_selector(expr: &Expr) -> Parsed<()> {
    match expr {
        Expr::Selector(selector) | Expr::Range { selector, .. } => {
            if selector.matchers.iter().all(|matcher| matcher.matches("")) {
                let text = "vector selector must contain at least one non-empty matcher";
                return Err(wrong(selector.place, text));
            }
            Ok(())
        }
        Expr::Paren { inner, .. } | Expr::Subquery { inner, .. } => full_selector(inner),
        _ => Ok(()),
    }
}

/// The second argument of `info()` names labels, not series.
fn label_selector(arg: &Expr) -> Parsed<()> {
    match arg {
        Expr::Selector(selector) if selector.name.is_none() => Ok(()),
        Expr::Selector(_) => Err(wrong(arg.place(), "expected label selectors only, got vector selector instead")),
        other => {
            Err(wrong(other.place(), format!("expected label selectors only, got {} instead", other.kind().name())))
        }
    }
}
