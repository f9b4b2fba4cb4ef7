//! Native histograms as queries compute with them: counts are floats, buckets are pairs of index and count.
//!
//! Source: [`lampad_proto::v1::Histogram`] as stored, with spans, and deltas where counts are integers.
//! Shape:  schemas -4 to 8 have bounds at powers of `2^(2^-schema)` and a zero bucket; schema -53 has bounds of its own.
//!         Buckets ascend by index. Empty ones stay as they were sent until a computation [compacts](Histogram::compact).

mod arithmetic;
mod bounds;
mod buckets;
mod estimate;
mod reset;
mod trim;

use std::sync::Arc;

use lampad_proto::v1::{self, BucketSpan};

pub use arithmetic::{Remarks, Total, WrongPair};
pub use buckets::{Bucket, exponential, short};
pub use estimate::Nans;
pub use trim::Keep;

/// Schema of histograms with bounds of their own.
pub const CUSTOM: i32 = -53;

/// What the writer says of counter resets before this sample.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Hint {
    #[default]
    Unknown,
    Reset,
    NoReset,
    Gauge,
}

/// Counts by index, ascending.
pub type Counts = Vec<(i32, f64)>;

#[derive(Debug, Clone, Default)]
pub struct Histogram {
    pub schema: i32,
    pub count: f64,
    pub sum: f64,
    pub zero_threshold: f64,
    pub zero_count: f64,
    pub positive: Counts,
    pub negative: Counts,
    /// Upper bounds of custom buckets, without the last, which is infinite.
    pub bounds: Arc<[f64]>,
    pub hint: Hint,
}

/// Equal in what it counts; hints do not matter.
impl PartialEq for Histogram {
    fn eq(&self, other: &Self) -> bool {
        let same = |a: f64, b: f64| a.to_bits() == b.to_bits();
        let counts =
            |a: &Counts, b: &Counts| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && same(a.1, b.1));
        self.schema == other.schema
            && same(self.count, other.count)
            && same(self.sum, other.sum)
            && (self.is_custom() || (self.zero_threshold == other.zero_threshold))
            && same(self.zero_count, other.zero_count)
            && counts(&self.positive, &other.positive)
            && counts(&self.negative, &other.negative)
            && self.bounds == other.bounds
    }
}

impl Histogram {
    pub fn new(stored: &v1::Histogram) -> Self {
        let counts = |spans: &[BucketSpan], deltas: &[i64], floats: &[f64]| match stored.is_float {
            true => spread(spans, floats.iter().copied()),
            false => spread(spans, running(deltas)),
        };
        let hint = match v1::ResetHint::try_from(stored.reset_hint) {
            Ok(v1::ResetHint::Yes) => Hint::Reset,
            Ok(v1::ResetHint::No) => Hint::NoReset,
            Ok(v1::ResetHint::Gauge) => Hint::Gauge,
            _ => Hint::Unknown,
        };
        let of = |float: f64, integer: u64| if stored.is_float { float } else { integer as f64 };
        Self {
            schema: stored.schema,
            count: of(stored.count_float, stored.count),
            sum: stored.sum,
            zero_threshold: stored.zero_threshold,
            zero_count: of(stored.zero_count_float, stored.zero_count),
            positive: counts(&stored.positive_spans, &stored.positive_deltas, &stored.positive_counts),
            negative: counts(&stored.negative_spans, &stored.negative_deltas, &stored.negative_counts),
            bounds: stored.custom_values.as_slice().into(),
            hint,
        }
    }

    pub fn is_custom(&self) -> bool {
        self.schema == CUSTOM
    }

    /// Memory that it takes.
    pub fn bytes(&self) -> u64 {
        let buckets = (self.positive.len() + self.negative.len()) * size_of::<(i32, f64)>();
        (size_of::<Self>() + buckets + self.bounds.len() * size_of::<f64>()) as u64
    }

    /// What a stored one takes at most once it is made into one of these.
    pub fn bytes_of(stored: &lampad_proto::v1::Histogram) -> u64 {
        let sides = [&stored.positive_deltas, &stored.negative_deltas].map(Vec::len);
        let float_sides = [&stored.positive_counts, &stored.negative_counts].map(Vec::len);
        let buckets: usize = sides.iter().chain(&float_sides).sum();
        let bounds = stored.custom_values.len() * size_of::<f64>();
        (size_of::<Self>() + buckets * size_of::<(i32, f64)>() + bounds) as u64
    }

    /// Drops empty buckets.
    pub fn compact(mut self) -> Self {
        self.positive.retain(|(_, count)| *count != 0.0);
        self.negative.retain(|(_, count)| *count != 0.0);
        self
    }

    /// The same with a lower resolution; neighbours fall together. A custom histogram stays as it is.
    pub fn to_schema(&self, schema: i32) -> Self {
        let mut reduced = self.clone();
        if schema >= self.schema || self.is_custom() {
            return reduced;
        }
        // Bounds are multiples of 2^-31 at the least, so that a shift of 31 puts everything on one side of 1.
        let shift = (self.schema - schema).min(31) as u32;
        let merged = |counts: &Counts| joined(counts.iter().map(|(index, n)| (((index - 1) >> shift) + 1, *n)));
        reduced.positive = merged(&self.positive);
        reduced.negative = merged(&self.negative);
        reduced.schema = schema;
        reduced
    }

    /// The same with fewer custom bounds, each of which it has.
    fn to_bounds(&self, bounds: &Arc<[f64]>) -> Self {
        let upper = |index: i32| self.bounds.get(index as usize).copied().unwrap_or(f64::INFINITY);
        let place = |index: i32| bounds.partition_point(|bound| *bound < upper(index)) as i32;
        let positive = joined(self.positive.iter().map(|(index, n)| (place(*index), *n)));
        Self { positive, bounds: bounds.clone(), ..self.clone() }
    }
}

/// Adds up neighbours with the same index.
fn joined(counts: impl Iterator<Item = (i32, f64)>) -> Counts {
    let mut out: Counts = Vec::new();
    for (index, count) in counts {
        match out.last_mut() {
            Some(last) if last.0 == index => last.1 += count,
            _ => out.push((index, count)),
        }
    }
    out
}

fn running(deltas: &[i64]) -> impl Iterator<Item = f64> + '_ {
    deltas.iter().scan(0i64, |count, delta| {
        *count = count.wrapping_add(*delta);
        Some(*count as f64)
    })
}

/// Gives each count its index. What has no span is left out: a writer's mistake, not ours to guess.
fn spread(spans: &[BucketSpan], mut counts: impl Iterator<Item = f64>) -> Counts {
    let mut out = Vec::new();
    let mut index = 0i32;
    for span in spans {
        index = index.saturating_add(span.offset);
        for _ in 0..span.length {
            let Some(count) = counts.next() else { return out };
            out.push((index, count));
            index = index.saturating_add(1);
        }
    }
    out
}
