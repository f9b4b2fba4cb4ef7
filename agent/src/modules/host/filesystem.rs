//! Room on each mounted file system.
//!
//! Source: `/proc/1/mountinfo`, else `/proc/self/mountinfo`, see proc_pid_mountinfo(5); `statfs(2)` by [`super::statfs`].
//!         Read by hand: a mount point that is not UTF-8 must not cost all others, and procfs does not undo the escapes.
//! Shape:  `node_filesystem_*{device,mountpoint,fstype,device_error}`; a mount that fails has `node_filesystem_device_error`
//!         1 with the reason in `device_error`, and no sizes.
//! Units:  bytes; files are inodes.
//! Errors: `Read` when there is no list of mounts.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::settings::{FilesystemSettings, passes};
use super::source::ProcFile;
use super::statfs::{Room, Statfs};
use crate::module::{Desc, Module, ModuleError};
use crate::tick::Tick;

const fn gauge(name: &'static str, help: &'static str) -> Desc {
    Desc::gauge(name, help).labels(&["device", "mountpoint", "fstype", "device_error"])
}

const READONLY: Desc = gauge("node_filesystem_readonly", "1 if the file system is mounted read-only.");
const DEVICE_ERROR: Desc =
    gauge("node_filesystem_device_error", "1 if the file system does not tell its room; the label says why.");
const MOUNT_INFO: Desc = Desc::gauge("node_filesystem_mount_info", "Which device is mounted where.").labels(&[
    "device",
    "major",
    "minor",
    "mountpoint",
]);

type Read = fn(&Room) -> f64;
const ROWS: &[(Desc, Read)] = &[
    (gauge("node_filesystem_size_bytes", "Size of the file system."), |room| room.size_bytes),
    (gauge("node_filesystem_free_bytes", "Room that is free, with what is kept for root."), |room| room.free_bytes),
    (gauge("node_filesystem_avail_bytes", "Room that users other than root can fill."), |room| room.avail_bytes),
    (gauge("node_filesystem_files", "Inodes that the file system can have."), |room| room.files),
    (gauge("node_filesystem_files_free", "Inodes that are free."), |room| room.files_free),
];

pub struct Filesystem {
    of_init: ProcFile,
    of_self: ProcFile,
    rootfs: PathBuf,
    settings: FilesystemSettings,
    statfs: Statfs,
}

#[derive(Debug, PartialEq)]
struct Mount {
    device: String,
    mount_point: String,
    kind: String,
    major: String,
    minor: String,
    read_only: bool,
}

impl Filesystem {
    pub fn new(procfs: &Path, rootfs: &Path, settings: FilesystemSettings) -> Self {
        Self {
            of_init: ProcFile::new(procfs.join("1/mountinfo")),
            of_self: ProcFile::new(procfs.join("self/mountinfo")),
            rootfs: rootfs.into(),
            statfs: Statfs::new(settings.mount_timeout),
            settings,
        }
    }

    fn mounts(&mut self) -> Result<Vec<Mount>, ModuleError> {
        // Only root may read what init sees; for others our own view is nearly always the same.
        let bytes = match self.of_init.bytes() {
            Ok(bytes) => bytes,
            Err(_) => self.of_self.bytes()?,
        };
        let text = String::from_utf8_lossy(bytes);
        let rootfs = self.rootfs.to_string_lossy();
        let settings = &self.settings;
        let mut seen = HashSet::new();
        let mounts = text.lines().filter_map(|line| Mount::parse(line, &rootfs)).filter(|mount| {
            passes(settings.mount_points_include.as_ref(), settings.mount_points_exclude.as_ref(), &mount.mount_point)
                && passes(settings.fs_types_include.as_ref(), settings.fs_types_exclude.as_ref(), &mount.kind)
                && seen.insert((mount.device.clone(), mount.mount_point.clone(), mount.kind.clone()))
        });
        Ok(mounts.collect())
    }
}

#[async_trait]
impl Module for Filesystem {
    fn descs(&self) -> Vec<Desc> {
        [READONLY, DEVICE_ERROR, MOUNT_INFO].into_iter().chain(ROWS.iter().map(|(desc, _)| desc.clone())).collect()
    }

    async fn sample(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        for mount in self.mounts()? {
            let path = self.rootfs.join(mount.mount_point.trim_start_matches('/'));
            let room = self.statfs.room(&path).await;
            let error = room.as_ref().err().map(String::as_str).unwrap_or_default();
            let labels = [&mount.device, &mount.mount_point, &mount.kind, error];
            out.push(&DEVICE_ERROR, &labels, if room.is_err() { 1.0 } else { 0.0 });
            out.push(&READONLY, &labels, if mount.read_only { 1.0 } else { 0.0 });
            if let Ok(room) = &room {
                for (desc, read) in ROWS {
                    out.push(desc, &labels, read(room));
                }
            }
            out.push(&MOUNT_INFO, &[&mount.device, &mount.major, &mount.minor, &mount.mount_point], 1.0);
        }
        Ok(())
    }
}

impl Mount {
    /// `36 35 98:0 /root /mount/point ro,noatime opt:1 - ext3 /dev/root rw,errors=continue`
    fn parse(line: &str, rootfs: &str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let &[_, _, device_number, _, mount_point, options, ..] = left.as_slice() else { return None };
        let (major, minor) = device_number.split_once(':')?;
        let mut right = right.split(' ');
        let (kind, device, super_options) = (right.next()?, right.next()?, right.next().unwrap_or_default());
        let mount_point = unescape(mount_point);
        let seen = mount_point.strip_prefix(rootfs.trim_end_matches('/')).unwrap_or(&mount_point);
        Some(Self {
            device: unescape(device),
            mount_point: if seen.is_empty() { "/".into() } else { seen.into() },
            kind: kind.into(),
            major: major.into(),
            minor: minor.into(),
            read_only: [options, super_options].iter().any(|options| options.split(',').any(|option| option == "ro")),
        })
    }
}

/// The kernel writes blank, tab, newline, backslash and `#` as three octal digits.
fn unescape(text: &str) -> String {
    let mut plain = text.to_owned();
    for (escape, character) in [(r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\043", "#"), (r"\134", "\\")] {
        if plain.contains(escape) {
            plain = plain.replace(escape, character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, lines};
    use super::*;

    #[test]
    fn lines_of_mountinfo() {
        let mount =
            Mount::parse(r"36 35 98:1 / /mnt/a\040b rw,noatime shared:1 - ext4 /dev/root ro,errors=continue", "/");
        let mount = mount.unwrap();
        assert_eq!((&*mount.device, &*mount.mount_point, &*mount.kind), ("/dev/root", "/mnt/a b", "ext4"));
        assert_eq!((&*mount.major, &*mount.minor, mount.read_only), ("98", "1", true));
        let root = Mount::parse("1 0 8:1 / /host rw - xfs /dev/sda1 rw", "/host").unwrap();
        assert_eq!((&*root.mount_point, root.read_only), ("/", false));
        let below =
            Mount::parse("1 0 8:1 / /host/srv rw master:1 propagate_from:2 - xfs /dev/sda1 rw", "/host/").unwrap();
        assert_eq!(below.mount_point, "/srv");
        for odd in ["", "1 2 3", "1 0 8:1 / /x rw - xfs", "1 0 81 / /x rw - xfs a rw"] {
            assert_eq!(Mount::parse(odd, "/"), None, "{odd:?}");
        }
    }

    #[tokio::test]
    async fn mounts_are_asked_filtered_and_told_once() {
        let tree = Tree::new(&[(
            "proc/self/mountinfo",
            "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:1 / / rw - ext4 /dev/sda1 rw\n3 1 0:4 / /proc rw - proc proc rw\n\
             4 1 8:2 / /gone ro - xfs /dev/sdb rw\n",
        )]);
        let procfs = tree.path().join("proc");
        let mut module = Filesystem::new(&procfs, tree.path(), FilesystemSettings::default());
        let mut tick = Tick::new();
        module.sample(&mut tick).await.unwrap();
        let got = lines(&tick);
        let error = r#"device="/dev/sdb",mountpoint="/gone",fstype="xfs",device_error="no such file or directory""#;
        assert!(got.contains(&format!("node_filesystem_device_error{{{error}}} 1")), "{got:#?}");
        assert!(got.contains(&format!("node_filesystem_readonly{{{error}}} 1")));
        let root = r#"device="/dev/sda1",mountpoint="/",fstype="ext4",device_error="""#;
        assert!(got.contains(&format!("node_filesystem_device_error{{{root}}} 0")));
        assert!(got.iter().any(|line| line.starts_with(&format!("node_filesystem_size_bytes{{{root}}}"))));
        assert!(got.contains(
            &r#"node_filesystem_mount_info{device="/dev/sda1",major="8",minor="1",mountpoint="/"} 1"#.to_owned()
        ));
        assert_eq!(got.len(), (2 + 1 + 5) + (2 + 1));
        assert_eq!(tick.repeated(), 0);
    }
}
