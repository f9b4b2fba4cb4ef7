//! A query's result as JSON, written piece by piece while the client reads.

use axum::body::Bytes;
use axum::response::Response;

use crate::query::{Answer, Cell, Histogram, Output, Points, Row, Steps, float, is_absent};

use super::json::{push_labels, push_string, push_time, push_value};
use super::reply::{TRUNCATED, written};
use super::stream::{PIECE_BYTES, streamed};

/// A query's answer. `stats` adds timings and counts. It keeps the query's place until it is read.
pub fn answer(mut answer: Answer, limit: Option<usize>, stats: bool) -> Response {
    let place = answer.place.take();
    written(streamed(pieces(answer, limit, stats), place))
}

/// The same body, whole.
pub fn text(answer: Answer, limit: Option<usize>) -> String {
    let bytes: Vec<u8> = pieces(answer, limit, false).flatten().collect();
    // JSON is UTF-8 as it is written.
    String::from_utf8_lossy(&bytes).into_owned()
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
    let (kind, rows): (&str, Rows) = match output {
        Output::Scalar { at_ms, value } => ("scalar", each([value], move |out, value| push_scalar(out, at_ms, value))),
        Output::Text { at_ms, text } => ("string", each([text], move |out, text| push_text(out, at_ms, &text))),
        Output::Vector { at_ms, rows } => ("vector", each(rows, move |out, row| push_vector_row(out, &row, at_ms))),
        Output::Matrix { steps, rows } => {
            let times = StepTimes::new(steps);
            ("matrix", each(rows, move |out, row| push_matrix_row(out, &row, &times)))
        }
        Output::Points(points) => ("matrix", each(points, |out, points| push_points(out, &points))),
    };
    let head = format!("{{\"status\":\"success\",\"data\":{{\"resultType\":{kind:?},\"result\":[");
    joined(head.into_bytes(), rows, tail.into_bytes())
}

/// Writes the next row of a result; false when there is none.
type Rows = Box<dyn FnMut(&mut Vec<u8>) -> bool + Send>;

/// Rows with commas between them.
fn each<T>(
    rows: impl IntoIterator<Item = T, IntoIter: Send + 'static>,
    push: impl Fn(&mut Vec<u8>, T) + Send + 'static,
) -> Rows {
    let mut rows = rows.into_iter().enumerate();
    Box::new(move |out| {
        let Some((at, row)) = rows.next() else { return false };
        if at > 0 {
            out.push(b',');
        }
        push(out, row);
        true
    })
}

/// Rows gathered into pieces of [`PIECE_BYTES`].
fn joined(head: Vec<u8>, mut rows: Rows, tail: Vec<u8>) -> impl Iterator<Item = Bytes> + Send {
    let mut buffer = head;
    let mut tail = Some(tail);
    std::iter::from_fn(move || {
        tail.as_ref()?;
        while rows(&mut buffer) {
            if buffer.len() >= PIECE_BYTES {
                // The next one is mostly as long.
                let next = Vec::with_capacity(buffer.len() + buffer.len() / 8);
                return Some(Bytes::from(std::mem::replace(&mut buffer, next)));
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

fn push_scalar(out: &mut Vec<u8>, at_ms: i64, value: f64) {
    push_time(out, at_ms);
    out.extend(b",\"");
    // With all digits, unlike samples.
    out.extend(float(value).into_bytes());
    out.push(b'"');
}

fn push_text(out: &mut Vec<u8>, at_ms: i64, text: &str) {
    push_time(out, at_ms);
    out.push(b',');
    push_string(out, text);
}

fn push_vector_row(out: &mut Vec<u8>, row: &Row, at_ms: i64) {
    out.extend(b"{\"metric\":");
    push_labels(out, &row.labels);
    match row.cell(0) {
        Some(Cell::Histogram(histogram)) => {
            out.extend(b",\"histogram\":");
            push_histogram(out, at_ms, &histogram);
        }
        _ => {
            out.extend(b",\"value\":");
            push_point(out, at_ms, row.cells[0]);
        }
    }
    out.push(b'}');
}

/// How a point at each step begins, `[time,"`: written once for all rows.
struct StepTimes {
    steps: Steps,
    text: Vec<u8>,
    /// Where each one ends in it.
    ends: Vec<u32>,
}

impl StepTimes {
    fn new(steps: Steps) -> Self {
        let mut text = Vec::new();
        let ends = steps.iter().map(|at_ms| {
            push_point_head(&mut text, at_ms);
            text.len() as u32
        });
        let ends = ends.collect();
        Self { steps, text, ends }
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut from = 0;
        self.ends.iter().map(move |end| {
            let from = std::mem::replace(&mut from, *end as usize);
            &self.text[from..*end as usize]
        })
    }
}

fn push_matrix_row(out: &mut Vec<u8>, row: &Row, times: &StepTimes) {
    out.reserve(SERIES_BYTES + POINT_BYTES * row.cells.len());
    out.extend(b"{\"metric\":");
    push_labels(out, &row.labels);
    let mut values = List::new(b",\"values\":[");
    for (step, (cell, head)) in row.cells.iter().zip(times.iter()).enumerate() {
        if !is_absent(*cell) && (!row.has_histograms() || row.histogram(step).is_none()) {
            values.next(out);
            out.extend_from_slice(head);
            push_value(out, *cell);
            out.extend_from_slice(b"\"]");
        }
    }
    values.end(out);
    if row.has_histograms() {
        let mut histograms = List::new(b",\"histograms\":[");
        for (step, at_ms) in times.steps.iter().enumerate() {
            if let Some(histogram) = row.histogram(step) {
                histograms.next(out);
                push_histogram(out, at_ms, histogram);
            }
        }
        histograms.end(out);
    }
    out.push(b'}');
}

fn push_points(out: &mut Vec<u8>, points: &Points) {
    out.reserve(SERIES_BYTES + POINT_BYTES * points.samples.len());
    out.extend(b"{\"metric\":");
    push_labels(out, &points.labels);
    let mut values = List::new(b",\"values\":[");
    for sample in points.samples.iter() {
        values.next(out);
        push_point(out, sample.timestamp_ms, sample.value);
    }
    values.end(out);
    let mut histograms = List::new(b",\"histograms\":[");
    for (at_ms, histogram) in &points.histograms {
        histograms.next(out);
        push_histogram(out, *at_ms, histogram);
    }
    histograms.end(out);
    out.push(b'}');
}

/// What the labels of a series take, and a point of it, about.
const SERIES_BYTES: usize = 128;
const POINT_BYTES: usize = 32;

/// A list that is left out where it has nothing.
struct List {
    head: &'static [u8],
}

impl List {
    fn new(head: &'static [u8]) -> Self {
        Self { head }
    }

    fn next(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(std::mem::replace(&mut self.head, b","));
    }

    fn end(self, out: &mut Vec<u8>) {
        if self.head == b"," {
            out.push(b']');
        }
    }
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
    let mut buckets = List::new(b",\"buckets\":[");
    for bucket in histogram.buckets().iter().filter(|bucket| bucket.count != 0.0) {
        buckets.next(out);
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
    buckets.end(out);
    out.extend(b"}]");
}

fn push_point_head(out: &mut Vec<u8>, at_ms: i64) {
    out.push(b'[');
    push_time(out, at_ms);
    out.extend(b",\"");
}

fn push_point(out: &mut Vec<u8>, at_ms: i64, value: f64) {
    push_point_head(out, at_ms);
    push_value(out, value);
    out.extend(b"\"]");
}
