//! The collector: ingest -> store -> query -> api. No arrow runs back up.

pub mod api;
pub mod auth;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod daemon;
pub mod fleet;
pub mod ingest;
pub mod limits;
pub mod logging;
pub mod own;
pub mod query;
#[cfg(test)]
mod recorder;
pub mod sink;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod web;
