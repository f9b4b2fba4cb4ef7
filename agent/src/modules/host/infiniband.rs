//! InfiniBand and RDMA devices.
//!
//! Source: `/sys/class/infiniband/*` and its `ports/*`, see the kernel's ABI/stable/sysfs-class-infiniband.
//! Shape:  `node_infiniband_*{device,port}`; `node_infiniband_info{device,...}` with value 1.
//! Units:  bytes (the kernel counts 32-bit words), bytes per second, packets.
//! Errors: `Absent` without a device; a counter that the device does not keep (`N/A`) is left out.

use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::source::{ModuleResult, absent, attribute, names_in, parse_decimal};
use crate::module::Desc;
use crate::tick::Tick;

const PORT: &[&str] = &["device", "port"];
const INFO: Desc = Desc::gauge("node_infiniband_info", "What the device is.").labels(&[
    "device",
    "board_id",
    "firmware_version",
    "hca_type",
]);
const STATE: Desc = Desc::gauge("node_infiniband_state_id", "State of the port, 4 for active.").labels(PORT);
const PHYSICAL: Desc = Desc::gauge("node_infiniband_physical_state_id", "State of its link, 5 for up.").labels(PORT);
const RATE: Desc = Desc::gauge("node_infiniband_rate_bytes_per_second", "Speed of the link.").labels(PORT);
const LIFESPAN: Desc =
    Desc::gauge("node_infiniband_lifespan_seconds", "Longest time between updates of hardware counters.").labels(PORT);

const BYTES_PER_WORD: f64 = 4.0;

/// A file of a port, units of the base unit in one of the file, the family. The macro makes `node_infiniband_X_total`.
struct Row(&'static str, f64, Desc);

macro_rules! row {
    ($file:literal, $name:literal, $help:literal) => {
        row!($file, $name, $help, 1.0)
    };
    ($file:literal, $name:literal, $help:literal, $factor:expr) => {
        Row($file, $factor, Desc::counter(concat!("node_infiniband_", $name, "_total"), $help).labels(PORT))
    };
}

const ROWS: &[Row] = &[
    row!("counters/VL15_dropped", "vl15_dropped", "Subnet management packets dropped."),
    row!(
        "counters/excessive_buffer_overrun_errors",
        "excessive_buffer_overrun_errors",
        "Overruns of buffers in a row."
    ),
    row!("counters/link_downed", "link_downed", "Times the link went down."),
    row!("counters/link_error_recovery", "link_error_recovery", "Times the link recovered by itself."),
    row!("counters/local_link_integrity_errors", "local_link_integrity_errors", "Times local errors passed the limit."),
    row!("counters/multicast_rcv_packets", "multicast_packets_received", "Multicast packets received."),
    row!("counters/multicast_xmit_packets", "multicast_packets_transmitted", "Multicast packets sent."),
    row!("counters/port_rcv_constraint_errors", "port_constraint_errors_received", "Received and refused."),
    row!("counters/port_xmit_constraint_errors", "port_constraint_errors_transmitted", "Not sent for constraints."),
    row!("counters/port_rcv_data", "port_data_received_bytes", "Data received.", BYTES_PER_WORD),
    row!("counters/port_xmit_data", "port_data_transmitted_bytes", "Data sent so far.", BYTES_PER_WORD),
    row!("counters/port_rcv_discards", "port_discards_received", "Received packets discarded."),
    row!("counters/port_xmit_discards", "port_discards_transmitted", "Packets not sent, the port being down or full."),
    row!("counters/port_rcv_errors", "port_errors_received", "Received packets with an error."),
    row!("counters/port_rcv_packets", "port_packets_received", "Packets received, of any kind."),
    row!("counters/port_xmit_packets", "port_packets_transmitted", "Packets sent, of any kind."),
    row!("counters/port_xmit_wait", "port_transmit_wait", "Ticks during which data waited to be sent."),
    row!("counters/port_rcv_remote_physical_errors", "port_receive_remote_physical_errors", "Received as bad."),
    row!("counters/port_rcv_switch_relay_errors", "port_receive_switch_relay_errors", "Not to be passed on."),
    row!("counters/symbol_error", "symbol_error", "Small errors of the link."),
    row!("counters/unicast_rcv_packets", "unicast_packets_received", "Unicast packets received."),
    row!("counters/unicast_xmit_packets", "unicast_packets_transmitted", "Unicast packets sent."),
    // Of drivers before Linux 4.5.
    row!("counters_ext/port_rcv_data_64", "legacy_data_received_bytes", "Data received.", BYTES_PER_WORD),
    row!("counters_ext/port_xmit_data_64", "legacy_data_transmitted_bytes", "Data sent so far.", BYTES_PER_WORD),
    row!("counters_ext/port_rcv_packets_64", "legacy_packets_received", "Packets received."),
    row!("counters_ext/port_xmit_packets_64", "legacy_packets_transmitted", "Packets sent so far."),
    row!("counters_ext/port_multicast_rcv_packets", "legacy_multicast_packets_received", "Multicast received."),
    row!("counters_ext/port_multicast_xmit_packets", "legacy_multicast_packets_transmitted", "Multicast packets sent."),
    row!("counters_ext/port_unicast_rcv_packets", "legacy_unicast_packets_received", "Unicast received."),
    row!("counters_ext/port_unicast_xmit_packets", "legacy_unicast_packets_transmitted", "Unicast packets sent."),
    row!("hw_counters/duplicate_request", "duplicate_requests_packets", "Requests received twice."),
    row!("hw_counters/implied_nak_seq_err", "implied_nak_seq_errors", "Responses out of the sequence expected."),
    row!("hw_counters/local_ack_timeout_err", "local_ack_timeout_errors", "Acknowledgements that did not come."),
    row!("hw_counters/np_cnp_sent", "np_cnp_packets_sent", "Congestion notices sent."),
    row!("hw_counters/np_ecn_marked_roce_packets", "np_ecn_marked_roce_packets_received", "Packets marked congested."),
    row!("hw_counters/out_of_buffer", "out_of_buffer_drops", "Drops for want of a buffer."),
    row!("hw_counters/out_of_sequence", "out_of_sequence_packets_received", "Packets out of sequence."),
    row!("hw_counters/packet_seq_err", "packet_sequence_errors", "Sequence errors told by the other side."),
    row!("hw_counters/req_cqe_error", "req_cqes_errors", "Completions with an error, of requests."),
    row!("hw_counters/req_cqe_flush_error", "req_cqes_flush_errors", "Completions flushed, of requests."),
    row!("hw_counters/req_remote_access_errors", "req_remote_access_errors", "Requests denied by the other side."),
    row!("hw_counters/req_remote_invalid_request", "req_remote_invalid_request_errors", "Requests it found invalid."),
    row!("hw_counters/resp_cqe_error", "resp_cqes_errors", "Completions with an error, of responses."),
    row!("hw_counters/resp_cqe_flush_error", "resp_cqes_flush_errors", "Completions flushed, of responses."),
    row!("hw_counters/resp_local_length_error", "resp_local_length_errors", "Requests of a wrong length."),
    row!("hw_counters/resp_remote_access_errors", "resp_remote_access_errors", "Requests denied by this side."),
    row!("hw_counters/rnr_nak_retry_err", "rnr_nak_retry_packets_received", "'Not ready' received."),
    row!("hw_counters/roce_adp_retrans", "roce_adp_retransmits", "Adaptive retransmissions."),
    row!("hw_counters/roce_adp_retrans_to", "roce_adp_retransmits_timeout", "Those that timed out."),
    row!("hw_counters/roce_slow_restart", "roce_slow_restart_used", "Slow restarts used."),
    row!("hw_counters/roce_slow_restart_cnps", "roce_slow_restart_cnps", "Congestion notices of slow restarts."),
    row!("hw_counters/roce_slow_restart_trans", "roce_slow_restart", "Changes to slow restart."),
    row!("hw_counters/rp_cnp_handled", "rp_cnp_packets_handled", "Congestion notices obeyed."),
    row!("hw_counters/rp_cnp_ignored", "rp_cnp_ignored_packets_received", "Congestion notices ignored."),
    row!("hw_counters/rx_atomic_requests", "rx_atomic_requests", "Atomic requests received."),
    row!("hw_counters/rx_dct_connect", "rx_dct_connect_requests", "Connect requests received."),
    row!("hw_counters/rx_icrc_encapsulated", "rx_icrc_encapsulated_errors", "Packets with a wrong checksum inside."),
    row!("hw_counters/rx_read_requests", "rx_read_requests", "Read requests received."),
    row!("hw_counters/rx_write_requests", "rx_write_requests", "Write requests received."),
];

pub struct InfiniBand(PathBuf);

impl InfiniBand {
    pub fn new(sysfs: &Path) -> Self {
        Self(sysfs.join("class/infiniband"))
    }
}

impl Reader for InfiniBand {
    fn descs(&self) -> Vec<Desc> {
        [INFO, STATE, PHYSICAL, RATE, LIFESPAN].into_iter().chain(ROWS.iter().map(|row| row.2.clone())).collect()
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let devices = names_in(&self.0)?;
        if devices.is_empty() {
            return Err(absent(&self.0.join("*")));
        }
        for device in devices {
            let dir = self.0.join(&device);
            let about = ["board_id", "fw_ver", "hca_type"].map(|file| attribute(dir.join(file)).unwrap_or_default());
            out.push(&INFO, &[&device, &about[0], &about[1], &about[2]], 1.0);
            for port in names_in(&dir.join("ports")).unwrap_or_default() {
                push_port(&dir.join("ports").join(&port), &[&device, &port], out);
            }
        }
        Ok(())
    }
}

fn push_port(dir: &Path, labels: &[&str], out: &mut Tick) {
    // `4: ACTIVE`, `40 Gb/sec (4X QDR)`, `10`
    let first = |file: &str| {
        let text = attribute(dir.join(file))?;
        parse_decimal(text.split([':', ' ']).next()?)
    };
    const BYTES_PER_GIGABIT: f64 = 1e9 / 8.0;
    for (file, factor, desc) in [
        ("state", 1.0, &STATE),
        ("phys_state", 1.0, &PHYSICAL),
        ("rate", BYTES_PER_GIGABIT, &RATE),
        // In milliseconds.
        ("hw_counters/lifespan", 1e-3, &LIFESPAN),
    ] {
        if let Some(value) = first(file) {
            out.push(desc, labels, value * factor);
        }
    }
    for Row(file, factor, desc) in ROWS {
        if let Some(value) = first(file) {
            out.push(desc, labels, value * factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn ports_and_their_counters() {
        let port = "class/infiniband/mlx4_0/ports/1";
        let tree = Tree::new(&[
            ("class/infiniband/mlx4_0/hca_type", "MT4099\n"),
            (&format!("{port}/state"), "4: ACTIVE\n"),
            (&format!("{port}/rate"), "40 Gb/sec (4X QDR)\n"),
            (&format!("{port}/counters/port_rcv_data"), "100\n"),
            (&format!("{port}/counters/symbol_error"), "N/A (no PMA)\n"),
            (&format!("{port}/hw_counters/lifespan"), "10\n"),
            (&format!("{port}/hw_counters/roce_slow_restart_trans"), "3\n"),
        ]);
        assert_eq!(
            dump(&mut InfiniBand::new(tree.path())),
            [
                r#"node_infiniband_info{device="mlx4_0",board_id="",firmware_version="",hca_type="MT4099"} 1"#,
                r#"node_infiniband_lifespan_seconds{device="mlx4_0",port="1"} 0.01"#,
                r#"node_infiniband_port_data_received_bytes_total{device="mlx4_0",port="1"} 400"#,
                r#"node_infiniband_rate_bytes_per_second{device="mlx4_0",port="1"} 5000000000"#,
                r#"node_infiniband_roce_slow_restart_total{device="mlx4_0",port="1"} 3"#,
                r#"node_infiniband_state_id{device="mlx4_0",port="1"} 4"#,
            ]
        );
    }
}
