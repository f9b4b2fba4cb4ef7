//! All that is counted, as samples.

use std::sync::atomic::Ordering;

use super::agents::Told;
use super::out::{Family, Out, counter, gauge, histogram};
use super::{Counter, REASONS, Telemetry};
use crate::fleet::Registry;
use crate::own::OwnSample;
use crate::store::{Label, StoreStats};

/// Of how many times the agents' histograms are written in one. A thousand agents have some thirteen thousand values in these that
/// change with every frame, which would be a twenty-fifth of all that their servers have.
const HISTOGRAMS_EVERY: u64 = 5;

/// What was written last, and of which agents: while these are the same, so are the series and their places.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub samples: Vec<OwnSample>,
    pub agents: Told,
    /// How often.
    pub times: u64,
}

impl Telemetry {
    /// Makes of what was written last what is written now.
    pub(super) fn samples(
        &self,
        written: &mut Written,
        registry: &Registry,
        own: &[Label],
        stats: &StoreStats,
        started_ms: i64,
    ) {
        let mut out = Out::over(&mut written.samples, own);
        let version = env!("CARGO_PKG_VERSION");
        out.push(&gauge("build_info", "The running version; always 1."), "", &[("version", version)], 1.0);
        let start = gauge("start_time_seconds", "When the collector started, in seconds since 1970.");
        out.push(&start, "", &[], started_ms as f64 / 1000.0);
        for (family, value) in self.counters() {
            out.push(&family, "", &[], value.get() as f64);
        }
        let refused = counter("refused_samples_total", "Samples that the store refused, by reason.");
        for (reason, value) in REASONS.iter().zip(&self.samples_refused) {
            out.push(&refused, "", &[("reason", reason)], value.get() as f64);
        }
        let frames = counter("frames_total", "Frames taken, by the lane that brought them.");
        for (lane, value) in [("live", &self.frames_live), ("backfill", &self.frames_backfill)] {
            out.push(&frames, "", &[("lane", lane)], value.get() as f64);
        }
        for (family, value) in [
            (gauge("streams", "Agents' streams that are open."), &self.streams),
            (gauge("unacked_frames", "Frames that are queryable and not yet durable."), &self.frames_unacked),
            (gauge("scrapes_running", "Readers of /metrics at this moment."), &self.scrapes),
        ] {
            out.push(&family, "", &[], value.0.load(Ordering::Relaxed) as f64);
        }
        let queryable = histogram("queryable_seconds", "From a frame's arrival until its samples were queryable.");
        out.histogram(&queryable, &[], &self.queryable);
        let durable = histogram("durable_seconds", "From a frame's arrival until it was on disk and could be acked.");
        out.histogram(&durable, &[], &self.durable);
        store(stats, &mut out);
        let is_full = written.times.is_multiple_of(HISTOGRAMS_EVERY);
        self.agents(registry, &mut written.agents, is_full, &mut out);
        out.end();
        written.times += 1;
    }

    fn counters(&self) -> [(Family, &Counter); 15] {
        [
            (counter("streams_refused_total", "Streams refused at hello."), &self.streams_refused),
            (counter("repeated_frames_total", "Frames that were stored already."), &self.frames_repeated),
            (counter("malformed_frames_total", "Frames that could not be decoded."), &self.frames_malformed),
            (
                counter("discarded_frames_total", "Frames malformed even when sent again, and given up."),
                &self.frames_discarded,
            ),
            (
                counter("key_frames_wanted_total", "Times an agent was asked to send all values."),
                &self.key_frames_wanted,
            ),
            (counter("ticks_total", "Ticks taken from agents."), &self.ticks),
            (counter("values_total", "Values that changed, as agents sent them."), &self.values),
            (counter("refused_series_total", "Series that were over a limit or malformed."), &self.series_refused),
            (counter("refused_ticks_total", "Ticks that were more than a frame may bring."), &self.ticks_refused),
            (counter("pushes_total", "Calls of Push."), &self.pushes),
            (counter("repeated_pushes_total", "Calls of Push that were stored already."), &self.pushes_repeated),
            (counter("pushed_samples_total", "Samples stored by Push."), &self.pushed_samples),
            (counter("aborted_scrapes_total", "Readers of /metrics too slow to go on with."), &self.scrapes_aborted),
            (counter("failed_tls_handshakes_total", "Connections that ended before they were safe."), &self.tls_failed),
            (counter("unauthorised_requests_total", "Requests without the right token."), &self.unauthorised),
        ]
    }
}

fn store(stats: &StoreStats, out: &mut Out<'_>) {
    for (family, value) in [
        (gauge("series", "Series that the store knows."), stats.series as f64),
        (gauge("index_bytes", "Memory of the names, labels and postings of all series."), stats.index_bytes as f64),
        (gauge("groups", "Groups that the store knows."), stats.groups as f64),
        (gauge("head_bytes", "Memory of samples that are not sealed."), stats.head_bytes as f64),
        (gauge("log_bytes", "Size of the log on disk."), stats.log_bytes as f64),
        (gauge("log_queue_bytes", "Written to the log and not flushed yet."), stats.log_behind_bytes as f64),
        (counter("log_written_bytes_total", "Written to the log."), stats.log_written_bytes as f64),
        (counter("flushes_total", "Flushes of the log."), stats.flushes as f64),
        (counter("flush_seconds_total", "Time that flushes of the log took."), stats.flush_seconds),
        (counter("failed_flushes_total", "Flushes of the log that failed."), stats.flush_failures as f64),
        (counter("sealed_bytes_total", "Written to blocks."), stats.sealed_bytes as f64),
        (counter("block_read_bytes_total", "Read from blocks."), stats.read_bytes as f64),
        (gauge("block_cached_bytes", "What queries have read from blocks and is kept."), stats.cached_bytes as f64),
        (counter("damaged_total", "Damaged records and values that were stepped over."), stats.damaged as f64),
        (gauge("disk_full", "1 while the disk is too full to take anything."), f64::from(u8::from(stats.disk_full))),
    ] {
        out.push(&family, "", &[], value);
    }
}
