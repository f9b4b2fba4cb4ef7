//! Programs of others that tests and benchmarks run beside ours: Prometheus, VictoriaMetrics and the two exporters.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;

use crate::{Api, PATIENCE, Process, Program, free_port, until};

/// A server's data, in its directory.
const DATA: &str = "data";

/// Where a program is, if it is installed.
pub fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// A server that answers HTTP on a port of its own.
pub struct Server {
    pub process: Process,
    pub address: SocketAddr,
    directory: TempDir,
}

impl Server {
    async fn start(
        name: &str,
        ready: &str,
        with: impl FnOnce(Program, &TempDir, SocketAddr) -> anyhow::Result<Program>,
    ) -> anyhow::Result<Self> {
        let path = installed(name).with_context(|| format!("{name} is not installed; tests/run.sh installs it"))?;
        Self::start_at(name, path, ready, with).await
    }

    async fn start_at(
        name: &str,
        path: PathBuf,
        ready: &str,
        with: impl FnOnce(Program, &TempDir, SocketAddr) -> anyhow::Result<Program>,
    ) -> anyhow::Result<Self> {
        let directory = TempDir::with_prefix(format!("lampad-{name}-"))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let program = with(Program::at(path, directory.path().join("log")), &directory, address)?;
        let process = program.start()?;
        let server = Self { process, address, directory };
        let api = server.api();
        until(&format!("{name} to answer"), PATIENCE, || async { matches!(api.get(ready, &[]).await, Ok((200, _))) })
            .await
            .with_context(|| server.process.log_tail())?;
        Ok(server)
    }

    /// A Prometheus that scrapes these targets (job, address) at `interval`; `options` go under each job.
    pub async fn prometheus(targets: &[(&str, SocketAddr)], interval: Duration, options: &str) -> anyhow::Result<Self> {
        let interval = interval.as_millis();
        let mut config =
            format!("global: {{scrape_interval: {interval}ms, scrape_timeout: {interval}ms}}\nscrape_configs:\n");
        for (job, target) in targets {
            config += &format!("- job_name: {job}\n  static_configs: [{{targets: ['{target}']}}]\n");
            config += options;
        }
        Self::start("prometheus", "/-/ready", |program, directory, address| {
            let file = directory.path().join("prometheus.yml");
            std::fs::write(&file, config)?;
            Ok(program
                .arg(format!("--config.file={}", file.display()))
                .arg(format!("--storage.tsdb.path={}", directory.path().join(DATA).display()))
                .arg(format!("--web.listen-address={address}")))
        })
        .await
    }

    /// A Prometheus or VictoriaMetrics at `path` that takes remote write, with nothing to scrape.
    pub async fn receiver(name: &str, path: PathBuf) -> anyhow::Result<Self> {
        let is_prometheus = name == "prometheus";
        let ready = if is_prometheus { "/-/ready" } else { "/health" };
        Self::start_at(name, path, ready, |program, directory, address| {
            let data = directory.path().join(DATA);
            if !is_prometheus {
                let args = [
                    format!("-storageDataPath={}", data.display()),
                    format!("-httpListenAddr={address}"),
                    "-retentionPeriod=1".to_owned(),
                ];
                return Ok(program.args(args));
            }
            let config = directory.path().join("prometheus.yml");
            std::fs::write(&config, "scrape_configs: []\n")?;
            let args = [
                format!("--config.file={}", config.display()),
                format!("--storage.tsdb.path={}", data.display()),
                format!("--web.listen-address={address}"),
                "--web.enable-remote-write-receiver".to_owned(),
            ];
            Ok(program.args(args))
        })
        .await
    }

    pub async fn node_exporter(flags: &[&str]) -> anyhow::Result<Self> {
        Self::start("prometheus-node-exporter", "/", |program, _, address| {
            Ok(program.arg(format!("--web.listen-address={address}")).args(flags))
        })
        .await
    }

    /// `login` is `user:password@unix(/path)/` or `user:password@tcp(host:port)/`.
    pub async fn mysqld_exporter(login: &str) -> anyhow::Result<Self> {
        Self::start("prometheus-mysqld-exporter", "/", |program, _, address| {
            Ok(program
                .env("DATA_SOURCE_NAME", login)
                .args([&format!("--web.listen-address={address}"), "--config.my-cnf=/dev/null"]))
        })
        .await
    }

    /// Where a server started by [`Self::prometheus`] or [`Self::receiver`] keeps what it has taken.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join(DATA)
    }

    pub fn api(&self) -> Api {
        Api::new(format!("http://{}", self.address))
    }
}
