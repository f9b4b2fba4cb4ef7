//! From text to [`Expr`], through promql-parser.
//!
//! promql-parser 0.11 reads all of Prometheus' given test expressions (1,011 of 1,011), so that it stays; it lacks duration
//! expressions, `anchored`, `smoothed`, positions for annotations, and strings that are no UTF-8.
//!
//! promql-parser checks types and arity; what Prometheus refuses beyond that, and features that are off, are refused here.

use promql_parser::label::{METRIC_NAME, MatchOp as ParsedOp, Matchers};
use promql_parser::parser::{
    AtModifier, BinModifier, Expr as Parsed, LabelModifier, Offset, VectorMatchCardinality, VectorSelector,
};
use regex::Regex;
use std::time::{Duration, SystemTime};

use crate::store::{MatchOp, Matcher};

use super::functions;
use super::plan::{AggregateOp, At, BinaryOp, Cardinality, Expr, Grouping, Kind, Matching, Selector, Shift};
use super::{Features, QueryError};

/// Reads a query. Errors are Prometheus' `bad_data`.
pub fn parse(text: &str, features: Features) -> Result<Expr, QueryError> {
    parsed(text, OPENINGS_MAX, |parsed| Lowering { features }.expr(parsed).map_err(|reason| bad(&reason)))
}

/// Brackets and operators of one query. Each may deepen its tree by one, and a tree is walked by recursion.
const OPENINGS_MAX: usize = 2_000;
/// The same for a query that is laid out or handed out as JSON: that takes time by the square, and less room.
const OPENINGS_MAX_SHOWN: usize = 300;

/// Parses, with room for deep trees, and hands the tree to `read`.
fn parsed<T: Send>(
    text: &str,
    openings_max: usize,
    read: impl FnOnce(&Parsed) -> Result<T, QueryError> + Send,
) -> Result<T, QueryError> {
    let openings = openings(text);
    if openings > openings_max {
        return Err(bad(&format!(
            "{openings} brackets and operators, at most {openings_max} are taken; split the query"
        )));
    }
    let parse = || promql_parser::parser::parse(text).map_err(|reason| bad(&reason)).and_then(|parsed| read(&parsed));
    // Few levels fit into any stack, and a thread costs more than they do.
    if openings < OPENINGS_SHALLOW { parse() } else { with_room(parse)? }
}

/// Up to so many levels need no more stack than every thread has.
pub(super) const OPENINGS_SHALLOW: usize = 60;

/// What may deepen the tree, counted outside of strings.
pub(super) fn openings(text: &str) -> usize {
    let mut quote = None;
    let mut escaped = false;
    let mut count = text.split_whitespace().filter(|word| is_word_operator(word)).count();
    for c in text.chars() {
        match quote {
            Some(end) => match c {
                _ if escaped => escaped = false,
                '\\' if end != '`' => escaped = true,
                c if c == end => quote = None,
                _ => {}
            },
            None if matches!(c, '"' | '\'' | '`') => quote = Some(c),
            None => count += usize::from("([+-*/%^<>=!".contains(c)),
        }
    }
    count
}

fn is_word_operator(word: &str) -> bool {
    ["and", "or", "unless", "atan2"].iter().any(|operator| word.eq_ignore_ascii_case(operator))
}

/// Stack of [`with_room`]: 32 KiB for each level of the deepest tree, touched only as far as it is needed.
const ROOM_BYTES: usize = 64 << 20;

/// Runs on a thread whose stack holds the deepest tree: an overflow would end the whole program.
pub(super) fn with_room<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, QueryError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("deep-query".into()).stack_size(ROOM_BYTES);
        let handle = thread.spawn_scoped(scope, work);
        let handle = handle.map_err(|error| QueryError::Busy(format!("no thread for a deep query: {error}")))?;
        handle.join().map_err(|_| QueryError::Internal("a deep query ended early".to_owned()))
    })
}

/// Reads one selector (`match[]`) as lists of matchers of which any must hold.
pub fn parse_selector(text: &str) -> Result<Vec<Vec<Matcher>>, QueryError> {
    parsed(text, OPENINGS_MAX, |parsed| match parsed {
        Parsed::VectorSelector(selector) if selector.offset.is_none() && selector.at.is_none() => {
            matchers(selector).map_err(|reason| bad(&reason))
        }
        _ => Err(bad("expected a selector such as name{label=\"value\"}")),
    })
}

fn bad(reason: &str) -> QueryError {
    QueryError::Bad(format!("parse error: {reason}"))
}

/// The query as Prometheus' formatter would lay it out.
pub fn format(text: &str) -> Result<String, QueryError> {
    parsed(text, OPENINGS_MAX_SHOWN, |parsed| Ok(parsed.prettify()))
}

/// The query's tree as JSON.
pub fn tree(text: &str) -> Result<serde_json::Value, QueryError> {
    parsed(text, OPENINGS_MAX_SHOWN, |parsed| {
        let tree = serde_json::to_value(parsed);
        tree.map_err(|error| QueryError::Internal(format!("the tree cannot be written: {error}")))
    })
}

struct Lowering {
    features: Features,
}

impl Lowering {
    fn boxed(&self, parsed: &Parsed) -> Result<Box<Expr>, String> {
        Ok(Box::new(self.expr(parsed)?))
    }

    fn expr(&self, parsed: &Parsed) -> Result<Expr, String> {
        Ok(match parsed {
            Parsed::NumberLiteral(number) => Expr::Number(number.val),
            Parsed::StringLiteral(text) => Expr::Text(text.val.clone()),
            Parsed::Paren(paren) => Expr::Paren(self.boxed(&paren.expr)?),
            Parsed::Unary(unary) => Expr::Negate(self.boxed(&unary.expr)?),
            Parsed::VectorSelector(selector) => Expr::Selector(lower_selector(selector)?),
            Parsed::MatrixSelector(matrix) => {
                Expr::Range { selector: lower_selector(&matrix.vs)?, range_ms: millis(matrix.range)? }
            }
            Parsed::Subquery(subquery) => Expr::Subquery {
                inner: self.boxed(&subquery.expr)?,
                range_ms: millis(subquery.range)?,
                step_ms: subquery.step.map(millis).transpose()?,
                shift: shift(subquery.offset.as_ref(), subquery.at.as_ref())?,
            },
            Parsed::Call(call) => {
                let args = call.args.args.iter().map(|arg| self.expr(arg)).collect::<Result<Vec<_>, _>>()?;
                let name = call.func.name;
                let function =
                    functions::lookup(name).ok_or_else(|| format!("function {name}() is not supported yet"))?;
                if function.experimental && !self.features.experimental_functions {
                    return Err(format!(
                        "function {name:?} is not enabled; switch on --enable-feature=promql-experimental-functions"
                    ));
                }
                Expr::Call { function, args }
            }
            Parsed::Aggregate(aggregate) => {
                let op = aggregate_op(&aggregate.op.to_string())?;
                if matches!(op, AggregateOp::Limitk | AggregateOp::LimitRatio) && !self.features.experimental_functions
                {
                    let name = aggregate.op.to_string();
                    return Err(format!(
                        "{name}() is experimental and must be enabled with --enable-feature=promql-experimental-functions"
                    ));
                }
                let grouping = match &aggregate.modifier {
                    Some(LabelModifier::Exclude(labels)) => Grouping::Without(labels.labels.clone()),
                    Some(LabelModifier::Include(labels)) => Grouping::By(labels.labels.clone()),
                    None => Grouping::By(Vec::new()),
                };
                let param = aggregate.param.as_deref().map(|param| self.boxed(param)).transpose()?;
                Expr::Aggregate { op, param, inner: self.boxed(&aggregate.expr)?, grouping }
            }
            Parsed::Binary(binary) => {
                let op = binary_op(&binary.op.to_string())?;
                let (left, right) = (self.boxed(&binary.lhs)?, self.boxed(&binary.rhs)?);
                let matching = lower_matching(binary.modifier.as_ref());
                let scalars = left.kind() == Kind::Scalar && right.kind() == Kind::Scalar;
                if scalars && op.is_comparison() && !matching.returns_bool {
                    return Err("comparisons between scalars must use BOOL modifier".to_owned());
                }
                Expr::Binary { op, left, right, matching }
            }
            Parsed::Extension(_) => return Err("unknown kind of expression".to_owned()),
        })
    }
}

fn lower_matching(modifier: Option<&BinModifier>) -> Matching {
    let keys = match modifier.and_then(|modifier| modifier.matching.as_ref()) {
        Some(LabelModifier::Include(labels)) => Grouping::By(labels.labels.clone()),
        Some(LabelModifier::Exclude(labels)) => Grouping::Without(labels.labels.clone()),
        None => Grouping::Without(Vec::new()),
    };
    let cardinality = match modifier.map(|modifier| &modifier.card) {
        Some(VectorMatchCardinality::ManyToOne(labels)) => Cardinality::ManyToOne(labels.labels.clone()),
        Some(VectorMatchCardinality::OneToMany(labels)) => Cardinality::OneToMany(labels.labels.clone()),
        _ => Cardinality::OneToOne,
    };
    Matching {
        keys,
        cardinality,
        returns_bool: modifier.is_some_and(|modifier| modifier.return_bool),
        fill_left: modifier.and_then(|modifier| modifier.fill_values.lhs),
        fill_right: modifier.and_then(|modifier| modifier.fill_values.rhs),
    }
}

fn lower_selector(selector: &VectorSelector) -> Result<Selector, String> {
    Ok(Selector { any_of: matchers(selector)?, shift: shift(selector.offset.as_ref(), selector.at.as_ref())? })
}

fn matchers(selector: &VectorSelector) -> Result<Vec<Vec<Matcher>>, String> {
    let Matchers { matchers, or_matchers } = &selector.matchers;
    let lists: Vec<&Vec<_>> = if or_matchers.is_empty() { vec![matchers] } else { or_matchers.iter().collect() };
    let name = selector.name.as_ref().map(|name| Matcher {
        name: METRIC_NAME.to_owned(),
        op: MatchOp::Equal,
        value: name.clone(),
    });
    lists
        .into_iter()
        .map(|list| {
            let rest = list.iter().map(|matcher| {
                let op = match matcher.op {
                    ParsedOp::Equal => MatchOp::Equal,
                    ParsedOp::NotEqual => MatchOp::NotEqual,
                    ParsedOp::Re(_) => MatchOp::Match(anchored(&matcher.value)?),
                    ParsedOp::NotRe(_) => MatchOp::NoMatch(anchored(&matcher.value)?),
                };
                Ok(Matcher { name: matcher.name.clone(), op, value: matcher.value.clone() })
            });
            name.clone().map(Ok).into_iter().chain(rest).collect()
        })
        .collect()
}

/// A regex as Prometheus runs it: over the whole value, `.` matching newlines too.
pub(super) fn anchored(pattern: &str) -> Result<Regex, String> {
    Regex::new(&format!("^(?s:{pattern})$"))
        // RE2 reads a brace that opens no repetition as itself.
        .or_else(|error| {
            let escaped = literal_braces(pattern);
            Regex::new(&format!("^(?s:{escaped})$")).map_err(|_| error)
        })
        .map_err(|error| format!("regular expression {pattern:?}: {error}"))
}

fn literal_braces(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 4);
    let mut rest = pattern;
    while let Some(at) = rest.find(['{', '\\']) {
        out.push_str(&rest[..at]);
        let tail = &rest[at..];
        if tail.starts_with('\\') {
            let end = tail.char_indices().nth(2).map_or(tail.len(), |(index, _)| index);
            out.push_str(&tail[..end]);
            rest = &tail[end..];
            continue;
        }
        let repeats = tail[1..].split_once('}').is_some_and(|(inside, _)| {
            inside.starts_with(|c: char| c.is_ascii_digit()) && inside.chars().all(|c| c.is_ascii_digit() || c == ',')
        });
        out.push_str(if repeats { "{" } else { "\\{" });
        rest = &tail[1..];
    }
    out.push_str(rest);
    out
}

fn shift(offset: Option<&Offset>, at: Option<&AtModifier>) -> Result<Shift, String> {
    let offset_ms = match offset {
        None => 0,
        Some(Offset::Pos(duration)) => millis(*duration)?,
        Some(Offset::Neg(duration)) => -millis(*duration)?,
    };
    let at = match at {
        None => None,
        Some(AtModifier::Start) => Some(At::Start),
        Some(AtModifier::End) => Some(At::End),
        Some(AtModifier::At(time)) => Some(At::Ms(match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => millis(after)?,
            Err(before) => -millis(before.duration())?,
        })),
    };
    Ok(Shift { at, offset_ms })
}

/// 10,000 years, so that sums of times cannot overflow.
const LONGEST_MS: u128 = 10_000 * 366 * 86_400_000;

fn millis(duration: Duration) -> Result<i64, String> {
    let ms = duration.as_millis();
    if ms > LONGEST_MS { Err("duration out of range".to_owned()) } else { Ok(ms as i64) }
}

fn aggregate_op(name: &str) -> Result<AggregateOp, String> {
    Ok(match name {
        "sum" => AggregateOp::Sum,
        "avg" => AggregateOp::Avg,
        "min" => AggregateOp::Min,
        "max" => AggregateOp::Max,
        "count" => AggregateOp::Count,
        "group" => AggregateOp::Group,
        "stddev" => AggregateOp::Stddev,
        "stdvar" => AggregateOp::Stdvar,
        "topk" => AggregateOp::Topk,
        "bottomk" => AggregateOp::Bottomk,
        "quantile" => AggregateOp::Quantile,
        "count_values" => AggregateOp::CountValues,
        "limitk" => AggregateOp::Limitk,
        "limit_ratio" => AggregateOp::LimitRatio,
        other => return Err(format!("unknown aggregation {other}")),
    })
}

fn binary_op(name: &str) -> Result<BinaryOp, String> {
    Ok(match name {
        "+" => BinaryOp::Add,
        "-" => BinaryOp::Sub,
        "*" => BinaryOp::Mul,
        "/" => BinaryOp::Div,
        "%" => BinaryOp::Mod,
        "^" => BinaryOp::Pow,
        "atan2" => BinaryOp::Atan2,
        "==" => BinaryOp::Equal,
        "!=" => BinaryOp::NotEqual,
        ">" => BinaryOp::Greater,
        "<" => BinaryOp::Less,
        ">=" => BinaryOp::GreaterEqual,
        "<=" => BinaryOp::LessEqual,
        "and" => BinaryOp::And,
        "or" => BinaryOp::Or,
        "unless" => BinaryOp::Unless,
        other => return Err(format!("unknown operator {other}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_queries_end_in_an_answer() {
        for (open, close) in [("(", ")"), ("-", ""), ("abs(", ")"), ("1+", ""), ("1^", ""), ("1 or ", "")] {
            for count in [50, 500, 1_900, 100_000] {
                let text = format!("{}vector(1){}", open.repeat(count), close.repeat(count));
                let _ = parse(&text, Features::ALL);
                let _ = format(&text);
                let _ = tree(&text);
            }
        }
        assert!(parse(&"(".repeat(100_000), Features::ALL).unwrap_err().to_string().contains("split the query"));
    }

    #[test]
    fn strings_do_not_count() {
        assert_eq!(openings(r#"a{b="(((\"((("} + '((' + `((\`"#), 3);
    }
}
