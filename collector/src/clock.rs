//! The wall clock, in the unit of all timestamps.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970; 0 where the machine's clock stands before it.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
