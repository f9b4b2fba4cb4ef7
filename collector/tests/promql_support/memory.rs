//! A [`Source`] that is a list of series: obviously right, never fast.

use std::collections::BTreeSet;
use std::sync::Arc;

use lampad_collector::store::{
    Budget, EachLabels, Floats, Labels, Latest, Matcher, Meta, Sample, Select, SelectError, Series, Source, Value,
    Visit,
};
use lampad_proto::v1::Histogram;

#[derive(Default)]
pub struct Memory {
    pub series: Vec<Series>,
}

impl Memory {
    fn at(&mut self, labels: &Labels) -> &mut Series {
        if let Some(index) = self.series.iter().position(|series| series.labels == *labels) {
            return &mut self.series[index];
        }
        self.series.push(Series { labels: labels.clone(), floats: Floats::default(), histograms: Vec::new() });
        self.series.last_mut().unwrap()
    }

    pub fn push(&mut self, labels: &Labels, timestamp_ms: i64, value: f64) {
        self.at(labels).floats.push(Sample { timestamp_ms, value });
    }

    pub fn push_histogram(&mut self, labels: &Labels, timestamp_ms: i64, histogram: Histogram) {
        self.at(labels).histograms.push((timestamp_ms, Arc::new(histogram)));
    }

    /// Call after the last push.
    pub fn sort(&mut self) {
        for series in &mut self.series {
            let mut floats: Vec<Sample> = series.floats.iter().collect();
            floats.sort_by_key(|sample| sample.timestamp_ms);
            series.floats = floats.into_iter().collect();
            series.histograms.sort_by_key(|(at_ms, _)| *at_ms);
        }
    }

    /// Labels of the series with samples in this time.
    fn live(
        &self,
        any_of: &[Vec<Matcher>],
        (from_ms, to_ms): (i64, i64),
        budget: &Budget,
    ) -> Result<BTreeSet<Labels>, SelectError> {
        budget.check()?;
        let live = |series: &&Series| series.floats.iter().any(|s| (from_ms..=to_ms).contains(&s.timestamp_ms));
        Ok(self.matching(any_of).filter(live).map(|series| series.labels.clone()).collect())
    }

    fn matching(&self, any_of: &[Vec<Matcher>]) -> impl Iterator<Item = &Series> {
        self.series.iter().filter(move |series| any_of.is_empty() || any_of.iter().any(|all| meets(series, all)))
    }
}

fn meets(series: &Series, matchers: &[Matcher]) -> bool {
    matchers.iter().all(|matcher| matcher.matches(series.labels.get(&matcher.name).map_or("", |value| value)))
}

impl Source for Memory {
    fn select(&self, matchers: &[Matcher], select: Select, budget: &Budget) -> Result<Vec<Series>, SelectError> {
        let (from_ms, to_ms, last) = match select {
            Select::Range { from_ms, to_ms } | Select::Changes { from_ms, to_ms } => (from_ms, to_ms, false),
            Select::Last { from_ms, to_ms } => (from_ms, to_ms, true),
        };
        let by_changes = matches!(select, Select::Changes { .. });
        let inside = |at: i64| (from_ms..=to_ms).contains(&at);
        let mut found = Vec::new();
        for series in self.series.iter().filter(|series| meets(series, matchers)) {
            budget.take_series(1)?;
            let mut floats = Floats::of_changes(by_changes);
            // However many there are: what works on changes shall do so in all tests.
            floats.begin(0, series.floats.len());
            floats.extend(series.floats.iter().filter(|s| inside(s.timestamp_ms)));
            let mut histograms: Vec<_> = series.histograms.iter().filter(|(at, _)| inside(*at)).cloned().collect();
            if last {
                floats.drop_first(floats.len().saturating_sub(1));
                histograms.drain(..histograms.len().saturating_sub(1));
            }
            budget.take(floats.len() as u64)?;
            if !floats.is_empty() || !histograms.is_empty() {
                found.push(Series { labels: series.labels.clone(), floats, histograms });
            }
        }
        Ok(found)
    }

    fn series(
        &self,
        any_of: &[Vec<Matcher>],
        from_ms: i64,
        to_ms: i64,
        budget: &Budget,
        each: EachLabels<'_>,
    ) -> Result<(), SelectError> {
        let labels = self.live(any_of, (from_ms, to_ms), budget)?;
        let _ = labels.iter().all(|labels| each(&labels.iter().collect::<Vec<_>>()));
        Ok(())
    }

    fn label_names(
        &self,
        any_of: &[Vec<Matcher>],
        from_ms: i64,
        to_ms: i64,
        budget: &Budget,
    ) -> Result<Vec<Arc<str>>, SelectError> {
        let series = self.live(any_of, (from_ms, to_ms), budget)?;
        let names: BTreeSet<_> =
            series.iter().flat_map(|labels| labels.iter().map(|label| label.name.clone())).collect();
        Ok(names.into_iter().collect())
    }

    fn label_values(
        &self,
        name: &str,
        any_of: &[Vec<Matcher>],
        from_ms: i64,
        to_ms: i64,
        budget: &Budget,
    ) -> Result<Vec<Arc<str>>, SelectError> {
        let series = self.live(any_of, (from_ms, to_ms), budget)?;
        let values: BTreeSet<_> = series.iter().filter_map(|labels| labels.get(name).cloned()).collect();
        Ok(values.into_iter().collect())
    }

    fn metadata(&self, _metric: Option<&str>) -> Vec<(Arc<str>, Meta)> {
        Vec::new()
    }

    fn latest(&self, any_of: &[Vec<Matcher>], visit: Visit<'_>) {
        let mut current: Vec<_> = self
            .matching(any_of)
            .filter_map(|series| {
                let last = series.floats.last()?;
                let latest = Latest { timestamp_ms: last.timestamp_ms, value: Value::Float(last.value) };
                Some((series.labels.clone(), latest))
            })
            .collect();
        current.sort_by(|a, b| a.0.metric().cmp(&b.0.metric()).then(a.0.cmp(&b.0)));
        for group in current.chunk_by(|a, b| a.0.metric() == b.0.metric()) {
            if !visit(group[0].0.metric().map_or("", |name| name), group) {
                return;
            }
        }
    }
}
