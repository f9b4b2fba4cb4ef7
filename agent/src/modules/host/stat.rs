//! CPU time per core and mode, interrupts, context switches, forks, tasks that run or wait, and when the host started.
//!
//! Source: `/proc/stat`, see proc_stat(5). Read by hand: one vital read feeds two exporter collectors (`cpu` and `stat`),
//!         and procfs would turn the interrupt line, thousands of numbers on large hosts, into a vector each time.
//! Shape:  `node_cpu_seconds_total{cpu,mode}`, `node_cpu_guest_seconds_total{cpu,mode}` and six without labels.
//! Units:  seconds; the file counts ticks of `CLK_TCK`. Guest time is also part of `user` and `nice`.
//! Errors: `Parse` for a CPU line without numbers; a line that this kernel lacks is left out.

use std::path::Path;

use super::reader::Reader;
use super::source::{ProcFile, parse_decimal, parse_error};
use crate::module::{Desc, ModuleError};
use crate::tick::Tick;

const CPU: Desc =
    Desc::counter("node_cpu_seconds_total", "Time that each CPU spent in each mode.").labels(&["cpu", "mode"]);
const GUEST: Desc =
    Desc::counter("node_cpu_guest_seconds_total", "Time that each CPU spent running guests, by the guest's mode.")
        .labels(&["cpu", "mode"]);
const SOFTIRQS: Desc =
    Desc::counter("node_softirqs_total", "Soft interrupts served since the start.").labels(&["vector"]);

/// First word of the line, its family. The first number of the line is the value.
const TOTALS: &[(&str, Desc)] = &[
    ("intr", Desc::counter("node_intr_total", "Interrupts served since the start.")),
    ("ctxt", Desc::counter("node_context_switches_total", "Context switches since the start.")),
    ("btime", Desc::gauge("node_boot_time_seconds", "When the host started, in seconds since 1970.")),
    ("processes", Desc::counter("node_forks_total", "Processes and threads created since the start.")),
    ("procs_running", Desc::gauge("node_procs_running", "Tasks that run or could run.")),
    ("procs_blocked", Desc::gauge("node_procs_blocked", "Tasks that wait for a disk.")),
];

const MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];
const GUEST_MODES: [&str; 2] = ["user", "nice"];
const IDLE: usize = 3;
const FIELDS: usize = MODES.len() + GUEST_MODES.len();
const VECTORS: [&str; 10] =
    ["hi", "timer", "net_tx", "net_rx", "block", "block_iopoll", "tasklet", "sched", "hrtimer", "rcu"];

/// Idle time that goes back by this much means a CPU that was taken out and put back: its counters begin anew.
const RESET_SECONDS: f64 = 3.0;

pub struct Stat {
    file: ProcFile,
    ticks_per_second: f64,
    softirqs: bool,
    cpus: Vec<Cpu>,
}

struct Cpu {
    name: String,
    fields: [f64; FIELDS],
}

impl Stat {
    pub fn new(procfs: &Path, softirqs: bool) -> Self {
        Self {
            file: ProcFile::new(procfs.join("stat")),
            ticks_per_second: procfs::ticks_per_second() as f64,
            softirqs,
            cpus: Vec::new(),
        }
    }
}

impl Reader for Stat {
    fn descs(&self) -> Vec<Desc> {
        [CPU, GUEST, SOFTIRQS].into_iter().chain(TOTALS.iter().map(|(_, desc)| desc.clone())).collect()
    }

    fn read(&mut self, out: &mut Tick) -> Result<(), ModuleError> {
        let path = self.file.path().to_owned();
        let text = self.file.text()?;
        let mut seen = 0;
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let Some(key) = words.next() else { continue };
            if let Some(number) = key.strip_prefix("cpu") {
                if !number.is_empty() {
                    let now = fields(words, self.ticks_per_second)
                        .ok_or_else(|| parse_error(&path, format!("no numbers in {line:?}")))?;
                    remember(&mut self.cpus, seen, number, now).push(out);
                    seen += 1;
                }
            } else if key == "softirq" {
                if self.softirqs {
                    for (vector, count) in VECTORS.iter().zip(words.skip(1)) {
                        out.push(&SOFTIRQS, &[vector], parse_decimal(count).unwrap_or(0.0));
                    }
                }
            } else if let Some((_, desc)) = TOTALS.iter().find(|(name, _)| *name == key)
                && let Some(value) = words.next().and_then(parse_decimal)
            {
                out.push(desc, &[], value);
            }
        }
        if seen == 0 {
            return Err(parse_error(&path, "it names no CPU"));
        }
        self.cpus.truncate(seen);
        Ok(())
    }
}

/// Seconds per mode. Kernels before 2.6.33 have fewer columns; those are zero.
fn fields<'a>(words: impl Iterator<Item = &'a str>, ticks_per_second: f64) -> Option<[f64; FIELDS]> {
    let mut fields = [0.0; FIELDS];
    let mut count = 0;
    for (field, word) in fields.iter_mut().zip(words) {
        *field = parse_decimal(word)? / ticks_per_second;
        count += 1;
    }
    (count > IDLE).then_some(fields)
}

/// Idle and iowait go back a little on many kernels; a counter must not, so each keeps the highest that it had.
fn remember<'a>(cpus: &'a mut Vec<Cpu>, at: usize, name: &str, now: [f64; FIELDS]) -> &'a Cpu {
    if cpus.get(at).is_none_or(|cpu| cpu.name != name || cpu.fields[IDLE] - now[IDLE] >= RESET_SECONDS) {
        cpus.truncate(at);
        cpus.push(Cpu { name: name.to_owned(), fields: now });
    } else {
        for (field, now) in cpus[at].fields.iter_mut().zip(now) {
            *field = field.max(now);
        }
    }
    &cpus[at]
}

impl Cpu {
    fn push(&self, out: &mut Tick) {
        let (modes, guests) = self.fields.split_at(MODES.len());
        for (mode, seconds) in MODES.iter().zip(modes) {
            out.push(&CPU, &[&self.name, mode], *seconds);
        }
        for (mode, seconds) in GUEST_MODES.iter().zip(guests) {
            out.push(&GUEST, &[&self.name, mode], *seconds);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    const TEXT: &str = "cpu  30 0 30 300 3 0 0 0 0 0\ncpu0 10 0 10 100 1 0 0 0 0 0\ncpu3 20 0 20 200 2 1 2 3 4 5\n\
        intr 77 1 2 3\nctxt 88\nbtime 1700000000\nprocesses 99\nprocs_running 2\nprocs_blocked 1\nsoftirq 9 1 2\nnew 1\n";

    #[test]
    fn every_core_and_total_is_told() {
        let tree = Tree::new(&[("stat", TEXT)]);
        let got = dump(&mut Stat::new(tree.path(), true));
        for line in [
            r#"node_cpu_seconds_total{cpu="0",mode="idle"} 1"#,
            r#"node_cpu_seconds_total{cpu="3",mode="steal"} 0.03"#,
            r#"node_cpu_guest_seconds_total{cpu="3",mode="nice"} 0.05"#,
            "node_intr_total 77",
            "node_context_switches_total 88",
            "node_boot_time_seconds 1700000000",
            "node_forks_total 99",
            "node_procs_running 2",
            "node_procs_blocked 1",
            r#"node_softirqs_total{vector="timer"} 2"#,
        ] {
            assert!(got.contains(&line.to_owned()), "{line} not in {got:#?}");
        }
        assert_eq!(got.len(), 2 * 10 + 6 + 2);
    }

    #[test]
    fn idle_does_not_go_back_unless_the_core_is_new() {
        let tree = Tree::new(&[("stat", "cpu0 1 0 0 1000 50\n")]);
        let mut stat = Stat::new(tree.path(), false);
        dump(&mut stat);
        tree.write("stat", "cpu0 2 0 0 900 49\n");
        let got = dump(&mut stat);
        assert!(got.contains(&r#"node_cpu_seconds_total{cpu="0",mode="idle"} 10"#.to_owned()));
        assert!(got.contains(&r#"node_cpu_seconds_total{cpu="0",mode="iowait"} 0.5"#.to_owned()));
        tree.write("stat", "cpu0 0 0 0 100 0\n");
        let got = dump(&mut stat);
        assert!(got.contains(&r#"node_cpu_seconds_total{cpu="0",mode="idle"} 1"#.to_owned()), "reset after 3 s back");
        assert!(got.contains(&r#"node_cpu_seconds_total{cpu="0",mode="user"} 0"#.to_owned()));
    }

    #[test]
    fn odd_text_is_refused() {
        for text in ["", "cpu0 a b c d\n", "cpu0 1 2\n"] {
            let tree = Tree::new(&[("stat", text)]);
            let result = Stat::new(tree.path(), false).read(&mut Tick::new());
            assert!(matches!(result, Err(ModuleError::Parse { .. })), "{text:?}: {result:?}");
        }
    }
}
