//! Simulated agents, and the judge of what became of their samples.
//!
//! Each agent has its own connection, identity and seed and speaks the streaming protocol with an encoder written for this
//! purpose: a mistake in the agent's encoder and its mirror image in the collector's decoder would not agree with it. Every
//! value is a function of (agent, series, tick), see [`value`], so that [`verify`] can tell lost, doubled, shifted and
//! invented samples apart by asking the API.

mod encode;
pub mod host;
mod plan;
pub mod pushed;
pub mod recording;
mod run;
pub mod stuck;
pub mod value;
mod verify;
pub mod wide;

pub use encode::Encoder;
pub use plan::{Pace, Plan};
pub use run::{LoadAgent, Record, run, undisturbed};
pub use verify::{Verdict, verify};

/// The series of one of an agent's groups. They are numbered as an agent numbers them: those of a group lie side by side.
pub fn series_of(group: u32, groups: u32, series: u32) -> std::ops::Range<u32> {
    let first = |group: u32| (u64::from(series) * u64::from(group) / u64::from(groups)) as u32;
    first(group)..first(group + 1)
}

/// All of them, each behind its group, in the order of their numbers.
pub fn by_group(groups: u32, series: u32) -> impl Iterator<Item = (u32, u32)> {
    (0..groups).flat_map(move |group| series_of(group, groups, series).map(move |series| (group, series)))
}

/// The family that simulated agents push.
pub const METRIC: &str = "lampad_load_value";
