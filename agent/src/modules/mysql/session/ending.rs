//! The end of a statement that is past its deadline.

use std::pin::Pin;
use std::time::Duration;

use super::super::login::{self, Kill};
use super::super::rows::Rows;
use super::super::target::Target;

/// How long the server may take to confirm that a statement ended, before we ask again.
const CONFIRM: Duration = Duration::from_secs(1);
/// Kills asked before we hold the connection for dead.
pub const KILLS_MAX: u32 = 10;
/// From this one on the connection is ended and not just its statement.
const KILLS_OF_QUERY: u32 = 3;

/// What became of a statement that was to be ended.
pub enum Ended {
    Confirmed,
    /// Its connection is gone, and the statement with it.
    Lost(String),
    Unconfirmed,
}

/// Has the server end the statement on connection `id` and waits until `fetch` has seen it end.
pub async fn end_statement<F>(target: &Target, id: u64, mut fetch: Pin<&mut F>) -> Ended
where
    F: Future<Output = Result<Rows, sqlx::Error>>,
{
    for kill in 0..KILLS_MAX {
        let what = if kill < KILLS_OF_QUERY { Kill::Query } else { Kill::Connection };
        // Both to their end: a KILL cut off in the middle would count as an aborted client at the server.
        let kill = tokio::time::timeout(CONFIRM, login::kill(target, what, id));
        let (ended, _) = tokio::join!(tokio::time::timeout(CONFIRM, &mut fetch), kill);
        match ended {
            Ok(Err(error)) if login::is_lost(&error) => return Ended::Lost(error.to_string()),
            Ok(_) => return Ended::Confirmed,
            Err(_) => {}
        }
    }
    Ended::Unconfirmed
}
