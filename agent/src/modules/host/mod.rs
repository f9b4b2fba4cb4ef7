//! The host, as node_exporter tells it: one file per source, and this table of them.

mod address_info;
mod arp;
mod attributes;
mod bcache;
mod bcachefs;
mod bonding;
mod btrfs;
mod conntrack;
mod cpu;
mod dbus;
mod disk_info;
mod diskstats;
mod dmi;
mod dmmultipath;
mod drbd;
mod ethtool;
mod fibrechannel;
mod filesystem;
mod hwmon;
mod infiniband;
mod interrupts;
mod ipvs;
mod kernel_tables;
mod limits;
mod loadavg;
mod logind;
mod mdadm;
mod meminfo;
mod mountstats;
mod net_tables;
mod netclass;
mod netdev;
mod netlink;
mod netstat;
mod network_route;
mod nfs;
mod numa;
mod nvme;
mod os;
#[cfg(test)]
mod parity;
mod powersupply;
mod pressure;
mod processes;
mod qdisc;
mod rapl;
mod reader;
mod schedstat;
mod selinux;
mod settings;
mod slabinfo;
mod sockstat;
mod softnet;
mod source;
mod stat;
mod statfs;
mod swap;
mod sysctl;
mod systemd;
mod tape;
mod tcpstat;
#[cfg(test)]
mod testing;
mod textfile;
mod time;
mod timex;
mod udp_queues;
mod vmstat;
mod vulnerabilities;
mod xfs;
mod zfs;
mod zoneinfo;

use std::path::Path;

use reader::{Aside, Quick, Reader};
pub use settings::{DeviceFilter, FilesystemSettings, HostSettings, Pattern};

use crate::module::Tier::{self, Heavy, Rare, Standard, Vital};
use crate::module::{Entry, Module, Spec};

/// A module of the table: its name, node_exporter's collector, how often, whether it runs unless configured, how it is made.
struct Row {
    name: &'static str,
    collector: &'static str,
    tier: Tier,
    by_default: bool,
    make: fn(&HostSettings) -> Box<dyn Module>,
}

const fn on(
    name: &'static str,
    collector: &'static str,
    tier: Tier,
    make: fn(&HostSettings) -> Box<dyn Module>,
) -> Row {
    Row { name, collector, tier, by_default: true, make }
}

const fn off(
    name: &'static str,
    collector: &'static str,
    tier: Tier,
    make: fn(&HostSettings) -> Box<dyn Module>,
) -> Row {
    Row { name, collector, tier, by_default: false, make }
}

fn quick<R: Reader + 'static>(settings: &HostSettings, reader: R) -> Box<dyn Module> {
    match settings.files_may_hang {
        true => slow(reader),
        false => Box::new(Quick(reader)),
    }
}

fn slow<R: Reader + 'static>(reader: R) -> Box<dyn Module> {
    Box::new(Aside::new(Box::new(Quick(reader))))
}

const TABLE: &[Row] = &[
    // What changes first when something goes wrong.
    on("host.stat", "stat", Vital, |s| quick(s, stat::Stat::new(&s.path_procfs, s.stat_softirq))),
    on("host.loadavg", "loadavg", Vital, |s| quick(s, loadavg::LoadAvg::new(&s.path_procfs))),
    on("host.pressure", "pressure", Vital, |s| quick(s, pressure::Pressure::new(&s.path_procfs))),
    on("host.diskstats", "diskstats", Vital, |s| {
        quick(s, diskstats::DiskStats::new(&s.path_procfs, s.diskstats.clone()))
    }),
    // CPU and memory.
    on("host.cpu", "cpu", Heavy, |s| slow(cpu::Cpu::new(s))),
    on("host.schedstat", "schedstat", Standard, |s| quick(s, schedstat::SchedStat::new(&s.path_procfs))),
    on("host.meminfo", "meminfo", Standard, |s| quick(s, meminfo::Meminfo::new(&s.path_procfs))),
    on("host.vmstat", "vmstat", Standard, |s| quick(s, vmstat::VmStat::new(&s.path_procfs))),
    on("host.filefd", "filefd", Standard, |s| quick(s, limits::Limits::filefd(&s.path_procfs))),
    on("host.entropy", "entropy", Standard, |s| quick(s, limits::Limits::entropy(&s.path_procfs))),
    on("host.kernel_hung", "kernel_hung", Standard, |s| quick(s, limits::Limits::kernel_hung(&s.path_procfs))),
    // Disks and file systems.
    on("host.filesystem", "filesystem", Heavy, |s| {
        Box::new(filesystem::Filesystem::new(&s.path_procfs, &s.path_rootfs, s.filesystem.clone()))
    }),
    on("host.disk_info", "", Rare, |s| {
        slow(disk_info::DiskInfo::new(&s.path_procfs, &s.path_sysfs, &s.path_udev_data, s.diskstats.clone()))
    }),
    on("host.mdadm", "mdadm", Standard, |s| quick(s, mdadm::MdAdm::new(&s.path_procfs, &s.path_sysfs))),
    on("host.nvme", "nvme", Rare, |s| slow(nvme::Nvme::new(&s.path_sysfs))),
    on("host.dmmultipath", "dmmultipath", Heavy, |s| slow(dmmultipath::DmMultipath::new(&s.path_sysfs))),
    on("host.xfs", "xfs", Standard, |s| quick(s, xfs::Xfs::new(&s.path_sysfs))),
    on("host.zfs", "zfs", Standard, |s| slow(zfs::Zfs::new(&s.path_procfs))),
    on("host.btrfs", "btrfs", Heavy, |s| slow(btrfs::Btrfs::new(&s.path_sysfs))),
    on("host.bcache", "bcache", Standard, |s| slow(bcache::Bcache::new(&s.path_sysfs, s.bcache_priority_stats))),
    on("host.bcachefs", "bcachefs", Heavy, |s| slow(bcachefs::Bcachefs::new(&s.path_sysfs))),
    on("host.fibrechannel", "fibrechannel", Standard, |s| slow(fibrechannel::FibreChannel::new(&s.path_sysfs))),
    on("host.tapestats", "tapestats", Standard, |s| slow(tape::Tape::new(&s.path_sysfs))),
    // Network.
    on("host.netdev", "netdev", Standard, |s| {
        quick(s, netdev::NetDev::new(&s.path_procfs, &s.path_sysfs, s.netdev.clone()))
    }),
    on("host.netclass", "netclass", Standard, |s| {
        slow(netclass::NetClass::new(&s.path_sysfs, s.netclass.clone(), s.netclass_ignore_invalid_speed))
    }),
    on("host.netstat", "netstat", Standard, |s| quick(s, netstat::NetStat::new(&s.path_procfs))),
    on("host.sockstat", "sockstat", Standard, |s| quick(s, sockstat::SockStat::new(&s.path_procfs))),
    on("host.softnet", "softnet", Standard, |s| quick(s, softnet::Softnet::new(&s.path_procfs))),
    on("host.arp", "arp", Standard, |s| quick(s, arp::Arp::new(&s.path_procfs, s.arp.clone()))),
    on("host.conntrack", "conntrack", Standard, |s| quick(s, conntrack::Conntrack::new(&s.path_procfs))),
    on("host.udp_queues", "udp_queues", Standard, |s| quick(s, udp_queues::UdpQueues::new(&s.path_procfs))),
    on("host.bonding", "bonding", Standard, |s| quick(s, bonding::Bonding::new(&s.path_sysfs))),
    on("host.infiniband", "infiniband", Standard, |s| slow(infiniband::InfiniBand::new(&s.path_sysfs))),
    on("host.ipvs", "ipvs", Standard, |s| quick(s, ipvs::Ipvs::new(&s.path_procfs))),
    on("host.nfs", "nfs", Standard, |s| quick(s, nfs::Nfs::client(&s.path_procfs))),
    on("host.nfsd", "nfsd", Standard, |s| quick(s, nfs::Nfs::server(&s.path_procfs))),
    // Hardware.
    on("host.hwmon", "hwmon", Heavy, |s| slow(hwmon::HwMon::new(&s.path_sysfs, s.hwmon.clone()))),
    on("host.thermal_zone", "thermal_zone", Heavy, |s| slow(attributes::Thermal::new(&s.path_sysfs))),
    on("host.cpufreq", "cpufreq", Standard, |s| slow(attributes::cpufreq(&s.path_sysfs))),
    on("host.rapl", "rapl", Standard, |s| slow(rapl::Rapl::new(&s.path_sysfs))),
    on("host.edac", "edac", Heavy, |s| slow(attributes::edac(&s.path_sysfs))),
    on("host.powersupplyclass", "powersupplyclass", Heavy, |s| slow(powersupply::PowerSupply::new(&s.path_sysfs))),
    on("host.watchdog", "watchdog", Heavy, |s| slow(attributes::watchdog(&s.path_sysfs))),
    on("host.dmi", "dmi", Rare, |s| slow(dmi::Dmi::new(&s.path_sysfs))),
    // What the host is.
    on("host.time", "time", Standard, |s| quick(s, time::Time::new(&s.path_sysfs))),
    on("host.timex", "timex", Standard, |s| quick(s, timex::Timex)),
    on("host.uname", "uname", Rare, |s| quick(s, os::Uname)),
    on("host.os", "os", Rare, |s| quick(s, os::Os::new(&s.path_rootfs))),
    on("host.info", "", Rare, |_| slow(os::Host)),
    on("host.selinux", "selinux", Rare, |s| quick(s, selinux::Selinux::new(&s.path_sysfs, &s.path_rootfs))),
    on("host.textfile", "textfile", Heavy, |s| slow(textfile::TextFile::new(s.textfile_directory.clone()))),
    // Off by default, as with node_exporter: many series, or many files read.
    off("host.processes", "processes", Heavy, |s| slow(processes::Processes::new(&s.path_procfs))),
    off("host.interrupts", "interrupts", Heavy, |s| quick(s, interrupts::Interrupts::hard(&s.path_procfs))),
    off("host.softirqs", "softirqs", Heavy, |s| quick(s, interrupts::Interrupts::soft(&s.path_procfs))),
    off("host.tcpstat", "tcpstat", Heavy, |s| slow(tcpstat::TcpStat::new(&s.path_procfs))),
    off("host.meminfo_numa", "meminfo_numa", Heavy, |s| slow(numa::Numa::new(&s.path_sysfs))),
    off("host.buddyinfo", "buddyinfo", Heavy, |s| quick(s, kernel_tables::BuddyInfo::new(&s.path_procfs))),
    off("host.cgroups", "cgroups", Heavy, |s| quick(s, kernel_tables::Cgroups::new(&s.path_procfs))),
    off("host.ksmd", "ksmd", Heavy, |s| quick(s, kernel_tables::Ksmd::new(&s.path_sysfs))),
    off("host.slabinfo", "slabinfo", Heavy, |s| quick(s, slabinfo::SlabInfo::new(&s.path_procfs, s.slabinfo.clone()))),
    off("host.zoneinfo", "zoneinfo", Heavy, |s| quick(s, zoneinfo::ZoneInfo::new(&s.path_procfs))),
    off("host.swap", "swap", Heavy, |s| quick(s, swap::Swap::new(&s.path_procfs))),
    off("host.sysctl", "sysctl", Heavy, |s| quick(s, sysctl::Sysctl::new(&s.path_procfs, s.sysctl.clone()))),
    off("host.drbd", "drbd", Heavy, |s| quick(s, drbd::Drbd::new(&s.path_procfs))),
    off("host.lnstat", "lnstat", Heavy, |s| quick(s, net_tables::LnStat::new(&s.path_procfs))),
    off("host.xfrm", "xfrm", Heavy, |s| quick(s, net_tables::Xfrm::new(&s.path_procfs))),
    off("host.ethtool", "ethtool", Heavy, |s| {
        slow(ethtool::Ethtool::new(&s.path_sysfs, s.ethtool.clone(), s.ethtool_metrics_include.clone()))
    }),
    off("host.qdisc", "qdisc", Heavy, |s| quick(s, qdisc::Qdisc::new(&s.path_sysfs, s.qdisc.clone()))),
    off("host.address_info", "", Heavy, |s| quick(s, address_info::AddressInfo::new(&s.path_sysfs, s.netdev.clone()))),
    off("host.network_route", "network_route", Heavy, |s| quick(s, network_route::NetworkRoute::new(&s.path_sysfs))),
    off("host.mountstats", "mountstats", Heavy, |s| quick(s, mountstats::MountStats::new(&s.path_procfs))),
    off("host.systemd", "systemd", Heavy, |s| slow(systemd::Systemd::new(&s.path_rootfs, s.systemd.clone()))),
    off("host.logind", "logind", Heavy, |s| slow(logind::Logind::new(&s.path_rootfs))),
    off("host.cpu_vulnerabilities", "cpu_vulnerabilities", Rare, |s| {
        quick(s, vulnerabilities::Vulnerabilities::new(&s.path_sysfs))
    }),
];

/// The modules that run with these settings.
pub fn modules(settings: &HostSettings) -> Vec<Entry> {
    let mut settings = settings.clone();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    settings.files_may_hang =
        [&settings.path_procfs, &settings.path_sysfs].iter().any(|root| served_by_a_process(root, &mounts));
    let settings = &settings;
    let wanted = TABLE.iter().filter(|row| settings.wants(row.name, row.by_default));
    wanted.map(|row| Entry { spec: row.spec(), module: (row.make)(settings) }).collect()
}

/// Whether files below `root`, or the tree itself, are those of a FUSE file system, as lxcfs puts them over `/proc` of a
/// container: the process behind it may never answer.
fn served_by_a_process(root: &Path, mounts: &str) -> bool {
    mounts.lines().any(|line| {
        // Number, parent, device, root, mount point, options, optional fields, a dash, type, source, options.
        let Some((mount, kind)) = line.split_once(" - ") else { return false };
        let point = mount.split(' ').nth(4).map_or(Path::new(""), Path::new);
        let nearest = point.starts_with(root) || (root.starts_with(point) && point != Path::new("/"));
        nearest && kind.starts_with("fuse") && !kind.starts_with("fusectl")
    })
}

/// Names of all modules, also of those that are off.
fn all_names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|row| row.name)
}

impl Row {
    fn spec(&self) -> Spec {
        Spec::new(self.name, self.collector, "node", self.tier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_a_process_serves_are_known_by_their_mounts() {
        let plain = "22 1 0:21 / /proc rw - proc proc rw\n23 22 0:33 / /sys/fs/fuse/connections rw - fusectl x rw\n";
        assert!(!served_by_a_process(Path::new("/proc"), plain));
        assert!(!served_by_a_process(Path::new("/sys"), plain));
        let lxcfs = format!("{plain}90 22 0:50 /proc/meminfo /proc/meminfo rw shared:1 - fuse.lxcfs lxcfs rw\n");
        assert!(served_by_a_process(Path::new("/proc"), &lxcfs));
        assert!(!served_by_a_process(Path::new("/sys"), &lxcfs));
        let mounted = format!("{plain}91 1 0:51 / /host rw - fuse.sshfs far rw\n");
        assert!(served_by_a_process(Path::new("/host/proc"), &mounted));
        assert!(!served_by_a_process(Path::new("/hosts/proc"), &mounted));
    }
}
