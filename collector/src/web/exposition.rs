//! Prometheus' text format 0.0.4 and OpenMetrics 1.0, family by family, in pieces of even size.
//!
//! Series come in sorted by metric name. The parts of a histogram or summary (`x_bucket`, `x_count`, `x_sum`) need not be
//! neighbours there, so such a family is held back until no more of it can come. Names that the format cannot write have
//! the odd characters replaced by `_`.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use lampad_proto::Number;
use lampad_proto::v1::MetricType;

use crate::api::Format;
use crate::store::{Labels, Latest, METRIC_NAME, Meta, Value};

/// Stands for a help text that nobody sent: checkers ask for one with every family.
const NO_HELP: &str = "Pushed without a help text.";

/// A piece is handed on once it has so many bytes.
const PIECE_BYTES: usize = 64 << 10;

/// Takes pieces of text; false stops the writer.
pub type Send<'a> = &'a mut dyn FnMut(String) -> bool;

pub struct Exposition<'a> {
    format: Format,
    metas: HashMap<Arc<str>, Meta>,
    /// Histograms and summaries that are not whole yet.
    held: BTreeMap<String, Family>,
    /// Families whose TYPE was written.
    typed: HashSet<String>,
    text: String,
    send: Send<'a>,
    goes_on: bool,
}

struct Family {
    meta: Meta,
    lines: String,
}

impl<'a> Exposition<'a> {
    pub fn new(format: Format, metas: Vec<(Arc<str>, Meta)>, send: Send<'a>) -> Self {
        let metas = metas.into_iter().collect();
        let (held, typed) = (BTreeMap::new(), HashSet::new());
        Self { format, metas, held, typed, text: String::with_capacity(PIECE_BYTES * 2), send, goes_on: true }
    }

    /// Writes the series of one name; false once nobody reads any more.
    pub fn write(&mut self, name: &str, series: &[(Labels, Latest)]) -> bool {
        self.release(Some(name));
        let (family, meta) = self.family(name);
        let native = series.iter().any(|(_, latest)| matches!(latest.value, Value::Histogram(_)));
        if native || matches!(meta.kind, MetricType::Histogram | MetricType::Summary) && !self.typed.contains(&*family)
        {
            let kind = if native { MetricType::Histogram } else { meta.kind };
            let held = self.held.entry(family.into_owned()).or_insert_with(|| Family { meta, lines: String::new() });
            held.meta.kind = kind;
            let name = escape(name, true);
            series.iter().for_each(|(labels, latest)| sample(&mut held.lines, &name, labels, &latest.value));
            return self.goes_on;
        }
        // A part of a histogram whose family's name is taken by another metric stands for itself.
        let kind = match meta.kind {
            MetricType::Histogram | MetricType::Summary => MetricType::Unknown,
            kind => kind,
        };
        let name = escape(name, true);
        self.head(&name, &Meta { kind, ..meta });
        for (labels, latest) in series {
            sample(&mut self.text, &name, labels, &latest.value);
            if self.text.len() >= PIECE_BYTES && !self.pass() {
                return false;
            }
        }
        self.goes_on
    }

    /// Writes what was held back and hands on the rest.
    pub fn finish(mut self) {
        self.release(None);
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.pass();
    }

    /// The family that a series' name belongs to.
    fn family<'n>(&self, name: &'n str) -> (Cow<'n, str>, Meta) {
        let of_parts = |kind| matches!(kind, MetricType::Histogram | MetricType::Summary);
        let base = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let found = self.metas.get(name).or_else(|| self.metas.get(base?).filter(|meta| of_parts(meta.kind)));
        match (found, base) {
            (Some(meta), Some(base)) if of_parts(meta.kind) => (base.into(), meta.clone()),
            (Some(meta), _) => (name.into(), meta.clone()),
            (None, _) => (name.into(), Meta { kind: MetricType::Unknown, help: "".into(), unit: "".into() }),
        }
    }

    /// Writes the families that end before `next`.
    fn release(&mut self, next: Option<&str>) {
        let whole = |family: &String| next.is_none_or(|next| *next > *format!("{family}_sum"));
        let ready: Vec<String> = self.held.keys().filter(|family| whole(family)).cloned().collect();
        for name in ready {
            if let Some(family) = self.held.remove(&name) {
                self.head(&escape(&name, true), &family.meta);
                self.text.push_str(&family.lines);
                self.pass_if_full();
            }
        }
    }

    fn head(&mut self, name: &str, meta: &Meta) {
        let (name, kind) = match self.format {
            Format::Text => (name, text_kind(meta.kind)),
            Format::OpenMetrics => {
                let (base, kind) = open_kind(name, meta.kind);
                // A family of that name is there already: this one then stands under its own, of no type.
                if base != name && (self.typed.contains(base) || self.held.contains_key(base)) {
                    (name, "unknown")
                } else {
                    (base, kind)
                }
            }
        };
        if !self.typed.insert(name.to_owned()) {
            return;
        }
        let help = if meta.help.is_empty() { NO_HELP } else { &meta.help };
        let _ = write!(self.text, "# HELP {name} ");
        quote(&mut self.text, help, self.format == Format::OpenMetrics);
        let _ = writeln!(self.text, "\n# TYPE {name} {kind}");
        // OpenMetrics wants the unit at the end of the name, or none told at all.
        let ends_so = || name.strip_suffix(&*meta.unit).is_some_and(|base| base.ends_with('_'));
        if self.format == Format::OpenMetrics && !meta.unit.is_empty() && ends_so() {
            let _ = writeln!(self.text, "# UNIT {name} {}", meta.unit);
        }
    }

    fn pass_if_full(&mut self) {
        if self.text.len() >= PIECE_BYTES {
            self.pass();
        }
    }

    fn pass(&mut self) -> bool {
        if self.goes_on && !self.text.is_empty() {
            let piece = std::mem::replace(&mut self.text, String::with_capacity(PIECE_BYTES * 2));
            self.goes_on = (self.send)(piece);
        }
        self.goes_on
    }
}

fn text_kind(kind: MetricType) -> &'static str {
    match kind {
        MetricType::Counter => "counter",
        // The format has no word for the last two; they are gauges that are always 0 or 1.
        MetricType::Gauge | MetricType::Info | MetricType::Stateset => "gauge",
        MetricType::Histogram => "histogram",
        MetricType::Summary => "summary",
        MetricType::Unknown => "untyped",
    }
}

/// A family's name and type in OpenMetrics, where counters and infos lack the ending that their samples must have.
fn open_kind(name: &str, kind: MetricType) -> (&str, &'static str) {
    match kind {
        MetricType::Counter => name.strip_suffix("_total").map_or((name, "unknown"), |base| (base, "counter")),
        MetricType::Info => name.strip_suffix("_info").map_or((name, "gauge"), |base| (base, "info")),
        // A state set has a label of its own name, which nobody promised here.
        MetricType::Gauge | MetricType::Stateset => (name, "gauge"),
        MetricType::Histogram => (name, "histogram"),
        MetricType::Summary => (name, "summary"),
        MetricType::Unknown => (name, "unknown"),
    }
}

fn sample(out: &mut String, name: &str, labels: &Labels, value: &Value) {
    match value {
        Value::Float(value) => line(out, name, labels, None, *value),
        Value::Integer(value) => line(out, name, labels, None, *value),
        // Native histograms have no lines in this format; these three say what it can.
        Value::Histogram(histogram) => {
            let count = if histogram.is_float { histogram.count_float } else { histogram.count as f64 };
            line(out, &format!("{name}_bucket"), labels, Some(("le", "+Inf")), count);
            line(out, &format!("{name}_count"), labels, None, count);
            line(out, &format!("{name}_sum"), labels, None, histogram.sum);
        }
    }
}

fn line(out: &mut String, name: &str, labels: &Labels, more: Option<(&str, &str)>, value: impl Into<Number>) {
    out.push_str(name);
    let own = labels.iter().map(|label| (&*label.name, &*label.value)).filter(|(name, _)| *name != METRIC_NAME);
    let mut separator = '{';
    for (name, value) in own.chain(more) {
        out.push(separator);
        separator = ',';
        out.push_str(&escape(name, false));
        out.push_str("=\"");
        quote(out, value, true);
        out.push('"');
    }
    out.push_str(if separator == ',' { "} " } else { " " });
    number(out, value.into());
    out.push('\n');
}

fn number(out: &mut String, value: Number) {
    // Writing to a String does not fail.
    let _ = match value {
        Number::Integer(value) => write!(out, "{value}"),
        Number::Float(value) => float(out, value),
    };
}

fn float(out: &mut String, value: f64) -> std::fmt::Result {
    let size = value.abs();
    match value {
        _ if value.is_nan() => write!(out, "NaN"),
        _ if value == f64::INFINITY => write!(out, "+Inf"),
        _ if value == f64::NEG_INFINITY => write!(out, "-Inf"),
        _ if value != 0.0 && !(1e-5..1e21).contains(&size) => write!(out, "{value:e}"),
        _ => write!(out, "{value}"),
    }
}

fn quote(out: &mut String, text: &str, quotes: bool) {
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            letter => out.push(letter),
        }
    }
}

/// A name in the letters that the format allows: `[a-zA-Z_][a-zA-Z0-9_]*`, in metric names `:` too.
fn escape(name: &str, metric: bool) -> Cow<'_, str> {
    let allowed = |at: usize, letter: char| {
        letter.is_ascii_alphabetic()
            || letter == '_'
            || (metric && letter == ':')
            || (at > 0 && letter.is_ascii_digit())
    };
    if name.char_indices().all(|(at, letter)| allowed(at, letter)) {
        return Cow::Borrowed(name);
    }
    name.char_indices().map(|(at, letter)| if allowed(at, letter) { letter } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], f64);

    fn text(metas: &[(&str, MetricType, &str)], series: &[Row<'_>]) -> String {
        written(Format::Text, metas, series)
    }

    fn written(format: Format, metas: &[(&str, MetricType, &str)], series: &[Row<'_>]) -> String {
        let metas = metas
            .iter()
            .map(|(name, kind, help)| (Arc::from(*name), Meta { kind: *kind, help: (*help).into(), unit: "".into() }));
        let mut out = String::new();
        let mut send = |piece: String| {
            out.push_str(&piece);
            true
        };
        let mut exposition = Exposition::new(format, metas.collect(), &mut send);
        for chunk in series.chunk_by(|a, b| a.0 == b.0) {
            let latest = |(_, labels, value): &Row<'_>| {
                let value = Value::Float(*value);
                (Labels::from_pairs(labels.iter().copied()), Latest { timestamp_ms: 1, value })
            };
            assert!(exposition.write(chunk[0].0, &chunk.iter().map(latest).collect::<Vec<_>>()));
        }
        exposition.finish();
        out
    }

    #[test]
    fn families_come_whole_with_one_type_each() {
        let histogram = MetricType::Histogram;
        let out = text(
            &[
                ("a_total", MetricType::Counter, "How\nmany \\ \"x\"."),
                ("h_bucket", histogram, "H."),
                ("h_count", histogram, "H."),
                ("h_sum", histogram, "H."),
                ("s", MetricType::Summary, "S."),
            ],
            &[
                ("a_total", &[("l", "q\"\\\n")], 1.0),
                ("h_bucket", &[("le", "+Inf")], 2.0),
                ("h_bucket", &[("le", "0.1")], 1.0),
                ("h_between", &[], f64::NAN),
                ("h_count", &[], 2.0),
                ("h_sum", &[], 0.25),
                ("s", &[("quantile", "0.5")], 1e-9),
                ("s_between", &[], f64::INFINITY),
                ("s_count", &[], 3.0),
                ("s_sum", &[], -0.0),
                ("wei\u{df}.name", &[("l.x", "1")], 1e300),
            ],
        );
        insta::assert_snapshot!(out, @r#"
        # HELP a_total How\nmany \\ "x".
        # TYPE a_total counter
        a_total{l="q\"\\\n"} 1
        # HELP h_between Pushed without a help text.
        # TYPE h_between untyped
        h_between NaN
        # HELP h H.
        # TYPE h histogram
        h_bucket{le="+Inf"} 2
        h_bucket{le="0.1"} 1
        h_count 2
        h_sum 0.25
        # HELP s_between Pushed without a help text.
        # TYPE s_between untyped
        s_between +Inf
        # HELP s S.
        # TYPE s summary
        s{quantile="0.5"} 1e-9
        s_count 3
        s_sum -0
        # HELP wei__name Pushed without a help text.
        # TYPE wei__name untyped
        wei__name{l_x="1"} 1e300
        "#);
    }

    #[test]
    fn a_name_that_is_taken_gets_no_second_type() {
        let out = text(
            &[("h", MetricType::Gauge, ""), ("h_count", MetricType::Histogram, "")],
            &[("h", &[], 1.0), ("h_count", &[], 2.0)],
        );
        let types: Vec<&str> = out.lines().filter(|line| !line.starts_with("# HELP")).collect();
        assert_eq!(types, ["# TYPE h gauge", "h 1", "# TYPE h_count untyped", "h_count 2"]);
    }

    #[test]
    fn open_metrics_names_families_without_the_ending() {
        let out = written(
            Format::OpenMetrics,
            &[
                ("a_total", MetricType::Counter, "A \"x\"."),
                ("b", MetricType::Gauge, "B."),
                ("b_total", MetricType::Counter, "Taken."),
                ("c", MetricType::Counter, "No ending."),
                ("d_info", MetricType::Info, "D."),
            ],
            &[("a_total", &[], 1.0), ("b", &[], 2.0), ("b_total", &[], 3.0), ("c", &[], 4.0), ("d_info", &[], 1.0)],
        );
        insta::assert_snapshot!(out, @r#"
        # HELP a A \"x\".
        # TYPE a counter
        a_total 1
        # HELP b B.
        # TYPE b gauge
        b 2
        # HELP b_total Taken.
        # TYPE b_total unknown
        b_total 3
        # HELP c No ending.
        # TYPE c unknown
        c 4
        # HELP d D.
        # TYPE d info
        d_info 1
        # EOF
        "#);
    }

    #[test]
    fn a_reader_that_left_stops_the_writer() {
        let mut send = |_| false;
        let mut exposition = Exposition::new(Format::Text, Vec::new(), &mut send);
        let latest = Latest { timestamp_ms: 1, value: Value::Float(1.0) };
        let many = vec![(Labels::from_pairs([("instance", "a long enough name")]), latest); 4096];
        assert!(!exposition.write("a", &many));
    }
}
