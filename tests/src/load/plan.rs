//! What a run of simulated agents shall do.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// When a tick is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// In its moment.
    Real,
    /// As fast as acks allow; ticks are stamped so that the last one is now.
    FlatOut,
}

#[derive(Debug, Clone)]
pub struct Plan {
    /// `http://HOST:PORT`
    pub collector: String,
    /// Number of the first agent; others count on from it.
    pub first_agent: u32,
    pub agents: u32,
    pub series: u32,
    /// Groups into which an agent's series are dealt.
    pub groups: u32,
    pub interval: Duration,
    pub ticks: u64,
    pub change_percent: u8,
    pub pace: Pace,
    /// How far the agents' clocks are ahead of this machine's.
    pub clock_ahead_ms: i64,
    /// How long an agent goes on trying to have everything acked after its last tick.
    pub patience: Duration,
    /// Counts the agents that have had all they sent acked, for the first time.
    pub begun: Arc<AtomicU32>,
}

impl Plan {
    /// One agent of 20 series, ten ticks a second: small enough for any test.
    pub fn small(collector: impl Into<String>) -> Self {
        Self {
            collector: collector.into(),
            first_agent: 0,
            agents: 1,
            series: 20,
            groups: 2,
            interval: Duration::from_millis(100),
            ticks: 20,
            change_percent: 36,
            pace: Pace::Real,
            clock_ahead_ms: 0,
            patience: Duration::from_secs(20),
            begun: Arc::default(),
        }
    }

    pub fn interval_ms(&self) -> i64 {
        self.interval.as_millis() as i64
    }

    /// The label `instance` of an agent.
    pub fn instance(agent: u32) -> String {
        format!("load-{agent:05}")
    }
}
