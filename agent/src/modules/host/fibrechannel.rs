//! Host adapters of storage networks.
//!
//! Source: `/sys/class/fc_host/*`, see the kernel's scsi_transport_fc.
//! Shape:  `node_fibrechannel_*{fc_host}`; `node_fibrechannel_info` with value 1.
//! Units:  frames, 32-bit words, seconds.
//! Errors: `Absent` without an adapter; a counter that the driver does not keep, which reads as all ones, is left out.

use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::source::{ModuleResult, absent, attribute, names_in};
use crate::module::Desc;
use crate::tick::Tick;

const fn counter(name: &'static str, help: &'static str) -> Desc {
    Desc::counter(name, help).labels(&["fc_host"])
}

/// File below `statistics`, family.
const ROWS: &[(&str, Desc)] = &[
    ("dumped_frames", counter("node_fibrechannel_dumped_frames_total", "Frames dropped.")),
    ("error_frames", counter("node_fibrechannel_error_frames_total", "Frames with errors.")),
    ("fcp_packet_aborts", counter("node_fibrechannel_fcp_packet_aborts_total", "Packets given up.")),
    ("invalid_crc_count", counter("node_fibrechannel_invalid_crc_total", "Frames with a wrong checksum.")),
    ("invalid_tx_word_count", counter("node_fibrechannel_invalid_tx_words_total", "Odd words sent by the port.")),
    ("link_failure_count", counter("node_fibrechannel_link_failure_total", "Failures of the link.")),
    ("loss_of_signal_count", counter("node_fibrechannel_loss_of_signal_total", "Times the signal was lost.")),
    ("loss_of_sync_count", counter("node_fibrechannel_loss_of_sync_total", "Times the ports fell out of step.")),
    ("nos_count", counter("node_fibrechannel_nos_total", "'Not operational' sequences received.")),
    ("rx_frames", counter("node_fibrechannel_rx_frames_total", "Frames received.")),
    ("rx_words", counter("node_fibrechannel_rx_words_total", "Words received.")),
    ("seconds_since_last_reset", counter("node_fibrechannel_seconds_since_last_reset_total", "Age of the counters.")),
    ("tx_frames", counter("node_fibrechannel_tx_frames_total", "Frames sent.")),
    ("tx_words", counter("node_fibrechannel_tx_words_total", "Words sent so far.")),
];

/// Labels of the information behind `fc_host`, which are files of the adapter.
const ABOUT: [&str; 10] = [
    "speed",
    "port_state",
    "port_type",
    "port_id",
    "port_name",
    "fabric_name",
    "symbolic_name",
    "supported_classes",
    "supported_speeds",
    "dev_loss_tmo",
];
const INFO: Desc = Desc::gauge("node_fibrechannel_info", "What the adapter is and is connected to.").labels(&[
    "fc_host", ABOUT[0], ABOUT[1], ABOUT[2], ABOUT[3], ABOUT[4], ABOUT[5], ABOUT[6], ABOUT[7], ABOUT[8], ABOUT[9],
]);

pub struct FibreChannel(PathBuf);

impl FibreChannel {
    pub fn new(sysfs: &Path) -> Self {
        Self(sysfs.join("class/fc_host"))
    }
}

impl Reader for FibreChannel {
    fn descs(&self) -> Vec<Desc> {
        ROWS.iter().map(|(_, desc)| desc.clone()).chain([INFO]).collect()
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let hosts = names_in(&self.0)?;
        if hosts.is_empty() {
            return Err(absent(&self.0.join("host*")));
        }
        for host in hosts {
            let dir = self.0.join(&host);
            // Addresses are hexadecimal, and told without saying so.
            let about = ABOUT.map(|file| attribute(dir.join(file)).unwrap_or_default().replacen("0x", "", 1));
            let labels: Vec<&str> = std::iter::once(&host).chain(&about).map(String::as_str).collect();
            out.push(&INFO, &labels, 1.0);
            for (file, desc) in ROWS {
                let text = attribute(dir.join("statistics").join(file)).unwrap_or_default();
                let count = text.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
                if let Some(count) = count.filter(|count| *count != u64::MAX) {
                    out.push(desc, &[&host], count as f64);
                }
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
    fn adapters_and_what_they_count() {
        let tree = Tree::new(&[
            ("class/fc_host/host0/port_name", "0x1000e0071bce95f2\n"),
            ("class/fc_host/host0/speed", "16 Gbit\n"),
            ("class/fc_host/host0/statistics/rx_words", "0x13\n"),
            ("class/fc_host/host0/statistics/dumped_frames", "0xffffffffffffffff\n"),
        ]);
        let told = dump(&mut FibreChannel::new(tree.path()));
        assert_eq!(told[1..], [r#"node_fibrechannel_rx_words_total{fc_host="host0"} 19"#]);
        assert!(
            told[0].contains(r#"speed="16 Gbit""#) && told[0].contains(r#"port_name="1000e0071bce95f2""#),
            "{told:?}"
        );
    }
}
