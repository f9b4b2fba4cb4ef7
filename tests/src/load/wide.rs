//! The same samples as remote write into several servers at once: a fleet whose metrics have 64 series on each host, or one.
//!
//! A request carries some ticks of one host and is encoded once for all servers. Labels are encoded when the load begins, so
//! that the generator does not take the time that the servers want.

use std::time::Duration;

use anyhow::ensure;
use futures::future::try_join_all;
use prost::encoding::encode_varint;

use super::host::{Host, is_counter};

/// A metric of 64 series on each host, all counters.
pub const WIDE: &str = "bench_cpu_seconds_total";
/// Series of [`WIDE`] on a host: 8 cores by 8 modes.
pub const WIDE_SERIES: u32 = 64;
/// A counter that each host has once.
pub const NARROW: &str = "bench_questions_total";

/// Ticks in one request.
const TICKS_PER_REQUEST: u32 = 10;
const PATIENCE: Duration = Duration::from_secs(60);
const TICK_MS: i64 = 1000;

#[derive(Debug, Clone, Copy)]
pub struct Fleet {
    pub hosts: u32,
    /// Per host, [`WIDE_SERIES`] and one at least.
    pub series: u32,
    pub ticks: u32,
    /// Time of the last tick.
    pub end_ms: i64,
}

impl Fleet {
    pub fn instance(host: u32) -> String {
        format!("db-{host:05}.example")
    }

    fn labels(host: u32, series: u32) -> Vec<(&'static str, String)> {
        let (name, further) = match series {
            0..WIDE_SERIES => {
                (WIDE.to_owned(), vec![("cpu", (series / 8).to_string()), ("mode", format!("m{}", series % 8))])
            }
            WIDE_SERIES => (NARROW.to_owned(), vec![]),
            _ => (format!("bench_status_value_{series:04}"), vec![]),
        };
        let first =
            [("__name__", name)].into_iter().chain(further.iter().filter(|(name, _)| *name < "instance").cloned());
        let job = if series < WIDE_SERIES { "node" } else { "mysql" };
        let middle = [("instance", Self::instance(host)), ("job", job.to_owned())];
        first.chain(middle).chain(further.iter().filter(|(name, _)| *name > "instance").cloned()).collect()
    }

    /// Which of a simulated host's values each series shows: counters come first, as [`WIDE`] and [`NARROW`] want them.
    fn values(&self) -> Vec<u32> {
        // A quarter of a host's values are counters, so the first WIDE_SERIES + 1 of these are among so many.
        let among = 0..self.series + 4 * (WIDE_SERIES + 1) + 100;
        let (mut counters, mut others): (Vec<u32>, Vec<u32>) = among.partition(|at| is_counter(*at));
        others.extend(counters.split_off(WIDE_SERIES as usize + 1));
        others.sort_unstable();
        counters.into_iter().chain(others).take(self.series as usize).collect()
    }

    /// Writes all ticks to each of `urls`, over so many connections to each.
    pub async fn write(self, urls: &[String], connections: u32) -> anyhow::Result<()> {
        ensure!(self.series > WIDE_SERIES, "a host has {WIDE_SERIES} series of one metric and one of another at least");
        let urls: std::sync::Arc<[String]> = urls.into();
        try_join_all((0..connections).map(|first| {
            let urls = urls.clone();
            async move { tokio::spawn(async move { self.connection(&urls, first, connections).await }).await? }
        }))
        .await?;
        Ok(())
    }

    async fn connection(self, urls: &[String], first: u32, connections: u32) -> anyhow::Result<()> {
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
        let values = self.values();
        let width = values.iter().max().map_or(0, |most| most + 1);
        let mut hosts: Vec<(Host, Vec<Vec<u8>>)> = (first..self.hosts)
            .step_by(connections as usize)
            .map(|host| {
                (Host::new(host, width), (0..self.series).map(|series| encoded(&Self::labels(host, series))).collect())
            })
            .collect();
        let start_ms = self.end_ms - i64::from(self.ticks.saturating_sub(1)) * TICK_MS;
        for tick in (0..self.ticks).step_by(TICKS_PER_REQUEST as usize) {
            let from_ms = start_ms + i64::from(tick) * TICK_MS;
            for (host, labels) in &mut hosts {
                let mut columns: Vec<Vec<u8>> = labels.clone();
                for at in 0..TICKS_PER_REQUEST.min(self.ticks - tick) {
                    host.step();
                    for (column, value) in columns.iter_mut().zip(&values) {
                        put_sample(column, host.value(*value), from_ms + i64::from(at) * TICK_MS);
                    }
                }
                let body = bytes::Bytes::from(snap::raw::Encoder::new().compress_vec(&request(&columns))?);
                try_join_all(urls.iter().map(|url| post(&client, url, body.clone()))).await?;
            }
        }
        Ok(())
    }
}

async fn post(client: &reqwest::Client, url: &str, body: bytes::Bytes) -> anyhow::Result<()> {
    let post = client.post(url).header("content-encoding", "snappy");
    let reply = post.header("content-type", "application/x-protobuf").body(body).send().await?;
    let status = reply.status();
    ensure!(status.is_success(), "{url} answered {status}: {}", reply.text().await.unwrap_or_default());
    Ok(())
}

/// A field of bytes: number, length, what it holds.
fn put_field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// The labels of `prometheus.TimeSeries`, its field 1.
fn encoded(labels: &[(&str, String)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in labels {
        let mut label = Vec::new();
        put_field(&mut label, 1, name.as_bytes());
        put_field(&mut label, 2, value.as_bytes());
        put_field(&mut out, 1, &label);
    }
    out
}

/// A sample of `prometheus.TimeSeries`, its field 2: a double and milliseconds.
fn put_sample(out: &mut Vec<u8>, value: f64, timestamp_ms: i64) {
    let mut sample = vec![1 << 3 | 1];
    sample.extend_from_slice(&value.to_le_bytes());
    sample.push(2 << 3);
    encode_varint(timestamp_ms as u64, &mut sample);
    put_field(out, 2, &sample);
}

fn request(columns: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(columns.iter().map(|column| column.len() + 4).sum());
    columns.iter().for_each(|column| put_field(&mut out, 1, column));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_sorted_and_counters_come_first() {
        let fleet = Fleet { hosts: 1, series: 200, ticks: 1, end_ms: 0 };
        for series in 0..fleet.series {
            let labels = Fleet::labels(7, series);
            assert!(labels.is_sorted(), "{labels:?}");
        }
        let values = fleet.values();
        assert_eq!(values.len(), 200);
        assert!(values[..=WIDE_SERIES as usize].iter().all(|at| is_counter(*at)));
        let mut distinct = values.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 200, "no value is shown twice");
    }
}
