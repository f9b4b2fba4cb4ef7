//! For measuring the store's codecs beside others: a series with a float at every tick, as a column.

use super::Value;
use super::column::{Column, OPEN, Points, Samples, Walk, expand_points};
use super::packed::{PackedPoints, pack};

/// The series as a column grows in memory (codec 1): a point where the value changes.
pub fn grow(values: &[f64]) -> Vec<u8> {
    let mut column = Column::default();
    let mut open = column.open();
    for (tick, value) in values.iter().enumerate() {
        let value = Value::Float(*value);
        if !open.is_last(&value) {
            open.set(tick as u32, &value);
        }
    }
    column.bytes
}

/// A grown column as it is sealed (codec 2); `None` where that is no shorter.
pub fn seal(grown: &[u8]) -> Option<Vec<u8>> {
    pack(grown)
}

/// Reads what [`grow`] made.
pub fn read_grown(bytes: &[u8], ticks: usize) -> Vec<f64> {
    expand(Points::new(bytes), ticks)
}

/// Reads what [`seal`] made.
pub fn read_sealed(bytes: &[u8], ticks: usize) -> Vec<f64> {
    expand(PackedPoints::new(bytes), ticks)
}

fn expand<'a>(points: impl Walk<'a>, ticks: usize) -> Vec<f64> {
    let times: Vec<i64> = (0..ticks as i64).collect();
    let mut out = Samples::default();
    expand_points(points, OPEN, &times, 0..ticks, &mut out);
    out.floats.iter().map(|sample| sample.value).collect()
}
