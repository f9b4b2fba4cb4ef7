//! A collector of the test's own: free ports, a data directory under the temporary ones, ready when `start` returns.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::{Api, PATIENCE, Process, Program, free_port, until_ok};

pub struct Collector {
    pub process: Process,
    program: Program,
    http: SocketAddr,
    grpc: SocketAddr,
    data: PathBuf,
    // Removed last, after the process that writes into it.
    directory: Arc<TempDir>,
    token: Option<String>,
}

impl Collector {
    /// With defaults and nothing else.
    pub async fn start() -> anyhow::Result<Self> {
        Self::with(&[]).await
    }

    /// With further arguments.
    pub async fn with(args: &[&str]) -> anyhow::Result<Self> {
        let directory = TempDir::with_prefix("lampad-collector-")?;
        let data = directory.path().join("data");
        Self::on(&data, directory, args).await
    }

    /// With further arguments that set this bearer token.
    pub async fn with_token(token: &str, args: &[&str]) -> anyhow::Result<Self> {
        let directory = TempDir::with_prefix("lampad-collector-")?;
        let data = directory.path().join("data");
        Self::start_on(&data, directory, args, Some(token)).await
    }

    /// On a data directory of the caller's choice; logs go to `directory`.
    pub async fn on(data: &Path, directory: TempDir, args: &[&str]) -> anyhow::Result<Self> {
        Self::start_on(data, directory, args, None).await
    }

    async fn start_on(data: &Path, directory: TempDir, args: &[&str], token: Option<&str>) -> anyhow::Result<Self> {
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let grpc = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let program = Self::program(data, directory.path(), http, grpc)?.args(args);
        let process = program.start()?;
        let directory = Arc::new(directory);
        let mut collector =
            Self { process, program, http, grpc, data: data.into(), directory, token: token.map(str::to_owned) };
        collector.ready().await?;
        Ok(collector)
    }

    /// How it is started; for tests that expect it to refuse.
    pub fn program(data: &Path, logs: &Path, http: SocketAddr, grpc: SocketAddr) -> anyhow::Result<Program> {
        Ok(Program::ours("lampad-collector", logs.join("collector.log"))?.arg("--data-dir").arg(data).args([
            "--http-listen",
            &http.to_string(),
            "--grpc-listen",
            &grpc.to_string(),
        ]))
    }

    /// Waits for `/-/ready`.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        let start = std::time::Instant::now();
        loop {
            if let Some(status) = self.process.status() {
                bail!("the collector ended with {status} instead of getting ready:\n{}", self.process.log_tail());
            }
            if let Ok((200, _)) = self.api().get("/-/ready", &[]).await {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                bail!("the collector was not ready within {PATIENCE:?}:\n{}", self.process.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts it again with the same arguments, after it has ended.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.process = self.program.start()?;
        self.ready().await
    }

    pub fn api(&self) -> Api {
        let api = Api::new(format!("http://{}", self.http));
        match &self.token {
            Some(token) => api.with_token(token),
            None => api,
        }
    }

    pub fn http(&self) -> SocketAddr {
        self.http
    }

    pub fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    /// What an agent is given as `--collector`.
    pub fn grpc_url(&self) -> String {
        format!("http://{}", self.grpc)
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Where its log is; room for a test's own files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A value of the collector's own metrics, from its `/metrics`.
    pub async fn own(&self, series: &str) -> anyhow::Result<f64> {
        until_ok(series, Duration::from_secs(5), || async {
            let (_, page) = self.api().get("/metrics", &[]).await?;
            let line = page.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
            let line = line.with_context(|| format!("/metrics has no {series}"))?;
            Ok(line[series.len()..].trim().parse()?)
        })
        .await
    }
}
