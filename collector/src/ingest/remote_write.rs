//! `POST /api/v1/write`: Prometheus' remote-write 1.0.
//!
//! Body:   a snappy block of a write request, see `request`.
//! Answer: 204 once durable; 400 names what was refused, the rest is stored; 415 for another form or encoding; 503 when the
//!         store takes nothing, so that the sender comes again.

mod families;
mod known;
mod plan;
mod request;
mod wire;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use parking_lot::Mutex;
use tokio::time::timeout;

use self::families::Families;
use self::known::Known;
use self::plan::{Plan, Refusals};
use self::request::Request;
use super::Ingest;
use super::push::{DURABLE_WITHIN, SAMPLES_MAX};
use crate::sink::Unavailable;
use crate::store::{Exemplar, Exemplars, Label, Labels, Lsn, Refused};

/// Bytes of a request as sent; Prometheus' own are a few hundred KiB.
const BODY_BYTES_MAX: usize = 16 << 20;

/// A body up to this size is taken by the task that read it: about a millisecond. A larger one gets a thread.
const LIGHT_BYTES: usize = 64 << 10;

/// Buffers for unpacked requests that wait for the next one, and how long one may be to be kept.
const BUFFERS_MAX: usize = 8;
const BUFFER_BYTES_MAX: usize = 1 << 20;

struct Receiver {
    ingest: Arc<Ingest>,
    families: Families,
    known: Known,
    exemplars: Arc<Exemplars>,
    buffers: Mutex<Vec<Vec<u8>>>,
}

/// The path `/api/v1/write`.
pub fn remote_write_router(ingest: Arc<Ingest>, exemplars: Arc<Exemplars>) -> Router {
    Router::new()
        .route("/api/v1/write", post(write))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Arc::new(Receiver::new(ingest, exemplars)))
}

async fn write(State(receiver): State<Arc<Receiver>>, headers: HeaderMap, body: Bytes) -> Response {
    if let Err(reason) = check_form(&headers) {
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, reason).into_response();
    }
    let sink = receiver.ingest.sink.clone();
    let stored = match body.len() {
        ..=LIGHT_BYTES => Ok(receiver.take(&body)),
        _ => tokio::task::spawn_blocking(move || receiver.take(&body)).await,
    };
    let (lsn, refused) = match stored {
        Ok(Ok(stored)) => stored,
        Ok(Err((status, reason))) => return (status, reason).into_response(),
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    };
    if let Some(lsn) = lsn {
        let mut durable = sink.durable();
        sink.flush_soon();
        if !matches!(timeout(DURABLE_WITHIN, durable.wait_for(|at| *at >= lsn)).await, Ok(Ok(_))) {
            return (StatusCode::SERVICE_UNAVAILABLE, "the samples are not on disk yet; send them again")
                .into_response();
        }
    }
    match refused {
        None => StatusCode::NO_CONTENT.into_response(),
        Some(text) => (StatusCode::BAD_REQUEST, text).into_response(),
    }
}

/// Missing headers are taken as remote-write 1.0, as Prometheus does.
fn check_form(headers: &HeaderMap) -> Result<(), String> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let encoding = text(header::CONTENT_ENCODING);
    if !matches!(encoding, "" | "snappy") {
        return Err(format!("content encoding {encoding:?} is not understood; send snappy"));
    }
    let mut parts = text(header::CONTENT_TYPE).split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default();
    let proto = parts.find_map(|part| part.strip_prefix("proto="));
    let known = proto.is_none_or(|proto| proto.trim_matches('"') == "prometheus.WriteRequest");
    if !matches!(kind, "" | "application/x-protobuf") || !known {
        let sent = text(header::CONTENT_TYPE);
        return Err(format!(
            "content type {sent:?} is not understood; send remote-write 1.0 as application/x-protobuf"
        ));
    }
    Ok(())
}

type Failure = (StatusCode, String);

/// What came of a request: the position to wait for, and what was refused as text.
type Taken = (Option<Lsn>, Option<String>);

impl Receiver {
    fn new(ingest: Arc<Ingest>, exemplars: Arc<Exemplars>) -> Self {
        Self { ingest, families: Families::default(), known: Known::default(), exemplars, buffers: Mutex::default() }
    }

    fn take(&self, body: &[u8]) -> Result<Taken, Failure> {
        let mut buffer = self.buffers.lock().pop().unwrap_or_default();
        let taken = match unpack(body, &mut buffer, self.ingest.limits.request_bytes) {
            Ok(message) => self.store(message),
            Err(reason) => Err((StatusCode::BAD_REQUEST, reason)),
        };
        let mut buffers = self.buffers.lock();
        if buffers.len() < BUFFERS_MAX && buffer.capacity() <= BUFFER_BYTES_MAX {
            buffers.push(buffer);
        }
        taken
    }

    /// Stores what can be stored.
    fn store(&self, message: &[u8]) -> Result<Taken, Failure> {
        let mut request =
            Request::read(message).map_err(|malformed| (StatusCode::BAD_REQUEST, malformed.to_string()))?;
        let samples = request.samples.len() + request.histograms.len();
        if samples > SAMPLES_MAX {
            let text = format!("{samples} samples in one request; send at most {SAMPLES_MAX}");
            return Err((StatusCode::BAD_REQUEST, text));
        }
        if self.families.note(std::mem::take(&mut request.metadata), &self.ingest.limits) {
            // Series are described when they are defined, so those that are known must be defined again.
            self.known.clear();
        }
        self.keep_exemplars(&request);
        let unavailable = |error: Unavailable| {
            let text = format!("the collector cannot store at present: {error}; send again later");
            (StatusCode::SERVICE_UNAVAILABLE, text)
        };
        let (plan, appended) = {
            let plan = Plan::of(self, &request).map_err(unavailable)?;
            if plan.batch.ticks.is_empty() {
                return Ok((None, self.tell(plan.refused, samples)));
            }
            let appended = self.ingest.sink.append(&plan.batch).map_err(unavailable)?;
            // Absent for longer than the retention, a series was forgotten, and its place is another's or nobody's. What was
            // stored of the request is there already and costs nothing.
            match appended.refused.iter().any(|refused| matches!(refused, Refused::Invalid(_))) {
                false => (plan, appended),
                true => {
                    self.known.clear();
                    let plan = Plan::of(self, &request).map_err(unavailable)?;
                    let appended = self.ingest.sink.append(&plan.batch).map_err(unavailable)?;
                    (plan, appended)
                }
            }
        };
        let mut refused = plan.refused;
        self.ingest.telemetry.pushed_samples.add(plan.samples.saturating_sub(appended.refused.len() as u64));
        self.ingest.telemetry.refused(&appended.refused);
        refused.samples += appended.refused.len() as u64;
        appended.refused.iter().for_each(|of_store| refused.name(|| of_store.to_string()));
        Ok((Some(appended.lsn), self.tell(refused, samples)))
    }

    /// Those that cannot be kept are left out without a word to the sender, as Prometheus does: the samples are what counts.
    fn keep_exemplars(&self, request: &Request<'_>) {
        let mut exemplars = request.exemplars.iter();
        for series in request.series.iter().filter(|series| series.exemplars > 0) {
            let own: Vec<_> = exemplars.by_ref().take(series.exemplars as usize).collect();
            let Ok((_, key)) = self.key(series) else { continue };
            for sent in own {
                let text = |bytes: &[u8]| Arc::from(String::from_utf8_lossy(bytes));
                let label = |sent: &wire::Label| Label { name: text(&sent.name), value: text(&sent.value) };
                let labels = Labels::new(sent.labels.iter().map(label));
                let exemplar = Exemplar { labels, value: sent.value, timestamp_ms: sent.timestamp };
                if let Err(reason) = self.exemplars.keep(&key.labels, exemplar) {
                    tracing::debug!(series = %key.labels, %reason, "an exemplar is left out");
                }
            }
        }
    }

    /// Counts and logs what was refused; the text for the sender.
    fn tell(&self, refused: Refusals, samples: usize) -> Option<String> {
        let first = refused.reasons.first()?;
        self.ingest.telemetry.series_refused.add(refused.series);
        if let Some(left_out) = self.ingest.repeats.tell("remote_write") {
            let (series, samples) = (refused.series, refused.samples);
            tracing::warn!(series, samples, left_out, first, "remote-write samples refused");
        }
        let mut text = format!("{} of {samples} samples are refused, the rest is stored:\n", refused.samples);
        text.push_str(&refused.reasons.join("\n"));
        let named = refused.reasons.len() as u64;
        if refused.series.max(refused.samples) > named {
            text.push_str("\nand more");
        }
        Some(text)
    }
}

/// Unpacks a body into a buffer that may hold anything from before.
fn unpack<'a>(body: &[u8], buffer: &'a mut Vec<u8>, most: usize) -> Result<&'a [u8], String> {
    let no_block = |error: snap::Error| format!("the body is no snappy block: {error}");
    let bytes = snap::raw::decompress_len(body).map_err(no_block)?;
    if bytes > most {
        return Err(format!(
            "the body unpacks to {bytes} bytes, at most {most} are taken; send less at once, or raise --limit-request-bytes"
        ));
    }
    if buffer.len() < bytes {
        buffer.resize(bytes, 0);
    }
    let length = snap::raw::Decoder::new().decompress(body, buffer).map_err(no_block)?;
    Ok(&buffer[..length])
}

#[cfg(test)]
mod tests;
