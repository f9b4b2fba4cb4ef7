//! The parts put together: what is opened, in which order it starts, and in which order it ends.
//!
//! ```text
//! start   listen (HTTP and gRPC answer "not ready") -> store -> liveness, telemetry, roster -> gRPC and pages open -> ready
//! stop    streams get their last acks -> gRPC -> liveness, telemetry, roster -> HTTP -> store flushed and sealed
//! ```
//! Every step of the end has a deadline: an agent that keeps its stream open, or a reader that never reads, cannot hold it.

mod opening;
mod roster;
mod serve;
mod settings;
mod systemd;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum_server::Handle;
use parking_lot::Mutex;
use sd_notify::NotifyState;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{self, ApiState, BuildInfo, Settings};
use crate::auth::{self, Access, Rules};
use crate::config::{Args, Config};
use crate::control;
use crate::fleet::{self, Liveness, Registry};
use crate::ingest::{Gate, Ingest, remote_write_router};
use crate::limits::Limits;
use crate::logging::{LogLevel, Repeats, chain};
use crate::query::{self, Engine, Features};
use crate::sink::Sink;
use crate::store::{Disk, Exemplars, Label, Progress, RealDisk, Store};
use crate::telemetry::Telemetry;
use crate::tls::Tls;
use crate::web::{self, Door, Web};

/// An agent that has not pushed for so long is no longer missed.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Deadlines of the end. Together they stay well below the 90 s after which systemd kills.
const GRPC_ENDS_WITHIN: Duration = Duration::from_secs(5);
const TASKS_END_WITHIN: Duration = Duration::from_secs(3);
const HTTP_ENDS_WITHIN: Duration = Duration::from_secs(2);
const STORE_ENDS_WITHIN: Duration = Duration::from_secs(40);

/// The version of Prometheus whose API this is; clients choose their queries by it.
const PROMETHEUS_VERSION: &str = "3.5.0";

/// A running collector.
pub struct Daemon {
    /// In force; replaced by a reload.
    config: Mutex<Config>,
    /// The same, as the API tells it.
    settings: Settings,
    access: Arc<Access>,
    tls: Option<Tls>,
    store: Arc<Store>,
    registry: Arc<Registry>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    /// Ends the tasks that outlive the streams: what they write must still see the last frames.
    tasks_end: CancellationToken,
    http: Handle<SocketAddr>,
    http_addr: SocketAddr,
    grpc_addr: SocketAddr,
    servers: Mutex<Vec<JoinHandle<anyhow::Result<()>>>>,
}

impl Daemon {
    /// Starts everything; returns once samples are taken and queries answered.
    pub async fn start(config: Config, shutdown: CancellationToken) -> anyhow::Result<Self> {
        Self::start_on(config, shutdown, Arc::new(RealDisk)).await
    }

    /// The same with log and manifest on a disk of the caller's, such as one that fails when it is told to.
    pub async fn start_on(config: Config, shutdown: CancellationToken, disk: Arc<dyn Disk>) -> anyhow::Result<Self> {
        let access = Arc::new(Access::new(rules(&config)?));
        let token_set = config.token_file.is_some();
        let tls = config.tls.as_ref().map(|files| Tls::load(files, token_set)).transpose()?;
        let http_listener = serve::listen("http_listen", &config.http_listen, &config).await?;
        let grpc_listener = serve::listen("grpc_listen", &config.grpc_listen, &config).await?;
        let (http_addr, grpc_addr) = (http_listener.local_addr()?, grpc_listener.local_addr()?);
        let telemetry = Arc::new(Telemetry::default());
        let progress = Progress::default();
        let door = Door::new(access.clone(), telemetry.clone(), progress.clone());
        let gate = Gate::new(progress.clone(), config.limits.message_bytes);
        let http = Handle::new();
        let http_server = serve::http(http_listener, tls.as_ref(), door.clone(), http.clone())?;
        let grpc_server = serve::grpc(grpc_listener, tls.as_ref(), gate.clone(), telemetry.clone(), shutdown.clone())?;

        let store = opening::open_store(&config, disk, &progress).await?;
        let sink: Arc<dyn Sink> = store.clone();
        let registry = Registry::new(config.limits.agents, fleet::read_roster(&config.data_dir)?);
        let ingest = Arc::new(Ingest {
            sink: sink.clone(),
            registry: registry.clone(),
            telemetry: telemetry.clone(),
            limits: Arc::new(config.limits.clone()),
            access: access.clone(),
            repeats: Repeats::default(),
            symbols: Arc::default(),
            defining: Default::default(),
            shutdown: shutdown.clone(),
        });
        let (tasks, tasks_end) = (TaskTracker::new(), CancellationToken::new());
        let forget_after = config.retention.map_or(FORGET_AFTER, |retention| retention.min(FORGET_AFTER));
        tasks.spawn(Liveness::new(registry.clone(), sink.clone(), forget_after).run(tasks_end.clone()));
        let counted = store.clone();
        let stats = move || counted.stats();
        tasks.spawn(telemetry.clone().run(sink, registry.clone(), own_labels(), stats, tasks_end.clone()));
        tasks.spawn(roster::keep(registry.clone(), config.data_dir.clone(), tasks_end.clone()));
        tasks.spawn(systemd::watchdog(tasks_end.clone()));
        tasks.spawn(control::serve(store.clone(), config.data_dir.clone(), tasks_end.clone()));

        let source = store.clone();
        gate.open(ingest.clone());
        let exemplars = Arc::<Exemplars>::default();
        let settings = settings::first(&config);
        let mut apis = api::router(api_state(&config, settings.clone(), source.clone(), exemplars.clone()))
            .merge(remote_write_router(ingest, exemplars));
        if config.enable_admin_api {
            apis = apis.merge(api::admin_router(source.clone(), config.data_dir.clone()));
        }
        door.open(web::pages(Web::new(source, registry.clone(), telemetry), apis));
        tracing::info!(http = %http_addr, grpc = %grpc_addr, tls = tls.is_some(), data_dir = %config.data_dir.display(), "ready");
        systemd::notify(&[NotifyState::Ready]);
        let servers = Mutex::new(vec![http_server, grpc_server]);
        let config = Mutex::new(config);
        Ok(Self {
            config,
            settings,
            access,
            tls,
            store,
            registry,
            shutdown,
            tasks,
            tasks_end,
            http,
            http_addr,
            grpc_addr,
            servers,
        })
    }

    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc_addr
    }

    /// Waits for the end to be asked for, or for a server or a thread of the store to break.
    pub async fn ended(&self) -> anyhow::Result<()> {
        let mut look = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return Ok(()),
                _ = look.tick() => {}
            }
            let broken = self.broken_server();
            if let Some(thread) = self.store.broken() {
                anyhow::bail!(
                    "the thread {thread} of the store has ended by itself, and without it nothing more is kept; the log says \
                     why, what was acked is read back at the next start"
                );
            }
            if let Some(broken) = broken {
                broken.await.context("a server has ended")??;
                anyhow::bail!("a server has ended by itself; the log says more");
            }
        }
    }

    /// Takes out a server that has ended by itself. One that has because it was told to is no trouble; `stop` asks for it.
    fn broken_server(&self) -> Option<serve::Server> {
        let mut servers = self.servers.lock();
        let at = servers.iter().position(JoinHandle::is_finished);
        at.filter(|_| !self.shutdown.is_cancelled()).map(|at| servers.remove(at))
    }

    /// Reads the configuration, the token and the certificates again. What is invalid leaves all as it was.
    pub fn reload(&self, args: &Args, log: &LogLevel) {
        match self.try_reload(args, log) {
            Ok(()) => tracing::info!("configuration read again"),
            Err(error) => {
                self.settings.reload_failed();
                let error = chain(error.as_ref());
                tracing::error!(error, "configuration is not valid: the old one stays in force");
            }
        }
    }

    fn try_reload(&self, args: &Args, log: &LogLevel) -> anyhow::Result<()> {
        let new = Config::load(args)?;
        let rules = rules(&new)?;
        let mut config = self.config.lock();
        if let (Some(tls), Some(files)) = (&self.tls, &new.tls) {
            tls.reload(files, new.token_file.is_some())?;
        }
        let waiting = config.needs_restart(&new);
        for setting in &waiting {
            tracing::warn!(setting, "a changed setting comes into force with the next start");
        }
        self.settings.reloaded(&settings::text(&new, &waiting));
        self.access.set(rules);
        log.set(&new.log_level);
        *config = new;
        Ok(())
    }

    /// Ends everything in order; what was acked is on disk afterwards.
    pub async fn stop(self) -> anyhow::Result<()> {
        tracing::info!("shutting down");
        systemd::notify(&[NotifyState::Stopping]);
        self.shutdown.cancel();
        let mut servers = self.servers.into_inner();
        // The gRPC server is the last of the two; a client that does not let go is let go.
        if let Some(mut grpc) = servers.pop()
            && timeout(GRPC_ENDS_WITHIN, &mut grpc).await.is_err()
        {
            grpc.abort();
        }
        self.tasks_end.cancel();
        self.tasks.close();
        let _ = timeout(TASKS_END_WITHIN, self.tasks.wait()).await;
        self.http.graceful_shutdown(Some(HTTP_ENDS_WITHIN));
        for http in servers {
            let _ = timeout(HTTP_ENDS_WITHIN * 2, http).await;
        }
        let data_dir = self.config.into_inner().data_dir;
        let (store, registry) = (self.store, self.registry);
        let closed = tokio::task::spawn_blocking(move || {
            let agents = registry.agents();
            // A full disk is no reason to fail: what is not written here is known again once the agents have come back.
            if let Err(error) = fleet::write_roster(&data_dir, agents.iter().map(|agent| &**agent)) {
                let error = chain(&error);
                tracing::warn!(error, "cannot write the list of agents; some may not be missed after the next start");
            }
            store.shutdown()
        });
        let closed = timeout(STORE_ENDS_WITHIN, closed).await;
        if closed.context("the store was not closed in time; the log is replayed at the next start")?? {
            tracing::info!("all is on disk");
        }
        Ok(())
    }
}

/// The rules that the configuration asks for.
fn rules(config: &Config) -> anyhow::Result<Rules> {
    let token = config.token_file.as_deref().map(auth::read_token).transpose()?;
    let certificates = config.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    Ok(Rules { token, certificates })
}

fn api_state(config: &Config, settings: Settings, source: Arc<Store>, exemplars: Arc<Exemplars>) -> ApiState {
    let mut features = Features::default();
    for name in &config.features {
        if !features.enable(name) {
            tracing::warn!(name, "--enable-feature: no such feature here; it is left out");
        }
    }
    let build = BuildInfo {
        version: PROMETHEUS_VERSION.into(),
        revision: format!("lampad-collector {}", env!("CARGO_PKG_VERSION")),
        ..BuildInfo::default()
    };
    ApiState {
        arrivals: source.durable(),
        live: Arc::new(Semaphore::new(api::LIVE_MAX)),
        source,
        exemplars,
        engine: Engine::new(query_limits(&config.limits), features),
        build: Arc::new(build),
        settings,
        started: jiff::Timestamp::now(),
    }
}

fn query_limits(limits: &Limits) -> query::Limits {
    query::Limits {
        timeout: Duration::from_secs(limits.query_seconds as u64),
        samples: limits.query_samples as u64,
        series: limits.query_series as u64,
        bytes: limits.query_bytes as u64,
        concurrency: limits.queries,
        ..query::Limits::default()
    }
}

/// Labels of the collector's own metrics.
fn own_labels() -> Vec<Label> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let label = |name: &str, value: &str| Label { name: name.into(), value: value.into() };
    vec![label("instance", &host), label("job", "lampad-collector")]
}

#[cfg(test)]
#[path = "daemon_tests.rs"]
mod tests;
