//! The units of systemd. Off by default: five series per unit.
//!
//! Source: the manager on the system bus: ListUnits, and properties of services, timers and sockets.
//! Shape:  `node_systemd_unit_state{name,state,type}`, 1 for the state that a loaded unit is in; timers and sockets have series
//!         of their own, and on request services (restarts, tasks) and all units (when they started), as [`DETAILS`] has them;
//!         `node_systemd_units{state}` counts all units, loaded or not.
//! Units:  seconds since 1970; connections, tasks.
//! Errors: `Absent` without a bus; `Read` where it does not answer, or not what was asked.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::dbus::{Body, Bus, CallError, Object};
use super::reader::Reader;
use super::settings::{Pattern, passes};
use super::source::{ModuleResult, absent, read_error};
use crate::module::Desc;
use crate::tick::Tick;

const STATE: Desc =
    Desc::gauge("node_systemd_unit_state", "Whether the unit is in this state.").labels(&["name", "state", "type"]);
const UNITS: Desc = Desc::gauge("node_systemd_units", "Units in each state.").labels(&["state"]);
const RUNNING: Desc = Desc::gauge("node_systemd_system_running", "Whether the system is up with no unit failed.");
const VERSION: Desc = Desc::gauge("node_systemd_version", "Version of systemd.").labels(&["version"]);
const VIRTUALIZATION: Desc =
    Desc::gauge("node_systemd_virtualization_info", "Kind of virtualization that systemd found.")
        .labels(&["virtualization_type"]);
const TRIGGERED: Desc = Desc::gauge("node_systemd_timer_last_trigger_seconds", "When the timer last went off.")
    .labels(&["name"])
    .unit("seconds");
const ACCEPTED: Desc =
    Desc::counter("node_systemd_socket_accepted_connections_total", "Connections that the socket unit has accepted.")
        .labels(&["name"]);
const CURRENT: Desc =
    Desc::gauge("node_systemd_socket_current_connections", "Connections that the socket unit has.").labels(&["name"]);
const REFUSED: Desc =
    Desc::counter("node_systemd_socket_refused_connections_total", "Connections that the socket unit has refused.")
        .labels(&["name"]);

const RESTARTS: Desc =
    Desc::counter("node_systemd_service_restart_total", "Times that systemd has started the service anew.")
        .labels(&["name"]);
const STARTED: Desc =
    Desc::gauge("node_systemd_unit_start_time_seconds", "When the unit became active; 0 if it is not.")
        .labels(&["name"])
        .unit("seconds");
const TASKS: Desc = Desc::gauge("node_systemd_unit_tasks_current", "Tasks of the service now.").labels(&["name"]);
const TASKS_MAX: Desc =
    Desc::gauge("node_systemd_unit_tasks_max", "Most tasks that the service may have.").labels(&["name"]);

/// A property of units of one kind, and the family that tells it.
struct Detail {
    desc: Desc,
    /// End of the unit's name; empty for all.
    kind: &'static str,
    interface: &'static str,
    property: &'static str,
    /// Of the family's unit in the property's.
    scale: f64,
    wanted: fn(&SystemdSettings) -> bool,
}

impl Detail {
    const fn of(desc: Desc, kind: &'static str, interface: &'static str, property: &'static str) -> Self {
        Self { desc, kind, interface, property, scale: 1.0, wanted: |_| true }
    }

    const fn micros(mut self) -> Self {
        self.scale = 1e6;
        self
    }

    const fn when(mut self, wanted: fn(&SystemdSettings) -> bool) -> Self {
        self.wanted = wanted;
        self
    }
}

const DETAILS: [Detail; 8] = [
    Detail::of(TRIGGERED, ".timer", "Timer", "LastTriggerUSec").micros(),
    Detail::of(ACCEPTED, ".socket", "Socket", "NAccepted"),
    Detail::of(CURRENT, ".socket", "Socket", "NConnections"),
    Detail::of(REFUSED, ".socket", "Socket", "NRefused"),
    Detail::of(RESTARTS, ".service", "Service", "NRestarts").when(|settings| settings.restarts),
    Detail::of(TASKS, ".service", "Service", "TasksCurrent").when(|settings| settings.tasks),
    Detail::of(TASKS_MAX, ".service", "Service", "TasksMax").when(|settings| settings.tasks),
    Detail::of(STARTED, "", "Unit", "ActiveEnterTimestamp").micros().when(|settings| settings.start_time),
];

const STATES: [&str; 5] = ["active", "activating", "deactivating", "inactive", "failed"];
const SERVICE: &str = "org.freedesktop.systemd1";
const MANAGER: Object = Object { service: SERVICE, path: "/org/freedesktop/systemd1" };

pub struct Systemd {
    socket: PathBuf,
    settings: SystemdSettings,
    bus: Option<Bus>,
    /// `simple`, `oneshot`, ... by unit: asked for once, they change only when a unit file does.
    types: BTreeMap<String, String>,
}

#[derive(Debug, Default, PartialEq)]
struct Unit {
    name: String,
    load: String,
    active: String,
    path: String,
}

impl Systemd {
    pub fn new(rootfs: &Path, settings: SystemdSettings) -> Self {
        Self { socket: super::dbus::socket(rootfs), settings, bus: None, types: BTreeMap::new() }
    }

    fn tell(&mut self, bus: &mut Bus, out: &mut Tick) -> Result<(), CallError> {
        let list = bus.call(MANAGER, "org.freedesktop.systemd1.Manager", "ListUnits", &[])?;
        let units = units(list)?;
        count(&units, out);
        for unit in units.iter().filter(|unit| unit.load == "loaded" && self.settings.takes(&unit.name)) {
            let kind = kind(&mut self.types, bus, unit)?;
            for state in STATES {
                out.push(&STATE, &[&unit.name, state, kind], f64::from(u8::from(unit.active == state)));
            }
            details(bus, unit, &self.settings, out)?;
        }
        if self.types.len() > units.len() {
            self.types.clear(); // units that were there for a while
        }
        let manager = |bus: &mut Bus, name| bus.property(MANAGER, "org.freedesktop.systemd1.Manager", name);
        let running = manager(bus, "SystemState")?.text().is_some_and(|state| state == "running");
        out.push(&RUNNING, &[], f64::from(u8::from(running)));
        let version = manager(bus, "Version")?.text().unwrap_or_default();
        out.push(&VERSION, &[version.trim_matches('"')], leading_number(&version));
        let virtualization = manager(bus, "Virtualization")?.text().filter(|kind| !kind.is_empty());
        out.push(&VIRTUALIZATION, &[virtualization.as_deref().unwrap_or("none")], 1.0);
        Ok(())
    }
}

/// Type of a service, which is asked for once.
fn kind<'a>(types: &'a mut BTreeMap<String, String>, bus: &mut Bus, unit: &Unit) -> Result<&'a str, CallError> {
    if !unit.name.ends_with(".service") {
        return Ok("");
    }
    if !types.contains_key(&unit.name) {
        let kind = property(bus, unit, "Service", "Type")?.and_then(|value| value.text());
        types.insert(unit.name.clone(), kind.unwrap_or_default());
    }
    Ok(types.get(&unit.name).map_or("", String::as_str))
}

/// What a unit has besides a state.
fn details(bus: &mut Bus, unit: &Unit, settings: &SystemdSettings, out: &mut Tick) -> Result<(), CallError> {
    for detail in DETAILS.iter().filter(|detail| unit.name.ends_with(detail.kind) && (detail.wanted)(settings)) {
        let value = property(bus, unit, detail.interface, detail.property)?.and_then(|value| value.number());
        if let Some(value) = value.and_then(|value| told(detail, unit, value)) {
            out.push(&detail.desc, &[&unit.name], value);
        }
    }
    Ok(())
}

/// The number as the family has it; `None` where systemd does not count.
fn told(detail: &Detail, unit: &Unit, value: f64) -> Option<f64> {
    const NOT_COUNTED: f64 = u64::MAX as f64;
    match value {
        NOT_COUNTED => None,
        // It keeps the time of the last start of a unit that has ended.
        _ if detail.property == "ActiveEnterTimestamp" && unit.active != "active" => Some(0.0),
        _ => Some(value / detail.scale),
    }
}

/// A unit that has gone meanwhile, or a property that this version does not have, is left out.
fn property(bus: &mut Bus, unit: &Unit, kind: &str, name: &str) -> Result<Option<super::dbus::Value>, CallError> {
    let object = Object { service: SERVICE, path: &unit.path };
    match bus.property(object, &format!("{SERVICE}.{kind}"), name) {
        Ok(value) => Ok(Some(value)),
        Err(CallError::Refused(_)) => Ok(None),
        Err(lost) => Err(lost),
    }
}

/// The answer of ListUnits: name, description, load state, active state, sub state, followed unit, object path, job, its
/// type, its path.
fn units(mut body: Body) -> io::Result<Vec<Unit>> {
    let end = body.structs()?;
    let mut units = Vec::new();
    while body.next_struct(end) {
        let name = body.text()?;
        body.text()?;
        let (load, active) = (body.text()?, body.text()?);
        body.text()?;
        body.text()?;
        let path = body.text()?;
        body.u32()?;
        body.text()?;
        body.text()?;
        units.push(Unit { name, load, active, path });
    }
    Ok(units)
}

fn count(units: &[Unit], out: &mut Tick) {
    for state in STATES {
        out.push(&UNITS, &[state], units.iter().filter(|unit| unit.active == state).count() as f64);
    }
}

/// `252 (252.30-1)` and `v255.4` are versions too.
fn leading_number(version: &str) -> f64 {
    let digits = version.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(digits.len());
    let mut parts = digits[..end].splitn(3, '.');
    let text = [parts.next().unwrap_or("0"), parts.next().unwrap_or("0")].join(".");
    text.parse().unwrap_or(0.0)
}

impl Reader for Systemd {
    fn descs(&self) -> Vec<Desc> {
        let details = DETAILS.into_iter().filter(|detail| (detail.wanted)(&self.settings)).map(|detail| detail.desc);
        [STATE, UNITS, RUNNING, VERSION, VIRTUALIZATION].into_iter().chain(details).collect()
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let mut bus = match self.bus.take() {
            Some(bus) => bus,
            None if !self.socket.exists() => return Err(absent(&self.socket)),
            None => Bus::connect(&self.socket).map_err(|source| read_error(&self.socket, source))?,
        };
        match self.tell(&mut bus, out) {
            Ok(()) => {
                self.bus = Some(bus);
                Ok(())
            }
            // Not kept: the next read begins with a connection of its own.
            Err(error) => Err(read_error(&self.socket, io::Error::other(error))),
        }
    }
}

/// Table `[host.systemd]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SystemdSettings {
    /// Units whose states are told.
    pub include: Option<Pattern>,
    pub exclude: Option<Pattern>,
    /// How often systemd has started a service anew: one that dies and comes back looks well at each read.
    pub restarts: bool,
    pub start_time: bool,
    pub tasks: bool,
}

impl Default for SystemdSettings {
    /// As with node_exporter: no devices, mounts, scopes and slices.
    fn default() -> Self {
        let exclude = Some(Pattern::of(r".+\.(automount|device|mount|scope|slice)$"));
        Self { include: None, exclude, restarts: false, start_time: false, tasks: false }
    }
}

impl SystemdSettings {
    fn takes(&self, unit: &str) -> bool {
        passes(self.include.as_ref(), self.exclude.as_ref(), unit)
    }
}

#[cfg(test)]
mod tests {
    use super::super::dbus::Writer;
    use super::super::testing::lines;
    use super::*;

    #[test]
    fn the_list_of_units_is_read_and_counted() {
        let mut list = Writer::default();
        for (name, load, active) in [("a.service", "loaded", "active"), ("b.timer", "not-found", "failed")] {
            list.align(8);
            for text in [name, "what it is for", load, active, "running", "", "/org/freedesktop/systemd1/unit/x"] {
                list.text(text);
            }
            list.u32(0);
            list.text("");
            list.text("/");
        }
        let mut body = Writer::default();
        body.u32(list.0.len() as u32);
        body.align(8);
        body.0.extend(list.0);
        let units = units(Body(body.0, 0)).unwrap();
        let told: Vec<_> = units.iter().map(|unit| format!("{} {} {}", unit.name, unit.load, unit.active)).collect();
        assert_eq!(told, ["a.service loaded active", "b.timer not-found failed"]);
        assert_eq!(units[1].path, "/org/freedesktop/systemd1/unit/x");
        let mut tick = Tick::new();
        count(&units, &mut tick);
        let counts = lines(&tick);
        assert!(counts.contains(&"node_systemd_units{state=\"active\"} 1".to_owned()), "{counts:?}");
        assert!(counts.contains(&"node_systemd_units{state=\"inactive\"} 0".to_owned()), "{counts:?}");
    }

    #[test]
    fn versions_are_numbers() {
        for (version, number) in
            [("252.30-1~deb12u2", 252.30), ("v255", 255.0), ("249.11-0ubuntu3.12", 249.11), ("x", 0.0)]
        {
            assert_eq!(leading_number(version), number, "{version}");
        }
    }

    #[test]
    fn units_of_the_kernels_own_things_are_left_out() {
        let filter = SystemdSettings::default();
        for (unit, told) in
            [("mariadb.service", true), ("logrotate.timer", true), ("-.mount", false), ("user.slice", false)]
        {
            assert_eq!(filter.takes(unit), told, "{unit}");
        }
    }

    #[test]
    fn details_are_told_in_their_units_and_only_where_they_are_counted() {
        let all_details = DETAILS;
        let of = |family: &str| all_details.iter().find(|detail| detail.desc.name == family).unwrap();
        let unit = |active: &str| Unit { active: active.into(), ..Unit::default() };
        let started = of("node_systemd_unit_start_time_seconds");
        assert_eq!(told(started, &unit("active"), 1.5e15), Some(1.5e9));
        assert_eq!(told(started, &unit("failed"), 1.5e15), Some(0.0));
        let tasks = of("node_systemd_unit_tasks_max");
        assert_eq!(told(tasks, &unit("active"), 4915.0), Some(4915.0));
        assert_eq!(told(tasks, &unit("active"), u64::MAX as f64), None, "no limit");
        let wanted = |settings: &SystemdSettings| DETAILS.iter().filter(|detail| (detail.wanted)(settings)).count();
        let all = SystemdSettings { restarts: true, start_time: true, tasks: true, ..SystemdSettings::default() };
        assert_eq!((wanted(&SystemdSettings::default()), wanted(&all)), (4, 8));
    }

    #[test]
    fn a_host_without_a_bus_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let read = Systemd::new(dir.path(), SystemdSettings::default()).read(&mut Tick::new());
        assert!(matches!(read, Err(crate::module::ModuleError::Absent { .. })));
    }
}
