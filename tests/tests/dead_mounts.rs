//! File systems that never answer, and an agent that goes on.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lampad_tests::{Agent, Api, Collector, PATIENCE, needs, until, until_ok};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A FUSE file system whose process never reads a request: every call on it hangs in the kernel.
struct Dead {
    point: PathBuf,
    device: Option<File>,
}

impl Dead {
    fn at(point: &Path) -> Result<Self> {
        let device = File::options().read(true).write(true).open("/dev/fuse")?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        mount("lampad-dead", point, "fuse", MountFlags::empty(), Some(&*CString::new(options)?))
            .with_context(|| format!("cannot mount at {}", point.display()))?;
        Ok(Self { point: point.to_owned(), device: Some(device) })
    }

    /// Whoever hangs in it is let go with an error.
    fn bury(&mut self) {
        if self.device.take().is_some() {
            let _ = unmount(&self.point, UnmountFlags::DETACH);
        }
    }
}

impl Drop for Dead {
    fn drop(&mut self) {
        self.bury();
    }
}

fn possible() -> bool {
    needs::root() && needs::met("/dev/fuse", File::options().read(true).write(true).open("/dev/fuse").is_ok())
}

/// Reads what is slow by default often, so that the test need not wait for it.
fn often(directory: &Path) -> Result<String> {
    let file = directory.join("agent.toml");
    let module = |name| format!("[module.\"{name}\"]\ninterval = \"250ms\"\n");
    fs::write(&file, ["host.filesystem", "lampad.agent"].map(module).concat())?;
    Ok(file.display().to_string())
}

/// Waits for five samples that come after now.
async fn goes_on(api: &Api, family: &str) -> Result<()> {
    let newest = format!("max(timestamp({family}))");
    let mut last = until_ok(family, PATIENCE, || api.value(&newest)).await?;
    for _ in 0..5 {
        let seen = last;
        let newer = || async { matches!(api.value(&newest).await, Ok(at) if at > seen) };
        until(&format!("a newer {family}"), PATIENCE, newer).await?;
        last = api.value(&newest).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_dead_mount_is_told_and_everything_else_goes_on() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let point = directory.path().join("dead");
    fs::create_dir(&point)?;
    let mut dead = Dead::at(&point)?;
    let collector = Collector::start().await?;
    let config = often(directory.path())?;
    let mut agent = Agent::start(&collector.grpc_url(), "db1", &["--config", &config])?;
    let api = collector.api();
    let told = format!("node_filesystem_device_error{{mountpoint=\"{}\"}}", point.display());
    until(&told, PATIENCE, || async { matches!(api.value(&told).await, Ok(1.0)) }).await?;
    for family in ["node_load1", "node_memory_MemFree_bytes", "node_filesystem_avail_bytes{mountpoint=\"/\"}"] {
        goes_on(&api, family).await?;
    }
    let works = "lampad_module_up{module=\"host.filesystem\"} == 1";
    until_ok(works, PATIENCE, || api.value(works)).await?;
    // Nor does it keep the agent from ending.
    agent.process.terminate(PATIENCE).await?;
    dead.bury();
    Ok(())
}

/// As lxcfs puts FUSE files over `/proc` of a container.
#[tokio::test]
async fn files_of_proc_that_hang_hold_only_their_own_module() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let procfs = directory.path().join("proc");
    fs::create_dir_all(procfs.join("pressure"))?;
    for file in ["loadavg", "meminfo", "stat", "vmstat"] {
        fs::copy(Path::new("/proc").join(file), procfs.join(file))?;
    }
    let mut dead = Dead::at(&procfs.join("pressure"))?;
    let collector = Collector::start().await?;
    let path = procfs.display().to_string();
    let mut agent =
        Agent::start(&collector.grpc_url(), "db1", &["--path-procfs", &path, "--config", &often(directory.path())?])?;
    let api = collector.api();
    let hangs = "lampad_module_errors_total{module=\"host.pressure\"} > 1";
    until_ok(hangs, PATIENCE, || api.value(hangs)).await?;
    for family in ["node_load1", "node_memory_MemFree_bytes", "node_time_seconds"] {
        goes_on(&api, family).await?;
    }
    anyhow::ensure!(
        agent.process.log().contains("has not come back"),
        "the log does not tell of it:\n{}",
        agent.process.log()
    );
    agent.process.terminate(PATIENCE).await?;
    dead.bury();
    Ok(())
}
