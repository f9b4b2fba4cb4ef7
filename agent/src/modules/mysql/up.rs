//! Whether the server answers, and which one it is.
//!
//! Source: what the session saw; a ping where that is older than `FRESH`.
//! Shape:  `mysql_up`, 0 or 1; `mysql_version_info`, 1, while it is up.
//! Errors: `TimedOut` while the first login is under way. A server that refuses, is away or was never found is no error here
//!         but a 0: this group is told when all others fail.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::session::{Health, Session};
use crate::module::{Desc, Module, ModuleError};
use crate::tick::Tick;

const UP: Desc = Desc::gauge("mysql_up", "Whether the MySQL server is up.");
const VERSION: Desc = Desc::gauge("mysql_version_info", "MySQL version and distribution.").labels(&[
    "innodb_version",
    "version",
    "version_comment",
]);

/// Another module's answer of this age stands in for a ping.
const FRESH: Duration = Duration::from_millis(300);
/// A server that does not answer for so long has this tick go by what is known; the ping goes on by itself.
const PATIENCE: Duration = Duration::from_millis(200);

pub struct Up {
    pub session: Arc<Session>,
}

#[async_trait]
impl Module for Up {
    fn descs(&self) -> Vec<Desc> {
        vec![UP, VERSION]
    }

    async fn sample(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let mut seen = self.session.health();
        if !matches!(seen, (Health::Up(_), age) if age < FRESH) {
            // The outcome is in `health` whatever it is, and that is what counts.
            let _ = tokio::time::timeout(PATIENCE, self.session.ping()).await;
            seen = self.session.health();
        }
        match seen.0 {
            Health::Up(server) => {
                out.push(&UP, &[], 1.0);
                out.push(&VERSION, &[&server.innodb_version, &server.version, &server.version_comment], 1.0);
                Ok(())
            }
            // None found is told as one that is down: on a database server that is what it means. A host that shall have none
            // switches the modules off.
            Health::Down | Health::Absent => {
                out.push(&UP, &[], 0.0);
                Ok(())
            }
            // The first login is under way.
            Health::Unknown => Err(ModuleError::TimedOut { deadline: PATIENCE }),
        }
    }
}
