//! Bytes that wait in the queues of UDP sockets.
//!
//! Source: `/proc/net/{udp,udp6}`, see proc_pid_net(5). Read by hand: of a line only one column counts.
//! Shape:  `node_udp_queues{queue="tx|rx",ip="v4|v6"}`.
//! Units:  bytes.
//! Errors: `Parse` for a line without that column; `Absent` with neither file.

use std::path::Path;

use super::reader::Reader;
use super::source::{ProcFile, absent, parse_error};
use crate::module::{Desc, ModuleError};
use crate::tick::Tick;

const QUEUES: Desc = Desc::gauge("node_udp_queues", "Bytes in the queues of all UDP sockets.").labels(&["queue", "ip"]);

pub struct UdpQueues([(&'static str, ProcFile); 2]);

impl UdpQueues {
    pub fn new(procfs: &Path) -> Self {
        Self([("v4", ProcFile::new(procfs.join("net/udp"))), ("v6", ProcFile::new(procfs.join("net/udp6")))])
    }
}

impl Reader for UdpQueues {
    fn descs(&self) -> Vec<Desc> {
        vec![QUEUES]
    }

    fn read(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let mut found = false;
        for (ip, file) in &mut self.0 {
            let path = file.path().to_owned();
            let text = match file.text() {
                Ok(text) => text,
                Err(ModuleError::Absent { .. }) => continue,
                Err(error) => return Err(error),
            };
            let (mut tx, mut rx) = (0, 0);
            for line in text.lines().skip(1) {
                let queues = line.split_ascii_whitespace().nth(4).and_then(|word| word.split_once(':'));
                let queues = queues.and_then(|(tx, rx)| Some((hex(tx)?, hex(rx)?)));
                let (more_tx, more_rx) = queues.ok_or_else(|| parse_error(&path, format!("no queues in {line:?}")))?;
                tx += more_tx;
                rx += more_rx;
            }
            out.push(&QUEUES, &["tx", ip], tx as f64);
            out.push(&QUEUES, &["rx", ip], rx as f64);
            found = true;
        }
        if found { Ok(()) } else { Err(absent(self.0[0].1.path())) }
    }
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn queues_are_added_up() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue\n 0: 0:16 0:0 0A 00000015:00000001 0\n 1: 0:17 0:0 0A 00000001:00000000 0\n";
        let tree = Tree::new(&[("net/udp", text)]);
        let got = dump(&mut UdpQueues::new(tree.path()));
        assert_eq!(got, [r#"node_udp_queues{queue="rx",ip="v4"} 1"#, r#"node_udp_queues{queue="tx",ip="v4"} 22"#]);
        tree.write("net/udp6", "heading\n 0: 0:16\n");
        assert!(matches!(UdpQueues::new(tree.path()).read(&mut Tick::new()), Err(ModuleError::Parse { .. })));
    }
}
