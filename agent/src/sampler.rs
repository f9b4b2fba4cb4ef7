//! Reads every module at its interval, each in a task of its own.
//!
//! * A module that hangs is ended at its deadline and stops no other one; a tick that comes too late is skipped, not queued.
//! * A failed read makes no tick. After [`FAILURES_MAX`] failures in a row, or [`FAILING_MAX`] of them, the group's series
//!   end, so that queries see them end as they do when a scrape fails. The ending tick is stamped with the first failure:
//!   nothing is carried over a failed read, and a single late one leaves no hole.
//! * An error is logged once with what it says, by the first of all modules that fail with it, and once more, with the count,
//!   when it is over. A source that
//!   is not on this machine is no failure and is told at info; those that were never there the roster tells in one line.
//! * Ticks of a group ascend. One that was late can come to the very moment of the next, and that one is skipped.
//! * Modules that tick at one moment share a frame; when that is, within an interval, comes from the module and from the
//!   agent's id.

use std::any::Any;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::delta::Series;
use crate::module::{Entry, ModuleError, Spec};
use crate::schedule::{Schedule, first_tick, stamp};
use crate::tick::{Changes, Tick};

/// Failures in a row after which a group's series end.
pub const FAILURES_MAX: u32 = 3;

/// A group whose reads fail for this long ends, however rarely it is read.
pub const FAILING_MAX: Duration = Duration::from_secs(5);

/// A read that is that much past its deadline blocks where nothing can end it.
const OVERDUE: Duration = Duration::from_millis(500);

/// Finished ticks that wait for the encoder: some seconds of a busy agent. When it is full the samplers wait and skip.
pub const SAMPLES_MAX: usize = 256;

/// What a sampler hands to the encoder.
#[derive(Debug)]
pub struct Sampled {
    pub group: u32,
    pub at_ms: i64,
    /// When the read ended, to measure what the agent adds.
    pub read: Instant,
    /// Series that this group had not had before; they follow those that were told.
    pub new_series: Vec<Arc<Series>>,
    pub changes: Changes,
}

/// How a module does, for `lampad_module_*`, for Hello and for Ping.
#[derive(Debug)]
pub struct ModuleHealth {
    /// [`Spec::id`], which is asked for every tick.
    pub id: String,
    pub spec: Spec,
    pub schedule: Mutex<Schedule>,
    pub up: AtomicBool,
    pub absent: AtomicBool,
    /// Length of the last read.
    pub duration_us: AtomicU64,
    pub reads: AtomicU64,
    pub errors: AtomicU64,
    /// Ticks that did not happen because a read or the encoder took too long.
    pub skipped: AtomicU64,
    error: Mutex<String>,
    /// When the read that is under way began. One that blocks in the kernel has no other sign: no deadline can end it.
    reading_since: Mutex<Option<Instant>>,
}

impl ModuleHealth {
    pub fn new(spec: Spec, schedule: Schedule) -> Self {
        Self {
            id: spec.id(),
            spec,
            schedule: Mutex::new(schedule),
            up: AtomicBool::new(false),
            absent: AtomicBool::new(false),
            duration_us: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            error: Mutex::new(String::new()),
            reading_since: Mutex::new(None),
        }
    }

    /// Whether the last read succeeded and none has been under way for longer than it may take.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed) && self.overdue().is_none()
    }

    /// Whether the last read found that there is no such thing here, and none hangs since.
    pub fn is_absent(&self) -> bool {
        self.absent.load(Ordering::Relaxed) && self.overdue().is_none()
    }

    /// How long a read has been under way that should have ended.
    fn overdue(&self) -> Option<Duration> {
        let since = (*self.reading_since.lock().unwrap_or_else(PoisonError::into_inner))?;
        // A read that is ended by its deadline needs a moment for that.
        Some(since.elapsed()).filter(|elapsed| *elapsed > self.schedule().deadline + OVERDUE)
    }

    fn begin(&self) {
        *self.reading_since.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn end(&self) {
        *self.reading_since.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub fn schedule(&self) -> Schedule {
        *self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_schedule(&self, schedule: Schedule) {
        *self.schedule.lock().unwrap_or_else(PoisonError::into_inner) = schedule;
    }

    /// Why the last read failed; empty while the module is up.
    pub fn error(&self) -> String {
        match self.overdue() {
            Some(elapsed) => format!("a read has not come back for {} s", elapsed.as_secs()),
            None => self.told(),
        }
    }

    /// What was logged of the last read that failed.
    fn told(&self) -> String {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_error(&self, error: String) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
}

/// What is being said of failing modules: when a server is gone, all of its modules fail with one text, which is said once.
#[derive(Debug, Default)]
pub struct Told(Mutex<HashMap<String, u32>>);

impl Told {
    /// Whether nobody has said this yet.
    fn begin(&self, text: &str) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = told.entry(text.to_owned()).or_default();
        *count += 1;
        *count == 1
    }

    /// Whether this is over for all that said it.
    fn end(&self, text: &str) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(count) = told.get_mut(text) else { return false };
        *count -= 1;
        let over = *count == 0;
        if over {
            told.remove(text);
        }
        over
    }
}

/// One module at work.
pub struct Sampler {
    entry: Entry,
    group: u32,
    health: Arc<ModuleHealth>,
    clock: Arc<Clock>,
    out: mpsc::Sender<Sampled>,
    told: Arc<Told>,
    /// Belongs to the group and outlives the module: a restarted one goes on with the same numbers.
    tick: Tick,
    told_series: usize,
    /// The time of the last tick that was handed over.
    last_ms: i64,
    failing: Option<Failing>,
}

/// A run of failures.
struct Failing {
    since: Instant,
    since_ms: i64,
    count: u32,
    ended: bool,
}

/// What the next sampler of the same group goes on with: the numbers of its series, and the time of its last tick.
pub struct Remains {
    tick: Option<Tick>,
    told_series: usize,
    last_ms: i64,
}

impl Default for Remains {
    fn default() -> Self {
        Self { tick: None, told_series: 0, last_ms: i64::MIN }
    }
}

impl Sampler {
    pub fn new(
        entry: Entry,
        group: u32,
        health: Arc<ModuleHealth>,
        clock: Arc<Clock>,
        out: mpsc::Sender<Sampled>,
        told: Arc<Told>,
        remains: Remains,
    ) -> Self {
        let Remains { tick, told_series, last_ms } = remains;
        let tick = tick.unwrap_or_else(Tick::new);
        Self { entry, group, health, clock, out, told, tick, told_series, last_ms, failing: None }
    }

    /// Ticks until `stop`. `phase` is when, within an interval, this module of this agent ticks.
    pub async fn run(mut self, phase: u64, stop: CancellationToken) -> (Entry, Remains) {
        let schedule = self.health.schedule();
        let offset_us = phase % (schedule.interval.as_micros() as u64).max(1);
        let mut ticks = interval_at(first_tick(schedule.interval, offset_us, &self.clock), schedule.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        // Everything is told once at the start, and then in step with the others.
        let mut planned = Instant::now();
        let mut at_ms = self.clock.now_ms();
        loop {
            if at_ms <= self.last_ms {
                self.health.skipped.fetch_add(1, Ordering::Relaxed);
            } else if stop.run_until_cancelled(self.once(schedule, at_ms)).await.is_none() {
                break;
            }
            let skipped = planned.elapsed().as_micros() / schedule.interval.as_micros().max(1);
            self.health.skipped.fetch_add(skipped as u64, Ordering::Relaxed);
            match stop.run_until_cancelled(ticks.tick()).await {
                Some(at) => planned = at,
                None => break,
            }
            at_ms = stamp(self.clock.now_ms(), schedule.interval, offset_us);
        }
        if self.failing.is_some() {
            self.told.end(&self.health.told());
        }
        self.tick.abandon();
        (self.entry, Remains { tick: Some(self.tick), told_series: self.told_series, last_ms: self.last_ms })
    }

    /// One read, and what follows from it.
    async fn once(&mut self, schedule: Schedule, at_ms: i64) {
        let begun = Instant::now();
        self.health.begin();
        let read = AssertUnwindSafe(self.entry.module.sample(&mut self.tick)).catch_unwind();
        let read = timeout(schedule.deadline, read).await.map(|read| read.unwrap_or_else(|panic| Err(broke(&*panic))));
        self.health.end();
        self.health.duration_us.store(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
        self.health.reads.fetch_add(1, Ordering::Relaxed);
        match read.unwrap_or(Err(ModuleError::TimedOut { deadline: schedule.deadline })) {
            Ok(()) => {
                self.succeeded();
                self.send(at_ms, false).await;
            }
            Err(ModuleError::Held) => {
                self.tick.abandon();
                self.end_if_failing_for_long().await;
            }
            Err(error) => {
                self.tick.abandon();
                self.failed(&error, begun, at_ms).await;
            }
        }
    }

    fn succeeded(&mut self) {
        self.health.up.store(true, Ordering::Relaxed);
        self.health.absent.store(false, Ordering::Relaxed);
        if let Some(failing) = self.failing.take() {
            let seconds = failing.since.elapsed().as_secs_f64();
            if self.told.end(&self.health.told()) {
                tracing::info!(module = self.health.id, failures = failing.count, seconds, "module works again");
            }
            self.health.set_error(String::new());
        }
    }

    async fn failed(&mut self, error: &ModuleError, begun: Instant, at_ms: i64) {
        let absent = error.is_absence();
        self.health.up.store(false, Ordering::Relaxed);
        self.health.absent.store(absent, Ordering::Relaxed);
        if !absent {
            self.health.errors.fetch_add(1, Ordering::Relaxed);
        }
        let text = chain(error);
        let module = &self.health.id;
        let before = self.health.told();
        if self.failing.is_none() || before != text {
            if self.failing.is_some() {
                self.told.end(&before);
            }
            let first = self.told.begin(&text);
            if !first || error.is_logged_by_its_source() {
                tracing::debug!(module, error = text, "module failed as others do, or as its source has told");
            } else if absent && self.health.reads.load(Ordering::Relaxed) == 1 {
                tracing::debug!(module, "{text}"); // the roster tells all of these at once
            } else if absent {
                tracing::info!(module, "{text}");
            } else {
                tracing::warn!(
                    module,
                    error = text,
                    "module failed; told again when it works, or fails in another way"
                );
            }
            self.health.set_error(text);
        }
        let failing = self.failing.get_or_insert(Failing { since: begun, since_ms: at_ms, count: 0, ended: false });
        failing.count += 1;
        self.end_if_failing_for_long().await;
    }

    async fn end_if_failing_for_long(&mut self) {
        let Some(failing) = &mut self.failing else { return };
        if !failing.ended && (failing.count >= FAILURES_MAX || failing.since.elapsed() >= FAILING_MAX) {
            failing.ended = true;
            let since_ms = failing.since_ms;
            self.send(since_ms, true).await;
        }
    }

    /// Ends the tick and hands it over, waiting while the encoder is behind.
    async fn send(&mut self, at_ms: i64, ending: bool) {
        // The place in the queue first: a tick that is finished and then lost would leave the encoder behind for good.
        let Ok(place) = self.out.reserve().await else { return };
        let changes = self.tick.finish();
        // A group that has nothing to end would only look as if it had been read.
        if ending && changes.ended.is_empty() {
            return;
        }
        let new_series = self.tick.series().skip(self.told_series).cloned().collect();
        self.told_series = self.tick.series().len();
        self.last_ms = at_ms;
        place.send(Sampled { group: self.group, at_ms, read: Instant::now(), new_series, changes });
    }
}

/// What a panic says.
fn broke(panic: &(dyn Any + Send)) -> ModuleError {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    ModuleError::Broke { detail: text.unwrap_or("it panicked").to_owned() }
}

/// Ends all series of a group whose module is switched off.
pub async fn end(group: u32, remains: &mut Remains, clock: &Clock, out: &mpsc::Sender<Sampled>) {
    let Some(tick) = &mut remains.tick else { return };
    let changes = tick.finish();
    if !changes.ended.is_empty() {
        // Fails only when the agent ends, and then the stream's end says the same.
        let at_ms = clock.now_ms().max(remains.last_ms.saturating_add(1));
        remains.last_ms = at_ms;
        let sampled = Sampled { group, at_ms, read: Instant::now(), new_series: Vec::new(), changes };
        let _ = out.send(sampled).await;
    }
}

/// An error with its causes, as one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
#[path = "sampler_tests.rs"]
mod tests;
