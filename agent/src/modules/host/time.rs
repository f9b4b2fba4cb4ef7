//! The host's clock, time zone and clock sources.
//!
//! Source: the real-time clock, the time zone by jiff, `/sys/devices/system/clocksource`.
//! Shape:  `node_time_seconds`, `node_time_zone_offset_seconds{time_zone}`, `node_time_clocksource_*{device,clocksource}`.
//! Units:  seconds, since 1970 or east of UTC.
//! Errors: none; a host without clock sources in sysfs has just the clock.

use std::path::{Path, PathBuf};

use jiff::Zoned;

use super::reader::Reader;
use super::source::{attribute, names_in};
use crate::module::{Desc, ModuleError};
use crate::tick::Tick;

const NOW: Desc = Desc::gauge("node_time_seconds", "The host's time, in seconds since 1970.");
const ZONE: Desc =
    Desc::gauge("node_time_zone_offset_seconds", "The host's local time less UTC.").labels(&["time_zone"]);
const AVAILABLE: Desc = Desc::gauge("node_time_clocksource_available_info", "Clock sources that the kernel could use.")
    .labels(&["device", "clocksource"]);
const CURRENT: Desc = Desc::gauge("node_time_clocksource_current_info", "Clock source that the kernel uses.")
    .labels(&["device", "clocksource"]);

pub struct Time {
    clocksources: PathBuf,
}

impl Time {
    pub fn new(sysfs: &Path) -> Self {
        Self { clocksources: sysfs.join("devices/system/clocksource") }
    }
}

impl Reader for Time {
    fn descs(&self) -> Vec<Desc> {
        vec![NOW, ZONE, AVAILABLE, CURRENT]
    }

    fn read(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let now = Zoned::now();
        out.push(&NOW, &[], now.timestamp().as_nanosecond() as f64 / 1e9);
        out.push(&ZONE, &[&now.strftime("%Z").to_string()], f64::from(now.offset().seconds()));
        for name in names_in(&self.clocksources).unwrap_or_default() {
            let Some(device) = name.strip_prefix("clocksource") else { continue };
            let get = |file: &str| attribute(self.clocksources.join(&name).join(file)).unwrap_or_default();
            for source in get("available_clocksource").split_ascii_whitespace() {
                out.push(&AVAILABLE, &[device, source], 1.0);
            }
            let current = get("current_clocksource");
            if !current.is_empty() {
                out.push(&CURRENT, &[device, &current], 1.0);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn clock_sources_are_named() {
        let dir = "devices/system/clocksource/clocksource0";
        let tree = Tree::new(&[
            (&format!("{dir}/available_clocksource"), "tsc hpet \n"),
            (&format!("{dir}/current_clocksource"), "tsc\n"),
        ]);
        let got = dump(&mut Time::new(tree.path()));
        assert_eq!(
            got[..3],
            [
                r#"node_time_clocksource_available_info{device="0",clocksource="hpet"} 1"#,
                r#"node_time_clocksource_available_info{device="0",clocksource="tsc"} 1"#,
                r#"node_time_clocksource_current_info{device="0",clocksource="tsc"} 1"#,
            ]
        );
        assert!(got[3].starts_with("node_time_seconds ") && got[4].starts_with("node_time_zone_offset_seconds{"));
    }
}
