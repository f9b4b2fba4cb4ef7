//! How a host source becomes a module: files of `/proc` and `/sys` are read without ever awaiting, so a source is a plain
//! [`Reader`] and these wrappers give it the async face that the sampler knows.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::module::{Desc, Module, ModuleError};
use crate::tick::Tick;

/// A source that answers at once, and is simple to call from a test.
pub trait Reader: Send {
    fn descs(&self) -> Vec<Desc>;
    fn read(&mut self, out: &mut Tick) -> Result<(), ModuleError>;
}

/// Reads where it stands: for sources that the kernel answers from memory, in microseconds.
pub struct Quick<R>(pub R);

#[async_trait]
impl<R: Reader> Module for Quick<R> {
    fn descs(&self) -> Vec<Desc> {
        self.0.descs()
    }

    async fn sample(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        self.0.read(out)
    }
}

/// Reads that are let run beside the runtime at once: each has a thread, and a thread has a stack and a heap of its own. One
/// that its module has given up does not count, so that those that never come back hold nobody up.
static TURNS: Semaphore = Semaphore::const_new(2);

/// What is not on this machine is looked for this often: to wake a thread costs more than the look.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Reads in a thread beside the runtime: for sources behind which hardware is asked (a sensor on a slow bus takes 100 ms and
/// more), that walk thousands of files, or that may never answer. A read that does not come back holds its one thread and no
/// other module; this module fails with how long it has been waiting, until it does.
pub struct Aside {
    idle: Option<Work>,
    away: Option<(JoinHandle<Back>, Instant)>,
    /// What was not there, and when it was looked for.
    absent: Option<(String, Instant)>,
}

/// What comes back from the thread, with the outcome of the read.
type Back = (Work, Result<(), ModuleError>);

/// What goes to the thread.
struct Work {
    module: Box<dyn Module>,
    tick: Tick,
}

impl Aside {
    pub fn new(module: Box<dyn Module>) -> Self {
        Self { idle: Some(Work { module, tick: Tick::new() }), away: None, absent: None }
    }

    /// The module, once a read that was given up has come back; its result is of a moment that is past.
    async fn work(&mut self) -> Result<Work, ModuleError> {
        if let Some(work) = self.idle.take() {
            return Ok(work);
        }
        let Some((task, since)) = self.away.take() else { return Err(broken()) };
        if !task.is_finished() {
            let error = ModuleError::Stuck { since: since.elapsed() };
            self.away = Some((task, since));
            return Err(error);
        }
        let (mut work, _) = task.await.map_err(|_| broken())?;
        work.tick.abandon();
        Ok(work)
    }
}

/// Its panic was printed.
fn broken() -> ModuleError {
    ModuleError::Read { path: "(module)".into(), source: std::io::Error::other("its thread has panicked") }
}

#[async_trait]
impl Module for Aside {
    fn descs(&self) -> Vec<Desc> {
        self.idle.as_ref().map(|work| work.module.descs()).unwrap_or_default()
    }

    async fn sample(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        if let Some((what, since)) = &self.absent
            && since.elapsed() < LOOK_AGAIN
        {
            return Err(ModuleError::Absent { what: what.clone() });
        }
        self.absent = None;
        let mut work = self.work().await?;
        let Ok(_turn) = TURNS.acquire().await else { return Err(broken()) };
        let runtime = Handle::current();
        let read = spawn_blocking(move || {
            let result = runtime.block_on(work.module.sample(&mut work.tick));
            (work, result)
        });
        // Here before it is awaited: the sampler may give this up at any moment.
        let (task, _) = self.away.insert((read, Instant::now()));
        let (mut work, result) = task.await.map_err(|_| broken())?;
        self.away = None;
        match &result {
            Ok(()) => work.tick.copy_to(out),
            Err(ModuleError::Absent { what }) => self.absent = Some((what.clone(), Instant::now())),
            Err(_) => {}
        }
        work.tick.abandon();
        self.idle = Some(work);
        result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    const SEEN: Desc = Desc::gauge("seen", "How often this was read.");

    /// Counts its reads; each waits for a word.
    struct Waiting(Receiver<()>, f64);

    impl Reader for Waiting {
        fn descs(&self) -> Vec<Desc> {
            vec![SEEN]
        }

        fn read(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
            let _ = self.0.recv();
            self.1 += 1.0;
            out.push(&SEEN, &[], self.1);
            Ok(())
        }
    }

    async fn read(module: &mut Aside) -> Option<Result<Vec<f64>, ModuleError>> {
        let mut tick = Tick::new();
        let read = tokio::time::timeout(Duration::from_millis(20), module.sample(&mut tick)).await.ok()?;
        Some(read.map(|()| tick.samples().map(|(_, _, value)| value.as_f64()).collect()))
    }

    /// Is not there, and counts how often it was looked for.
    struct Missing(Arc<AtomicU32>);

    impl Reader for Missing {
        fn descs(&self) -> Vec<Desc> {
            vec![SEEN]
        }

        fn read(&mut self, _: &mut Tick) -> Result<(), ModuleError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Err(ModuleError::Absent { what: "a tape".into() })
        }
    }

    #[tokio::test]
    async fn what_is_not_there_wakes_no_thread_for_a_while() {
        let looked = Arc::new(AtomicU32::new(0));
        let mut module = Aside::new(Box::new(Quick(Missing(looked.clone()))));
        for _ in 0..3 {
            let said = module.sample(&mut Tick::new()).await.unwrap_err();
            assert!(matches!(said, ModuleError::Absent { what } if what == "a tape"));
        }
        assert_eq!(looked.load(Ordering::Relaxed), 1);
        module.absent = module.absent.map(|(what, since)| (what, since.checked_sub(LOOK_AGAIN).unwrap()));
        let _ = module.sample(&mut Tick::new()).await;
        assert_eq!(looked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn reads_that_never_come_back_hold_only_their_own_module() {
        let (words, waiting): (Vec<_>, Vec<_>) = (0..4).map(|_| channel()).unzip();
        let mut modules: Vec<_> =
            waiting.into_iter().map(|word| Aside::new(Box::new(Quick(Waiting(word, 0.0))))).collect();
        for stuck in &mut modules[..3] {
            assert!(read(stuck).await.is_none(), "given up at its deadline");
            let said = read(stuck).await.unwrap().unwrap_err();
            assert!(matches!(said, ModuleError::Stuck { .. }), "{said}");
        }
        words[3].send(()).unwrap();
        let mut tick = Tick::new();
        modules[3].sample(&mut tick).await.unwrap();
        // Comes back, and is read anew: what it told then is of no use any more.
        words[0].send(()).unwrap();
        words[0].send(()).unwrap();
        let again = async {
            loop {
                match read(&mut modules[0]).await {
                    Some(Ok(values)) => return values,
                    _ => tokio::task::yield_now().await,
                }
            }
        };
        let values = tokio::time::timeout(Duration::from_secs(10), again).await.unwrap();
        assert_eq!(values, [2.0]);
        // Ends the threads of the others.
        drop(words);
    }
}
