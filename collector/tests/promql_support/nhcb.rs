//! `load_with_nhcb`: beside classic histograms also native ones with the same bounds, under the name without `_bucket`.

use std::collections::BTreeMap;

use lampad_collector::store::{Label, Labels, METRIC_NAME, Series};
use lampad_proto::v1::{BucketSpan, Histogram};

use super::memory::Memory;

/// Buckets by upper bound, count and sum at one time.
#[derive(Default)]
struct Parts {
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: Option<f64>,
}

/// Looks at the series of the load alone.
pub fn add(memory: &mut Memory, loaded: &[Labels]) {
    let mut all: BTreeMap<(Labels, i64), Parts> = BTreeMap::new();
    for series in memory.series.iter().filter(|series| loaded.contains(&series.labels)) {
        let Some(name) = series.labels.metric() else { continue };
        for ending in ["_bucket", "_count", "_sum"] {
            let Some(base) = name.strip_suffix(ending) else { continue };
            collect(series, base, ending, &mut all);
        }
    }
    // A lone `_sum` or `_count` is no histogram.
    let whole: Vec<_> = all.into_iter().filter(|(_, parts)| !parts.buckets.is_empty()).collect();
    for ((labels, at_ms), parts) in whole {
        memory.push_histogram(&labels, at_ms, native(parts));
    }
}

fn collect(series: &Series, base: &str, ending: &str, all: &mut BTreeMap<(Labels, i64), Parts>) {
    let kept = series.labels.iter().filter(|label| &*label.name != "le").map(|label| match &*label.name {
        METRIC_NAME => Label { name: label.name.clone(), value: base.into() },
        _ => label.clone(),
    });
    let labels = Labels::new(kept);
    let upper = series.labels.get("le").and_then(|le| le.parse().ok());
    for sample in series.floats.iter().filter(|sample| !lampad_proto::is_stale(sample.value)) {
        let parts = all.entry((labels.clone(), sample.timestamp_ms)).or_default();
        match (ending, upper) {
            ("_bucket", Some(upper)) => parts.buckets.push((upper, sample.value)),
            ("_count", _) => parts.count = Some(sample.value),
            ("_sum", _) => parts.sum = Some(sample.value),
            _ => {}
        }
    }
}

fn native(mut parts: Parts) -> Histogram {
    parts.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut before = 0.0;
    let counts: Vec<f64> =
        parts.buckets.iter().map(|(_, count)| count - std::mem::replace(&mut before, *count)).collect();
    let highest = parts.buckets.last().map_or(0.0, |(_, count)| *count);
    let mut counts = counts;
    let count = parts.count.unwrap_or(highest);
    if parts.buckets.last().is_some_and(|(upper, _)| upper.is_finite()) {
        counts.push(count - highest);
    }
    Histogram {
        is_float: true,
        schema: -53,
        count_float: count,
        sum: parts.sum.unwrap_or(0.0),
        custom_values: parts.buckets.iter().map(|(upper, _)| *upper).filter(|upper| upper.is_finite()).collect(),
        positive_spans: vec![BucketSpan { offset: 0, length: counts.len() as u32 }],
        positive_counts: counts,
        ..Histogram::default()
    }
}
