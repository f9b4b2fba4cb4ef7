//! Native histograms in scripts: `{{schema:1 count:4 sum:5 buckets:[1 2 1]}}`, also as `{{..}}+{{..}}x5`.

use lampad_collector::query::{Bucket, Histogram as Counted};
use lampad_proto::v1::{BucketSpan, Histogram};

use super::script::close;

/// What stands between the braces.
#[derive(Debug, Clone, Default)]
pub struct Shape {
    schema: i32,
    count: f64,
    sum: f64,
    zero_count: f64,
    zero_width: f64,
    positive: Vec<f64>,
    positive_offset: i32,
    negative: Vec<f64>,
    negative_offset: i32,
    bounds: Vec<f64>,
    hint: i32,
}

/// All histograms of one word of a `load` line.
pub fn series(text: &str) -> Vec<Shape> {
    let (word, times) = match text.rsplit_once("}}x") {
        Some((_, times)) => (&text[..text.len() - times.len() - 1], times.parse().unwrap()),
        None => (text, 0),
    };
    let step = word.find("}}+{{").or_else(|| word.find("}}-{{")).map(|at| at + 2);
    let mut shape = Shape::read(&word[..step.unwrap_or(word.len())]);
    let mut all = vec![shape.clone()];
    for _ in 0..times {
        if let Some(at) = step {
            let sign = if word[at..].starts_with('-') { -1.0 } else { 1.0 };
            shape = shape.plus(&Shape::read(&word[at + 1..]), sign);
        }
        all.push(shape.clone());
    }
    all
}

fn number(text: &str) -> f64 {
    text.trim_start_matches('+').parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}

impl Shape {
    fn read(text: &str) -> Self {
        let inside = text.trim_start_matches("{{").trim_end_matches("}}");
        let mut shape = Self::default();
        let mut rest = inside.trim();
        while let Some((name, after)) = rest.split_once(':') {
            let (value, after) = match after.strip_prefix('[') {
                Some(list) => list.split_once(']').unwrap(),
                None => after.split_once(char::is_whitespace).unwrap_or((after, "")),
            };
            let list = || value.split_whitespace().map(number).collect::<Vec<_>>();
            match name {
                "schema" => shape.schema = value.parse().unwrap(),
                "count" => shape.count = number(value),
                "sum" => shape.sum = number(value),
                "z_bucket" => shape.zero_count = number(value),
                "z_bucket_w" => shape.zero_width = number(value),
                "buckets" => shape.positive = list(),
                "offset" => shape.positive_offset = value.parse().unwrap(),
                "n_buckets" => shape.negative = list(),
                "n_offset" => shape.negative_offset = value.parse().unwrap(),
                "custom_values" => shape.bounds = list(),
                "counter_reset_hint" => {
                    shape.hint =
                        ["unknown", "reset", "not_reset", "gauge"].iter().position(|hint| *hint == value).unwrap()
                            as i32;
                }
                other => panic!("{other:?} is unknown in a histogram"),
            }
            rest = after.trim_start();
        }
        shape
    }

    /// Scripts add histograms of the same layout only.
    fn plus(&self, other: &Self, sign: f64) -> Self {
        let add = |a: &[f64], b: &[f64]| {
            let at = |list: &[f64], index: usize| list.get(index).copied().unwrap_or(0.0);
            (0..a.len().max(b.len())).map(|index| at(a, index) + sign * at(b, index)).collect()
        };
        Self {
            count: self.count + sign * other.count,
            sum: self.sum + sign * other.sum,
            zero_count: self.zero_count + sign * other.zero_count,
            positive: add(&self.positive, &other.positive),
            negative: add(&self.negative, &other.negative),
            ..self.clone()
        }
    }

    pub fn stored(&self) -> Histogram {
        let spans = |offset: i32, counts: &[f64]| match counts.len() {
            0 => Vec::new(),
            length => vec![BucketSpan { offset, length: length as u32 }],
        };
        Histogram {
            is_float: true,
            count_float: self.count,
            sum: self.sum,
            schema: self.schema,
            zero_threshold: self.zero_width,
            zero_count_float: self.zero_count,
            positive_spans: spans(self.positive_offset, &self.positive),
            positive_counts: self.positive.clone(),
            negative_spans: spans(self.negative_offset, &self.negative),
            negative_counts: self.negative.clone(),
            custom_values: self.bounds.clone(),
            reset_hint: self.hint,
            ..Histogram::default()
        }
    }
}

/// The same schema, count and sum, and the same buckets where there is anything in them.
pub fn alike(a: &Counted, b: &Counted) -> bool {
    let buckets = |histogram: &Counted| -> Vec<Bucket> {
        histogram.buckets().into_iter().filter(|bucket| bucket.count != 0.0).collect()
    };
    let (of_a, of_b) = (buckets(a), buckets(b));
    a.schema == b.schema
        && close(a.count, b.count)
        && close(a.sum, b.sum)
        && a.bounds == b.bounds
        && of_a.len() == of_b.len()
        && of_a
            .iter()
            .zip(&of_b)
            .all(|(a, b)| close(a.lower, b.lower) && close(a.upper, b.upper) && close(a.count, b.count))
}
