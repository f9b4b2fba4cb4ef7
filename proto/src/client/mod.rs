//! A small client for custom pushers: a backup job, a proxy, an application that has three numbers to tell.
//!
//! ```no_run
//! use lampad_proto::client::{Client, Options};
//!
//! # async fn example() -> Result<(), lampad_proto::client::PushError> {
//! let options = Options::new("http://127.0.0.1:9391").label("job", "backup").label("instance", "db7");
//! let mut client = Client::connect(options)?;
//!
//! client.gauge("backup_size_bytes", "Size of the last backup.", &[("database", "shop")], 7.3e9)?;
//! client.counter("backup_runs_total", "Backups since the job was set up.", &[("database", "shop")], 412.0)?;
//!
//! let report = client.flush().await?;
//! println!("{} samples are durable", report.stored);
//! for refused in &report.refused {
//!     eprintln!("{}: {}", refused.series, refused.reason);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Samples wait in the client until [`Client::flush`], which sends them in batches, tries again while the collector cannot be
//! reached, and returns when the collector has them on disk. A batch that is sent twice is stored once: the collector knows it by
//! the client's random id and the batch's number. A client that is dropped without a flush loses what waited.

mod error;
mod options;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;

use crate::v1::ingest_client::IngestClient;
use crate::v1::{Label, MetricType, PushReply, PushRequest, PushSample, PushSeries};

pub use error::{PushError, way_out};
pub use options::{Options, Tls};

/// Most samples that wait for a flush. A pusher that does not flush must not grow without end.
pub const WAITING_MAX: usize = 100_000;

/// Series in one request: small enough for every message limit on the way, large enough to make a round trip worth it.
const BATCH_SERIES: usize = 1_000;

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// What became of the samples of a flush.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Samples that are on the collector's disk.
    pub stored: u64,
    pub refused: Vec<RefusedSeries>,
}

/// A series that the collector did not take, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedSeries {
    pub series: String,
    pub reason: String,
}

/// Batches samples and pushes them.
#[derive(Debug)]
pub struct Client {
    rpc: IngestClient<Channel>,
    options: Options,
    authorization: Option<MetadataValue<Ascii>>,
    pusher_id: [u8; 16],
    sequence: u64,
    /// Series of the batch that was sent under `sequence` and not answered, 0 when there is none. It may be stored already,
    /// so what is sent under that number must stay the same.
    unanswered: usize,
    waiting: Vec<PushSeries>,
}

impl Client {
    /// Checks the options. The connection is made by the first flush, so a collector that is down is no error here.
    pub fn connect(options: Options) -> Result<Self, PushError> {
        let authorization = options.authorization()?;
        let rpc = IngestClient::new(options.endpoint()?.connect_lazy());
        Ok(Self {
            rpc,
            options,
            authorization,
            pusher_id: rand::random(),
            sequence: 0,
            unanswered: 0,
            waiting: Vec::new(),
        })
    }

    /// Adds a sample of a value that goes up and down, stamped now.
    pub fn gauge(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) -> Result<(), PushError> {
        self.push(series(MetricType::Gauge, name, help, labels, value))
    }

    /// Adds a sample of a value that only grows, stamped now. `value` is the total, not the step.
    pub fn counter(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) -> Result<(), PushError> {
        self.push(series(MetricType::Counter, name, help, labels, value))
    }

    /// Adds a series of any form. The labels of the options are put beside its own, which win.
    pub fn push(&mut self, mut series: PushSeries) -> Result<(), PushError> {
        if self.waiting.len() >= WAITING_MAX {
            return Err(PushError::Full { waiting: self.waiting.len() });
        }
        for (name, value) in &self.options.labels {
            if series.labels.iter().all(|label| label.name != *name) {
                series.labels.push(Label { name: name.clone(), value: value.clone() });
            }
        }
        self.waiting.push(series);
        Ok(())
    }

    /// Samples that wait for a flush.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Pushes what waits and returns once the collector has it on disk. On an error the rest, beginning with the batch that
    /// failed, keeps waiting, so a later flush goes on where this one ended; see [`Self::discard`].
    pub async fn flush(&mut self) -> Result<Report, PushError> {
        let mut report = Report::default();
        while !self.waiting.is_empty() {
            let batch = match self.unanswered {
                0 => self.waiting.len().min(BATCH_SERIES),
                unanswered => unanswered,
            };
            self.unanswered = batch;
            let request = PushRequest {
                series: self.waiting[..batch].to_vec(),
                pusher_id: self.pusher_id.to_vec(),
                sequence: self.sequence,
            };
            let reply = self.deliver(request).await?;
            self.sequence += 1;
            self.unanswered = 0;
            report.stored += reply.stored;
            report.refused.extend(reply.refused.into_iter().map(|refused| RefusedSeries {
                series: self.waiting.get(refused.series as usize).map(describe).unwrap_or_default(),
                reason: refused.reason,
            }));
            self.waiting.drain(..batch);
        }
        Ok(report)
    }

    /// Gives up the batch that the last flush failed with, which a collector that refuses it would refuse again. Returns how
    /// many series that were; without a failed batch there are none.
    pub fn discard(&mut self) -> usize {
        let given_up = std::mem::take(&mut self.unanswered);
        self.waiting.drain(..given_up);
        // What was sent under this number may be stored, so that it stands for nothing else.
        self.sequence += u64::from(given_up > 0);
        given_up
    }

    /// Sends one request until it is answered, refused, or the time of the options is over.
    async fn deliver(&mut self, request: PushRequest) -> Result<PushReply, PushError> {
        let deadline = Instant::now() + self.options.give_up_after;
        let mut backoff = BACKOFF_FIRST;
        loop {
            let mut call = tonic::Request::new(request.clone());
            if let Some(token) = &self.authorization {
                call.metadata_mut().insert("authorization", token.clone());
            }
            let status = match tokio::time::timeout_at(deadline, self.rpc.push(call)).await {
                Ok(Ok(reply)) => return Ok(reply.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => tonic::Status::deadline_exceeded("no answer in time"),
            };
            let error = PushError::from_status(&self.options.collector, status);
            if !error.is_passing() || Instant::now() + backoff >= deadline {
                return Err(error);
            }
            tracing::debug!(%error, ?backoff, "push failed, trying again");
            // Half of the wait is random, so that pushers that failed together do not come back together.
            tokio::time::sleep(backoff.mul_f64(rand::random_range(0.5..=1.0))).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }
}

fn series(kind: MetricType, name: &str, help: &str, labels: &[(&str, &str)], value: f64) -> PushSeries {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    PushSeries {
        name: name.into(),
        labels: labels.iter().map(|(name, value)| Label { name: (*name).into(), value: (*value).into() }).collect(),
        r#type: kind.into(),
        help: help.into(),
        unit: String::new(),
        samples: vec![PushSample { timestamp_ms: now.as_millis() as i64, value, histogram: None }],
    }
}

fn describe(series: &PushSeries) -> String {
    let show = |label: &Label| format!("{}={:?}", crate::shown(&label.name), crate::shown(&label.value));
    let labels: Vec<String> = series.labels.iter().map(show).collect();
    format!("{}{{{}}}", crate::shown(&series.name), labels.join(", "))
}

#[cfg(test)]
mod tests;
