//! The one session that all modules of a server share.
//!
//! At most two connections: one that samples, and for moments a second one that ends a statement past its deadline.
//! Statements run one after another, each in a task of its own, so that a caller that gives up leaves the connection
//! whole. A module has one statement under way at a time; the next one is refused until that is over. After a deadline
//! nothing else runs until the server has confirmed the end of the statement, or the connection has been replaced.

mod contact;
mod ending;

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

pub use self::contact::Health;
use self::contact::{Contact, Open, Pulse};
use self::ending::{Ended, KILLS_MAX, end_statement};
use super::discovery::Surroundings;
use super::governor::{Governor, Meter};
use super::login::{self, Link};
use super::rows::Rows;
use super::settings::MysqlSettings;
use crate::module::ModuleError;

/// An answer, and who gave it.
#[derive(Debug)]
pub struct Answer {
    pub rows: Rows,
    pub server: Arc<super::dialect::Server>,
}

pub struct Session {
    settings: MysqlSettings,
    around: Surroundings,
    contact: tokio::sync::Mutex<Contact>,
    /// Keys of the statements under way or waiting.
    flights: Mutex<HashSet<&'static str>>,
    pulse: Pulse,
    governor: Governor,
}

impl Session {
    pub fn new(settings: MysqlSettings, around: Surroundings) -> Arc<Self> {
        Arc::new(Self {
            settings,
            around,
            contact: tokio::sync::Mutex::default(),
            flights: Mutex::default(),
            pulse: Pulse::new(),
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
        self.pulse.get()
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
        let meter = Meter::current();
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
        meter: Option<Arc<Meter>>,
    ) where
        F: FnOnce(&super::dialect::Server) -> Result<Cow<'static, str>, ModuleError>,
    {
        let mut contact = self.contact.lock().await;
        if reply.is_closed() {
            return; // waited past its deadline behind others
        }
        let begun = Instant::now();
        let outcome = match contact.open(&self.settings, &self.around, &self.pulse).await {
            Ok(()) => self.ask(&mut contact, sql, flight, reply, meter).await,
            Err(trouble) => {
                drop(flight);
                let _ = reply.send(Err(trouble.into()));
                Ok(())
            }
        };
        if let Err(lost) = outcome {
            // Its thread at the server is gone, or we have no way to reach it: either way this connection is over.
            tracing::debug!(%lost, "connection to MySQL given up");
            if let Some(open) = contact.link.take() {
                self.charge_for_the_wait(open.link, begun.elapsed());
            }
        }
    }

    /// Asks on the open connection. The flight ends before its answer is told, so that whoever hears it may ask again at once.
    /// `Err` when that connection is of no use any more.
    async fn ask<F>(
        &self,
        contact: &mut Contact,
        sql: F,
        flight: Flight,
        reply: oneshot::Sender<Result<Answer, ModuleError>>,
        meter: Option<Arc<Meter>>,
    ) -> Result<(), String>
    where
        F: FnOnce(&super::dialect::Server) -> Result<Cow<'static, str>, ModuleError>,
    {
        let Some(Open { link, server, target }) = contact.link.as_mut() else { return Err("not open".into()) };
        let sql = match sql(server) {
            Ok(sql) => sql,
            Err(error) => {
                drop(flight);
                let _ = reply.send(Err(error));
                return Ok(());
            }
        };
        self.charge(link);
        let module = meter.as_ref().map(|meter| meter.module);
        // Charged by what its thread runs, or by how long it takes.
        let meter = meter.filter(|_| link.thread.is_none());
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
        meter.iter().for_each(|meter| meter.begin());
        link.served = module;
        let fetched = tokio::time::timeout(deadline, &mut fetch).await;
        meter.iter().for_each(|meter| meter.end(begun.elapsed()));
        let fetched = match fetched {
            Ok(fetched) => fetched,
            Err(_) => {
                self.pulse.set(Health::Down);
                let _ = reply.send(Err(ModuleError::TimedOut { deadline }));
                // This one is under way until the server has confirmed its end.
                let ended = end_statement(target, id, fetch).await;
                drop(flight);
                return match ended {
                    Ended::Confirmed => {
                        self.pulse.set(Health::Up(Arc::clone(server)));
                        Ok(())
                    }
                    Ended::Lost(detail) => Err(detail),
                    Ended::Unconfirmed => {
                        contact.unconfirmed = Some(id);
                        Err(format!("the server did not confirm the end of a statement after {KILLS_MAX} KILLs"))
                    }
                };
            }
        };
        drop(flight);
        match fetched {
            Ok(rows) => {
                self.pulse.set(Health::Up(Arc::clone(server)));
                let _ = reply.send(Ok(Answer { rows, server: Arc::clone(server) }));
                Ok(())
            }
            Err(error) if login::is_lost(&error) => {
                self.pulse.set(Health::Down);
                let _ = reply.send(Err(ModuleError::Connect { server: target.to_string(), detail: error.to_string() }));
                Err(error.to_string())
            }
            Err(error) => {
                self.pulse.set(Health::Up(Arc::clone(server)));
                let _ = reply.send(Err(refusal(&sql, &error, deadline)));
                Ok(())
            }
        }
    }
}

impl Session {
    /// Charges whoever had the last statement for what the server's thread has done since: it is at rest now.
    fn charge(&self, link: &mut Link) {
        let Some(thread) = &mut link.thread else { return };
        match (thread.lap(), link.served.take()) {
            (Some(spent), Some(module)) => self.governor.charge(module, spent),
            (Some(_), None) => {}
            (None, _) => link.thread = None,
        }
    }

    /// The thread is lost with its connection, and what it has spent is not known.
    fn charge_for_the_wait(&self, link: Link, took: Duration) {
        if let (Some(_), Some(module)) = (link.thread, link.served) {
            self.governor.settle(module, took.as_secs_f64());
        }
    }
}

impl Drop for Session {
    /// Takes leave, as far as there is time: a connection that just breaks off is a warning in the server's log.
    fn drop(&mut self) {
        if let (Some(open), Ok(runtime)) = (self.contact.get_mut().link.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(sqlx::Connection::close(open.link.connection));
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_named_server_that_is_away_is_trouble_and_a_guessed_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let around = Surroundings { user: "u".into(), root: dir.path().into(), ..Surroundings::default() };
        let dsn = format!("mysql://u@localhost?socket={}/s", dir.path().display());
        let named = MysqlSettings { server: Some(super::super::Secret::new(dsn)), ..MysqlSettings::default() };
        let named = Session::new(named, around);
        assert!(matches!(named.ping().await, Err(ModuleError::Connect { .. })));
        assert!(matches!(named.health().0, Health::Down));
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
