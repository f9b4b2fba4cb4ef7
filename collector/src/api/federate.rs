//! `/federate`: the newest sample of each selected series, with its time, for another Prometheus to scrape.
//!
//! Shape: text format 0.0.4 or, where the reader asks for it, OpenMetrics 1.0 or protobuf; names sorted; every family is of an
//!        unknown type, as Prometheus tells it. Native histograms come in protobuf only, with their type. What was found is
//!        written while it is read.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use lampad_proto::is_stale;
use prost::Message;

use crate::query::float;
use crate::store::{Labels, METRIC_NAME, Select, Series};

use super::escape::{Escaping, is_plain};
use super::format::{Format, Syntax};
use super::params::Params;
use super::protobuf::{self, LabelPair, Metric, MetricFamily, Type};
use super::query::now_ms;
use super::reply::ApiError;
use super::series::ask;
use super::state::ApiState;
use super::stream::{PIECE_BYTES, streamed};

pub async fn federate(State(state): State<ApiState>, headers: HeaderMap, params: Params) -> Response {
    let format = Format::wanted(&headers);
    match body(&state, &params, format).await {
        Ok(body) => ([(header::CONTENT_TYPE, format.content_type())], body).into_response(),
        Err(error) => (error.status(), error.message().to_owned()).into_response(),
    }
}

async fn body(state: &ApiState, params: &Params, format: Format) -> Result<Body, ApiError> {
    let any_of = params.matchers().await?;
    let limits = state.engine.limits();
    let to_ms = now_ms();
    let from_ms = to_ms - limits.lookback.as_millis() as i64 + 1;
    let mut found = ask(state, move |source, budget| {
        let mut found = Vec::new();
        for matchers in &any_of {
            found.extend(source.select(matchers, Select::Last { from_ms, to_ms }, budget)?);
        }
        Ok(found)
    })
    .await?;
    found.sort_unstable_by(|a, b| a.labels.metric().cmp(&b.labels.metric()).then_with(|| a.labels.cmp(&b.labels)));
    found.dedup_by(|a, b| a.labels == b.labels);
    let (body, _) = match format.syntax {
        Syntax::Protobuf => streamed(families(found, format.escaping), ()),
        Syntax::Text | Syntax::OpenMetrics => streamed(Page::new(found, format), ()),
    };
    Ok(body)
}

/// The text of all series, in pieces that are made when they are read.
struct Page {
    series: std::vec::IntoIter<Series>,
    format: Format,
    last_name: Option<Arc<str>>,
    ended: bool,
}

impl Page {
    fn new(found: Vec<Series>, format: Format) -> Self {
        Self { series: found.into_iter(), format, last_name: None, ended: false }
    }

    fn push(&mut self, out: &mut String, series: &Series) {
        let Some(sample) = series.floats.last().filter(|sample| !is_stale(sample.value)) else { return };
        let (escaping, open) = (self.format.escaping, self.format.syntax == Syntax::OpenMetrics);
        let name = series.labels.metric();
        let text = name.map_or("", |name| &**name);
        if self.last_name.as_deref() != Some(text) {
            let shown = escaping.escape(text);
            let shown = if is_plain(&shown) { shown } else { quoted(&shown).into() };
            let _ = writeln!(out, "# TYPE {shown} {}", if open { "unknown" } else { "untyped" });
            self.last_name = Some(name.cloned().unwrap_or_default());
        }
        push_series(out, text, &series.labels, escaping);
        let value = float(sample.value);
        let _ = match open {
            false => writeln!(out, " {value} {}", sample.timestamp_ms),
            true => writeln!(out, " {value} {:.3}", sample.timestamp_ms as f64 / 1000.0),
        };
    }
}

impl Iterator for Page {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut out = String::new();
        while out.len() < PIECE_BYTES {
            let Some(series) = self.series.next() else { break };
            self.push(&mut out, &series);
        }
        // A page without samples has an end too.
        if out.len() < PIECE_BYTES && !self.ended {
            self.ended = true;
            if self.format.syntax == Syntax::OpenMetrics {
                out.push_str("# EOF\n");
            }
        }
        (!out.is_empty()).then(|| out.into())
    }
}

/// `name{a="b"}`, or `{"any name",a="b"}` where the name needs quotes.
fn push_series(out: &mut String, name: &str, labels: &Labels, escaping: Escaping) {
    let mut parts = Vec::new();
    let name = escaping.escape(name);
    if is_plain(&name) {
        out.push_str(&name);
    } else {
        parts.push(quoted(&name));
    }
    for label in labels.iter().filter(|label| &*label.name != METRIC_NAME) {
        let name = escaping.escape(&label.name);
        let name = if is_plain(&name) { name } else { quoted(&name).into() };
        parts.push(format!("{name}={}", quoted(&label.value)));
    }
    // Prometheus writes `instance=""` where there is none, so that the scraper's own label does not take its place.
    if labels.get("instance").is_none() {
        parts.push("instance=\"\"".to_owned());
    }
    let _ = write!(out, "{{{}}}", parts.join(","));
}

/// The same as protobuf: a family for each name, and for each type where numbers and histograms bear one name.
fn families(found: Vec<Series>, escaping: Escaping) -> impl Iterator<Item = Bytes> + Send {
    let mut metrics = found.into_iter().filter_map(move |series| {
        let (kind, metric) = newest(&series, escaping)?;
        Some((escaping.escape(series.labels.metric().map_or("", |name| name)).into_owned(), kind, metric))
    });
    let mut metrics = std::iter::from_fn(move || metrics.next()).peekable();
    std::iter::from_fn(move || {
        let (name, kind, first) = metrics.next()?;
        let mut family =
            MetricFamily { name, kind: Some(kind.into()), metrics: vec![first], ..MetricFamily::default() };
        while let Some((.., metric)) = metrics.next_if(|(name, other, _)| *name == family.name && *other == kind) {
            family.metrics.push(metric);
        }
        Some(family.encode_length_delimited_to_vec().into())
    })
}

fn newest(series: &Series, escaping: Escaping) -> Option<(Type, Metric)> {
    let mut labels = protobuf::pairs(&series.labels, "", escaping);
    if series.labels.get("instance").is_none() {
        labels.push(LabelPair { name: "instance".to_owned(), value: String::new() });
    }
    let float = series.floats.last();
    let histogram = series.histograms.last().filter(|(at_ms, _)| float.is_none_or(|f| f.timestamp_ms < *at_ms));
    if let Some((at_ms, histogram)) = histogram {
        let (native, is_gauge) = protobuf::native(histogram);
        let kind = if is_gauge { Type::GaugeHistogram } else { Type::Histogram };
        let metric = Metric { labels, histogram: Some(native), timestamp_ms: Some(*at_ms), ..Metric::default() };
        return Some((kind, metric)).filter(|_| !is_stale(histogram.sum));
    }
    let sample = float.filter(|sample| !is_stale(sample.value))?;
    let metric = Metric::number(Type::Untyped, labels, sample.value);
    Some((Type::Untyped, Metric { timestamp_ms: Some(sample.timestamp_ms), ..metric }))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
