//! Quantiles and fractions of classic histograms: buckets as cumulative counts by upper bound (`le`).

/// One bucket: how many observations were at most `upper`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    pub upper: f64,
    pub count: f64,
}

/// A drop between neighbours smaller than this part of the count is rounding, not an error of the data.
const SMALL_DELTA: f64 = 1e-12;

/// Real drops from one bucket to the next, which were mended: bounds of the buckets, and by how much at the most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fix {
    pub lowest: f64,
    pub highest: f64,
    pub most: f64,
}

/// Sorts, joins equal bounds, and makes counts grow. `None` without an `+Inf` bucket.
fn prepared(mut buckets: Vec<Bucket>) -> Option<(Vec<Bucket>, Option<Fix>)> {
    buckets.sort_by(|a, b| a.upper.total_cmp(&b.upper));
    if buckets.last()?.upper != f64::INFINITY {
        return None;
    }
    buckets.dedup_by(|later, kept| {
        let same = later.upper == kept.upper;
        if same {
            kept.count += later.count;
        }
        same
    });
    let mut fixed: Option<Fix> = None;
    let mut before = buckets[0].count;
    for bucket in &mut buckets[1..] {
        if bucket.count == before {
            continue;
        }
        if nearly_equal(before, bucket.count) {
            bucket.count = before;
        } else if bucket.count < before {
            let upper = bucket.upper;
            let fix = fixed.get_or_insert(Fix { lowest: upper, highest: upper, most: 0.0 });
            *fix = Fix { highest: upper, most: fix.most.max(before - bucket.count), ..*fix };
            bucket.count = before;
        }
        before = bucket.count;
    }
    Some((buckets, fixed))
}

fn nearly_equal(a: f64, b: f64) -> bool {
    let sum = a.abs() + b.abs();
    let difference = (a - b).abs();
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < SMALL_DELTA * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < SMALL_DELTA
}

/// The quantile, interpolated linearly within its bucket, and whether counts had to be mended.
pub fn quantile(q: f64, buckets: Vec<Bucket>) -> (f64, Option<Fix>) {
    if q.is_nan() {
        return (f64::NAN, None);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    let Some((buckets, fixed)) = prepared(buckets) else { return (f64::NAN, None) };
    let observations = buckets[buckets.len() - 1].count;
    if buckets.len() < 2 || observations == 0.0 {
        return (f64::NAN, None);
    }
    let mut rank = q * observations;
    let last = buckets.len() - 1;
    let at = first_with(last, |at| buckets[at].count >= rank);
    if at == last {
        return (buckets[last - 1].upper, fixed);
    }
    if at == 0 && buckets[0].upper <= 0.0 {
        return (buckets[0].upper, fixed);
    }
    let end = buckets[at].upper;
    let mut start = 0.0;
    let mut count = buckets[at].count;
    if at > 0 {
        start = buckets[at - 1].upper;
        count -= buckets[at - 1].count;
        rank -= buckets[at - 1].count;
    }
    (start + (end - start) * (rank / count), fixed)
}

/// The first of `0..count` that `meets`, halving the rest at each step; `count` where none does. NaN meets nothing, and leaves
/// no order among its neighbours: which of them is found depends on which are looked at, so that is as it is in Go.
fn first_with(count: usize, meets: impl Fn(usize) -> bool) -> usize {
    let (mut from, mut to) = (0, count);
    while from < to {
        let middle = from + (to - from) / 2;
        if meets(middle) {
            to = middle;
        } else {
            from = middle + 1;
        }
    }
    from
}

/// Which part of the observations lies between `lower` and `upper`.
pub fn fraction(lower: f64, upper: f64, buckets: Vec<Bucket>) -> (f64, Option<Fix>) {
    let Some((buckets, fixed)) = prepared(buckets) else { return (f64::NAN, None) };
    let count = buckets[buckets.len() - 1].count;
    if count == 0.0 || count.is_nan() || lower.is_nan() || upper.is_nan() {
        return (f64::NAN, None);
    }
    if lower >= upper {
        return (0.0, fixed);
    }
    let rank_of = |bound: f64| rank_of(bound, &buckets).min(count);
    ((rank_of(upper) - rank_of(lower)) / count, fixed)
}

/// How many observations are below `bound`.
fn rank_of(bound: f64, buckets: &[Bucket]) -> f64 {
    let mut rank = 0.0;
    let mut start = if buckets[0].upper > 0.0 { 0.0 } else { f64::NEG_INFINITY };
    for bucket in buckets {
        if bound <= start {
            return rank;
        }
        if bound < bucket.upper {
            return match (start.is_infinite(), bucket.upper.is_infinite()) {
                (true, _) => bucket.count,
                (false, true) => rank,
                (false, false) => rank + (bucket.count - rank) * (bound - start) / (bucket.upper - start),
            };
        }
        rank = bucket.count;
        start = bucket.upper;
    }
    rank
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(pairs: &[(f64, f64)]) -> Vec<Bucket> {
        pairs.iter().map(|&(upper, count)| Bucket { upper, count }).collect()
    }

    #[test]
    fn quantiles_interpolate_and_mend() {
        let plain = buckets(&[(1.0, 10.0), (2.0, 30.0), (f64::INFINITY, 40.0)]);
        assert_eq!(quantile(0.5, plain.clone()), (1.5, None));
        assert_eq!(quantile(1.0, plain), (2.0, None));
        let broken = buckets(&[(1.0, 10.0), (2.0, 5.0), (f64::INFINITY, 40.0)]);
        assert_eq!(quantile(0.1, broken).1, Some(Fix { lowest: 2.0, highest: 2.0, most: 5.0 }));
        assert!(quantile(0.5, buckets(&[(1.0, 10.0)])).0.is_nan());
        let unknown = buckets(&[(1.0, f64::NAN), (2.0, f64::NAN), (f64::INFINITY, f64::NAN)]);
        assert_eq!(quantile(0.9, unknown).0, 2.0);
    }
}
