//! Prometheus' text format 0.0.4 and OpenMetrics 1.0, family by family, in pieces of even size.
//!
//! Series come in sorted by metric name. The parts of a histogram or summary (`x_bucket`, `x_count`, `x_sum`) need not be
//! neighbours there, so such a family is held back until no more of it can come. Names that not every reader knows are
//! escaped or quoted, as the reader asks.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Bytes;
use lampad_proto::Number;
use lampad_proto::v1::MetricType;

use crate::api::{Escaping, Format, Syntax, is_plain};
use crate::store::{Labels, Latest, METRIC_NAME, Meta, Value};

/// Stands for a help text that nobody sent: checkers ask for one with every family.
pub const NO_HELP: &str = "Pushed without a help text.";

/// A piece is handed on once it has so many bytes.
pub const PIECE_BYTES: usize = 64 << 10;

/// Takes pieces; false stops the writer.
pub type Send<'a> = &'a mut dyn FnMut(Bytes) -> bool;

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
        let (family, meta) = family_of(&self.metas, name);
        let native = series.iter().any(|(_, latest)| matches!(latest.value, Value::Histogram(_)));
        if native || matches!(meta.kind, MetricType::Histogram | MetricType::Summary) && !self.typed.contains(&*family)
        {
            let kind = if native { MetricType::Histogram } else { meta.kind };
            let held = self.held.entry(family.into_owned()).or_insert_with(|| Family { meta, lines: String::new() });
            held.meta.kind = kind;
            let names = Names(self.format.escaping);
            series.iter().for_each(|(labels, latest)| names.sample(&mut held.lines, name, labels, &latest.value));
            return self.goes_on;
        }
        // A part of a histogram whose family's name is taken by another metric stands for itself.
        let kind = match meta.kind {
            MetricType::Histogram | MetricType::Summary => MetricType::Unknown,
            kind => kind,
        };
        self.head(name, &Meta { kind, ..meta });
        let names = Names(self.format.escaping);
        for (labels, latest) in series {
            names.sample(&mut self.text, name, labels, &latest.value);
            if self.text.len() >= PIECE_BYTES && !self.pass() {
                return false;
            }
        }
        self.goes_on
    }

    /// Writes what was held back and hands on the rest.
    pub fn finish(mut self) {
        self.release(None);
        if self.format.syntax == Syntax::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.pass();
    }

    /// Writes the families that end before `next`.
    fn release(&mut self, next: Option<&str>) {
        let ready: Vec<String> = self.held.keys().filter(|family| is_whole(family, next)).cloned().collect();
        for name in ready {
            if let Some(family) = self.held.remove(&name) {
                self.head(&name, &family.meta);
                self.text.push_str(&family.lines);
                self.pass_if_full();
            }
        }
    }

    fn head(&mut self, name: &str, meta: &Meta) {
        let (name, kind) = match self.format.syntax {
            Syntax::Text | Syntax::Protobuf => (name, text_kind(meta.kind)),
            Syntax::OpenMetrics => {
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
        let shown = Names(self.format.escaping).alone(name);
        let help = if meta.help.is_empty() { NO_HELP } else { &meta.help };
        let _ = write!(self.text, "# HELP {shown} ");
        quote(&mut self.text, help, self.format.syntax == Syntax::OpenMetrics);
        let _ = writeln!(self.text, "\n# TYPE {shown} {kind}");
        // OpenMetrics wants the unit at the end of the name, or none told at all.
        let ends_so = || name.strip_suffix(&*meta.unit).is_some_and(|base| base.ends_with('_'));
        if self.format.syntax == Syntax::OpenMetrics && !meta.unit.is_empty() && ends_so() {
            let _ = writeln!(self.text, "# UNIT {shown} {}", meta.unit);
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
            self.goes_on = (self.send)(piece.into());
        }
        self.goes_on
    }
}

/// Whether no more of a family can come once `next` has come.
pub fn is_whole(family: &str, next: Option<&str>) -> bool {
    next.is_none_or(|next| *next > *format!("{family}_sum"))
}

/// The family that a series' name belongs to.
pub fn family_of<'n>(metas: &HashMap<Arc<str>, Meta>, name: &'n str) -> (Cow<'n, str>, Meta) {
    let of_parts = |kind| matches!(kind, MetricType::Histogram | MetricType::Summary);
    let base = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix));
    let found = metas.get(name).or_else(|| metas.get(base?).filter(|meta| of_parts(meta.kind)));
    match (found, base) {
        (Some(meta), Some(base)) if of_parts(meta.kind) => (base.into(), meta.clone()),
        (Some(meta), _) => (name.into(), meta.clone()),
        (None, _) => (name.into(), Meta { kind: MetricType::Unknown, help: "".into(), unit: "".into() }),
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

/// How names are written.
#[derive(Clone, Copy)]
struct Names(Escaping);

impl Names {
    /// A name that stands alone, as behind `# TYPE`.
    fn alone(self, name: &str) -> Cow<'_, str> {
        let name = self.0.escape(name);
        if is_plain(&name) {
            return name;
        }
        let mut quoted = String::from('"');
        quote(&mut quoted, &name, true);
        quoted.push('"');
        Cow::Owned(quoted)
    }

    fn sample(self, out: &mut String, name: &str, labels: &Labels, value: &Value) {
        match value {
            Value::Float(value) => self.line(out, name, labels, None, *value),
            Value::Integer(value) => self.line(out, name, labels, None, *value),
            // Native histograms have no lines in this format; these three say what it can.
            Value::Histogram(histogram) => {
                let count = if histogram.is_float { histogram.count_float } else { histogram.count as f64 };
                self.line(out, &format!("{name}_bucket"), labels, Some(("le", "+Inf")), count);
                self.line(out, &format!("{name}_count"), labels, None, count);
                self.line(out, &format!("{name}_sum"), labels, None, histogram.sum);
            }
        }
    }

    fn line(self, out: &mut String, name: &str, labels: &Labels, more: Option<(&str, &str)>, value: impl Into<Number>) {
        let name = self.alone(name);
        // A quoted name stands among the labels.
        let mut separator = '{';
        if name.starts_with('"') {
            out.push('{');
            separator = ',';
        }
        out.push_str(&name);
        let own = labels.iter().map(|label| (&*label.name, &*label.value)).filter(|(name, _)| *name != METRIC_NAME);
        for (name, value) in own.chain(more) {
            out.push(separator);
            separator = ',';
            out.push_str(&self.alone(name));
            out.push_str("=\"");
            quote(out, value, true);
            out.push('"');
        }
        out.push_str(if separator == ',' { "} " } else { " " });
        number(out, value.into());
        out.push('\n');
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], f64);

    fn text(metas: &[(&str, MetricType, &str)], series: &[Row<'_>]) -> String {
        written(Format::TEXT, metas, series)
    }

    fn written(format: Format, metas: &[(&str, MetricType, &str)], series: &[Row<'_>]) -> String {
        let metas = metas
            .iter()
            .map(|(name, kind, help)| (Arc::from(*name), Meta { kind: *kind, help: (*help).into(), unit: "".into() }));
        let mut out = String::new();
        let mut send = |piece: Bytes| {
            out.push_str(std::str::from_utf8(&piece).unwrap());
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
            Format { syntax: Syntax::OpenMetrics, ..Format::TEXT },
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
    fn names_are_quoted_for_readers_that_know_them() {
        let format = Format { escaping: Escaping::AllowUtf8, ..Format::TEXT };
        let out = written(format, &[], &[("a.b", &[("c \"d\"", "e"), ("f", "g")], 1.0), ("h.i", &[], 2.0)]);
        let lines: Vec<&str> = out.lines().filter(|line| !line.starts_with("# HELP")).collect();
        let samples = [r#"{"a.b","c \"d\""="e",f="g"} 1"#, r#"{"h.i"} 2"#];
        assert_eq!(lines, ["# TYPE \"a.b\" untyped", samples[0], "# TYPE \"h.i\" untyped", samples[1]]);
    }

    #[test]
    fn a_reader_that_left_stops_the_writer() {
        let mut send = |_| false;
        let mut exposition = Exposition::new(Format::TEXT, Vec::new(), &mut send);
        let latest = Latest { timestamp_ms: 1, value: Value::Float(1.0) };
        let many = vec![(Labels::from_pairs([("instance", "a long enough name")]), latest); 4096];
        assert!(!exposition.write("a", &many));
    }
}
