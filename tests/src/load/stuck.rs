//! Agents that are stuck, each in its own way. A collector must not let another agent wait for one of them.

use std::time::Duration;

use anyhow::Context;
use bytes::{BufMut, Bytes, BytesMut};
use lampad_proto::v1::{Lane, Upward};
use prost::Message;
use tokio::net::TcpStream;

use super::{Encoder, Plan};

/// In which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Stuck {
    /// Pushes on and never takes an ack out of the stream, so that its receive windows fill.
    AcksNeverRead,
    /// Sends the first half of a frame and then nothing.
    HalfFrame,
    /// Grants the collector no receive window at all: it cannot send one byte of a message.
    ZeroWindow,
}

/// Pushes as agent `agent` of the plan until it is stuck, and stays so until dropped. `collector` is `HOST:PORT`.
pub async fn be_stuck(plan: &Plan, agent: u32, collector: &str, how: Stuck) -> anyhow::Result<()> {
    let socket = TcpStream::connect(collector).await.with_context(|| format!("cannot reach {collector}"))?;
    let mut builder = h2::client::Builder::new();
    if how == Stuck::ZeroWindow {
        builder.initial_window_size(0);
    }
    let (sender, connection) = builder.handshake::<_, Bytes>(socket).await?;
    let connection = tokio::spawn(connection);
    let request = http::Request::post(format!("http://{collector}/lampad.v1.Ingest/Stream"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    // The response is held, so that the stream is not reset, and never read.
    let (_response, mut body) = sender.ready().await?.send_request(request, false)?;
    let encoder = Encoder::new(plan, agent, jiff::Timestamp::now().as_millisecond());
    body.send_data(grpc(&encoder.hello(0, vec![])), false)?;
    body.send_data(grpc(&encoder.dictionary(Lane::Live)), false)?;
    if how == Stuck::HalfFrame {
        let frame = grpc(&encoder.frame(Lane::Live, 0, true));
        body.send_data(frame.slice(..frame.len() / 2), false)?;
        return Ok(connection.await??);
    }
    let mut ticks = tokio::time::interval(plan.interval.max(Duration::from_millis(1)));
    for tick in 0.. {
        ticks.tick().await;
        if connection.is_finished() {
            break;
        }
        body.send_data(grpc(&encoder.frame(Lane::Live, tick, tick == 0)), false)?;
    }
    Ok(connection.await??)
}

/// A message as gRPC frames it: not compressed, length, bytes.
fn grpc(message: &Upward) -> Bytes {
    let mut bytes = BytesMut::with_capacity(message.encoded_len() + 5);
    bytes.put_u8(0);
    bytes.put_u32(message.encoded_len() as u32);
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes.freeze()
}
