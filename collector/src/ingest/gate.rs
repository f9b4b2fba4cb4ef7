//! What gRPC answers from: nothing until the store is open, and whoever comes earlier is told to come back.

use std::sync::Arc;

use tokio::sync::watch;
use tonic::Status;

use super::Ingest;
use crate::store::Progress;

/// Opened once, when samples can be taken.
#[derive(Clone)]
pub struct Gate {
    ingest: watch::Sender<Option<Arc<Ingest>>>,
    progress: Progress,
    /// Longest message. It is asked for before there is an `Ingest` with all limits.
    pub(super) message_bytes: usize,
}

impl Gate {
    pub fn new(progress: Progress, message_bytes: usize) -> Self {
        Self { ingest: watch::Sender::new(None), progress, message_bytes }
    }

    pub fn open(&self, ingest: Arc<Ingest>) {
        self.ingest.send_replace(Some(ingest));
    }

    /// UNAVAILABLE is what agents and pushers come again after.
    pub(super) fn ingest(&self) -> Result<Arc<Ingest>, Status> {
        let ingest = self.ingest.borrow().clone();
        ingest.ok_or_else(|| {
            Status::unavailable(format!("the collector is not ready: it is {}; come again in a moment", self.progress))
        })
    }

    pub(super) async fn opened(&self) {
        // It cannot fail: this value holds the sender.
        let _ = self.ingest.subscribe().wait_for(Option::is_some).await;
    }
}
