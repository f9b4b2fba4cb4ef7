//! The stale marker: the one NaN that means "no sample from here on".

/// Bits of the stale marker, the same as Prometheus'.
pub const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The stale marker as a value.
pub fn stale() -> f64 {
    f64::from_bits(STALE_BITS)
}

/// Whether this value is the stale marker. Other NaNs are ordinary values.
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_BITS
}
