//! Looking at the times of samples: for real agents, whose values nobody knows beforehand.

use anyhow::{Context, ensure};

use crate::{Api, Sample};

/// All samples of the one series that `selector` names, over the last `seconds`.
pub async fn samples(api: &Api, selector: &str, seconds: u64) -> anyhow::Result<Vec<Sample>> {
    let mut found = api.instant(&format!("{selector}[{seconds}s]"), None).await?;
    ensure!(found.len() <= 1, "{selector} selects {} series, not one", found.len());
    Ok(found.pop().map(|series| series.samples).unwrap_or_default())
}

/// Refuses a time that comes twice, and a pause longer than one and a half intervals.
pub fn without_gap(samples: &[Sample], interval_ms: i64) -> anyhow::Result<()> {
    ensure!(samples.len() > 1, "{} samples are no series", samples.len());
    for pair in samples.windows(2) {
        let step = pair[1].timestamp_ms - pair[0].timestamp_ms;
        ensure!(step > 0, "two samples at {}", pair[0].timestamp_ms);
        ensure!(step * 2 <= interval_ms * 3, "a gap of {step} ms at {}", pair[0].timestamp_ms);
    }
    Ok(())
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
        assert!(without_gap(&at(&[0, 250, 510, 750]), 250).is_ok());
        assert!(without_gap(&at(&[0, 250, 750]), 250).is_err());
        assert!(without_gap(&at(&[0, 250, 250, 500]), 250).is_err());
        assert!(without_gap(&at(&[0]), 250).is_err());
        assert_eq!(usual_interval_ms(&at(&[0, 250, 750, 1000])).unwrap(), 250);
    }
}
