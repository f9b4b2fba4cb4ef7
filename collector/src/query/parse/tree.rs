//! A tree as JSON: the answer of `parse_query`, node by node in Prometheus' form.

use serde_json::{Value, json};

use super::super::length::{Length, Scale};
use super::super::plan::{At, BinaryOp, Cardinality, Edges, Expr, Grouping, Kind, Matching, Selector, Shift};
use super::print::{self, number};
use crate::store::METRIC_NAME;

pub fn json(expr: &Expr) -> Value {
    match expr {
        Expr::Number { value, .. } => json!({ "type": "numberLiteral", "val": number(*value) }),
        Expr::Text { value, .. } => json!({ "type": "stringLiteral", "val": String::from_utf8_lossy(value) }),
        Expr::Paren { inner, .. } => json!({ "type": "parenExpr", "expr": json(inner) }),
        Expr::Unary { negative, inner, .. } => {
            json!({ "type": "unaryExpr", "op": if *negative { "-" } else { "+" }, "expr": json(inner) })
        }
        Expr::Selector(of) => selector("vectorSelector", of),
        Expr::Range { selector: of, range } => {
            let mut node = selector("matrixSelector", of);
            node["range"] = ms(Some(range));
            node
        }
        Expr::Subquery { inner, range, step, shift } => {
            let mut node = json!({
                "type": "subquery",
                "expr": json(inner),
                "range": ms(Some(range)),
                "step": ms(step.as_ref()),
            });
            set_shift(&mut node, shift);
            node
        }
        Expr::Call { function, args, .. } => {
            let takes = function.takes();
            json!({
                "type": "call",
                "func": {
                    "name": function.name,
                    "argTypes": takes.kinds.iter().map(|of| kind(*of)).collect::<Vec<_>>(),
                    "variadic": takes.variadic,
                    "returnType": kind(function.returns()),
                },
                "args": args.iter().map(json).collect::<Vec<_>>(),
            })
        }
        Expr::Aggregate { op, param, inner, grouping, .. } => {
            let (labels, without) = match grouping {
                Grouping::By(labels) => (labels, false),
                Grouping::Without(labels) => (labels, true),
            };
            json!({
                "type": "aggregation",
                "op": op.name(),
                "expr": json(inner),
                "param": param.as_ref().map(|param| json(param)),
                "grouping": labels,
                "without": without,
            })
        }
        Expr::Binary { op, left, right, matching: of } => {
            let vectors = left.kind() == Kind::Vector && right.kind() == Kind::Vector;
            json!({
                "type": "binaryExpr",
                "op": op.symbol(),
                "lhs": json(left),
                "rhs": json(right),
                "matching": vectors.then(|| matching(*op, of)),
                "bool": of.returns_bool,
            })
        }
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Scalar => "scalar",
        Kind::Vector => "vector",
        Kind::Matrix => "matrix",
        Kind::Text => "string",
    }
}

/// Milliseconds; 0 for what only a running query can tell.
fn ms(length: Option<&Length>) -> Value {
    length.and_then(|length| length.ms(Scale::default()).ok()).unwrap_or(0).into()
}

fn selector(kind: &str, of: &Selector) -> Value {
    let named = usize::from(of.name.is_some() && of.matchers.first().is_some_and(|first| first.name == METRIC_NAME));
    let matchers = of
        .matchers
        .iter()
        .map(|matcher| json!({ "name": matcher.name, "value": matcher.value, "type": print::op(&matcher.op) }));
    // The name is told twice, as its own field and as a matcher.
    let mut matchers: Vec<Value> = matchers.collect();
    matchers.rotate_left(named);
    let mut node = json!({
        "type": kind,
        "name": of.name.as_deref().unwrap_or_default(),
        "matchers": matchers,
        "anchored": of.edges == Edges::Anchored,
        "smoothed": of.edges == Edges::Smoothed,
    });
    set_shift(&mut node, &of.shift);
    node
}

fn set_shift(node: &mut Value, shift: &Shift) {
    node["offset"] = ms(shift.offset.as_ref());
    node["timestamp"] = match shift.at {
        Some(At::Ms(ms)) => ms.into(),
        _ => Value::Null,
    };
    node["startOrEnd"] = match shift.at {
        Some(At::Start) => "start".into(),
        Some(At::End) => "end".into(),
        _ => Value::Null,
    };
}

fn matching(op: BinaryOp, of: &Matching) -> Value {
    let (labels, on) = match &of.keys {
        Grouping::By(labels) => (labels, true),
        Grouping::Without(labels) => (labels, false),
    };
    let (card, include) = match &of.cardinality {
        _ if op.is_set() => ("many-to-many", &[][..]),
        Cardinality::OneToOne => ("one-to-one", &[][..]),
        Cardinality::ManyToOne(include) => ("many-to-one", include.as_slice()),
        Cardinality::OneToMany(include) => ("one-to-many", include.as_slice()),
    };
    json!({
        "card": card,
        "labels": labels,
        "on": on,
        "include": include,
        "fillValues": { "lhs": of.fill_left, "rhs": of.fill_right },
    })
}
