//! The agent: modules -> sampler -> delta encoder -> spool -> uplink.

pub mod check;
pub mod clock;
pub mod config;
pub mod delta;
pub mod flow;
pub mod identity;
pub mod logging;
pub mod module;
pub mod modules;
mod newcomers;
pub mod push;
pub mod roster;
pub mod sampler;
pub mod schedule;
pub mod spool;
pub mod stats;
pub mod telemetry;
pub mod tick;
pub mod uplink;

use std::sync::{Arc, RwLock};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{Config, Flags};
use crate::delta::Catalog;
use crate::flow::{Control, Flow, Parts};
use crate::identity::Identity;
use crate::module::Entry;
use crate::modules::mysql::{self, Watched};
use crate::newcomers::Lookout;
use crate::roster::{Roster, Surroundings};
use crate::spool::{Owner, Spool, SpoolDisk};
use crate::stats::Shared;

/// A stopping agent that is not done by then leaves what it has on disk and goes: systemd would kill it later anyway.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// Orders to the flow that may wait: one per reload.
const CONTROL_MAX: usize = 4;

/// The daemon: all its tasks.
pub struct Agent {
    flags: Flags,
    config: Config,
    roster: Roster,
    control: mpsc::Sender<Control>,
    flow: Flow,
    shared: Shared,
}

/// What happens from outside while the agent runs.
pub struct Signals {
    pub stop: CancellationToken,
    /// One message per SIGHUP.
    pub reload: mpsc::Receiver<()>,
}

impl Agent {
    /// Opens the state directory and wires everything; nothing runs yet.
    pub fn build(flags: Flags, config: Config) -> anyhow::Result<Self> {
        let identity = Identity::open(&config.state_dir)?;
        let owner = Owner { agent_id: identity.agent_id(), epoch: identity.epoch() };
        let spool = Spool::open(&identity.dir().join(identity::SPOOL), owner, config.spool_bytes)?;
        tracing::info!(
            agent = identity::hex(&identity.agent_id()),
            version = env!("CARGO_PKG_VERSION"),
            state_dir = %config.state_dir.display(),
            spooled = spool.frames(),
            "lampad-agent"
        );
        let catalog = Arc::new(RwLock::new(Catalog::new()));
        let clock = Arc::new(Clock::system());
        let (disk, chunks) = SpoolDisk::start(spool, catalog.clone()).context("cannot start the spool's thread")?;
        let shared = Shared::new(disk.health.clone());
        let (out, samples) = mpsc::channel(sampler::SAMPLES_MAX);
        let (control, orders) = mpsc::channel(CONTROL_MAX);
        let around = Surroundings {
            agent_id: identity.agent_id(),
            clock: clock.clone(),
            catalog: catalog.clone(),
            out,
            shared: shared.clone(),
        };
        let flow = Flow::new(Parts {
            identity,
            target: config.target.clone(),
            labels: config.labels.clone(),
            hostname: config.hostname.clone(),
            clock,
            catalog,
            samples,
            control: orders,
            disk,
            chunks,
            shared: shared.clone(),
        });
        Ok(Self { flags, config, roster: Roster::new(around), control, flow, shared })
    }

    /// Runs until stopped. What was sampled and not acked by then is on disk when this returns.
    pub async fn run(self, mut signals: Signals) -> anyhow::Result<()> {
        let Self { flags, mut config, mut roster, control, flow, shared } = self;
        config.check_modules(names(&config, &shared).iter().map(String::as_str))?;
        for section in SECTIONS {
            roster.replace(section.prefix, (section.make)(&config, &shared), &config).await;
        }
        let stop_flow = CancellationToken::new();
        let mut flow = tokio::spawn(flow.run(stop_flow.clone()));
        let mut lookout = Lookout::default();
        let mut look = tokio::time::interval(newcomers::LOOK);
        loop {
            tokio::select! {
                () = signals.stop.cancelled() => break,
                // It ends only when it cannot go on.
                ended = &mut flow => return ended.context("the agent's main loop broke")?,
                _ = look.tick() => {
                    for server in lookout.look(&config, &mysql::Surroundings::of_this_process()) {
                        join(server, &mut config, &mut roster, &control, &shared).await?;
                    }
                }
                Some(()) = signals.reload.recv() => match reload(&flags, &config, &mut roster, &control, &shared).await {
                    Ok(new) => config = new,
                    Err(error) => tracing::error!("reload refused, the old configuration stays: {error:#}"),
                },
            }
        }
        tracing::info!("stopping");
        let stopped = tokio::time::timeout(STOP_DEADLINE, async {
            roster.shut_down().await;
            stop_flow.cancel();
            flow.await.context("the agent's main loop broke")?
        });
        stopped.await.context("could not stop in time; frames of the last second may be lost")?
    }
}

/// Modules that are configured and replaced together.
struct Section {
    prefix: &'static str,
    make: fn(&Config, &Shared) -> Vec<Entry>,
    changed: fn(&Config, &Config) -> bool,
}

const SECTIONS: [Section; 3] = [
    Section {
        prefix: "host.",
        make: |config, _| modules::host::modules(&config.host),
        changed: |old, new| old.host_written != new.host_written,
    },
    Section {
        prefix: "mysql.",
        make: |config, _| modules::mysql::modules(&config.mysql),
        changed: |old, new| old.mysql != new.mysql,
    },
    Section {
        prefix: "lampad.",
        make: |config, shared| telemetry::modules(shared, &config.mysql),
        changed: |old, new| !names_of(old).eq(names_of(new)),
    },
];

/// What tells the servers that are watched apart.
fn names_of(config: &Config) -> impl Iterator<Item = (&Option<Arc<str>>, &[(String, String)])> {
    config.mysql.iter().map(|one| (&one.instance, &one.labels[..]))
}

/// What `[module."..."]` may be: the modules, and those of one server among several.
fn names(config: &Config, shared: &Shared) -> Vec<String> {
    let entries = SECTIONS.iter().flat_map(|section| (section.make)(config, shared));
    let mut names: Vec<_> = entries.flat_map(|entry| [entry.spec.name.to_owned(), entry.spec.id()]).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Begins to watch a server that has come to this host.
async fn join(
    server: Watched,
    config: &mut Config,
    roster: &mut Roster,
    control: &mpsc::Sender<Control>,
    shared: &Shared,
) -> anyhow::Result<()> {
    tracing::info!(instance = server.instance.as_deref(), "a database server has come to this host");
    let mut entries = mysql::modules(std::slice::from_ref(&server));
    entries.push(telemetry::of_server(shared, &server));
    config.mysql.push(server);
    config.mysql.sort_by(|a, b| a.instance.cmp(&b.instance));
    roster.add(entries, config);
    control.send(Control::Redefine).await.context("the agent is stopping")
}

/// Reads the configuration again and puts into force what differs.
async fn reload(
    flags: &Flags,
    old: &Config,
    roster: &mut Roster,
    control: &mpsc::Sender<Control>,
    shared: &Shared,
) -> anyhow::Result<Config> {
    let new = Config::load(flags)?;
    new.check_modules(names(&new, shared).iter().map(String::as_str))?;
    new.target.check()?;
    if (&new.state_dir, new.spool_bytes, new.log_format) != (&old.state_dir, old.spool_bytes, old.log_format) {
        tracing::warn!("state_dir, spool_bytes and log_format are in force after a restart only");
    }
    if new.log_level != old.log_level {
        logging::change(&new.log_level)?;
    }
    let mut changed = false;
    for section in &SECTIONS {
        let entries = (section.make)(&new, shared);
        // A module that was off and is on now has to be made.
        let begun = entries.iter().any(|entry| new.schedule(&entry.spec).is_some() && !roster.runs(&entry.spec.id()));
        if (section.changed)(old, &new) || begun {
            changed = true;
            roster.replace(section.prefix, entries, &new).await;
        }
    }
    changed |= roster.reschedule(&new).await;
    if changed {
        control.send(Control::Redefine).await.context("the agent is stopping")?;
    }
    // Labels are said where a stream begins.
    if new.target != old.target || new.labels != old.labels || !names_of(&new).eq(names_of(old)) {
        let reconnect = Control::Reconnect { target: new.target.clone(), labels: new.labels.clone() };
        control.send(reconnect).await.context("the agent is stopping")?;
    }
    tracing::info!(modules = shared.modules().len(), "configuration reloaded");
    Ok(new)
}
