//! The agents that are known, in a small file beside the data, so that a dead one is still missed after a restart.
//!
//! Source: `agents.json` in the data directory: a version and a list of agents.
//! Shape:  written whole to a temporary file, flushed, and renamed over the old one: a crash leaves the old or the new.
//! Errors: an unreadable file is set aside and named; agents that push make a new one by themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::agent::{Agent, Hello, Module, State, hex};
use super::job::Job;
use crate::store::AgentId;

const NAME: &str = "agents.json";
const VERSION: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum RosterError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} has format {found}, this version knows {VERSION}; run the newer version of lampad-collector", path.display())]
    Newer { path: PathBuf, found: u32 },
    #[error("cannot set the damaged {} aside", path.display())]
    SetAside { path: PathBuf, source: io::Error },
}

#[derive(Serialize, Deserialize)]
struct Roster {
    version: u32,
    #[serde(default)]
    agents: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    id: String,
    #[serde(flatten)]
    hello: Hello,
    #[serde(default)]
    jobs: BTreeSet<Job>,
    #[serde(default)]
    modules: BTreeMap<String, Module>,
    #[serde(default)]
    last_push_ms: i64,
    #[serde(default)]
    clock_shift_ms: i64,
}

/// The agents known when the collector last ran.
pub fn read(dir: &Path) -> Result<Vec<(AgentId, State)>, RosterError> {
    let path = dir.join(NAME);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(RosterError::Read { path, source }),
    };
    let roster: Roster = match serde_json::from_slice(&bytes) {
        Ok(roster) => roster,
        Err(error) => {
            let aside = dir.join("agents.json.damaged");
            fs::rename(&path, &aside).map_err(|source| RosterError::SetAside { path: path.clone(), source })?;
            tracing::error!(%error, path = %path.display(), aside = %aside.display(), "list of agents is damaged: set aside, a new one is begun");
            return Ok(Vec::new());
        }
    };
    if roster.version > VERSION {
        return Err(RosterError::Newer { path, found: roster.version });
    }
    let state = |entry: Entry| {
        let id = unhex(&entry.id)?;
        let mut known = State::known(entry.hello, entry.jobs, entry.modules, entry.last_push_ms);
        // A restart of the collector does not make an agent's clock right: its next ticks belong behind those before.
        known.clock_shift_ms = entry.clock_shift_ms;
        Some((id, known))
    };
    Ok(roster.agents.into_iter().filter_map(state).collect())
}

/// Writes the list so that a crash leaves either the old or the new one.
pub fn write<'a>(dir: &Path, agents: impl IntoIterator<Item = &'a Agent>) -> io::Result<()> {
    let entry = |agent: &Agent| {
        let state = agent.state();
        let (jobs, modules) = (state.jobs, state.modules);
        // One that came just now has pushed nothing yet, and must not count as silent since 1970.
        let last_push_ms = state.last_push_ms.max(state.connected_ms);
        let clock_shift_ms = state.clock_shift_ms;
        Entry { id: hex(agent.id), hello: state.hello, jobs, modules, last_push_ms, clock_shift_ms }
    };
    let roster = Roster { version: VERSION, agents: agents.into_iter().map(entry).collect() };
    let temporary = dir.join("agents.json.new");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec_pretty(&roster)?)?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(NAME))?;
    File::open(dir)?.sync_all()
}

fn unhex(text: &str) -> Option<AgentId> {
    let mut id = [0; 16];
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).ok()?;
    }
    Some(AgentId(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{Attach, Registry};

    #[tokio::test]
    async fn what_was_written_comes_back_and_damage_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).unwrap().is_empty());
        let registry = Registry::new(9, []);
        let hello = Hello { instance: "db\"1".into(), epoch: u64::MAX, ..Hello::default() };
        let peer = ([127, 0, 0, 1], 1).into();
        let id = AgentId([0xab; 16]);
        let lease = registry.attach(Attach { id, hello: hello.clone(), modules: vec![], peer, now_ms: 7000 }).unwrap();
        lease.jobs([Job::at("node", None)].into_iter());
        lease.clock(5000, 4000);
        write(dir.path(), registry.agents().iter().map(|agent| &**agent)).unwrap();

        let known = read(dir.path()).unwrap();
        assert_eq!((known[0].0, &known[0].1.hello), (id, &hello));
        assert_eq!(known[0].1.jobs, [Job::at("node", None)].into());
        assert_eq!(known[0].1.clock_shift_ms, 4000);
        assert_eq!(known[0].1.last_push_ms, 7000, "it came then, and has had no time to push");

        fs::write(dir.path().join(NAME), b"{\"version\":1,\"agents\":[{").unwrap();
        assert!(read(dir.path()).unwrap().is_empty());
        assert!(dir.path().join("agents.json.damaged").exists());

        fs::write(dir.path().join(NAME), b"{\"version\":2}").unwrap();
        assert!(read(dir.path()).unwrap_err().to_string().contains("newer version"));
    }
}
