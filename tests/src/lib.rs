//! Both real binaries on loopback, and what it takes to drive, disturb and question them.
//!
//! Nothing here knows the programs from the inside: they are started as a user starts them, spoken to over their sockets,
//! and judged by what their APIs answer. Every wait has a deadline and a condition; no test sleeps and hopes.

mod agent;
mod binaries;
mod collector;
mod cost;
pub mod load;
pub mod mariadb;
pub mod needs;
mod ports;
mod process;
mod proxy;
mod query;
mod reference;
pub mod series;
pub mod servers;
mod wait;

pub use agent::Agent;
pub use binaries::{binary, fixture};
pub use collector::Collector;
pub use cost::Cost;
pub use ports::free_port;
pub use process::{Process, Program, Signal};
pub use proxy::{Link, Proxy};
pub use query::{Api, Sample, Series};
pub use reference::reference;
pub use wait::{PATIENCE, until, until_ok};
