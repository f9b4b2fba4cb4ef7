//! Metrics that cron jobs and scripts leave in files.
//!
//! Source: `*.prom` files of a directory, in the text exposition format 0.0.4. Off unless a directory is configured.
//! Shape:  the files' own series; `node_textfile_mtime_seconds{file}`; `node_textfile_scrape_error`, 1 when a file was odd.
//!         Parts of histograms and summaries are told under their own names, untyped.
//! Units:  the files' own.
//! Errors: none: a file that is not understood is left out whole, and the error told as a series.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use lampad_proto::v1::MetricType;

use super::reader::Reader;
use super::source::{ModuleResult, names_in};
use crate::module::Desc;
use crate::tick::Tick;

const ERROR: Desc = Desc::gauge("node_textfile_scrape_error", "1 if a file could not be read or understood.");
const MTIME: Desc =
    Desc::gauge("node_textfile_mtime_seconds", "When the file was last written, in seconds since 1970.")
        .labels(&["file"]);

/// Longest file that is taken; a script gone wild must not fill the agent's memory.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Different sets of label names that are taken. Each is kept for the life of the program, as [`Desc`] wants it.
const LABEL_SETS_MAX: usize = 1000;

pub struct TextFile {
    dir: Option<PathBuf>,
    label_sets: HashSet<&'static [&'static str]>,
}

/// One line of a file.
struct Sample {
    desc: Desc,
    labels: Vec<String>,
    value: f64,
}

impl TextFile {
    pub fn new(dir: Option<PathBuf>) -> Self {
        Self { dir, label_sets: HashSet::new() }
    }

    fn read_file(&mut self, path: &Path) -> Option<(Vec<Sample>, f64)> {
        // A pipe of that name would be waited for.
        let about = fs::metadata(path).ok().filter(|about| about.is_file() && about.len() <= FILE_BYTES_MAX)?;
        let samples = self.parse(&fs::read_to_string(path).ok()?)?;
        let modified = about.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some((samples, modified.as_secs_f64()))
    }

    /// `None` when a line is odd.
    fn parse(&mut self, text: &str) -> Option<Vec<Sample>> {
        let (mut helps, mut kinds) = (HashMap::new(), HashMap::new());
        let mut samples = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Some(comment) = line.strip_prefix('#') {
                let (word, rest) = comment.trim_start().split_once(' ').unwrap_or_default();
                let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                match word {
                    "HELP" => drop(helps.insert(name, rest)),
                    "TYPE" => drop(kinds.insert(name, rest.trim())),
                    _ => {}
                }
                continue;
            }
            let (name, labels, rest) = split_series(line)?;
            let mut words = rest.split_ascii_whitespace();
            let value = number(words.next()?)?;
            // A time of its own would be another tick; node_exporter refuses it too.
            if words.next().is_some() {
                return None;
            }
            let kind = match kinds.get(name).copied() {
                Some("counter") => MetricType::Counter,
                Some("gauge") => MetricType::Gauge,
                _ => MetricType::Unknown,
            };
            let (names, labels): (Vec<&str>, Vec<String>) = labels.into_iter().unzip();
            let help = helps.get(name).copied().filter(|help| !help.is_empty()).unwrap_or("Metric of a text file.");
            let desc = Desc::named(kind, name.to_owned(), help.to_owned()).labels(self.label_set(&names)?);
            samples.push(Sample { desc, labels, value });
        }
        Some(samples)
    }

    fn label_set(&mut self, names: &[&str]) -> Option<&'static [&'static str]> {
        if let Some(known) = self.label_sets.iter().find(|known| **known == names) {
            return Some(known);
        }
        if self.label_sets.len() >= LABEL_SETS_MAX {
            return None;
        }
        let names: Vec<&'static str> = names.iter().map(|name| &*Box::leak(Box::<str>::from(*name))).collect();
        let set: &'static [&'static str] = Box::leak(names.into_boxed_slice());
        self.label_sets.insert(set);
        Some(set)
    }
}

impl Reader for TextFile {
    fn descs(&self) -> Vec<Desc> {
        vec![ERROR, MTIME]
    }

    fn read(&mut self, out: &mut Tick) -> ModuleResult {
        let mut failed = false;
        if let Some(dir) = self.dir.clone() {
            let names = names_in(&dir).unwrap_or_else(|_| {
                failed = true;
                Vec::new()
            });
            for name in names.iter().filter(|name| name.ends_with(".prom")) {
                let path = dir.join(name);
                match self.read_file(&path) {
                    None => failed = true,
                    Some((samples, modified)) => {
                        for sample in &samples {
                            let labels: Vec<&str> = sample.labels.iter().map(String::as_str).collect();
                            out.push(&sample.desc, &labels, sample.value);
                        }
                        out.push(&MTIME, &[&path.to_string_lossy()], modified);
                    }
                }
            }
        }
        out.push(&ERROR, &[], if failed { 1.0 } else { 0.0 });
        Ok(())
    }
}

type Labels<'a> = Vec<(&'a str, String)>;

/// Name, labels, and what follows them.
fn split_series(line: &str) -> Option<(&str, Labels<'_>, &str)> {
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))?;
    let (name, mut rest) = line.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let mut labels = Vec::new();
    if let Some(inner) = rest.trim_start().strip_prefix('{') {
        rest = inner.trim_start();
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once('=')?;
            let (value, after) = quoted(after.trim_start().strip_prefix('"')?)?;
            labels.push((label.trim(), value));
            rest = after.trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
        }
        rest = &rest[1..];
    }
    Some((name, labels, rest))
}

/// A label's value up to its closing quote, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        _ => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tree, dump};
    use super::*;

    fn told(files: &[(&str, &str)]) -> Vec<String> {
        let tree = Tree::new(files);
        let lines = dump(&mut TextFile::new(Some(tree.path().into())));
        lines.into_iter().filter(|line| !line.starts_with("node_textfile_mtime")).collect()
    }

    #[test]
    fn files_are_told_and_odd_ones_left_out() {
        let text = "# HELP backup_ok Went well.\n# TYPE backup_ok gauge\nbackup_ok{db=\"a \\\"b\\\"\", to=\"s3\",} 1\nlast 1.5e3\nup_to{} +Inf\n";
        assert_eq!(
            told(&[("a.prom", text), ("b.txt", "x 1\n")]),
            [r#"backup_ok{db="a \"b\"",to="s3"} 1"#, "last 1500", "node_textfile_scrape_error 0", "up_to inf"]
        );
        for odd in ["x\n", "x{a=1} 1\n", "x{a=\"1} 1\n", "x one\n", "x 1 1700000000\n", "1x 1\n"] {
            assert_eq!(
                told(&[("a.prom", odd), ("b.prom", "ok 1\n")]),
                ["node_textfile_scrape_error 1", "ok 1"],
                "{odd}"
            );
        }
        assert_eq!(dump(&mut TextFile::new(None)), ["node_textfile_scrape_error 0"]);
        assert_eq!(dump(&mut TextFile::new(Some("/no/such/dir".into()))), ["node_textfile_scrape_error 1"]);
    }

    #[test]
    fn types_come_from_the_file_and_label_sets_are_shared() {
        let mut module = TextFile::new(None);
        let samples =
            module.parse("# TYPE jobs_total counter\njobs_total{a=\"1\"} 1\njobs_total{a=\"2\"} 2\n").unwrap();
        assert_eq!(samples[0].desc.kind, MetricType::Counter);
        assert_eq!(module.label_sets.len(), 1);
    }
}
