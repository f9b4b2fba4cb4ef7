//! The modules: one folder per source, one file per module.

pub mod host;
pub mod mysql;
