//! Who pushes, whether they live, and what is known of them between restarts.

mod job;
mod liveness;
mod registry;
mod roster;

pub use job::Job;
pub use liveness::{Liveness, UP_HELP};
pub use registry::{Agent, Attach, AttachError, Hello, LEASE, Lease, Module, Registry, State, TAKEOVER_AFTER, hex};
pub use roster::{RosterError, read as read_roster, write as write_roster};
