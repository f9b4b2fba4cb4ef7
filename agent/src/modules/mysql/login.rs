//! Opens one connection and says, where that fails, what the reader can do about it.

use std::io::ErrorKind;
use std::time::Duration;

use sqlx::mysql::{MySqlConnection, MySqlDatabaseError};
use sqlx::{ConnectOptions, Connection};

use super::dialect::Server;
use super::response_time;
use super::rows::Rows;
use super::server_thread::ServerThread;
use super::target::{Address, Target, TlsMode};

/// For connecting, logging in and learning who answers. A local server takes 5 ms; beyond this nobody is there.
const LOGIN_LIMIT: Duration = Duration::from_secs(5);
/// Added to a statement's deadline for the server's own limit: KILL QUERY comes first, and the server's limit ends what
/// runs on when this process is gone.
const SERVER_LIMIT_MARGIN: Duration = Duration::from_secs(1);

/// A connection that is logged in and set up.
pub struct Link {
    pub connection: MySqlConnection,
    /// As the server counts them; what KILL takes.
    pub id: u64,
    pub server: Server,
    /// `user@host` that the server found for us: the one that rights are granted to.
    pub account: String,
    /// The server's thread for this connection, where it can be seen.
    pub thread: Option<ServerThread>,
    /// Whose statement that thread was at last, until it is charged for.
    pub served: Option<&'static str>,
}

#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// Nobody listens there.
    #[error("no server there: {detail}; start it, or name another one by --mysql or in ~/.my.cnf")]
    Absent { detail: String },
    /// It answered, and said no; asking again at once gives the same answer.
    #[error("{detail}")]
    Refused { detail: String },
}

/// Logs in and prepares the session: read only, short waits for locks, quiet.
pub async fn log_in(target: &Target, statement_deadline: Duration) -> Result<Link, LoginError> {
    let limited = tokio::time::timeout(LOGIN_LIMIT, async {
        let mut connection = connect(target).await?;
        let (id, account, server) = introduce(&mut connection, statement_deadline).await?;
        let thread = own_thread(&mut connection, &server, target).await?;
        Ok(Link { connection, id, server, account, thread, served: None })
    });
    match limited.await {
        Ok(Ok(link)) => Ok(link),
        Ok(Err(error)) => Err(explain(&error, target)),
        Err(_) => Err(LoginError::Absent { detail: format!("no answer within {LOGIN_LIMIT:?}") }),
    }
}

async fn connect(target: &Target) -> Result<MySqlConnection, sqlx::Error> {
    let first = target.options(target.tls.mode).connect().await;
    match first {
        // An old server may offer only TLS versions that nobody speaks any more; "preferred" means to go on without.
        Err(error) if target.tls.mode == TlsMode::Preferred && is_tls_trouble(&error) => {
            target.options(TlsMode::Disabled).connect().await
        }
        Err(error) if may_need_clear_password(target, &error) => match super::warm_up::log_in_once(target).await {
            Ok(()) => target.options(TlsMode::Disabled).connect().await,
            Err(_) => Err(error),
        },
        other => other,
    }
}

fn is_tls_trouble(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Tls(_) => true,
        sqlx::Error::Io(error) => error.kind() == ErrorKind::InvalidData,
        _ => false,
    }
}

/// Over a socket without TLS the driver sends what a server expects over plain TCP only; see `warm_up.rs`.
fn may_need_clear_password(target: &Target, error: &sqlx::Error) -> bool {
    let over_socket = matches!(target.address, Address::Socket(_));
    over_socket && target.password.is_some() && error_number(error) == Some(1045)
}

/// Who are we, who is it, and the settings of the session.
async fn introduce(
    connection: &mut MySqlConnection,
    statement_deadline: Duration,
) -> Result<(u64, String, Server), sqlx::Error> {
    const WHO: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('version', 'version_comment', 'innodb_version', \
                       'performance_schema', 'query_response_time_stats', 'log_bin', 'userstat', 'thread_handling')";
    let variables = Rows::fetch(connection, WHO).await?;
    let find =
        |name: &str| variables.pairs().find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value);
    let mut server = Server::new(find("version"), find("version_comment"));
    server.innodb_version = find("innodb_version").to_owned();
    server.performance_schema = find("performance_schema") == "ON";
    server.user_statistics = matches!(find("userstat"), "ON" | "1");
    server.thread_per_connection = find("thread_handling") == "one-thread-per-connection";
    server.binary_log = find("log_bin") == "ON";
    server.query_response_time = matches!(find("query_response_time_stats"), "ON" | "1");
    if server.query_response_time {
        server.query_response_time_split = !Rows::fetch(connection, response_time::SPLIT).await?.is_empty();
    }

    let me = Rows::fetch(connection, "SELECT CONNECTION_ID() AS id, CURRENT_USER() AS account").await?;
    let me = me.iter().next().ok_or(sqlx::Error::RowNotFound)?;
    let id = me.get("id").and_then(|id| id.parse().ok()).ok_or(sqlx::Error::RowNotFound)?;
    let account = me.get("account").unwrap_or_default().to_owned();

    // The server's own time zone, because information_schema tells times in it.
    let mut session =
        "SET NAMES utf8mb4, SESSION sql_mode='', SESSION time_zone='SYSTEM', SESSION lock_wait_timeout=2".to_owned();
    if let Some(limit) = server.statement_limit(statement_deadline + SERVER_LIMIT_MARGIN) {
        session.push_str(", SESSION ");
        session.push_str(&limit);
    }
    Rows::fetch(connection, &session).await?;
    Rows::fetch(connection, "SET SESSION TRANSACTION READ ONLY").await?;
    for setting in server.quiet_settings() {
        match Rows::fetch(connection, setting).await {
            Ok(_) | Err(sqlx::Error::Database(_)) => {} // refused: our statements may stand in the slow log then
            Err(error) => return Err(error),
        }
    }
    Ok((id, account, server))
}

/// The thread that serves us; an account may be denied to ask.
async fn own_thread(
    connection: &mut MySqlConnection,
    server: &Server,
    target: &Target,
) -> Result<Option<ServerThread>, sqlx::Error> {
    let Some(sql) = server.own_thread() else { return Ok(None) };
    match Rows::fetch(connection, sql).await {
        Ok(rows) => Ok(ServerThread::find(target, &rows)),
        Err(sqlx::Error::Database(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Ends the statement that runs on connection `id` (or that connection), from a connection of its own.
pub async fn kill(target: &Target, what: Kill, id: u64) -> Result<(), sqlx::Error> {
    let mut connection = connect(target).await?;
    let statement = match what {
        Kill::Query => format!("KILL QUERY {id}"),
        Kill::Connection => format!("KILL CONNECTION {id}"),
    };
    let killed = Rows::fetch(&mut connection, &statement).await;
    connection.close().await?;
    killed.map(|_| ())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kill {
    Query,
    Connection,
}

/// The server's number for an error of its own.
pub fn error_number(error: &sqlx::Error) -> Option<u16> {
    let sqlx::Error::Database(error) = error else { return None };
    Some(error.try_downcast_ref::<MySqlDatabaseError>()?.number())
}

/// Whether the connection is of no use any more.
pub fn is_lost(error: &sqlx::Error) -> bool {
    match error_number(error) {
        // Shutdown in progress; new connection could not be finished; killed (MySQL, MariaDB); idle too long.
        Some(number) => matches!(number, 1053 | 1080 | 1152 | 1927 | 3169 | 4031),
        None => true,
    }
}

fn explain(error: &sqlx::Error, target: &Target) -> LoginError {
    let refused = |detail: String| LoginError::Refused { detail };
    let user = &target.user;
    if let Some(number) = error_number(error) {
        let way_out = match number {
            1045 | 1698 | 1044 => {
                "is the password right? Create the account as `lampad-agent check` prints it, or name another one by --mysql \
                 or in ~/.my.cnf"
            }
            1130 => "the server admits nobody from this host; create the account for this host",
            1129 => "the server blocked this host after too many errors; run FLUSH HOSTS there",
            1040 | 1203 | 1226 => "the server or this account has no connection left; the agent needs two",
            1862 => "the account's password has expired; set a new one with ALTER USER",
            3118 => "the account is locked; ALTER USER ... ACCOUNT UNLOCK",
            3159 => "the server takes encrypted connections only; set ssl-mode=REQUIRED",
            _ => "see the server's error log",
        };
        return refused(format!("{error}; {way_out}"));
    }
    match error {
        sqlx::Error::Io(error) if error.kind() == ErrorKind::PermissionDenied => {
            refused(format!("{error}; let the agent's user reach the socket (and its directory)"))
        }
        sqlx::Error::Io(error) => LoginError::Absent { detail: error.to_string() },
        sqlx::Error::Tls(error) => {
            refused(format!("TLS: {error}; check ssl-mode, ssl-ca and the server's certificate"))
        }
        sqlx::Error::Protocol(detail) => match unknown_plugin(detail) {
            Some(plugin) => refused(plugin_message(plugin, user)),
            None => refused(format!("it does not speak as MySQL does: {detail}")),
        },
        other => refused(other.to_string()),
    }
}

fn unknown_plugin(detail: &str) -> Option<&str> {
    // The driver puts its own source position behind the name.
    detail.split_once("unknown authentication plugin: ")?.1.split_whitespace().next()
}

fn plugin_message(plugin: &str, user: &str) -> String {
    // What goes over the wire is the client's half; accounts are made with the server's name for it.
    let plugin = plugin.strip_prefix("client_").unwrap_or(plugin);
    format!(
        "account {user} logs in by the authentication plugin {plugin}, which the agent does not speak; give it one that it \
         does, on MariaDB: ALTER USER '{user}'@'localhost' IDENTIFIED VIA mysql_native_password USING PASSWORD('...') (or VIA \
         unix_socket), on MySQL: ALTER USER '{user}'@'localhost' IDENTIFIED WITH caching_sha2_password BY '...'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_plugin_is_named_with_a_way_out() {
        let detail = "unknown authentication plugin: client_ed25519 (driver.rs:36)";
        let message = plugin_message(unknown_plugin(detail).unwrap(), "lampad");
        assert!(
            message.contains("plugin ed25519,") && message.contains("ALTER USER 'lampad'@'localhost'"),
            "{message}"
        );
        assert_eq!(unknown_plugin("unexpected packet"), None);
    }
}
