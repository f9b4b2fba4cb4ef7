//! Frames that wait for the collector, on disk.
//!
//! A frame stays in memory for most of a second; when it is not acked by then it goes here, so that an outage or a killed
//! agent costs nothing that is older. The spool is a directory of *segments*:
//!
//! ```text
//! STATE_DIR/spool/0000000000000012.seg      a number, ascending, 16 hex digits
//!
//! header   magic    8 bytes  "LMPSPOOL"
//!          version  u16 LE   2; 1 is read too
//!          zero     u16
//!          agent    16 bytes
//!          epoch    u64 LE   at the time of writing, for people; numbers go on over epochs
//!          check    u32 LE   CRC-32 (IEEE) over the bytes before
//! records  as in `lampad_proto::record`; the payload is a message of the wire, lane `LANE_BACKFILL`:
//!          kind 1   Dictionary
//!          kind 2   Frame
//! ```
//! A segment is self-contained: its first record is a dictionary with `reset`, and the first tick of each group in it is a
//! key tick. It is sent as it lies on disk. It ends after [`SEGMENT_BYTES`] or [`SEGMENT_AGE`], and is deleted once every
//! frame in it is acked by whichever lane.
//!
//! * *Torn tail* of the newest segment (a crash while writing): the records before it are used, the rest is cut off; it was
//!   never promised.
//! * *Damage* (flipped bits, an end that is missing): the records before it are used, the rest is copied to `NAME.bad`, said
//!   aloud and counted. A file that cannot be read at all becomes `NAME.bad` itself.
//! * A segment of another agent (a cloned machine) is not ours to send: set aside as `NAME.old`, said aloud and counted.
//! * A segment of a newer version: the spool is not opened, and nothing in it is touched.
//! * A segment that the collector cannot use, sent again and again, is set aside as `NAME.bad`, said aloud and counted.
//! * What is set aside may take half of the spool's bound in bytes; what is more is deleted, and how much that was is said.
//! * *Full*: above its bound the spool drops its oldest segment, counted and said aloud.
//! * *Disk errors*: what cannot be written waits in memory up to [`UNWRITTEN_BYTES_MAX`], then goes, with the
//!   segment that it belongs to: frames build on those before. Said aloud and counted.

mod disk;
mod ranges;
mod segment;
mod store;

pub use disk::{Command, Event, Health, SpoolDisk};
pub use ranges::Ranges;
pub use segment::Owner;
pub use store::{Chunk, Kept, Spool, SpoolError, Wanted};

use std::time::Duration;

/// A segment ends when it is this long: the unit of dropping and of one read for the back-fill lane.
pub const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;

/// A segment ends when it is this old, so that little of what is acked stays on disk.
pub const SEGMENT_AGE: Duration = Duration::from_secs(600);

/// Encoded frames that wait in memory while the disk refuses them: minutes of a busy agent.
pub const UNWRITTEN_BYTES_MAX: usize = 16 * 1024 * 1024;
