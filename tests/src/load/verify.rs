//! The judge: asks the API for every sample of an agent and sorts them by what became of them.

use std::collections::HashMap;
use std::fmt;

use anyhow::Context;

use super::value::{owner, value};
use super::{METRIC, Plan, Record};
use crate::{Api, Series};

/// How many samples met which fate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    /// There once, at their tick, with their value.
    pub right: u64,
    /// Acked, and not there.
    pub lost: u64,
    /// There more than once.
    pub doubled: u64,
    /// A value of the same series that belongs to another tick.
    pub shifted: u64,
    /// What nobody sent: no tick's time, another's value, a series that does not exist.
    pub invented: u64,
}

impl Verdict {
    pub fn is_clean(&self) -> bool {
        self.lost + self.doubled + self.shifted + self.invented == 0 && self.right > 0
    }

    fn add(&mut self, other: Self) {
        self.right += other.right;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.shifted += other.shifted;
        self.invented += other.invented;
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { right, lost, doubled, shifted, invented } = self;
        write!(f, "{right} right, {lost} lost, {doubled} doubled, {shifted} shifted, {invented} invented")
    }
}

/// Judges all samples of these agents. A tick that was sent and not acked may be there or not.
pub async fn verify(api: &Api, records: &[Record]) -> anyhow::Result<Verdict> {
    let mut all = Verdict::default();
    for record in records {
        let instance = Plan::instance(record.agent);
        // From a second before the first tick to a second after the last one: what is there and should not be is found too.
        let end_ms = record.start_ms + record.due as i64 * record.interval_ms + 1000;
        let span_ms = end_ms - record.start_ms + 1000;
        let query = format!("{METRIC}{{instance=\"{instance}\"}}[{span_ms}ms]");
        let found = api.instant(&query, Some(end_ms)).await.with_context(|| format!("samples of {instance}"))?;
        all.add(judge(record, &found));
    }
    Ok(all)
}

fn judge(record: &Record, found: &[Series]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut by_number: HashMap<u32, Vec<&Series>> = HashMap::new();
    for series in found {
        match series.label("series").parse() {
            Ok(number) if number < record.series => by_number.entry(number).or_default().push(series),
            _ => verdict.invented += series.samples.len() as u64,
        }
    }
    for number in 0..record.series {
        let series = by_number.get(&number).map_or(&[][..], Vec::as_slice);
        verdict.add(judge_series(record, number, series));
    }
    verdict
}

fn judge_series(record: &Record, number: u32, found: &[&Series]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut seen = vec![false; record.due as usize];
    for sample in found.iter().flat_map(|series| &series.samples) {
        let since = sample.timestamp_ms - record.start_ms;
        let tick = since / record.interval_ms;
        if since < 0 || since % record.interval_ms != 0 || tick as u64 >= record.due {
            verdict.invented += 1;
        } else if std::mem::replace(&mut seen[tick as usize], true) {
            verdict.doubled += 1;
        } else if sample.value == value(record.agent, number, tick as u64, record.change_percent) {
            verdict.right += 1;
        } else if owner(sample.value) == Some((record.agent, number)) {
            verdict.shifted += 1;
        } else {
            verdict.invented += 1;
        }
    }
    let missing = |tick: &u64| !seen[*tick as usize] && !record.unacked.contains(tick);
    verdict.lost = (0..record.due).filter(missing).count() as u64;
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sample;
    use std::collections::BTreeMap;

    fn record() -> Record {
        Record {
            agent: 3,
            start_ms: 1000,
            interval_ms: 100,
            series: 1,
            change_percent: 100,
            due: 5,
            ..Record::default()
        }
    }

    fn series(number: &str, samples: &[(i64, f64)]) -> Series {
        Series {
            labels: BTreeMap::from([("series".to_owned(), number.to_owned())]),
            samples: samples.iter().map(|&(timestamp_ms, value)| Sample { timestamp_ms, value }).collect(),
        }
    }

    #[test]
    fn each_fate_is_told_apart() {
        let at = |tick: u64| value(3, 0, tick, 100);
        let whole: Vec<(i64, f64)> = (0..5).map(|tick| (1000 + tick * 100, at(tick as u64))).collect();
        let right = Verdict { right: 5, ..Verdict::default() };
        assert_eq!(judge(&record(), &[series("0", &whole)]), right);
        assert!(right.is_clean());

        let lost = judge(&record(), &[series("0", &whole[1..])]);
        assert_eq!(lost, Verdict { right: 4, lost: 1, ..Verdict::default() });
        let unacked = Record { unacked: [0].into(), ..record() };
        assert!(judge(&unacked, &[series("0", &whole[1..])]).is_clean(), "what was not acked may be missing");

        let mut bad = whole.clone();
        bad.push(bad[4]);
        assert_eq!(judge(&record(), &[series("0", &bad)]), Verdict { doubled: 1, ..right });
        let mut bad = whole.clone();
        bad[2].1 = at(1);
        assert_eq!(judge(&record(), &[series("0", &bad)]), Verdict { right: 4, shifted: 1, ..Verdict::default() });
        for (timestamp_ms, value) in [(1250, at(2)), (1500, at(5)), (900, at(0))] {
            let mut bad = whole.clone();
            bad.push((timestamp_ms, value));
            assert_eq!(judge(&record(), &[series("0", &bad)]), Verdict { invented: 1, ..right }, "{timestamp_ms}");
        }
        let foreign = [series("0", &whole), series("1", &whole[..2])];
        assert_eq!(judge(&record(), &foreign), Verdict { invented: 2, ..right });
    }
}
