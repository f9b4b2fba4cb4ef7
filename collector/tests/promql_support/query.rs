//! Queries made at random: the grammar, and how each is written.

use lampad_collector::store::{Labels, METRIC_NAME};
use rand::Rng;
use rand::rngs::StdRng;

#[derive(Debug, Clone)]
pub enum Query {
    Select(Pick),
    /// A function over a range of stored samples.
    Over(&'static str, Pick, i64),
    /// `quantile_over_time`.
    QuantileOver(f64, Pick, i64),
    /// A function over a subquery: range and step.
    OverSteps(&'static str, Box<Query>, i64, i64, Shift),
    Aggregate(&'static str, Grouping, Box<Query>),
    Quantile(f64, Grouping, Box<Query>),
    /// `topk` or `bottomk`, summed up: of equal values any may be taken, and their sum is the same.
    Top(&'static str, usize, Grouping, Box<Query>),
    CountValues(Grouping, Box<Query>),
    Number(&'static str, Box<Query>, f64),
    Pair(&'static str, Match, Box<Query>, Box<Query>),
    /// `label_replace` or `label_join`.
    Relabel(Relabel, Box<Query>),
    Abs(Box<Query>),
    Negative(Box<Query>),
    /// `histogram_count` or `histogram_sum` of what sums and means make of native histograms.
    OfHistograms(&'static str, Box<Query>),
}

/// Stands for a regex that takes several names, so that taking names away makes series clash.
const ANY_NAME: &str = "any";

#[derive(Debug, Clone, Copy)]
pub struct Shift {
    offset_ms: i64,
    at_ms: Option<i64>,
}

impl Shift {
    fn random(rng: &mut StdRng) -> Self {
        Self {
            offset_ms: one(rng, &[0, 0, 0, 30_000, -20_000]),
            at_ms: one(rng, &[None, None, None, None, Some(400_000)]),
        }
    }

    fn text(&self) -> String {
        let at = self.at_ms.map_or(String::new(), |ms| format!(" @ {}", ms / 1000));
        let offset = match self.offset_ms {
            0 => String::new(),
            ms => format!(" offset {}s", ms / 1000),
        };
        format!("{at}{offset}")
    }

    pub fn end(&self, at_ms: i64) -> i64 {
        self.at_ms.unwrap_or(at_ms) - self.offset_ms
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Grouping {
    without: bool,
    names: &'static [&'static str],
}

impl Grouping {
    fn random(rng: &mut StdRng) -> Self {
        let without = rng.random_bool(0.4);
        Self { without, names: one(rng, &[&[], &["host"], &["disk"], &["host", "disk"]]) }
    }

    fn text(&self) -> String {
        format!("{} ({})", if self.without { "without" } else { "by" }, self.names.join(", "))
    }

    pub fn keeps(&self, name: &str) -> bool {
        self.names.contains(&name) != self.without && (name != METRIC_NAME || !self.without)
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Many {
    Neither,
    Left,
    Right,
}

/// Which series of both sides belong together.
#[derive(Debug, Clone, Copy)]
pub struct Match {
    /// `on` and its labels, or `ignoring`, which may be none.
    pub keys: (bool, &'static [&'static str]),
    pub many: Many,
    /// Labels that `group_left` takes from the other side.
    pub include: &'static [&'static str],
}

impl Match {
    fn random(rng: &mut StdRng, is_set: bool) -> Self {
        let keys: (bool, &'static [&'static str]) =
            one(rng, &[(false, &[]), (false, &[]), (true, &["host"]), (true, &["host", "disk"]), (false, &["disk"])]);
        let many =
            if is_set { Many::Neither } else { one(rng, &[Many::Neither, Many::Neither, Many::Left, Many::Right]) };
        let include: &'static [&'static str] = if many == Many::Neither { &[] } else { one(rng, &[&[], &["disk"]]) };
        // A label cannot be matched and taken.
        let include = if keys.0 && keys.1.contains(&"disk") { &[] } else { include };
        Self { keys, many, include }
    }

    fn text(&self) -> String {
        let (on, names) = self.keys;
        let many = match self.many {
            Many::Neither if !on && names.is_empty() => return String::new(),
            Many::Neither => String::new(),
            Many::Left => format!("group_left ({})", self.include.join(", ")),
            Many::Right => format!("group_right ({})", self.include.join(", ")),
        };
        format!("{} ({}) {many}", if on { "on" } else { "ignoring" }, names.join(", "))
    }

    /// Whether a label takes part in matching.
    pub fn matches_by(&self, name: &str) -> bool {
        let (on, names) = self.keys;
        if on { names.contains(&name) } else { name != METRIC_NAME && !names.contains(&name) }
    }
}

#[derive(Debug, Clone, Copy)]
pub enum Relabel {
    /// The digits of `host` as `disk`.
    Digits,
    /// `z-` and the disk as `zone`.
    Zone,
    /// No `disk` on one host.
    Drop,
    /// A name of its own for one host.
    Rename,
    /// Host and disk in one label.
    Join,
}

#[derive(Debug, Clone)]
pub struct Pick {
    name: &'static str,
    host: Option<(&'static str, &'static str)>,
    pub shift: Shift,
}

fn one<T: Copy>(rng: &mut StdRng, of: &[T]) -> T {
    of[rng.random_range(0..of.len())]
}

impl Pick {
    fn random(rng: &mut StdRng) -> Self {
        Self {
            name: one(rng, &["a_total", "a_total", "b_total", "b_total", ANY_NAME, "gone"]),
            host: one(rng, &[None, None, Some(("=", "h1")), Some(("!=", "h1")), Some(("=~", "h1|h2"))]),
            shift: Shift::random(rng),
        }
    }

    fn text(&self, range: &str) -> String {
        let host = self.host.map_or(String::new(), |(op, value)| format!("host{op}\"{value}\""));
        let name = match self.name {
            ANY_NAME => format!("{{__name__=~\"._total\",{host}}}"),
            name => format!("{name}{{{host}}}"),
        };
        format!("{name}{range}{}", self.shift.text())
    }

    pub fn takes(&self, labels: &Labels) -> bool {
        let host = labels.get("host").map_or("", |host| host);
        labels.get(METRIC_NAME).is_some_and(|name| match self.name {
            ANY_NAME => name.ends_with("_total"),
            name_wanted => **name == *name_wanted,
        }) && match self.host {
            None => true,
            Some(("=", value)) => host == value,
            Some(("!=", value)) => host != value,
            Some((_, values)) => values.split('|').any(|value| value == host),
        }
    }
}

const RANGES: [i64; 4] = [15_000, 60_000, 120_000, 400_000];
const QUANTILES: [f64; 6] = [-0.5, 0.0, 0.3, 0.5, 1.0, 1.5];

impl Query {
    pub fn random(rng: &mut StdRng, depth: usize) -> Self {
        let inner = |rng: &mut StdRng| Box::new(Self::random(rng, depth - 1));
        match rng.random_range(0..if depth == 0 { 3 } else { 17 }) {
            0 => Self::Select(Pick::random(rng)),
            1 => Self::Over(one(rng, OVER), Pick::random(rng), one(rng, &RANGES)),
            2 => Self::QuantileOver(one(rng, &QUANTILES), Pick::random(rng), one(rng, &RANGES)),
            3 | 4 => {
                let inner = inner(rng);
                let name = one(rng, OVER);
                let name = if inner.is_exact() || !JUMPY.contains(&name) { name } else { "delta" };
                Self::OverSteps(
                    name,
                    inner,
                    one(rng, &[30_000, 100_000]),
                    one(rng, &[7_000, 20_000]),
                    Shift::random(rng),
                )
            }
            5 | 6 => {
                let op = one(rng, &["sum", "avg", "min", "max", "count", "group", "stddev"]);
                Self::Aggregate(op, Grouping::random(rng), inner(rng))
            }
            7 => Self::Quantile(one(rng, &QUANTILES), Grouping::random(rng), inner(rng)),
            8 => Self::Top(one(rng, &["topk", "bottomk"]), one(rng, &[0, 1, 2, 9]), Grouping::random(rng), inner(rng)),
            9 => {
                let inner = inner(rng);
                let grouping = Grouping::random(rng);
                if inner.is_exact() {
                    Self::CountValues(grouping, inner)
                } else {
                    Self::Aggregate("sum", grouping, inner)
                }
            }
            10 => {
                let inner = inner(rng);
                let op = one(rng, OPS);
                let op = if inner.is_exact() || !COMPARISONS.contains(&op) { op } else { "*" };
                Self::Number(op, inner, one(rng, &[0.0, 1.0, 2.5, -3.0]))
            }
            11 | 12 => {
                let (left, right) = (inner(rng), inner(rng));
                let op = one(rng, PAIR_OPS);
                let exact = left.is_exact() && right.is_exact();
                let op = if exact || !COMPARISONS.contains(&op) { op } else { "-" };
                Self::Pair(op, Match::random(rng, is_set(op)), left, right)
            }
            13 => {
                let kinds = [Relabel::Digits, Relabel::Zone, Relabel::Drop, Relabel::Rename, Relabel::Join];
                Self::Relabel(one(rng, &kinds), inner(rng))
            }
            14 => Self::Abs(inner(rng)),
            15 => Self::Negative(inner(rng)),
            _ => {
                Self::OfHistograms(one(rng, &["histogram_count", "histogram_sum"]), Box::new(Self::histograms(rng, 2)))
            }
        }
    }

    /// What is linear in its histograms, so that count and sum of the result are that of counts and sums.
    fn histograms(rng: &mut StdRng, depth: usize) -> Self {
        let pick = Pick { name: "waits", ..Pick::random(rng) };
        match rng.random_range(0..if depth == 0 { 2 } else { 4 }) {
            0 => Self::Select(pick),
            1 => Self::Over(one(rng, &["sum_over_time", "avg_over_time", "last_over_time"]), pick, one(rng, &RANGES)),
            2 => {
                let op = one(rng, &["sum", "avg"]);
                Self::Aggregate(op, Grouping::random(rng), Box::new(Self::histograms(rng, depth - 1)))
            }
            _ => Self::Number("*", Box::new(Self::histograms(rng, depth - 1)), 2.5),
        }
    }

    /// Whether both evaluators give the very same bits: only then may a comparison or a jump hang on them.
    fn is_exact(&self) -> bool {
        const ROUGH: [&str; 7] = ["rate", "increase", "delta", "irate", "avg_over_time", "deriv", "sum_over_time"];
        match self {
            Self::Select(_) => true,
            Self::Over(name, ..) => !ROUGH.contains(name),
            Self::OverSteps(name, inner, ..) => !ROUGH.contains(name) && inner.is_exact(),
            Self::Aggregate(op, _, inner) => matches!(*op, "min" | "max" | "count" | "group") && inner.is_exact(),
            Self::Number(op, inner, _) => *op != "/" && inner.is_exact(),
            Self::Pair(op, _, left, right) => *op != "/" && left.is_exact() && right.is_exact(),
            Self::CountValues(_, inner) | Self::Relabel(_, inner) | Self::Abs(inner) | Self::Negative(inner) => {
                inner.is_exact()
            }
            Self::QuantileOver(..) | Self::Quantile(..) | Self::Top(..) | Self::OfHistograms(..) => false,
        }
    }

    pub fn text(&self) -> String {
        match self {
            Self::Select(pick) => pick.text(""),
            Self::Over(name, pick, range) => format!("{name}({})", pick.text(&format!("[{}s]", range / 1000))),
            Self::QuantileOver(q, pick, range) => {
                format!("quantile_over_time({q}, {})", pick.text(&format!("[{}s]", range / 1000)))
            }
            Self::OverSteps(name, inner, range, step, shift) => {
                format!("{name}(({})[{}s:{}s]{})", inner.text(), range / 1000, step / 1000, shift.text())
            }
            Self::Aggregate(op, grouping, inner) => format!("{op} {} ({})", grouping.text(), inner.text()),
            Self::Quantile(q, grouping, inner) => format!("quantile {} ({q}, {})", grouping.text(), inner.text()),
            Self::Top(op, count, grouping, inner) => {
                format!("sum {0} ({op} {0} ({count}, {1}))", grouping.text(), inner.text())
            }
            Self::CountValues(grouping, inner) => format!("count_values {} (\"v\", {})", grouping.text(), inner.text()),
            Self::Number(op, inner, number) => format!("({}) {op} {number}", inner.text()),
            Self::Pair(op, matching, left, right) => {
                format!("({}) {op} {} ({})", left.text(), matching.text(), right.text())
            }
            Self::Relabel(kind, inner) => {
                let inner = inner.text();
                match kind {
                    Relabel::Digits => format!("label_replace({inner}, \"disk\", \"$1\", \"host\", \"h(.*)\")"),
                    Relabel::Zone => format!("label_replace({inner}, \"zone\", \"z-$1\", \"disk\", \"(.*)\")"),
                    Relabel::Drop => format!("label_replace({inner}, \"disk\", \"\", \"host\", \"h1\")"),
                    Relabel::Rename => format!("label_replace({inner}, \"__name__\", \"c_total\", \"host\", \"h2\")"),
                    Relabel::Join => format!("label_join({inner}, \"both\", \"-\", \"host\", \"disk\")"),
                }
            }
            Self::Abs(inner) => format!("abs({})", inner.text()),
            Self::Negative(inner) => format!("-({})", inner.text()),
            Self::OfHistograms(name, inner) => format!("{name}({})", inner.text()),
        }
    }
}

pub fn is_set(op: &str) -> bool {
    matches!(op, "and" | "or" | "unless")
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
