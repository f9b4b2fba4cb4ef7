//! `/federate`: the newest sample of each selected series, with its time, for another Prometheus to scrape.
//!
//! Shape: text format 0.0.4 or, where the reader asks for it, OpenMetrics 1.0; names sorted; every family is of an unknown
//!        type, as Prometheus tells it.

use std::fmt::Write as _;
use std::time::Instant;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use lampad_proto::is_stale;

use crate::query::float;
use crate::store::{Budget, Labels, METRIC_NAME, Select, Series};

use super::format::Format;
use super::params::Params;
use super::query::now_ms;
use super::reply::ApiError;
use super::series::ask;
use super::state::ApiState;

pub async fn federate(State(state): State<ApiState>, headers: HeaderMap, params: Params) -> Response {
    let format = Format::wanted(&headers);
    match text(&state, &params, format).await {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type())], text).into_response(),
        Err(error) => (error.status(), error.message().to_owned()).into_response(),
    }
}

async fn text(state: &ApiState, params: &Params, format: Format) -> Result<String, ApiError> {
    let any_of = params.matchers()?;
    let limits = state.engine.limits();
    let budget = Budget::new(limits.samples, Instant::now() + limits.timeout);
    let to_ms = now_ms();
    let from_ms = to_ms - limits.lookback.as_millis() as i64 + 1;
    let mut found = ask(state, move |source| {
        let mut found = Vec::new();
        for matchers in &any_of {
            found.extend(source.select(matchers, Select::Last { from_ms, to_ms }, &budget)?);
        }
        Ok(found)
    })
    .await?;
    found.sort_unstable_by(|a, b| a.labels.metric().cmp(&b.labels.metric()).then_with(|| a.labels.cmp(&b.labels)));
    found.dedup_by(|a, b| a.labels == b.labels);
    Ok(written(&found, format))
}

fn written(found: &[Series], format: Format) -> String {
    let mut out = String::new();
    let mut last_name = None;
    let unknown = if format == Format::Text { "untyped" } else { "unknown" };
    for series in found {
        let Some(sample) = series.floats.last().filter(|sample| !is_stale(sample.value)) else { continue };
        let name = series.labels.metric().map_or("", |name| &**name);
        if last_name != Some(name) {
            let _ = writeln!(out, "# TYPE {} {unknown}", if is_plain(name) { name.to_owned() } else { quoted(name) });
            last_name = Some(name);
        }
        push_series(&mut out, name, &series.labels);
        let value = float(sample.value);
        let _ = match format {
            Format::Text => writeln!(out, " {value} {}", sample.timestamp_ms),
            Format::OpenMetrics => writeln!(out, " {value} {:.3}", sample.timestamp_ms as f64 / 1000.0),
        };
    }
    if format == Format::OpenMetrics {
        out.push_str("# EOF\n");
    }
    out
}

/// `name{a="b"}`, or `{"any name",a="b"}` where the name needs quotes.
fn push_series(out: &mut String, name: &str, labels: &Labels) {
    let mut parts = Vec::new();
    if is_plain(name) {
        out.push_str(name);
    } else {
        parts.push(quoted(name));
    }
    for label in labels.iter().filter(|label| &*label.name != METRIC_NAME) {
        let name = if is_plain(&label.name) { label.name.to_string() } else { quoted(&label.name) };
        parts.push(format!("{name}={}", quoted(&label.value)));
    }
    // Prometheus writes `instance=""` where there is none, so that the scraper's own label does not take its place.
    if labels.get("instance").is_none() {
        parts.push("instance=\"\"".to_owned());
    }
    let _ = write!(out, "{{{}}}", parts.join(","));
}

fn is_plain(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
