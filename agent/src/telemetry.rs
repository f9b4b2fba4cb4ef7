//! The agent about itself: how its modules do, and what became of its frames.
//!
//! Source: counters in memory.
//! Shape:  `lampad_module_*{module}`, `lampad_agent_*`, and the exporters' own `node_scrape_collector_*{collector}` and
//!         `mysql_exporter_collector_*{collector}`; of several modules for one collector the worst success and the sum of times.
//! Units:  seconds, bytes.
//! Errors: `Read` when the kernel does not tell the agent's own CPU time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use crate::module::{Desc, Entry, Module, ModuleError, Spec, Tier};
use crate::modules::mysql::{CONNECTION, Watched};
use crate::sampler::ModuleHealth;
use crate::stats::Shared;
use crate::tick::Tick;

const UP: Desc =
    Desc::gauge("lampad_module_up", "Whether the module's last read succeeded; of modules that have a source here.")
        .labels(&["module"]);
const DURATION: Desc = Desc::gauge("lampad_module_duration_seconds", "Length of the module's last read.")
    .labels(&["module"])
    .unit("seconds");
const ERRORS: Desc =
    Desc::counter("lampad_module_errors_total", "Reads of the module that failed.").labels(&["module"]);
const SKIPPED: Desc =
    Desc::counter("lampad_module_skipped_ticks_total", "Ticks that did not happen because a read took too long.")
        .labels(&["module"]);

const NODE_SUCCESS: Desc =
    Desc::gauge("node_scrape_collector_success", "node_exporter: Whether a collector succeeded.")
        .labels(&["collector"]);
const NODE_DURATION: Desc =
    Desc::gauge("node_scrape_collector_duration_seconds", "node_exporter: Duration of a collector scrape.")
        .labels(&["collector"]);
const MYSQL_SUCCESS: Desc =
    Desc::gauge("mysql_exporter_collector_success", "mysqld_exporter: Whether a collector succeeded.")
        .labels(&["collector"]);
const MYSQL_DURATION: Desc =
    Desc::gauge("mysql_exporter_collector_duration_seconds", "Collector time duration.").labels(&["collector"]);

/// Of the exporter's older versions, which dashboards still ask for.
const MYSQL_SCRAPES: Desc =
    Desc::counter("mysql_exporter_scrapes_total", "Total number of times MySQL was scraped for metrics.");
const MYSQL_ERRORS: Desc =
    Desc::counter("mysql_exporter_scrape_errors_total", "Total number of times an error occurred scraping a MySQL.")
        .labels(&["collector"]);
const MYSQL_LAST_ERROR: Desc = Desc::gauge(
    "mysql_exporter_last_scrape_error",
    "Whether the last scrape of metrics from MySQL resulted in an error (1 for error, 0 for success).",
);
/// Dashboards look for this family to list servers; the version is ours.
const MYSQL_BUILD: Desc =
    Desc::gauge("mysqld_exporter_build_info", "The program that tells the MySQL families, here Lampad's agent.")
        .labels(&["branch", "goarch", "goos", "goversion", "revision", "version", "tags"]);

type Value = fn(&Shared) -> f64;

fn of(counter: &AtomicU64) -> f64 {
    counter.load(Ordering::Relaxed) as f64
}

const ROWS: &[(Desc, Value)] = &[
    (Desc::gauge("lampad_agent_connected", "Whether a stream to the collector is up."), |shared| {
        f64::from(u8::from(shared.stats.connected.load(Ordering::Relaxed)))
    }),
    (Desc::counter("lampad_agent_connects_total", "Streams that the collector welcomed."), |s| of(&s.stats.connects)),
    (Desc::counter("lampad_agent_connect_failures_total", "Attempts to connect that failed."), |s| {
        of(&s.stats.connect_failures)
    }),
    (Desc::counter("lampad_agent_ticks_total", "Ticks of modules that were numbered."), |s| of(&s.stats.ticks)),
    (Desc::counter("lampad_agent_frames_sent_total", "Frames sent on the live lane."), |s| of(&s.stats.frames_sent)),
    (Desc::counter("lampad_agent_frames_backfilled_total", "Frames sent on the back-fill lane."), |s| {
        of(&s.stats.frames_backfilled)
    }),
    (Desc::counter("lampad_agent_sent_bytes_total", "Encoded messages, before HTTP/2 and TLS.").unit("bytes"), |s| {
        of(&s.stats.bytes_sent)
    }),
    (Desc::counter("lampad_agent_frames_acked_total", "Live frames that the collector acked."), |s| {
        of(&s.stats.frames_acked)
    }),
    (
        Desc::counter("lampad_agent_ack_seconds_total", "Time from sending a live frame to its ack, summed.")
            .unit("seconds"),
        |s| of(&s.stats.ack_us) / 1e6,
    ),
    (
        Desc::counter(
            "lampad_agent_encode_seconds_total",
            "Time from the end of a read to its sending, summed over frames.",
        )
        .unit("seconds"),
        |s| of(&s.stats.encode_us) / 1e6,
    ),
    (
        Desc::counter(
            "lampad_agent_key_frames_wanted_total",
            "Times that the collector asked for a lane to begin anew.",
        ),
        |s| of(&s.stats.key_frames_wanted),
    ),
    (
        Desc::counter("lampad_agent_series_refused_total", "Series that the collector refused, each time it said so."),
        |s| of(&s.stats.series_refused),
    ),
    (Desc::gauge("lampad_agent_frames_waiting", "Frames in memory that are not acked."), |s| {
        of(&s.stats.frames_waiting)
    }),
    (Desc::gauge("lampad_agent_spool_bytes", "Bytes of the spool on disk.").unit("bytes"), |s| of(&s.spool.bytes)),
    (Desc::gauge("lampad_agent_spool_frames", "Frames of the spool that are not acked."), |s| of(&s.spool.frames)),
    (Desc::gauge("lampad_agent_spool_failing", "Whether the disk refuses the spool's writes."), |s| {
        f64::from(u8::from(s.spool.failing.load(Ordering::Relaxed)))
    }),
    (
        Desc::counter("lampad_agent_frames_dropped_total", "Frames lost because spool, disk or memory had no room."),
        |s| of(&s.stats.frames_dropped) + of(&s.spool.dropped_frames),
    ),
    (Desc::counter("lampad_agent_spool_set_aside_total", "Spool segments that were damaged or not ours."), |s| {
        of(&s.spool.set_aside)
    }),
];

const CPU: Desc =
    Desc::counter("lampad_agent_cpu_seconds_total", "CPU time that the agent's process has used.").unit("seconds");
const RESIDENT: Desc = Desc::gauge("lampad_agent_resident_bytes", "Memory of the agent's process.").unit("bytes");

/// The same and more, under the names that every exporter tells of its own process.
const PROCESS: [Desc; 7] = [
    Desc::counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds."),
    Desc::gauge("process_resident_memory_bytes", "Resident memory size in bytes."),
    Desc::gauge("process_virtual_memory_bytes", "Virtual memory size in bytes."),
    Desc::gauge("process_virtual_memory_max_bytes", "Maximum amount of virtual memory available in bytes."),
    Desc::gauge("process_open_fds", "Number of open file descriptors."),
    Desc::gauge("process_max_fds", "Maximum number of open file descriptors."),
    Desc::gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds."),
];

/// The modules that tell of the others, those of each server apart.
pub fn modules(shared: &Shared, servers: &[Watched]) -> Vec<Entry> {
    let agent = Entry {
        spec: Spec::new("lampad.agent", "", "node", Tier::Heavy),
        module: Box::new(Agent { shared: shared.clone(), settled: false }),
    };
    std::iter::once(agent).chain(servers.iter().map(|server| of_server(shared, server))).collect()
}

/// The module that tells of those of one server.
pub fn of_server(shared: &Shared, server: &Watched) -> Entry {
    let mut spec = Spec::new("lampad.mysql", "", "mysql", Tier::Heavy);
    server.mark(&mut spec);
    let instance = server.instance.clone();
    Entry { spec, module: Box::new(MysqlScrapes { shared: shared.clone(), instance, settled: false }) }
}

struct Agent {
    shared: Shared,
    settled: bool,
}

#[async_trait]
impl Module for Agent {
    fn descs(&self) -> Vec<Desc> {
        let mut descs = vec![UP, DURATION, ERRORS, SKIPPED, NODE_SUCCESS, NODE_DURATION, CPU, RESIDENT];
        descs.extend(ROWS.iter().map(|(desc, _)| desc.clone()).chain(PROCESS));
        descs
    }

    async fn sample(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        settle(&mut self.settled).await;
        let modules = self.shared.modules();
        // `lampad_module_up == 0` shall mean trouble: what this machine does not have is not told of.
        let is_here = |module: &&Arc<ModuleHealth>| module.reads.load(Ordering::Relaxed) > 0 && !module.is_absent();
        for module in modules.iter().filter(is_here) {
            let name = [module.id.as_str()];
            out.push(&UP, &name, success(module));
            out.push(&DURATION, &name, of(&module.duration_us) / 1e6);
            out.push(&ERRORS, &name, of(&module.errors));
            out.push(&SKIPPED, &name, of(&module.skipped));
        }
        scrapes(&modules, "node", (&NODE_SUCCESS, &NODE_DURATION), out);
        for (desc, read) in ROWS {
            out.push(desc, &[], read(&self.shared));
        }
        process(out)
    }
}

/// The exporter's own series of one server.
struct MysqlScrapes {
    shared: Shared,
    instance: Option<Arc<str>>,
    settled: bool,
}

#[async_trait]
impl Module for MysqlScrapes {
    fn descs(&self) -> Vec<Desc> {
        vec![MYSQL_SUCCESS, MYSQL_DURATION, MYSQL_SCRAPES, MYSQL_ERRORS, MYSQL_LAST_ERROR, MYSQL_BUILD]
    }

    async fn sample(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        settle(&mut self.settled).await;
        let mut modules = self.shared.modules();
        modules.retain(|module| module.spec.job == "mysql" && module.spec.instance == self.instance);
        scrapes(&modules, "mysql", (&MYSQL_SUCCESS, &MYSQL_DURATION), out);
        older_scrapes(&modules, out);
        Ok(())
    }
}

/// The first tick waits until the others have been read: it would stand for ten seconds and say that none works.
async fn settle(settled: &mut bool) {
    if !std::mem::replace(settled, true) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn success(module: &ModuleHealth) -> f64 {
    f64::from(u8::from(module.is_up()))
}

/// Collectors of node_exporter that hold it for a success to find nothing.
const GLAD_OF_NOTHING: &[&str] =
    &["bcache", "bcachefs", "btrfs", "edac", "mountstats", "powersupplyclass", "thermal_zone", "xfs"];

/// One series per collector that modules of this job stand in for; a module that has not been read yet says nothing.
fn scrapes(modules: &[Arc<ModuleHealth>], job: &str, (up, duration): (&Desc, &Desc), out: &mut Tick) {
    let mut collectors: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for module in modules.iter().filter(|module| module.spec.job == job && !module.spec.collector.is_empty()) {
        if module.reads.load(Ordering::Relaxed) == 0 {
            continue;
        }
        let (worst, sum) = collectors.entry(module.spec.collector).or_insert((1.0, 0.0));
        let glad = module.is_absent() && GLAD_OF_NOTHING.contains(&module.spec.collector);
        *worst = worst.min(if glad { 1.0 } else { success(module) });
        *sum += of(&module.duration_us) / 1e6;
    }
    for (collector, (worst, sum)) in collectors {
        if collector != CONNECTION {
            out.push(up, &[collector], worst);
        }
        out.push(duration, &[collector], sum);
    }
}

/// Values for the labels of the exporters' `build_info`: branch, goarch, goos, goversion, revision, version, tags.
pub fn build() -> [&'static str; 7] {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    ["lampad-agent", arch, std::env::consts::OS, "none", "unknown", env!("CARGO_PKG_VERSION"), "unknown"]
}

/// The older families: reads of the standard module stand for scrapes. A source that is not there is no error.
fn older_scrapes(modules: &[Arc<ModuleHealth>], out: &mut Tick) {
    let of_collectors = || modules.iter().filter(|module| !module.spec.collector.is_empty());
    let reads = |module: &Arc<ModuleHealth>| module.reads.load(Ordering::Relaxed) as f64;
    let scrapes = of_collectors().find(|module| module.spec.name == "mysql.status").map_or(0.0, reads);
    out.push(&MYSQL_SCRAPES, &[], scrapes);
    let mut errors = BTreeMap::new();
    for module in of_collectors().filter(|module| module.errors.load(Ordering::Relaxed) > 0) {
        *errors.entry(module.spec.collector).or_insert(0.0) += of(&module.errors);
    }
    for (collector, count) in errors {
        out.push(&MYSQL_ERRORS, &[collector], count);
    }
    let fails = |module: &Arc<ModuleHealth>| reads(module) > 0.0 && success(module) == 0.0 && !module.is_absent();
    out.push(&MYSQL_LAST_ERROR, &[], f64::from(u8::from(of_collectors().any(fails))));
    out.push(&MYSQL_BUILD, &build(), 1.0);
}

fn process(out: &mut Tick) -> Result<(), ModuleError> {
    let failed = |detail: procfs::ProcError| ModuleError::Read {
        path: "/proc/self/stat".into(),
        source: std::io::Error::other(detail.to_string()),
    };
    let process = procfs::process::Process::myself().map_err(failed)?;
    let stat = process.stat().map_err(failed)?;
    let ticks = procfs::ticks_per_second() as f64;
    let cpu = (stat.utime + stat.stime) as f64 / ticks;
    let resident = (stat.rss * procfs::page_size()) as f64;
    out.push(&CPU, &[], cpu);
    out.push(&RESIDENT, &[], resident);
    let limits = process.limits().map_err(failed)?;
    let most = |limit: procfs::process::LimitValue| match limit {
        procfs::process::LimitValue::Value(value) => value as f64,
        // As Go's client writes "no limit".
        procfs::process::LimitValue::Unlimited => u64::MAX as f64,
    };
    let boot = procfs::boot_time_secs().map_err(failed)? as f64;
    let values = [
        cpu,
        resident,
        stat.vsize as f64,
        most(limits.max_address_space.soft_limit),
        process.fd_count().map_err(failed)? as f64,
        most(limits.max_open_files.soft_limit),
        boot + stat.starttime as f64 / ticks,
    ];
    for (desc, value) in PROCESS.iter().zip(values) {
        out.push(desc, &[], value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::mysql::MysqlSettings;
    use crate::schedule::Schedule;

    fn health(name: &'static str, collector: &'static str, job: &'static str, up: bool, us: u64) -> Arc<ModuleHealth> {
        let spec = Spec::new(name, collector, job, Tier::Standard);
        let health = ModuleHealth::new(spec, Schedule::of(Tier::Standard));
        health.up.store(up, Ordering::Relaxed);
        health.reads.store(1, Ordering::Relaxed);
        health.duration_us.store(us, Ordering::Relaxed);
        Arc::new(health)
    }

    #[tokio::test(start_paused = true)]
    async fn the_exporters_own_series_are_there() {
        let shared = Shared::default();
        let absent = health("host.zfs", "zfs", "node", false, 100);
        absent.absent.store(true, Ordering::Relaxed);
        shared.set_modules(vec![
            health("host.cpu", "cpu", "node", true, 1000),
            health("host.cpu_info", "cpu", "node", false, 500),
            health("mysql.status", "collect.global_status", "mysql", true, 2000),
            health("mysql.up", CONNECTION, "mysql", true, 1000),
            absent.clone(),
        ]);
        let mut lines = Vec::new();
        let only = Watched { instance: None, labels: Vec::new(), settings: MysqlSettings::default() };
        for mut entry in modules(&shared, &[only]) {
            let mut tick = Tick::new();
            entry.module.sample(&mut tick).await.unwrap();
            lines.extend(tick.samples().map(|(name, labels, value)| format!("{name} {labels:?} {value}")));
        }
        for wanted in [
            r#"node_scrape_collector_success [("collector", "cpu")] 0"#,
            r#"node_scrape_collector_duration_seconds [("collector", "cpu")] 0.0015"#,
            r#"mysql_exporter_collector_success [("collector", "collect.global_status")] 1"#,
            r#"lampad_module_up [("module", "host.cpu")] 1"#,
            r#"mysql_exporter_collector_duration_seconds [("collector", "connection")] 0.001"#,
            "mysql_exporter_last_scrape_error [] 0",
            "mysql_exporter_scrapes_total [] 1",
            r#"node_scrape_collector_success [("collector", "zfs")] 0"#,
        ] {
            assert!(lines.iter().any(|line| line == wanted), "{wanted} in {lines:#?}");
        }
        let of_absent = lines.iter().filter(|line| line.contains("host.zfs"));
        assert_eq!(of_absent.count(), 0, "what this machine does not have is no trouble");
    }
}
