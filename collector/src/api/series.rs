//! Which series, labels and families there are.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use lampad_proto::v1::MetricType;
use serde::Serialize;

use crate::store::{Budget, SelectError, Source};

use super::listing::Listing;
use super::params::{Params, invalid};
use super::reply::{ApiError, limited, success};
use super::state::ApiState;

/// Far enough to mean "always", near enough to add to.
const ALWAYS_MS: (i64, i64) = (i64::MIN / 4, i64::MAX / 4);

fn span(params: &Params) -> Result<(i64, i64), ApiError> {
    let from_ms = params.time("start")?.unwrap_or(ALWAYS_MS.0);
    let to_ms = params.time("end")?.unwrap_or(ALWAYS_MS.1);
    if to_ms < from_ms {
        return Err(invalid("end", "end timestamp must not be before start time"));
    }
    Ok((from_ms, to_ms))
}

/// Asks the store away from the async workers, within the limits of a query.
pub async fn ask<T: Send + 'static>(
    state: &ApiState,
    question: impl FnOnce(&dyn Source, &Budget) -> Result<T, SelectError> + Send + 'static,
) -> Result<T, ApiError> {
    Ok(state.engine.look_up(state.source.clone(), question).await?)
}

pub async fn series(State(state): State<ApiState>, params: Params) -> Result<Response, ApiError> {
    let any_of = params.matchers().await?;
    if any_of.is_empty() {
        return Err(ApiError::bad("no match[] parameter provided"));
    }
    let ((from_ms, to_ms), limit) = (span(&params)?, params.limit()?);
    let listing = ask(&state, move |source, budget| {
        let mut listing = Listing::new(limit);
        source.series(&any_of, from_ms, to_ms, budget, &mut |labels| listing.push(labels))?;
        Ok(listing)
    });
    Ok(listing.await?.finish())
}

pub async fn labels(State(state): State<ApiState>, params: Params) -> Result<Response, ApiError> {
    let (any_of, (from_ms, to_ms), limit) = (params.matchers().await?, span(&params)?, params.limit()?);
    ask(&state, move |source, budget| {
        let names = source.label_names(&any_of, from_ms, to_ms, budget)?;
        Ok(limited(names.iter().map(|name| &**name).collect(), limit))
    })
    .await
}

pub async fn values(
    State(state): State<ApiState>,
    name: Result<Path<String>, PathRejection>,
    params: Params,
) -> Result<Response, ApiError> {
    let Path(name) = name.map_err(|error| ApiError::bad(format!("invalid label name: {error}")))?;
    let name = decoded(&name);
    let (any_of, (from_ms, to_ms), limit) = (params.matchers().await?, span(&params)?, params.limit()?);
    let listed = move |values: Vec<Arc<str>>| limited(values.iter().map(|value| &**value).collect(), limit);
    if any_of.is_empty()
        && let Some(values) = state.source.label_values_at_once(&name, from_ms, to_ms)
    {
        return Ok(listed(values));
    }
    ask(&state, move |source, budget| Ok(listed(source.label_values(&name, &any_of, from_ms, to_ms, budget)?))).await
}

/// Reads `U__` names, in which `_` is doubled and other characters stand as `_HEX_`. What is not such a name is itself.
fn decoded(name: &str) -> String {
    let Some(escaped) = name.strip_prefix("U__") else { return name.to_owned() };
    let mut out = String::new();
    let mut rest = escaped;
    while let Some(at) = rest.find('_') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(end) = rest.find('_') else { return name.to_owned() };
        if end == 0 {
            out.push('_');
        } else {
            match u32::from_str_radix(&rest[..end], 16).ok().and_then(char::from_u32) {
                Some(character) => out.push(character),
                None => return name.to_owned(),
            }
        }
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    out
}

#[derive(Serialize)]
struct MetaJson {
    #[serde(rename = "type")]
    kind: &'static str,
    help: String,
    unit: String,
}

pub async fn metadata(State(state): State<ApiState>, params: Params) -> Result<Response, ApiError> {
    let limit = params.limit()?.unwrap_or(usize::MAX);
    let metric = params.get("metric").map(str::to_owned);
    let found = ask(&state, move |source, _| Ok(source.metadata(metric.as_deref()))).await?;
    let families = found.into_iter().take(limit).map(|(name, meta)| {
        let meta = MetaJson { kind: kind_name(meta.kind), help: meta.help.to_string(), unit: meta.unit.to_string() };
        (name.to_string(), [meta])
    });
    Ok(success(families.collect::<BTreeMap<_, _>>()))
}

#[derive(Serialize)]
struct TargetMetaJson {
    /// Empty: a family is described once for all who push it.
    target: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metric: Option<String>,
    #[serde(flatten)]
    meta: MetaJson,
}

pub async fn target_metadata(State(state): State<ApiState>, params: Params) -> Result<Response, ApiError> {
    let limit = params.limit()?.unwrap_or(usize::MAX);
    let metric = params.get("metric").filter(|metric| !metric.is_empty()).map(str::to_owned);
    let is_one = metric.is_some();
    let found = ask(&state, move |source, _| Ok(source.metadata(metric.as_deref()))).await?;
    let families = found.into_iter().take(limit).map(|(name, meta)| TargetMetaJson {
        target: BTreeMap::new(),
        metric: (!is_one).then(|| name.to_string()),
        meta: MetaJson { kind: kind_name(meta.kind), help: meta.help.to_string(), unit: meta.unit.to_string() },
    });
    Ok(success(families.collect::<Vec<_>>()))
}

fn kind_name(kind: MetricType) -> &'static str {
    match kind {
        MetricType::Unknown => "unknown",
        MetricType::Counter => "counter",
        MetricType::Gauge => "gauge",
        MetricType::Histogram => "histogram",
        MetricType::Summary => "summary",
        MetricType::Info => "info",
        MetricType::Stateset => "stateset",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_ascii_are_decoded() {
        assert_eq!(decoded("plain"), "plain");
        assert_eq!(decoded("U__http_2e_status"), "http.status");
        assert_eq!(decoded("U__a__b_e4_"), "a_bä");
        assert_eq!(decoded("U__broken_zz_"), "U__broken_zz_");
    }
}
