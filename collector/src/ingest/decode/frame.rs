//! What a frame says, by the tables and values of its lane.

use std::sync::Arc;

use lampad_proto::Number;
use lampad_proto::v1::{self, GroupTick};
use roaring::RoaringBitmap;

use super::{DecodeError, IS_OTHER, Lane, Series, Tick};
use crate::ingest::admit::cut;
use crate::store::Value;

/// Bytes that the values of a frame may take in the log, below what one record may have.
const STORED_BYTES_MAX: usize = 24 << 20;

/// What was more in a frame than one may bring.
#[derive(Debug, Default, PartialEq)]
pub struct LeftOut {
    pub series: RoaringBitmap,
    pub ticks: usize,
}

/// What else a frame may bring.
struct Room {
    values: usize,
    bytes: usize,
}

impl Room {
    /// Gives room to values, where there is so much.
    fn take(&mut self, values: &[(u32, Value)]) -> bool {
        let bytes = values.iter().map(|(_, value)| stored_bytes(value)).sum::<usize>();
        let fits = values.len() <= self.values && bytes <= self.bytes;
        if fits {
            self.values -= values.len();
            self.bytes -= bytes;
        }
        fits
    }

    /// How many of the values there is room for.
    fn first(&self, values: &[(u32, Value)]) -> usize {
        let mut bytes = 0;
        let over = values.iter().take(self.values).position(|(_, value)| {
            bytes += stored_bytes(value);
            bytes > self.bytes
        });
        over.unwrap_or(values.len().min(self.values))
    }
}

/// At most.
fn stored_bytes(value: &Value) -> usize {
    match value {
        Value::Histogram(histogram) => 24 + prost::Message::encoded_len(&**histogram),
        _ => 24,
    }
}

impl Lane {
    /// What a frame says. On an error the lane awaits a reset.
    pub fn decode(&mut self, frame: &v1::Frame) -> Result<Vec<Tick>, DecodeError> {
        if !self.sound {
            return Err(DecodeError::NoDictionary);
        }
        let ticks = self.decode_ticks(frame);
        self.sound = ticks.is_ok();
        ticks
    }

    fn decode_ticks(&mut self, frame: &v1::Frame) -> Result<Vec<Tick>, DecodeError> {
        self.left_out = LeftOut::default();
        let mut room = Room { values: self.limits.values_per_frame, bytes: STORED_BYTES_MAX };
        let mut ticks = Vec::with_capacity(frame.ticks.len().min(self.limits.ticks_per_frame));
        self.groups.iter_mut().for_each(|group| group.is_cut = false);
        for tick in &frame.ticks {
            // What is cut once would be cut at every tick behind it, each time with all that is present.
            let is_cut = self.groups.get(tick.group as usize).is_some_and(|group| group.is_cut);
            if is_cut || ticks.len() >= self.limits.ticks_per_frame {
                // The lane knows its values now; the store must have them all with the group's next tick.
                if self.decode_changes(frame.base_ms, tick)?.is_some() {
                    self.left_out.ticks += 1;
                    self.groups[tick.group as usize].key_owed = true;
                }
                continue;
            }
            let Some(mut tick) = self.decode_tick(frame.base_ms, tick)? else { continue };
            if !room.take(&tick.values) {
                self.cut(&mut tick, &mut room);
            }
            ticks.push(tick);
        }
        Ok(ticks)
    }

    /// Leaves of a tick what is within the limit, as a key tick: what is left out is not present then, and nothing is made up
    /// for it. The lane goes on with all values, so that later differences have their base.
    fn cut(&mut self, tick: &mut Tick, room: &mut Room) {
        let mut values = self.present(tick.group);
        let left_out = values.split_off(room.first(&values));
        room.take(&values);
        self.left_out.series.extend(left_out.into_iter().map(|(series, _)| series));
        (tick.key, tick.values) = (true, values);
        let group = &mut self.groups[tick.group as usize];
        (group.key_owed, group.is_cut) = (true, true);
    }

    /// What of the frame decoded last is over the limit; the rest of it is to be stored.
    pub fn take_left_out(&mut self) -> LeftOut {
        std::mem::take(&mut self.left_out)
    }

    /// A tick as the store wants it: with all that is present where that is owed.
    fn decode_tick(&mut self, base_ms: i64, tick: &GroupTick) -> Result<Option<Tick>, DecodeError> {
        let owed = self.groups.get(tick.group as usize).is_some_and(|group| group.key_owed);
        let Some(mut decoded) = self.decode_changes(base_ms, tick)? else { return Ok(None) };
        if owed && !tick.key {
            (decoded.key, decoded.values) = (true, self.present(tick.group));
        }
        Ok(Some(decoded))
    }

    /// What a tick says; the lane has it then, and owes nothing. `None` for a group that is over the limit.
    fn decode_changes(&mut self, base_ms: i64, tick: &GroupTick) -> Result<Option<Tick>, DecodeError> {
        let known = self.groups.len() + self.over.groups;
        let Some(group) = self.groups.get_mut(tick.group as usize) else {
            if (tick.group as usize) < known {
                return Ok(None);
            }
            return Err(DecodeError::Unknown { what: "group", reference: tick.group.into(), known });
        };
        if !tick.key && group.key_round == 0 {
            return Err(DecodeError::NoBase(cut(&group.name).to_owned()));
        }
        let (name, last_ms) = (group.name.clone(), group.last_ms);
        let malformed = |trouble: String| DecodeError::Malformed { group: cut(&name).to_owned(), trouble };
        group.round = group.round.checked_add(1).ok_or_else(|| malformed("more ticks than can be counted".into()))?;
        group.key_round = if tick.key { group.round } else { group.key_round };
        group.key_owed = false;
        let at = At { group: tick.group, key_round: group.key_round, round: group.round };

        let timestamp_ms = base_ms
            .checked_add(tick.offset_ms)
            .filter(|timestamp_ms| *timestamp_ms >= 0)
            .ok_or_else(|| malformed(format!("time {base_ms} {:+} ms is none", tick.offset_ms)))?;
        if timestamp_ms <= last_ms {
            return Err(malformed(format!("tick {timestamp_ms} follows tick {last_ms}; ticks of a group ascend")));
        }
        group.last_ms = timestamp_ms;
        let values = self.changes(&at, tick).map_err(|error| match error {
            Trouble::Unknown(error) => error,
            Trouble::Text(text) => malformed(text),
        })?;
        Ok(Some(Tick { group: tick.group, timestamp_ms, key: tick.key, values }))
    }

    fn changes(&mut self, at: &At, tick: &GroupTick) -> Result<Vec<(u32, Value)>, Trouble> {
        let mut out = Vec::with_capacity(values(tick));
        self.decimals(at, &tick.decimals, &mut out)?;
        same_length("float column", tick.float_refs.len(), tick.float_bits.len())?;
        let mut refs = Refs::default();
        for (step, bits) in tick.float_refs.iter().zip(&tick.float_bits) {
            self.set(at, refs.next(*step)?, &mut out, |_| Ok(Value::Float(f64::from_bits(*bits))))?;
        }
        for column in &tick.integers {
            same_length("integer column", column.refs.len(), column.magnitudes.len())?;
            let mut refs = Refs::default();
            for (step, magnitude) in column.refs.iter().zip(&column.magnitudes) {
                // What a double holds is a float, whatever its sender thinks: so equal numbers are equal.
                let value = Number::whole(*magnitude, column.negative);
                self.set(at, refs.next(*step)?, &mut out, |_| Ok(value.into()))?;
            }
        }
        same_length("histogram column", tick.histogram_refs.len(), tick.histograms.len())?;
        let mut refs = Refs::default();
        for (step, histogram) in tick.histogram_refs.iter().zip(&tick.histograms) {
            self.limits.histogram(histogram)?;
            // Prometheus marks the end of a histogram series in its sum.
            let value = match lampad_proto::is_stale(histogram.sum) {
                true => Value::Float(lampad_proto::stale()),
                false => Value::Histogram(Arc::new(histogram.clone())),
            };
            self.set(at, refs.next(*step)?, &mut out, |_| Ok(value))?;
        }
        let mut refs = Refs::default();
        for step in &tick.ended {
            let reference = refs.next(*step)?;
            // An end of what is not present changes nothing: a key tick has left it out already.
            if self.find(at, reference)?.is_some_and(|series| series.is_present(at.key_round)) {
                self.set(at, reference, &mut out, |_| Ok(Value::Float(lampad_proto::stale())))?;
            }
        }
        Ok(out)
    }

    /// `None` for a series that is over the limit.
    fn find(&self, at: &At, reference: u32) -> Result<Option<Series>, Trouble> {
        let known = self.series.len() + self.over.series;
        let Some(series) = self.series.get(reference as usize) else {
            if (reference as usize) < known {
                return Ok(None);
            }
            let reference = reference.into();
            return Err(Trouble::Unknown(DecodeError::Unknown { what: "series", reference, known }));
        };
        if series.group() != at.group {
            return Err(format!("series {reference} is of another group").into());
        }
        Ok(Some(*series))
    }

    pub(super) fn set(
        &mut self,
        at: &At,
        reference: u32,
        out: &mut Vec<(u32, Value)>,
        next: impl FnOnce(Option<&Value>) -> Result<Value, Trouble>,
    ) -> Result<(), Trouble> {
        let Some(series) = self.find(at, reference)? else { return Ok(()) };
        if series.round == at.round {
            return Err(format!("series {reference} comes twice in a tick").into());
        }
        let present = series.is_present(at.key_round);
        let value = next(present.then(|| self.last(reference)).as_ref())?;
        let (last, is_other) = match &value {
            Value::Float(value) => (*value, false),
            other => {
                self.others.insert(reference, other.clone());
                (0.0, true)
            }
        };
        if series.is_other() && !is_other {
            self.others.remove(&reference);
        }
        let group = at.group | if is_other { IS_OTHER } else { 0 };
        self.series[reference as usize] = Series { last, round: at.round, group };
        out.push((reference, value));
        Ok(())
    }

    /// All present series of a group with their values.
    fn present(&self, group: u32) -> Vec<(u32, Value)> {
        let group = &self.groups[group as usize];
        let is_present = |series: &&u32| self.series[**series as usize].is_present(group.key_round);
        group.series.iter().filter(is_present).map(|reference| (*reference, self.last(*reference))).collect()
    }
}

pub(super) struct At {
    pub group: u32,
    pub key_round: u32,
    pub round: u32,
}

/// What is wrong with a tick; its group is added by the caller.
pub(super) enum Trouble {
    Unknown(DecodeError),
    Text(String),
}

impl From<String> for Trouble {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// References as the wire has them: the first one, then gaps.
#[derive(Default)]
pub(super) struct Refs {
    last: Option<u32>,
}

impl Refs {
    #[inline]
    pub fn next(&mut self, step: u32) -> Result<u32, Trouble> {
        let next = match self.last {
            None => Some(step),
            Some(_) if step == 0 => None,
            Some(last) => last.checked_add(step),
        };
        let next = next.ok_or_else(|| Trouble::Text(format!("series references do not ascend (gap {step})")))?;
        self.last = Some(next);
        Ok(next)
    }
}

fn values(tick: &GroupTick) -> usize {
    let decimals: usize = tick.decimals.iter().map(|column| column.refs.len()).sum();
    let integers: usize = tick.integers.iter().map(|column| column.refs.len()).sum();
    decimals + integers + tick.float_refs.len() + tick.histogram_refs.len() + tick.ended.len()
}

pub(super) fn same_length(what: &str, refs: usize, values: usize) -> Result<(), Trouble> {
    if refs == values { Ok(()) } else { Err(format!("{what} has {refs} references and {values} values").into()) }
}
