//! The form of what is pushed, by the limits: labels, names and histograms, each refused alone.

use lampad_proto::v1;

use crate::limits::Limits;

impl Limits {
    /// Whether a label may be stored, by its form and size alone.
    pub fn label(&self, name: &str, value: &str) -> Result<(), String> {
        if name.is_empty() {
            return Err(format!("a label without a name (its value is {:?}); name it or leave it out", cut(value)));
        }
        if name == crate::store::METRIC_NAME {
            return Err("label __name__ is the metric's name; send it as such".into());
        }
        self.bytes("name of label", name, name.len(), self.label_name_bytes)?;
        self.bytes("value of label", name, value.len(), self.label_value_bytes)
    }

    /// Whether a metric may have this name.
    pub fn metric(&self, name: &str) -> Result<(), String> {
        if name.is_empty() {
            return Err("a series without a metric name; give it one".into());
        }
        self.bytes("metric name", name, name.len(), self.label_value_bytes)
    }

    /// Whether a series may have so many labels.
    pub fn label_count(&self, metric: &str, count: usize) -> Result<(), String> {
        if count > self.labels_per_series {
            let most = self.labels_per_series;
            return Err(format!("{} has {count} labels, at most {most} are taken; drop some", cut(metric)));
        }
        Ok(())
    }

    /// A help text or unit, as long as a label's value may be: nobody misses the rest, and every series is stored with its own.
    pub fn described<'a>(&self, text: &'a str) -> &'a str {
        cut_to(text, self.label_value_bytes)
    }

    fn bytes(&self, what: &str, name: &str, bytes: usize, most: usize) -> Result<(), String> {
        if bytes > most {
            return Err(format!("{what} {} is {bytes} bytes long, at most {most} are taken; shorten it", cut(name)));
        }
        Ok(())
    }

    /// Whether the fields of a native histogram fit together.
    pub fn histogram(&self, histogram: &v1::Histogram) -> Result<(), String> {
        if !matches!(histogram.schema, -53 | -4..=8) {
            return Err(format!("histogram schema {} is unknown; use -4 to 8, or -53", histogram.schema));
        }
        let sides = [
            ("positive", &histogram.positive_spans, histogram.positive_deltas.len(), histogram.positive_counts.len()),
            ("negative", &histogram.negative_spans, histogram.negative_deltas.len(), histogram.negative_counts.len()),
        ];
        for (side, spans, deltas, counts) in sides {
            let spanned: u64 = spans.iter().map(|span| u64::from(span.length)).sum();
            let (buckets, others) = if histogram.is_float { (counts, deltas) } else { (deltas, counts) };
            if spanned != buckets as u64 || others != 0 {
                return Err(format!("histogram: {side} spans name {spanned} buckets, {buckets} are there"));
            }
            // Spans are counted too: empty ones have no bucket and take room all the same.
            let (most, parts) = (self.histogram_buckets, buckets.max(spans.len()));
            if parts > most {
                return Err(format!("histogram: {parts} {side} buckets or spans, at most {most} are taken"));
            }
            // Every bucket's index must be a number that fits: an overflow there would surface in queries.
            let reach: i64 = spans.iter().map(|span| i64::from(span.offset).abs() + i64::from(span.length)).sum();
            if reach > i64::from(i32::MAX) {
                return Err(format!("histogram: {side} spans reach beyond any bucket"));
            }
        }
        if histogram.custom_values.len() > self.histogram_buckets {
            return Err("histogram: too many custom bounds".into());
        }
        Ok(())
    }
}

/// The beginning of a text from outside, short enough for a message.
pub fn cut(text: &str) -> &str {
    const SHOWN_BYTES: usize = 80;
    cut_to(text, SHOWN_BYTES)
}

fn cut_to(text: &str, most: usize) -> &str {
    if text.len() <= most {
        return text;
    }
    let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_over_a_limit_are_named() {
        let limits = Limits::default();
        assert!(limits.label("instance", "db1").is_ok());
        for (name, value, part) in [
            ("", "x", "without a name"),
            ("__name__", "x", "metric's name"),
            (&*"n".repeat(300), "x", "300 bytes"),
            ("query", &*"é".repeat(3000), "value of label query is 6000 bytes"),
        ] {
            let message = limits.label(name, value).unwrap_err();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"é".repeat(60)).chars().count(), 40);
        assert_eq!(cut(&format!("a{}", "é".repeat(60))).len(), 79);
        let limits = Limits { label_value_bytes: 5, ..Limits::default() };
        assert_eq!((limits.described("Über all"), limits.described("tick")), ("Über", "tick"));
    }

    #[test]
    fn histograms_whose_parts_disagree_are_refused() {
        let limits = Limits::default();
        let span = |offset, length| v1::BucketSpan { offset, length };
        let good =
            v1::Histogram { positive_spans: vec![span(0, 2)], positive_deltas: vec![1, 0], ..Default::default() };
        assert_eq!(limits.histogram(&good), Ok(()));
        assert!(limits.histogram(&v1::Histogram { schema: 9, ..good.clone() }).is_err());
        assert!(limits.histogram(&v1::Histogram { is_float: true, ..good.clone() }).is_err());
        assert!(limits.histogram(&v1::Histogram { positive_spans: vec![span(0, 3)], ..good.clone() }).is_err());
        let empty = v1::Histogram { positive_spans: vec![span(0, 0); 5000], ..Default::default() };
        assert!(limits.histogram(&empty).unwrap_err().contains("5000 positive buckets or spans"));
        let far = v1::Histogram { positive_spans: vec![span(i32::MAX, 1), span(i32::MAX, 1)], ..good };
        assert!(limits.histogram(&far).is_err());
    }
}
