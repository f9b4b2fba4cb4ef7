//! A body that is made while it is read, and given up when it is not.
//!
//! What it is made of takes memory until the last piece is made. So a reader who takes nothing for a while is let go: the
//! connection is broken off, for a body that merely ended would look whole.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::{StreamExt, future, stream};
use tokio::sync::mpsc::{self, error::SendTimeoutError};
use tokio_stream::wrappers::ReceiverStream;

/// Bytes of one piece.
pub const PIECE_BYTES: usize = 64 * 1024;
/// Pieces on their way to a reader.
const PIECES_MAX: usize = 4;
/// Longest wait for a reader to take a piece.
const PIECE_WITHIN: Duration = Duration::from_secs(30);

/// The body, and `held` until all of it is on its way. What is short is made at once, and its bytes are told: whoever knows how many
/// come reads them with less ado.
pub fn streamed(
    mut pieces: impl Iterator<Item = Bytes> + Send + 'static,
    held: impl Send + 'static,
) -> (Body, Option<usize>) {
    let first: Vec<Bytes> = pieces.by_ref().take(PIECES_MAX).collect();
    let Some(next) = pieces.next() else {
        let bytes = first.iter().map(Bytes::len).sum();
        return (Body::from_stream(stream::iter(first.into_iter().map(Ok::<_, io::Error>))), Some(bytes));
    };
    let (sender, taken) = mpsc::channel(PIECES_MAX);
    let broken_off = Arc::new(AtomicBool::new(false));
    tokio::spawn(send(next, pieces, sender, broken_off.clone(), held));
    let end = stream::once(future::lazy(move |_| broken_off.load(Ordering::SeqCst)));
    let end = end
        .filter(|broken_off| future::ready(*broken_off))
        .map(|_| Err(io::Error::new(io::ErrorKind::TimedOut, format!("the reader took nothing for {PIECE_WITHIN:?}"))));
    let first = stream::iter(first).chain(ReceiverStream::new(taken));
    (Body::from_stream(first.map(Ok).chain(end)), None)
}

async fn send(
    first: Bytes,
    rest: impl Iterator<Item = Bytes> + Send,
    sender: mpsc::Sender<Bytes>,
    broken_off: Arc<AtomicBool>,
    held: impl Send,
) {
    for piece in std::iter::once(first).chain(rest) {
        match sender.send_timeout(piece, PIECE_WITHIN).await {
            Ok(()) => {}
            Err(SendTimeoutError::Timeout(_)) => {
                broken_off.store(true, Ordering::SeqCst);
                break;
            }
            // The reader has left.
            Err(SendTimeoutError::Closed(_)) => break,
        }
    }
    drop(held);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(count: u8) -> impl Iterator<Item = Bytes> + Send + 'static {
        (0..count).map(|piece| Bytes::from(vec![piece; 3]))
    }

    /// The clock moves only where all wait for it.
    #[tokio::test(start_paused = true)]
    async fn who_reads_gets_all_and_who_does_not_is_let_go() {
        let (held, mut gone) = tokio::sync::oneshot::channel::<()>();
        let whole = axum::body::to_bytes(streamed(pieces(20), held).0, 1 << 10).await.unwrap();
        assert_eq!((whole.len(), whole[59]), (60, 19));
        assert!(gone.try_recv().is_err());
        let (held, gone) = tokio::sync::oneshot::channel::<()>();
        let (body, bytes) = streamed(pieces(20), held);
        assert_eq!(bytes, None);
        // Ends with an error once the sender's end is dropped, which it is by the clock alone.
        assert!(gone.await.is_err());
        assert!(axum::body::to_bytes(body, 1 << 10).await.is_err());
    }

    #[tokio::test]
    async fn what_is_short_holds_nothing() {
        let (held, mut gone) = tokio::sync::oneshot::channel::<()>();
        let (body, bytes) = streamed(pieces(4), held);
        assert_eq!(bytes, Some(12));
        assert_eq!(gone.try_recv(), Err(tokio::sync::oneshot::error::TryRecvError::Closed));
        assert_eq!(axum::body::to_bytes(body, 1 << 10).await.unwrap().len(), 12);
    }
}
