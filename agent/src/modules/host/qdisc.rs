//! Queues that packets wait in before a network device. Off by default.
//!
//! Source: rtnetlink, RTM_GETQDISC; the queue at the root of each device alone.
//! Shape:  `node_qdisc_*{device,kind}`.
//! Units:  bytes, packets.
//! Errors: `Read` where the kernel does not answer.

use std::path::{Path, PathBuf};

use super::netlink::{self, attribute, u32_at, u64_at};
use super::reader::Reader;
use super::settings::DeviceFilter;
use super::source::ModuleResult;
use crate::module::Desc;
use crate::tick::Tick;

const LABELS: &[&str] = &["device", "kind"];

const fn counter(name: &'static str, help: &'static str) -> Desc {
    Desc::counter(name, help).labels(LABELS)
}

const BYTES: Desc = counter("node_qdisc_bytes_total", "Bytes sent.");
const PACKETS: Desc = counter("node_qdisc_packets_total", "Packets sent.");
/// In the order of the kernel's struct gnet_stats_queue.
const QUEUE: &[Desc] = &[
    Desc::gauge("node_qdisc_current_queue_length", "Packets that wait.").labels(LABELS),
    Desc::gauge("node_qdisc_backlog", "Bytes that wait.").labels(LABELS),
    counter("node_qdisc_drops_total", "Packets dropped."),
    counter("node_qdisc_requeues_total", "Packets put back."),
    counter("node_qdisc_overlimits_total", "Times the limit was passed."),
];

const RTM_GETQDISC: u16 = 38;
/// struct tcmsg: family, number of the device, handle, parent, reference count.
const MESSAGE_BYTES: usize = 20;
const PARENT: usize = 12;
const ROOT: u32 = u32::MAX;
const TCA_KIND: u16 = 1;
const TCA_STATS2: u16 = 7;
const TCA_STATS_BASIC: u16 = 1;
const TCA_STATS_QUEUE: u16 = 3;

pub struct Qdisc {
    sysfs: PathBuf,
    filter: DeviceFilter,
}

impl Qdisc {
    pub fn new(sysfs: &Path, filter: DeviceFilter) -> Self {
        Self { sysfs: sysfs.to_owned(), filter }
    }
}

impl Reader for Qdisc {
    fn descs(&self) -> Vec<Desc> {
        [BYTES, PACKETS].into_iter().chain(QUEUE.iter().cloned()).collect()
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let names = netlink::device_names(&self.sysfs);
        for message in netlink::dump(RTM_GETQDISC, MESSAGE_BYTES)? {
            push(&message, &names, &self.filter, out);
        }
        Ok(())
    }
}

/// A message that is shorter than it should be is left out.
fn push(message: &[u8], names: &[(u32, String)], filter: &DeviceFilter, out: &mut Tick) -> Option<()> {
    let device = netlink::name_of(names, u32_at(message, 4)?);
    if u32_at(message, PARENT)? != ROOT || !filter.takes(device) {
        return None;
    }
    let attributes = message.get(MESSAGE_BYTES..)?;
    let kind = attribute(attributes, TCA_KIND)?;
    let labels = [device, std::str::from_utf8(kind).ok()?.trim_end_matches('\0')];
    let stats = attribute(attributes, TCA_STATS2)?;
    let basic = attribute(stats, TCA_STATS_BASIC)?;
    out.push(&BYTES, &labels, u64_at(basic, 0)? as f64);
    out.push(&PACKETS, &labels, f64::from(u32_at(basic, 8)?));
    let queue = attribute(stats, TCA_STATS_QUEUE)?;
    for (place, desc) in QUEUE.iter().enumerate() {
        out.push(desc, &labels, f64::from(u32_at(queue, 4 * place)?));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::netlink::tests::attribute_bytes;
    use super::super::testing::lines;
    use super::*;

    #[test]
    fn queues_at_the_root_are_told() {
        let message = |parent: u32| {
            let head: Vec<u8> = [0u32, 2, 0, parent, 1].into_iter().flat_map(u32::to_ne_bytes).collect();
            let basic: Vec<u8> = [7u64.to_ne_bytes(), 3u64.to_ne_bytes()].concat();
            let queue: Vec<u8> = (1u32..=5).flat_map(u32::to_ne_bytes).collect();
            let stats = [attribute_bytes(TCA_STATS_BASIC, &basic), attribute_bytes(TCA_STATS_QUEUE, &queue)].concat();
            [head, attribute_bytes(TCA_KIND, b"fq\0"), attribute_bytes(TCA_STATS2, &stats)].concat()
        };
        let names = [(2, "eth0".to_owned())];
        let mut tick = Tick::new();
        assert_eq!(push(&message(5), &names, &DeviceFilter::default(), &mut tick), None);
        assert_eq!(push(&message(ROOT), &names, &DeviceFilter::default(), &mut tick), Some(()));
        assert_eq!(push(&message(ROOT)[..30], &names, &DeviceFilter::default(), &mut tick), None);
        assert_eq!(
            lines(&tick),
            [
                r#"node_qdisc_backlog{device="eth0",kind="fq"} 2"#,
                r#"node_qdisc_bytes_total{device="eth0",kind="fq"} 7"#,
                r#"node_qdisc_current_queue_length{device="eth0",kind="fq"} 1"#,
                r#"node_qdisc_drops_total{device="eth0",kind="fq"} 3"#,
                r#"node_qdisc_overlimits_total{device="eth0",kind="fq"} 5"#,
                r#"node_qdisc_packets_total{device="eth0",kind="fq"} 3"#,
                r#"node_qdisc_requeues_total{device="eth0",kind="fq"} 4"#,
            ]
        );
    }

    #[test]
    fn the_kernel_answers() {
        // A container may have no queue at all; the question must be understood.
        Qdisc::new(Path::new("/sys"), DeviceFilter::default()).read(&mut Tick::new()).unwrap();
    }
}
