//! TCP connections by state. Off by default: the kernel writes a line per connection.
//!
//! Source: `/proc/net/{tcp,tcp6}`, see proc_pid_net(5). node_exporter asks by netlink; the counts are the same.
//! Shape:  `node_tcp_connection_states{state}`; a state without connections is left out.
//! Units:  connections; for `rx_queued_bytes` and `tx_queued_bytes` bytes.
//! Errors: `Parse` for a line without state and queues; `Absent` without IPv4's file.

use std::path::Path;

use super::reader::Reader;
use super::source::{ModuleResult, ProcFile, parse_error};
use crate::module::{Desc, ModuleError};
use crate::tick::Tick;

const STATES: Desc =
    Desc::gauge("node_tcp_connection_states", "TCP connections in each state, and bytes in their queues.")
        .labels(&["state"]);

/// By the kernel's numbers, from 1 on.
const NAMES: [&str; 12] = [
    "established",
    "syn_sent",
    "syn_recv",
    "fin_wait1",
    "fin_wait2",
    "time_wait",
    "close",
    "close_wait",
    "last_ack",
    "listen",
    "closing",
    "new_syn_recv",
];

pub struct TcpStat([ProcFile; 2]);

impl TcpStat {
    pub fn new(procfs: &Path) -> Self {
        Self(["net/tcp", "net/tcp6"].map(|name| ProcFile::new(procfs.join(name))))
    }
}

impl Reader for TcpStat {
    fn descs(&self) -> Vec<Desc> {
        vec![STATES]
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let mut counts = [0u64; NAMES.len()];
        let (mut sent, mut received) = (0, 0);
        for (number, file) in self.0.iter_mut().enumerate() {
            let path = file.path().to_owned();
            let text = match file.text() {
                Ok(text) => text,
                Err(ModuleError::Absent { .. }) if number > 0 => continue,
                Err(error) => return Err(error),
            };
            for line in text.lines().skip(1) {
                let (state, tx, rx) =
                    columns(line).ok_or_else(|| parse_error(&path, format!("no state in {line:?}")))?;
                if let Some(count) = state.checked_sub(1).and_then(|at| counts.get_mut(at)) {
                    *count += 1;
                }
                sent += tx;
                received += rx;
            }
        }
        for (name, count) in NAMES.iter().zip(counts).filter(|(_, count)| *count > 0) {
            out.push(&STATES, &[name], count as f64);
        }
        out.push(&STATES, &["rx_queued_bytes"], received as f64);
        out.push(&STATES, &["tx_queued_bytes"], sent as f64);
        Ok(())
    }
}

/// State, bytes to send, bytes received.
fn columns(line: &str) -> Option<(usize, u64, u64)> {
    let mut words = line.split_ascii_whitespace().skip(3);
    let state = usize::from_str_radix(words.next()?, 16).ok()?;
    let (tx, rx) = words.next()?.split_once(':')?;
    Some((state, u64::from_str_radix(tx, 16).ok()?, u64::from_str_radix(rx, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn states_and_queues_are_added_up() {
        let line =
            |state: &str, queues: &str| format!("   0: 0100007F:0CEA 00000000:0000 {state} {queues} 00:00000000 0 0\n");
        let v4 = ["heading\n", &line("0A", "00000000:00000000"), &line("01", "00000010:00000001")].concat();
        let v6 = ["heading\n", &line("01", "00000001:00000002")].concat();
        let tree = Tree::new(&[("net/tcp", &v4), ("net/tcp6", &v6)]);
        assert_eq!(
            dump(&mut TcpStat::new(tree.path())),
            [
                r#"node_tcp_connection_states{state="established"} 2"#,
                r#"node_tcp_connection_states{state="listen"} 1"#,
                r#"node_tcp_connection_states{state="rx_queued_bytes"} 3"#,
                r#"node_tcp_connection_states{state="tx_queued_bytes"} 17"#,
            ]
        );
        tree.write("net/tcp", "heading\n 0: odd\n");
        assert!(matches!(TcpStat::new(tree.path()).read(&mut Tick::new()), Err(ModuleError::Parse { .. })));
    }
}
