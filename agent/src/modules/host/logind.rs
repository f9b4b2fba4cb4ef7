//! Sessions of people who are logged in. Off by default.
//!
//! Source: systemd-logind on the system bus: ListSeats, ListSessions, properties of each session.
//! Shape:  `node_logind_sessions{seat,remote,type,class}` for every combination that is known, as node_exporter has it: a
//!         session that ends is a 0 and not a series that ends.
//! Units:  sessions.
//! Errors: `Absent` without a bus or without logind; `Read` where the bus does not answer.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::dbus::{Bus, CallError, Object, socket};
use super::reader::Reader;
use super::source::{ModuleResult, absent, read_error};
use crate::module::{Desc, ModuleError};
use crate::tick::Tick;

const SESSIONS: Desc = Desc::gauge("node_logind_sessions", "Sessions of people who are logged in.")
    .labels(&["seat", "remote", "type", "class"]);

const SERVICE: &str = "org.freedesktop.login1";
const MANAGER: Object = Object { service: SERVICE, path: "/org/freedesktop/login1" };
const REMOTE: [&str; 2] = ["true", "false"];
/// The first stands for all others.
const TYPES: [&str; 7] = ["other", "unspecified", "tty", "x11", "wayland", "mir", "web"];
const CLASSES: [&str; 5] = ["other", "user", "greeter", "lock-screen", "background"];

pub struct Logind(PathBuf);

/// Seat, remote, type, class.
type Kind = (String, &'static str, &'static str, &'static str);

impl Logind {
    pub fn new(rootfs: &Path) -> Self {
        Self(socket(rootfs))
    }
}

impl Reader for Logind {
    fn descs(&self) -> Vec<Desc> {
        vec![SESSIONS]
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        if !self.0.exists() {
            return Err(absent(&self.0));
        }
        let mut bus = Bus::connect(&self.0).map_err(|source| read_error(&self.0, source))?;
        match ask(&mut bus) {
            Ok((seats, sessions)) => {
                tell(&seats, &sessions, out);
                Ok(())
            }
            // Nobody has this name on the bus, or it may not be started.
            Err(CallError::Refused(_)) => Err(ModuleError::Absent { what: SERVICE.to_owned() }),
            Err(error) => Err(read_error(&self.0, io::Error::other(error))),
        }
    }
}

fn ask(bus: &mut Bus) -> Result<(Vec<String>, Vec<Kind>), CallError> {
    const INTERFACE: &str = "org.freedesktop.login1.Manager";
    let mut list = bus.call(MANAGER, INTERFACE, "ListSeats", &[])?;
    // Of seats: name, path.
    let (mut seats, end) = (Vec::new(), list.structs()?);
    while list.next_struct(end) {
        seats.push(list.text()?);
        list.text()?;
    }
    // Of sessions: id, number and name of the user, seat, path.
    let mut list = bus.call(MANAGER, INTERFACE, "ListSessions", &[])?;
    let (mut sessions, end) = (Vec::new(), list.structs()?);
    while list.next_struct(end) {
        list.text()?;
        list.u32()?;
        list.text()?;
        sessions.push((list.text()?, list.text()?));
    }
    let mut kinds = Vec::with_capacity(sessions.len());
    for (seat, path) in sessions {
        let mut property =
            |name| bus.property(Object { service: SERVICE, path: &path }, "org.freedesktop.login1.Session", name);
        let asked = (property("Remote"), property("Type"), property("Class"));
        let (Ok(remote), Ok(kind), Ok(class)) = asked else { continue }; // it has just ended
        let remote = if remote.number() == Some(1.0) { "true" } else { "false" };
        kinds.push((seat, remote, known(&TYPES, kind.text()), known(&CLASSES, class.text())));
    }
    Ok((seats, kinds))
}

fn known(all: &'static [&'static str], found: Option<String>) -> &'static str {
    all.iter().copied().find(|one| Some(*one) == found.as_deref()).unwrap_or("other")
}

fn tell(seats: &[String], sessions: &[Kind], out: &mut Tick) {
    let mut counts = BTreeMap::new();
    for (seat, remote, kind, class) in sessions {
        *counts.entry((seat.as_str(), *remote, *kind, *class)).or_insert(0) += 1;
    }
    // Sessions over the network have no seat.
    for seat in seats.iter().map(String::as_str).chain([""]) {
        for remote in REMOTE {
            for kind in TYPES {
                for class in CLASSES {
                    let count = counts.get(&(seat, remote, kind, class)).copied().unwrap_or(0);
                    out.push(&SESSIONS, &[seat, remote, kind, class], f64::from(count));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::lines;
    use super::*;

    #[test]
    fn every_combination_is_told_and_counted() {
        let session = |seat: &str, remote, kind, class| (seat.to_owned(), remote, kind, class);
        let sessions = [
            session("", "true", "tty", "user"),
            session("", "true", "tty", "user"),
            session("seat0", "false", "x11", "greeter"),
        ];
        let mut tick = Tick::new();
        tell(&["seat0".to_owned()], &sessions, &mut tick);
        let told = lines(&tick);
        assert_eq!(told.len(), 2 * 2 * 7 * 5);
        for line in [
            "node_logind_sessions{seat=\"\",remote=\"true\",type=\"tty\",class=\"user\"} 2",
            "node_logind_sessions{seat=\"seat0\",remote=\"false\",type=\"x11\",class=\"greeter\"} 1",
            "node_logind_sessions{seat=\"seat0\",remote=\"true\",type=\"web\",class=\"other\"} 0",
        ] {
            assert!(told.contains(&line.to_owned()), "{line} in {told:#?}");
        }
        assert_eq!(known(&TYPES, Some("hologram".into())), "other");
    }
}
