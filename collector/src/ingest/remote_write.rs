//! `POST /api/v1/write`: Prometheus' remote-write 1.0.
//!
//! Body:   a snappy block of [`WriteRequest`].
//! Groups: the series of one `job`/`instance`; every sample is stated, silence means absent.
//! Answer: 204 once durable; 400 names what was refused, the rest is stored; 415 for another form or encoding; 503 when the
//!         store takes nothing, so that the sender comes again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use lampad_proto::v1::{PushRefusal, PushSample};
use parking_lot::Mutex;
use prost::Message;
use tokio::time::timeout;

use super::Ingest;
use super::admit::cut;
use super::push::{DURABLE_WITHIN, Groups, Plan, SAMPLES_MAX};
use super::remote_write_wire::{Metadata, TimeSeries, WriteRequest};
use crate::sink::Unavailable;
use crate::store::{Label, Labels, METRIC_NAME, Meta, SeriesKey};

/// Bytes of a request as sent; Prometheus' own are a few hundred KiB.
const BODY_BYTES_MAX: usize = 16 << 20;
/// Bytes of a request once unpacked.
const MESSAGE_BYTES_MAX: usize = 128 << 20;
/// Families whose metadata is kept until their series come.
const FAMILIES_MAX: usize = 100_000;
/// Refusals that an answer names.
const NAMED_MAX: usize = 10;

struct Receiver {
    ingest: Arc<Ingest>,
    /// Metadata comes in requests of its own, before or after the series.
    families: Mutex<HashMap<String, Meta>>,
}

/// The path `/api/v1/write`.
pub fn remote_write_router(ingest: Arc<Ingest>) -> Router {
    let receiver = Receiver { ingest, families: Mutex::default() };
    Router::new()
        .route("/api/v1/write", post(write))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Arc::new(receiver))
}

async fn write(State(receiver): State<Arc<Receiver>>, headers: HeaderMap, body: Bytes) -> Response {
    if let Err(reason) = check_form(&headers) {
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, reason).into_response();
    }
    let mut durable = receiver.ingest.sink.durable();
    let stored = tokio::task::spawn_blocking(move || receiver.store(&body)).await;
    let (lsn, refused) = match stored {
        Ok(Ok(stored)) => stored,
        Ok(Err((status, reason))) => return (status, reason).into_response(),
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    };
    if let Some(lsn) = lsn
        && !matches!(timeout(DURABLE_WITHIN, durable.wait_for(|at| *at >= lsn)).await, Ok(Ok(_)))
    {
        return (StatusCode::SERVICE_UNAVAILABLE, "the samples are not on disk yet; send them again").into_response();
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

impl Receiver {
    /// Stores what can be stored. The position to wait for, and what was refused as text.
    fn store(&self, body: &[u8]) -> Result<(Option<crate::store::Lsn>, Option<String>), Failure> {
        let request = unpack(body).map_err(|reason| (StatusCode::BAD_REQUEST, reason))?;
        let ingest = &self.ingest;
        self.note_families(request.metadata);
        let samples: usize =
            request.timeseries.iter().map(|series| series.samples.len() + series.histograms.len()).sum();
        if samples > SAMPLES_MAX {
            let text = format!("{samples} samples in one request; send at most {SAMPLES_MAX}");
            return Err((StatusCode::BAD_REQUEST, text));
        }
        let mut refused = Vec::new();
        let mut groups = Groups::new();
        for (index, series) in request.timeseries.into_iter().enumerate() {
            let index = index as u32;
            match self.key(&series) {
                Ok((group, key)) => groups.entry(group).or_default().push((index, key, samples_of(series))),
                Err(reason) => refused.push(PushRefusal { series: index, reason }),
            }
        }
        let unavailable = |error: Unavailable| {
            let text = format!("the collector cannot store at present: {error}; send again later");
            (StatusCode::SERVICE_UNAVAILABLE, text)
        };
        let plan = Plan::of(ingest, None, groups, refused).map_err(unavailable)?;
        let mut reasons: Vec<String> = plan.refused.into_iter().map(|refusal| refusal.reason).collect();
        let mut lsn = None;
        if !plan.batch.ticks.is_empty() {
            let appended = ingest.sink.append(&plan.batch).map_err(unavailable)?;
            lsn = Some(appended.lsn);
            let refused = appended.refused.len() as u64;
            ingest.telemetry.pushed_samples.add(plan.samples.saturating_sub(refused));
            ingest.telemetry.refused(&appended.refused);
            reasons.extend(appended.refused.iter().map(ToString::to_string));
        }
        Ok((lsn, listed(&reasons)))
    }

    fn note_families(&self, metadata: Vec<Metadata>) {
        if metadata.is_empty() {
            return;
        }
        let mut families = self.families.lock();
        for family in metadata {
            if families.len() < FAMILIES_MAX || families.contains_key(&family.family) {
                let meta = Meta { kind: family.kind(), help: family.help.into(), unit: family.unit.into() };
                families.insert(family.family, meta);
            }
        }
    }

    /// The metadata of a metric: its own, or that of the histogram or summary which it is a part of.
    fn meta(&self, metric: &str) -> Option<Meta> {
        let families = self.families.lock();
        let part_of = || ["_bucket", "_count", "_sum"].iter().find_map(|part| families.get(metric.strip_suffix(part)?));
        families.get(metric).or_else(part_of).cloned()
    }

    fn key(&self, series: &TimeSeries) -> Result<(Arc<str>, SeriesKey), String> {
        let limits = &self.ingest.limits;
        let mut pairs = BTreeMap::new();
        for label in &series.labels {
            let (name, value) = (text(&label.name)?, text(&label.value)?);
            if pairs.insert(name, value).is_some() {
                return Err(format!("label {:?} comes twice in one series", cut(name)));
            }
        }
        let metric = pairs.get(METRIC_NAME).copied().unwrap_or_default();
        limits.metric(metric)?;
        limits.label_count(metric, pairs.len())?;
        for (name, value) in pairs.iter().filter(|(name, _)| **name != METRIC_NAME) {
            limits.label(name, value).map_err(|trouble| format!("{}: {trouble}", cut(metric)))?;
        }
        let of = |name: &str| pairs.get(name).copied().unwrap_or_default();
        let group = format!("remote_write {}/{}", of("job"), of("instance")).into();
        let labels = pairs.iter().map(|(name, value)| Label { name: (*name).into(), value: (*value).into() });
        Ok((group, SeriesKey { labels: Labels::new(labels), meta: self.meta(metric) }))
    }
}

fn unpack(body: &[u8]) -> Result<WriteRequest, String> {
    let bytes = snap::raw::decompress_len(body).map_err(|error| format!("the body is no snappy block: {error}"))?;
    if bytes > MESSAGE_BYTES_MAX {
        return Err(format!(
            "the body unpacks to {bytes} bytes, at most {MESSAGE_BYTES_MAX} are taken; send less at once"
        ));
    }
    let message = snap::raw::Decoder::new().decompress_vec(body);
    let message = message.map_err(|error| format!("the body is no snappy block: {error}"))?;
    WriteRequest::decode(&*message).map_err(|error| format!("the body is no remote-write request: {error}"))
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| {
        let shown = String::from_utf8_lossy(bytes);
        format!("label name or value {:?} is no UTF-8", cut(&shown))
    })
}

fn samples_of(series: TimeSeries) -> Vec<PushSample> {
    let floats = series.samples.into_iter().map(|sample| PushSample {
        timestamp_ms: sample.timestamp,
        value: sample.value,
        histogram: None,
    });
    let histograms = series.histograms.into_iter().map(|histogram| PushSample {
        timestamp_ms: histogram.timestamp,
        value: 0.0,
        histogram: Some(histogram.stored()),
    });
    floats.chain(histograms).collect()
}

fn listed(reasons: &[String]) -> Option<String> {
    if reasons.is_empty() {
        return None;
    }
    let mut text = reasons.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join("\n");
    if reasons.len() > NAMED_MAX {
        text.push_str(&format!("\nand {} more", reasons.len() - NAMED_MAX));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_bodies_are_named() {
        assert!(unpack(b"").is_err());
        assert!(unpack(&[0xff; 40]).is_err());
        let packed = snap::raw::Encoder::new().compress_vec(&[0x0a, 0xff]).unwrap();
        assert!(unpack(&packed).unwrap_err().contains("remote-write"));
    }

    #[test]
    fn other_forms_are_refused() {
        let with = |name: header::HeaderName, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            check_form(&headers)
        };
        assert!(check_form(&HeaderMap::new()).is_ok());
        assert!(with(header::CONTENT_TYPE, "application/x-protobuf;proto=prometheus.WriteRequest").is_ok());
        assert!(with(header::CONTENT_TYPE, "application/x-protobuf;proto=io.prometheus.write.v2.Request").is_err());
        assert!(with(header::CONTENT_TYPE, "application/json").is_err());
        assert!(with(header::CONTENT_ENCODING, "zstd").is_err());
    }
}
