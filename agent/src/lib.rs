//! The agent: modules -> sampler -> delta encoder -> spool -> uplink.

pub mod clock;
pub mod delta;
pub mod identity;
pub mod module;
pub mod modules;
pub mod spool;
pub mod tick;
