//! What a dictionary adds to the tables of a lane, and what of it is not taken.

use std::sync::Arc;

use lampad_proto::v1;

use super::{Group, Lane, Metric, Series};
use crate::ingest::admit::cut;
use crate::store::{Label, Meta, Value};

/// A dictionary that cannot be taken at all; the stream ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("dictionary has more than {most} {what}; reset it or let the agent define fewer")]
pub struct DictionaryFull {
    what: &'static str,
    most: usize,
}

/// What a dictionary added, for `resolve`.
#[derive(Debug, Default)]
pub struct Added {
    pub reset: bool,
    pub groups: Vec<NewGroup>,
    pub series: Vec<NewSeries>,
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

/// Definitions kept beyond what is admitted, as entries that are refused: the numbering must go on.
const REFUSED_FACTOR: usize = 2;

/// Symbols per series that is admitted: names and values of its labels. Beyond it the stream ends; long before, by their bytes, series
/// are refused one by one.
const SYMBOLS_FACTOR: usize = 8;

impl Lane {
    /// Adds to the tables. `None` where the lane awaits a reset and this is none: it belongs to what was lost.
    pub fn define(&mut self, dictionary: v1::Dictionary) -> Result<Option<Added>, DictionaryFull> {
        if dictionary.reset {
            *self = Self::new(self.limits.clone());
            self.sound = true;
        } else if !self.sound {
            return Ok(None);
        }
        self.add_symbols(dictionary.symbols)?;
        let mut added = Added { reset: dictionary.reset, ..Added::default() };
        for group in dictionary.groups {
            room("groups", self.groups.len(), self.limits.groups_per_agent * REFUSED_FACTOR)?;
            added.groups.push(self.add_group(&group));
        }
        for metric in dictionary.metrics {
            room("metrics", self.metrics.len(), self.limits.series_per_agent * REFUSED_FACTOR)?;
            let text = |symbol: u32| self.symbol(symbol).unwrap_or_else(|_| Arc::from(""));
            let meta = Meta { kind: metric.r#type(), help: text(metric.help), unit: text(metric.unit) };
            let name = self.symbol(metric.name).ok();
            self.metrics.push(Metric { name, meta });
        }
        for series in dictionary.series {
            room("series", self.series.len(), self.limits.series_per_agent * REFUSED_FACTOR)?;
            added.series.push(self.add_series(&series));
        }
        Ok(Some(added))
    }

    fn add_symbols(&mut self, symbols: Vec<String>) -> Result<(), DictionaryFull> {
        for symbol in symbols {
            room("symbols", self.symbols.len(), self.limits.series_per_agent * SYMBOLS_FACTOR)?;
            self.symbol_bytes = self.symbol_bytes.saturating_add(symbol.len());
            let fits = self.symbol_bytes <= self.limits.dictionary_bytes;
            self.symbols.push(fits.then(|| symbol.into()));
        }
        Ok(())
    }

    fn symbol(&self, reference: u32) -> Result<Arc<str>, String> {
        match self.symbols.get(reference as usize) {
            Some(Some(symbol)) => Ok(symbol.clone()),
            Some(None) => Err(format!(
                "the dictionary is larger than {} bytes; define fewer series",
                self.limits.dictionary_bytes
            )),
            None => Err(format!("symbol {reference} is not in the dictionary, which has {}", self.symbols.len())),
        }
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
        let definition = if reference as usize >= self.limits.groups_per_agent {
            Err(format!("more than {} groups; let the agent run fewer modules", self.limits.groups_per_agent))
        } else if name.is_empty() {
            Err("a group without a name; give it one".into())
        } else if self.groups.iter().any(|other| other.name == name) {
            Err(format!("group {} is defined twice", cut(&name)))
        } else {
            self.limits
                .label("group", &name)
                .and_then(|()| self.labels(&group.labels))
                .map(|labels| (name.clone(), labels))
        };
        self.groups.push(Group { name, series: Vec::new(), generation: 0, key_owed: true, round: 0 });
        NewGroup { reference, definition }
    }

    fn add_series(&mut self, series: &v1::SeriesDef) -> NewSeries {
        let reference = self.series.len() as u32;
        let definition = self.definition(series);
        let last = Value::Float(0.0);
        self.series.push(Series { group: series.group, generation: 0, round: 0, last });
        if let Some(group) = self.groups.get_mut(series.group as usize) {
            group.series.push(reference);
        }
        NewSeries { reference, group: series.group, definition }
    }

    fn definition(&self, series: &v1::SeriesDef) -> Result<Definition, String> {
        let most = self.limits.series_per_agent;
        if self.series.len() >= most {
            return Err(format!("the agent has {most} series already; switch off what makes so many"));
        }
        let Some(metric) = self.metrics.get(series.metric as usize) else {
            return Err(format!("metric {} is not in the dictionary, which has {}", series.metric, self.metrics.len()));
        };
        let name = metric.name.clone().unwrap_or_else(|| Arc::from(""));
        self.limits.metric(&name)?;
        self.limits.label_count(&name, series.labels.len() / 2)?;
        let labels = self.labels(&series.labels).map_err(|trouble| format!("{}: {trouble}", cut(&name)))?;
        Ok(Definition { metric: name, labels, meta: Some(metric.meta.clone()) })
    }
}

fn room(what: &'static str, used: usize, most: usize) -> Result<(), DictionaryFull> {
    if used < most { Ok(()) } else { Err(DictionaryFull { what, most }) }
}
