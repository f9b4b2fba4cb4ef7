//! A real agent on this host, pushing to a collector of the test's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use crate::{Process, Program};

pub struct Agent {
    pub process: Process,
    program: Program,
    state: PathBuf,
    directory: Arc<TempDir>,
}

impl Agent {
    /// Pushes this host to `collector` (`http://HOST:PORT`) as instance `instance`; no MySQL unless `args` name one.
    pub fn start(collector: &str, instance: &str, args: &[&str]) -> anyhow::Result<Self> {
        let directory = TempDir::with_prefix("lampad-agent-")?;
        let state = directory.path().join("state");
        Self::on(&state, directory, collector, instance, args)
    }

    /// On a state directory of the caller's choice; logs go to `directory`.
    pub fn on(
        state: &Path,
        directory: TempDir,
        collector: &str,
        instance: &str,
        args: &[&str],
    ) -> anyhow::Result<Self> {
        let program = Self::program(state, directory.path(), collector)?
            .args(["--label", &format!("instance={instance}")])
            .args(args);
        let process = program.start()?;
        Ok(Self { process, program, state: state.into(), directory: Arc::new(directory) })
    }

    /// How it is started; for tests that expect it to refuse.
    pub fn program(state: &Path, logs: &Path, collector: &str) -> anyhow::Result<Program> {
        Ok(Program::ours("lampad-agent", logs.join("agent.log"))?
            .args(["--collector", collector, "--state-dir"])
            .arg(state)
            // `~/.my.cnf` of who runs the tests names a server that is none of theirs.
            .env("HOME", logs))
    }

    /// Starts it again with the same arguments, after it has ended.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.process = self.program.start()?;
        Ok(())
    }

    pub fn state(&self) -> &Path {
        &self.state
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}
