//! Sockets of servers on this host.
//!
//! Source: the places where distributions put theirs; `/proc/net/unix`, see unix(7), for all that somebody listens on.
//! Shape:  paths. A link and what it points to are one.
//! Errors: none; what cannot be read is not there.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where distributions put the socket.
const SOCKETS: [&str; 4] =
    ["/run/mysqld/mysqld.sock", "/var/run/mysqld/mysqld.sock", "/tmp/mysql.sock", "/var/lib/mysql/mysql.sock"];

/// The usual ones that are there.
pub fn usual(root: &Path) -> Vec<PathBuf> {
    let (mut seen, mut sockets) = (Vec::new(), Vec::new());
    for socket in SOCKETS {
        let path = root.join(socket.trim_start_matches('/'));
        // /var/run is a link to /run nearly everywhere: one server, not two.
        let Ok(real) = path.canonicalize() else { continue };
        if !seen.contains(&real) && is_a_servers(&real) {
            seen.push(real);
            sockets.push(path);
        }
    }
    sockets
}

/// Those at unusual places that a database server seems to listen on, by their names, in order.
pub fn unusual(root: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string(root.join("proc/net/unix")).unwrap_or_default();
    let usual: BTreeSet<_> = SOCKETS.iter().filter_map(|socket| real(root, socket)).collect();
    let found: BTreeSet<_> = table.lines().filter_map(listener).filter_map(|path| real(root, path)).collect();
    found.difference(&usual).filter(|path| is_a_servers(path)).cloned().collect()
}

fn real(root: &Path, path: &str) -> Option<PathBuf> {
    root.join(path.trim_start_matches('/')).canonicalize().ok()
}

/// The path that a line of `/proc/net/unix` is about, where a server of ours may listen on it.
fn listener(line: &str) -> Option<&str> {
    /// __SO_ACCEPTCON
    const LISTENS: &str = "00010000";
    // Number, references, protocol, flags, type, state, inode, and the path with all its blanks.
    let mut words = line.split_ascii_whitespace();
    if words.nth(3)? != LISTENS {
        return None;
    }
    // A name without a file begins with an @.
    let path = &line[line.find(" /")? + 1..];
    let name = path.rsplit('/').next()?;
    let of_a_server = name.contains("mysql") || name.contains("mariadb");
    // Those of the X protocol and of the router speak otherwise or for others.
    let other = name.starts_with("mysqlx") || name.contains("router") || !name.ends_with(".sock");
    (of_a_server && !other).then_some(path)
}

/// Whether a server's account made this socket. Where anybody may make files, anybody could wait there for our password.
pub fn is_a_servers(socket: &Path) -> bool {
    let everybodys = socket.parent().and_then(|dir| dir.metadata().ok()).is_none_or(|dir| dir.mode() & 0o002 != 0);
    if !everybodys {
        return true;
    }
    let Ok(owner) = socket.metadata().map(|about| about.uid()) else { return false };
    let ours = owner == 0 || owner == rustix::process::geteuid().as_raw();
    if !ours && uid_of("mysql") != Some(owner) {
        tracing::debug!(socket = %socket.display(), owner, "a socket of a stranger is not asked");
        return false;
    }
    true
}

fn uid_of(user: &str) -> Option<u32> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    let fields = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == user)?;
    fields.get(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With a password from an option file, a stranger at /tmp/mysql.sock could ask for it.
    #[test]
    fn a_strangers_socket_is_not_asked_where_anybody_may_make_one() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can make a stranger's socket");
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let socket = root.path().join("mysql.sock");
        std::fs::write(&socket, "").unwrap();
        let open_to = |mode| {
            std::fs::set_permissions(root.path(), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
            is_a_servers(&socket)
        };
        assert!(open_to(0o1777));
        std::os::unix::fs::chown(&socket, Some(54_321), None).unwrap();
        assert!(!open_to(0o1777));
        assert!(open_to(0o755), "where only a server's account may");
    }

    #[test]
    fn who_listens_under_a_servers_name_is_found() {
        let root = tempfile::tempdir().unwrap();
        let file = |path: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        };
        let line =
            |flags: &str, path: &str| format!("0000000000000000: 00000002 00000000 {flags} 0001 01 4711 {path}\n");
        let listening = [
            "/run/mysqld/mysqld.sock",
            "/run/mysqld/mysqlx.sock",
            "/data/3307/mysql.sock",
            "/data/a b/mariadb.sock",
            "/data/gone/mysql.sock",
            "/run/dbus/socket",
            "@/mysql.sock",
        ];
        let mut table = "Num       RefCount Protocol Flags    Type St Inode Path\n".to_owned();
        for path in listening {
            table += &line("00010000", path);
            if !path.contains("gone") {
                file(path.trim_start_matches(['@', '/']));
            }
        }
        file("data/3308/mysql.sock");
        table += &line("00000000", "/data/3308/mysql.sock");
        file("proc/net/unix");
        std::fs::write(root.path().join("proc/net/unix"), table).unwrap();
        let real = root.path().canonicalize().unwrap();
        let told: Vec<_> =
            unusual(root.path()).iter().map(|path| path.strip_prefix(&real).unwrap().to_owned()).collect();
        assert_eq!(told, [Path::new("data/3307/mysql.sock"), Path::new("data/a b/mariadb.sock")]);
        assert_eq!(usual(root.path()), [root.path().join("run/mysqld/mysqld.sock")]);
        assert!(unusual(Path::new("/nonexistent")).is_empty());
    }
}
