//! Processes and threads by state. Off by default, as with node_exporter: it reads a file per thread.
//!
//! Source: `/proc/[pid]/stat`, `/proc/[pid]/task/[tid]/stat` through procfs, `/proc/sys/kernel/{threads-max,pid_max}`.
//! Shape:  `node_processes_state{state}`, `node_processes_threads_state{thread_state}`, four without labels.
//! Units:  processes and threads.
//! Errors: `Absent` without procfs; a process that ends meanwhile is left out.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use procfs::FromRead;
use procfs::process::Stat;

use super::reader::Reader;
use super::source::{ModuleResult, ProcFile, names_in, parse_decimal, parse_error};
use crate::module::Desc;
use crate::tick::Tick;

const PIDS: Desc = Desc::gauge("node_processes_pids", "Processes there are.");
const THREADS: Desc = Desc::gauge("node_processes_threads", "Threads there are.");
const STATE: Desc = Desc::gauge("node_processes_state", "Processes in each state.").labels(&["state"]);
const THREADS_STATE: Desc =
    Desc::gauge("node_processes_threads_state", "Threads in each state.").labels(&["thread_state"]);
const MAX_THREADS: Desc = Desc::gauge("node_processes_max_threads", "Threads there can be.");
const MAX_PROCESSES: Desc = Desc::gauge("node_processes_max_processes", "Process numbers there can be.");

pub struct Processes {
    procfs: PathBuf,
    max_threads: ProcFile,
    max_processes: ProcFile,
}

impl Processes {
    pub fn new(procfs: &Path) -> Self {
        Self {
            procfs: procfs.into(),
            max_threads: ProcFile::new(procfs.join("sys/kernel/threads-max")),
            max_processes: ProcFile::new(procfs.join("sys/kernel/pid_max")),
        }
    }
}

impl Reader for Processes {
    fn descs(&self) -> Vec<Desc> {
        vec![PIDS, THREADS, STATE, THREADS_STATE, MAX_THREADS, MAX_PROCESSES]
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let (mut pids, mut threads) = (0.0, 0.0);
        let mut states: BTreeMap<char, f64> = BTreeMap::new();
        let mut thread_states: BTreeMap<char, f64> = BTreeMap::new();
        for pid in names_in(&self.procfs)?.iter().filter(|name| is_number(name)) {
            let dir = self.procfs.join(pid);
            let Some(stat) = stat(&dir) else { continue };
            pids += 1.0;
            threads += stat.num_threads as f64;
            *states.entry(stat.state).or_default() += 1.0;
            for tid in names_in(&dir.join("task")).unwrap_or_default().iter().filter(|name| is_number(name)) {
                // The main thread's state is the process's, read already.
                let state = if tid == pid {
                    Some(stat.state)
                } else {
                    self::stat(&dir.join("task").join(tid)).map(|s| s.state)
                };
                if let Some(state) = state {
                    *thread_states.entry(state).or_default() += 1.0;
                }
            }
        }
        out.push(&PIDS, &[], pids);
        out.push(&THREADS, &[], threads);
        for (desc, counts) in [(&STATE, &states), (&THREADS_STATE, &thread_states)] {
            for (state, count) in counts {
                out.push(desc, &[state.encode_utf8(&mut [0; 4])], *count);
            }
        }
        for (file, desc) in [(&mut self.max_threads, &MAX_THREADS), (&mut self.max_processes, &MAX_PROCESSES)] {
            let value = parse_decimal(file.text()?.trim());
            out.push(desc, &[], value.ok_or_else(|| parse_error(file.path(), "it holds no number"))?);
        }
        Ok(())
    }
}

fn stat(dir: &Path) -> Option<Stat> {
    Stat::from_read(fs::File::open(dir.join("stat")).ok()?).ok()
}

fn is_number(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    fn line(pid: u32, state: char, threads: u32) -> String {
        format!(
            "{pid} (a (b) c) {state} 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 {threads} 0 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0\n"
        )
    }

    #[test]
    fn states_are_counted() {
        let tree = Tree::new(&[
            ("1/stat", &line(1, 'S', 2)),
            ("1/task/1/stat", &line(1, 'S', 2)),
            ("1/task/7/stat", &line(7, 'R', 2)),
            ("9/stat", "gone"),
            ("sys/kernel/threads-max", "7801\n"),
            ("sys/kernel/pid_max", "123\n"),
        ]);
        assert_eq!(
            dump(&mut Processes::new(tree.path())),
            [
                "node_processes_max_processes 123",
                "node_processes_max_threads 7801",
                "node_processes_pids 1",
                r#"node_processes_state{state="S"} 1"#,
                "node_processes_threads 2",
                r#"node_processes_threads_state{thread_state="R"} 1"#,
                r#"node_processes_threads_state{thread_state="S"} 1"#,
            ]
        );
    }
}
