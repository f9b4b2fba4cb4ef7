//! How a session comes to its connection, and what it does while there is none.
//!
//! A server that is known and away is asked four times a second; one that refuses us is asked less and less often; where none
//! was ever found the usual places are looked at now and then. Each state is logged once.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::super::dialect::Server;
use super::super::discovery::{self, Surroundings};
use super::super::login::{self, Link, LoginError};
use super::super::rows::Rows;
use super::super::settings::MysqlSettings;
use super::super::target::Target;
use super::lock;
use crate::module::ModuleError;

/// Where nothing was ever found we look again this often.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// A server that we know and that is away is asked this often: it may be back any moment, and asking is cheap.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// After a refusal: doubled each time, from the first to the second.
const REFUSED_FIRST: Duration = Duration::from_secs(1);
const REFUSED_MOST: Duration = Duration::from_secs(30);

/// What the last contact with the server told.
#[derive(Debug, Clone)]
pub enum Health {
    Unknown,
    /// No server was named and none was found.
    Absent,
    Up(Arc<Server>),
    Down,
}

/// The last [`Health`], and since when.
pub struct Pulse(Mutex<(Health, Instant)>);

impl Pulse {
    pub fn new() -> Self {
        Self(Mutex::new((Health::Unknown, Instant::now())))
    }

    pub fn set(&self, health: Health) {
        *lock(&self.0) = (health, Instant::now());
    }

    pub fn get(&self) -> (Health, Duration) {
        let health = lock(&self.0);
        (health.0.clone(), health.1.elapsed())
    }
}

/// The connection, or why there is none.
#[derive(Default)]
pub struct Contact {
    pub link: Option<Open>,
    /// Not asked before then, and what the last attempt said.
    pause: Option<(Instant, Trouble)>,
    /// A server was there once, so its absence is news.
    found: bool,
    refusals: u32,
    /// A connection whose statement took no KILL.
    pub unconfirmed: Option<u64>,
    told: Told,
}

pub struct Open {
    pub link: Link,
    pub server: Arc<Server>,
    pub target: Target,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Trouble {
    NoneFound,
    Connect { server: String, detail: String },
}

/// The last thing that was logged, so that a state is told once.
#[derive(Debug, Default, PartialEq)]
enum Told {
    #[default]
    Nothing,
    Connected,
    Trouble(Trouble),
}

impl Contact {
    /// Makes sure that there is a connection, unless it is too early to try again.
    pub async fn open(
        &mut self,
        settings: &MysqlSettings,
        around: &Surroundings,
        pulse: &Pulse,
    ) -> Result<(), Trouble> {
        if self.link.is_some() {
            return Ok(());
        }
        if let Some((until, trouble)) = &self.pause
            && Instant::now() < *until
        {
            return Err(trouble.clone());
        }
        match connect(settings, around, self.found).await {
            Ok(mut open) => {
                if let Some(trouble) = self.still_at_work(settings, &mut open).await {
                    let _ = sqlx::Connection::close(open.link.connection).await;
                    return Err(self.wait(trouble, LOOK_AGAIN, pulse));
                }
                self.tell_connected(&open);
                pulse.set(Health::Up(Arc::clone(&open.server)));
                self.link = Some(open);
                Ok(())
            }
            Err((trouble, refused)) => {
                let pause = match &trouble {
                    Trouble::NoneFound => LOOK_AGAIN,
                    Trouble::Connect { .. } if refused => {
                        self.found = true;
                        self.refusals += 1;
                        (REFUSED_FIRST * (1 << (self.refusals - 1).min(5))).min(REFUSED_MOST)
                    }
                    Trouble::Connect { .. } => ASK_AGAIN,
                };
                Err(self.wait(trouble, pause, pulse))
            }
        }
    }

    /// Tells of the trouble, and asks nobody for so long.
    fn wait(&mut self, trouble: Trouble, pause: Duration, pulse: &Pulse) -> Trouble {
        pulse.set(if trouble == Trouble::NoneFound { Health::Absent } else { Health::Down });
        self.tell_trouble(&trouble);
        self.pause = Some((Instant::now() + pause, trouble.clone()));
        trouble
    }

    /// Whether the server still works at a statement of ours that took no KILL. It is not asked another one meanwhile: on a
    /// server in such a state each would stay as well, with a connection of its own.
    async fn still_at_work(&mut self, settings: &MysqlSettings, open: &mut Open) -> Option<Trouble> {
        let id = self.unconfirmed?;
        let sql = format!("SELECT 1 FROM information_schema.processlist WHERE id = {id}");
        let asked = Rows::fetch(&mut open.link.connection, &sql);
        match tokio::time::timeout(settings.statement_deadline, asked).await {
            Ok(Ok(rows)) if rows.is_empty() => {
                self.unconfirmed = None;
                None
            }
            _ => {
                let detail = format!("it has not ended the statement of connection {id}, which took no KILL");
                Some(Trouble::Connect { server: open.target.to_string(), detail })
            }
        }
    }

    fn tell_connected(&mut self, open: &Open) {
        self.found = true;
        self.refusals = 0;
        self.pause = None;
        if self.told != Told::Connected {
            tracing::info!(server = %open.server, at = %open.target, account = open.link.account, "connected to MySQL");
            self.told = Told::Connected;
        }
    }

    fn tell_trouble(&mut self, trouble: &Trouble) {
        if matches!(&self.told, Told::Trouble(told) if told == trouble) {
            return;
        }
        match trouble {
            Trouble::NoneFound => tracing::info!(
                "no MySQL or MariaDB at the usual sockets or 127.0.0.1:3306; looking again every {LOOK_AGAIN:?}; name one by \
                 --mysql or in ~/.my.cnf"
            ),
            Trouble::Connect { server, detail } => tracing::error!(server, "cannot sample MySQL: {detail}"),
        }
        self.told = Told::Trouble(trouble.clone());
    }
}

/// Tries the servers that may be meant, likeliest first. The flag tells a refusal from an absence.
async fn connect(settings: &MysqlSettings, around: &Surroundings, found: bool) -> Result<Open, (Trouble, bool)> {
    let targets = discovery::targets(settings, around)
        .map_err(|error| (Trouble::Connect { server: "the MySQL server".into(), detail: with_causes(&error) }, true))?;
    let mut absent = None;
    for target in targets {
        match login::log_in(&target, settings.statement_deadline).await {
            Ok(link) => return Ok(Open { server: Arc::new(link.server.clone()), link, target }),
            Err(error @ LoginError::Refused { .. }) => {
                return Err((Trouble::Connect { server: target.to_string(), detail: error.to_string() }, true));
            }
            Err(error) => absent = absent.or(Some((target, error))),
        }
    }
    Err(match absent {
        Some((target, error)) if target.explicit || found => {
            (Trouble::Connect { server: target.to_string(), detail: error.to_string() }, false)
        }
        _ => (Trouble::NoneFound, false),
    })
}

impl From<Trouble> for ModuleError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::NoneFound => Self::NoServer { what: "MySQL or MariaDB server".into() },
            Trouble::Connect { server, detail } => Self::Connect { server, detail },
        }
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    std::iter::once(error.to_string()).chain(causes.map(ToString::to_string)).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Collects what is logged.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            lock(&self.0).extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_state_is_logged_once_and_a_new_one_again() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        let refused = |detail: &str| Trouble::Connect { server: "db".into(), detail: detail.into() };
        tracing::subscriber::with_default(subscriber, || {
            let mut contact = Contact::default();
            for trouble in ["denied", "denied", "away", "away", "denied"] {
                contact.tell_trouble(&refused(trouble));
            }
        });
        let text = String::from_utf8(lock(&log.0).clone()).unwrap();
        let told: Vec<_> = text.lines().map(|line| if line.contains("denied") { "denied" } else { "away" }).collect();
        assert_eq!(told, ["denied", "away", "denied"], "{text}");
        assert!(ModuleError::from(Trouble::NoneFound).is_absence());
    }
}
