//! An evaluator that is slow and plain: step by step, sample by sample, no columns.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use lampad_collector::store::{Label, Labels, METRIC_NAME, Sample, Series};

use super::memory::Memory;
use super::query::{Grouping, Many, Match, Query, Relabel, is_set};

pub const LOOKBACK_MS: i64 = 300_000;

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
    at(query, &memory.series, at_ms)
}

fn at(query: &Query, all: &[Series], at_ms: i64) -> Result<Vector, Clash> {
    let mut out = Vector::new();
    match query {
        Query::Select(pick) => {
            let end = pick.shift.end(at_ms);
            for series in all.iter().filter(|series| pick.takes(&series.labels)) {
                let last = series.floats.iter().rfind(|s| s.timestamp_ms <= end);
                let live = last.filter(|s| s.timestamp_ms > end - LOOKBACK_MS && !lampad_proto::is_stale(s.value));
                if let Some(sample) = live {
                    put(&mut out, series.labels.clone(), sample.value)?;
                }
            }
        }
        Query::Over(name, pick, range_ms) => {
            let end = pick.shift.end(at_ms);
            for series in all.iter().filter(|series| pick.takes(&series.labels)) {
                let inside = |s: &Sample| s.timestamp_ms > end - range_ms && s.timestamp_ms <= end;
                let live = series.floats.iter().filter(inside).filter(|s| !lampad_proto::is_stale(s.value));
                let samples: Vec<_> = live.collect();
                over(name, &series.labels, &samples, end - range_ms, end, &mut out)?;
            }
        }
        Query::QuantileOver(q, pick, range_ms) => {
            let end = pick.shift.end(at_ms);
            for series in all.iter().filter(|series| pick.takes(&series.labels)) {
                let inside = |s: &Sample| s.timestamp_ms > end - range_ms && s.timestamp_ms <= end;
                let live = series.floats.iter().filter(inside).filter(|s| !lampad_proto::is_stale(s.value));
                let values: Vec<f64> = live.map(|sample| sample.value).collect();
                if !values.is_empty() {
                    put(&mut out, nameless(&series.labels), quantile(*q, values))?;
                }
            }
        }
        Query::OverSteps(name, inner, range_ms, step_ms, shift) => {
            let at_ms = shift.end(at_ms);
            let mut found: BTreeMap<Labels, Vec<Sample>> = BTreeMap::new();
            let mut time = (at_ms - range_ms) - (at_ms - range_ms).rem_euclid(*step_ms);
            while time <= at_ms {
                if time > at_ms - range_ms {
                    for (labels, value) in at(inner, all, time)? {
                        found.entry(labels).or_default().push(Sample { timestamp_ms: time, value });
                    }
                }
                time += step_ms;
            }
            for (labels, samples) in found {
                over(name, &labels, &samples, at_ms - range_ms, at_ms, &mut out)?;
            }
        }
        Query::Aggregate(op, grouping, inner) => {
            for (labels, values) in grouped(at(inner, all, at_ms)?, grouping) {
                put(&mut out, labels, sum(op, &values))?;
            }
        }
        Query::Quantile(q, grouping, inner) => {
            for (labels, values) in grouped(at(inner, all, at_ms)?, grouping) {
                put(&mut out, labels, quantile(*q, values))?;
            }
        }
        Query::Top(op, count, grouping, inner) => {
            for (labels, mut values) in grouped(at(inner, all, at_ms)?, grouping) {
                let order = |a: &f64, b: &f64| {
                    let by_value = a.partial_cmp(b).unwrap_or(Ordering::Equal);
                    let by_value = if *op == "topk" { by_value.reverse() } else { by_value };
                    a.is_nan().cmp(&b.is_nan()).then(by_value)
                };
                values.sort_by(order);
                values.truncate(*count);
                if !values.is_empty() {
                    put(&mut out, labels, sum("sum", &values))?;
                }
            }
        }
        Query::CountValues(grouping, inner) => {
            for (labels, values) in grouped(at(inner, all, at_ms)?, grouping) {
                for value in values {
                    let label = Label { name: "v".into(), value: written(value).into() };
                    let labels = Labels::new(labels.iter().cloned().chain([label]));
                    *out.entry(labels).or_default() += 1.0;
                }
            }
        }
        Query::Number(op, inner, number) => {
            for (labels, value) in at(inner, all, at_ms)? {
                match compute(op, value, *number) {
                    Outcome::Value(value) => put(&mut out, nameless(&labels), value)?,
                    Outcome::Kept(true) => put(&mut out, labels, value)?,
                    Outcome::Kept(false) => {}
                }
            }
        }
        Query::Pair(op, matching, left, right) => {
            let (left, right) = (at(left, all, at_ms)?, at(right, all, at_ms)?);
            match is_set(op) {
                true => set(op, matching, &left, &right, &mut out)?,
                false => pair(op, matching, &left, &right, &mut out)?,
            }
        }
        Query::Relabel(kind, inner) => {
            for (labels, value) in at(inner, all, at_ms)? {
                put(&mut out, relabelled(*kind, &labels), value)?;
            }
        }
        Query::Negative(inner) => {
            for (labels, value) in at(inner, all, at_ms)? {
                put(&mut out, nameless(&labels), -value)?;
            }
        }
        Query::OfHistograms(name, inner) => {
            let numbers: Vec<Series> = all.iter().map(|series| part(name, series)).collect();
            for (labels, value) in at(inner, &numbers, at_ms)? {
                put(&mut out, nameless(&labels), value)?;
            }
        }
        Query::Abs(inner) => {
            for (labels, value) in at(inner, all, at_ms)? {
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

fn grouped(vector: Vector, grouping: &Grouping) -> BTreeMap<Labels, Vec<f64>> {
    let mut groups: BTreeMap<Labels, Vec<f64>> = BTreeMap::new();
    for (labels, value) in vector {
        groups.entry(keep(&labels, |name| grouping.keeps(name))).or_default().push(value);
    }
    groups
}

/// Of a series of histograms the counts or the sums, as a series of numbers.
fn part(name: &str, series: &Series) -> Series {
    let floats = series.histograms.iter().map(|(timestamp_ms, histogram)| Sample {
        timestamp_ms: *timestamp_ms,
        value: match name {
            _ if lampad_proto::is_stale(histogram.sum) => histogram.sum,
            "histogram_count" => histogram.count as f64,
            _ => histogram.sum,
        },
    });
    Series { labels: series.labels.clone(), floats: floats.collect(), histograms: Vec::new() }
}

fn relabelled(kind: Relabel, labels: &Labels) -> Labels {
    let of = |name: &str| labels.get(name).map_or("", |value| value).to_owned();
    let (host, disk) = (of("host"), of("disk"));
    let (name, value) = match kind {
        Relabel::Digits => match host.strip_prefix('h') {
            Some(digits) => ("disk", digits.to_owned()),
            None => return labels.clone(),
        },
        Relabel::Zone => ("zone", format!("z-{disk}")),
        Relabel::Drop if host == "h1" => ("disk", String::new()),
        Relabel::Rename if host == "h2" => (METRIC_NAME, "c_total".to_owned()),
        Relabel::Drop | Relabel::Rename => return labels.clone(),
        Relabel::Join => ("both", format!("{host}-{disk}")),
    };
    with(labels, name, &value)
}

/// Sets a label; an empty value takes it away.
fn with(labels: &Labels, name: &str, value: &str) -> Labels {
    let others = labels.iter().filter(|label| *label.name != *name).cloned();
    Labels::new(others.chain([Label { name: name.into(), value: value.into() }]))
}

fn written(value: f64) -> String {
    match value {
        value if value == f64::INFINITY => "+Inf".to_owned(),
        value if value == f64::NEG_INFINITY => "-Inf".to_owned(),
        value => value.to_string(),
    }
}

/// Between the two nearest ranks; NaN counts as smallest.
fn quantile(q: f64, mut values: Vec<f64>) -> f64 {
    values.sort_by(|a, b| b.is_nan().cmp(&a.is_nan()).then(a.partial_cmp(b).unwrap_or(Ordering::Equal)));
    if !(0.0..=1.0).contains(&q) {
        return if q < 0.0 { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    let rank = q * (values.len() - 1) as f64;
    let (low, weight) = (rank.floor() as usize, rank - rank.floor());
    values[low] * (1.0 - weight) + values[(low + 1).min(values.len() - 1)] * weight
}

fn set(op: &str, matching: &Match, left: &Vector, right: &Vector, out: &mut Vector) -> Result<(), Clash> {
    let key = |labels: &Labels| keep(labels, |name| matching.matches_by(name));
    let among = |side: &Vector, labels: &Labels| side.keys().any(|other| key(other) == key(labels));
    for (labels, value) in left.iter().filter(|(labels, _)| op == "or" || among(right, labels) == (op == "and")) {
        put(out, labels.clone(), *value)?;
    }
    for (labels, value) in right.iter().filter(|(labels, _)| op == "or" && !among(left, labels)) {
        put(out, labels.clone(), *value)?;
    }
    Ok(())
}

fn pair(op: &str, matching: &Match, left: &Vector, right: &Vector, out: &mut Vector) -> Result<(), Clash> {
    if left.is_empty() || right.is_empty() {
        return Ok(());
    }
    let key = |labels: &Labels| keep(labels, |name| matching.matches_by(name));
    let (many, one) = if matching.many == Many::Right { (right, left) } else { (left, right) };
    if one.keys().any(|labels| one.keys().filter(|other| key(other) == key(labels)).count() > 1) {
        return Err(Clash);
    }
    let mut taken = Vec::new();
    for (labels, value) in many {
        let Some((other_labels, other)) = one.iter().find(|(other, _)| key(other) == key(labels)) else { continue };
        // One sample for each match, even where a comparison would leave only one.
        if matching.many == Many::Neither {
            if taken.contains(&key(labels)) {
                return Err(Clash);
            }
            taken.push(key(labels));
        }
        let (l, r) = if matching.many == Many::Right { (*other, *value) } else { (*value, *other) };
        let (value, named) = match compute(op, l, r) {
            Outcome::Value(value) => (value, false),
            Outcome::Kept(true) => (l, true),
            Outcome::Kept(false) => continue,
        };
        let labels = if named { labels.clone() } else { nameless(labels) };
        let labels = match matching.many {
            Many::Neither => {
                let (on, names) = matching.keys;
                keep(&labels, |name| if on { names.contains(&name) } else { !names.contains(&name) })
            }
            Many::Left | Many::Right => matching
                .include
                .iter()
                .fold(labels, |labels, name| with(&labels, name, other_labels.get(name).map_or("", |value| value))),
        };
        put(out, labels, value)?;
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
