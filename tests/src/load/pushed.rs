//! The same samples pushed in two ways: over the streaming protocol, and as Prometheus' remote write; as fast as they are taken,
//! or tick by tick, those of all hosts at the same moment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures::future::try_join_all;
use lampad_proto::v1::downward::Message as Down;
use lampad_proto::v1::ingest_client::IngestClient;
use lampad_proto::v1::{
    DecimalColumn, Dictionary, Downward, Frame, GroupDef, GroupTick, Hello, Label, Lane, MetricDef, MetricType,
    SeriesDef, Upward, upward::Message as Up,
};
use prost::Message as _;
use tokio::sync::{Barrier, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::host::{Host, digits};
use super::{by_group, series_of};

/// Series of one metric on one host.
const PARTS: u32 = 4;

/// Time for one answer.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
pub struct Amount {
    pub hosts: u32,
    /// Per host.
    pub series: u32,
    pub ticks: u32,
    /// Groups into which a host's series are dealt.
    pub groups: u32,
    /// Ticks come due once a second; else at once.
    pub paced: bool,
}

/// When the ticks of a run come due.
#[derive(Clone, Copy)]
struct Clock {
    begin: Instant,
    start_ms: i64,
    paced: bool,
}

impl Amount {
    pub fn samples(&self) -> u64 {
        u64::from(self.hosts) * u64::from(self.series) * u64::from(self.ticks)
    }

    /// What comes at once ends some seconds ago.
    fn clock(&self) -> Clock {
        let now_s = jiff::Timestamp::now().as_second();
        let start_s = if self.paced { now_s } else { now_s - i64::from(self.ticks) - 10 };
        Clock { begin: Instant::now(), start_ms: start_s * 1000, paced: self.paced }
    }
}

impl Clock {
    fn ms(&self, tick: u32) -> i64 {
        self.start_ms + i64::from(tick) * 1000
    }

    async fn due(&self, tick: u32) {
        if self.paced {
            tokio::time::sleep_until((self.begin + Duration::from_secs(tick.into())).into()).await;
        }
    }
}

fn instance(host: u32) -> String {
    format!("db-{host:05}.example")
}

fn metric(series: u32) -> String {
    format!("bench_status_value_{:03}_total", series / PARTS)
}

/// A host's stream, open until this is dropped.
pub struct Open {
    _outbox: mpsc::Sender<Upward>,
    _answers: tonic::Streaming<Downward>,
}

/// Pushes over one stream per host; returns when everything is acked. No host sends a second tick before the first one of all is
/// acked: so it is with remote write too, and half way there are all series, not those of the hosts that were quick. An agent stays
/// connected when it has nothing to say, and what its connection takes is part of what a collector takes.
pub async fn native(url: &str, amount: Amount) -> anyhow::Result<Vec<Open>> {
    let (clock, begun) = (amount.clock(), Arc::new(Barrier::new(amount.hosts as usize)));
    try_join_all((0..amount.hosts).map(|host| {
        let (url, begun) = (url.to_owned(), begun.clone());
        async move { tokio::spawn(stream(url, amount, host, clock, begun)).await? }
    }))
    .await
}

async fn stream(url: String, amount: Amount, host: u32, clock: Clock, begun: Arc<Barrier>) -> anyhow::Result<Open> {
    let mut client = IngestClient::connect(url).await?;
    let (outbox, requests) = mpsc::channel(2);
    outbox.send(hello(host)).await?;
    let mut answers = client.stream(ReceiverStream::new(requests)).await?.into_inner();
    let welcome = tokio::time::timeout(PATIENCE, answers.message()).await??.context("no welcome")?;
    let Some(Down::Welcome(welcome)) = welcome.message else { bail!("no welcome but {welcome:?}") };
    outbox.send(dictionary(amount)).await.context("the collector ended the stream")?;
    let (mut values, mut acked) = (Host::new(host, amount.series), 0);
    let mut before = values.clone();
    for tick in 0..amount.ticks {
        values.step();
        clock.due(tick).await;
        let frame = frame(amount, tick, clock.ms(tick), &before, &values);
        outbox.send(frame).await.context("the collector ended the stream")?;
        before.clone_from(&values);
        if tick == 0 {
            acked = ack(&mut answers).await?;
            begun.wait().await;
        }
        while u64::from(tick) + 1 >= acked + u64::from(welcome.window_frames) {
            acked = ack(&mut answers).await?;
        }
    }
    while acked < u64::from(amount.ticks) {
        acked = ack(&mut answers).await?;
    }
    Ok(Open { _outbox: outbox, _answers: answers })
}

async fn ack(answers: &mut tonic::Streaming<Downward>) -> anyhow::Result<u64> {
    let answer = tokio::time::timeout(PATIENCE, answers.message()).await.context("no ack in time")??;
    match answer.context("the stream ended")?.message {
        Some(Down::Ack(ack)) => Ok(ack.through),
        other => bail!("no ack but {other:?}"),
    }
}

fn up(message: Up) -> Upward {
    Upward { message: Some(message) }
}

fn hello(host: u32) -> Upward {
    up(Up::Hello(Hello {
        protocol_min: 1,
        protocol_max: 1,
        agent_id: rand::random::<[u8; 16]>().to_vec(),
        epoch: 1,
        labels: vec![Label { name: "instance".into(), value: instance(host) }],
        clock_ms: jiff::Timestamp::now().as_millisecond(),
        next_sequence: 1,
        ..Hello::default()
    }))
}

fn dictionary(amount: Amount) -> Upward {
    let mut symbols: Vec<String> = ["", "job", "mysql", "part"].map(String::from).into();
    let mut symbol = |text: String| {
        symbols.push(text);
        symbols.len() as u32 - 1
    };
    let parts: Vec<u32> = (0..PARTS).map(|part| symbol(part.to_string())).collect();
    let groups = (0..amount.groups)
        .map(|number| GroupDef { name: symbol(format!("bench.{number}")), labels: vec![1, 2], interval_ms: 1000 })
        .collect();
    let metrics = (0..amount.series.div_ceil(PARTS))
        .map(|number| MetricDef {
            name: symbol(metric(number * PARTS)),
            r#type: MetricType::Gauge.into(),
            ..MetricDef::default()
        })
        .collect();
    let series = by_group(amount.groups, amount.series)
        .map(|(group, number)| SeriesDef {
            group,
            metric: number / PARTS,
            labels: vec![3, parts[(number % PARTS) as usize]],
        })
        .collect();
    up(Up::Dictionary(Dictionary { lane: Lane::Live.into(), reset: true, groups, metrics, series, symbols }))
}

fn frame(amount: Amount, tick: u32, base_ms: i64, before: &Host, values: &Host) -> Upward {
    up(Up::Frame(Frame {
        lane: Lane::Live.into(),
        sequence: u64::from(tick) + 1,
        base_ms,
        sent_ms: jiff::Timestamp::now().as_millisecond(),
        ticks: (0..amount.groups).map(|group| group_tick(amount, group, tick == 0, before, values)).collect(),
    }))
}

fn group_tick(amount: Amount, group: u32, key: bool, before: &Host, values: &Host) -> GroupTick {
    let mut columns: Vec<DecimalColumn> = Vec::new();
    let mut last: Vec<u32> = Vec::new();
    for series in series_of(group, amount.groups, amount.series) {
        let base = if key { 0 } else { before.units(series) };
        if !key && base == values.units(series) {
            continue;
        }
        let digits = digits(series);
        let at = columns.iter().position(|column| column.digits == digits).unwrap_or_else(|| {
            columns.push(DecimalColumn { digits, ..DecimalColumn::default() });
            last.push(0);
            columns.len() - 1
        });
        columns[at].refs.push(series - std::mem::replace(&mut last[at], series));
        columns[at].deltas.push(values.units(series) - base);
    }
    GroupTick { group, key, decimals: columns, ..GroupTick::default() }
}

/// Pushes as remote write 1.0, a request per host and tick, over so many connections.
pub async fn remote_write(url: &str, amount: Amount, connections: u32) -> anyhow::Result<()> {
    let clock = amount.clock();
    try_join_all((0..connections).map(|connection| {
        let url = url.to_owned();
        async move { tokio::spawn(requests(url, amount, (connection, connections), clock)).await? }
    }))
    .await?;
    Ok(())
}

async fn requests(url: String, amount: Amount, (first, step): (u32, u32), clock: Clock) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
    let numbers = (first..amount.hosts).step_by(step as usize);
    let mut hosts: Vec<(Host, Vec<Vec<WriteLabel>>)> = numbers
        .map(|host| (Host::new(host, amount.series), (0..amount.series).map(|series| labels(host, series)).collect()))
        .collect();
    for tick in 0..amount.ticks {
        clock.due(tick).await;
        let timestamp = clock.ms(tick);
        for (host, labels) in &mut hosts {
            host.step();
            let series = labels.iter_mut().zip(0..).map(|(labels, number)| WriteSeries {
                labels: std::mem::take(labels),
                samples: vec![WriteSample { value: host.value(number), timestamp }],
            });
            let request = WriteRequest { series: series.collect() };
            let body = snap::raw::Encoder::new().compress_vec(&request.encode_to_vec())?;
            *labels = request.series.into_iter().map(|series| series.labels).collect();
            let post = client.post(&url).header("content-encoding", "snappy");
            let reply = post.header("content-type", "application/x-protobuf").body(body).send().await?;
            let status = reply.status();
            ensure!(status.is_success(), "{url} answered {status}: {}", reply.text().await.unwrap_or_default());
        }
    }
    Ok(())
}

fn labels(host: u32, series: u32) -> Vec<WriteLabel> {
    let label = |name: &str, value: String| WriteLabel { name: name.into(), value };
    vec![
        label("__name__", metric(series)),
        label("instance", instance(host)),
        label("job", "mysql".into()),
        label("part", (series % PARTS).to_string()),
    ]
}

#[derive(Clone, PartialEq, prost::Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    series: Vec<WriteSeries>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WriteSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<WriteLabel>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<WriteSample>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WriteLabel {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WriteSample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}
