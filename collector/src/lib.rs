//! The collector: ingest -> store -> query -> api. No arrow runs back up.

pub mod api;
pub mod fleet;
pub mod ingest;
pub mod query;
pub mod store;
