//! Where the server is.
//!
//! Source: the first of these that says anything: the configuration (`--mysql`, `LAMPAD_MYSQL`, `[mysql] server`); an
//!         option file (configured, or `mysql.cnf` of systemd's credentials, or `~/.my.cnf`); the usual sockets; 127.0.0.1:3306.
//!         `socket` and `port` of the configuration go before those of the option file and leave it its login.
//! Shape:  a list of targets, likeliest first. A server that somebody named is the only one on the list.
//! Errors: a name that cannot be understood, or an option file that cannot be read, with what to write instead.

mod dsn;
mod sockets;

use std::path::{Path, PathBuf};

pub use self::sockets::unusual;
use super::option_file::{OptionFileError, Options};
use super::settings::{MysqlSettings, Secret};
use super::target::{Address, DEFAULT_PORT, Target, Tls, TlsMode};

#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// Never with the text itself: it may hold a password.
    #[error(
        "the configured MySQL server is not understood: {detail}; write mysql://user:password@host:3306 or \
         mysql://user@localhost?socket=/run/mysqld/mysqld.sock, with other characters in a password as %XX"
    )]
    Dsn { detail: String },
    #[error(transparent)]
    OptionFile(#[from] OptionFileError),
    #[error("{}: {detail}", path.display())]
    Option { path: PathBuf, detail: String },
}

/// What of the surroundings decides; a value, so that tests can make it up.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// `LAMPAD_MYSQL`.
    pub server: Option<Secret>,
    /// `CREDENTIALS_DIRECTORY`, set by systemd.
    pub credentials: Option<PathBuf>,
    pub home: Option<PathBuf>,
    /// Name of the operating system's user, whom socket authentication lets in.
    pub user: String,
    /// Before the usual sockets; `/` outside tests.
    pub root: PathBuf,
}

impl Surroundings {
    pub fn of_this_process() -> Self {
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (user, home) = account();
        Self {
            server: text("LAMPAD_MYSQL").map(Secret::new),
            credentials: text("CREDENTIALS_DIRECTORY").map(PathBuf::from),
            home: text("HOME").map(PathBuf::from).or(home),
            user,
            root: PathBuf::from("/"),
        }
    }
}

/// Name and home of the effective user, as `/etc/passwd` has them.
fn account() -> (String, Option<PathBuf>) {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let fields =
        passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields.get(2) == Some(&&*uid));
    match fields {
        Some(fields) => (fields[0].to_owned(), fields.get(5).map(PathBuf::from)),
        // Directory services do not list their users here; the login shell names them.
        None => (std::env::var("USER").unwrap_or_else(|_| "root".to_owned()), None),
    }
}

/// Whether the server that the configuration names can be understood. An option file is not looked at: it may come later.
pub fn check(settings: &MysqlSettings, around: &Surroundings) -> Result<(), DiscoveryError> {
    match settings.server.as_ref().filter(|server| !server.reveal().trim().is_empty()) {
        Some(dsn) => dsn::parse_dsn(dsn, &around.user).map(drop),
        None => Ok(()),
    }
}

/// Servers to try, likeliest first.
pub fn targets(settings: &MysqlSettings, around: &Surroundings) -> Result<Vec<Target>, DiscoveryError> {
    // The server that made a found one's socket may be gone, and a stranger in its place.
    if settings.found && !settings.socket.as_deref().is_some_and(sockets::is_a_servers) {
        return Ok(Vec::new());
    }
    let placed = settings.socket.is_some() || settings.port.is_some();
    let named = settings.server.as_ref().filter(|server| !server.reveal().trim().is_empty());
    if let Some(dsn) = named.or(around.server.as_ref().filter(|_| !placed)) {
        return Ok(vec![dsn::parse_dsn(dsn, &around.user)?]);
    }
    let configured = settings.option_file.clone();
    let credential = around.credentials.as_ref().map(|dir| dir.join("mysql.cnf")).filter(|file| file.exists());
    let personal = around.home.as_ref().map(|home| home.join(".my.cnf")).filter(|file| file.exists());
    let Some(file) = configured.or(credential).or(personal) else {
        let origin = if placed { "the configuration" } else { "a usual place" };
        let login = Login { user: around.user.clone(), password: None, tls: Tls::default(), origin: origin.into() };
        return Ok(login.placed(settings).unwrap_or_else(|| login.usual_places(&around.root)));
    };
    let options = Options::read(&file)?;
    let wrong = |detail: String| DiscoveryError::Option { path: file.clone(), detail };
    let login = Login {
        user: options.get("user").filter(|user| !user.is_empty()).unwrap_or(&around.user).to_owned(),
        password: options.get("password").filter(|password| !password.is_empty()).map(Secret::new),
        tls: tls_of(&options).map_err(wrong)?,
        origin: file.display().to_string(),
    };
    if let Some(placed) = login.placed(settings) {
        return Ok(placed);
    }
    let port = match options.get("port") {
        Some(port) => Some(port.parse::<u16>().map_err(|_| wrong(format!("port = {port} is not a port")))?),
        None => None,
    };
    let named = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
    let host = named(options.get("host"));
    let over_tcp = options.get("protocol").is_some_and(|protocol| protocol.eq_ignore_ascii_case("tcp"));
    // As the clients have it: `localhost` means the socket unless the protocol says otherwise.
    let by_socket = !over_tcp && host.as_deref().is_none_or(|host| host == "localhost");
    Ok(match (named(options.get("socket")), host, port) {
        (Some(socket), ..) if by_socket => vec![login.target(Address::Socket(socket.into()), true)],
        (_, Some(host), port) if !by_socket => {
            vec![login.target(Address::Tcp { host, port: port.unwrap_or(DEFAULT_PORT) }, true)]
        }
        (_, _, Some(port)) => vec![login.target(Address::Tcp { host: "127.0.0.1".into(), port }, true)],
        _ => login.usual_places(&around.root),
    })
}

struct Login {
    user: String,
    password: Option<Secret>,
    tls: Tls,
    origin: String,
}

impl Login {
    fn target(&self, address: Address, explicit: bool) -> Target {
        Target {
            address,
            user: self.user.clone(),
            password: self.password.clone(),
            tls: self.tls.clone(),
            origin: self.origin.clone(),
            explicit,
        }
    }

    /// Where the configuration says, if it does.
    fn placed(&self, settings: &MysqlSettings) -> Option<Vec<Target>> {
        let address = match (&settings.socket, settings.port) {
            (Some(socket), _) => Address::Socket(socket.clone()),
            (None, Some(port)) => Address::Tcp { host: "127.0.0.1".into(), port },
            (None, None) => return None,
        };
        Some(vec![self.target(address, true)])
    }

    fn usual_places(&self, root: &Path) -> Vec<Target> {
        let sockets = sockets::usual(root).into_iter().map(Address::Socket);
        let tcp = Address::Tcp { host: "127.0.0.1".into(), port: DEFAULT_PORT };
        sockets.chain([tcp]).map(|address| self.target(address, false)).collect()
    }
}

fn tls_of(options: &Options) -> Result<Tls, String> {
    let file = |name: &str| options.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let on =
        |name: &str| options.get(name).is_some_and(|value| matches!(value, "" | "1" | "on" | "ON" | "true" | "TRUE"));
    let off =
        |name: &str| options.get(name).is_some_and(|value| matches!(value, "0" | "off" | "OFF" | "false" | "FALSE"));
    let ca = file("ssl-ca");
    let mode = match options.get("ssl-mode") {
        Some(mode) => TlsMode::parse(mode).ok_or_else(|| {
            format!("ssl-mode = {mode} is none of DISABLED, PREFERRED, REQUIRED, VERIFY_CA, VERIFY_IDENTITY")
        })?,
        None if options.get("skip-ssl").is_some() || off("ssl") => TlsMode::Disabled,
        None if on("ssl-verify-server-cert") => TlsMode::VerifyIdentity,
        // Who names an authority wants it asked.
        None if ca.is_some() => TlsMode::VerifyCa,
        None if on("ssl") => TlsMode::Required,
        None => TlsMode::Preferred,
    };
    Ok(Tls { mode, ca, cert: file("ssl-cert"), key: file("ssl-key") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around() -> Surroundings {
        Surroundings { user: "os".into(), root: "/nonexistent".into(), ..Surroundings::default() }
    }

    #[test]
    fn what_was_named_is_the_only_target() {
        let settings = MysqlSettings { server: Some(Secret::new("mysql://a@b")), ..MysqlSettings::default() };
        let from_env = Surroundings { server: Some(Secret::new("mysql://c@d")), ..around() };
        let both = targets(&settings, &from_env).unwrap();
        assert_eq!(both.iter().map(|target| target.user.as_str()).collect::<Vec<_>>(), ["a"]);
        let env = targets(&MysqlSettings::default(), &from_env).unwrap();
        assert_eq!(env[0].user, "c");
    }

    #[test]
    fn option_files_lead_where_they_say() {
        let table = [
            ("user=a\npassword=b\nsocket=/s", vec!["/s"], true),
            ("host=db1", vec!["db1:3306"], true),
            ("host=db1\nport=3310", vec!["db1:3310"], true),
            ("port=3310", vec!["127.0.0.1:3310"], true),
            ("host=localhost\nsocket=/s", vec!["/s"], true),
            ("host=db1\nsocket=/s", vec!["db1:3306"], true),
            ("protocol=tcp\nhost=localhost\nsocket=/s", vec!["localhost:3306"], true),
            ("user=a\npassword=b", vec!["127.0.0.1:3306"], false),
        ];
        let home = tempfile::tempdir().unwrap();
        for (text, places, explicit) in table {
            std::fs::write(home.path().join(".my.cnf"), format!("[client]\n{text}\n")).unwrap();
            let found =
                targets(&MysqlSettings::default(), &Surroundings { home: Some(home.path().into()), ..around() })
                    .unwrap();
            assert_eq!(found.iter().map(|target| target.address.to_string()).collect::<Vec<_>>(), places, "{text}");
            assert!(found.iter().all(|target| target.explicit == explicit), "{text}");
        }
    }

    #[test]
    fn a_place_that_is_configured_has_the_login_of_the_option_file() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(".my.cnf"), "[client]\nuser=a\nsocket=/other\nport=1\n").unwrap();
        let with_file = Surroundings { home: Some(home.path().into()), server: Some(Secret::new("/env")), ..around() };
        let settings = |text: &str| toml::from_str::<MysqlSettings>(text).unwrap();
        for (text, around, expected) in [
            ("port = 3307", &with_file, "127.0.0.1:3307 as a"),
            ("socket = '/s'", &with_file, "/s as a"),
            ("socket = '/s'", &around(), "/s as os"),
        ] {
            let found = targets(&settings(text), around).unwrap();
            let told: Vec<_> = found.iter().map(|target| format!("{} as {}", target.address, target.user)).collect();
            assert_eq!(told, [expected], "{text}");
        }
    }

    #[test]
    fn credentials_of_systemd_go_before_the_home_directory() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        std::fs::write(dirs[0].path().join("mysql.cnf"), "[client]\nhost=credential\n").unwrap();
        std::fs::write(dirs[1].path().join(".my.cnf"), "[client]\nhost=home\n").unwrap();
        let around =
            Surroundings { credentials: Some(dirs[0].path().into()), home: Some(dirs[1].path().into()), ..around() };
        let found = targets(&MysqlSettings::default(), &around).unwrap();
        assert_eq!(found[0].address.to_string(), "credential:3306");
    }

    #[test]
    fn usual_sockets_are_tried_before_tcp_and_links_once() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("run/mysqld")).unwrap();
        std::fs::create_dir_all(root.path().join("var")).unwrap();
        std::os::unix::fs::symlink("../run", root.path().join("var/run")).unwrap();
        std::fs::write(root.path().join("run/mysqld/mysqld.sock"), "").unwrap();
        let found = targets(&MysqlSettings::default(), &Surroundings { root: root.path().into(), ..around() }).unwrap();
        assert_eq!(found.len(), 2);
        assert!(matches!(&found[0].address, Address::Socket(_)) && !found[0].explicit);
    }
}
