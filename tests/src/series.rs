//! Looking at the times of samples: for real agents, whose values nobody knows beforehand.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};

use crate::{Api, Sample};

/// All samples of the one series that `selector` names, over the last `seconds`.
pub async fn samples(api: &Api, selector: &str, seconds: u64) -> anyhow::Result<Vec<Sample>> {
    let mut found = api.instant(&format!("{selector}[{seconds}s]"), None).await?;
    ensure!(found.len() <= 1, "{selector} selects {} series, not one", found.len());
    Ok(found.pop().map(|series| series.samples).unwrap_or_default())
}

/// Refuses samples of an agent's `node_load1` of which one comes twice or is missing. An agent that gets no processor skips
/// ticks and counts them: those it may lack.
pub async fn without_gap(api: &Api, instance: &str, found: &[Sample], interval_ms: i64) -> anyhow::Result<()> {
    let gaps = gaps(found, interval_ms)?;
    let missing = missing(found, interval_ms);
    if missing > 0 {
        let counter = format!("lampad_module_skipped_ticks_total{{module=\"host.loadavg\",instance=\"{instance}\"}}");
        let skipped = increase(&samples(api, &counter, 300).await?);
        ensure!(missing as f64 <= skipped, "{missing} ticks are missing ({gaps:?}), and {skipped} were skipped");
    }
    Ok(())
}

/// How many ticks are missing in all. Not the sum of the gaps: a tick that is late has a long step before it and a short one behind,
/// and counts for the moment at which it was due. Which moments these are the ticks tell that were in time, and those leave the
/// fewest missing.
fn missing(samples: &[Sample], interval_ms: i64) -> i64 {
    // The first one is of the agent's start, and not in step with those that follow.
    let times: Vec<i64> = samples.iter().skip(1).map(|sample| sample.timestamp_ms).collect();
    let phases: BTreeSet<i64> = times.iter().map(|time| time.rem_euclid(interval_ms)).collect();
    let missing_at = |phase: i64| {
        let due: BTreeSet<i64> = times.iter().map(|time| (time - phase).div_euclid(interval_ms)).collect();
        due.last().zip(due.first()).map_or(0, |(last, first)| last - first + 1 - due.len() as i64)
    };
    phases.into_iter().map(missing_at).min().unwrap_or(0)
}

/// How many ticks seem to be missing behind which times.
fn gaps(samples: &[Sample], interval_ms: i64) -> anyhow::Result<Vec<(i64, i64)>> {
    ensure!(samples.len() > 1, "{} samples are no series", samples.len());
    let mut gaps = Vec::new();
    for pair in samples.windows(2) {
        let step = pair[1].timestamp_ms - pair[0].timestamp_ms;
        ensure!(step > 0, "two samples at {}", pair[0].timestamp_ms);
        if step * 2 > interval_ms * 3 {
            gaps.push((pair[0].timestamp_ms, (step + interval_ms / 2) / interval_ms - 1));
        }
    }
    Ok(gaps)
}

/// What a counter has counted since its first sample began at zero, over the restarts of its program.
fn increase(samples: &[Sample]) -> f64 {
    let first = samples.first().map_or(0.0, |first| first.value);
    let steps = samples.windows(2).map(|pair| match pair[1].value - pair[0].value {
        step if step < 0.0 => pair[1].value,
        step => step,
    });
    first + steps.sum::<f64>()
}

/// Time from one sample to the next, as most of them have it.
pub fn usual_interval_ms(samples: &[Sample]) -> anyhow::Result<i64> {
    let mut steps: Vec<i64> = samples.windows(2).map(|pair| pair[1].timestamp_ms - pair[0].timestamp_ms).collect();
    steps.sort_unstable();
    steps.get(steps.len() / 2).copied().context("one sample has no interval")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(times: &[i64]) -> Vec<Sample> {
        times.iter().map(|&timestamp_ms| Sample { timestamp_ms, value: 1.0 }).collect()
    }

    #[test]
    fn gaps_and_doubles_are_found() {
        assert_eq!(gaps(&at(&[0, 250, 510, 750]), 250).unwrap(), []);
        assert_eq!(gaps(&at(&[0, 250, 750, 1000, 1731]), 250).unwrap(), [(250, 1), (1000, 2)]);
        assert_eq!(missing(&at(&[7, 250, 750, 1000, 1731]), 250), 2);
        assert_eq!(missing(&at(&[7, 250, 640, 750, 1000]), 250), 0, "one was late");
        assert_eq!(missing(&at(&[7, 250, 537, 787, 1000, 1287]), 250), 0, "most were late, by as much");
        assert!(gaps(&at(&[0, 250, 250, 500]), 250).is_err());
        assert!(gaps(&at(&[0]), 250).is_err());
        assert_eq!(usual_interval_ms(&at(&[0, 250, 750, 1000])).unwrap(), 250);
    }

    #[test]
    fn a_counter_goes_on_after_a_restart() {
        let values =
            |values: &[f64]| -> Vec<Sample> { values.iter().map(|&value| Sample { timestamp_ms: 0, value }).collect() };
        assert_eq!(increase(&values(&[2.0, 2.0, 5.0, 1.0, 1.0, 2.0])), 7.0);
        assert_eq!(increase(&[]), 0.0);
    }
}
