//! Which new series are taken (rule 14): form of the labels, and how many.

use std::collections::HashMap;

use super::{AgentId, Limits, METRIC_NAME, Refused, SeriesKey};

const MINUTE_MS: i64 = 60_000;

/// Series of one agent, now and in this minute.
#[derive(Debug, Default)]
struct Count {
    series: usize,
    minute: i64,
    new: usize,
}

#[derive(Debug, Default)]
pub(super) struct Admission(HashMap<AgentId, Count>);

impl Admission {
    /// Takes one more series of an agent, or says why not. `known` is the number of all series.
    pub fn admit(
        &mut self,
        limits: &Limits,
        agent: AgentId,
        key: &SeriesKey,
        known: usize,
        now_ms: i64,
    ) -> Result<(), Refused> {
        check_labels(limits, key)?;
        let count = self.0.entry(agent).or_default();
        let minute = now_ms.div_euclid(MINUTE_MS);
        if count.minute != minute {
            (count.minute, count.new) = (minute, 0);
        }
        let over = |what: &str, limit: usize| {
            Err(Refused::Limit(format!(
                "{} is over the limit of {limit} {what}; drop labels that vary or raise the limit",
                key.labels
            )))
        };
        if known >= limits.series {
            return over("series in all", limits.series);
        }
        if count.series >= limits.series_per_agent {
            return over("series per agent", limits.series_per_agent);
        }
        if count.new >= limits.new_series_per_minute {
            return over("new series per agent and minute", limits.new_series_per_minute);
        }
        count.series += 1;
        count.new += 1;
        Ok(())
    }

    /// Counts series that were there before a start.
    pub fn restore(&mut self, agent: AgentId, series: usize) {
        self.0.entry(agent).or_default().series += series;
    }

    pub fn release(&mut self, agent: AgentId, series: usize) {
        if let Some(count) = self.0.get_mut(&agent) {
            count.series = count.series.saturating_sub(series);
        }
    }
}

fn check_labels(limits: &Limits, key: &SeriesKey) -> Result<(), Refused> {
    let labels = &key.labels;
    let long = labels.iter().find(|label| label.name.len().max(label.value.len()) > limits.label_bytes);
    if let Some(label) = long {
        let name: String = label.name.chars().take(64).collect();
        return Err(Refused::Limit(format!("label {name:?} is longer than {} bytes; shorten it", limits.label_bytes)));
    }
    if labels.len() > limits.labels_per_series {
        return Err(Refused::Limit(format!("{labels} has more than {} labels; drop some", limits.labels_per_series)));
    }
    if labels.metric().is_none() {
        return Err(Refused::Invalid(format!("{labels} has no metric name; give it label {METRIC_NAME}")));
    }
    if labels.iter().any(|label| label.name.is_empty() || label.name.contains('\0')) {
        return Err(Refused::Invalid(format!("{labels} has a label without a name; name it")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Labels;

    #[test]
    fn what_is_over_a_limit_is_refused_with_the_way_out() {
        let limits =
            Limits { series: 10, series_per_agent: 3, new_series_per_minute: 2, labels_per_series: 2, label_bytes: 8 };
        let mut admission = Admission::default();
        let mut admit = |agent: u8, pairs: &[(&str, &str)], known, now_ms| {
            let key = SeriesKey { labels: Labels::from_pairs(pairs.iter().copied()), meta: None };
            admission.admit(&limits, AgentId([agent; 16]), &key, known, now_ms).map_err(|refused| refused.to_string())
        };
        let name = (METRIC_NAME, "up");
        assert!(admit(1, &[("a", "b")], 0, 0).unwrap_err().contains("no metric name"));
        assert!(admit(1, &[name, ("a", "b"), ("c", "d")], 0, 0).unwrap_err().contains("more than 2 labels"));
        assert!(admit(1, &[name, ("a", "123456789")], 0, 0).unwrap_err().contains("longer than 8 bytes"));
        assert!(admit(1, &[name], 10, 0).unwrap_err().contains("10 series in all"));
        assert_eq!(admit(1, &[name], 0, 0), Ok(()));
        assert_eq!(admit(1, &[name], 0, 0), Ok(()));
        assert!(admit(1, &[name], 0, 0).unwrap_err().contains("2 new series"));
        assert_eq!(admit(2, &[name], 0, 0), Ok(()), "another agent has its own count");
        assert_eq!(admit(1, &[name], 0, MINUTE_MS), Ok(()), "a minute later");
        assert!(admit(1, &[name], 0, MINUTE_MS).unwrap_err().contains("3 series per agent"));
    }
}
