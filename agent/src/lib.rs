//! The agent: modules -> sampler -> delta encoder -> spool -> uplink.

pub mod module;
pub mod modules;
pub mod tick;
