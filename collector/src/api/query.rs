//! `/api/v1/query`, `query_range`, and what helps to write queries.

use axum::extract::State;
use axum::response::Response;

use crate::query::{self, Request, Span};

use super::params::{Params, away, invalid};
use super::reply::{self, ApiError, success};
use super::result;
use super::state::ApiState;

/// Points per series in one answer: a full HD screen five times over, as in Prometheus.
const POINTS_MAX: i64 = 11_000;

pub async fn instant(State(state): State<ApiState>, params: Params) -> Result<Response, ApiError> {
    let limit = params.limit()?;
    let at_ms = params.time("time")?.unwrap_or_else(now_ms);
    run(state, &params, Span::Instant { at_ms }, limit).await
}

pub async fn range(State(state): State<ApiState>, params: Params) -> Result<Response, ApiError> {
    let limit = params.limit()?;
    let start_ms = params.required_time("start")?;
    let end_ms = params.required_time("end")?;
    if end_ms < start_ms {
        return Err(invalid("end", "end timestamp must not be before start time"));
    }
    let step_ms = params.required_duration_ms("step")?;
    if step_ms <= 0 {
        let reason = "zero or negative query resolution step widths are not accepted. Try a positive integer";
        return Err(invalid("step", reason));
    }
    if (end_ms - start_ms) / step_ms > POINTS_MAX {
        return Err(ApiError::bad(
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
        ));
    }
    run(state, &params, Span::Range { start_ms, end_ms, step_ms }, limit).await
}

async fn run(state: ApiState, params: &Params, span: Span, limit: Option<usize>) -> Result<Response, ApiError> {
    let request = Request {
        text: text(params),
        span,
        timeout: params.duration("timeout")?,
        lookback: params.duration("lookback_delta")?.filter(|lookback| !lookback.is_zero()),
    };
    let answer = state.engine.query(state.source.clone(), request).await?;
    Ok(result::answer(answer, limit, params.get("stats").is_some()))
}

/// Exemplars of the series that a query selects.
pub async fn exemplars(State(state): State<ApiState>, params: Params) -> Result<Response, ApiError> {
    let (start_ms, end_ms) = (params.time("start")?, params.time("end")?);
    if let (Some(start_ms), Some(end_ms)) = (start_ms, end_ms)
        && end_ms < start_ms
    {
        return Err(invalid("end", "end timestamp must not be before start time"));
    }
    // Prometheus does not say here which parameter is wrong.
    let (text, features) = (text(&params), state.engine.features());
    let parse = move || query::parse(&text, features).map_err(|error| ApiError::bad(error.to_string()));
    let expr = away(parse).await?;
    let mut any_of = Vec::new();
    expr.each_selector(&mut |selector| any_of.push(selector.matchers.clone()));
    let exemplars = state.exemplars.clone();
    let (from_ms, to_ms) = (start_ms.unwrap_or(i64::MIN), end_ms.unwrap_or(i64::MAX));
    let found = away(move || Ok(exemplars.select(&any_of, from_ms, to_ms))).await?;
    Ok(reply::exemplars(found))
}

pub async fn format(params: Params) -> Result<Response, ApiError> {
    let text = text(&params);
    Ok(success(away(move || Ok(query::format(&text)?)).await?))
}

pub async fn parse(params: Params) -> Result<Response, ApiError> {
    let text = text(&params);
    Ok(success(away(move || Ok(query::tree(&text)?)).await?))
}

fn text(params: &Params) -> String {
    params.get("query").unwrap_or_default().to_owned()
}

pub fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
