//! The table of functions. A row names a function, what it returns, and how its cells come about.

pub mod cell;
mod date;
pub mod edges;
pub mod histogram;
pub mod kahan;
pub mod label;
mod mixed;
mod over_time;
mod rate;
mod regression;
mod windows;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use crate::store::Sample;

use super::exec::Here;
use super::histogram::Histogram;
use super::plan::Kind;
use super::value::Cell;

pub use over_time::quantile;
pub use rate::Extrapolation;
pub use windows::{OverWindows, Stretch, over_windows, overflows};

/// The samples of one series that one step looks at, and where the window lies.
pub struct Window<'a> {
    /// At least one, ascending, within `(from_ms, to_ms]`.
    pub times: &'a [i64],
    /// One for each of the times; for whoever works on changes, one for each stretch of equal ones.
    pub values: &'a [f64],
    pub from_ms: i64,
    pub to_ms: i64,
    /// The step that is evaluated; differs from `to_ms` by `offset` and `@`.
    pub step_ms: i64,
    /// The scalar arguments at this step, in order.
    pub args: &'a [f64],
    /// Known to hold no sample that is lower than the one before: a counter without a reset. False where nobody looked.
    pub grows: bool,
    /// Of this series.
    pub extrapolation: &'a Extrapolation,
}

impl<'a> Window<'a> {
    pub fn samples(&self) -> impl Iterator<Item = Sample> + use<'a> {
        self.times.iter().zip(self.values).map(|(at_ms, value)| Sample { timestamp_ms: *at_ms, value: *value })
    }
}

/// A window of a series that has histograms, with or without numbers among them.
pub struct Mixed<'a> {
    /// May be empty here.
    pub floats: Window<'a>,
    pub histograms: &'a [(i64, Arc<Histogram>)],
    /// Name of the metric, for remarks.
    pub metric: &'a str,
    pub here: Here<'a>,
}

/// Makes a cell from numbers.
pub type Floats = fn(&Window<'_>) -> Option<f64>;
/// Makes a cell from histograms, or from a mix.
pub type Histograms = fn(&Mixed<'_>) -> Option<Cell>;

/// How a function makes its cells.
#[derive(Clone, Copy)]
pub enum Body {
    /// From each cell by itself and the scalar arguments.
    Cell(fn(f64, &[f64]) -> f64),
    /// From each cell as seconds since 1970; without argument from the step's time.
    Date(fn(f64) -> f64),
    /// From the samples in a range; `None` gives no sample.
    Window(Floats),
    /// As `Window`, and a body for series with histograms.
    Both(Floats, Histograms),
    /// Looks at labels, at several series or at the query itself; `exec` tells how.
    Special(Special),
}

#[derive(Debug, Clone, Copy)]
pub enum Special {
    Absent,
    AbsentOverTime,
    Clamp,
    End,
    HistogramFraction,
    /// A number of each histogram.
    HistogramOnly(fn(&Histogram) -> f64),
    HistogramQuantile,
    /// Several quantiles at once, each with a label.
    HistogramQuantiles,
    Info,
    LabelJoin,
    LabelReplace,
    MaxOf,
    MinOf,
    Pi,
    Range,
    Scalar,
    Sort,
    SortByLabel,
    SortByLabelDesc,
    SortDesc,
    Start,
    Step,
    Time,
    Timestamp,
    Vector,
}

pub struct Function {
    pub name: &'static str,
    pub body: Body,
    pub experimental: bool,
    /// Its arguments, see [`Takes`].
    takes: &'static str,
}

/// Arguments of a function, written as one letter each: `v` vector, `m` range, `s` scalar, `t` string; `?` after the last
/// means that it may be left out, `*` that it may come any number of times or not at all, a digit how often it may come.
#[derive(Debug, Clone)]
pub struct Takes {
    pub kinds: Vec<Kind>,
    pub least: usize,
    pub most: Option<usize>,
    /// As Prometheus counts them: how many may be left out or added; -1 for any number.
    pub variadic: i32,
}

impl Takes {
    fn read(text: &str) -> Self {
        let kinds: Vec<Kind> = text
            .chars()
            .filter_map(|letter| match letter {
                'v' => Some(Kind::Vector),
                'm' => Some(Kind::Matrix),
                's' => Some(Kind::Scalar),
                't' => Some(Kind::Text),
                _ => None,
            })
            .collect();
        let count = kinds.len();
        let (least, most, variadic) = match text.chars().last() {
            Some('?') => (count - 1, Some(count), 1),
            Some('*') => (count - 1, None, -1),
            Some(digit) if digit.is_ascii_digit() => {
                let more = digit as usize - '0' as usize;
                (count - 1, Some(count - 1 + more), more as i32)
            }
            _ => (count, Some(count), 0),
        };
        Self { kinds, least, most, variadic }
    }

    /// Of the argument at this place; the last one repeats.
    pub fn kind(&self, at: usize) -> Kind {
        self.kinds.get(at).or(self.kinds.last()).copied().unwrap_or(Kind::Scalar)
    }
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Function {
    pub fn returns(&self) -> Kind {
        use Special::*;
        match self.body {
            Body::Special(Pi | Scalar | Time | Start | End | Step | Range | MinOf | MaxOf) => Kind::Scalar,
            _ => Kind::Vector,
        }
    }

    pub fn takes(&self) -> Takes {
        Takes::read(self.takes)
    }

    /// Its result is the same from one value for each stretch of equal ones as from all: no stretch need be spread out. Sums
    /// are rounded sample by sample, as Prometheus rounds them.
    pub fn works_on_changes(&self) -> bool {
        matches!(
            self.name,
            "changes"
                | "count_over_time"
                | "delta"
                | "first_over_time"
                | "increase"
                | "last_over_time"
                | "max_over_time"
                | "min_over_time"
                | "present_over_time"
                | "rate"
                | "resets"
        )
    }

    /// `last_over_time` and `first_over_time` hand out samples as they are.
    pub fn keeps_name(&self) -> bool {
        matches!(self.name, "last_over_time" | "first_over_time")
    }

    /// Whether its result says something only of counters.
    pub fn wants_counter(&self) -> bool {
        matches!(self.name, "rate" | "increase")
    }
}

pub fn lookup(name: &str) -> Option<&'static Function> {
    static BY_NAME: LazyLock<HashMap<&'static str, &'static Function>> =
        LazyLock::new(|| FUNCTIONS.iter().map(|function| (function.name, function)).collect());
    BY_NAME.get(name).copied()
}

const fn cell(name: &'static str, body: fn(f64, &[f64]) -> f64) -> Function {
    Function { name, body: Body::Cell(body), experimental: false, takes: "v" }
}

const fn date(name: &'static str, body: fn(f64) -> f64) -> Function {
    Function { name, body: Body::Date(body), experimental: false, takes: "v?" }
}

const fn window(name: &'static str, body: Floats) -> Function {
    Function { name, body: Body::Window(body), experimental: false, takes: "m" }
}

const fn both(name: &'static str, floats: Floats, mixed: Histograms) -> Function {
    Function { name, body: Body::Both(floats, mixed), experimental: false, takes: "m" }
}

const fn special(name: &'static str, body: Special) -> Function {
    Function { name, body: Body::Special(body), experimental: false, takes: "v" }
}

const fn takes(mut function: Function, takes: &'static str) -> Function {
    function.takes = takes;
    function
}

const fn experimental(mut function: Function) -> Function {
    function.experimental = true;
    function
}

static FUNCTIONS: &[Function] = &[
    cell("abs", |v, _| v.abs()),
    cell("acos", |v, _| v.acos()),
    cell("acosh", |v, _| v.acosh()),
    cell("asin", |v, _| v.asin()),
    cell("asinh", |v, _| v.asinh()),
    cell("atan", |v, _| v.atan()),
    cell("atanh", |v, _| v.atanh()),
    cell("ceil", |v, _| v.ceil()),
    takes(cell("clamp_max", |v, args| cell::min(v, args[0])), "vs"),
    takes(cell("clamp_min", |v, args| cell::max(v, args[0])), "vs"),
    cell("cos", |v, _| v.cos()),
    cell("cosh", |v, _| v.cosh()),
    cell("deg", |v, _| v * 180.0 / std::f64::consts::PI),
    cell("exp", |v, _| v.exp()),
    cell("floor", |v, _| v.floor()),
    cell("ln", |v, _| v.ln()),
    cell("log10", |v, _| v.log10()),
    cell("log2", |v, _| v.log2()),
    cell("rad", |v, _| v * std::f64::consts::PI / 180.0),
    takes(cell("round", cell::round), "vs?"),
    cell("sgn", cell::sign),
    cell("sin", |v, _| v.sin()),
    cell("sinh", |v, _| v.sinh()),
    cell("sqrt", |v, _| v.sqrt()),
    cell("tan", |v, _| v.tan()),
    cell("tanh", |v, _| v.tanh()),
    date("day_of_month", date::day_of_month),
    date("day_of_week", date::day_of_week),
    date("day_of_year", date::day_of_year),
    date("days_in_month", date::days_in_month),
    date("hour", date::hour),
    date("minute", date::minute),
    date("month", date::month),
    date("year", date::year),
    both("avg_over_time", over_time::avg, mixed::avg),
    both("changes", over_time::changes, mixed::changes),
    both("count_over_time", |w| Some(w.times.len() as f64), mixed::count),
    both("delta", rate::delta, mixed::delta),
    window("deriv", regression::deriv),
    experimental(takes(window("double_exponential_smoothing", over_time::smooth), "mss")),
    experimental(both("first_over_time", |w| w.values.first().copied(), mixed::first)),
    both("idelta", rate::idelta, mixed::idelta),
    both("increase", rate::increase, mixed::increase),
    both("irate", rate::irate, mixed::irate),
    both("last_over_time", |w| w.values.last().copied(), mixed::last),
    experimental(window("mad_over_time", over_time::mad)),
    window("max_over_time", over_time::max),
    window("min_over_time", over_time::min),
    takes(window("predict_linear", regression::predict), "ms"),
    both("present_over_time", |_| Some(1.0), |_| Some(Cell::Float(1.0))),
    takes(window("quantile_over_time", over_time::quantile_over_time), "sm"),
    both("rate", rate::rate, mixed::rate),
    both("resets", over_time::resets, mixed::resets),
    window("stddev_over_time", |w| over_time::variance(w).map(f64::sqrt)),
    window("stdvar_over_time", over_time::variance),
    both("sum_over_time", over_time::sum, mixed::sum),
    experimental(both(
        "ts_of_first_over_time",
        |w| w.times.first().copied().map(over_time::seconds),
        mixed::time_of_first,
    )),
    experimental(both(
        "ts_of_last_over_time",
        |w| w.times.last().copied().map(over_time::seconds),
        mixed::time_of_last,
    )),
    experimental(window("ts_of_max_over_time", over_time::ts_of_max)),
    experimental(window("ts_of_min_over_time", over_time::ts_of_min)),
    special("absent", Special::Absent),
    takes(special("absent_over_time", Special::AbsentOverTime), "m"),
    takes(special("clamp", Special::Clamp), "vss"),
    experimental(takes(special("end", Special::End), "")),
    special("histogram_avg", Special::HistogramOnly(Histogram::mean)),
    special("histogram_count", Special::HistogramOnly(|h| h.count)),
    takes(special("histogram_fraction", Special::HistogramFraction), "ssv"),
    takes(special("histogram_quantile", Special::HistogramQuantile), "sv"),
    experimental(takes(special("histogram_quantiles", Special::HistogramQuantiles), "vtss9")),
    special("histogram_stddev", Special::HistogramOnly(|h| h.variance().sqrt())),
    special("histogram_stdvar", Special::HistogramOnly(Histogram::variance)),
    special("histogram_sum", Special::HistogramOnly(|h| h.sum)),
    experimental(takes(special("info", Special::Info), "vv?")),
    takes(special("label_join", Special::LabelJoin), "vttt*"),
    takes(special("label_replace", Special::LabelReplace), "vtttt"),
    experimental(takes(special("max_of", Special::MaxOf), "ss")),
    experimental(takes(special("min_of", Special::MinOf), "ss")),
    takes(special("pi", Special::Pi), ""),
    experimental(takes(special("range", Special::Range), "")),
    special("scalar", Special::Scalar),
    special("sort", Special::Sort),
    experimental(takes(special("sort_by_label", Special::SortByLabel), "vt*")),
    experimental(takes(special("sort_by_label_desc", Special::SortByLabelDesc), "vt*")),
    special("sort_desc", Special::SortDesc),
    experimental(takes(special("start", Special::Start), "")),
    experimental(takes(special("step", Special::Step), "")),
    takes(special("time", Special::Time), ""),
    special("timestamp", Special::Timestamp),
    takes(special("vector", Special::Vector), "s"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_there_once() {
        let mut names: Vec<_> = FUNCTIONS.iter().map(|function| function.name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(lookup("rate").is_some() && lookup("no_such_function").is_none());
    }
}
