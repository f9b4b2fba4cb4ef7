//! The envelope of every answer in Prometheus' form. What queries find is written by `result.rs`.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::query::QueryError;
use crate::store::{Exemplar, Labels, SelectError};

use super::json::{push_labels, push_time, push_value};

/// An answer other than success.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    kind: &'static str,
    message: String,
}

impl ApiError {
    pub fn bad(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, kind: "bad_data", message: message.into() }
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, kind: "internal", message: message.into() }
    }

    /// What is switched off: status 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, kind: "unavailable", message: message.into() }
    }

    /// What is not there: status 501.
    pub fn missing(message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_IMPLEMENTED, kind: "not_implemented", message: message.into() }
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        let message = error.to_string();
        let (status, kind) = match error {
            QueryError::Bad(reason) => return super::params::invalid("query", &reason),
            QueryError::Execution(_) => (StatusCode::UNPROCESSABLE_ENTITY, "execution"),
            QueryError::TimedOut => (StatusCode::SERVICE_UNAVAILABLE, "timeout"),
            // Whoever asked is gone; the number only shows in logs.
            QueryError::Cancelled => (StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST), "canceled"),
            QueryError::Busy(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            QueryError::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        Self { status, kind, message }
    }
}

impl From<SelectError> for ApiError {
    fn from(error: SelectError) -> Self {
        QueryError::from(error).into()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Envelope<'a> {
            status: &'a str,
            #[serde(rename = "errorType")]
            kind: &'a str,
            error: &'a str,
        }
        json(self.status, &Envelope { status: "error", kind: self.kind, error: &self.message })
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => (status, content_type(), text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// A reply that is written, or made while it is read, and how many bytes it has where that is known.
pub fn written((text, bytes): (Body, Option<usize>)) -> Response {
    let mut response = (StatusCode::OK, content_type(), text).into_response();
    if let Some(bytes) = bytes {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    }
    response
}

fn content_type() -> [(header::HeaderName, HeaderValue); 1] {
    [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]
}

#[derive(Serialize)]
struct Envelope<T> {
    status: &'static str,
    data: T,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

pub fn success(data: impl Serialize) -> Response {
    json(StatusCode::OK, &Envelope { status: "success", data, warnings: Vec::new() })
}

/// Cuts a list to its limit, and says so in a warning.
pub fn limited<T: Serialize>(mut list: Vec<T>, limit: Option<usize>) -> Response {
    let mut warnings = Vec::new();
    if let Some(limit) = limit.filter(|limit| *limit < list.len()) {
        list.truncate(limit);
        warnings.push(TRUNCATED.to_owned());
    }
    json(StatusCode::OK, &Envelope { status: "success", data: list, warnings })
}

pub const TRUNCATED: &str = "results truncated due to limit";

/// Exemplars by series: values are text, as in results.
pub fn exemplars(found: Vec<(Labels, Vec<Exemplar>)>) -> Response {
    let mut out = b"{\"status\":\"success\",\"data\":[".to_vec();
    for (at, (labels, exemplars)) in found.iter().enumerate() {
        out.extend_from_slice(if at > 0 { b",{\"seriesLabels\":" } else { b"{\"seriesLabels\":" });
        push_labels(&mut out, labels);
        let mut head: &[u8] = b",\"exemplars\":[";
        for exemplar in exemplars {
            out.extend_from_slice(std::mem::replace(&mut head, b","));
            out.extend_from_slice(b"{\"labels\":");
            push_labels(&mut out, &exemplar.labels);
            out.extend_from_slice(b",\"value\":\"");
            push_value(&mut out, exemplar.value);
            out.extend_from_slice(b"\",\"timestamp\":");
            push_time(&mut out, exemplar.timestamp_ms);
            out.push(b'}');
        }
        out.extend_from_slice(b"]}");
    }
    out.extend_from_slice(b"]}");
    (StatusCode::OK, content_type(), out).into_response()
}
