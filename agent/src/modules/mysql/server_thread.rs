//! CPU time that the server has spent on our connection.
//!
//! Source: first number of `/proc/TID/schedstat`, see the kernel's sched-stats.rst; which thread serves us is asked at login.
//! Shape:  what came since it was last asked, so that nothing is counted twice and nothing is lost.
//! Units:  nanoseconds.
//! Errors: none. Where the thread cannot be seen (a server elsewhere, one with process numbers of its own, a pool of threads)
//!         there is no [`ServerThread`], and statements are charged by the time to their answer.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use super::rows::Rows;
use super::target::{Address, Target};

/// Programs that may be at the other end. A number that means another process here is not taken for the server's.
const PROGRAMS: [&str; 2] = ["mariadbd", "mysqld"];

pub struct ServerThread {
    schedstat: File,
    seen: Duration,
}

impl ServerThread {
    /// The thread that `rows` name, the answer to [`super::dialect::Server::own_thread`].
    pub fn find(target: &Target, rows: &Rows) -> Option<Self> {
        let number = rows.iter().next()?.get("tid")?.parse().ok()?;
        is_local(&target.address).then(|| Self::open(Path::new("/proc"), number))?
    }

    fn open(procfs: &Path, number: u32) -> Option<Self> {
        let thread = procfs.join(number.to_string());
        let status = fs::read_to_string(thread.join("status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        // In a container with numbers of its own the kernel tells more than one; ours would be another thread's.
        if field("NSpid:")?.split_whitespace().count() != 1 {
            return None;
        }
        let command = fs::read(procfs.join(field("Tgid:")?).join("cmdline")).ok()?;
        let program = command.split(|byte| *byte == 0).next()?.rsplit(|byte| *byte == b'/').next()?;
        if !PROGRAMS.iter().any(|name| name.as_bytes() == program) {
            return None;
        }
        let mut thread = Self { schedstat: File::open(thread.join("schedstat")).ok()?, seen: Duration::ZERO };
        thread.lap()?;
        Some(thread)
    }

    /// CPU time since the last lap. To be asked when the thread is at rest: of one that runs the kernel tells what was true at its
    /// last tick. `None` when the thread is gone.
    pub fn lap(&mut self) -> Option<Duration> {
        let mut buffer = [0; 64];
        let read = self.schedstat.read_at(&mut buffer, 0).ok()?;
        let text = std::str::from_utf8(&buffer[..read]).ok()?;
        let now = Duration::from_nanos(text.split(' ').next()?.parse().ok()?);
        let lap = now.checked_sub(self.seen)?;
        self.seen = now;
        Some(lap)
    }
}

fn is_local(address: &Address) -> bool {
    match address {
        Address::Socket(_) => true,
        Address::Tcp { host, .. } => matches!(host.as_str(), "localhost" | "127.0.0.1" | "::1"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A made-up `/proc` with one thread of one process.
    fn procfs(namespaces: &str, command: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("7/status", format!("Name:\tconnection\nTgid:\t5\nNSpid:\t{namespaces}\n")),
            ("7/schedstat", "1000 5 3\n".to_owned()),
            ("5/cmdline", format!("{command}\0--socket=/s\0")),
        ] {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn laps_add_up_to_what_the_thread_ran() {
        let dir = procfs("7", "/usr/sbin/mariadbd");
        let mut thread = ServerThread::open(dir.path(), 7).unwrap();
        let stat = File::options().write(true).open(dir.path().join("7/schedstat")).unwrap();
        assert_eq!(thread.lap(), Some(Duration::ZERO));
        stat.write_at(b"1500 5 4\n", 0).unwrap();
        assert_eq!(thread.lap(), Some(Duration::from_nanos(500)));
        stat.write_at(b"1250 5 4\n", 0).unwrap();
        assert_eq!(thread.lap(), None, "time does not run back: this is another thread");
    }

    #[test]
    fn another_process_of_that_number_is_not_the_server() {
        for (namespaces, command) in [("7 3", "/usr/sbin/mysqld"), ("7", "/usr/bin/vim"), ("7", "")] {
            assert!(ServerThread::open(procfs(namespaces, command).path(), 7).is_none(), "{namespaces} {command}");
        }
        assert!(ServerThread::open(procfs("7", "mysqld").path(), 8).is_none());
        assert!(is_local(&Address::Socket("/s".into())));
        assert!(!is_local(&Address::Tcp { host: "db2".into(), port: 3306 }));
    }
}
