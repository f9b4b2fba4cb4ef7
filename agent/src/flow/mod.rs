//! The one loop between samplers and collector: it numbers ticks, keeps them until they are acked, and decides what is sent.
//!
//! ```text
//! samplers -> [queue: not sent | sent, not acked] -> live lane
//!                 | acked: only the values go on        older than `MEMORY_MAX`, or the stream is lost
//!                 v                                     v
//!               disk thread: spool segments  ->  back-fill lane, behind the live one
//! ```
//! Everything in this loop is done without waiting; what waits (the disk, the connection, the samplers) does so elsewhere.

mod backfill;
#[cfg(test)]
mod collector;
mod queue;
mod run;

pub use run::{Control, Flow, Parts};

use std::time::Duration;

/// A frame that is not acked by then goes to the spool. With the disk's own time a killed agent loses less than a second.
const MEMORY_MAX: Duration = Duration::from_millis(700);

/// Values kept in memory while the disk is behind: some 20 MB. Beyond it all of them are dropped, counted and said aloud.
const MEMORY_VALUES_MAX: usize = 1_000_000;

/// Series of one frame's groups, unless one group alone has more. Any of its ticks may have to be a key tick, and the collector takes
/// 16 MB and 262,144 values in a message: with names and labels of a hundred bytes this leaves room to spare.
const FRAME_SERIES_MAX: usize = 32_768;

/// Unacked bytes on the back-fill lane. They lie in the way of the live lane in every buffer of the connection.
const BACKFILL_BYTES_MAX: usize = 256 * 1024;

/// Nothing sent for so long: a ping says that the agent lives.
const IDLE_PING: Duration = Duration::from_secs(1);

/// Pings measure the clocks, however busy the stream is.
const PING: Duration = Duration::from_secs(5);

/// A stream on which nothing came down for so long, though pings went up, is dead.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// How long a new stream waits for the spool to say what it holds. Without it the collector is sent some frames in vain; with a
/// disk that hangs the agent would else never connect.
const DISK_ANSWERS_WITHIN: Duration = Duration::from_millis(500);

/// A spool segment that the collector could not use so often is set aside.
const REFUSALS_MAX: u32 = 3;

/// How long a stopping agent waits for the last acks.
const DRAIN: Duration = Duration::from_secs(2);

/// How long it then waits for the collector to end the stream.
const GOODBYE: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests;
