//! The agent: modules -> sampler -> delta encoder -> spool -> uplink.

pub mod clock;
pub mod config;
pub mod delta;
pub mod flow;
pub mod identity;
pub mod module;
pub mod modules;
pub mod sampler;
pub mod spool;
pub mod stats;
pub mod telemetry;
pub mod tick;
pub mod uplink;
