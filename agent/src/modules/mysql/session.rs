//! The one session that all modules of a server share.
//!
//! At most two connections: one that samples, and for moments a second one that ends a statement past its deadline.
//! Statements run one after another, each in a task of its own, so that a caller that gives up leaves the connection
//! whole. A module has one statement under way at a time; the next one is refused until that is over. After a deadline
//! nothing else runs until the server has confirmed the end of the statement, or the connection has been replaced.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::discovery::{self, Surroundings};
use super::governor::{self, Governor};
use super::login::{self, Kill, Link, LoginError};
use super::rows::Rows;
use super::settings::MysqlSettings;
use super::target::Target;
use crate::module::ModuleError;

/// Where nothing was ever found we look again this often.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// A server that we know and that is away is asked this often: it may be back any moment, and asking is cheap.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// After a refusal: doubled each time, from the first to the second.
const REFUSED_FIRST: Duration = Duration::from_secs(1);
const REFUSED_MOST: Duration = Duration::from_secs(30);
/// How long the server may take to confirm that a statement ended, before we ask again.
const CONFIRM: Duration = Duration::from_secs(1);
/// Kills asked before we hold the connection for dead.
const KILLS_MAX: u32 = 10;
/// From this one on the connection is ended and not just its statement.
const KILLS_OF_QUERY: u32 = 3;

/// What the last contact with the server told.
#[derive(Debug, Clone)]
pub enum Health {
    Unknown,
    /// No server was named and none was found.
    Absent,
    Up(Arc<super::dialect::Server>),
    Down,
}

/// An answer, and who gave it.
#[derive(Debug)]
pub struct Answer {
    pub rows: Rows,
    pub server: Arc<super::dialect::Server>,
}

pub struct Session {
    settings: MysqlSettings,
    around: Surroundings,
    state: tokio::sync::Mutex<State>,
    /// Keys of the statements under way or waiting.
    flights: Mutex<HashSet<&'static str>>,
    health: Mutex<(Health, Instant)>,
    governor: Governor,
}

#[derive(Default)]
struct State {
    link: Option<Open>,
    /// Not asked before then, and what the last attempt said.
    pause: Option<(Instant, Trouble)>,
    /// A server was there once, so its absence is news.
    found: bool,
    refusals: u32,
    /// A connection whose statement took no KILL.
    unconfirmed: Option<u64>,
    told: Told,
}

struct Open {
    link: Link,
    server: Arc<super::dialect::Server>,
    target: Target,
}

#[derive(Debug, Clone, PartialEq)]
enum Trouble {
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

impl Session {
    pub fn new(settings: MysqlSettings, around: Surroundings) -> Arc<Self> {
        Arc::new(Self {
            settings,
            around,
            state: tokio::sync::Mutex::default(),
            flights: Mutex::default(),
            health: Mutex::new((Health::Unknown, Instant::now())),
            governor: Governor::default(),
        })
    }

    pub fn settings(&self) -> &MysqlSettings {
        &self.settings
    }

    /// Who may be read, and what it has cost.
    pub fn governor(&self) -> &Governor {
        &self.governor
    }

    /// What is known of the server, and since when.
    pub fn health(&self) -> (Health, Duration) {
        let health = lock(&self.health);
        (health.0.clone(), health.1.elapsed())
    }

    fn set_health(&self, health: Health) {
        *lock(&self.health) = (health, Instant::now());
    }

    /// Runs the statement that `sql` gives for this server. `key` names it: of two with one key the second is refused.
    pub async fn query<F>(self: &Arc<Self>, key: &'static str, sql: F) -> Result<Answer, ModuleError>
    where
        F: FnOnce(&super::dialect::Server) -> Result<Cow<'static, str>, ModuleError> + Send + 'static,
    {
        let deadline = self.settings.statement_deadline;
        // The failure of the one that is under way has been told.
        let Some(flight) = Flight::begin(self, key) else { return Err(ModuleError::Held) };
        let (reply, answer) = oneshot::channel();
        let session = Arc::clone(self);
        let meter = governor::meter();
        tokio::spawn(async move { session.run(flight, sql, reply, meter).await });
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            // The task drops `reply` unused only when it found its deadline past.
            Ok(Err(_)) | Err(_) => Err(ModuleError::TimedOut { deadline }),
        }
    }

    /// Asks the server whether it is there, without a statement. `Ok` once it answered or was found to be away.
    pub async fn ping(self: &Arc<Self>) -> Result<(), ModuleError> {
        self.query("ping", |_| Ok(Cow::Borrowed(""))).await.map(|_| ())
    }

    async fn run<F>(
        self: Arc<Self>,
        flight: Flight,
        sql: F,
        reply: oneshot::Sender<Result<Answer, ModuleError>>,
        meter: Option<Arc<AtomicU64>>,
    ) where
        F: FnOnce(&super::dialect::Server) -> Result<Cow<'static, str>, ModuleError>,
    {
        let mut state = self.state.lock().await;
        if reply.is_closed() {
            return; // waited past its deadline behind others
        }
        let outcome = match self.open(&mut state).await {
            Ok(()) => self.ask(&mut state, sql, flight, reply, meter).await,
            Err(trouble) => {
                drop(flight);
                let _ = reply.send(Err(trouble.into()));
                Ok(())
            }
        };
        if let Err(lost) = outcome {
            // Its thread at the server is gone, or we have no way to reach it: either way this connection is over.
            tracing::debug!(%lost, "connection to MySQL given up");
            state.link = None;
        }
    }

    /// Whether the server still works at a statement of ours that took no KILL. It is not asked another one meanwhile: on a
    /// server in such a state each would stay as well, with a connection of its own.
    async fn still_at_work(&self, state: &mut State, open: &mut Open) -> Option<Trouble> {
        let id = state.unconfirmed?;
        let sql = format!("SELECT 1 FROM information_schema.processlist WHERE id = {id}");
        let asked = Rows::fetch(&mut open.link.connection, &sql);
        match tokio::time::timeout(self.settings.statement_deadline, asked).await {
            Ok(Ok(rows)) if rows.is_empty() => {
                state.unconfirmed = None;
                None
            }
            _ => {
                let detail = format!("it has not ended the statement of connection {id}, which took no KILL");
                Some(Trouble::Connect { server: open.target.to_string(), detail })
            }
        }
    }

    /// Asks on the open connection. The flight ends before its answer is told, so that whoever hears it may ask again at once.
    /// `Err` when that connection is of no use any more.
    async fn ask<F>(
        &self,
        state: &mut State,
        sql: F,
        flight: Flight,
        reply: oneshot::Sender<Result<Answer, ModuleError>>,
        meter: Option<Arc<AtomicU64>>,
    ) -> Result<(), String>
    where
        F: FnOnce(&super::dialect::Server) -> Result<Cow<'static, str>, ModuleError>,
    {
        let Some(Open { link, server, target }) = state.link.as_mut() else { return Err("not open".into()) };
        let sql = match sql(server) {
            Ok(sql) => sql,
            Err(error) => {
                drop(flight);
                let _ = reply.send(Err(error));
                return Ok(());
            }
        };
        let deadline = self.settings.statement_deadline;
        let id = link.id;
        let mut fetch = std::pin::pin!(async {
            if sql.is_empty() {
                sqlx::Connection::ping(&mut link.connection).await.map(|()| Rows::default())
            } else {
                Rows::fetch(&mut link.connection, &sql).await
            }
        });
        let begun = Instant::now();
        let fetched = tokio::time::timeout(deadline, &mut fetch).await;
        governor::count(meter.as_ref(), begun.elapsed());
        let fetched = match fetched {
            Ok(fetched) => fetched,
            Err(_) => {
                self.set_health(Health::Down);
                let _ = reply.send(Err(ModuleError::TimedOut { deadline }));
                // This one is under way until the server has confirmed its end.
                let ended = end_statement(target, id, fetch).await;
                drop(flight);
                return match ended {
                    Ended::Confirmed => {
                        self.set_health(Health::Up(Arc::clone(server)));
                        Ok(())
                    }
                    Ended::Lost(detail) => Err(detail),
                    Ended::Unconfirmed => {
                        state.unconfirmed = Some(id);
                        Err(format!("the server did not confirm the end of a statement after {KILLS_MAX} KILLs"))
                    }
                };
            }
        };
        drop(flight);
        match fetched {
            Ok(rows) => {
                self.set_health(Health::Up(Arc::clone(server)));
                let _ = reply.send(Ok(Answer { rows, server: Arc::clone(server) }));
                Ok(())
            }
            Err(error) if login::is_lost(&error) => {
                self.set_health(Health::Down);
                let _ = reply.send(Err(ModuleError::Connect { server: target.to_string(), detail: error.to_string() }));
                Err(error.to_string())
            }
            Err(error) => {
                self.set_health(Health::Up(Arc::clone(server)));
                let _ = reply.send(Err(refusal(&sql, &error, deadline)));
                Ok(())
            }
        }
    }

    /// Makes sure that there is a connection, unless it is too early to try again.
    async fn open(&self, state: &mut State) -> Result<(), Trouble> {
        if state.link.is_some() {
            return Ok(());
        }
        if let Some((until, trouble)) = &state.pause
            && Instant::now() < *until
        {
            return Err(trouble.clone());
        }
        match self.connect(state.found).await {
            Ok(mut open) => {
                if let Some(trouble) = self.still_at_work(state, &mut open).await {
                    let _ = sqlx::Connection::close(open.link.connection).await;
                    self.set_health(Health::Down);
                    state.tell_trouble(&trouble);
                    state.pause = Some((Instant::now() + LOOK_AGAIN, trouble.clone()));
                    return Err(trouble);
                }
                state.tell_connected(&open);
                self.set_health(Health::Up(Arc::clone(&open.server)));
                state.link = Some(open);
                Ok(())
            }
            Err((trouble, refused)) => {
                let pause = match &trouble {
                    Trouble::NoneFound => LOOK_AGAIN,
                    Trouble::Connect { .. } if refused => {
                        state.found = true;
                        state.refusals += 1;
                        (REFUSED_FIRST * (1 << (state.refusals - 1).min(5))).min(REFUSED_MOST)
                    }
                    Trouble::Connect { .. } => ASK_AGAIN,
                };
                self.set_health(if trouble == Trouble::NoneFound { Health::Absent } else { Health::Down });
                state.tell_trouble(&trouble);
                state.pause = Some((Instant::now() + pause, trouble.clone()));
                Err(trouble)
            }
        }
    }

    /// Tries the servers that may be meant, likeliest first. The flag tells a refusal from an absence.
    async fn connect(&self, found: bool) -> Result<Open, (Trouble, bool)> {
        let targets = discovery::targets(&self.settings, &self.around).map_err(|error| {
            (Trouble::Connect { server: "the MySQL server".into(), detail: with_causes(&error) }, true)
        })?;
        let mut absent = None;
        for target in targets {
            match login::log_in(&target, self.settings.statement_deadline).await {
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
}

impl Drop for Session {
    /// Takes leave, as far as there is time: a connection that just breaks off is a warning in the server's log.
    fn drop(&mut self) {
        if let (Some(open), Ok(runtime)) = (self.state.get_mut().link.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(sqlx::Connection::close(open.link.connection));
        }
    }
}

/// What became of a statement that was to be ended.
enum Ended {
    Confirmed,
    /// Its connection is gone, and the statement with it.
    Lost(String),
    Unconfirmed,
}

/// Has the server end the statement on connection `id` and waits until `fetch` has seen it end.
async fn end_statement<F>(target: &Target, id: u64, mut fetch: std::pin::Pin<&mut F>) -> Ended
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

/// A statement that the server refused or ended.
fn refusal(sql: &str, error: &sqlx::Error, deadline: Duration) -> ModuleError {
    let way_out = match login::error_number(error) {
        // Interrupted; over max_statement_time (MariaDB), over max_execution_time (MySQL).
        Some(1317 | 1969 | 3024) => return ModuleError::TimedOut { deadline },
        // A table of information_schema that only other servers have.
        Some(1109) => return ModuleError::Absent { what: error.to_string() },
        Some(1044 | 1045 | 1142 | 1143 | 1227 | 1370) => "; `lampad-agent check` prints the missing GRANT",
        _ => "",
    };
    let statement = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    ModuleError::Query { statement, detail: format!("{error}{way_out}") }
}

impl State {
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

impl From<Trouble> for ModuleError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::NoneFound => Self::NoServer { what: "MySQL or MariaDB server".into() },
            Trouble::Connect { server, detail } => Self::Connect { server, detail },
        }
    }
}

/// Held while a statement is under way, by the task that runs it.
struct Flight {
    session: Arc<Session>,
    key: &'static str,
}

impl Flight {
    fn begin(session: &Arc<Session>, key: &'static str) -> Option<Self> {
        lock(&session.flights).insert(key).then(|| Self { session: Arc::clone(session), key })
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        lock(&self.session.flights).remove(self.key);
    }
}

/// Plain data behind these locks: whoever panicked left it whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
            let mut state = State::default();
            for trouble in ["denied", "denied", "away", "away", "denied"] {
                state.tell_trouble(&refused(trouble));
            }
        });
        let text = String::from_utf8(lock(&log.0).clone()).unwrap();
        let told: Vec<_> = text.lines().map(|line| if line.contains("denied") { "denied" } else { "away" }).collect();
        assert_eq!(told, ["denied", "away", "denied"], "{text}");
    }

    #[tokio::test]
    async fn a_named_server_that_is_away_is_trouble_and_a_guessed_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let around = Surroundings { user: "u".into(), root: dir.path().into(), ..Surroundings::default() };
        let dsn = format!("mysql://u@localhost?socket={}/s", dir.path().display());
        let named = MysqlSettings { server: Some(super::super::Secret::new(dsn)), ..MysqlSettings::default() };
        let named = Session::new(named, around);
        assert!(matches!(named.ping().await, Err(ModuleError::Connect { .. })));
        assert!(matches!(named.health().0, Health::Down));
        assert!(ModuleError::from(Trouble::NoneFound).is_absence());
    }

    #[tokio::test]
    async fn of_two_statements_with_one_key_the_second_is_refused() {
        let session = Session::new(MysqlSettings::default(), Surroundings::default());
        let first = Flight::begin(&session, "a");
        assert!(first.is_some() && Flight::begin(&session, "a").is_none() && Flight::begin(&session, "b").is_some());
        drop(first);
        assert!(Flight::begin(&session, "a").is_some());
    }
}
