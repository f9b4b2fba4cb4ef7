//! A plain decoder, written from `proto/FORMATS.md` alone, against which the encoder is checked.

use std::collections::BTreeMap;

use lampad_proto::v1::{Dictionary, Frame, GroupDef, MetricDef, SeriesDef};
use lampad_proto::{Number, decimal};

/// `group/metric{a=b}` -> (time, value) of every sample, silence counted as the value before.
pub type Samples = BTreeMap<String, Vec<(i64, Number)>>;

#[derive(Default)]
pub struct Decoder {
    symbols: Vec<String>,
    groups: Vec<GroupDef>,
    metrics: Vec<MetricDef>,
    series: Vec<SeriesDef>,
    /// Present series: values by reference.
    present: BTreeMap<u32, Number>,
    fresh: Vec<bool>,
    pub samples: Samples,
}

impl Decoder {
    pub fn dictionary(&mut self, dictionary: &Dictionary) {
        if dictionary.reset {
            *self = Self { samples: std::mem::take(&mut self.samples), ..Self::default() };
        }
        self.symbols.extend(dictionary.symbols.iter().cloned());
        self.groups.extend(dictionary.groups.iter().cloned());
        self.metrics.extend(dictionary.metrics.iter().cloned());
        self.series.extend(dictionary.series.iter().cloned());
        self.fresh.resize(self.groups.len(), true);
    }

    pub fn frame(&mut self, frame: &Frame) {
        for tick in &frame.ticks {
            let fresh = std::mem::replace(&mut self.fresh[tick.group as usize], false);
            assert!(tick.key || !fresh, "the first tick after a reset is a key tick");
            if tick.key {
                let series = &self.series;
                self.present.retain(|reference, _| series[*reference as usize].group != tick.group);
            }
            for column in &tick.decimals {
                for (reference, delta) in absolute(&column.refs).zip(&column.deltas) {
                    let before = match self.present.get(&reference) {
                        Some(value) => decimal::base(value.as_f64()),
                        None => 0.0,
                    };
                    let value = decimal::apply(before, column.digits, *delta).expect("a valid delta");
                    self.present.insert(reference, Number::Float(value));
                }
            }
            for (reference, bits) in absolute(&tick.float_refs).zip(&tick.float_bits) {
                self.present.insert(reference, Number::Float(f64::from_bits(*bits)));
            }
            for column in &tick.integers {
                for (reference, magnitude) in absolute(&column.refs).zip(&column.magnitudes) {
                    self.present.insert(reference, Number::whole(*magnitude, column.negative));
                }
            }
            for reference in absolute(&tick.ended) {
                assert!(self.present.remove(&reference).is_some(), "only present series end");
            }
            let at = frame.base_ms + tick.offset_ms;
            for (reference, value) in &self.present {
                let series = &self.series[*reference as usize];
                if series.group == tick.group {
                    self.samples.entry(self.name(series)).or_default().push((at, *value));
                }
            }
        }
    }

    fn name(&self, series: &SeriesDef) -> String {
        let symbol = |number: &u32| self.symbols[*number as usize].as_str();
        let labels: Vec<_> =
            series.labels.chunks(2).map(|pair| format!("{}={}", symbol(&pair[0]), symbol(&pair[1]))).collect();
        let group = symbol(&self.groups[series.group as usize].name);
        let metric = symbol(&self.metrics[series.metric as usize].name);
        format!("{group}/{metric}{{{}}}", labels.join(","))
    }
}

fn absolute(gaps: &[u32]) -> impl Iterator<Item = u32> {
    gaps.iter().scan(0, |last, gap| {
        *last += gap;
        Some(*last)
    })
}
