//! `lampad-collector`: arguments, signals and the exit code; the rest is in the library.

use std::num::NonZero;
use std::process::ExitCode;

use clap::Parser;
use lampad_collector::cli::{self, Command};
use lampad_collector::config::{Args, Config, LogFormat};
use lampad_collector::daemon::Daemon;
use lampad_collector::logging;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Columns grow on the threads that take frames, and go on the one that seals; what an allocator keeps of that is a good part of what
/// the collector has resident. Measured when each column grew in a vector of its own, 100,000 series and 3,600 ticks as fast as they
/// come, MiB at the end and after 3 s, and CPU s: jemalloc, set as in `.cargo/config.toml`, 142, 116 and 22; mimalloc 210, 190 and
/// 25. glibc's took half as much CPU again.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Streams and requests have one thread for so many processors. What computes long, and the disk, have threads of their own,
/// and two that take turns at short work wake each other: with one instead of two on two cores, 1,000 agents of 1,000 series took
/// 0.27 instead of 0.31 CPU s per million samples, and remote write 0.58 instead of 0.65; what could be queried when was the same.
const CORES_PER_WORKER: usize = 2;

/// Threads for work that waits or computes long: queries, scrapes, key frames of large servers. The unit allows 512 tasks.
const BLOCKING_THREADS_MAX: usize = 128;

/// Takes what Lampad agents push, stores it, and answers PromQL as Prometheus does.
#[derive(Debug, Parser)]
#[command(name = "lampad-collector", version, about, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(flatten)]
    args: Args,
    #[command(subcommand)]
    command: Option<Command>,
}

fn main() -> ExitCode {
    // The allocator asks for huge pages, and of one in which a single column lives on nothing is given back: a quarter of the
    // resident memory under load, and no CPU was saved by them. A kernel that knows of none has none.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let Arguments { args, command } = Arguments::parse();
    let (ended, trouble) = match command {
        None => (run(args).map(|()| ExitCode::SUCCESS), ExitCode::FAILURE),
        Some(command) => (command_with_log(command), ExitCode::from(cli::TROUBLE)),
    };
    ended.unwrap_or_else(|error| {
        tell(&error);
        trouble
    })
}

/// Warnings of the store go to standard error, beside the command's own words.
fn command_with_log(command: Command) -> anyhow::Result<ExitCode> {
    let _log = logging::init(LogFormat::Text, "error");
    cli::run(command)
}

/// The last words go to standard error as they are: the log may not have begun, or be JSON.
#[allow(clippy::print_stderr)]
fn tell(error: &anyhow::Error) {
    eprintln!("lampad-collector: {}", logging::chain(error.as_ref()));
}

fn run(args: Args) -> anyhow::Result<()> {
    let config = Config::load(&args)?;
    let log = logging::init(config.log_format, &config.log_level);
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(cores.div_ceil(CORES_PER_WORKER))
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()?;
    let ended = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let mut hangup = signal(SignalKind::hangup())?;
        end_on_signals(shutdown.clone())?;
        let daemon = Daemon::start(config, shutdown.clone()).await?;
        loop {
            tokio::select! {
                ended = daemon.ended() => break ended?,
                _ = hangup.recv() => daemon.reload(&args, &log),
            }
        }
        daemon.stop().await
    });
    // A query that still runs must not hold the process.
    runtime.shutdown_background();
    ended
}

fn end_on_signals(shutdown: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        shutdown.cancel();
    });
    Ok(())
}
