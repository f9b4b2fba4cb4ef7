//! A program under test: started, watched, signalled, and ended with its test.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

use crate::{binary, until};

/// Lines of a program's log that a failed test shows.
const LOG_LINES_SHOWN: usize = 60;

/// How a program is started. Kept apart from the running [`Process`] so that a test can start the same one again.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    log: PathBuf,
}

impl Program {
    /// One of the workspace's binaries; its output is appended to `log`.
    pub fn ours(name: &str, log: impl Into<PathBuf>) -> anyhow::Result<Self> {
        Ok(Self::at(binary(name)?, log))
    }

    pub fn at(path: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), args: Vec::new(), env: Vec::new(), log: log.into() }
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub fn args(self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The same program, started by another one: `strace`, `nice`, ...
    pub fn under(mut self, wrapper: impl Into<PathBuf>, options: impl IntoIterator<Item = OsString>) -> Self {
        let program = std::mem::replace(&mut self.path, wrapper.into());
        self.args.splice(0..0, options.into_iter().chain([program.into()]));
        self
    }

    fn command(&self) -> anyhow::Result<Command> {
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("cannot open {}", self.log.display()))?;
        let mut command = Command::new(&self.path);
        command.args(&self.args);
        // What the developer's shell has set must not decide what a test sees.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"LAMPAD_")) {
            command.env_remove(name);
        }
        command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").envs(self.env.iter().map(|(k, v)| (k, v)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }

    pub fn start(&self) -> anyhow::Result<Process> {
        let child = self.command()?.spawn().with_context(|| format!("cannot start {}", self.path.display()))?;
        Ok(Process { child, program: self.clone() })
    }

    /// Runs it to its end and gives the exit status and what it printed on both streams.
    pub async fn run(&self, patience: Duration) -> anyhow::Result<(ExitStatus, String)> {
        let before = std::fs::read(&self.log).map_or(0, |log| log.len());
        let mut process = self.start()?;
        let status = process.ended(patience).await?;
        let log = std::fs::read(&self.log)?;
        Ok((status, String::from_utf8_lossy(&log[before..]).into_owned()))
    }
}

/// A running program. Dropping it kills it, and shows the end of its log when the test fails.
#[derive(Debug)]
pub struct Process {
    child: Child,
    program: Program,
}

impl Process {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn log_path(&self) -> &Path {
        &self.program.log
    }

    /// All that it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read(&self.program.log).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    /// The exit status, once it has ended.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        // The child is not reaped before this value is dropped or `ended` returns, so the id cannot be another's.
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("an id beyond i32")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.program.path.display()))
    }

    /// Waits for it to end by itself.
    pub async fn ended(&mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        let what = format!("the end of {}", self.program.path.display());
        let mut status = None;
        until(&what, patience, || {
            status = self.status();
            let ended = status.is_some();
            async move { ended }
        })
        .await
        .with_context(|| format!("its log ends:\n{}", self.log_tail()))?;
        status.context("an ended program has a status")
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, then the exit status; an error when it was not 0 or did not come within `patience`.
    pub async fn terminate(&mut self, patience: Duration) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let status = self.ended(patience).await?;
        if !status.success() {
            bail!("{} answered SIGTERM with {status}; its log ends:\n{}", self.program.path.display(), self.log_tail());
        }
        Ok(())
    }

    /// The last lines of the log.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // strace leaves the program that it traces running when it is killed.
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.id())).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|id| id.parse().ok().and_then(Pid::from_raw)) {
            let _ = kill_process(child, Signal::KILL);
        }
        // Already ended is fine; anything else leaves no better way out of a destructor.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The test runner names its threads after the tests and shows what they print only when they fail; a test that
        // returns an error does not panic, so this cannot ask `panicking`. A bench runs on `main` and stays quiet.
        if std::thread::current().name().is_some_and(|name| name != "main") {
            eprintln!("---- {} ends:\n{}\n----", self.program.log.display(), self.log_tail());
        }
    }
}
