//! The store as queries see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lampad_proto::v1::{Histogram, MetricType};
use regex::Regex;

use super::column::Samples;
use super::{Floats, Label, Labels, Reach, WindowSeries};

/// One sample. The stale marker is a sample too: whoever evaluates ends the series there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    pub timestamp_ms: i64,
    pub value: f64,
}

/// A series with the samples of the selected time, ascending, no timestamp twice over both lists.
#[derive(Debug, Clone)]
pub struct Series {
    pub labels: Labels,
    pub floats: Floats,
    pub histograms: Vec<(i64, Arc<Histogram>)>,
}

#[derive(Debug, Clone)]
pub enum MatchOp {
    Equal,
    NotEqual,
    /// Anchored at both ends by whoever builds it.
    Match(Regex),
    NoMatch(Regex),
}

/// A condition on a label; a missing label counts as the empty string.
#[derive(Debug, Clone)]
pub struct Matcher {
    pub name: String,
    pub op: MatchOp,
    /// The string, or the regex as it was written.
    pub value: String,
}

impl Matcher {
    pub fn matches(&self, value: &str) -> bool {
        match &self.op {
            MatchOp::Equal => value == self.value,
            MatchOp::NotEqual => value != self.value,
            MatchOp::Match(regex) => regex.is_match(value),
            MatchOp::NoMatch(regex) => !regex.is_match(value),
        }
    }
}

/// Which samples of the matching series are wanted. Both ends are part of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Select {
    /// All samples in `[from_ms, to_ms]`.
    Range { from_ms: i64, to_ms: i64 },
    /// The same; values may be told by their changes, see [`Floats::stretches`].
    Changes { from_ms: i64, to_ms: i64 },
    /// Of each series only the last sample in `[from_ms, to_ms]`.
    Last { from_ms: i64, to_ms: i64 },
}

/// What a query may use up, shared by all that work for it.
#[derive(Debug)]
pub struct Budget {
    samples_left: AtomicU64,
    series_left: AtomicU64,
    bytes_left: AtomicU64,
    cancelled: AtomicBool,
    deadline: std::time::Instant,
}

impl Budget {
    pub fn new(samples: u64, deadline: std::time::Instant) -> Self {
        Self {
            samples_left: AtomicU64::new(samples),
            series_left: AtomicU64::new(u64::MAX),
            bytes_left: AtomicU64::new(u64::MAX),
            cancelled: AtomicBool::new(false),
            deadline,
        }
    }

    /// The same with a bound on series, and on the bytes of samples and results.
    pub fn bounded(self, series: u64, bytes: u64) -> Self {
        Self { series_left: AtomicU64::new(series), bytes_left: AtomicU64::new(bytes), ..self }
    }

    /// Takes `series` from those that may still be selected.
    pub fn take_series(&self, series: u64) -> Result<(), SelectError> {
        take(&self.series_left, series).ok_or(SelectError::TooManySeries)
    }

    /// Takes memory for results. None is given back: what a query used up in all is bounded, so what it holds is too.
    pub fn take_bytes(&self, bytes: u64) -> Result<(), SelectError> {
        take(&self.bytes_left, bytes).ok_or(SelectError::TooMuchMemory)
    }

    /// Whether so many samples may still be taken, before room for them is made.
    pub fn has_room(&self, samples: u64) -> Result<(), SelectError> {
        if samples > self.samples_left.load(Ordering::Relaxed) {
            return Err(SelectError::TooManySamples);
        }
        Ok(())
    }

    /// Takes `samples` from what is left; an error ends the query.
    pub fn take(&self, samples: u64) -> Result<(), SelectError> {
        self.check()?;
        take(&self.samples_left, samples).ok_or(SelectError::TooManySamples)?;
        self.take_bytes(samples.saturating_mul(size_of::<Sample>() as u64))
    }

    /// Takes what was read of a series; of the last sample alone where only that is wanted. Histograms that stay the same
    /// share their memory and count once.
    pub(super) fn take_read(&self, read: &Samples, last: bool) -> Result<(), SelectError> {
        self.take_added(read, (0, 0), last)
    }

    /// The same of what was added to so many floats and histograms.
    pub(super) fn take_added(&self, read: &Samples, before: (usize, usize), last: bool) -> Result<(), SelectError> {
        let histograms = &read.histograms[before.1..];
        if !histograms.is_empty() {
            let mut before = None;
            let distinct = histograms.iter().map(|(_, histogram)| histogram).filter(|histogram| {
                let same = before.is_some_and(|before| Arc::ptr_eq(before, histogram));
                before = Some(*histogram);
                !same
            });
            self.take_bytes(distinct.map(|histogram| histogram_bytes(histogram)).sum())?;
        }
        let samples = read.floats.len() - before.0 + histograms.len();
        self.take(if last { samples.min(1) } else { samples } as u64)
    }

    /// Whether the query may go on.
    pub fn check(&self) -> Result<(), SelectError> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(SelectError::Cancelled);
        }
        if std::time::Instant::now() > self.deadline {
            return Err(SelectError::TimedOut);
        }
        Ok(())
    }

    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

/// What a histogram takes in memory.
fn histogram_bytes(histogram: &Histogram) -> u64 {
    let numbers = histogram.positive_deltas.len()
        + histogram.negative_deltas.len()
        + histogram.positive_counts.len()
        + histogram.negative_counts.len()
        + histogram.custom_values.len()
        // Two numbers of half the size each.
        + histogram.positive_spans.len()
        + histogram.negative_spans.len();
    (size_of::<Histogram>() + numbers * size_of::<u64>()) as u64
}

fn take(left: &AtomicU64, amount: u64) -> Option<()> {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(amount)).ok().map(|_| ())
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    #[error("the query selects more series than one query may")]
    TooManySeries,
    #[error("the query takes more memory than one query may")]
    TooMuchMemory,
    #[error("the query selects more samples than one query may load")]
    TooManySamples,
    #[error("the query was cancelled")]
    Cancelled,
    #[error("the query took longer than its timeout")]
    TimedOut,
    #[error("the store cannot be read: {0}")]
    Storage(String),
}

/// What is known of a metric family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    pub kind: MetricType,
    pub help: Arc<str>,
    pub unit: Arc<str>,
}

/// Begins with a list of series that are read one after the other, mostly a group's: they share their times, and who takes them
/// may go on from one to the next.
pub type Each<'a> = &'a (dyn Fn() -> Take<'a> + Sync);
/// Takes a series and the place that it has among all. Its samples' memory is used again, unless they are taken out.
pub type Take<'a> = Box<dyn FnMut(usize, &mut Series) + 'a>;

/// Where queries read. A call sees one state: what is sealed, deleted or appended meanwhile does not change its answer.
pub trait Source: Send + Sync {
    /// The series that meet all matchers and have a sample in the time, in no order.
    fn select(&self, matchers: &[Matcher], select: Select, budget: &Budget) -> Result<Vec<Series>, SelectError>;

    /// The same, series by series while others are still read, by several threads at once: who makes little of each series need
    /// not hold the samples of all. Places are those of [`Source::select`], ascending, though not without gaps.
    fn select_each(
        &self,
        matchers: &[Matcher],
        select: Select,
        budget: &Budget,
        each: Each<'_>,
    ) -> Result<(), SelectError> {
        let mut take = each();
        self.select(matchers, select, budget)?.iter_mut().enumerate().for_each(|(at, series)| take(at, series));
        Ok(())
    }

    /// How far back there are raw samples, and what there is of times before. Where nothing is said, all samples there are.
    fn reach(&self) -> Reach {
        Reach::default()
    }

    /// The same by windows of one of the widths of [`Source::reach`], of all samples in `(from_ms, to_ms]`: those at both ends
    /// are cut there, as far as raw samples go back. Series of which nothing can be told by windows are among them, and say so.
    fn select_windows(
        &self,
        _matchers: &[Matcher],
        _window_ms: i64,
        _time: (i64, i64),
        _budget: &Budget,
    ) -> Result<Vec<WindowSeries>, SelectError> {
        Ok(Vec::new())
    }

    /// Of times in `[from_ms, to_ms]` whose raw samples are gone: the samples that are known still.
    fn thinned(
        &self,
        _matchers: &[Matcher],
        _from_ms: i64,
        _to_ms: i64,
        _budget: &Budget,
    ) -> Result<Vec<Series>, SelectError> {
        Ok(Vec::new())
    }

    /// The labels of the series that meet any of the lists of matchers and have samples near `[from_ms, to_ms]`; all series
    /// where no list is given. Whether a series has samples there is told by its group's times, not sample by sample. They
    /// are handed out sorted, each once, until `each` says false.
    fn series(
        &self,
        any_of: &[Vec<Matcher>],
        from_ms: i64,
        to_ms: i64,
        budget: &Budget,
        each: EachLabels<'_>,
    ) -> Result<(), SelectError>;

    /// Names of labels of these series, sorted.
    fn label_names(
        &self,
        any_of: &[Vec<Matcher>],
        from_ms: i64,
        to_ms: i64,
        budget: &Budget,
    ) -> Result<Vec<Arc<str>>, SelectError>;

    /// Values of one label of these series, sorted.
    fn label_values(
        &self,
        name: &str,
        any_of: &[Vec<Matcher>],
        from_ms: i64,
        to_ms: i64,
        budget: &Budget,
    ) -> Result<Vec<Arc<str>>, SelectError>;

    /// The same of all series, where that takes less time than it takes to wake another thread.
    fn label_values_at_once(&self, _name: &str, _from_ms: i64, _to_ms: i64) -> Option<Vec<Arc<str>>> {
        None
    }

    /// Families and what is known of them, sorted by name. Only `metric` where given.
    fn metadata(&self, metric: Option<&str>) -> Vec<(Arc<str>, Meta)>;

    /// The current value of every present series that meets any of the lists of matchers (all where none is given), sorted by
    /// metric name, handed out name by name so that nobody holds them all: ended and stale series are left out. `visit`
    /// returns false to stop.
    fn latest(&self, any_of: &[Vec<Matcher>], visit: Visit<'_>);
}

/// Takes the labels of one series after another; false stops the walk.
pub type EachLabels<'a> = &'a mut dyn FnMut(&[&Label]) -> bool;

/// Takes the series of one metric name; false stops the walk.
pub type Visit<'a> = &'a mut dyn FnMut(&str, &[(Labels, Latest)]) -> bool;

/// A series' value now.
#[derive(Debug, Clone)]
pub struct Latest {
    pub timestamp_ms: i64,
    pub value: super::Value,
}
