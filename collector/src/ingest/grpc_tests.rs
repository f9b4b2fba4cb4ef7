//! The service over loopback, driven by a client built by hand.

mod admission;
mod frames;
mod pushes;

use std::sync::Arc;
use std::time::Duration;

use lampad_proto::v1::downward::Message as Down;
use lampad_proto::v1::ingest_client::IngestClient;
use lampad_proto::v1::upward::Message as Up;
use lampad_proto::v1::{
    Dictionary, Downward, Frame, GroupDef, GroupTick, Hello, Label, Lane, MetricDef, Ping, PushRequest, PushSample,
    PushSeries, SequenceRange, SeriesDef, Upward,
};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::{Gate, Ingest, serve};
use crate::auth::{Access, Rules};
use crate::clock::now_ms;
use crate::fleet::{Job, Registry};
use crate::limits::Limits;
use crate::logging::Repeats;
use crate::recorder::{Recorder, until};
use crate::store::{Progress, Value};

const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    recorder: Arc<Recorder>,
    ingest: Arc<Ingest>,
    url: String,
}

async fn server(flushes: bool, rules: Rules) -> Server {
    let recorder = Arc::new(Recorder::new(flushes));
    let ingest = Arc::new(Ingest {
        sink: recorder.clone(),
        registry: Registry::new(100, []),
        telemetry: Arc::default(),
        limits: Arc::new(Limits::default()),
        access: Arc::new(Access::new(rules)),
        repeats: Repeats::default(),
        symbols: Arc::default(),
        defining: Default::default(),
        shutdown: CancellationToken::new(),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let gate = Gate::new(Progress::default(), Limits::default().message_bytes);
    gate.open(ingest.clone());
    let end = ingest.shutdown.clone();
    tokio::spawn(async move { serve(gate, TcpListenerStream::new(listener), end.cancelled_owned()).await });
    Server { recorder, ingest, url }
}

struct Agent {
    up: mpsc::Sender<Upward>,
    down: Streaming<Downward>,
}

fn hello(id: u8, instance: &str) -> Hello {
    Hello {
        protocol_min: 1,
        protocol_max: 1,
        agent_id: vec![id; 16],
        epoch: 7,
        labels: vec![Label { name: "instance".into(), value: instance.into() }],
        next_sequence: 1_000,
        clock_ms: now_ms(),
        ..Hello::default()
    }
}

impl Server {
    async fn client(&self) -> IngestClient<Channel> {
        IngestClient::connect(self.url.clone()).await.unwrap()
    }

    async fn connect(&self, hello: Hello) -> Result<Agent, Status> {
        let (up, stream) = mpsc::channel(4096);
        up.send(Upward { message: Some(Up::Hello(hello)) }).await.unwrap();
        let down = self.client().await.stream(one_by_one(stream)).await?.into_inner();
        let mut agent = Agent { up, down };
        let Down::Welcome(welcome) = agent.next().await else { panic!("no Welcome") };
        assert_eq!(welcome.protocol, 1);
        Ok(agent)
    }
}

/// Each message leaves on its own, as those of a tick do; what is there at once the transport would put into one piece.
fn one_by_one(messages: mpsc::Receiver<Upward>) -> impl Stream<Item = Upward> {
    futures::stream::unfold(messages, async |mut messages| {
        tokio::task::yield_now().await;
        messages.recv().await.map(|message| (message, messages))
    })
}

impl Agent {
    async fn send(&self, message: Up) {
        self.up.send(Upward { message: Some(message) }).await.unwrap();
    }

    async fn next(&mut self) -> Down {
        let message = timeout(PATIENCE, self.down.message()).await.expect("an answer in time").unwrap();
        message.unwrap().message.unwrap()
    }

    /// All answers up to that to a ping sent now, without it.
    async fn answers(&mut self) -> Vec<Down> {
        self.send(Up::Ping(Ping { id: 42, clock_ms: now_ms(), modules: vec![] })).await;
        let mut all = Vec::new();
        loop {
            match self.next().await {
                Down::Pong(pong) if pong.id == 42 => return all,
                other => all.push(other),
            }
        }
    }

    async fn dictionary(&self) {
        self.dictionary_of(2).await;
    }

    /// Two series without labels of their own, and as many more with one as are wanted.
    async fn dictionary_of(&self, series: u32) {
        let mut symbols: Vec<String> = ["", "host.cpu", "job", "node", "a_total", "b"].map(String::from).into();
        let plain = |metric| SeriesDef { group: 0, metric, labels: vec![] };
        let labelled = (0..series - 2).map(|more| SeriesDef { labels: vec![5, 6 + more], ..plain(0) });
        symbols.extend((0..series - 2).map(|more| format!("value{more}")));
        let metric = |name| MetricDef { name, ..MetricDef::default() };
        self.send(Up::Dictionary(Dictionary {
            lane: Lane::Live.into(),
            reset: true,
            symbols,
            groups: vec![GroupDef { name: 1, labels: vec![2, 3], interval_ms: 1000 }],
            metrics: vec![metric(4), metric(5)],
            series: [plain(0), plain(1)].into_iter().chain(labelled).collect(),
        }))
        .await;
    }

    async fn frame(&self, sequence: u64, key: bool, values: &[(u32, f64)]) {
        // Ticks ascend, however fast frames follow each other.
        static LAST_MS: Mutex<i64> = Mutex::new(0);
        let at_ms = {
            let mut last_ms = LAST_MS.lock();
            *last_ms = now_ms().max(*last_ms + 1);
            *last_ms
        };
        self.frame_at(at_ms, sequence, key, values).await;
    }

    async fn frame_at(&self, at_ms: i64, sequence: u64, key: bool, values: &[(u32, f64)]) {
        let mut last = 0;
        let float_refs = values.iter().map(|(series, _)| series - std::mem::replace(&mut last, *series)).collect();
        let float_bits = values.iter().map(|(_, value)| value.to_bits()).collect();
        let tick = GroupTick { key, float_refs, float_bits, ..GroupTick::default() };
        let frame = Frame { lane: Lane::Live.into(), sequence, base_ms: at_ms, sent_ms: at_ms, ticks: vec![tick] };
        self.send(Up::Frame(frame)).await;
    }
}

fn through(down: &Down) -> Option<u64> {
    match down {
        Down::Ack(ack) => Some(ack.through),
        _ => None,
    }
}

fn request(sequence: u64, samples: Vec<PushSample>) -> PushRequest {
    let series = PushSeries { name: "jobs_done".into(), samples, ..PushSeries::default() };
    PushRequest { series: vec![series], pusher_id: vec![5; 16], sequence }
}

fn sample(timestamp_ms: i64) -> PushSample {
    PushSample { timestamp_ms, value: 1.0, histogram: None }
}
