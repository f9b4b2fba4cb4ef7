//! What a process costs, from /proc.

use std::time::Duration;

use anyhow::Context;

#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// User and system time of all its threads, ended ones included.
    pub cpu: Duration,
    pub resident_bytes: u64,
    /// The most that was resident at any time.
    pub peak_bytes: u64,
}

impl Cost {
    /// Has the kernel forget what was the most resident so far, so that the peak is that of what follows.
    pub fn forget_peak(pid: u32) -> anyhow::Result<()> {
        const PEAK: &str = "5"; // see proc_pid_clear_refs(5)
        Ok(std::fs::write(format!("/proc/{pid}/clear_refs"), PEAK)?)
    }

    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The command's name is in parentheses and may hold anything, spaces and parentheses too.
        let fields: Vec<&str> = stat.rsplit_once(')').context("a stat without a name")?.1.split_whitespace().collect();
        let ticks = |field: usize| fields.get(field).context("a short stat")?.parse::<u64>().context("odd ticks");
        let hertz = rustix::param::clock_ticks_per_second();
        let cpu = Duration::from_secs_f64((ticks(11)? + ticks(12)?) as f64 / hertz as f64);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kib = line.with_context(|| format!("a status without {name}"))?.trim().trim_end_matches(" kB");
            anyhow::Ok(kib.parse::<u64>()? * 1024)
        };
        Ok(Self { cpu, resident_bytes: bytes("VmRSS")?, peak_bytes: bytes("VmHWM")? })
    }
}
