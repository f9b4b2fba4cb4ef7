//! Work in a thread of its own, which rests often and changes nothing that the store's keeper does not publish.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// After each piece of work the thread rests so many times as long as it worked.
const REST: u32 = 3;

/// The longest such rest.
const REST_MAX: Duration = Duration::from_millis(200);

/// Work that may be told to stop. Whoever cannot wait lets it run without a rest.
#[derive(Debug, Clone, Default)]
pub(super) struct Pace(Option<Arc<AtomicBool>>);

impl Pace {
    #[cfg(test)]
    pub fn stopped_by(stop: Arc<AtomicBool>) -> Self {
        Self(Some(stop))
    }

    /// Between two pieces of work: rests, and ends with an error when the work shall stop.
    pub fn rest(&self, begun: Instant) -> io::Result<()> {
        if self.0.is_some() {
            std::thread::sleep((begun.elapsed() * REST).min(REST_MAX));
        }
        self.go_on()
    }

    /// Within a long piece of work: ends with an error when it shall stop, for whoever closes the store waits for that.
    pub fn go_on(&self) -> io::Result<()> {
        match self.0.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            true => Err(io::Error::new(io::ErrorKind::Interrupted, "the store is closing")),
            false => Ok(()),
        }
    }
}

#[derive(Debug)]
pub(super) struct Job<T> {
    name: &'static str,
    stop: Arc<AtomicBool>,
    result: Receiver<io::Result<T>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Job<T> {
    pub fn start(name: &'static str, work: impl FnOnce(&Pace) -> io::Result<T> + Send + 'static) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (done, result) = sync_channel(1);
        let pace = Pace(Some(stop.clone()));
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            // Whoever asked may be gone.
            let _ = done.send(work(&pace));
        })?;
        Ok(Self { name, stop, result, thread: Some(thread) })
    }
}

impl<T> Job<T> {
    /// What came of it, once it is done.
    pub fn finished(&self) -> Option<io::Result<T>> {
        match self.result.try_recv() {
            Ok(result) => Some(result),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(io::Error::other("the thread has panicked"))),
        }
    }
}

impl<T> Drop for Job<T> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread {} has panicked; nothing of what is stored was changed", self.name);
        }
    }
}
