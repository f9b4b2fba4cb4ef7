//! A database server of the test's own: private directory, socket and port; never the user's.
//!
//! MariaDB is the one that the distribution installs, or whose `mariadbd` and `mariadb-install-db` come first in `PATH`. A MySQL 9
//! is started instead where a test asks for it and `LAMPAD_MYSQL9_ROOT` names a root directory into which one was unpacked with
//! its libraries (it then runs in a chroot); `tests/mysql9.sh` makes one, and tests/run.sh calls it.

use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};
use tempfile::TempDir;

/// From start to the first answer. Creating the system tables on a busy two-core machine took 12 s at worst.
const START_LIMIT: Duration = Duration::from_secs(90);
/// From SIGTERM to the end; past it the server is killed.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Another process may take the free port between our look and the server's bind.
const PORT_TRIES: usize = 5;

/// Which server to start.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    MariaDb,
    MySql { root: PathBuf },
}

/// A running server; dropping it stops it and removes its files. Its `root` has no password.
#[derive(Debug)]
pub struct Server {
    kind: Kind,
    dir: TempDir,
    flags: Vec<String>,
    port: u16,
    child: Option<Child>,
}

impl Server {
    /// A MariaDB with the given flags besides those that keep it private.
    pub async fn mariadb(flags: &[&str]) -> Result<Self> {
        if find_program("mariadbd").is_none() || find_program("mariadb-install-db").is_none() {
            bail!("mariadbd is not installed and this test needs it: apt-get install mariadb-server");
        }
        Self::create(Kind::MariaDb, flags).await
    }

    /// The MySQL 9 of `LAMPAD_MYSQL9_ROOT`; `None`, said aloud, where that is not set.
    pub async fn mysql9(flags: &[&str]) -> Result<Option<Self>> {
        let Some(root) = std::env::var_os("LAMPAD_MYSQL9_ROOT") else {
            eprintln!("skipped: needs MySQL 9; tests/mysql9.sh unpacks one, LAMPAD_MYSQL9_ROOT names where");
            return Ok(None);
        };
        Self::create(Kind::MySql { root: root.into() }, flags).await.map(Some)
    }

    async fn create(kind: Kind, flags: &[&str]) -> Result<Self> {
        let parent = match &kind {
            Kind::MariaDb => std::env::temp_dir(),
            Kind::MySql { root } => root.join("tmp"),
        };
        let dir =
            tempfile::Builder::new().prefix("lampad-db-").tempdir_in(&parent).context("directory for a server")?;
        // The server runs as another user where the test runs as root, and makes its socket here.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777))?;
        let flags = flags.iter().map(|flag| flag.to_string()).collect();
        let mut server = Self { kind, dir, flags, port: 0, child: None };
        server.install()?;
        server.start().await?;
        Ok(server)
    }

    /// Creates the system tables.
    fn install(&self) -> Result<()> {
        let mut command = match &self.kind {
            Kind::MariaDb => {
                let mut command = Command::new(find_program("mariadb-install-db").context("mariadb-install-db")?);
                command.args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"]);
                command.arg(self.argument("--datadir=", "data")).arg(self.argument("--tmpdir=", ""));
                if is_root() {
                    command.arg("--user=mysql");
                }
                command
            }
            Kind::MySql { .. } => {
                let mut command = self.program()?;
                command.args(["--initialize-insecure", "--secure-file-priv=NULL"]);
                command
            }
        };
        let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output()?;
        if !status.success() {
            let said = [stdout, stderr].concat();
            bail!("cannot create the tables of a database server ({status}):\n{}", String::from_utf8_lossy(&said));
        }
        Ok(())
    }

    /// The server program with what every call of it needs.
    fn program(&self) -> Result<Command> {
        let mut command = match &self.kind {
            Kind::MariaDb => Command::new(find_program("mariadbd").context("mariadbd")?),
            Kind::MySql { root } => {
                let mut command = Command::new(find_program("chroot").context("chroot (and root's rights)")?);
                command.arg(root).arg("/usr/sbin/mysqld");
                command
            }
        };
        // Temporary tables are named by process id, and two of one id can share a machine's /tmp.
        command.arg("--no-defaults").arg(self.argument("--datadir=", "data")).arg(self.argument("--tmpdir=", ""));
        if is_root() {
            // In the chroot there is no user `mysql`.
            command.arg(if self.kind == Kind::MariaDb { "--user=mysql" } else { "--user=root" });
        }
        Ok(command)
    }

    /// Starts the server, stopped or new, and waits until it answers.
    pub async fn start(&mut self) -> Result<()> {
        let mut tries = 0;
        loop {
            tries += 1;
            if self.port == 0 {
                self.port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            }
            match self.start_once().await {
                Err(_) if tries < PORT_TRIES && self.log().contains("Address already in use") => self.port = 0,
                other => return other,
            }
        }
    }

    async fn start_once(&mut self) -> Result<()> {
        let mut command = self.program()?;
        command
            .arg(self.argument("--socket=", "db.sock"))
            .arg(self.argument("--pid-file=", "db.pid"))
            .arg(self.argument("--log-error=", "error.log"))
            .arg(format!("--port={}", self.port))
            .args(["--bind-address=127.0.0.1", "--innodb-buffer-pool-size=24M"])
            .args(if self.kind == Kind::MariaDb { &[][..] } else { &["--secure-file-priv=NULL", "--mysqlx=OFF"] })
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.child = Some(command.spawn().context("start of a database server")?);
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Ok(mut connection) = self.connect().await
                && connection.ping().await.is_ok()
            {
                return Ok(());
            }
            if let Some(status) = self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                self.child = None;
                bail!("the database server ended at once ({status}):\n{}", self.log());
            }
            if Instant::now() > deadline {
                bail!("the database server does not answer within {START_LIMIT:?}:\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops the server in the orderly way; its data stays for [`Server::start`].
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let deadline = Instant::now() + STOP_LIMIT;
        while Instant::now() < deadline {
            match child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(20)),
                _ => return,
            }
        }
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Ends the server as a failure of its machine would.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Process id, for tests that stop the server from running (SIGSTOP) or look at it.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub fn is_mariadb(&self) -> bool {
        self.kind == Kind::MariaDb
    }

    /// The socket as this process sees it.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("db.sock")
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// As `--mysql` and `LAMPAD_MYSQL` take it: root over the socket.
    pub fn dsn(&self) -> String {
        format!("mysql://root@localhost?socket={}", self.socket().display())
    }

    /// How root connects, over the socket.
    pub fn root(&self) -> MySqlConnectOptions {
        MySqlConnectOptions::new().socket(self.socket()).username("root").ssl_mode(MySqlSslMode::Disabled)
    }

    /// A connection as root.
    pub async fn connect(&self) -> Result<MySqlConnection> {
        Ok(self.root().connect().await?)
    }

    /// Runs one or more statements as root.
    pub async fn execute(&self, sql: &str) -> Result<()> {
        let mut connection = self.connect().await?;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.with_context(|| sql.to_owned())?;
        connection.close().await?;
        Ok(())
    }

    /// The last of the first row's columns as text (so that `SHOW STATUS LIKE` gives the value), asked as root.
    pub async fn ask(&self, sql: &str) -> Result<String> {
        let mut connection = self.connect().await?;
        let row = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection).await?;
        let bytes: &[u8] = row.try_get_unchecked(row.len() - 1)?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    /// The server's error log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("error.log")).unwrap_or_default()
    }

    /// `--name=PATH` with the path as the server sees it.
    fn argument(&self, name: &str, file: &str) -> OsString {
        let path = self.dir.path().join(file);
        let seen = match &self.kind {
            Kind::MariaDb => path,
            Kind::MySql { root } => Path::new("/").join(path.strip_prefix(root).unwrap_or(&path)),
        };
        let mut argument = OsString::from(name);
        argument.push(seen);
        argument
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Servers live in sbin, which a plain user's PATH often lacks.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/usr/libexec"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}
