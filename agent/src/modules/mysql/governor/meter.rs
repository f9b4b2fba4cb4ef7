//! What one read of a module asks of the server.
//!
//! The session sees statements and no modules, the governor modules and no statements; a meter goes with the read from one to
//! the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// On a meter whose read has been charged.
const SETTLED: u64 = u64::MAX;

tokio::task_local! {
    /// That of the module that is being read.
    static METER: Arc<Meter>;
}

#[derive(Debug)]
pub struct Meter {
    pub module: &'static str,
    /// From a statement's sending to its answer, all of the read's together, in microseconds.
    waited: AtomicU64,
    /// A statement is under way whose cost nobody else counts.
    waiting: AtomicBool,
}

impl Meter {
    pub fn new(module: &'static str) -> Arc<Self> {
        Arc::new(Self { module, waited: AtomicU64::new(0), waiting: AtomicBool::new(false) })
    }

    /// The meter of the module that is being read, for the task that runs its statement.
    pub fn current() -> Option<Arc<Self>> {
        METER.try_with(Arc::clone).ok()
    }

    pub async fn scope<F: Future>(self: Arc<Self>, read: F) -> F::Output {
        METER.scope(self, read).await
    }

    /// A statement begins that is charged by the time to its answer.
    pub fn begin(&self) {
        self.waiting.store(true, Ordering::Relaxed);
    }

    /// It has been answered.
    pub fn end(&self, took: Duration) {
        self.waiting.store(false, Ordering::Relaxed);
        // A meter that is settled has been charged for all of the wait.
        let add = |micros| (micros != SETTLED).then(|| micros + took.as_micros() as u64);
        let _ = self.waited.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Closes the meter of a read that took `elapsed` and returns what is to be charged. The task of a statement that goes on
    /// ends it when the server has answered, which is too late: all of the read's time counts then. `None` when that was done
    /// before. A read that asked nothing costs nothing.
    pub fn settle(&self, elapsed: Duration) -> Option<Duration> {
        let counted = self.waited.swap(SETTLED, Ordering::Relaxed);
        if counted == SETTLED {
            return None;
        }
        let counted = Duration::from_micros(counted);
        Some(if self.waiting.load(Ordering::Relaxed) { counted.max(elapsed) } else { counted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_pays_for_its_statements_and_for_one_that_goes_on() {
        let ms = Duration::from_millis;
        let meter = Meter::new("m");
        assert_eq!(meter.settle(ms(9)), Some(ms(0)), "it asked nothing");
        let meter = Meter::new("m");
        for took in [2, 3] {
            meter.begin();
            meter.end(ms(took));
        }
        assert_eq!(meter.settle(ms(9)), Some(ms(5)));
        let meter = Meter::new("m");
        meter.begin();
        assert_eq!(meter.settle(ms(9)), Some(ms(9)), "its statement goes on");
        meter.end(ms(30));
        assert_eq!(meter.settle(ms(40)), None, "charged once");
    }
}
