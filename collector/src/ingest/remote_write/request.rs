//! A write request, read where it lies: nothing of a series is copied but its samples.
//!
//! ```text
//! WriteRequest  1 TimeSeries*   1 Label*      1 name, 2 value
//!               |               2 Sample*     1 double, 2 int64 milliseconds
//!               |               3 Exemplar*   see `wire`
//!               |               4 Histogram*  see `wire`
//!               3 Metadata*     see `wire`
//! ```
//! The labels of a series are kept as the bytes they came in. They are the same in every request, so whoever knows these bytes
//! knows the series, see `known`.

use std::borrow::Cow;

use prost::Message as _;

use super::wire::{Exemplar, Histogram, Metadata};
use crate::ingest::push::SAMPLES_MAX;

/// What a request says.
#[derive(Debug, Default)]
pub struct Request<'a> {
    pub series: Vec<Series<'a>>,
    /// Of all series, one after the other.
    pub samples: Vec<Sample>,
    /// As before.
    pub histograms: Vec<Histogram>,
    /// As before.
    pub exemplars: Vec<Exemplar>,
    pub metadata: Vec<Metadata>,
    histogram_bytes: usize,
}

#[derive(Debug)]
pub struct Series<'a> {
    /// Its `Label` fields with their tags and lengths.
    pub labels: Cow<'a, [u8]>,
    /// How many samples of the request are its own.
    pub samples: u32,
    pub histograms: u32,
    pub exemplars: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    pub timestamp_ms: i64,
    pub value: f64,
}

/// Two bytes can make a series or a histogram, which takes a hundred times as much in memory: what comes is counted while it is
/// read.
const SERIES_MAX: usize = SAMPLES_MAX;
const HISTOGRAMS_MAX: usize = 100_000;
const METADATA_MAX: usize = 100_000;
const EXEMPLARS_MAX: usize = 100_000;

/// An exemplar that is longer has labels beyond what may be kept, and is left out before it takes memory.
const EXEMPLAR_BYTES: usize = 4096;

/// Bytes of all histograms of a request: read, each takes up to eight times as much and a little.
const HISTOGRAM_BYTES: usize = 8 << 20;

/// Bytes that are no such message.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the body is no remote-write 1.0 request: {0}")]
    Form(&'static str),
    #[error("more than {most} {what} in one request; send less at once")]
    TooMany { what: &'static str, most: usize },
}

impl<'a> Request<'a> {
    pub fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut request = Self::default();
        let mut fields = Fields(message);
        while let Some((number, field)) = fields.next()? {
            match number {
                1 => {
                    room("series", request.series.len(), SERIES_MAX)?;
                    request.series(field.bytes()?)?;
                }
                3 => {
                    let metadata = Metadata::decode(field.bytes()?);
                    room("metadata", request.metadata.len(), METADATA_MAX)?;
                    request.metadata.push(metadata.map_err(|_| Malformed::Form("metadata that cannot be read"))?);
                }
                _ => {}
            }
        }
        Ok(request)
    }

    fn series(&mut self, message: &'a [u8]) -> Result<(), Malformed> {
        let mut labels = Range::default();
        let (samples, histograms, exemplars) = (self.samples.len(), self.histograms.len(), self.exemplars.len());
        let mut fields = Fields(message);
        loop {
            let at = message.len() - fields.0.len();
            let Some((number, field)) = fields.next()? else { break };
            match number {
                1 => {
                    field.bytes()?;
                    labels.add(message, at, message.len() - fields.0.len());
                }
                2 => {
                    room("samples", self.samples.len() + self.histograms.len(), SAMPLES_MAX)?;
                    self.samples.push(sample(field.bytes()?)?);
                }
                3 => {
                    room("exemplars", self.exemplars.len(), EXEMPLARS_MAX)?;
                    let bytes = field.bytes()?;
                    if bytes.len() > EXEMPLAR_BYTES {
                        continue;
                    }
                    let exemplar = Exemplar::decode(bytes);
                    self.exemplars.push(exemplar.map_err(|_| Malformed::Form("an exemplar that cannot be read"))?);
                }
                4 => {
                    room("histograms", self.histograms.len(), HISTOGRAMS_MAX)?;
                    let bytes = field.bytes()?;
                    self.histogram_bytes += bytes.len();
                    room("bytes of histograms", self.histogram_bytes, HISTOGRAM_BYTES)?;
                    let histogram = Histogram::decode(bytes);
                    self.histograms.push(histogram.map_err(|_| Malformed::Form("a histogram that cannot be read"))?);
                }
                _ => {}
            }
        }
        self.series.push(Series {
            labels: labels.of(message),
            samples: (self.samples.len() - samples) as u32,
            histograms: (self.histograms.len() - histograms) as u32,
            exemplars: (self.exemplars.len() - exemplars) as u32,
        });
        Ok(())
    }
}

/// Whether one more is taken.
fn room(what: &'static str, count: usize, most: usize) -> Result<(), Malformed> {
    if count < most { Ok(()) } else { Err(Malformed::TooMany { what, most }) }
}

/// Where the labels lie: mostly side by side.
#[derive(Default)]
struct Range {
    from: usize,
    to: usize,
    scattered: Option<Vec<u8>>,
}

impl Range {
    fn add(&mut self, message: &[u8], from: usize, to: usize) {
        match &mut self.scattered {
            Some(bytes) => bytes.extend_from_slice(&message[from..to]),
            None if self.from == self.to => (self.from, self.to) = (from, to),
            None if self.to == from => self.to = to,
            None => {
                let mut bytes = message[self.from..self.to].to_vec();
                bytes.extend_from_slice(&message[from..to]);
                self.scattered = Some(bytes);
            }
        }
    }

    fn of(self, message: &[u8]) -> Cow<'_, [u8]> {
        match self.scattered {
            Some(bytes) => Cow::Owned(bytes),
            None => Cow::Borrowed(&message[self.from..self.to]),
        }
    }
}

fn sample(message: &[u8]) -> Result<Sample, Malformed> {
    let mut sample = Sample { timestamp_ms: 0, value: 0.0 };
    let mut fields = Fields(message);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Fixed64(bits)) => sample.value = f64::from_bits(bits),
            (2, Field::Varint(timestamp_ms)) => sample.timestamp_ms = timestamp_ms as i64,
            (1 | 2, _) => return Err(Malformed::Form("a sample whose fields are of another type")),
            _ => {}
        }
    }
    Ok(sample)
}

/// Names and values of the labels of a series, as they came.
pub fn labels(bytes: &[u8]) -> impl Iterator<Item = Result<(&[u8], &[u8]), Malformed>> {
    let mut fields = Fields(bytes);
    std::iter::from_fn(move || match fields.next() {
        Ok(None) => None,
        Ok(Some((_, field))) => Some(field.bytes().and_then(label)),
        Err(malformed) => {
            fields.0 = &[];
            Some(Err(malformed))
        }
    })
}

fn label(message: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let (mut name, mut value) = (&[][..], &[][..]);
    let mut fields = Fields(message);
    while let Some((number, field)) = fields.next()? {
        match number {
            1 => name = field.bytes()?,
            2 => value = field.bytes()?,
            _ => {}
        }
    }
    Ok((name, value))
}

/// The fields of a message that are left.
struct Fields<'a>(&'a [u8]);

enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(Malformed::Form("a number where a message or text belongs")),
        }
    }
}

const CUT_SHORT: Malformed = Malformed::Form("it is cut short");

impl<'a> Fields<'a> {
    /// The next field's number and content.
    fn next(&mut self) -> Result<Option<(u64, Field<'a>)>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => {
                let (bytes, rest) = self.0.split_first_chunk().ok_or(CUT_SHORT)?;
                self.0 = rest;
                Field::Fixed64(u64::from_le_bytes(*bytes))
            }
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| CUT_SHORT)?;
                let (bytes, rest) = self.0.split_at_checked(length).ok_or(CUT_SHORT)?;
                self.0 = rest;
                Field::Bytes(bytes)
            }
            5 => {
                self.0 = self.0.get(4..).ok_or(CUT_SHORT)?;
                Field::Fixed32
            }
            _ => return Err(Malformed::Form("a field of an unknown type")),
        };
        if tag >> 3 == 0 {
            return Err(Malformed::Form("a field without a number"));
        }
        Ok(Some((tag >> 3, field)))
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let (first, rest) = self.0.split_first().ok_or(CUT_SHORT)?;
        if *first < 0x80 {
            self.0 = rest;
            return Ok(u64::from(*first));
        }
        let mut value = 0;
        for (at, byte) in self.0.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if *byte < 0x80 {
                self.0 = &self.0[at + 1..];
                return Ok(value);
            }
        }
        Err(if self.0.len() < 10 { CUT_SHORT } else { Malformed::Form("a number that does not end") })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::wire::{Label, TimeSeries, WireSample, WriteRequest};
    use super::*;

    fn labels_of(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        labels(bytes).map(|label| label.map(|(name, value)| (name.to_vec(), value.to_vec())).unwrap()).collect()
    }

    proptest! {
        /// Against the decoder that is generated from the definition.
        #[test]
        fn requests_are_read_as_they_were_written(
            series in prop::collection::vec(
                (prop::collection::vec(("[a-c]{0,3}", "[x-z]{0,200}"), 0..4), prop::collection::vec((any::<i64>(), 0.5f64..1e300), 0..4)), 0..5),
        ) {
            let timeseries = series.iter().map(|(labels, samples)| TimeSeries {
                labels: labels.iter().map(|(name, value)| Label { name: name.as_bytes().into(), value: value.as_bytes().into() }).collect(),
                samples: samples.iter().map(|(timestamp, value)| WireSample { timestamp: *timestamp, value: *value }).collect(),
                exemplars: vec![Exemplar { value: 1.5, ..Exemplar::default() }; samples.len() % 3],
                histograms: vec![Histogram { sum: 2.5, ..Histogram::default() }; samples.len() % 2],
            }).collect();
            let message = WriteRequest { timeseries, metadata: vec![Metadata::default()] }.encode_to_vec();
            let request = Request::read(&message).unwrap();
            prop_assert_eq!((request.series.len(), request.metadata.len()), (series.len(), 1));
            let mut samples = request.samples.iter();
            for ((labels, wanted), read) in series.iter().zip(&request.series) {
                let labels: Vec<_> = labels.iter().map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec())).collect();
                prop_assert_eq!(labels_of(&read.labels), labels);
                prop_assert_eq!((read.samples as usize, read.histograms as usize), (wanted.len(), wanted.len() % 2));
                prop_assert_eq!(read.exemplars as usize, wanted.len() % 3);
                for ((timestamp_ms, value), read) in wanted.iter().zip(samples.by_ref()) {
                    prop_assert_eq!((*timestamp_ms, value.to_bits()), (read.timestamp_ms, read.value.to_bits()));
                }
            }
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            if let Ok(request) = Request::read(&bytes) {
                request.series.iter().for_each(|series| labels(&series.labels).for_each(drop));
            }
            labels(&bytes).for_each(drop);
        }
    }

    #[test]
    fn labels_between_samples_are_found() {
        let label = |name: &str| {
            let label = Label { name: name.as_bytes().into(), value: b"v".to_vec() };
            TimeSeries { labels: vec![label], ..TimeSeries::default() }.encode_to_vec()
        };
        let sample = TimeSeries { samples: vec![WireSample { timestamp: 5, value: 1.0 }], ..TimeSeries::default() };
        let series = [label("a"), label("b"), sample.encode_to_vec(), label("c"), label("d")].concat();
        let message = [&[0x0a, series.len() as u8][..], &series].concat();
        let request = Request::read(&message).unwrap();
        let names: Vec<_> = labels_of(&request.series[0].labels).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, [b"a", b"b", b"c", b"d"]);
        assert_eq!(request.samples, [Sample { timestamp_ms: 5, value: 1.0 }]);
    }

    /// Such a request is a few KiB on its way here, and took gigabytes while it was read.
    #[test]
    fn empty_parts_are_counted() {
        let wrap = |parts: &[u8]| {
            let mut message = vec![0x0a];
            prost::encoding::encode_varint(parts.len() as u64, &mut message);
            [message, parts.to_vec()].concat()
        };
        for (message, what) in [
            (wrap(&[0x22, 0].repeat(HISTOGRAMS_MAX + 1)), "histograms"),
            (wrap(&[0x12, 0].repeat(SAMPLES_MAX + 1)), "samples"),
            (wrap(&[0x1a, 0].repeat(EXEMPLARS_MAX + 1)), "exemplars"),
            ([0x0a, 0].repeat(SERIES_MAX + 1), "series"),
            ([0x1a, 0].repeat(METADATA_MAX + 1), "metadata"),
        ] {
            let error = Request::read(&message).unwrap_err();
            assert!(matches!(error, Malformed::TooMany { what: found, .. } if found == what), "{error}");
        }
    }

    #[test]
    fn what_is_no_request_is_named() {
        for (bytes, part) in [
            (&[0x0a, 0x05, 0x0a][..], "cut short"),
            (&[0x08, 0xff], "cut short"),
            (&[0x08, 0x01], "a number where"),
            (&[0x0b], "unknown type"),
            (&[0x02, 0x00], "without a number"),
            (&[0xff; 12], "does not end"),
            (&[0x0a, 0x04, 0x12, 0x02, 0x08, 0x01], "another type"),
        ] {
            let message = Request::read(bytes).unwrap_err().to_string();
            assert!(message.contains(part), "{bytes:?}: {message}");
        }
    }
}
