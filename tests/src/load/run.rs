//! A simulated agent at work: ticks in their moment, acks noted, streams begun anew, what was not acked sent again.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures::future::join_all;
use lampad_proto::v1::ingest_client::IngestClient;
use lampad_proto::v1::{Lane, SequenceRange, Upward, Welcome, downward};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{Encoder, Pace, Plan};

/// Messages between an agent's task and its connection. Small: what waits here has not left.
const OUTBOX: usize = 4;

/// Between two tries to connect.
const RETRY: Duration = Duration::from_millis(200);

/// What an agent did and was told.
#[derive(Debug, Clone, Default)]
pub struct Record {
    pub agent: u32,
    pub start_ms: i64,
    pub interval_ms: i64,
    pub series: u32,
    pub change_percent: u8,
    /// Ticks 0 to this one, exclusive, came due.
    pub due: u64,
    /// Ticks that are not acked.
    pub unacked: BTreeSet<u64>,
    /// Per acked tick: from its moment until its ack came.
    pub latencies: Vec<Duration>,
    pub streams: u64,
    /// Of frames and dictionaries, as they are encoded.
    pub sent_bytes: u64,
    /// What the collector refused, in its words.
    pub refusals: Vec<String>,
}

/// All agents of a plan, until each has everything acked or lost its patience. Agents are spread over the interval.
pub async fn run(plan: &Plan) -> Vec<Record> {
    let agents = (0..plan.agents).map(|number| {
        let late = plan.interval.mul_f64(f64::from(number) / f64::from(plan.agents));
        let mut agent = LoadAgent::new(plan, plan.first_agent + number, late);
        tokio::spawn(async move {
            agent.work().await;
            agent.record
        })
    });
    join_all(agents.collect::<Vec<_>>()).await.into_iter().flatten().collect()
}

/// Fails where something was not acked, or an agent had to come again: what is measured then is something else.
pub fn undisturbed(records: &[Record]) -> anyhow::Result<()> {
    let unacked: usize = records.iter().map(|record| record.unacked.len()).sum();
    ensure!(unacked == 0, "{unacked} ticks were never acked");
    let again = records.iter().filter(|record| record.streams > 1).count();
    ensure!(
        again == 0,
        "the streams of {again} agents ended, and they had to come again; the collector's log says why"
    );
    Ok(())
}

pub struct LoadAgent {
    plan: Plan,
    encoder: Encoder,
    begin: Instant,
    /// Everything sent was acked at some time.
    has_begun: bool,
    pub record: Record,
}

/// One stream's own state.
struct Stream {
    outbox: mpsc::Sender<Upward>,
    inbox: Streaming<lampad_proto::v1::Downward>,
    window: usize,
    /// Ticks sent on this stream and not acked yet, by lane.
    live: BTreeSet<u64>,
    backfill: BTreeSet<u64>,
    /// Ticks to send on the back-fill lane.
    waiting: BTreeSet<u64>,
    /// The next live tick, and whether it must be a key tick.
    next: u64,
    key: bool,
    backfill_begun: bool,
}

impl LoadAgent {
    pub fn new(plan: &Plan, agent: u32, late: Duration) -> Self {
        let now_ms = jiff::Timestamp::now().as_millisecond() + plan.clock_ahead_ms;
        let start_ms = match plan.pace {
            Pace::Real => now_ms + late.as_millis() as i64,
            Pace::FlatOut => now_ms - plan.ticks as i64 * plan.interval_ms(),
        };
        let record = Record {
            agent,
            start_ms,
            interval_ms: plan.interval_ms(),
            series: plan.series,
            change_percent: plan.change_percent,
            ..Record::default()
        };
        let (encoder, begin) = (Encoder::new(plan, agent, start_ms), Instant::now() + late);
        Self { plan: plan.clone(), encoder, begin, has_begun: false, record }
    }

    /// As an agent whose identity is given: a copy of another one.
    pub fn with_identity(mut self, id: [u8; 16], epoch: u64) -> Self {
        (self.encoder.id, self.encoder.epoch) = (id, epoch);
        self
    }

    pub async fn work(&mut self) {
        let run = match self.plan.pace {
            Pace::Real => self.plan.interval * self.plan.ticks as u32,
            Pace::FlatOut => Duration::ZERO,
        };
        let end = self.begin + run + self.plan.patience;
        while !self.finished() && Instant::now() < end {
            let until = tokio::time::Instant::from_std(end);
            match tokio::time::timeout_at(until, self.one_stream()).await {
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(error)) => {
                    self.record.refusals.extend(refusal(&error));
                    tokio::time::sleep(RETRY).await;
                }
            }
            self.note_due();
        }
    }

    fn finished(&self) -> bool {
        self.record.due == self.plan.ticks && self.record.unacked.is_empty()
    }

    fn due_at(&self, tick: u64) -> Instant {
        match self.plan.pace {
            Pace::Real => self.begin + self.plan.interval * tick as u32,
            Pace::FlatOut => self.begin,
        }
    }

    /// Ticks that came due while nobody listened are to be back-filled.
    fn note_due(&mut self) {
        while self.plan.pace == Pace::Real
            && self.record.due < self.plan.ticks
            && self.due_at(self.record.due) <= Instant::now()
        {
            self.record.unacked.insert(self.record.due);
            self.record.due += 1;
        }
    }

    async fn connect(&mut self) -> anyhow::Result<Stream> {
        let mut client = IngestClient::connect(self.plan.collector.clone()).await?;
        let (outbox, requests) = mpsc::channel(OUTBOX);
        self.note_due();
        let pending = ranges(&self.record.unacked);
        outbox.send(self.encoder.hello(self.record.due, pending)).await?;
        let mut inbox = client.stream(ReceiverStream::new(requests)).await?.into_inner();
        let first = inbox.message().await?.context("the stream ended before the welcome")?;
        let Some(downward::Message::Welcome(welcome)) = first.message else { bail!("no welcome but {first:?}") };
        self.record.streams += 1;
        self.note_durable(&welcome);
        let dictionary = self.encoder.dictionary(Lane::Live);
        self.record.sent_bytes += dictionary.encoded_len() as u64;
        outbox.send(dictionary).await?;
        Ok(Stream {
            outbox,
            inbox,
            window: (welcome.window_frames as usize).max(1),
            live: BTreeSet::new(),
            backfill: BTreeSet::new(),
            waiting: self.record.unacked.clone(),
            next: self.record.due,
            key: true,
            backfill_begun: false,
        })
    }

    fn note_durable(&mut self, welcome: &Welcome) {
        let durable = |tick: &u64| {
            let sequence = Encoder::sequence(*tick);
            welcome.durable.iter().any(|range| (range.first..=range.last).contains(&sequence))
        };
        self.record.unacked.retain(|tick| !durable(tick));
    }

    async fn one_stream(&mut self) -> anyhow::Result<()> {
        let mut stream = self.connect().await?;
        while !self.finished() {
            let live_possible = stream.next < self.plan.ticks && stream.live.len() < stream.window;
            let due = tokio::time::Instant::from_std(self.due_at(stream.next));
            let backfill_possible = !stream.waiting.is_empty() && stream.backfill.len() < stream.window;
            tokio::select! {
                biased;
                message = stream.inbox.message() => {
                    let message = message?.context("the collector ended the stream")?;
                    self.take(&mut stream, message.message.context("an empty message")?)?;
                }
                () = tokio::time::sleep_until(due), if live_possible => self.send_live(&mut stream).await?,
                () = std::future::ready(()), if backfill_possible => self.send_backfill(&mut stream).await?,
            }
        }
        Ok(())
    }

    fn take(&mut self, stream: &mut Stream, message: downward::Message) -> anyhow::Result<()> {
        match message {
            downward::Message::Ack(ack) => {
                let lane = if ack.lane() == Lane::Live { &mut stream.live } else { &mut stream.backfill };
                // Acked are the sequences up to `through`; tick t has sequence t + 1.
                let later = lane.split_off(&ack.through);
                for tick in std::mem::replace(lane, later) {
                    self.record.unacked.remove(&tick);
                    self.record.latencies.push(self.due_at(tick).elapsed());
                }
                if self.record.unacked.is_empty() && !std::mem::replace(&mut self.has_begun, true) {
                    self.plan.begun.fetch_add(1, Ordering::Relaxed);
                }
            }
            // Rare and not what is measured here: a new stream begins with a key frame and back-fills the rest.
            downward::Message::KeyFrameWanted(wanted) => bail!("key frame wanted: {}", wanted.reason),
            downward::Message::Refusal(refusal) => self.record.refusals.push(refusal.reason),
            downward::Message::Pong(_) | downward::Message::Order(_) | downward::Message::Welcome(_) => {}
        }
        Ok(())
    }

    async fn send_live(&mut self, stream: &mut Stream) -> anyhow::Result<()> {
        let tick = stream.next;
        let frame = self.encoder.frame(Lane::Live, tick, stream.key);
        self.record.sent_bytes += frame.encoded_len() as u64;
        stream.outbox.send(frame).await.context("the stream is gone")?;
        stream.live.insert(tick);
        stream.key = false;
        stream.next += 1;
        self.record.unacked.insert(tick);
        self.record.due = self.record.due.max(stream.next);
        Ok(())
    }

    async fn send_backfill(&mut self, stream: &mut Stream) -> anyhow::Result<()> {
        let Some(tick) = stream.waiting.pop_first() else { return Ok(()) };
        if !std::mem::replace(&mut stream.backfill_begun, true) {
            stream.outbox.send(self.encoder.dictionary(Lane::Backfill)).await.context("the stream is gone")?;
        }
        stream.outbox.send(self.encoder.frame(Lane::Backfill, tick, true)).await.context("the stream is gone")?;
        stream.backfill.insert(tick);
        Ok(())
    }
}

/// What a collector says to an agent that it does not take; not that it could not be reached.
fn refusal(error: &anyhow::Error) -> Option<String> {
    let status = error.downcast_ref::<tonic::Status>()?;
    (status.code() != tonic::Code::Unavailable).then(|| status.message().to_owned())
}

fn ranges(ticks: &BTreeSet<u64>) -> Vec<SequenceRange> {
    let mut ranges: Vec<SequenceRange> = Vec::new();
    for sequence in ticks.iter().map(|tick| Encoder::sequence(*tick)) {
        match ranges.last_mut() {
            Some(range) if range.last + 1 == sequence => range.last = sequence,
            _ => ranges.push(SequenceRange { first: sequence, last: sequence }),
        }
    }
    ranges
}
