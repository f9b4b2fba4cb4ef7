//! Arguments, signals and the exit code.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use lampad_agent::check::Check;
use lampad_agent::config::{Config, Flags, LogFormat};
use lampad_agent::push::Push;
use lampad_agent::{Agent, Signals, logging};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Samples this host and its MySQL/MariaDB and pushes what changes to a Lampad collector
#[derive(Debug, Parser)]
#[command(name = "lampad-agent", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Push(Box<Push>),
    Check(Check),
}

/// How long systemd shall bear with an agent that opens its state directory, in microseconds.
const OPEN_USEC: u32 = 600_000_000;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // The agent shares the machine with a database: one thread does all but what may block, and wakes no other one for it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(run(arguments));
            // A module's blocking read that hangs must not keep the process.
            runtime.shutdown_timeout(Duration::from_millis(100));
            result
        }
        Err(error) => Err(anyhow::Error::new(error).context("cannot start the threads of the agent")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[allow(clippy::print_stderr)] // the log may not have been started
            {
                eprintln!("lampad-agent: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Some(Command::Push(push)) => {
            logging::start(LogFormat::Text, "info")?;
            push.run().await
        }
        Some(Command::Check(check)) => check.run().await,
        None => daemon(arguments.flags).await,
    }
}

async fn daemon(flags: Flags) -> anyhow::Result<()> {
    let config = Config::load(&flags)?;
    logging::start(config.log_format, &config.log_level)?;
    let signals = signals()?;
    // After a long outage a full spool is read first, on a slow disk for minutes.
    notify(&[NotifyState::ExtendTimeoutUsec(OPEN_USEC)]);
    let agent = Agent::build(flags, config)?;
    notify(&[NotifyState::Ready]);
    let watchdog = tokio::spawn(watchdog());
    let result = agent.run(signals).await;
    watchdog.abort();
    result
}

fn signals() -> anyhow::Result<Signals> {
    let stop = CancellationToken::new();
    let (tell, reload) = mpsc::channel(1);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let token = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                // A reload that waits already will read the newest file.
                _ = hang_up.recv() => { let _ = tell.try_send(()); }
            }
        }
        notify(&[NotifyState::Stopping]);
        token.cancel();
    });
    Ok(Signals { stop, reload })
}

/// Tells systemd that the runtime still turns, twice as often as it asks for.
async fn watchdog() {
    let mut usec = 0;
    if !sd_notify::watchdog_enabled(false, &mut usec) {
        return;
    }
    let mut ticks = tokio::time::interval(Duration::from_micros((usec / 2).max(1000)));
    loop {
        ticks.tick().await;
        notify(&[NotifyState::Watchdog]);
    }
}

fn notify(state: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(false, state) {
        tracing::warn!(%error, "cannot tell systemd");
    }
}
