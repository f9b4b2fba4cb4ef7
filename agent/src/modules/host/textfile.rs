//! Metrics that cron jobs and scripts leave in files.
//!
//! Source: `*.prom` files of a directory, in the text exposition format 0.0.4. Off unless a directory is configured.
//! Shape:  the files' own series with their types; `node_textfile_mtime_seconds{file}`; `node_textfile_scrape_error`, 1 when a
//!         file was odd.
//! Units:  the files' own.
//! Errors: none: a file that is not understood is left out whole, and the error told as a series. Which file and line it is
//!         stands in the log, once: whoever wrote the script looks there, and one bad file must not end the others' series.

use std::collections::{BTreeMap, HashMap, HashSet};
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
    /// What is wrong with a file, or with the directory, as it was logged.
    faults: BTreeMap<PathBuf, String>,
}

/// One line of a file.
struct Sample {
    desc: Desc,
    labels: Vec<String>,
    value: f64,
}

impl TextFile {
    pub fn new(dir: Option<PathBuf>) -> Self {
        Self { dir, label_sets: HashSet::new(), faults: BTreeMap::new() }
    }

    fn read_file(&mut self, path: &Path) -> Result<(Vec<Sample>, f64), String> {
        let about = fs::metadata(path).map_err(|error| error.to_string())?;
        // A pipe of that name would be waited for.
        if !about.is_file() || about.len() > FILE_BYTES_MAX {
            return Err(format!("it is no plain file of at most {FILE_BYTES_MAX} bytes"));
        }
        let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
        let samples = self.parse(&text)?;
        let modified = about.modified().map_err(|error| error.to_string())?;
        let since_1970 = modified.duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?;
        Ok((samples, since_1970.as_secs_f64()))
    }

    fn parse(&mut self, text: &str) -> Result<Vec<Sample>, String> {
        let mut told = Told::default();
        let mut samples = Vec::new();
        for (at, line) in text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty()) {
            match line.strip_prefix('#') {
                Some(comment) => told.read(comment),
                None => {
                    let sample = self.sample(line, &told);
                    samples.push(
                        sample.map_err(|fault| format!("line {} {fault}: {:?}", at + 1, lampad_proto::shown(line)))?,
                    );
                }
            }
        }
        Ok(samples)
    }

    fn sample(&mut self, line: &str, told: &Told) -> Result<Sample, &'static str> {
        const ODD: &str = "is not NAME{LABEL=\"VALUE\"} NUMBER";
        let (name, labels, rest) = split_series(line).ok_or(ODD)?;
        let mut words = rest.split_ascii_whitespace();
        let value = words.next().and_then(number).ok_or(ODD)?;
        // It would be another tick; node_exporter refuses it too.
        if words.next().is_some() {
            return Err("has a time of its own");
        }
        let (names, labels): (Vec<&str>, Vec<String>) = labels.into_iter().unzip();
        let names = self.label_set(&names).ok_or("has one set too many of different labels")?;
        let family = told.family(name);
        let desc = Desc::named(told.kind(family), name.to_owned(), told.help(family).to_owned()).labels(names);
        Ok(Sample { desc, labels, value })
    }

    /// Logs what is wrong where that is new, and forgets what is mended.
    fn tell(&mut self, faults: BTreeMap<PathBuf, String>) {
        for (path, fault) in faults.iter().filter(|(path, fault)| self.faults.get(*path) != Some(fault)) {
            tracing::warn!(file = %path.display(), "left out of the metrics of text files: {fault}");
        }
        self.faults = faults;
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
        let mut faults = BTreeMap::new();
        if let Some(dir) = self.dir.clone() {
            let names = names_in(&dir).unwrap_or_else(|error| {
                faults.insert(dir.clone(), with_cause(&error));
                Vec::new()
            });
            for path in names.iter().filter(|name| name.ends_with(".prom")).map(|name| dir.join(name)) {
                match self.read_file(&path) {
                    Err(fault) => drop(faults.insert(path, fault)),
                    Ok((samples, modified)) => push(&path, &samples, modified, out),
                }
            }
        }
        out.push(&ERROR, &[], if faults.is_empty() { 0.0 } else { 1.0 });
        self.tell(faults);
        Ok(())
    }
}

fn push(path: &Path, samples: &[Sample], modified: f64, out: &mut Tick) {
    for sample in samples {
        let labels: Vec<&str> = sample.labels.iter().map(String::as_str).collect();
        out.push(&sample.desc, &labels, sample.value);
    }
    out.push(&MTIME, &[&path.to_string_lossy()], modified);
}

fn with_cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// What comments have said so far.
#[derive(Default)]
struct Told<'a> {
    helps: HashMap<&'a str, &'a str>,
    kinds: HashMap<&'a str, &'a str>,
}

impl<'a> Told<'a> {
    fn read(&mut self, comment: &'a str) {
        let (word, rest) = comment.trim_start().split_once(' ').unwrap_or_default();
        let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        match word {
            "HELP" => drop(self.helps.insert(name, rest)),
            "TYPE" => drop(self.kinds.insert(name, rest.trim())),
            _ => {}
        }
    }

    /// The family of a series of this name: parts of histograms and summaries have names of their own.
    fn family<'n>(&self, name: &'n str) -> &'n str {
        let has_parts = |family: &&str| matches!(self.kinds.get(family), Some(&"histogram" | &"summary"));
        let family = || ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part).filter(has_parts));
        if self.kinds.contains_key(name) { name } else { family().unwrap_or(name) }
    }

    fn kind(&self, family: &str) -> MetricType {
        match self.kinds.get(family).copied() {
            Some("counter") => MetricType::Counter,
            Some("gauge") => MetricType::Gauge,
            Some("histogram") => MetricType::Histogram,
            Some("summary") => MetricType::Summary,
            _ => MetricType::Unknown,
        }
    }

    fn help(&self, family: &str) -> &str {
        self.helps.get(family).filter(|help| !help.is_empty()).unwrap_or(&"Metric of a text file.")
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
        let text = "# HELP h Times.\n# TYPE jobs_total counter\njobs_total{a=\"1\"} 1\njobs_total{a=\"2\"} 2\n\
                    # TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum 2\nh_count 1\n\
                    # TYPE s summary\ns{quantile=\"0.5\"} 1\ns_sum 2\nlast_count 1\n";
        let samples = module.parse(text).unwrap();
        assert_eq!(samples[2].desc.help, "Times.");
        let kinds: Vec<_> = samples.iter().map(|sample| sample.desc.kind).collect();
        use MetricType::{Counter, Histogram, Summary, Unknown};
        assert_eq!(kinds, [Counter, Counter, Histogram, Histogram, Histogram, Summary, Summary, Unknown]);
        assert_eq!(module.label_sets.len(), 4, "a, le, quantile and none");
    }

    /// It was only told that some file was odd.
    #[test]
    fn what_is_wrong_with_a_file_is_named_by_its_line() {
        let parse = |text: &str| TextFile::new(None).parse(text).err().unwrap();
        assert_eq!(parse("a 1\n\nb one\n"), r#"line 3 is not NAME{LABEL="VALUE"} NUMBER: "b one""#);
        assert_eq!(parse("x 1 1700000000\n"), r#"line 1 has a time of its own: "x 1 1700000000""#);
        let tree = Tree::new(&[("a.prom", "x\n"), ("b.prom", "ok 1\n")]);
        let mut module = TextFile::new(Some(tree.path().into()));
        dump(&mut module);
        let faults: Vec<_> = module.faults.keys().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(faults, ["a.prom"]);
        std::fs::write(tree.path().join("a.prom"), "x 1\n").unwrap();
        dump(&mut module);
        assert!(module.faults.is_empty());
        let mut lost = TextFile::new(Some("/no/such/dir".into()));
        dump(&mut lost);
        assert!(lost.faults[Path::new("/no/such/dir")].contains("not on this machine"), "{:?}", lost.faults);
    }
}
