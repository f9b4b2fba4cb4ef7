use std::sync::Mutex;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::v1::ingest_server::{Ingest, IngestServer};
use crate::v1::{Downward, PushRefusal, Upward};

/// A collector of the test's own: answers each push with the next scripted reply, and keeps what it was asked.
struct Script {
    replies: Mutex<Vec<Result<PushReply, Status>>>,
    asked: Asked,
}

#[tonic::async_trait]
impl Ingest for Script {
    type StreamStream = tokio_stream::Empty<Result<Downward, Status>>;

    async fn stream(&self, _: Request<Streaming<Upward>>) -> Result<Response<Self::StreamStream>, Status> {
        Err(Status::unimplemented("only push"))
    }

    async fn push(&self, request: Request<PushRequest>) -> Result<Response<PushReply>, Status> {
        let token = request.metadata().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        self.asked.lock().unwrap().push((request.into_inner(), token));
        self.replies.lock().unwrap().remove(0).map(Response::new)
    }
}

type Asked = std::sync::Arc<Mutex<Vec<(PushRequest, Option<String>)>>>;

async fn collector(replies: Vec<Result<PushReply, Status>>) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Asked::default();
    let script = Script { replies: Mutex::new(replies), asked: asked.clone() };
    let server = tonic::transport::Server::builder().add_service(IngestServer::new(script));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (address, asked)
}

fn stored(stored: u64) -> Result<PushReply, Status> {
    Ok(PushReply { stored, refused: Vec::new() })
}

#[tokio::test]
async fn a_flush_tells_what_was_stored_and_what_was_refused() {
    let reply = PushReply { stored: 1, refused: vec![PushRefusal { series: 1, reason: "too many labels".into() }] };
    let (address, asked) = collector(vec![Ok(reply)]).await;
    let options = Options::new(address).label("job", "backup").label("instance", "db7").token("secret\n");
    let mut client = Client::connect(options).unwrap();
    client.gauge("size_bytes", "Size.", &[("instance", "db8")], 7.0).unwrap();
    client.counter("runs_total", "Runs.", &[], 3.0).unwrap();
    let report = client.flush().await.unwrap();
    assert_eq!(report.stored, 1);
    assert_eq!(report.refused[0].series, r#"runs_total{job="backup", instance="db7"}"#);
    assert_eq!(client.waiting(), 0);

    let (request, token) = asked.lock().unwrap()[0].clone();
    assert_eq!(token.as_deref(), Some("Bearer secret"));
    assert_eq!(describe(&request.series[0]), r#"size_bytes{instance="db8", job="backup"}"#, "its own label wins");
}

#[tokio::test]
async fn a_repeated_batch_keeps_its_number() {
    let (address, asked) = collector(vec![Err(Status::unavailable("starting")), stored(1), stored(1)]).await;
    let mut client = Client::connect(Options::new(address)).unwrap();
    for value in [1.0, 2.0] {
        client.gauge("g", "G.", &[], value).unwrap();
        assert_eq!(client.flush().await.unwrap().stored, 1);
    }
    let asked = asked.lock().unwrap();
    assert_eq!(asked.iter().map(|(request, _)| request.sequence).collect::<Vec<_>>(), [0, 0, 1]);
    assert!(asked.iter().all(|(request, _)| request.pusher_id == asked[0].0.pusher_id));
}

/// A batch whose answer was lost may be stored: samples pushed since then must not travel, and vanish, under its number.
#[tokio::test]
async fn what_is_pushed_after_a_lost_answer_gets_a_number_of_its_own() {
    // A refusal is not tried again, so the flush ends after one request, as it does when the time for an answer is over.
    let (address, asked) = collector(vec![Err(Status::invalid_argument("lost")), stored(1), stored(1)]).await;
    let mut client = Client::connect(Options::new(address)).unwrap();
    client.gauge("a", "", &[], 1.0).unwrap();
    client.flush().await.unwrap_err();
    client.gauge("b", "", &[], 2.0).unwrap();
    assert_eq!(client.flush().await.unwrap().stored, 2);
    let asked = asked.lock().unwrap();
    let sent: Vec<_> = asked.iter().map(|(request, _)| (request.sequence, request.series.len())).collect();
    assert_eq!(sent, [(0, 1), (0, 1), (1, 1)]);
}

#[tokio::test]
async fn a_refusal_is_not_tried_again_and_the_samples_stay() {
    let (address, asked) = collector(vec![Err(Status::unauthenticated("the token is not ours"))]).await;
    let mut client = Client::connect(Options::new(address)).unwrap();
    client.gauge("g", "G.", &[], 1.0).unwrap();
    let error = client.flush().await.unwrap_err();
    assert!(!error.is_passing() && error.to_string().contains("the token is not ours"), "{error}");
    assert_eq!((asked.lock().unwrap().len(), client.waiting()), (1, 1));
}

/// A batch that the collector never takes stayed the first, and every later flush failed with it.
#[tokio::test]
async fn a_batch_that_is_refused_for_good_can_be_given_up() {
    let (address, asked) = collector(vec![Err(Status::invalid_argument("too large")), stored(1)]).await;
    let mut client = Client::connect(Options::new(address)).unwrap();
    client.gauge("large", "", &[], 1.0).unwrap();
    assert!(!client.flush().await.unwrap_err().is_passing());
    client.gauge("small", "", &[], 1.0).unwrap();
    assert_eq!((client.discard(), client.discard(), client.waiting()), (1, 0, 1));
    assert_eq!(client.flush().await.unwrap().stored, 1);
    let asked = asked.lock().unwrap();
    assert_eq!(asked[1].0.series[0].name, "small");
    assert_ne!(asked[0].0.sequence, asked[1].0.sequence);
}

#[tokio::test]
async fn nobody_there_is_told_with_the_address_and_the_cause() {
    let options = Options::new("http://127.0.0.1:1").give_up_after(Duration::from_millis(50));
    let mut client = Client::connect(options).unwrap();
    client.gauge("g", "G.", &[], 1.0).unwrap();
    let error = client.flush().await.unwrap_err();
    assert!(error.is_passing());
    let text = error.to_string();
    assert!(text.contains("http://127.0.0.1:1") && text.to_lowercase().contains("refused"), "{text}");
}

#[tokio::test]
async fn bad_options_are_named() {
    for collector in ["db7:9391", "ftp://db7", "http://db 7"] {
        let error = Client::connect(Options::new(collector)).unwrap_err().to_string();
        assert!(error.contains(collector), "{error}");
    }
    assert!(matches!(Client::connect(Options::new("http://db7:1").token("a\nb")), Err(PushError::Token)));
}

#[tokio::test]
async fn what_waits_is_bounded() {
    let mut client = Client::connect(Options::new("http://127.0.0.1:1")).unwrap();
    for _ in 0..WAITING_MAX {
        client.gauge("g", "", &[], 1.0).unwrap();
    }
    assert!(matches!(client.gauge("g", "", &[], 1.0), Err(PushError::Full { .. })));
}
