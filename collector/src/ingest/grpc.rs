//! The gRPC service: one task per stream, plain pushes, health and reflection.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use lampad_proto::v1::ingest_server::{Ingest as IngestService, IngestServer};
use lampad_proto::v1::upward::Message;
use lampad_proto::v1::{Hello, PushReply, PushRequest, Upward};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_stream::Stream;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

use super::hello;
use super::outbox::{Outbox, Replies};
use super::push;
use super::session::{Session, Weight};
use super::{Gate, Ingest};

/// Time for the first message.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// How long a stream waits for the disk before it goes on: less than the lease, after which its agent would count as silent.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 20 } else { 1 });

/// How often it looks whether it may go on.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// At shutdown, time for what was taken to become durable, so that its ack still leaves.
const LAST_ACKS_WITHIN: Duration = Duration::from_secs(2);

/// What one stream may have on its way to us unread. This much, and what HTTP/2 and gRPC keep beside it (56 KiB together, of 1,000
/// streams as fast as they come), times the number of agents, is what stuck streams cost, and those that are asked to wait. Over a
/// way of 50 ms it is 300 KB a second; an agent makes one or two, and its names, when it comes, are some 60.
const STREAM_WINDOW_BYTES: u32 = 16 << 10;

/// The same of a connection. h2 ends a connection with `ENHANCE_YOUR_CALM` when its unread pieces of less than 256 bytes lack more
/// to that size, all together, than half of this. A stream's window is full of pieces of 16 bytes before, so that an agent whose
/// small frames wait for a slow disk is only slowed down.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

/// Streams and calls on one connection; an agent needs one.
const CALLS_PER_CONNECTION: u32 = 64;

/// A peer that answers neither of two HTTP/2 pings is gone.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEP_ALIVE_WITHIN: Duration = Duration::from_secs(10);

pub struct Service(Gate);

#[tonic::async_trait]
impl IngestService for Service {
    type StreamStream = Replies;

    async fn stream(&self, request: Request<Streaming<Upward>>) -> Result<Response<Replies>, Status> {
        let ingest = self.0.ingest()?;
        let begun = begin(&ingest, request).await;
        if begun.is_err() {
            ingest.telemetry.streams_refused.one();
        }
        begun
    }

    async fn push(&self, request: Request<PushRequest>) -> Result<Response<PushReply>, Status> {
        let token = request.metadata().get("authorization").map(|value| value.as_bytes());
        let has_certificate = request.peer_certs().is_some_and(|certificates| !certificates.is_empty());
        let ingest = self.0.ingest()?;
        ingest.access.permits_push(token, has_certificate).inspect_err(|_| ingest.telemetry.unauthorised.one())?;
        push::push(&ingest, request.into_inner()).await.map(Response::new)
    }
}

async fn begin(ingest: &Arc<Ingest>, request: Request<Streaming<Upward>>) -> Result<Response<Replies>, Status> {
    let has_certificate = request.peer_certs().is_some_and(|certificates| !certificates.is_empty());
    let token = request.metadata().get("authorization").map(|value| value.as_bytes());
    ingest.access.permits_stream(token, has_certificate).inspect_err(|_| ingest.telemetry.unauthorised.one())?;
    let peer = request.remote_addr().unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
    let mut upward = request.into_inner();
    let hello = first(&mut upward).await?;
    let (clock_ms, agent) = (hello.clock_ms, hello.agent_id.clone());
    let stored = hello::stored(&*ingest.sink, &hello).await?;
    let (who, lease, welcome) = hello::admit(ingest, hello, &stored, peer).inspect_err(|status| {
        // Not by the text: it names the stream's port, another one at every attempt.
        if let Some(left_out) = ingest.repeats.tell(format_args!("stream {:?} {agent:?}", status.code())) {
            tracing::warn!(%peer, left_out, reason = status.message(), "stream refused");
        }
    })?;
    if let Some(left_out) = ingest.repeats.tell(format_args!("connected {agent:?}")) {
        tracing::info!(%peer, instance = %who.instance, left_out, "agent connected");
    }
    let outbox = Arc::new(Outbox::default());
    outbox.welcome(welcome);
    let mut session = Session::new(ingest.clone(), who, lease, outbox.clone(), ingest.limits.clone());
    session.clock(clock_ms);
    tokio::spawn(run(ingest.clone(), session, upward, outbox.clone()));
    Ok(Response::new(Replies(outbox)))
}

async fn first(upward: &mut Streaming<Upward>) -> Result<Hello, Status> {
    match timeout(HELLO_WITHIN, upward.message()).await {
        Ok(Ok(Some(Upward { message: Some(Message::Hello(hello)) }))) => Ok(hello),
        Ok(Ok(_)) => Err(Status::invalid_argument("the first message of a stream is Hello")),
        Ok(Err(status)) => Err(status),
        Err(_) => Err(Status::deadline_exceeded(format!("no Hello within {HELLO_WITHIN:?}"))),
    }
}

/// Reads one stream to its end.
async fn run(ingest: Arc<Ingest>, session: Session, upward: Streaming<Upward>, outbox: Arc<Outbox>) {
    let instance = session.instance().to_owned();
    let ended = read(&ingest, session, upward).await;
    match &ended {
        Ok(()) => tracing::info!(instance, "agent ended its stream"),
        // An agent that is sent away comes again at once, and is sent away again.
        Err(status) => {
            if let Some(left_out) = ingest.repeats.tell(format_args!("ended {instance} {:?}", status.code())) {
                let (code, reason) = (status.code(), status.message());
                tracing::warn!(instance, ?code, left_out, reason, "stream ended");
            }
        }
    }
    outbox.end(ended.err());
}

async fn read(ingest: &Arc<Ingest>, session: Session, mut upward: Streaming<Upward>) -> Result<(), Status> {
    let mut durable = ingest.sink.durable();
    // Made once: of each there is one list for all streams, and who makes one anew for every message waits for its lock.
    let shutdown = ingest.shutdown.clone();
    let taken_over = session.lease().taken_over();
    let (mut shutdown, mut taken_over) = (pin!(shutdown.cancelled()), pin!(taken_over.cancelled()));
    // Boxed, so that a heavy message can take the whole session to another thread and back.
    let mut session = Box::new(session);
    loop {
        let message = tokio::select! {
            biased;
            () = &mut shutdown => {
                last_acks(&mut session, &mut durable).await;
                return Err(Status::unavailable("the collector is shutting down; come again"));
            }
            () = &mut taken_over => {
                return Err(Status::aborted("another stream with this agent id has taken over; see its address in the log"));
            }
            changed = durable.changed(), if session.awaits_durable() => {
                if changed.is_err() {
                    return Err(Status::unavailable("the collector's store has stopped; come again"));
                }
                let through = *durable.borrow_and_update();
                session.settle(through);
                continue;
            }
            message = upward.message() => message?,
        };
        let Some(Upward { message }) = message else {
            session.lease().goodbye();
            last_acks(&mut session, &mut durable).await;
            return Ok(());
        };
        let Some(message) = message else { continue }; // A kind of message that a newer agent knows.
        session = take(ingest, session, message).await?;
        if session.awaits_durable() {
            let through = *durable.borrow_and_update();
            session.settle(through);
        }
        if ingest.sink.is_busy() {
            let_catch_up(ingest, &mut session, &mut durable).await;
        }
    }
}

/// Reads nothing more until the disk has caught up: the transport's windows fill, and the agent sends slower. Without it the
/// stream would end when the log is full, and the agent come again with key frames, which are longer still.
async fn let_catch_up(
    ingest: &Ingest,
    session: &mut Session,
    durable: &mut tokio::sync::watch::Receiver<crate::store::Lsn>,
) {
    let caught_up = async {
        while ingest.sink.is_busy() {
            tokio::select! {
                changed = durable.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let through = *durable.borrow_and_update();
                    session.settle(through);
                }
                // While all wait for the head to be sealed nothing becomes durable.
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    };
    // A disk that hangs is the store's to answer for.
    let _ = timeout(CATCH_UP_WITHIN, caught_up).await;
}

async fn take(ingest: &Arc<Ingest>, mut session: Box<Session>, message: Message) -> Result<Box<Session>, Status> {
    let turn = match Session::weight(&message) {
        Weight::Light => {
            session.take(message)?;
            return Ok(session);
        }
        Weight::Heavy => None,
        // A thousand agents may come at once, after a restart. One after the other they are all served sooner, and the samples
        // of those who are need not wait for the others' names.
        Weight::Defining => ingest.defining.turn().await,
    };
    let work = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        session.take(message).map(|()| session)
    });
    work.await.map_err(|_| Status::internal("decoding failed; the collector's log has more"))?
}

/// Acks what becomes durable in the last moments.
async fn last_acks(session: &mut Session, durable: &mut tokio::sync::watch::Receiver<crate::store::Lsn>) {
    let settled = async {
        while session.awaits_durable() {
            let through = *durable.borrow_and_update();
            session.settle(through);
            if session.awaits_durable() && durable.changed().await.is_err() {
                return;
            }
        }
    };
    // What is not durable in time is not acked: the agent sends it again.
    let _ = timeout(LAST_ACKS_WITHIN, settled).await;
}

/// Serves the connections of `incoming` until `shutdown`. Health is NOT_SERVING until the gate opens.
pub async fn serve<S, IO>(
    gate: Gate,
    incoming: S,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    S: Stream<Item = std::io::Result<IO>>,
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    IO::ConnectInfo: Clone + Send + Sync + 'static,
{
    let (health, health_service) = tonic_health::server::health_reporter();
    let service = IngestServer::new(Service(gate.clone()))
        .max_decoding_message_size(gate.message_bytes)
        .max_encoding_message_size(gate.message_bytes);
    health.set_not_serving::<IngestServer<Service>>().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(lampad_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let announced = async {
        gate.opened().await;
        health.set_serving::<IngestServer<Service>>().await;
        std::future::pending().await
    };
    let served = Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_WITHIN))
        .http2_adaptive_window(Some(false))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(CALLS_PER_CONNECTION)
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        // What Python's grpcio and older grpcurls ask for.
        .add_service(reflection().build_v1alpha()?)
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, shutdown);
    tokio::select! {
        served = served => Ok(served?),
        never = announced => never,
    }
}
