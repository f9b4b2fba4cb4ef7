//! Sealed runs.

/// A run that lies in blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SealedRun {
    pub min_ms: i64,
    pub max_ms: i64,
    /// The newest data of its group at its time, as opposed to an overlay.
    pub live: bool,
}
