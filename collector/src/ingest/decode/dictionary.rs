//! What a dictionary adds to the tables of a lane, and what of it is not taken.

use std::ops::Range;
use std::sync::Arc;

use lampad_proto::v1;

use super::{Group, Lane, Metric, Series};
use crate::ingest::admit::cut;
use crate::store::{Label, Labels, METRIC_NAME, Meta};

/// What a dictionary added, for `resolve`.
#[derive(Debug, Default)]
pub struct Added {
    pub reset: bool,
    pub groups: Vec<NewGroup>,
    pub series: Vec<NewSeries>,
    /// Definitions of groups, then of series, that are over the limit of their number.
    pub over: Vec<Over>,
}

/// Definitions that are over a limit: they follow upon each other and upon all that are not.
#[derive(Debug, PartialEq, Eq)]
pub struct Over {
    /// References of series; empty for groups, whose series are refused as such.
    pub series: Range<u32>,
    /// The first of them, for people.
    pub first: String,
    pub reason: String,
}

#[derive(Debug)]
pub struct NewGroup {
    pub reference: u32,
    /// Name and labels, or why the group is not taken.
    pub definition: Result<(Arc<str>, Vec<Label>), String>,
}

#[derive(Debug)]
pub struct NewSeries {
    pub reference: u32,
    pub group: u32,
    /// The series' own labels, or why it is not taken.
    pub definition: Result<Definition, String>,
}

#[derive(Debug)]
pub struct Definition {
    pub metric: Arc<str>,
    pub labels: Vec<Label>,
    pub meta: Option<Meta>,
}

/// Symbols per series that is admitted: names and values of its labels.
const SYMBOLS_FACTOR: usize = 8;

impl Lane {
    /// Adds to the tables. `None` where the lane awaits a reset and this is none: it belongs to what was lost.
    pub fn define(&mut self, dictionary: v1::Dictionary) -> Option<Added> {
        if dictionary.reset {
            *self = Self::new(self.limits.clone(), self.shared.clone());
            self.sound = true;
        } else if !self.sound {
            return None;
        }
        self.add_symbols(dictionary.symbols);
        let mut added = Added { reset: dictionary.reset, ..Added::default() };
        for group in dictionary.groups {
            if self.groups.len() < self.limits.groups_per_agent {
                added.groups.push(self.add_group(&group));
                continue;
            }
            self.over.groups += 1;
            if added.over.is_empty() {
                let first = self.symbol(group.name).map(|name| cut(&name).to_owned()).unwrap_or_default();
                let reason =
                    format!("more than {} groups; let the agent run fewer modules", self.limits.groups_per_agent);
                added.over.push(Over { series: 0..0, first, reason });
            }
        }
        for metric in dictionary.metrics {
            self.add_metric(&metric);
        }
        let mut over: Option<Over> = None;
        let room = self.limits.series_per_agent.saturating_sub(self.series.len());
        self.series.reserve_exact(dictionary.series.len().min(room));
        for series in dictionary.series {
            if self.series.len() < self.limits.series_per_agent {
                added.series.push(self.add_series(&series));
                continue;
            }
            let reference = (self.series.len() + self.over.series) as u32;
            self.over.series += 1;
            let over = over.get_or_insert_with(|| self.over_limit(reference, &series));
            over.series.end = reference.saturating_add(1);
        }
        added.over.extend(over);
        self.groups.iter_mut().for_each(|group| group.series.shrink_to_fit());
        Some(added)
    }

    fn add_metric(&mut self, metric: &v1::MetricDef) {
        if self.metrics.len() >= self.limits.series_per_agent {
            self.over.metrics += 1;
            return;
        }
        let v1::MetricDef { name, help, unit, .. } = *metric;
        self.metrics.push(Metric { kind: metric.r#type(), name, help, unit });
    }

    /// Symbols end at the first one that is too much: their numbers go on, their texts are not kept.
    fn add_symbols(&mut self, symbols: Vec<String>) {
        let most = self.limits.series_per_agent.saturating_mul(SYMBOLS_FACTOR);
        let mut kept = Vec::with_capacity(symbols.len());
        for symbol in symbols {
            let bytes = self.symbol_bytes.saturating_add(symbol.len());
            let fits = bytes <= self.limits.dictionary_bytes && self.symbols.len() + kept.len() < most;
            if self.over.symbols > 0 || !fits {
                self.over.symbols += 1;
                continue;
            }
            self.symbol_bytes = bytes;
            kept.push(symbol);
        }
        self.symbols.extend(self.shared.share(kept));
    }

    fn symbol(&self, reference: u32) -> Result<Arc<str>, String> {
        let reference = reference as usize;
        let (kept, known) = (self.symbols.len(), self.symbols.len() + self.over.symbols);
        match self.symbols.get(reference) {
            Some(symbol) => Ok(symbol.clone()),
            None if reference < known => Err(format!(
                "the dictionary is larger than {} bytes or {kept} symbols; define fewer series",
                self.limits.dictionary_bytes
            )),
            None => Err(format!("symbol {reference} is not in the dictionary, which has {known}")),
        }
    }

    /// A series that is more than the agent may have; `series` is the first one.
    fn over_limit(&self, reference: u32, series: &v1::SeriesDef) -> Over {
        let name = self.metrics.get(series.metric as usize).and_then(|metric| self.symbol(metric.name).ok());
        let labels = self.labels(&series.labels).unwrap_or_default();
        let metric = Label { name: METRIC_NAME.into(), value: name.unwrap_or_else(|| Arc::from("?")) };
        let first = Labels::new(labels.into_iter().chain([metric])).to_string();
        let most = self.limits.series_per_agent;
        let reason = format!(
            "the agent has {most} series already; switch off what makes so many, or raise --limit-series-per-agent"
        );
        Over { series: reference..reference, first, reason }
    }

    /// Labels from symbols: name, value, name, value. An empty value means that the label is not there.
    fn labels(&self, symbols: &[u32]) -> Result<Vec<Label>, String> {
        let (pairs, rest) = symbols.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(format!("{} symbols do not make pairs of label name and value", symbols.len()));
        }
        let mut labels: Vec<Label> = Vec::with_capacity(pairs.len());
        for [name, value] in pairs {
            let (name, value) = (self.symbol(*name)?, self.symbol(*value)?);
            self.limits.label(&name, &value)?;
            if labels.iter().any(|label| label.name == name) {
                return Err(format!("label {} comes twice", cut(&name)));
            }
            labels.push(Label { name, value });
        }
        Ok(labels)
    }

    fn add_group(&mut self, group: &v1::GroupDef) -> NewGroup {
        let reference = self.groups.len() as u32;
        let name = self.symbol(group.name).unwrap_or_else(|_| Arc::from(""));
        let definition = if name.is_empty() {
            Err("a group without a name; give it one".into())
        } else if self.groups.iter().any(|other| other.name == name) {
            Err(format!("group {} is defined twice", cut(&name)))
        } else {
            self.limits
                .label("group", &name)
                .and_then(|()| self.labels(&group.labels))
                .map(|labels| (name.clone(), labels))
        };
        self.groups.push(Group {
            name,
            series: Vec::new(),
            round: 0,
            key_round: 0,
            key_owed: true,
            last_ms: -1,
            is_cut: false,
        });
        NewGroup { reference, definition }
    }

    fn add_series(&mut self, series: &v1::SeriesDef) -> NewSeries {
        let reference = self.series.len() as u32;
        let definition = self.definition(series);
        self.series.push(Series::new(series.group));
        if let Some(group) = self.groups.get_mut(series.group as usize) {
            group.series.push(reference);
        }
        NewSeries { reference, group: series.group, definition }
    }

    fn definition(&self, series: &v1::SeriesDef) -> Result<Definition, String> {
        let Some(metric) = self.metrics.get(series.metric as usize) else {
            let known = self.metrics.len() + self.over.metrics;
            return Err(format!(
                "metric {} is not in the dictionary, which keeps {} of {known}",
                series.metric,
                self.metrics.len()
            ));
        };
        let text = |symbol: u32| self.symbol(symbol).unwrap_or_else(|_| Arc::from(""));
        let name = text(metric.name);
        self.limits.metric(&name)?;
        self.limits.label_count(&name, series.labels.len() / 2)?;
        let labels = self.labels(&series.labels).map_err(|trouble| format!("{}: {trouble}", cut(&name)))?;
        let described = |symbol: u32| match text(symbol) {
            long if long.len() > self.limits.label_value_bytes => self.limits.described(&long).into(),
            text => text,
        };
        let meta = Meta { kind: metric.kind, help: described(metric.help), unit: described(metric.unit) };
        Ok(Definition { metric: name, labels, meta: Some(meta) })
    }
}
