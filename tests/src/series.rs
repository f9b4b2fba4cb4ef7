//! Looking at the times of samples: for real agents, whose values nobody knows beforehand.

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
    let missing: i64 = gaps.iter().map(|(_, ticks)| ticks).sum();
    if missing > 0 {
        let counter = format!("lampad_module_skipped_ticks_total{{module=\"host.loadavg\",instance=\"{instance}\"}}");
        let skipped = increase(&samples(api, &counter, 300).await?);
        ensure!(missing as f64 <= skipped, "{missing} ticks are missing ({gaps:?}), and {skipped} were skipped");
    }
    Ok(())
}

/// How many ticks are missing behind which times.
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
