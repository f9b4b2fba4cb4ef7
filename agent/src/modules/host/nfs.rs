//! NFS, as client and as server: packets, calls and procedures.
//!
//! Source: `/proc/net/rpc/{nfs,nfsd}`: a line of numbers per subject, procedures in the order of the protocol's numbers.
//! Shape:  `node_nfs_*` and `node_nfsd_*`; procedures as `{proto="2|3|4",method}`.
//! Units:  packets, calls, bytes, since the start.
//! Errors: `Absent` without the module of the kernel; a subject that is not there is told as zero, as node_exporter does.

use std::collections::HashMap;
use std::path::Path;

use super::reader::Reader;
use super::source::{ModuleResult, ProcFile, parse_decimal};
use crate::module::Desc;
use crate::tick::Tick;

/// Word that begins the line, column after it, family, and its one label value if it has one.
type Row = (&'static str, usize, Desc, Option<&'static str>);

const CLIENT_PACKETS: Desc =
    Desc::counter("node_nfs_packets_total", "Packets sent and received as client.").labels(&["protocol"]);
const CLIENT: &[Row] = &[
    ("net", 1, CLIENT_PACKETS, Some("udp")),
    ("net", 2, CLIENT_PACKETS, Some("tcp")),
    ("net", 3, Desc::counter("node_nfs_connections_total", "TCP connections made as client."), None),
    ("rpc", 0, Desc::counter("node_nfs_rpcs_total", "Calls made as client."), None),
    ("rpc", 1, Desc::counter("node_nfs_rpc_retransmissions_total", "Calls sent again as client."), None),
    ("rpc", 2, Desc::counter("node_nfs_rpc_authentication_refreshes_total", "Credentials renewed as client."), None),
];
const CLIENT_REQUESTS: Desc =
    Desc::counter("node_nfs_requests_total", "Procedures called as client.").labels(&["proto", "method"]);

const SERVER_PACKETS: Desc = Desc::counter("node_nfsd_packets_total", "Packets received as server.").labels(&["proto"]);
const SERVER_ERRORS: Desc = Desc::counter("node_nfsd_rpc_errors_total", "Calls refused as server.").labels(&["error"]);
const SERVER: &[Row] = &[
    ("rc", 0, Desc::counter("node_nfsd_reply_cache_hits_total", "Replies found in the cache."), None),
    ("rc", 1, Desc::counter("node_nfsd_reply_cache_misses_total", "Replies not found in the cache."), None),
    ("rc", 2, Desc::counter("node_nfsd_reply_cache_nocache_total", "Calls that need no cached reply."), None),
    ("fh", 0, Desc::counter("node_nfsd_file_handles_stale_total", "Calls with a stale file handle."), None),
    ("io", 0, Desc::counter("node_nfsd_disk_bytes_read_total", "Bytes read for clients."), None),
    ("io", 1, Desc::counter("node_nfsd_disk_bytes_written_total", "Bytes written for clients."), None),
    ("th", 0, Desc::gauge("node_nfsd_server_threads", "Threads of the server."), None),
    ("ra", 0, Desc::gauge("node_nfsd_read_ahead_cache_size_blocks", "Blocks that the read-ahead cache holds."), None),
    (
        "ra",
        11,
        Desc::counter("node_nfsd_read_ahead_cache_not_found_total", "Blocks not found in the read-ahead cache."),
        None,
    ),
    ("net", 1, SERVER_PACKETS, Some("udp")),
    ("net", 2, SERVER_PACKETS, Some("tcp")),
    ("net", 3, Desc::counter("node_nfsd_connections_total", "TCP connections accepted as server."), None),
    ("rpc", 0, Desc::counter("node_nfsd_server_rpcs_total", "Calls received as server."), None),
    ("rpc", 2, SERVER_ERRORS, Some("fmt")),
    ("rpc", 3, SERVER_ERRORS, Some("auth")),
    ("rpc", 4, SERVER_ERRORS, Some("cInt")),
];
const SERVER_REQUESTS: Desc =
    Desc::counter("node_nfsd_requests_total", "Procedures called by clients.").labels(&["proto", "method"]);

const V2: &[&str] = &[
    "Null", "GetAttr", "SetAttr", "Root", "Lookup", "ReadLink", "Read", "WrCache", "Write", "Create", "Remove",
    "Rename", "Link", "SymLink", "MkDir", "RmDir", "ReadDir", "FsStat",
];
const V3: &[&str] = &[
    "Null",
    "GetAttr",
    "SetAttr",
    "Lookup",
    "Access",
    "ReadLink",
    "Read",
    "Write",
    "Create",
    "MkDir",
    "SymLink",
    "MkNod",
    "Remove",
    "RmDir",
    "Rename",
    "Link",
    "ReadDir",
    "ReadDirPlus",
    "FsStat",
    "FsInfo",
    "PathConf",
    "Commit",
];
/// node_exporter's order from `GetDeviceInfo` on.
const V4_CLIENT: &[&str] = &[
    "Null",
    "Read",
    "Write",
    "Commit",
    "Open",
    "OpenConfirm",
    "OpenNoattr",
    "OpenDowngrade",
    "Close",
    "Setattr",
    "FsInfo",
    "Renew",
    "SetClientID",
    "SetClientIDConfirm",
    "Lock",
    "Lockt",
    "Locku",
    "Access",
    "Getattr",
    "Lookup",
    "LookupRoot",
    "Remove",
    "Rename",
    "Link",
    "Symlink",
    "Create",
    "Pathconf",
    "StatFs",
    "ReadLink",
    "ReadDir",
    "ServerCaps",
    "DelegReturn",
    "GetACL",
    "SetACL",
    "FsLocations",
    "ReleaseLockowner",
    "Secinfo",
    "FsidPresent",
    "ExchangeID",
    "CreateSession",
    "DestroySession",
    "Sequence",
    "GetLeaseTime",
    "ReclaimComplete",
    "GetDeviceInfo",
    "LayoutGet",
    "LayoutCommit",
    "LayoutReturn",
    "SecinfoNoName",
    "TestStateID",
    "FreeStateID",
    "GetDeviceList",
    "BindConnToSession",
    "DestroyClientID",
    "Seek",
    "Allocate",
    "DeAllocate",
    "LayoutStats",
    "Clone",
];
/// Operations 3 to 39 of RFC 7530; empty for those that node_exporter leaves out.
const V4_SERVER: &[&str] = &[
    "",
    "",
    "",
    "Access",
    "Close",
    "Commit",
    "Create",
    "DelegPurge",
    "DelegReturn",
    "GetAttr",
    "GetFH",
    "Link",
    "Lock",
    "Lockt",
    "Locku",
    "Lookup",
    "LookupRoot",
    "Nverify",
    "Open",
    "OpenAttr",
    "OpenConfirm",
    "OpenDgrd",
    "PutFH",
    "",
    "",
    "Read",
    "ReadDir",
    "ReadLink",
    "Remove",
    "Rename",
    "Renew",
    "RestoreFH",
    "SaveFH",
    "SecInfo",
    "SetAttr",
    "SetClientID",
    "SetClientIDConfirm",
    "Verify",
    "Write",
    "RelLockOwner",
];

/// Word that begins the line, protocol version, methods. The line's first number is how many follow.
type Procedures = (&'static str, &'static str, &'static [&'static str]);

pub struct Nfs {
    file: ProcFile,
    rows: &'static [Row],
    requests: Desc,
    procedures: [Procedures; 3],
    /// The server does not tell procedure 0, which does nothing.
    server: bool,
}

impl Nfs {
    pub fn client(procfs: &Path) -> Self {
        let procedures = [("proc2", "2", V2), ("proc3", "3", V3), ("proc4", "4", V4_CLIENT)];
        let file = ProcFile::new(procfs.join("net/rpc/nfs"));
        Self { file, rows: CLIENT, requests: CLIENT_REQUESTS, procedures, server: false }
    }

    pub fn server(procfs: &Path) -> Self {
        let procedures = [("proc2", "2", V2), ("proc3", "3", V3), ("proc4ops", "4", V4_SERVER)];
        let file = ProcFile::new(procfs.join("net/rpc/nfsd"));
        Self { file, rows: SERVER, requests: SERVER_REQUESTS, procedures, server: true }
    }
}

impl Reader for Nfs {
    fn descs(&self) -> Vec<Desc> {
        let mut descs = vec![self.requests.clone()];
        for (_, _, desc, _) in self.rows {
            if !descs.contains(desc) {
                descs.push(desc.clone());
            }
        }
        descs
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let mut subjects: HashMap<&str, Vec<f64>> = HashMap::new();
        for line in self.file.text()?.lines() {
            let mut words = line.split_ascii_whitespace();
            if let Some(subject) = words.next() {
                subjects.insert(subject, words.map(|word| parse_decimal(word).unwrap_or(0.0)).collect());
            }
        }
        let get = |subject: &str, column: usize| subjects.get(subject).and_then(|row| row.get(column)).copied();
        for (subject, column, desc, label) in self.rows {
            out.push(desc, label.as_slice(), get(subject, *column).unwrap_or(0.0));
        }
        for (subject, version, methods) in self.procedures {
            if !subjects.contains_key(subject) {
                continue;
            }
            for (at, method) in methods.iter().enumerate() {
                if !(method.is_empty() || self.server && *method == "Null") {
                    out.push(&self.requests, &[version, method], get(subject, at + 1).unwrap_or(0.0));
                }
            }
        }
        if self.server {
            out.push(&self.requests, &["4", "WdelegGetattr"], get("wdeleg_getattr", 0).unwrap_or(0.0));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn procedures_have_their_names() {
        let tree = Tree::new(&[
            ("net/rpc/nfs", "net 70 1 69 45\nrpc 9 8 7\nproc3 22 0 11 12\nproc4 4 98 51\n"),
            ("net/rpc/nfsd", "rc 1 2 3\nproc4ops 5 0 0 0 1098 2\nth 8 0\n"),
        ]);
        let client = dump(&mut Nfs::client(tree.path()));
        for line in [
            r#"node_nfs_packets_total{protocol="tcp"} 69"#,
            "node_nfs_rpc_retransmissions_total 8",
            r#"node_nfs_requests_total{proto="3",method="SetAttr"} 12"#,
            r#"node_nfs_requests_total{proto="4",method="Read"} 51"#,
            r#"node_nfs_requests_total{proto="4",method="Clone"} 0"#,
        ] {
            assert!(client.contains(&line.to_owned()), "{line} not in {client:#?}");
        }
        let server = dump(&mut Nfs::server(tree.path()));
        for line in [r#"node_nfsd_requests_total{proto="4",method="Access"} 1098"#, "node_nfsd_server_threads 8"] {
            assert!(server.contains(&line.to_owned()), "{line} not in {server:#?}");
        }
    }
}
