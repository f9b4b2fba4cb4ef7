//! Takes what is pushed: agents' streams and plain samples, by gRPC.
//!
//! ```text
//! grpc (one task per stream) -> session -> decode (lane's values) -> resolve (slots) -> sink.append -> queryable
//!        ^ outbox: acks, key frames wanted, refusals   <- session.settle <- sink.durable <- flushed
//! ```

mod admit;
mod decode;
mod gate;
mod grpc;
mod hello;
mod outbox;
mod push;
mod remote_write;
mod resolve;
mod session;
mod skew;
mod symbols;

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::auth::Access;
use crate::fleet::Registry;
use crate::limits::Limits;
use crate::logging::Repeats;
use crate::sink::Sink;
use crate::telemetry::Telemetry;

#[cfg(fuzzing)]
pub use decode::Lane;
pub use gate::Gate;
pub use grpc::{Service, serve};
pub use remote_write::remote_write_router;
pub use session::WINDOW_FRAMES;
pub use symbols::Symbols;

/// What all streams share.
pub struct Ingest {
    pub sink: Arc<dyn Sink>,
    pub registry: Arc<Registry>,
    pub telemetry: Arc<Telemetry>,
    pub limits: Arc<Limits>,
    pub access: Arc<Access>,
    pub repeats: Repeats,
    pub symbols: Arc<Symbols>,
    /// Turns of streams that define many series.
    pub defining: Defining,
    /// Streams end when this does.
    pub shutdown: CancellationToken,
}

/// Hands out turns to streams that define many series.
pub struct Defining(Arc<Semaphore>);

/// Turns at once: more streams would only wait for the index.
const DEFINING_MAX: usize = 2;

impl Default for Defining {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(DEFINING_MAX)))
    }
}

impl Defining {
    /// Waits for a turn, which lasts for as long as this is held.
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // Nobody closes it.
        self.0.clone().acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod grpc_tests;
