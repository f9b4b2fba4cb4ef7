//! The host, as node_exporter tells it: one file per source, and this table of them.

mod arp;
mod attributes;
mod bcache;
mod bcachefs;
mod bonding;
mod btrfs;
mod conntrack;
mod cpu;
mod disk_info;
mod diskstats;
mod dmi;
mod dmmultipath;
mod drbd;
mod fibrechannel;
mod filesystem;
mod hwmon;
mod infiniband;
mod interrupts;
mod ipvs;
mod kernel_tables;
mod limits;
mod loadavg;
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

use reader::{Quick, Reader, Slow};
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

fn quick<R: Reader + 'static>(reader: R) -> Box<dyn Module> {
    Box::new(Quick(reader))
}

fn slow<R: Reader + 'static>(reader: R) -> Box<dyn Module> {
    Box::new(Slow(reader))
}

const TABLE: &[Row] = &[
    // What changes first when something goes wrong.
    on("host.stat", "stat", Vital, |s| quick(stat::Stat::new(&s.path_procfs, s.stat_softirq))),
    on("host.loadavg", "loadavg", Vital, |s| quick(loadavg::LoadAvg::new(&s.path_procfs))),
    on("host.pressure", "pressure", Vital, |s| quick(pressure::Pressure::new(&s.path_procfs))),
    on("host.diskstats", "diskstats", Vital, |s| quick(diskstats::DiskStats::new(&s.path_procfs, s.diskstats.clone()))),
    // CPU and memory.
    on("host.cpu", "cpu", Heavy, |s| slow(cpu::Cpu::new(s))),
    on("host.schedstat", "schedstat", Standard, |s| quick(schedstat::SchedStat::new(&s.path_procfs))),
    on("host.meminfo", "meminfo", Standard, |s| quick(meminfo::Meminfo::new(&s.path_procfs))),
    on("host.vmstat", "vmstat", Standard, |s| quick(vmstat::VmStat::new(&s.path_procfs))),
    on("host.filefd", "filefd", Standard, |s| quick(limits::Limits::filefd(&s.path_procfs))),
    on("host.entropy", "entropy", Standard, |s| quick(limits::Limits::entropy(&s.path_procfs))),
    on("host.kernel_hung", "kernel_hung", Standard, |s| quick(limits::Limits::kernel_hung(&s.path_procfs))),
    // Disks and file systems.
    on("host.filesystem", "filesystem", Heavy, |s| {
        Box::new(filesystem::Filesystem::new(&s.path_procfs, &s.path_rootfs, s.filesystem.clone()))
    }),
    on("host.disk_info", "", Rare, |s| {
        slow(disk_info::DiskInfo::new(&s.path_procfs, &s.path_sysfs, &s.path_udev_data, s.diskstats.clone()))
    }),
    on("host.mdadm", "mdadm", Standard, |s| quick(mdadm::MdAdm::new(&s.path_procfs, &s.path_sysfs))),
    on("host.nvme", "nvme", Rare, |s| slow(nvme::Nvme::new(&s.path_sysfs))),
    on("host.dmmultipath", "dmmultipath", Heavy, |s| slow(dmmultipath::DmMultipath::new(&s.path_sysfs))),
    on("host.xfs", "xfs", Standard, |s| quick(xfs::Xfs::new(&s.path_sysfs))),
    on("host.zfs", "zfs", Standard, |s| slow(zfs::Zfs::new(&s.path_procfs))),
    on("host.btrfs", "btrfs", Heavy, |s| slow(btrfs::Btrfs::new(&s.path_sysfs))),
    on("host.bcache", "bcache", Standard, |s| slow(bcache::Bcache::new(&s.path_sysfs, s.bcache_priority_stats))),
    on("host.bcachefs", "bcachefs", Heavy, |s| slow(bcachefs::Bcachefs::new(&s.path_sysfs))),
    on("host.fibrechannel", "fibrechannel", Standard, |s| slow(fibrechannel::FibreChannel::new(&s.path_sysfs))),
    on("host.tapestats", "tapestats", Standard, |s| slow(tape::Tape::new(&s.path_sysfs))),
    // Network.
    on("host.netdev", "netdev", Standard, |s| {
        quick(netdev::NetDev::new(&s.path_procfs, &s.path_sysfs, s.netdev.clone()))
    }),
    on("host.netclass", "netclass", Standard, |s| {
        slow(netclass::NetClass::new(&s.path_sysfs, s.netclass.clone(), s.netclass_ignore_invalid_speed))
    }),
    on("host.netstat", "netstat", Standard, |s| quick(netstat::NetStat::new(&s.path_procfs))),
    on("host.sockstat", "sockstat", Standard, |s| quick(sockstat::SockStat::new(&s.path_procfs))),
    on("host.softnet", "softnet", Standard, |s| quick(softnet::Softnet::new(&s.path_procfs))),
    on("host.arp", "arp", Standard, |s| quick(arp::Arp::new(&s.path_procfs, s.arp.clone()))),
    on("host.conntrack", "conntrack", Standard, |s| quick(conntrack::Conntrack::new(&s.path_procfs))),
    on("host.udp_queues", "udp_queues", Standard, |s| quick(udp_queues::UdpQueues::new(&s.path_procfs))),
    on("host.bonding", "bonding", Standard, |s| quick(bonding::Bonding::new(&s.path_sysfs))),
    on("host.infiniband", "infiniband", Standard, |s| slow(infiniband::InfiniBand::new(&s.path_sysfs))),
    on("host.ipvs", "ipvs", Standard, |s| quick(ipvs::Ipvs::new(&s.path_procfs))),
    on("host.nfs", "nfs", Standard, |s| quick(nfs::Nfs::client(&s.path_procfs))),
    on("host.nfsd", "nfsd", Standard, |s| quick(nfs::Nfs::server(&s.path_procfs))),
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
    on("host.time", "time", Standard, |s| quick(time::Time::new(&s.path_sysfs))),
    on("host.timex", "timex", Standard, |_| quick(timex::Timex)),
    on("host.uname", "uname", Rare, |_| quick(os::Uname)),
    on("host.os", "os", Rare, |s| quick(os::Os::new(&s.path_rootfs))),
    on("host.info", "", Rare, |_| slow(os::Host)),
    on("host.selinux", "selinux", Rare, |s| quick(selinux::Selinux::new(&s.path_sysfs, &s.path_rootfs))),
    on("host.textfile", "textfile", Heavy, |s| slow(textfile::TextFile::new(s.textfile_directory.clone()))),
    // Off by default, as with node_exporter: many series, or many files read.
    off("host.processes", "processes", Heavy, |s| slow(processes::Processes::new(&s.path_procfs))),
    off("host.interrupts", "interrupts", Heavy, |s| quick(interrupts::Interrupts::hard(&s.path_procfs))),
    off("host.softirqs", "softirqs", Heavy, |s| quick(interrupts::Interrupts::soft(&s.path_procfs))),
    off("host.tcpstat", "tcpstat", Heavy, |s| slow(tcpstat::TcpStat::new(&s.path_procfs))),
    off("host.meminfo_numa", "meminfo_numa", Heavy, |s| slow(numa::Numa::new(&s.path_sysfs))),
    off("host.buddyinfo", "buddyinfo", Heavy, |s| quick(kernel_tables::BuddyInfo::new(&s.path_procfs))),
    off("host.cgroups", "cgroups", Heavy, |s| quick(kernel_tables::Cgroups::new(&s.path_procfs))),
    off("host.ksmd", "ksmd", Heavy, |s| quick(kernel_tables::Ksmd::new(&s.path_sysfs))),
    off("host.slabinfo", "slabinfo", Heavy, |s| quick(slabinfo::SlabInfo::new(&s.path_procfs, s.slabinfo.clone()))),
    off("host.zoneinfo", "zoneinfo", Heavy, |s| quick(zoneinfo::ZoneInfo::new(&s.path_procfs))),
    off("host.swap", "swap", Heavy, |s| quick(swap::Swap::new(&s.path_procfs))),
    off("host.sysctl", "sysctl", Heavy, |s| quick(sysctl::Sysctl::new(&s.path_procfs, s.sysctl.clone()))),
    off("host.drbd", "drbd", Heavy, |s| quick(drbd::Drbd::new(&s.path_procfs))),
    off("host.lnstat", "lnstat", Heavy, |s| quick(net_tables::LnStat::new(&s.path_procfs))),
    off("host.xfrm", "xfrm", Heavy, |s| quick(net_tables::Xfrm::new(&s.path_procfs))),
    off("host.qdisc", "qdisc", Heavy, |s| quick(qdisc::Qdisc::new(&s.path_sysfs, s.qdisc.clone()))),
    off("host.network_route", "network_route", Heavy, |s| quick(network_route::NetworkRoute::new(&s.path_sysfs))),
    off("host.mountstats", "mountstats", Heavy, |s| quick(mountstats::MountStats::new(&s.path_procfs))),
    off("host.cpu_vulnerabilities", "cpu_vulnerabilities", Rare, |s| {
        quick(vulnerabilities::Vulnerabilities::new(&s.path_sysfs))
    }),
];

/// The modules that run with these settings.
pub fn modules(settings: &HostSettings) -> Vec<Entry> {
    let wanted = TABLE.iter().filter(|row| settings.wants(row.name, row.by_default));
    wanted.map(|row| Entry { spec: row.spec(), module: (row.make)(settings) }).collect()
}

/// Names of all modules, also of those that are off.
fn all_names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|row| row.name)
}

impl Row {
    fn spec(&self) -> Spec {
        Spec { name: self.name, instance: None, collector: self.collector, job: "node", tier: self.tier }
    }
}
