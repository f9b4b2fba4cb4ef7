//! Queries made at random, and an evaluator that is slow and plain: step by step, sample by sample, no columns.

use std::collections::BTreeMap;

use lampad_collector::store::{Label, Labels, METRIC_NAME, Sample};
use rand::Rng;
use rand::rngs::StdRng;

use super::memory::Memory;

pub const LOOKBACK_MS: i64 = 300_000;

#[derive(Debug, Clone)]
pub enum Query {
    Select(Pick),
    /// A function over a range of stored samples.
    Over(&'static str, Pick, i64),
    /// A function over a subquery: range and step.
    OverSteps(&'static str, Box<Query>, i64, i64),
    Sum(&'static str, &'static [&'static str], Box<Query>),
    Number(&'static str, Box<Query>, f64),
    Pair(&'static str, Box<Query>, Box<Query>),
    Abs(Box<Query>),
}

/// Stands for a regex that takes several names, so that taking names away makes series clash.
const ANY_NAME: &str = "any";

#[derive(Debug, Clone)]
pub struct Pick {
    name: &'static str,
    host: Option<(&'static str, &'static str)>,
    offset_ms: i64,
    at_ms: Option<i64>,
}

fn one<T: Copy>(rng: &mut StdRng, of: &[T]) -> T {
    of[rng.random_range(0..of.len())]
}

impl Pick {
    fn random(rng: &mut StdRng) -> Self {
        Self {
            name: one(rng, &["a_total", "a_total", "b_total", "b_total", ANY_NAME, "gone"]),
            host: one(rng, &[None, None, Some(("=", "h1")), Some(("!=", "h1")), Some(("=~", "h1|h2"))]),
            offset_ms: one(rng, &[0, 0, 0, 30_000, -20_000]),
            at_ms: one(rng, &[None, None, None, None, Some(400_000)]),
        }
    }

    fn text(&self, range: &str) -> String {
        let host = self.host.map_or(String::new(), |(op, value)| format!("host{op}\"{value}\""));
        let name = match self.name {
            ANY_NAME => format!("{{__name__=~\"._total\",{host}}}"),
            name => format!("{name}{{{host}}}"),
        };
        let at = self.at_ms.map_or(String::new(), |ms| format!(" @ {}", ms / 1000));
        let offset = match self.offset_ms {
            0 => String::new(),
            ms => format!(" offset {}s", ms / 1000),
        };
        format!("{name}{range}{at}{offset}")
    }

    fn takes(&self, labels: &Labels) -> bool {
        let host = labels.get("host").map_or("", |host| host);
        labels.get(METRIC_NAME).is_some_and(|name| self.name == ANY_NAME || **name == *self.name)
            && match self.host {
                None => true,
                Some(("=", value)) => host == value,
                Some(("!=", value)) => host != value,
                Some((_, values)) => values.split('|').any(|value| value == host),
            }
    }

    fn end(&self, at_ms: i64) -> i64 {
        self.at_ms.unwrap_or(at_ms) - self.offset_ms
    }
}

impl Query {
    pub fn random(rng: &mut StdRng, depth: usize) -> Self {
        let leaf = depth == 0;
        match rng.random_range(0..if leaf { 2 } else { 8 }) {
            0 => Self::Select(Pick::random(rng)),
            1 => Self::Over(one(rng, OVER), Pick::random(rng), one(rng, &[15_000, 60_000, 120_000, 400_000])),
            2 => {
                let inner = Box::new(Self::random(rng, depth - 1));
                let name = one(rng, OVER);
                let name = if inner.is_exact() || !JUMPY.contains(&name) { name } else { "delta" };
                Self::OverSteps(name, inner, one(rng, &[30_000, 100_000]), one(rng, &[7_000, 20_000]))
            }
            3 | 4 => {
                let op = one(rng, &["sum", "avg", "min", "max", "count", "group", "stddev"]);
                let by: &'static [&'static str] = one(rng, &[&[] as &[_], &["host"], &["host", "disk"]]);
                Self::Sum(op, by, Box::new(Self::random(rng, depth - 1)))
            }
            5 => {
                let inner = Self::random(rng, depth - 1);
                let op = one(rng, OPS);
                let op = if inner.is_exact() || !COMPARISONS.contains(&op) { op } else { "*" };
                Self::Number(op, Box::new(inner), one(rng, &[0.0, 1.0, 2.5, -3.0]))
            }
            6 => {
                let (left, right) = (Self::random(rng, depth - 1), Self::random(rng, depth - 1));
                let op = one(rng, PAIR_OPS);
                let exact = left.is_exact() && right.is_exact();
                let op = if exact || !COMPARISONS.contains(&op) { op } else { "-" };
                Self::Pair(op, Box::new(left), Box::new(right))
            }
            _ => Self::Abs(Box::new(Self::random(rng, depth - 1))),
        }
    }

    /// Whether both evaluators give the very same bits: only then may a comparison or a jump hang on them.
    fn is_exact(&self) -> bool {
        const ROUGH: [&str; 7] = ["rate", "increase", "delta", "irate", "avg_over_time", "deriv", "sum_over_time"];
        match self {
            Self::Select(_) => true,
            Self::Over(name, ..) => !ROUGH.contains(name),
            Self::OverSteps(name, inner, ..) => !ROUGH.contains(name) && inner.is_exact(),
            Self::Sum(op, _, inner) => matches!(*op, "min" | "max" | "count" | "group") && inner.is_exact(),
            Self::Number(op, inner, _) => *op != "/" && inner.is_exact(),
            Self::Pair(op, left, right) => *op != "/" && left.is_exact() && right.is_exact(),
            Self::Abs(inner) => inner.is_exact(),
        }
    }

    pub fn text(&self) -> String {
        match self {
            Self::Select(pick) => pick.text(""),
            Self::Over(name, pick, range) => format!("{name}({})", pick.text(&format!("[{}s]", range / 1000))),
            Self::OverSteps(name, inner, range, step) => {
                format!("{name}(({})[{}s:{}s])", inner.text(), range / 1000, step / 1000)
            }
            Self::Sum(op, by, inner) => format!("{op} by ({}) ({})", by.join(", "), inner.text()),
            Self::Number(op, inner, number) => format!("({}) {op} {number}", inner.text()),
            Self::Pair(op, left, right) => format!("({}) {op} ({})", left.text(), right.text()),
            Self::Abs(inner) => format!("abs({})", inner.text()),
        }
    }
}

const OVER: &[&str] = &[
    "rate",
    "increase",
    "delta",
    "irate",
    "idelta",
    "sum_over_time",
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "count_over_time",
    "last_over_time",
    "changes",
    "resets",
    "present_over_time",
    "deriv",
];
/// Functions of which the last digit of a sample can change the result a lot.
const JUMPY: &[&str] = &["rate", "increase", "irate", "changes", "resets"];
const COMPARISONS: &[&str] = &[">", "<=", "==", "== bool"];
const OPS: &[&str] = &["+", "-", "*", "/", ">", "<=", "== bool"];
const PAIR_OPS: &[&str] = &["+", "-", "*", "/", ">", "==", "and", "or", "unless"];

type Vector = BTreeMap<Labels, f64>;

/// Two samples of one label set, or an ambiguous match.
#[derive(Debug)]
pub struct Clash;

fn put(out: &mut Vector, labels: Labels, value: f64) -> Result<(), Clash> {
    if out.insert(labels, value).is_some() { Err(Clash) } else { Ok(()) }
}

fn nameless(labels: &Labels) -> Labels {
    keep(labels, |name| name != METRIC_NAME)
}

fn keep(labels: &Labels, wanted: impl Fn(&str) -> bool) -> Labels {
    let kept: Vec<Label> = labels.iter().filter(|label| wanted(&label.name)).cloned().collect();
    Labels::new(kept)
}

pub fn eval(query: &Query, memory: &Memory, at_ms: i64) -> Result<Vector, Clash> {
    let mut out = Vector::new();
    match query {
        Query::Select(pick) => {
            let end = pick.end(at_ms);
            for series in memory.series.iter().filter(|series| pick.takes(&series.labels)) {
                let last = series.floats.iter().rfind(|s| s.timestamp_ms <= end);
                let live = last.filter(|s| s.timestamp_ms > end - LOOKBACK_MS && !lampad_proto::is_stale(s.value));
                if let Some(sample) = live {
                    put(&mut out, series.labels.clone(), sample.value)?;
                }
            }
        }
        Query::Over(name, pick, range_ms) => {
            let end = pick.end(at_ms);
            for series in memory.series.iter().filter(|series| pick.takes(&series.labels)) {
                let inside = |s: &&Sample| s.timestamp_ms > end - range_ms && s.timestamp_ms <= end;
                let live = series.floats.iter().filter(inside).filter(|s| !lampad_proto::is_stale(s.value));
                let samples: Vec<_> = live.copied().collect();
                over(name, &series.labels, &samples, end - range_ms, end, &mut out)?;
            }
        }
        Query::OverSteps(name, inner, range_ms, step_ms) => {
            let mut found: BTreeMap<Labels, Vec<Sample>> = BTreeMap::new();
            let mut time = (at_ms - range_ms) - (at_ms - range_ms).rem_euclid(*step_ms);
            while time <= at_ms {
                if time > at_ms - range_ms {
                    for (labels, value) in eval(inner, memory, time)? {
                        found.entry(labels).or_default().push(Sample { timestamp_ms: time, value });
                    }
                }
                time += step_ms;
            }
            for (labels, samples) in found {
                over(name, &labels, &samples, at_ms - range_ms, at_ms, &mut out)?;
            }
        }
        Query::Sum(op, by, inner) => {
            let mut groups: BTreeMap<Labels, Vec<f64>> = BTreeMap::new();
            for (labels, value) in eval(inner, memory, at_ms)? {
                groups.entry(keep(&labels, |name| by.contains(&name))).or_default().push(value);
            }
            for (labels, values) in groups {
                put(&mut out, labels, sum(op, &values))?;
            }
        }
        Query::Number(op, inner, number) => {
            for (labels, value) in eval(inner, memory, at_ms)? {
                match compute(op, value, *number) {
                    Outcome::Value(value) => put(&mut out, nameless(&labels), value)?,
                    Outcome::Kept(true) => put(&mut out, labels, value)?,
                    Outcome::Kept(false) => {}
                }
            }
        }
        Query::Pair(op, left, right) => {
            let (left, right) = (eval(left, memory, at_ms)?, eval(right, memory, at_ms)?);
            pair(op, left, right, &mut out)?;
        }
        Query::Abs(inner) => {
            for (labels, value) in eval(inner, memory, at_ms)? {
                put(&mut out, nameless(&labels), value.abs())?;
            }
        }
    }
    Ok(out)
}

enum Outcome {
    Value(f64),
    Kept(bool),
}

fn compute(op: &str, left: f64, right: f64) -> Outcome {
    match op {
        "+" => Outcome::Value(left + right),
        "-" => Outcome::Value(left - right),
        "*" => Outcome::Value(left * right),
        "/" => Outcome::Value(left / right),
        "== bool" => Outcome::Value(f64::from(u8::from(left == right))),
        ">" => Outcome::Kept(left > right),
        "<=" => Outcome::Kept(left <= right),
        _ => Outcome::Kept(left == right),
    }
}

fn pair(op: &str, left: Vector, right: Vector, out: &mut Vector) -> Result<(), Clash> {
    let on_right = |labels: &Labels| right.keys().filter(|other| nameless(other) == nameless(labels)).count();
    let on_left = |labels: &Labels| left.keys().filter(|other| nameless(other) == nameless(labels)).count();
    match op {
        "and" => out.extend(left.iter().filter(|(labels, _)| on_right(labels) > 0).map(|(l, v)| (l.clone(), *v))),
        "unless" => out.extend(left.iter().filter(|(labels, _)| on_right(labels) == 0).map(|(l, v)| (l.clone(), *v))),
        "or" => {
            out.extend(left.clone());
            for (labels, value) in right.iter().filter(|(labels, _)| on_left(labels) == 0) {
                put(out, labels.clone(), *value)?;
            }
        }
        _ => {
            if left.is_empty() || right.is_empty() {
                return Ok(());
            }
            if right.keys().any(|labels| on_right(labels) > 1) {
                return Err(Clash);
            }
            for (labels, value) in &left {
                let Some((_, other)) = right.iter().find(|(other, _)| nameless(other) == nameless(labels)) else {
                    continue;
                };
                if on_left(labels) > 1 {
                    return Err(Clash);
                }
                match compute(op, *value, *other) {
                    Outcome::Value(value) => put(out, nameless(labels), value)?,
                    Outcome::Kept(true) => put(out, labels.clone(), *value)?,
                    Outcome::Kept(false) => {}
                }
            }
        }
    }
    Ok(())
}

fn sum(op: &str, values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    match op {
        "sum" => values.iter().sum(),
        "avg" => mean,
        "min" => values.iter().copied().fold(f64::NAN, f64::min),
        "max" => values.iter().copied().fold(f64::NAN, f64::max),
        "count" => n,
        "group" => 1.0,
        _ => (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n).sqrt(),
    }
}

fn over(name: &str, labels: &Labels, samples: &[Sample], from: i64, to: i64, out: &mut Vector) -> Result<(), Clash> {
    let labels = if name == "last_over_time" { labels.clone() } else { nameless(labels) };
    match window(name, samples, from, to) {
        Some(value) => put(out, labels, value),
        None => Ok(()),
    }
}

fn window(name: &str, samples: &[Sample], from: i64, to: i64) -> Option<f64> {
    let (first, last) = (samples.first()?, samples.last()?);
    let values: Vec<f64> = samples.iter().map(|s| s.value).collect();
    let steps = || values.windows(2);
    let seconds = |ms: i64| ms as f64 / 1000.0;
    let two = (samples.len() > 1).then_some(());
    Some(match name {
        "sum_over_time" => sum("sum", &values),
        "avg_over_time" => sum("avg", &values),
        "min_over_time" => sum("min", &values),
        "max_over_time" => sum("max", &values),
        "count_over_time" => values.len() as f64,
        "present_over_time" => 1.0,
        "last_over_time" => last.value,
        "changes" => steps().filter(|w| w[0] != w[1]).count() as f64,
        "resets" => steps().filter(|w| w[1] < w[0]).count() as f64,
        "irate" | "idelta" => {
            two?;
            let before = samples[samples.len() - 2];
            let difference = last.value - before.value;
            match name {
                "idelta" => difference,
                _ => {
                    (if difference < 0.0 { last.value } else { difference })
                        / seconds(last.timestamp_ms - before.timestamp_ms)
                }
            }
        }
        "deriv" => {
            two?;
            let n = values.len() as f64;
            let xs: Vec<f64> = samples.iter().map(|s| seconds(s.timestamp_ms - first.timestamp_ms)).collect();
            let (x, y) = (xs.iter().sum::<f64>() / n, values.iter().sum::<f64>() / n);
            let over: f64 = xs.iter().zip(&values).map(|(a, b)| (a - x) * (b - y)).sum();
            over / xs.iter().map(|a| (a - x) * (a - x)).sum::<f64>()
        }
        _ => {
            two?;
            let counter = name != "delta";
            let resets: f64 = steps().filter(|w| counter && w[1] < w[0]).map(|w| w[0]).sum();
            let grown = last.value - first.value + resets;
            let length = seconds(last.timestamp_ms - first.timestamp_ms);
            let distance = length / (samples.len() - 1) as f64;
            let reach = |gap: f64| if gap >= distance * 1.1 { distance / 2.0 } else { gap };
            let mut before = reach(seconds(first.timestamp_ms - from));
            if counter && grown > 0.0 && first.value >= 0.0 {
                before = before.min(length * first.value / grown);
            }
            let all = grown * (length + before + reach(seconds(to - last.timestamp_ms))) / length;
            if name == "rate" { all / seconds(to - from) } else { all }
        }
    })
}
