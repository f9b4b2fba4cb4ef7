//! Who pushes, whether they live, and what is known of them between restarts.

mod agent;
mod job;
mod lease;
mod liveness;
mod registry;
mod roster;

pub use agent::{Agent, Hello, LEASE, Module, State, hex};
pub use job::Job;
pub use lease::Lease;
pub use liveness::{Liveness, UP_HELP};
pub use registry::{Attach, AttachError, Registry, TAKEOVER_AFTER};
pub use roster::{RosterError, read as read_roster, write as write_roster};
