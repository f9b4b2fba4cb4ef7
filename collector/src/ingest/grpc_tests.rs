//! The service over loopback, driven by a client built by hand.

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

#[tokio::test]
async fn until_the_store_is_open_whoever_comes_is_told_to_come_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let progress = Progress::default();
    progress.begin_log(7, 96 << 20);
    let gate = Gate::new(progress, Limits::default().message_bytes);
    let served = gate.clone();
    tokio::spawn(async move { serve(served, TcpListenerStream::new(listener), std::future::pending()).await });
    let mut client = IngestClient::connect(url.clone()).await.unwrap();
    let refused = client.push(PushRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(refused.message().contains("replaying the log: 0 of 7 segments"), "{refused}");
    let refused = client.stream(tokio_stream::pending()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    let server = server(true, Rules::default()).await;
    gate.open(server.ingest.clone());
    let answered = client.push(PushRequest::default()).await;
    assert!(answered.as_ref().map_or_else(Status::code, |_| Code::Ok) != Code::Unavailable, "{answered:?}");
}

/// A thousand agents came at once, and the acks of those who were served waited for the names of the others.
#[tokio::test]
async fn who_defines_much_waits_for_a_turn_and_the_others_go_on() {
    let server = server(true, Rules::default()).await;
    let turns = [server.ingest.defining.turn().await, server.ingest.defining.turn().await];
    let mut wide = server.connect(hello(1, "db1")).await.unwrap();
    wide.dictionary_of(300).await;
    wide.frame(1, true, &[(299, 1.0)]).await;
    let mut narrow = server.connect(hello(2, "db2")).await.unwrap();
    narrow.dictionary().await;
    narrow.frame(1, true, &[(0, 2.0)]).await;
    narrow.answers().await;
    assert!(timeout(Duration::from_millis(200), wide.answers()).await.is_err(), "it has a turn");
    let values = || server.recorder.ticks().iter().map(|tick| tick.values[0].1.clone()).collect::<Vec<_>>();
    assert_eq!(values(), [Value::Float(2.0)]);
    drop(turns);
    wide.answers().await;
    assert_eq!(values(), [Value::Float(2.0), Value::Float(1.0)]);
}

#[tokio::test]
async fn no_ack_leaves_before_the_flush_and_the_newest_covers_all() {
    let server = server(false, Rules::default()).await;
    let mut agent = server.connect(hello(1, "db1")).await.unwrap();
    agent.dictionary().await;
    for sequence in 1..=3 {
        agent.frame(sequence, sequence == 1, &[(0, sequence as f64), (1, 1.0)]).await;
    }
    assert_eq!(agent.answers().await, [], "queryable is not durable");
    assert_eq!(server.recorder.ticks().len(), 3);
    server.recorder.flush();
    loop {
        if through(&agent.next().await) == Some(3) {
            break;
        }
    }
    let tick = &server.recorder.ticks()[0];
    let labels = server.recorder.labels(tick.group, tick.values[0].0);
    assert_eq!(labels, r#"a_total{instance="db1", job="node"}"#);
    assert_eq!(server.ingest.registry.agents()[0].state().jobs, [Job::at("node", None)].into());
}

#[tokio::test]
async fn series_defined_while_the_store_takes_nothing_are_taken_when_the_agent_comes_again() {
    let server = server(true, Rules::default()).await;
    let mut agent = server.connect(hello(1, "db1")).await.unwrap();
    server.recorder.fill(true);
    agent.dictionary().await;
    agent.frame(1, true, &[(0, 1.0), (1, 2.0)]).await;
    let ended = timeout(PATIENCE, agent.down.message()).await.unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable, "no refusal, no ack, but an end: {ended}");
    until("the stream's end", || !server.ingest.registry.agents()[0].state().streaming).await;
    let refused = server.client().await.push(request(1, vec![sample(0)])).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");

    server.recorder.fill(false);
    let pending = vec![SequenceRange { first: 1, last: 1 }];
    let mut agent = server.connect(Hello { pending, ..hello(1, "db1") }).await.unwrap();
    agent.dictionary().await;
    agent.frame(1, true, &[(0, 1.0), (1, 2.0)]).await;
    assert_eq!(through(&agent.next().await), Some(1));
    assert_eq!(server.recorder.ticks()[0].values.len(), 2);
}

#[tokio::test]
async fn series_that_are_too_many_in_a_minute_are_asked_for_after_it() {
    let server = server(true, Rules::default()).await;
    let mut agent = server.connect(hello(1, "db1")).await.unwrap();
    server.recorder.allow_new_series(Some(1));
    agent.dictionary().await;
    let Down::Refusal(refusal) = agent.next().await else { panic!("no refusal") };
    assert_eq!((refusal.series, &*refusal.reason), (vec![1], "too many in a minute"));
    server.recorder.allow_new_series(None);
    agent.frame(1, true, &[(0, 1.0), (1, 2.0)]).await;
    let mut answers = agent.answers().await;
    answers.sort_by_key(|answer| through(answer).is_some());
    assert!(matches!(&answers[..], [Down::KeyFrameWanted(_), Down::Ack(_)]), "{answers:?}");
    agent.dictionary().await;
    agent.frame(2, true, &[(0, 1.0), (1, 2.0)]).await;
    assert_eq!(agent.answers().await.iter().find_map(through), Some(2));
    let stored: Vec<usize> = server.recorder.ticks().iter().map(|tick| tick.values.len()).collect();
    assert_eq!(stored, [1, 2]);
}

/// Streams were ended when the log was full; their agents came again with key frames, and it was full at once.
#[tokio::test]
async fn a_disk_that_is_behind_slows_a_stream_and_does_not_end_it() {
    let server = server(false, Rules::default()).await;
    let mut agent = server.connect(hello(1, "db1")).await.unwrap();
    agent.dictionary().await;
    agent.frame(1, true, &[(0, 1.0), (1, 2.0)]).await;
    until("the first frame", || server.recorder.ticks().len() == 1).await;
    server.recorder.keep_busy(true);
    agent.frame(2, false, &[(0, 2.0)]).await;
    until("the second frame", || server.recorder.ticks().len() == 2).await;
    agent.frame(3, false, &[(0, 3.0)]).await;
    server.recorder.flush();
    assert_eq!(through(&agent.next().await), Some(2), "acks go on");
    assert_eq!(server.recorder.ticks().len(), 2, "and nothing is read meanwhile");
    server.recorder.keep_busy(false);
    server.recorder.flush();
    until("the third frame", || server.recorder.ticks().len() == 3).await;
}

/// HTTP/2 of the server ended a connection with more than some 130 small pieces that nobody had read, long before its window
/// was full: when the disk was behind for some seconds, all agents came again at once.
#[tokio::test]
async fn a_backlog_of_small_frames_waits_in_the_stream_and_does_not_end_it() {
    const FRAMES: u64 = 3_000;
    let server = server(true, Rules::default()).await;
    let agent = server.connect(hello(1, "db1")).await.unwrap();
    agent.dictionary().await;
    agent.frame(1, true, &[(0, 1.0), (1, 2.0)]).await;
    until("the first frame", || server.recorder.ticks().len() == 1).await;
    server.recorder.keep_busy(true);
    let free = agent.up.capacity();
    for sequence in 2..=FRAMES {
        agent.frame(sequence, false, &[(0, sequence as f64)]).await;
    }
    // Nearly all that the stream's window holds, of some 45 bytes each.
    until("250 frames on their way", || agent.up.capacity() + FRAMES as usize >= free + 250).await;
    server.recorder.keep_busy(false);
    until("all frames", || server.recorder.ticks().len() == FRAMES as usize).await;
}

#[tokio::test]
async fn a_repeated_frame_is_acked_and_the_next_tick_lists_all() {
    let server = server(true, Rules::default()).await;
    let agent = server.connect(hello(1, "db1")).await.unwrap();
    agent.dictionary().await;
    agent.frame(1, true, &[(0, 1.0), (1, 2.0)]).await;
    until("the first frame", || server.recorder.ticks().len() == 1).await;
    drop(agent);
    until("the stream's end", || !server.ingest.registry.agents()[0].state().streaming).await;

    let pending = vec![SequenceRange { first: 1, last: 2 }];
    let mut agent = server.connect(Hello { pending, ..hello(1, "db1") }).await.unwrap();
    agent.dictionary().await;
    agent.frame(1, true, &[(0, 1.0), (1, 2.0)]).await;
    assert_eq!(through(&agent.next().await), Some(1));
    agent.frame(2, false, &[(0, 5.0)]).await;
    assert_eq!(through(&agent.next().await), Some(2));
    let ticks = server.recorder.ticks();
    assert_eq!(ticks.len(), 2, "the repeated one is not stored again");
    let values: Vec<&Value> = ticks[1].values.iter().map(|(_, value)| value).collect();
    assert!(ticks[1].key);
    assert_eq!(values, [&Value::Float(5.0), &Value::Float(2.0)]);
}

#[tokio::test]
async fn an_epoch_that_fell_back_is_told_so() {
    let server = server(true, Rules::default()).await;
    let mut agent = server.connect(hello(1, "db1")).await.unwrap();
    agent.dictionary().await;
    agent.frame(1_005, true, &[]).await;
    assert_eq!(through(&agent.next().await), Some(1_005));
    drop(agent);
    until("the stream's end", || !server.ingest.registry.agents()[0].state().streaming).await;
    let refused = server.connect(hello(1, "db1")).await.err().unwrap();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    assert!(server.connect(Hello { epoch: 8, ..hello(1, "db1") }).await.is_ok());
}

#[tokio::test]
async fn a_frame_without_base_gets_a_key_frame_and_a_hopeless_one_is_given_up() {
    let server = server(true, Rules::default()).await;
    let mut agent = server.connect(hello(1, "db1")).await.unwrap();
    agent.frame(1, true, &[]).await;
    let answers = agent.answers().await;
    assert!(matches!(&answers[..], [Down::KeyFrameWanted(_)]), "{answers:?}");
    for round in 0..2 {
        agent.dictionary().await;
        agent.frame(2, true, &[(0, 1.0), (9, 1.0)]).await;
        agent.frame(3, false, &[(0, 2.0)]).await;
        let answers = agent.answers().await;
        let wanted =
            |answer: &&Down| matches!(answer, Down::KeyFrameWanted(wanted) if wanted.reason.contains("series 9"));
        assert_eq!(answers.iter().filter(wanted).count(), 1, "{answers:?}");
        assert_eq!(answers.iter().any(|answer| through(answer) == Some(2)), round == 1, "{answers:?}");
        assert_eq!(answers.iter().any(|answer| matches!(answer, Down::Refusal(_))), round == 1, "{answers:?}");
    }
    assert!(server.recorder.ticks().is_empty());
    agent.dictionary().await;
    agent.frame(3, true, &[(0, 2.0)]).await;
    assert!(agent.answers().await.iter().any(|answer| through(answer) == Some(3)));
}

#[tokio::test]
async fn a_second_stream_with_one_identity_is_refused_with_both_addresses() {
    let server = server(true, Rules::default()).await;
    let _first = server.connect(hello(1, "db1")).await.unwrap();
    let refused = server.connect(hello(1, "db1")).await.err().unwrap();
    assert_eq!(refused.code(), Code::AlreadyExists);
    assert_eq!(refused.message().matches("127.0.0.1:").count(), 2, "{refused}");
    let refused = server.connect(hello(2, "db1")).await.err().unwrap();
    assert!(refused.message().contains("--instance NAME"), "{refused}");
    assert!(server.connect(hello(2, "db2")).await.is_ok());
}

#[tokio::test]
async fn hellos_that_cannot_be_taken_say_why() {
    let server = server(true, Rules::default()).await;
    for (hello, code, part) in [
        (Hello { agent_id: vec![1], ..hello(1, "x") }, Code::InvalidArgument, "16 random bytes"),
        (Hello { labels: vec![], ..hello(1, "x") }, Code::InvalidArgument, "--instance NAME"),
        (Hello { protocol_min: 9, protocol_max: 9, ..hello(1, "x") }, Code::FailedPrecondition, "upgrade"),
    ] {
        let refused = server.connect(hello).await.err().unwrap();
        assert!(refused.code() == code && refused.message().contains(part), "{refused}");
    }
    let (up, stream) = mpsc::channel(1);
    up.send(Upward { message: Some(Up::Ping(Ping::default())) }).await.unwrap();
    let refused = server.client().await.stream(one_by_one(stream)).await.err().unwrap();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn an_agent_that_never_reads_delays_nobody_and_loses_nothing() {
    let server = server(true, Rules::default()).await;
    let stuck = server.connect(hello(1, "stuck")).await.unwrap();
    stuck.dictionary().await;
    // Its answers stay unread from here on; each frame would be one more.
    for sequence in 1..=3_000 {
        stuck.frame(sequence, sequence == 1, &[(0, sequence as f64)]).await;
    }
    until("all frames of the stuck agent", || server.recorder.ticks().len() == 3_000).await;
    let mut other = server.connect(hello(2, "other")).await.unwrap();
    other.dictionary().await;
    other.frame(1, true, &[(0, 1.0)]).await;
    assert_eq!(through(&other.next().await), Some(1));
}

#[tokio::test]
async fn a_clock_an_hour_off_costs_no_data() {
    let server = server(true, Rules::default()).await;
    let hour = 3_600_000;
    let agent = server.connect(Hello { clock_ms: now_ms() + hour, ..hello(1, "db1") }).await.unwrap();
    agent.dictionary().await;
    agent.frame_at(now_ms() + hour, 1, true, &[(0, 1.0)]).await;
    until("the frame", || server.recorder.ticks().len() == 1).await;
    let off_ms = (server.recorder.ticks()[0].timestamp_ms - now_ms()).abs();
    assert!(off_ms < 10_000, "{off_ms}");
    let state = server.ingest.registry.agents()[0].state();
    assert!((state.clock_shift_ms + hour).abs() < 10_000, "{}", state.clock_shift_ms);
}

fn request(sequence: u64, samples: Vec<PushSample>) -> PushRequest {
    let series = PushSeries { name: "jobs_done".into(), samples, ..PushSeries::default() };
    PushRequest { series: vec![series], pusher_id: vec![5; 16], sequence }
}

fn sample(timestamp_ms: i64) -> PushSample {
    PushSample { timestamp_ms, value: 1.0, histogram: None }
}

#[tokio::test]
async fn a_push_is_answered_when_it_is_durable_and_stored_once() {
    let server = server(false, Rules::default()).await;
    let mut client = server.client().await;
    let mut pushing = client.clone();
    let far = now_ms() + 3_600_000;
    let samples = vec![sample(0), sample(1_000), sample(far), sample(-5)];
    let call = tokio::spawn(async move { pushing.push(request(1, samples)).await });
    until("the samples", || server.recorder.ticks().len() == 2).await;
    assert!(!call.is_finished(), "answered before the flush");
    server.recorder.flush();
    let reply = call.await.unwrap().unwrap().into_inner();
    assert_eq!(reply.stored, 2);
    let reasons: Vec<&str> = reply.refused.iter().map(|refusal| &*refusal.reason).collect();
    assert!(reasons.iter().any(|reason| reason.contains("10 minutes")), "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("before 1970")), "{reasons:?}");

    let again = client.push(request(1, vec![sample(0)])).await.unwrap().into_inner();
    assert_eq!((again.stored, server.recorder.ticks().len()), (1, 2));
}

/// Each run of a job that cron starts is a pusher of its own; it made a group, and a place of the series in it, for ever.
#[tokio::test]
async fn pushers_of_one_job_and_instance_share_a_group() {
    let server = server(true, Rules::default()).await;
    let mut client = server.client().await;
    for pusher in 1..=3 {
        let request =
            PushRequest { pusher_id: vec![pusher; 16], ..request(0, vec![sample(i64::from(pusher) * 1_000)]) };
        assert_eq!(client.push(request).await.unwrap().into_inner().stored, 1);
    }
    let ticks = server.recorder.ticks();
    assert_eq!(ticks.len(), 3, "one sequence, three pushers");
    assert!(ticks.iter().all(|tick| (tick.group, tick.values[0].0) == (ticks[0].group, ticks[0].values[0].0)));
}

#[tokio::test]
async fn with_a_token_alone_streams_need_it_too() {
    let server = server(true, Rules { token: Some("word".into()), certificates: false }).await;
    let refused = server.connect(hello(1, "db1")).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("--token-file"), "{refused}");
    let (up, stream) = mpsc::channel(1);
    up.send(Upward { message: Some(Up::Hello(hello(1, "db1"))) }).await.unwrap();
    let mut request = tonic::Request::new(one_by_one(stream));
    request.metadata_mut().insert("authorization", "Bearer word".parse().unwrap());
    assert!(server.client().await.stream(request).await.is_ok());
}

#[tokio::test]
async fn pushes_need_the_token_and_streams_the_certificate() {
    let server = server(true, Rules { token: Some("word".into()), certificates: true }).await;
    let mut client = server.client().await;
    for (token, expected) in
        [(None, Code::Unauthenticated), (Some("Bearer no"), Code::Unauthenticated), (Some("Bearer word"), Code::Ok)]
    {
        let mut request = tonic::Request::new(request(1, vec![sample(0)]));
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", token.parse().unwrap());
        }
        let code = client.push(request).await.err().map_or(Code::Ok, |status| status.code());
        assert_eq!(code, expected, "{token:?}");
    }
    assert_eq!(server.connect(hello(1, "db1")).await.err().unwrap().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn streams_end_with_a_reason_when_the_collector_does() {
    let server = server(true, Rules::default()).await;
    let mut agent = server.connect(hello(1, "db1")).await.unwrap();
    server.ingest.shutdown.cancel();
    let ended = timeout(PATIENCE, agent.down.message()).await.unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable);
    assert!(ended.message().contains("shutting down"), "{ended}");
}
