//! What the collector tells of itself under `/api/v1/status`, and the lists of rules and alerts: empty, as it evaluates no rules.

use std::collections::HashMap;

use axum::extract::State;
use axum::response::Response;
use serde_json::json;

use crate::store::{Label, METRIC_NAME};

use super::params::{Params, invalid};
use super::query::now_ms;
use super::reply::{ApiError, success};
use super::series::ask;
use super::state::ApiState;

/// No rules are evaluated yet.
pub async fn rules(params: Params) -> Result<Response, ApiError> {
    match params.get("type") {
        None | Some("alert" | "record") => Ok(success(json!({ "groups": [] }))),
        Some(other) => Err(invalid("type", &format!("not supported value {other:?}"))),
    }
}

pub async fn alerts() -> Response {
    success(json!({ "alerts": [] }))
}

pub async fn alertmanagers() -> Response {
    success(json!({ "activeAlertmanagers": [], "droppedAlertmanagers": [] }))
}

pub async fn buildinfo(State(state): State<ApiState>) -> Response {
    let build = &state.build;
    success(json!({
        "version": build.version,
        "revision": build.revision,
        "branch": build.branch,
        "buildUser": "",
        "buildDate": build.build_date,
        // Not written in Go; the field is there because clients expect it.
        "goVersion": "",
        "application": "lampad-collector",
        "applicationVersion": env!("CARGO_PKG_VERSION"),
    }))
}

/// Not 503: senders would come again for ever.
pub async fn otlp() -> ApiError {
    ApiError::missing(
        "OTLP is not taken yet; send remote_write 1.0 to /api/v1/write, from an OpenTelemetry collector too",
    )
}

/// Prometheus' answer where deleting and snapshots over HTTP are switched off, as they are without `--enable-admin-api`.
pub async fn admin() -> ApiError {
    ApiError::unavailable("admin APIs disabled")
}

pub async fn config(State(state): State<ApiState>) -> Response {
    success(json!({ "yaml": &*state.settings.told().config }))
}

pub async fn flags(State(state): State<ApiState>) -> Response {
    success(&*state.settings.told().flags)
}

pub async fn runtimeinfo(State(state): State<ApiState>) -> Response {
    let told = state.settings.told();
    success(json!({
        "startTime": state.started.to_string(),
        "CWD": std::env::current_dir().map(|path| path.display().to_string()).unwrap_or_default(),
        "hostname": rustix::system::uname().nodename().to_string_lossy(),
        "serverTime": jiff::Timestamp::now().to_string(),
        "reloadConfigSuccess": !told.reload_failed,
        "lastConfigTime": told.read.to_string(),
        "corruptionCount": 0,
        "goroutineCount": 0,
        "GOMAXPROCS": std::thread::available_parallelism().map_or(1, usize::from),
        "GOMEMLIMIT": 0,
        "GOGC": "",
        "GODEBUG": "",
        "storageRetention": &*told.retention,
    }))
}

/// How far back series count as current: what Prometheus keeps in its head.
const HEAD_MS: i64 = 2 * 3600 * 1000;
/// Lines per list unless `limit` says otherwise.
const TOP: usize = 10;

pub async fn tsdb(State(state): State<ApiState>, params: Params) -> Result<Response, ApiError> {
    let top = params.limit()?.unwrap_or(TOP);
    let now_ms = now_ms();
    let from_ms = now_ms - HEAD_MS;
    let counted = ask(&state, move |source, budget| {
        let (mut series, mut by_label) = (0u64, HashMap::<Label, u64>::new());
        source.series(&[], from_ms, now_ms, budget, &mut |labels| {
            series += 1;
            for label in labels {
                match by_label.get_mut(*label) {
                    Some(count) => *count += 1,
                    None => _ = by_label.insert((*label).clone(), 1),
                }
            }
            true
        })?;
        Ok((series, by_label))
    });
    let (series, by_label) = counted.await?;
    let mut by_name: HashMap<&str, u64> = HashMap::new();
    let mut values: HashMap<&str, u64> = HashMap::new();
    let mut bytes: HashMap<&str, u64> = HashMap::new();
    for (label, count) in &by_label {
        let (name, value) = (&*label.name, &*label.value);
        if name == METRIC_NAME {
            by_name.insert(value, *count);
        }
        *values.entry(name).or_default() += 1;
        *bytes.entry(name).or_default() += (name.len() + value.len()) as u64;
    }
    let pairs = by_label.iter().map(|(label, count)| (format!("{}={}", label.name, label.value), *count));
    Ok(success(json!({
        "headStats": {
            "numSeries": series,
            "numLabelPairs": by_label.len(),
            "chunkCount": 0,
            "minTime": from_ms,
            "maxTime": now_ms,
        },
        "seriesCountByMetricName": largest(owned(&by_name), top),
        "labelValueCountByLabelName": largest(owned(&values), top),
        "memoryInBytesByLabelName": largest(owned(&bytes), top),
        "seriesCountByLabelValuePair": largest(pairs, top),
    })))
}

fn owned(counts: &HashMap<&str, u64>) -> impl Iterator<Item = (String, u64)> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count))
}

fn largest(counts: impl Iterator<Item = (String, u64)>, top: usize) -> Vec<serde_json::Value> {
    let mut counts: Vec<_> = counts.collect();
    counts.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts.truncate(top);
    counts.into_iter().map(|(name, value)| json!({ "name": name, "value": value })).collect()
}
