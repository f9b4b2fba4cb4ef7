//! Driver, driver's counters and link settings of network devices. Off by default.
//!
//! Source: the program `ethtool`: `ethtool -i DEVICE`, `-S DEVICE` and `DEVICE`. The kernel gives the driver's counters by an ioctl
//!         only, which safe code cannot make; so each read starts three short processes per device.
//! Shape:  `node_ethtool_info` with value 1; `node_ethtool_<counter>{device}` by the driver's names, with rx and tx written out;
//!         `node_network_{supported,advertised}_*`, `node_network_autonegotiate*`, `node_network_*pause_*`.
//! Units:  counters as the driver counts; speeds in bytes per second.
//! Errors: `Absent` without the program, `Read` where it cannot work; what it does not say of a device is left out, as all is of
//!         `lo`.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use lampad_proto::v1::MetricType;

use super::reader::Reader;
use super::settings::{DeviceFilter, Pattern};
use super::source::{ModuleResult, absent, names_in, read_error};
use crate::module::{Desc, ModuleError};
use crate::tick::Tick;

const fn gauge(name: &'static str, help: &'static str) -> Desc {
    Desc::gauge(name, help).labels(&["device"])
}

const fn counter(name: &'static str, help: &'static str) -> Desc {
    Desc::untyped(name, help).labels(&["device"])
}

const INFO: Desc = Desc::gauge("node_ethtool_info", "The device's driver; always 1.").labels(&[
    "bus_info",
    "device",
    "driver",
    "expansion_rom_version",
    "firmware_version",
    "version",
]);

/// Counters that most drivers have, by the driver's names.
const COUNTERS: &[(&str, Desc)] = &[
    ("rx_bytes", counter("node_ethtool_received_bytes_total", "Bytes received, as the driver counts.")),
    ("rx_dropped", counter("node_ethtool_received_dropped_total", "Packets dropped on the way in.")),
    ("rx_errors", counter("node_ethtool_received_errors_total", "Packets received with errors.")),
    ("rx_packets", counter("node_ethtool_received_packets_total", "Packets received.")),
    ("tx_bytes", counter("node_ethtool_transmitted_bytes_total", "Bytes sent, as the driver counts.")),
    ("tx_errors", counter("node_ethtool_transmitted_errors_total", "Packets that could not be sent.")),
    ("tx_packets", counter("node_ethtool_transmitted_packets_total", "Packets sent.")),
];

const PORT: Desc = Desc::gauge("node_network_supported_port_info", "A kind of port that the device has; always 1.")
    .labels(&["device", "type"]);
const SPEED_LABELS: &[&str] = &["device", "duplex", "mode"];

/// Supported and advertised: beginning of the program's lines, speeds, pause frames, those of one direction.
const MODES: &[(&str, Desc, Desc, Desc)] = &[
    (
        "Supported",
        Desc::gauge("node_network_supported_speed_bytes", "A speed that the device can have.").labels(SPEED_LABELS),
        gauge("node_network_pause_supported", "1 if the device knows pause frames."),
        gauge("node_network_asymmetricpause_supported", "1 if it knows pause frames of one direction."),
    ),
    (
        "Advertised",
        Desc::gauge("node_network_advertised_speed_bytes", "A speed that the device offers.").labels(SPEED_LABELS),
        gauge("node_network_pause_advertised", "1 if the device offers pause frames."),
        gauge("node_network_asymmetricpause_advertised", "1 if it offers pause frames of one direction."),
    ),
];

/// What is on or off, by the program's words.
const SWITCHES: &[(&str, Desc)] = &[
    ("Supports auto-negotiation", gauge("node_network_autonegotiate_supported", "1 if the device can negotiate.")),
    ("Advertised auto-negotiation", gauge("node_network_autonegotiate_advertised", "1 if it offers to negotiate.")),
    ("Auto-negotiation", gauge("node_network_autonegotiate", "1 if the link is negotiated.")),
];

const BYTES_PER_MEGABIT: f64 = 1e6 / 8.0;

/// Where the program is looked for beside `PATH`, which a service may lack.
const PLACES: &[&str] = &["/usr/sbin", "/sbin"];

pub struct Ethtool {
    class: PathBuf,
    program: Option<PathBuf>,
    filter: DeviceFilter,
    counters: Option<Pattern>,
    /// Counters that were told before, by the drivers' names: some drivers have thousands.
    known: HashMap<String, Desc>,
}

impl Ethtool {
    /// `counters` says which of the drivers' are told, by their names.
    pub fn new(sysfs: &Path, filter: DeviceFilter, counters: Option<Pattern>) -> Self {
        Self { class: sysfs.join("class/net"), program: None, filter, counters, known: HashMap::new() }
    }

    fn program(&mut self) -> Result<PathBuf, ModuleError> {
        self.program.take_if(|program| !program.is_file());
        if self.program.is_none() {
            let path = std::env::var_os("PATH").unwrap_or_default();
            self.program = find(std::env::split_paths(&path).chain(PLACES.iter().map(PathBuf::from)));
        }
        self.program.clone().ok_or_else(|| absent(Path::new("the program ethtool")))
    }

    fn counters(&mut self, device: &str, text: &str, out: &mut Tick) {
        for line in text.lines().filter(|line| line.starts_with(' ')) {
            // A name may have a colon: bnx2x says `[0]: rx_ucast_packets: 7`.
            let Some((name, value)) = line.rsplit_once(':') else { continue };
            let (name, Ok(value)) = (name.trim(), value.trim().parse::<u64>()) else { continue };
            if self.counters.as_ref().is_some_and(|wanted| !wanted.matches(name)) {
                continue;
            }
            if !self.known.contains_key(name) {
                self.known.insert(name.to_owned(), desc_of(name));
            }
            out.push(&self.known[name], &[device], value);
        }
    }
}

fn find(places: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    places.map(|place| place.join("ethtool")).find(|program| program.is_file())
}

impl Reader for Ethtool {
    fn descs(&self) -> Vec<Desc> {
        let modes = MODES.iter().flat_map(|(_, speed, pause, asymmetric)| [speed, pause, asymmetric]);
        let others = COUNTERS.iter().chain(SWITCHES).map(|(_, desc)| desc);
        [INFO, PORT].into_iter().chain(others.chain(modes).cloned()).collect()
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let program = self.program()?;
        for device in names_in(&self.class)? {
            // `bonding_masters` is a file among the devices.
            if !self.filter.takes(&device) || !self.class.join(&device).is_dir() {
                continue;
            }
            info(&device, &say(&program, &["-i", &device])?, out);
            self.counters(&device, &say(&program, &["-S", &device])?, out);
            settings(&device, &say(&program, &[&device])?, out);
        }
        Ok(())
    }
}

/// What the program says, in English; that it has nothing to say of a device is no failure.
fn say(program: &Path, arguments: &[&str]) -> Result<String, ModuleError> {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null());
    let output = command.output().map_err(|source| read_error(program, source))?;
    // Codes from there on are a shell's and a loader's; one that was killed has none.
    if output.status.code().is_none_or(|code| code >= 126) {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(read_error(program, io::Error::other(format!("{}: {}", output.status, said.trim()))));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What a line is about, and what it says of that.
fn named(line: &str) -> Option<(&str, &str)> {
    line.split_once(':').map(|(name, value)| (name.trim(), value.trim()))
}

fn info(device: &str, text: &str, out: &mut Tick) {
    let of = |wanted: &str| text.lines().filter_map(named).find(|(name, _)| *name == wanted).map(|(_, value)| value);
    let Some(driver) = of("driver") else { return };
    let label = |name| of(name).unwrap_or_default();
    let (rom, firmware) = (label("expansion-rom-version"), label("firmware-version"));
    out.push(&INFO, &[label("bus-info"), device, driver, rom, firmware, label("version")], 1.0);
}

fn desc_of(counter: &str) -> Desc {
    let common = COUNTERS.iter().find(|(name, _)| *name == counter).map(|(_, desc)| desc.clone());
    common.unwrap_or_else(|| {
        let help = format!("Counter {counter} of the driver.");
        Desc::named(MetricType::Unknown, family(counter), help).labels(&["device"])
    })
}

/// The family of a driver's counter.
fn family(name: &str) -> String {
    static OTHERS: LazyLock<Pattern> = LazyLock::new(|| Pattern::of("_*[^0-9A-Za-z_]+_*"));
    static RECEIVED: LazyLock<Pattern> = LazyLock::new(|| Pattern::of("(^|_)rx(_|$)"));
    static TRANSMITTED: LazyLock<Pattern> = LazyLock::new(|| Pattern::of("(^|_)tx(_|$)"));
    let name = OTHERS.replace_all(name, "_").to_lowercase();
    let name = RECEIVED.replace_all(name.trim_start_matches('_'), "${1}received${2}");
    format!("node_ethtool_{}", TRANSMITTED.replace_all(&name, "${1}transmitted${2}"))
}

fn settings(device: &str, text: &str, out: &mut Tick) {
    let mut last = "";
    for line in text.lines().skip(1) {
        // Modes go on over several lines, of which the first has a name.
        let (name, value) = named(line).unwrap_or((last, line.trim()));
        last = name;
        if name == "Supported ports" {
            let ports = value.split_whitespace().filter(|port| !matches!(*port, "[" | "]"));
            ports.for_each(|port| out.push(&PORT, &[device, port], 1.0));
        }
        if let Some((_, desc)) = SWITCHES.iter().find(|(switch, _)| *switch == name) {
            out.push(desc, &[device], f64::from(matches!(value, "Yes" | "on")));
        }
        for (kind, speed, pause, asymmetric) in MODES {
            match name.strip_prefix(kind).map(str::trim_start) {
                Some("link modes") => value.split_whitespace().for_each(|mode| push_speed(speed, device, mode, out)),
                Some("pause frame use") => {
                    out.push(pause, &[device], f64::from(value.starts_with("Symmetric")));
                    out.push(asymmetric, &[device], f64::from(value.ends_with("-only")));
                }
                _ => {}
            }
        }
    }
}

/// `1000baseT/Full`; of `Not reported` there is none.
fn push_speed(desc: &Desc, device: &str, mode: &str, out: &mut Tick) {
    let Some((mode, duplex)) = mode.split_once('/') else { return };
    let megabits = mode.split(|letter: char| !letter.is_ascii_digit()).next().map(str::parse::<f64>);
    if let Some(Ok(megabits)) = megabits {
        out.push(desc, &[device, &duplex.to_lowercase(), mode], megabits * BYTES_PER_MEGABIT);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::lines;
    use super::*;

    fn told(tell: impl FnOnce(&mut Tick)) -> Vec<String> {
        let mut tick = Tick::new();
        tell(&mut tick);
        lines(&tick)
    }

    #[test]
    fn counters_have_the_names_that_dashboards_know() {
        for (name, wanted) in [
            ("rx_xdp_tx", "received_xdp_transmitted"),
            ("tx_tx_timeouts", "transmitted_tx_timeouts"),
            ("tx0_tx_timeouts", "tx0_transmitted_timeouts"),
            ("[0]: rx_ucast packets", "0_received_ucast_packets"),
            ("Rx Unicast-Packets", "received_unicast_packets"),
        ] {
            assert_eq!(family(name), format!("node_ethtool_{wanted}"));
        }
        let text = "NIC statistics:\n     rx_bytes: 18446744073709551615\n     [0]: tx_drops: 3\n     odd: many\n";
        let told_by = |wanted| {
            let mut module = Ethtool::new(Path::new("/sys"), DeviceFilter::default(), wanted);
            told(|out| module.counters("eth0", text, out))
        };
        let received = "node_ethtool_received_bytes_total{device=\"eth0\"} 18446744073709551615";
        assert_eq!(told_by(None), ["node_ethtool_0_transmitted_drops{device=\"eth0\"} 3", received]);
        assert_eq!(told_by(Some(Pattern::of("^rx_"))), [received]);
    }

    #[test]
    fn link_settings_are_read_over_several_lines() {
        let text = "Settings for eth0:
\tSupported ports: [ TP MII ]
\tSupported link modes:   10baseT/Half
\t                        1000baseKX/Full
\tSupported pause frame use: Symmetric Receive-only
\tSupports auto-negotiation: Yes
\tSupported FEC modes: Not reported
\tAdvertised link modes:  Not reported
\tAdvertised pause frame use: Transmit-only
\tAdvertised auto-negotiation: No
\tSpeed: 1000Mb/s
\tAuto-negotiation: on
";
        let device = "{device=\"eth0\"}";
        let mut wanted = vec![
            format!("node_network_asymmetricpause_advertised{device} 1"),
            format!("node_network_asymmetricpause_supported{device} 1"),
            format!("node_network_autonegotiate{device} 1"),
            format!("node_network_autonegotiate_advertised{device} 0"),
            format!("node_network_autonegotiate_supported{device} 1"),
            format!("node_network_pause_advertised{device} 0"),
            format!("node_network_pause_supported{device} 1"),
            "node_network_supported_port_info{device=\"eth0\",type=\"MII\"} 1".to_owned(),
            "node_network_supported_port_info{device=\"eth0\",type=\"TP\"} 1".to_owned(),
            "node_network_supported_speed_bytes{device=\"eth0\",duplex=\"full\",mode=\"1000baseKX\"} 125000000"
                .to_owned(),
            "node_network_supported_speed_bytes{device=\"eth0\",duplex=\"half\",mode=\"10baseT\"} 1250000".to_owned(),
        ];
        wanted.sort_unstable();
        assert_eq!(told(|out| settings("eth0", text, out)), wanted);
    }

    #[test]
    fn a_driver_without_versions_is_told_all_the_same() {
        let text =
            "driver: virtio_net\nversion: 1.0.0\nfirmware-version: \nbus-info: 0000:00:03.0\nsupports-test: no\n";
        let found = told(|out| info("eth0", text, out));
        assert!(found.len() == 1 && found[0].contains("bus_info=\"0000:00:03.0\""), "{found:?}");
        assert!(told(|out| info("lo", "", out)).is_empty());
    }

    #[test]
    fn without_the_program_there_is_none_and_a_broken_one_is_told() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(find([dir.path().to_owned()].into_iter()), None);
        let program = dir.path().join("ethtool");
        std::os::unix::fs::symlink("/bin/sh", &program).unwrap();
        assert_eq!(find([dir.path().to_owned()].into_iter()), Some(program.clone()));
        let error = say(&program, &["-c", "echo no library >&2; exit 127"]).unwrap_err();
        assert!(crate::sampler::chain(&error).contains("no library"), "{error}");
        assert_eq!(say(&program, &["-c", "echo driver: x; exit 75"]).unwrap(), "driver: x\n");
    }
}
