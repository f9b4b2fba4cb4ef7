//! The wire of Lampad and what goes with it: the generated messages ([`v1`]), how a value becomes a column entry
//! ([`decimal`]), the envelope in which messages lie in files ([`record`]), and a client for custom pushers ([`client`]).
#![doc = include_str!("../FORMATS.md")]

pub mod client;
mod codec;
mod column;
pub mod decimal;
mod lower;
mod number;
pub mod record;
mod shown;
mod value;

pub use lower::lower;
pub use number::{Integer, Number};
pub use shown::shown;
pub use value::{STALE_BITS, is_stale, stale};

/// Protocol versions that this build speaks, oldest and newest.
pub const PROTOCOL: std::ops::RangeInclusive<u32> = 1..=2;

/// From this protocol version on a tick may have [`v1::IntegerColumn`]s; an older reader gets [`lower`]ed frames.
pub const PROTOCOL_INTEGERS: u32 = 2;

/// Generated from `lampad/v1/ingest.proto`.
#[allow(clippy::all, missing_docs)]
pub mod v1 {
    tonic::include_proto!("lampad.v1");

    pub use crate::column::DecimalColumn;
}

/// The compiled descriptors of [`v1`], for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/lampad.v1.bin"));
