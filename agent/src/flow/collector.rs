//! A collector for tests: decodes both lanes by the book, stores each frame once, acks when told to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use lampad_proto::Number;
use lampad_proto::v1::ingest_server::{Ingest, IngestServer};
use lampad_proto::v1::{
    Ack, Downward, Frame, Hello, KeyFrameWanted, Lane, PushReply, PushRequest, SequenceRange, Upward, Welcome,
    downward, upward,
};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use crate::delta::Decoder;

#[derive(Default)]
pub struct State {
    pub hellos: Vec<Hello>,
    /// Frames in the order of their arrival: lane and number.
    pub arrived: Vec<(Lane, u64)>,
    /// Samples, each frame counted once: (series, time) -> value.
    pub samples: BTreeMap<(String, i64), Number>,
    pub stored: BTreeSet<u64>,
    /// Frames that came again after they were stored.
    pub repeated: usize,
    pub silent: bool,
    pub want_key_frame: bool,
    /// A frame that it can never use.
    pub hopeless: Option<u64>,
    pub window: u32,
    /// Newest protocol that it speaks.
    pub protocol: u32,
}

#[derive(Clone, Default)]
pub struct Collector {
    pub state: Arc<Mutex<State>>,
    pub changed: Arc<Notify>,
}

impl Collector {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Serves on `address` until the handle is aborted; port 0 takes a free one.
    pub async fn serve(&self, address: &str) -> (SocketAddr, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = IngestServer::new(self.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        let task =
            tokio::spawn(async move { server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap() });
        (address, task)
    }

    /// Waits until the state is as wanted, at most ten seconds.
    pub async fn until(&self, what: &str, wanted: impl Fn(&State) -> bool) {
        let waited = tokio::time::timeout(std::time::Duration::from_secs(10), async {
            loop {
                let changed = self.changed.notified();
                if wanted(&self.state()) {
                    return;
                }
                changed.await;
            }
        });
        assert!(waited.await.is_ok(), "{what}: {:?}", self.state().arrived);
    }

    /// Stores a frame; `None` when what it builds on is not known.
    fn store(&self, lane: Lane, decoder: &mut Decoder, frame: &Frame) -> Option<()> {
        let mut state = self.state();
        state.arrived.push((lane, frame.sequence));
        if lane == Lane::Live && std::mem::take(&mut state.want_key_frame) {
            return None;
        }
        if state.hopeless == Some(frame.sequence) {
            return None;
        }
        let integers = frame.ticks.iter().any(|tick| !tick.integers.is_empty());
        assert!(state.protocol >= lampad_proto::PROTOCOL_INTEGERS || !integers, "what protocol 1 does not know");
        decoder.samples.clear();
        decoder.frame(frame);
        if !state.stored.insert(frame.sequence) {
            state.repeated += 1;
            return Some(());
        }
        for (series, samples) in &decoder.samples {
            for (at, value) in samples {
                assert_eq!(state.samples.insert((series.clone(), *at), *value), None, "one sample per tick");
            }
        }
        Some(())
    }

    async fn read(self, mut up: Streaming<Upward>, down: mpsc::Sender<Result<Downward, Status>>) {
        let mut decoders = [Decoder::default(), Decoder::default()];
        let mut lost = [false, false];
        while let Ok(Some(Upward { message: Some(message) })) = up.message().await {
            let reply = match message {
                upward::Message::Hello(hello) => {
                    let durable = durable(&hello.pending, &self.state().stored);
                    let window_frames = self.state().window;
                    let protocol = self.state().protocol;
                    self.state().hellos.push(hello);
                    let welcome = Welcome { protocol, durable, window_frames, ..Welcome::default() };
                    Some(downward::Message::Welcome(welcome))
                }
                upward::Message::Dictionary(dictionary) => {
                    let at = usize::from(dictionary.lane() == Lane::Backfill);
                    lost[at] &= !dictionary.reset;
                    decoders[at].dictionary(&dictionary);
                    None
                }
                upward::Message::Frame(frame) => {
                    let lane = frame.lane();
                    let at = usize::from(lane == Lane::Backfill);
                    if lost[at] {
                        None
                    } else if self.store(lane, &mut decoders[at], &frame).is_none() {
                        lost[at] = true;
                        let reason = "for a test".to_owned();
                        Some(downward::Message::KeyFrameWanted(KeyFrameWanted { lane: lane.into(), reason }))
                    } else if self.state().silent {
                        None
                    } else {
                        Some(downward::Message::Ack(Ack { lane: lane.into(), through: frame.sequence }))
                    }
                }
                upward::Message::Ping(_) | upward::Message::OrderResult(_) => None,
            };
            self.changed.notify_one();
            if let Some(message) = reply
                && down.send(Ok(Downward { message: Some(message) })).await.is_err()
            {
                return;
            }
        }
    }
}

fn durable(pending: &[SequenceRange], stored: &BTreeSet<u64>) -> Vec<SequenceRange> {
    let all = pending.iter().flat_map(|range| range.first..=range.last);
    all.filter(|sequence| stored.contains(sequence)).map(|at| SequenceRange { first: at, last: at }).collect()
}

#[tonic::async_trait]
impl Ingest for Collector {
    type StreamStream = ReceiverStream<Result<Downward, Status>>;

    async fn stream(&self, request: Request<Streaming<Upward>>) -> Result<Response<Self::StreamStream>, Status> {
        let (down, replies) = mpsc::channel(64);
        tokio::spawn(self.clone().read(request.into_inner(), down));
        Ok(Response::new(ReceiverStream::new(replies)))
    }

    async fn push(&self, _: Request<PushRequest>) -> Result<Response<PushReply>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}
