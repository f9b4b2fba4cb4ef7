//! `/federate`: the newest sample of each selected series, with its time, for another Prometheus to scrape.
//!
//! Shape: text format 0.0.4 or, where the reader asks for it, OpenMetrics 1.0 or protobuf; names sorted; every family is of an
//!        unknown type, as Prometheus tells it. Native histograms come in protobuf only, with their type.

use std::fmt::Write as _;

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

pub async fn federate(State(state): State<ApiState>, headers: HeaderMap, params: Params) -> Response {
    let format = Format::wanted(&headers);
    match body(&state, &params, format).await {
        Ok(body) => ([(header::CONTENT_TYPE, format.content_type())], body).into_response(),
        Err(error) => (error.status(), error.message().to_owned()).into_response(),
    }
}

async fn body(state: &ApiState, params: &Params, format: Format) -> Result<Vec<u8>, ApiError> {
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
    Ok(match format.syntax {
        Syntax::Protobuf => families(&found, format.escaping),
        Syntax::Text | Syntax::OpenMetrics => written(&found, format).into_bytes(),
    })
}

fn written(found: &[Series], format: Format) -> String {
    let mut out = String::new();
    let mut last_name = None;
    let open = format.syntax == Syntax::OpenMetrics;
    let unknown = if open { "unknown" } else { "untyped" };
    for series in found {
        let Some(sample) = series.floats.last().filter(|sample| !is_stale(sample.value)) else { continue };
        let name = series.labels.metric().map_or("", |name| &**name);
        if last_name != Some(name) {
            let shown = format.escaping.escape(name);
            let _ = writeln!(out, "# TYPE {} {unknown}", if is_plain(&shown) { shown } else { quoted(&shown).into() });
            last_name = Some(name);
        }
        push_series(&mut out, name, &series.labels, format.escaping);
        let value = float(sample.value);
        let _ = match open {
            false => writeln!(out, " {value} {}", sample.timestamp_ms),
            true => writeln!(out, " {value} {:.3}", sample.timestamp_ms as f64 / 1000.0),
        };
    }
    if open {
        out.push_str("# EOF\n");
    }
    out
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
fn families(found: &[Series], escaping: Escaping) -> Vec<u8> {
    let mut families: Vec<MetricFamily> = Vec::new();
    for series in found {
        let Some((kind, metric)) = newest(series, escaping) else { continue };
        let name = escaping.escape(series.labels.metric().map_or("", |name| name));
        match families.last_mut().filter(|family| family.name == name && family.kind() == kind) {
            Some(family) => family.metrics.push(metric),
            None => families.push(MetricFamily {
                name: name.into_owned(),
                kind: Some(kind.into()),
                metrics: vec![metric],
                ..MetricFamily::default()
            }),
        }
    }
    families.iter().flat_map(Message::encode_length_delimited_to_vec).collect()
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
