//! What an expression evaluates to: columns with one cell per step.

use std::sync::Arc;

use lampad_proto::{is_stale, stale};

use crate::store::{Floats, Label, Labels, METRIC_NAME};

use super::histogram::Histogram;

/// The steps of a query, or of a subquery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    pub start_ms: i64,
    pub interval_ms: i64,
    pub count: usize,
}

impl Steps {
    pub fn instant(at_ms: i64) -> Self {
        Self { start_ms: at_ms, interval_ms: 1, count: 1 }
    }

    /// From `start_ms` to at most `end_ms`; none where the end lies before the start.
    pub fn range(start_ms: i64, end_ms: i64, interval_ms: i64) -> Self {
        let count = if end_ms < start_ms { 0 } else { ((end_ms - start_ms) / interval_ms) as usize + 1 };
        Self { start_ms, interval_ms, count }
    }

    pub fn at(&self, step: usize) -> i64 {
        self.start_ms + step as i64 * self.interval_ms
    }

    pub fn end_ms(&self) -> i64 {
        self.at(self.count.saturating_sub(1))
    }

    pub fn iter(&self) -> impl Iterator<Item = i64> + use<> {
        let steps = *self;
        (0..steps.count).map(move |step| steps.at(step))
    }
}

/// A cell without sample. The stale marker never leaves a selector, so its bits are free to say "nothing here".
pub fn absent() -> f64 {
    stale()
}

pub fn is_absent(cell: f64) -> bool {
    is_stale(cell)
}

/// Bits of a cell whose sample is a histogram: a signalling NaN, which no computation gives.
const HISTOGRAM_BITS: u64 = 0x7ff0_0000_0000_0005;

pub fn is_histogram(cell: f64) -> bool {
    cell.to_bits() == HISTOGRAM_BITS
}

/// Whether the cell is a number, that is neither absent nor a histogram.
pub fn is_float(cell: f64) -> bool {
    !is_absent(cell) && !is_histogram(cell)
}

/// A stored number as a cell: a NaN with the bits that mean "histogram" becomes a plain one.
pub fn stored(value: f64) -> f64 {
    if is_histogram(value) { f64::NAN } else { value }
}

/// One sample of either type.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Float(f64),
    Histogram(Arc<Histogram>),
}

/// A series of results: one cell per step.
#[derive(Debug, Clone)]
pub struct Row {
    pub labels: Labels,
    pub cells: Vec<f64>,
    /// Histograms by step, where the cell says that there is one; empty for rows of numbers, that is nearly always.
    histograms: Vec<Option<Arc<Histogram>>>,
    /// With delayed name removal: the name is still there for `label_replace` and the like, and goes at the end.
    pub drop_name: bool,
}

impl Row {
    pub fn new(labels: Labels, cells: Vec<f64>) -> Self {
        Self { labels, cells, histograms: Vec::new(), drop_name: false }
    }

    /// A row of nothing, to be filled.
    pub fn blank(labels: Labels, steps: usize) -> Self {
        Self::new(labels, vec![absent(); steps])
    }

    pub fn dropping(self, drop_name: bool) -> Self {
        Self { drop_name, ..self }
    }

    pub fn has_histograms(&self) -> bool {
        !self.histograms.is_empty()
    }

    pub fn histogram(&self, step: usize) -> Option<&Arc<Histogram>> {
        if is_histogram(self.cells[step]) { self.histograms.get(step)?.as_ref() } else { None }
    }

    pub fn cell(&self, step: usize) -> Option<Cell> {
        match self.cells[step] {
            cell if is_absent(cell) => None,
            cell if is_histogram(cell) => self.histogram(step).cloned().map(Cell::Histogram),
            cell => Some(Cell::Float(cell)),
        }
    }

    pub fn set(&mut self, step: usize, cell: Option<Cell>) {
        self.cells[step] = match cell {
            None => absent(),
            Some(Cell::Float(value)) => stored(value),
            Some(Cell::Histogram(histogram)) => {
                self.histograms.resize(self.cells.len(), None);
                self.histograms[step] = Some(histogram);
                f64::from_bits(HISTOGRAM_BITS)
            }
        };
    }

    /// The row without its histograms.
    pub fn floats_only(mut self) -> Self {
        if self.has_histograms() {
            self.histograms = Vec::new();
            self.cells.iter_mut().filter(|cell| is_histogram(**cell)).for_each(|cell| *cell = absent());
        }
        self
    }

    /// The same series with other cells, which may be histograms of this row at the same steps.
    pub fn with_cells(&self, labels: Labels, cells: Vec<f64>) -> Self {
        Self { labels, cells, histograms: self.histograms.clone(), drop_name: self.drop_name }
    }

    pub fn has_any(&self) -> bool {
        self.cells.iter().any(|cell| !is_absent(*cell))
    }
}

#[derive(Debug, Clone)]
pub enum Value {
    /// One number per step.
    Scalar(Vec<f64>),
    Rows(Vec<Row>),
    Text(String),
}

/// A series with raw samples: what an instant query for a range selector gives.
#[derive(Debug, Clone)]
pub struct Points {
    pub labels: Labels,
    pub samples: Floats,
    pub histograms: Vec<(i64, Arc<Histogram>)>,
    pub drop_name: bool,
}

/// What a computation takes away: the name, and the type and unit that go with it.
pub fn is_metadata(name: &str) -> bool {
    matches!(name, METRIC_NAME | "__type__" | "__unit__")
}

pub fn without_name(labels: &Labels) -> Labels {
    filter(labels, |name| !is_metadata(name))
}

pub fn filter(labels: &Labels, keep: impl Fn(&str) -> bool) -> Labels {
    if labels.iter().all(|label| keep(&label.name)) {
        return labels.clone();
    }
    labels.retained(keep)
}

/// Sets labels; an empty value takes the label away.
pub fn with(labels: &Labels, changes: impl IntoIterator<Item = (String, String)>) -> Labels {
    let changes = changes.into_iter().map(|(name, value)| Label { name: name.into(), value: value.into() });
    Labels::new(labels.iter().cloned().chain(changes))
}

/// A float as Prometheus writes it: the shortest digits that read back the same, no exponent.
pub fn float(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        (if value > 0.0 { "+Inf" } else { "-Inf" }).to_owned()
    } else {
        value.to_string()
    }
}

/// Labels with the name among them, as Prometheus' messages write them: `{__name__="up", job="node"}`.
pub fn braced(labels: &Labels) -> String {
    let labels: Vec<String> = labels.iter().map(|label| format!("{}={:?}", label.name, label.value)).collect();
    format!("{{{}}}", labels.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_never_taken_for_a_histogram() {
        let mut row = Row::blank(Labels::empty(), 1);
        row.set(0, Some(Cell::Float(f64::from_bits(HISTOGRAM_BITS))));
        assert!(is_float(row.cells[0]) && row.cells[0].is_nan());
    }
}
