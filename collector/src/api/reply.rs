//! The envelope of every answer, and results as JSON in Prometheus' form.
//!
//! Results of queries are written piece by piece while the client reads; what is short, and lists, are written at once.

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::query::{Answer, Cell, Histogram, Output, Points, QueryError, Row, Steps, float, is_absent};
use crate::store::{Exemplar, Labels, SelectError};

use super::json::{push_string, push_time, push_value};
use super::stream::{PIECE_BYTES, streamed};

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

/// A reply that is written already, and its bytes: whoever knows how many come reads them with less ado.
pub fn written(text: Body, bytes: usize) -> Response {
    let length = [(header::CONTENT_LENGTH, HeaderValue::from(bytes))];
    (StatusCode::OK, content_type(), length, text).into_response()
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

/// A query's answer. `stats` adds timings and counts. It keeps the query's place until it is read.
pub fn answer(mut answer: Answer, limit: Option<usize>, stats: bool) -> Response {
    let place = answer.place.take();
    (StatusCode::OK, content_type(), streamed(pieces(answer, limit, stats), place)).into_response()
}

/// The same body, whole.
pub fn text(answer: Answer, limit: Option<usize>) -> String {
    let bytes: Vec<u8> = pieces(answer, limit, false).flatten().collect();
    // JSON is UTF-8 as it is written.
    String::from_utf8_lossy(&bytes).into_owned()
}

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

fn pieces(answer: Answer, limit: Option<usize>, stats: bool) -> impl Iterator<Item = Bytes> + Send + use<> {
    let mut tail = String::from("]");
    if stats {
        tail.push_str(&format!(",\"stats\":{}", stats_json(&answer)));
    }
    tail.push('}');
    let Answer { mut output, mut warnings, infos, .. } = answer;
    if let Some(limit) = limit
        && truncate(&mut output, limit)
    {
        warnings.push(TRUNCATED.to_owned());
    }
    for (name, notes) in [("warnings", &warnings), ("infos", &infos)] {
        if !notes.is_empty() {
            tail.push_str(&format!(",{name:?}:{}", serde_json::json!(notes)));
        }
    }
    tail.push('}');
    let (kind, pieces): (&str, Box<dyn Iterator<Item = Vec<u8>> + Send>) = match output {
        Output::Scalar { at_ms, value } => ("scalar", Box::new(std::iter::once(scalar(at_ms, value)))),
        Output::Text { at_ms, text } => ("string", Box::new(std::iter::once(string(at_ms, &text)))),
        Output::Vector { at_ms, rows } => {
            ("vector", Box::new(rows.into_iter().map(move |row| vector_row(&row, at_ms))))
        }
        Output::Matrix { steps, rows } => {
            ("matrix", Box::new(rows.into_iter().map(move |row| matrix_row(&row, steps))))
        }
        Output::Points(points) => ("matrix", Box::new(points.into_iter().map(|points| points_row(&points)))),
    };
    let head = format!("{{\"status\":\"success\",\"data\":{{\"resultType\":{kind:?},\"result\":[");
    joined(head.into_bytes(), pieces, tail.into_bytes())
}

/// Rows with commas between them, gathered into pieces of [`PIECE_BYTES`].
fn joined(
    head: Vec<u8>,
    rows: impl Iterator<Item = Vec<u8>> + Send,
    tail: Vec<u8>,
) -> impl Iterator<Item = Bytes> + Send {
    let mut rows = rows.enumerate();
    let mut buffer = head;
    let mut tail = Some(tail);
    std::iter::from_fn(move || {
        tail.as_ref()?;
        for (at, row) in rows.by_ref() {
            if at > 0 {
                buffer.push(b',');
            }
            buffer.extend(row);
            if buffer.len() >= PIECE_BYTES {
                return Some(Bytes::from(std::mem::take(&mut buffer)));
            }
        }
        buffer.extend(tail.take()?);
        Some(Bytes::from(std::mem::take(&mut buffer)))
    })
}

fn truncate(output: &mut Output, limit: usize) -> bool {
    let longer = match output {
        Output::Vector { rows, .. } | Output::Matrix { rows, .. } => rows.len() > limit,
        Output::Points(points) => points.len() > limit,
        Output::Scalar { .. } | Output::Text { .. } => false,
    };
    match output {
        Output::Vector { rows, .. } | Output::Matrix { rows, .. } => rows.truncate(limit),
        Output::Points(points) => points.truncate(limit),
        Output::Scalar { .. } | Output::Text { .. } => {}
    }
    longer
}

fn stats_json(answer: &Answer) -> serde_json::Value {
    serde_json::json!({
        "timings": {
            "evalTotalTime": answer.seconds,
            "resultSortTime": 0,
            "queryPreparationTime": 0,
            "innerEvalTime": answer.seconds,
            "execQueueTime": answer.queued_seconds,
            "execTotalTime": answer.seconds + answer.queued_seconds,
        },
        "samples": { "totalQueryableSamples": answer.samples, "peakSamples": answer.samples },
    })
}

fn scalar(at_ms: i64, value: f64) -> Vec<u8> {
    let mut out = Vec::new();
    push_time(&mut out, at_ms);
    out.extend(b",\"");
    // With all digits, unlike samples.
    out.extend(float(value).into_bytes());
    out.push(b'"');
    out
}

fn string(at_ms: i64, text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    push_time(&mut out, at_ms);
    out.push(b',');
    push_string(&mut out, text);
    out
}

fn vector_row(row: &Row, at_ms: i64) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.extend(b"{\"metric\":");
    push_labels(&mut out, &row.labels);
    match row.cell(0) {
        Some(Cell::Histogram(histogram)) => {
            out.extend(b",\"histogram\":");
            push_histogram(&mut out, at_ms, &histogram);
        }
        _ => {
            out.extend(b",\"value\":");
            push_point(&mut out, at_ms, row.cells[0]);
        }
    }
    out.push(b'}');
    out
}

fn matrix_row(row: &Row, steps: Steps) -> Vec<u8> {
    let present = row.cells.iter().zip(steps.iter()).enumerate().filter(|(_, (cell, _))| !is_absent(**cell));
    if !row.has_histograms() {
        let points = present.map(|(_, (cell, at_ms))| (at_ms, *cell));
        return series(&row.labels, points, row.cells.len(), std::iter::empty());
    }
    let (floats, histograms): (Vec<_>, Vec<_>) = present.partition(|(step, _)| row.histogram(*step).is_none());
    let floats = floats.into_iter().map(|(_, (cell, at_ms))| (at_ms, *cell));
    let histograms = histograms.into_iter().filter_map(|(step, (_, at_ms))| Some((at_ms, &**row.histogram(step)?)));
    series(&row.labels, floats, row.cells.len(), histograms)
}

fn points_row(points: &Points) -> Vec<u8> {
    let floats = points.samples.iter().map(|sample| (sample.timestamp_ms, sample.value));
    let histograms = points.histograms.iter().map(|(at_ms, histogram)| (*at_ms, &**histogram));
    series(&points.labels, floats, points.samples.len(), histograms)
}

/// A list that is empty is left out.
fn series<'a>(
    labels: &Labels,
    points: impl Iterator<Item = (i64, f64)>,
    count: usize,
    histograms: impl Iterator<Item = (i64, &'a Histogram)>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(128 + 24 * count);
    out.extend(b"{\"metric\":");
    push_labels(&mut out, labels);
    let mut head: &[u8] = b",\"values\":[";
    for (at_ms, value) in points {
        out.extend(std::mem::replace(&mut head, b","));
        push_point(&mut out, at_ms, value);
    }
    if head == b"," {
        out.push(b']');
    }
    let mut head: &[u8] = b",\"histograms\":[";
    for (at_ms, histogram) in histograms {
        out.extend(std::mem::replace(&mut head, b","));
        push_histogram(&mut out, at_ms, histogram);
    }
    if head == b"," {
        out.push(b']');
    }
    out.push(b'}');
    out
}

/// `[time,{"count":"..","sum":"..","buckets":[[which ends belong to it,"lower","upper","count"],..]}]`
fn push_histogram(out: &mut Vec<u8>, at_ms: i64, histogram: &Histogram) {
    out.push(b'[');
    push_time(out, at_ms);
    out.extend(b",{\"count\":\"");
    push_value(out, histogram.count);
    out.extend(b"\",\"sum\":\"");
    push_value(out, histogram.sum);
    out.push(b'"');
    let mut head: &[u8] = b",\"buckets\":[";
    for bucket in histogram.buckets().iter().filter(|bucket| bucket.count != 0.0) {
        out.extend(std::mem::replace(&mut head, b","));
        let ends = match (bucket.lower_inclusive, bucket.upper_inclusive) {
            (false, true) => b'0',
            (true, false) => b'1',
            (false, false) => b'2',
            (true, true) => b'3',
        };
        out.extend([b'[', ends]);
        for value in [bucket.lower, bucket.upper, bucket.count] {
            out.extend(b",\"");
            push_value(out, value);
            out.push(b'"');
        }
        out.push(b']');
    }
    if head == b"," {
        out.push(b']');
    }
    out.extend(b"}]");
}

fn push_point(out: &mut Vec<u8>, at_ms: i64, value: f64) {
    out.push(b'[');
    push_time(out, at_ms);
    out.extend(b",\"");
    push_value(out, value);
    out.extend(b"\"]");
}

fn push_labels(out: &mut Vec<u8>, labels: &Labels) {
    out.push(b'{');
    for (at, label) in labels.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        push_string(out, &label.name);
        out.push(b':');
        push_string(out, &label.value);
    }
    out.push(b'}');
}
