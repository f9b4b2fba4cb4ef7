//! What each NFS mount does: events, bytes, operations and their times. Off by default: a series per operation and mount.
//!
//! Source: `/proc/self/mountstats`, see nfsstat(8) and the kernel's fs/nfs/iostat.h; addresses from `/proc/self/mountinfo`.
//! Shape:  `node_mountstats_nfs_*{export,protocol,mountaddr}`, with `operation` or `transport`. Mounts that share all three
//!         labels share their counters; the first is told, the others with `mountpoint_info` alone.
//! Units:  seconds (the kernel counts milliseconds), bytes, pages.
//! Errors: `Absent` without an NFS mount; a line that is odd is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::reader::Reader;
use super::source::{ModuleResult, ProcFile, absent};
use crate::module::Desc;
use crate::tick::Tick;

const MOUNT: &[&str] = &["export", "protocol", "mountaddr"];
const OPERATION: &[&str] = &["export", "protocol", "mountaddr", "operation"];
const TRANSPORT: &[&str] = &["export", "protocol", "mountaddr", "transport"];

const INFO: Desc = Desc::gauge("node_mountstats_nfs_mountpoint_info", "Where the export is mounted.").labels(&[
    "export",
    "protocol",
    "mountaddr",
    "mountpoint",
]);
const AGE: Desc = Desc::counter("node_mountstats_nfs_age_seconds_total", "Time since the mount.").labels(MOUNT);

macro_rules! counters {
    ($labels:expr, $prefix:literal, $suffix:literal, $help:literal: $($name:literal)*) => {
        &[$(Desc::counter(concat!("node_mountstats_nfs_", $prefix, $name, $suffix), concat!($help, $name, ".")).labels($labels)),*]
    };
}

/// In the order of the numbers of `bytes:`.
const BYTES: &[Desc] = counters!(MOUNT, "", "_total", "NFS traffic, ":
    "read_bytes" "write_bytes" "direct_read_bytes" "direct_write_bytes" "total_read_bytes" "total_write_bytes" "read_pages"
    "write_pages");
/// In the order of the numbers of `events:`; `CONGESTION` is not counted any more and not told.
const EVENTS: &[Desc] = counters!(MOUNT, "event_", "_total", "NFS events, ":
    "inode_revalidate" "dnode_revalidate" "data_invalidate" "attribute_invalidate" "vfs_open" "vfs_lookup" "vfs_access"
    "vfs_update_page" "vfs_read_page" "vfs_read_pages" "vfs_write_page" "vfs_write_pages" "vfs_getdents" "vfs_setattr"
    "vfs_flush" "vfs_fsync" "vfs_lock" "vfs_file_release" "congestion_wait" "truncation" "write_extension" "silly_rename"
    "short_read" "short_write" "jukebox_delay" "pnfs_read" "pnfs_write");
const CONGESTION: usize = 18;
/// In the order of the numbers of an operation; the last three count milliseconds.
const OPERATIONS: &[Desc] = counters!(OPERATION, "operations_", "_total", "NFS operations, ":
    "requests" "transmissions" "major_timeouts" "sent_bytes" "received_bytes" "queue_time_seconds" "response_time_seconds"
    "request_time_seconds");
const FIRST_TIME: usize = 5;
/// In the order of the numbers of `xprt:`, less those that are not told and those that UDP lacks.
const TRANSPORTS: &[Desc] = counters!(TRANSPORT, "transport_", "_total", "NFS transports, ":
    "bind" "connect" "sends" "receives" "bad_transaction_ids" "backlog_queue" "sending_queue" "pending_queue");
const IDLE: Desc =
    Desc::gauge("node_mountstats_nfs_transport_idle_time_seconds", "Time since the last use.").labels(TRANSPORT);
const SLOTS: Desc =
    Desc::gauge("node_mountstats_nfs_transport_maximum_rpc_slots", "Most requests at once so far.").labels(TRANSPORT);

/// node_exporter takes times modulo this, 2^53: kernels were seen to count below zero.
const TIME_MODULUS: u64 = 1 << 53;

pub struct MountStats {
    stats: ProcFile,
    mounts: ProcFile,
}

impl MountStats {
    pub fn new(procfs: &Path) -> Self {
        let file = |name: &str| ProcFile::new(procfs.join("self").join(name));
        Self { stats: file("mountstats"), mounts: file("mountinfo") }
    }
}

/// A mount and its lines.
struct Mount<'a> {
    labels: [&'a str; 3],
    mountpoint: &'a str,
    lines: Vec<&'a str>,
}

impl Reader for MountStats {
    fn descs(&self) -> Vec<Desc> {
        let lists = [BYTES, EVENTS, OPERATIONS, TRANSPORTS].concat();
        let told = lists.into_iter().filter(|desc| !desc.name.contains("congestion"));
        told.chain([INFO, AGE, IDLE, SLOTS]).collect()
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let path = self.stats.path().to_owned();
        let addresses = addresses(self.mounts.text().unwrap_or_default());
        let mounts = mounts(self.stats.text()?, &addresses);
        if mounts.is_empty() {
            return Err(absent(&path.join("NFS")));
        }
        let mut told = BTreeSet::new();
        for mount in &mounts {
            let [export, protocol, address] = mount.labels;
            out.push(&INFO, &[export, protocol, address, mount.mountpoint], 1.0);
            if told.insert(mount.labels) {
                push_mount(mount, out);
            }
        }
        Ok(())
    }
}

/// `194 21 0:42 / /mnt/nfs rw shared:144 - nfs4 server:/export rw,...,addr=192.168.1.1`: address by mount point and protocol.
fn addresses(text: &str) -> BTreeMap<(&str, &str), &str> {
    let lines = text.lines().filter_map(|line| {
        let options = line.rsplit_once(' ')?.1;
        let option = |name: &str| options.split(',').find_map(|option| option.strip_prefix(name)?.strip_prefix('='));
        Some(((line.split(' ').nth(4)?, option("proto").unwrap_or_default()), option("addr")?))
    });
    lines.collect()
}

fn mounts<'a>(text: &'a str, addresses: &BTreeMap<(&'a str, &'a str), &'a str>) -> Vec<Mount<'a>> {
    let mut mounts: Vec<Mount> = Vec::new();
    for line in text.lines() {
        // `device server:/export mounted on /mnt/nfs with fstype nfs4 statvers=1.1`
        if let ["device", export, "mounted", "on", mountpoint, "with", "fstype", kind, ..] = *words(line) {
            // Lines of other file systems belong to a mount that is taken out again.
            let export = if matches!(kind, "nfs" | "nfs4") { export } else { "" };
            mounts.push(Mount { labels: [export, "", ""], mountpoint, lines: Vec::new() });
        } else if let Some(mount) = mounts.last_mut() {
            if let Some(transport) = line.trim_start().strip_prefix("xprt:") {
                mount.labels[1] = transport.split_ascii_whitespace().next().unwrap_or_default();
                mount.labels[2] = addresses.get(&(mount.mountpoint, mount.labels[1])).copied().unwrap_or_default();
            }
            mount.lines.push(line.trim_start());
        }
    }
    mounts.retain(|mount| !mount.labels[0].is_empty());
    mounts
}

fn push_mount(mount: &Mount, out: &mut Tick) {
    let [export, protocol, address] = mount.labels;
    let mut transports = 0;
    let mut operations = false;
    for line in &mount.lines {
        if line.starts_with("per-op statistics") {
            operations = true;
            continue;
        }
        let Some((key, rest)) = line.split_once(':') else { continue };
        let numbers: Vec<u64> = rest.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
        match key {
            _ if operations => push_operation(&[export, protocol, address, key], &numbers, out),
            "age" => push_all(&[AGE], &mount.labels, &numbers, out),
            "bytes" => push_all(BYTES, &mount.labels, &numbers, out),
            "events" => {
                let (before, after) = EVENTS.split_at(CONGESTION);
                push_all(before, &mount.labels, &numbers, out);
                push_all(&after[1..], &mount.labels, numbers.get(CONGESTION + 1..).unwrap_or_default(), out);
            }
            "xprt" => {
                let kind = rest.split_ascii_whitespace().next().unwrap_or_default();
                push_transport(kind, &[export, protocol, address, &transports.to_string()], &numbers, out);
                transports += 1;
            }
            _ => {}
        }
    }
}

fn push_all(descs: &[Desc], labels: &[&str], numbers: &[u64], out: &mut Tick) {
    for (desc, number) in descs.iter().zip(numbers) {
        out.push(desc, labels, *number as f64);
    }
}

fn push_operation(labels: &[&str], numbers: &[u64], out: &mut Tick) {
    let (counts, times) = OPERATIONS.split_at(FIRST_TIME);
    push_all(counts, labels, numbers, out);
    for (desc, milliseconds) in times.iter().zip(numbers.get(FIRST_TIME..).unwrap_or_default()) {
        out.push(desc, labels, (milliseconds % TIME_MODULUS) as f64 / 1e3);
    }
}

/// Without TCP's own numbers UDP has none for connections and idle time.
fn push_transport(kind: &str, labels: &[&str], numbers: &[u64], out: &mut Tick) {
    let (bind, connect, idle, rest) = match (kind, numbers) {
        ("tcp" | "rdma", [_, bind, connect, _, idle, rest @ ..]) => (*bind, *connect, *idle, rest),
        ("udp", [_, bind, rest @ ..]) => (*bind, 0, 0, rest),
        _ => return,
    };
    let [sends, receives, bad, _requests, backlog, rest @ ..] = rest else { return };
    push_all(&TRANSPORTS[..6], labels, &[bind, connect, *sends, *receives, *bad, *backlog], out);
    out.push(&IDLE, labels, idle as f64);
    // From statvers=1.1 on.
    if let [slots, sending, pending, ..] = rest {
        out.push(&SLOTS, labels, *slots as f64);
        push_all(&TRANSPORTS[6..], labels, &[*sending, *pending], out);
    }
}

fn words(line: &str) -> Box<[&str]> {
    line.split_ascii_whitespace().collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn a_mount_and_its_double() {
        let stats = "device proc mounted on /proc with fstype proc\n\
            device s:/e mounted on /a with fstype nfs4 statvers=1.1\n\tage:\t13968\n\tevents:\t52 0\n\tbytes:\t12 13\n\
            \txprt:\ttcp 832 0 1 0 11 6428 6429 0 12154 0 24 26 5726\n\tper-op statistics\n\t   READ: 1298 1299 0 20 12 6 79 80\n\
            device s:/e mounted on /b with fstype nfs4 statvers=1.1\n\tage:\t13968\n\txprt:\ttcp 832 0 1 0 11 1 1 0 1 0\n";
        let info = "1 2 0:4 / /a rw - nfs4 s:/e rw,proto=tcp,addr=10.0.0.1\n2 2 0:4 / /b rw - nfs4 s:/e rw,proto=tcp,addr=10.0.0.1\n";
        let tree = Tree::new(&[("self/mountstats", stats), ("self/mountinfo", info)]);
        let told = dump(&mut MountStats::new(tree.path()));
        let of = r#"export="s:/e",protocol="tcp",mountaddr="10.0.0.1""#;
        for line in [
            format!(r#"node_mountstats_nfs_mountpoint_info{{{of},mountpoint="/b"}} 1"#),
            format!("node_mountstats_nfs_age_seconds_total{{{of}}} 13968"),
            format!("node_mountstats_nfs_event_inode_revalidate_total{{{of}}} 52"),
            format!("node_mountstats_nfs_write_bytes_total{{{of}}} 13"),
            format!(r#"node_mountstats_nfs_transport_receives_total{{{of},transport="0"}} 6429"#),
            format!(r#"node_mountstats_nfs_transport_idle_time_seconds{{{of},transport="0"}} 11"#),
            format!(r#"node_mountstats_nfs_transport_pending_queue_total{{{of},transport="0"}} 5726"#),
            format!(r#"node_mountstats_nfs_operations_queue_time_seconds_total{{{of},operation="READ"}} 0.006"#),
        ] {
            assert!(told.contains(&line), "{line} in {told:#?}");
        }
        tree.write("self/mountstats", "device proc mounted on /proc with fstype proc\n");
        assert!(MountStats::new(tree.path()).read(&mut Tick::new()).unwrap_err().is_absence());
    }
}
