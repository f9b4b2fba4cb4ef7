//! Exemplars: examples of what a sample stands for, such as a trace, each with labels of its own.
//!
//! Shape:  a ring of the newest [`EXEMPLARS_MAX`] over all series, in memory: they point to traces, which are kept for hours.
//!         A restart forgets them, and README says so.
//! Errors: [`NotKept`]; whoever writes goes on, as no sample depends on an exemplar.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Label, Labels, Matcher};

/// As many as Prometheus keeps by default.
pub const EXEMPLARS_MAX: usize = 100_000;
/// Bytes of all of them and of the labels of their series: where those are long, fewer are kept.
const BYTES_MAX: usize = 64 << 20;
/// Letters of names and values of an exemplar's labels together, as OpenMetrics has it.
pub const LABELS_CHARS_MAX: usize = 128;

#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    pub labels: Labels,
    pub value: f64,
    pub timestamp_ms: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotKept {
    #[error("an exemplar's labels have more than {LABELS_CHARS_MAX} letters")]
    TooLong,
    #[error("an exemplar is older than the newest one of its series")]
    OutOfOrder,
}

#[derive(Debug, Default)]
pub struct Exemplars(Mutex<Ring>);

#[derive(Debug, Default)]
struct Ring {
    series: HashMap<Arc<Labels>, VecDeque<Exemplar>>,
    /// Whose exemplar is the oldest, the next one, ...
    order: VecDeque<Arc<Labels>>,
    /// What all of it takes, about.
    bytes: usize,
}

impl Exemplars {
    /// Keeps an exemplar; one that is there already is no error.
    pub fn keep(&self, series: &Labels, exemplar: Exemplar) -> Result<(), NotKept> {
        let letters = |label: &super::Label| label.name.chars().count() + label.value.chars().count();
        if exemplar.labels.iter().map(letters).sum::<usize>() > LABELS_CHARS_MAX {
            return Err(NotKept::TooLong);
        }
        let mut ring = self.0.lock();
        let ring = &mut *ring;
        while ring.order.len() >= EXEMPLARS_MAX || ring.bytes >= BYTES_MAX {
            ring.forget_oldest();
        }
        let key = match ring.series.get_key_value(series) {
            Some((key, known)) => {
                if let Some(newest) = known.back() {
                    let same = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan());
                    if newest.timestamp_ms > exemplar.timestamp_ms {
                        return Err(NotKept::OutOfOrder);
                    }
                    if newest.labels == exemplar.labels
                        && newest.timestamp_ms == exemplar.timestamp_ms
                        && same(newest.value, exemplar.value)
                    {
                        return Ok(());
                    }
                }
                key.clone()
            }
            None => {
                ring.bytes += bytes_of(series);
                Arc::new(series.clone())
            }
        };
        ring.bytes += bytes_of(&exemplar.labels);
        ring.order.push_back(key.clone());
        ring.series.entry(key).or_default().push_back(exemplar);
        Ok(())
    }

    /// Those of the series that meet any of the lists of matchers, in the time, sorted by the series' labels.
    pub fn select(&self, any_of: &[Vec<Matcher>], from_ms: i64, to_ms: i64) -> Vec<(Labels, Vec<Exemplar>)> {
        let meets = |labels: &Labels, all: &Vec<Matcher>| {
            all.iter().all(|matcher| matcher.matches(labels.get(&matcher.name).map_or("", |value| value)))
        };
        // Patterns may take long: they are tested while others write.
        let mut series: Vec<Arc<Labels>> = self.0.lock().series.keys().cloned().collect();
        series.retain(|labels| any_of.iter().any(|all| meets(labels, all)));
        let ring = self.0.lock();
        let mut found: Vec<_> = series
            .iter()
            .filter_map(|labels| Some((labels, ring.series.get(labels)?)))
            .map(|(labels, exemplars)| {
                let within = exemplars.iter().filter(|e| (from_ms..=to_ms).contains(&e.timestamp_ms));
                ((**labels).clone(), within.cloned().collect::<Vec<_>>())
            })
            .filter(|(_, exemplars)| !exemplars.is_empty())
            .collect();
        drop(ring);
        found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        found
    }
}

impl Ring {
    fn forget_oldest(&mut self) {
        let Some(key) = self.order.pop_front() else { return };
        let Some(exemplars) = self.series.get_mut(&key) else { return };
        let oldest = exemplars.pop_front();
        self.bytes -= oldest.map_or(0, |oldest| bytes_of(&oldest.labels));
        if exemplars.is_empty() {
            self.series.remove(&key);
            self.bytes -= bytes_of(&key);
        }
    }
}

/// Labels with all that it takes to hold them and what belongs to them, about.
fn bytes_of(labels: &Labels) -> usize {
    let texts: usize = labels.iter().map(|label| label.name.len() + label.value.len() + size_of::<Label>() + 32).sum();
    texts + size_of::<Exemplar>() + 32
}

#[cfg(test)]
mod tests {
    use super::super::MatchOp;
    use super::*;

    fn series(host: &str) -> Labels {
        Labels::from_pairs([("__name__", "m_bucket"), ("host", host)])
    }

    fn exemplar(trace: &str, timestamp_ms: i64) -> Exemplar {
        Exemplar { labels: Labels::from_pairs([("trace_id", trace)]), value: 0.5, timestamp_ms }
    }

    fn all() -> Vec<Vec<Matcher>> {
        vec![vec![Matcher { name: "__name__".into(), op: MatchOp::Equal, value: "m_bucket".into() }]]
    }

    #[test]
    fn exemplars_come_back_by_series_and_time() {
        let exemplars = Exemplars::default();
        for (host, trace, at_ms) in [("b", "1", 10), ("a", "2", 20), ("a", "3", 30), ("a", "3", 30)] {
            assert_eq!(exemplars.keep(&series(host), exemplar(trace, at_ms)), Ok(()));
        }
        assert_eq!(exemplars.keep(&series("a"), exemplar("4", 29)), Err(NotKept::OutOfOrder));
        assert_eq!(exemplars.keep(&series("a"), exemplar(&"x".repeat(121), 40)), Err(NotKept::TooLong));
        let found = exemplars.select(&all(), 0, 100);
        let (a, b) = (vec![exemplar("2", 20), exemplar("3", 30)], vec![exemplar("1", 10)]);
        assert_eq!(found, [(series("a"), a), (series("b"), b)]);
        assert_eq!(exemplars.select(&all(), 11, 20), [(series("a"), vec![exemplar("2", 20)])]);
        let other = vec![vec![Matcher { name: "host".into(), op: MatchOp::Equal, value: "c".into() }]];
        assert!(exemplars.select(&other, 0, 100).is_empty());
    }

    #[test]
    fn the_oldest_make_room_and_their_series_go_with_them() {
        let exemplars = Exemplars::default();
        exemplars.keep(&series("old"), exemplar("1", 1)).unwrap();
        for at_ms in 0..EXEMPLARS_MAX as i64 {
            exemplars.keep(&series("new"), exemplar("2", at_ms)).unwrap();
        }
        let found = exemplars.select(&all(), 0, i64::MAX);
        assert_eq!((found.len(), found[0].1.len()), (1, EXEMPLARS_MAX));
        assert_eq!(exemplars.0.lock().series.len(), 1);
    }

    #[test]
    fn long_names_leave_room_for_fewer() {
        let exemplars = Exemplars::default();
        for number in 0..2000 {
            exemplars.keep(&series(&format!("{number}{}", "x".repeat(100_000))), exemplar("1", number)).unwrap();
        }
        let ring = exemplars.0.lock();
        assert!((300..1000).contains(&ring.series.len()), "{}", ring.series.len());
        let bytes: usize = ring.series.keys().map(|key| bytes_of(key) + bytes_of(&exemplar("1", 0).labels)).sum();
        assert_eq!(ring.bytes, bytes);
    }
}
