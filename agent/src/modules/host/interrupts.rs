//! Interrupts and soft interrupts by CPU. Off by default: a series for each kind and CPU.
//!
//! Source: `/proc/interrupts`, `/proc/softirqs`: a heading of CPUs, then a line per kind.
//! Shape:  `node_interrupts_total{cpu,type,info,devices}`, `node_softirqs_functions_total{cpu,type}`.
//! Units:  interrupts since the start.
//! Errors: `Parse` without the heading; a line without a number per CPU (`ERR`, `MIS`) is left out.

use std::path::Path;

use super::reader::Reader;
use super::source::{ModuleResult, ProcFile, parse_decimal, parse_error};
use crate::module::Desc;
use crate::tick::Tick;

const HARD: Desc = Desc::counter("node_interrupts_total", "Interrupts served by each CPU.")
    .labels(&["cpu", "type", "info", "devices"]);
const SOFT: Desc =
    Desc::counter("node_softirqs_functions_total", "Soft interrupts served by each CPU.").labels(&["cpu", "type"]);

pub struct Interrupts {
    file: ProcFile,
    soft: bool,
}

impl Interrupts {
    pub fn hard(procfs: &Path) -> Self {
        Self { file: ProcFile::new(procfs.join("interrupts")), soft: false }
    }

    pub fn soft(procfs: &Path) -> Self {
        Self { file: ProcFile::new(procfs.join("softirqs")), soft: true }
    }
}

impl Reader for Interrupts {
    fn descs(&self) -> Vec<Desc> {
        vec![if self.soft { SOFT } else { HARD }]
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let path = self.file.path().to_owned();
        let mut lines = self.file.text()?.lines();
        let heading = lines.next().unwrap_or_default();
        let cpus: Vec<&str> = heading.split_ascii_whitespace().filter_map(|word| word.strip_prefix("CPU")).collect();
        if cpus.is_empty() {
            return Err(parse_error(&path, "its first line names no CPU"));
        }
        for line in lines {
            let Some((kind, rest)) = line.split_once(':') else { continue };
            let kind = kind.trim();
            let words: Vec<&str> = rest.split_ascii_whitespace().collect();
            let (counts, words) = words.split_at(cpus.len().min(words.len()));
            if counts.len() < cpus.len() || counts.iter().any(|count| parse_decimal(count).is_none()) {
                continue;
            }
            // A numbered interrupt names its controller, then its devices; the others just say what they are.
            let (info, devices) = match words.split_first() {
                Some((controller, devices)) if kind.parse::<u32>().is_ok() => {
                    ((*controller).to_owned(), devices.join(" "))
                }
                _ => (words.join(" "), String::new()),
            };
            for (cpu, count) in cpus.iter().zip(counts) {
                let count = parse_decimal(count).unwrap_or(0.0);
                match self.soft {
                    true => out.push(&SOFT, &[cpu, kind], count),
                    false => out.push(&HARD, &[cpu, kind, &info, &devices], count),
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    #[test]
    fn lines_by_kind_and_cpu() {
        let tree = Tree::new(&[
            (
                "interrupts",
                "           CPU0       CPU2\n  0:   18  3   IR-IO-APIC   2-edge   timer\nNMI:  1 2  Non-maskable interrupts\nERR:  0\n",
            ),
            ("softirqs", "  CPU0 CPU2\n HI: 7 1\n"),
        ]);
        assert_eq!(
            dump(&mut Interrupts::hard(tree.path())),
            [
                r#"node_interrupts_total{cpu="0",type="0",info="IR-IO-APIC",devices="2-edge timer"} 18"#,
                r#"node_interrupts_total{cpu="0",type="NMI",info="Non-maskable interrupts",devices=""} 1"#,
                r#"node_interrupts_total{cpu="2",type="0",info="IR-IO-APIC",devices="2-edge timer"} 3"#,
                r#"node_interrupts_total{cpu="2",type="NMI",info="Non-maskable interrupts",devices=""} 2"#,
            ]
        );
        assert_eq!(
            dump(&mut Interrupts::soft(tree.path())),
            [
                r#"node_softirqs_functions_total{cpu="0",type="HI"} 7"#,
                r#"node_softirqs_functions_total{cpu="2",type="HI"} 1"#
            ]
        );
    }
}
