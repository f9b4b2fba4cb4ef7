//! A tree as text: in one line, or laid out as Prometheus' formatter does, where a line is longer than [`LINE`].

use super::super::length::Length;
use super::super::plan::{At, BinaryOp, Cardinality, Edges, Expr, Grouping, Matching, Selector, Shift};
use super::literal::quoted;
use crate::store::{METRIC_NAME, MatchOp};

/// Longer expressions are broken up.
const LINE: usize = 100;

pub fn pretty(expr: &Expr) -> String {
    broken(expr, 0)
}

fn broken(expr: &Expr, level: usize) -> String {
    let indent = "  ".repeat(level);
    let whole = line(expr);
    if whole.len() <= LINE {
        return format!("{indent}{whole}");
    }
    let inside = |expr: &Expr| broken(expr, level + 1);
    match expr {
        Expr::Aggregate { op, param, inner, grouping, .. } => {
            let param = param.as_ref().map_or(String::new(), |param| format!("{},\n", inside(param)));
            let head = format!("{}{}", op.name(), aggregate_grouping(grouping));
            format!("{indent}{head}(\n{param}{}\n{indent})", inside(inner))
        }
        Expr::Binary { op, left, right, matching } => {
            format!("{}\n{indent}{}{}\n{}", inside(left), op.symbol(), modifiers(matching), inside(right))
        }
        Expr::Call { function, args, .. } if !args.is_empty() => {
            let args: Vec<String> = args.iter().map(inside).collect();
            format!("{indent}{}(\n{}\n{indent})", function.name, args.join(",\n"))
        }
        Expr::Paren { inner, .. } => format!("{indent}(\n{}\n{indent})", inside(inner)),
        Expr::Subquery { inner, range, step, shift } => {
            format!("{}{}", broken(inner, level), subquery_range(range, step.as_ref(), shift))
        }
        Expr::Unary { negative, inner, .. } => {
            format!("{indent}{}{}", sign(*negative), broken(inner, level).trim_start())
        }
        _ => format!("{indent}{whole}"),
    }
}

fn line(expr: &Expr) -> String {
    match expr {
        Expr::Number { value, is_duration: true, .. } => seconds(*value),
        Expr::Number { value, .. } => number(*value),
        Expr::Text { value, .. } => quoted(value),
        Expr::Selector(selector) => format!("{}{}{}", named(selector), edges(selector.edges), shifted(&selector.shift)),
        Expr::Range { selector, range } => {
            let (edges, shift) = (edges(selector.edges), shifted(&selector.shift));
            format!("{}[{}]{edges}{shift}", named(selector), length(range))
        }
        Expr::Subquery { inner, range, step, shift } => {
            format!("{}{}", line(inner), subquery_range(range, step.as_ref(), shift))
        }
        Expr::Call { function, args, .. } => {
            let args: Vec<String> = args.iter().map(line).collect();
            format!("{}({})", function.name, args.join(", "))
        }
        Expr::Aggregate { op, param, inner, grouping, .. } => {
            let param = param.as_ref().map_or(String::new(), |param| format!("{}, ", line(param)));
            format!("{}{}({param}{})", op.name(), aggregate_grouping(grouping), line(inner))
        }
        Expr::Binary { op, left, right, matching } => {
            format!("{} {}{} {}", line(left), op.symbol(), modifiers(matching), line(right))
        }
        Expr::Unary { negative, inner, .. } => format!("{}{}", sign(*negative), line(inner)),
        Expr::Paren { inner, .. } => format!("({})", line(inner)),
    }
}

fn sign(negative: bool) -> char {
    if negative { '-' } else { '+' }
}

/// With all its digits and never an exponent.
pub fn number(value: f64) -> String {
    crate::query::value::float(value)
}

fn named(selector: &Selector) -> String {
    let plain = selector.name.as_deref().filter(|name| is_plain(name, true));
    let mut parts = Vec::new();
    for (at, matcher) in selector.matchers.iter().enumerate() {
        if at == 0 && selector.name.is_some() && matcher.name == METRIC_NAME {
            if plain.is_none() {
                parts.push(quoted(matcher.value.as_bytes()));
            }
            continue;
        }
        parts.push(format!("{}{}{}", label(&matcher.name), op(&matcher.op), quoted(matcher.value.as_bytes())));
    }
    parts.sort_unstable();
    let name = plain.unwrap_or_default();
    if parts.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", parts.join(",")) }
}

pub fn op(op: &MatchOp) -> &'static str {
    match op {
        MatchOp::Equal => "=",
        MatchOp::NotEqual => "!=",
        MatchOp::Match(_) => "=~",
        MatchOp::NoMatch(_) => "!~",
    }
}

fn is_plain(name: &str, is_metric: bool) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || (is_metric && c == ':');
    !name.is_empty() && name.chars().all(allowed) && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn label(name: &str) -> String {
    if is_plain(name, false) { name.to_owned() } else { quoted(name.as_bytes()) }
}

fn labels(names: &[String]) -> String {
    names.iter().map(|name| label(name)).collect::<Vec<_>>().join(", ")
}

fn aggregate_grouping(grouping: &Grouping) -> String {
    match grouping {
        Grouping::By(names) if names.is_empty() => String::new(),
        Grouping::By(names) => format!(" by ({}) ", labels(names)),
        Grouping::Without(names) => format!(" without ({}) ", labels(names)),
    }
}

fn modifiers(matching: &Matching) -> String {
    let mut out = if matching.returns_bool { " bool".to_owned() } else { String::new() };
    match &matching.keys {
        Grouping::By(names) => out.push_str(&format!(" on ({})", labels(names))),
        Grouping::Without(names) if names.is_empty() => {}
        Grouping::Without(names) => out.push_str(&format!(" ignoring ({})", labels(names))),
    }
    match &matching.cardinality {
        Cardinality::OneToOne => {}
        Cardinality::ManyToOne(include) => out.push_str(&format!(" group_left ({})", labels(include))),
        Cardinality::OneToMany(include) => out.push_str(&format!(" group_right ({})", labels(include))),
    }
    match (matching.fill_left, matching.fill_right) {
        (Some(left), Some(right)) if left.to_bits() == right.to_bits() => {
            out.push_str(&format!(" fill ({})", number(left)));
        }
        (left, right) => {
            for (side, fill) in [("left", left), ("right", right)] {
                if let Some(fill) = fill {
                    out.push_str(&format!(" fill_{side} ({})", number(fill)));
                }
            }
        }
    }
    out
}

fn edges(edges: Edges) -> &'static str {
    match edges {
        Edges::Plain => "",
        Edges::Anchored => " anchored",
        Edges::Smoothed => " smoothed",
    }
}

fn shifted(shift: &Shift) -> String {
    let at = match shift.at {
        None => String::new(),
        Some(At::Start) => " @ start()".to_owned(),
        Some(At::End) => " @ end()".to_owned(),
        Some(At::Ms(ms)) => format!(" @ {:.3}", ms as f64 / 1000.0),
    };
    // An offset of nothing is not told, as in Prometheus.
    let offset = match &shift.offset {
        None => String::new(),
        Some(Length::Seconds(seconds)) if *seconds == 0.0 => String::new(),
        Some(offset) => format!(" offset {}", length(offset)),
    };
    at + &offset
}

fn subquery_range(range: &Length, step: Option<&Length>, shift: &Shift) -> String {
    format!("[{}:{}]{}", length(range), step.map_or(String::new(), length), shifted(shift))
}

fn length(of: &Length) -> String {
    match of {
        Length::Seconds(value) => seconds(*value),
        Length::Step => "step()".to_owned(),
        Length::Range => "range()".to_owned(),
        Length::Negative(inner) => format!("-{}", length(inner)),
        Length::Wrapped(inner) => format!("({})", length(inner)),
        Length::Smaller(left, right) => format!("min_of({}, {})", length(left), length(right)),
        Length::Larger(left, right) => format!("max_of({}, {})", length(left), length(right)),
        Length::Combined(op, left, right) => combined(*op, left, right),
    }
}

fn combined(op: BinaryOp, left: &Length, right: &Length) -> String {
    format!("{} {} {}", length(left), op.symbol(), length(right))
}

fn seconds(value: f64) -> String {
    let ms = (value * 1000.0).round() as i64;
    if ms < 0 { format!("-{}", short_duration(-ms)) } else { short_duration(ms) }
}

/// Milliseconds as `1h30m`. Years and weeks only where they come out even.
fn short_duration(mut ms: i64) -> String {
    const UNITS: [(&str, i64, bool); 7] = [
        ("y", 365 * 86_400_000, true),
        ("w", 7 * 86_400_000, true),
        ("d", 86_400_000, false),
        ("h", 3_600_000, false),
        ("m", 60_000, false),
        ("s", 1000, false),
        ("ms", 1, false),
    ];
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    for (unit, size, even) in UNITS {
        if (even && ms % size != 0) || ms < size {
            continue;
        }
        out.push_str(&format!("{}{unit}", ms / size));
        ms %= size;
    }
    out
}
