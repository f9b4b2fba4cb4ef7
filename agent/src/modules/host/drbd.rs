//! Disks mirrored over the network by DRBD 8. Off by default.
//!
//! Source: `/proc/drbd`, see drbdsetup(8).
//! Shape:  `node_drbd_*{device}`, with `node` (`local`, `remote`) for roles and states of disks.
//! Units:  bytes (the kernel counts KiB), operations.
//! Errors: `Absent` without the module.

use std::path::Path;

use super::reader::Reader;
use super::source::{ModuleResult, ProcFile, parse_decimal};
use crate::module::Desc;
use crate::tick::Tick;

const DEVICE: &[&str] = &["device"];
const NODE: &[&str] = &["device", "node"];
const KIB: f64 = 1024.0;

const CONNECTED: Desc = Desc::gauge("node_drbd_connected", "1 if the two sides are connected.").labels(DEVICE);
const PRIMARY: Desc = Desc::gauge("node_drbd_node_role_is_primary", "1 if the side is the primary.").labels(NODE);
const UP_TO_DATE: Desc =
    Desc::gauge("node_drbd_disk_state_is_up_to_date", "1 if the side's disk is up to date.").labels(NODE);

const fn gauge(name: &'static str, help: &'static str) -> Desc {
    Desc::gauge(name, help).labels(DEVICE)
}

const fn counter(name: &'static str, help: &'static str) -> Desc {
    Desc::counter(name, help).labels(DEVICE)
}

/// Key, base units in one of the file, family. `nr` and `oos` are told as node_exporter tells them: not times 1024, and
/// times 1024.
const ROWS: &[(&str, f64, Desc)] = &[
    ("ns", KIB, counter("node_drbd_network_sent_bytes_total", "Data sent to the other side.")),
    ("nr", 1.0, counter("node_drbd_network_received_bytes_total", "Data received from the other side.")),
    ("dw", KIB, counter("node_drbd_disk_written_bytes_total", "Data written to the disk.")),
    ("dr", KIB, counter("node_drbd_disk_read_bytes_total", "Data read from the disk.")),
    ("al", 1.0, counter("node_drbd_activitylog_writes_total", "Updates of the activity log.")),
    ("bm", 1.0, counter("node_drbd_bitmap_writes_total", "Updates of the bitmap.")),
    ("lo", 1.0, gauge("node_drbd_local_pending", "Open requests to the local disk.")),
    ("pe", 1.0, gauge("node_drbd_remote_pending", "Requests sent and not answered.")),
    ("ua", 1.0, gauge("node_drbd_remote_unacknowledged", "Requests received and not answered.")),
    ("ap", 1.0, gauge("node_drbd_application_pending", "Block requests not answered.")),
    ("ep", 1.0, gauge("node_drbd_epochs", "Epochs on the fly.")),
    ("oos", KIB, gauge("node_drbd_out_of_sync_bytes", "Data that differs between the sides.")),
];

pub struct Drbd(ProcFile);

impl Drbd {
    pub fn new(procfs: &Path) -> Self {
        Self(ProcFile::new(procfs.join("drbd")))
    }
}

impl Reader for Drbd {
    fn descs(&self) -> Vec<Desc> {
        [CONNECTED, PRIMARY, UP_TO_DATE].into_iter().chain(ROWS.iter().map(|(.., desc)| desc.clone())).collect()
    }

    /// ` 1: cs:Connected ro:Primary/Primary ds:UpToDate/UpToDate C r-----`, then `ns:1732 nr:1096 ...`.
    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let mut device = String::new();
        for line in self.0.text()?.lines() {
            for word in line.split_ascii_whitespace() {
                let Some((key, value)) = word.split_once(':') else { continue };
                if value.is_empty() {
                    // The version's line has keys of this kind too, and no number.
                    device = if key.parse::<u32>().is_ok() { format!("drbd{key}") } else { String::new() };
                } else if !device.is_empty() {
                    push_word(&device, key, value, out);
                }
            }
        }
        Ok(())
    }
}

fn push_word(device: &str, key: &str, value: &str, out: &mut Tick) {
    let mut sides = |desc: &Desc, good: &str| {
        let (local, remote) = value.split_once('/').unwrap_or((value, ""));
        for (node, state) in [("local", local), ("remote", remote)] {
            out.push(desc, &[device, node], f64::from(u8::from(state == good)));
        }
    };
    match key {
        "ro" => sides(&PRIMARY, "Primary"),
        "ds" => sides(&UP_TO_DATE, "UpToDate"),
        "cs" => out.push(&CONNECTED, &[device], f64::from(u8::from(value == "Connected"))),
        _ => {
            if let (Some((_, factor, desc)), Some(number)) =
                (ROWS.iter().find(|(row, ..)| *row == key), parse_decimal(value))
            {
                out.push(desc, &[device], number * factor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn both_sides_are_told() {
        let text = "version: 8.4.3 (api:1/proto:86-101)\nsrcversion: 1A9F\n\n 1: cs:StandAlone ro:Primary/Unknown \
                    ds:UpToDate/DUnknown C r-----\n    ns:2 nr:3 oos:1\n";
        let tree = Tree::new(&[("drbd", text)]);
        assert_eq!(
            dump(&mut Drbd::new(tree.path())),
            [
                r#"node_drbd_connected{device="drbd1"} 0"#,
                r#"node_drbd_disk_state_is_up_to_date{device="drbd1",node="local"} 1"#,
                r#"node_drbd_disk_state_is_up_to_date{device="drbd1",node="remote"} 0"#,
                r#"node_drbd_network_received_bytes_total{device="drbd1"} 3"#,
                r#"node_drbd_network_sent_bytes_total{device="drbd1"} 2048"#,
                r#"node_drbd_node_role_is_primary{device="drbd1",node="local"} 1"#,
                r#"node_drbd_node_role_is_primary{device="drbd1",node="remote"} 0"#,
                r#"node_drbd_out_of_sync_bytes{device="drbd1"} 1024"#,
            ]
        );
    }
}
