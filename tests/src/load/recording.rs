//! Series as a real server gave them, in a file: what the codecs are measured with.
//!
//! ```text
//! file    zstd of lines: name, tab, then per tick a value and a space; "." for the value of the tick before
//! ```
//! Names are those of the metrics, without labels: these tell of the host. Every series has one value per tick of its group.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use anyhow::Context;

use crate::Api;

/// Level of zstd for files that are written once and kept.
const LEVEL: i32 = 19;

#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    pub name: String,
    pub values: Vec<f64>,
}

/// All samples of the last `seconds` of the series that `selector` selects; those with fewer than two are left out.
pub async fn record(api: &Api, selector: &str, seconds: u64) -> anyhow::Result<Vec<Recorded>> {
    let found = api.instant(&format!("{selector}[{seconds}s]"), None).await?;
    let series = found.into_iter().map(|series| {
        let name = series.label("__name__").to_owned();
        Recorded { name, values: series.samples.iter().map(|sample| sample.value).collect() }
    });
    let mut series: Vec<Recorded> = series.filter(|series| series.values.len() > 1).collect();
    series.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(series)
}

pub fn write(path: &Path, series: &[Recorded]) -> anyhow::Result<()> {
    let file = std::fs::File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut out = zstd::Encoder::new(file, LEVEL)?;
    for Recorded { name, values } in series {
        let mut line = format!("{name}\t");
        let mut before = None;
        for value in values {
            match before.replace(value.to_bits()) {
                Some(same) if same == value.to_bits() => line.push_str(". "),
                // Display gives the shortest text that reads back as the same bits.
                _ => line.push_str(&format!("{value} ")),
            }
        }
        writeln!(out, "{line}")?;
    }
    out.finish()?;
    Ok(())
}

pub fn read(path: &Path) -> anyhow::Result<Vec<Recorded>> {
    let file = std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    BufReader::new(zstd::Decoder::new(file)?).lines().map(|line| parse(&line?)).collect()
}

fn parse(line: &str) -> anyhow::Result<Recorded> {
    let (name, texts) = line.split_once('\t').context("a line without a tab")?;
    let mut values: Vec<f64> = Vec::new();
    for text in texts.split_ascii_whitespace() {
        values.push(match text {
            "." => *values.last().with_context(|| format!("{name}: nothing before the first value"))?,
            text => text.parse().with_context(|| format!("{name}: {text} is no number"))?,
        });
    }
    Ok(Recorded { name: name.to_owned(), values })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("idle.zst");
        let series = |name: &str, values: &[f64]| Recorded { name: name.into(), values: values.to_vec() };
        let wanted = [series("a", &[1.0, 1.0, 0.1, f64::INFINITY, -0.0, 0.0]), series("b", &[5e-324, 1e300])];
        write(&path, &wanted).unwrap();
        let found = read(&path).unwrap();
        assert_eq!(found, wanted);
        assert_eq!(found[0].values[4].to_bits(), (-0.0f64).to_bits());
    }
}
