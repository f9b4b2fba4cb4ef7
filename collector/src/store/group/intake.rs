//! Ticks as they come in: which run takes them, what they build on, what is refused.

use crate::store::base::{Base, whole};
use crate::store::column::same_value;
use crate::store::run::{Carried, Run};
use crate::store::{Run as Lane, Slot, TickBatch, Value, WriteMode};

use super::{Outcome, Reject, State, Window};

/// What a late sample takes in memory beside its value, about: its share of a node of the tree.
const LATE_BYTES: usize = 40;

impl State {
    /// Stores a tick. `values` that are rejected are named by their place.
    pub fn tick(&mut self, mode: WriteMode, tick: &TickBatch, window: Window, lsn: u64) -> Outcome {
        self.lsn = self.lsn.max(lsn);
        if self.begun_ms == 0 {
            self.begun_ms = window.now_ms;
        }
        let mut rejected: Vec<(usize, Reject)> = Vec::new();
        for (at, (slot, _)) in tick.values.iter().enumerate() {
            if !self.is_defined(*slot) {
                rejected.push((at, Reject::Undefined));
            } else if mode == WriteMode::Delta && at > 0 && tick.values[at - 1].0 == *slot {
                // Two points at one tick: no column has a place for the second.
                rejected.push((at, Reject::Duplicate));
            }
        }
        match mode {
            WriteMode::Delta if !rejected.is_empty() => {
                let mut fewer = tick.clone();
                fewer.values.retain(|(slot, _)| self.is_defined(*slot));
                fewer.values.dedup_by_key(|(slot, _)| *slot);
                Outcome { rejected, ..self.delta_tick(&fewer, lsn) }
            }
            WriteMode::Delta => self.delta_tick(tick, lsn),
            WriteMode::Stated => {
                let mut outcome = Outcome { rejected, whole: None };
                self.stated_tick(tick, window, lsn, &mut outcome);
                outcome
            }
        }
    }

    fn base_mut(&mut self, lane: Lane) -> &mut Base {
        match lane {
            Lane::Live => &mut self.live_base,
            Lane::Backfill => &mut self.late_base,
        }
    }

    /// Whether only a key tick can be taken on this lane.
    pub fn needs_key(&self, lane: Lane) -> bool {
        let base = if lane == Lane::Live { &self.live_base } else { &self.late_base };
        matches!(base, Base::Lost)
    }

    /// What the next ticks build on is not known any more.
    pub fn lose_base(&mut self) {
        (self.live_base, self.late_base) = (Base::Lost, Base::Lost);
    }

    /// What was present in frozen overlays is too long ago to matter.
    pub fn forget_kept(&mut self) {
        for base in [&mut self.live_base, &mut self.late_base] {
            if let Base::Kept { present, .. } = base {
                present.clear();
            }
        }
    }

    /// What was present where the last tick of a lane went.
    fn present_at(&mut self, base: Base) -> Vec<Carried> {
        match base {
            Base::Lost => Vec::new(),
            Base::Newest if self.live.unsettled().is_empty() => self.carried.clone(),
            Base::Newest => self.live.settled().present(),
            Base::Overlay(at) => self.overlays[at].present(),
            Base::Kept { present, .. } => present,
        }
    }

    /// Bytes in the log, at most, of what completing the next tick of a lane adds to it; 0 where the tick is only appended.
    pub fn completion_bytes(&mut self, tick: &TickBatch) -> usize {
        let newer = tick.timestamp_ms > self.live.unsettled().last_ms().unwrap_or(self.last_ms);
        let to_newest = tick.run == Lane::Live && newer;
        let base = if tick.run == Lane::Live { &self.live_base } else { &self.late_base };
        // A live tick in an overlay may be followed by one that is not, and that builds on it.
        let appends = match base {
            Base::Newest | Base::Lost if to_newest => !self.live.unsettled().is_empty(),
            Base::Overlay(at) if tick.run == Lane::Backfill && !tick.key => {
                self.overlays[*at].last_ms() < Some(tick.timestamp_ms)
            }
            _ => tick.run == Lane::Backfill && tick.key,
        };
        if appends {
            return 0;
        }
        let of = |present: &[Carried]| {
            let value = |carried: &Carried| if tick.key { VALUE_BYTES } else { bytes_of_value(&carried.value) };
            present.iter().map(value).sum::<usize>()
        };
        let of_base = match base {
            Base::Lost | Base::Newest => 0,
            Base::Overlay(at) => of(&self.overlays[*at].present()),
            Base::Kept { present, .. } => of(present),
        };
        // The next tick of the lane may go to the other run, and is completed from this one then.
        let of_newest = match self.live.settled() {
            live if live.is_empty() => of(&self.carried),
            live => of(&live.present()),
        };
        2 * (of_base + of_newest)
    }

    /// One that is older than the retention is stored like others, because the next one builds on it. It is not selected.
    fn delta_tick(&mut self, tick: &TickBatch, lsn: u64) -> Outcome {
        // After a restart the sealed ticks count too, or two runs of the newest data would overlap.
        let newer = tick.timestamp_ms > self.live.unsettled().last_ms().unwrap_or(self.last_ms);
        let base = std::mem::take(self.base_mut(tick.run));
        if tick.run == Lane::Live && newer {
            self.live_base = Base::Newest;
            return self.newest_tick(tick, base, lsn);
        }
        if let Base::Overlay(at) = base
            && !tick.key
            && self.overlays[at].last_ms() < Some(tick.timestamp_ms)
        {
            *self.base_mut(tick.run) = Base::Overlay(at);
            self.overlays[at].delta_tick(tick.timestamp_ms, false, &tick.values);
            return Outcome::default();
        }
        let whole = (!tick.key).then(|| whole(&[], &self.present_at(base), tick));
        let mut run = Run::new();
        run.first_lsn = lsn;
        run.delta_tick(tick.timestamp_ms, true, whole.as_ref().unwrap_or(&tick.values));
        *self.base_mut(tick.run) = Base::Overlay(self.overlays.len());
        self.overlays.push(run);
        Outcome { whole, ..Outcome::default() }
    }

    fn newest_tick(&mut self, tick: &TickBatch, base: Base, lsn: u64) -> Outcome {
        let begun = self.live.unsettled().is_empty();
        if begun {
            self.live.settled().first_lsn = lsn;
        }
        self.last_ms = self.last_ms.max(tick.timestamp_ms);
        if !begun && matches!(base, Base::Newest | Base::Lost) {
            self.live.delta_tick(tick.timestamp_ms, tick.key, &tick.values);
            return Outcome::default();
        }
        let before = self.present_at(Base::Newest);
        let values = whole(&before, &self.present_at(base), tick);
        self.carried = Vec::new();
        self.live.delta_tick(tick.timestamp_ms, true, &values);
        Outcome { whole: Some(values), ..Outcome::default() }
    }

    fn stated_tick(&mut self, tick: &TickBatch, window: Window, lsn: u64, outcome: &mut Outcome) {
        let at_ms = tick.timestamp_ms;
        let outside = match at_ms {
            _ if at_ms < window.oldest_ms => Some(Reject::TooOld),
            _ if at_ms > window.newest_ms => Some(Reject::TooNew),
            _ => None,
        };
        if let Some(reject) = outside {
            outcome.rejected = (0..tick.values.len()).map(|at| (at, reject)).collect();
            return;
        }
        // A tick before the first of this run may be sealed already: it is late, and never the run's first.
        let late = self.live.unsettled().is_empty() && at_ms <= self.last_ms;
        let known = tick.values.iter().any(|(slot, _)| self.is_defined(*slot));
        let live = self.live.settled();
        let begun = live.is_empty() && !late && known;
        let number = if late || !known { None } else { live.stated_tick(at_ms) };
        if begun {
            live.first_lsn = lsn;
        }
        // Those that name no series are rejected already.
        let is_defined = |at: &usize| outcome.rejected.binary_search_by_key(at, |(at, _)| *at).is_err();
        let is_late = |at: &usize| {
            let (slot, value) = &tick.values[*at];
            !number.is_some_and(|number| live.state(number, *slot, value))
        };
        let late: Vec<usize> = (0..tick.values.len()).filter(is_defined).filter(is_late).collect();
        for at in late {
            let (slot, value) = &tick.values[at];
            if let Err(reject) = self.late_sample(*slot, at_ms, value, lsn) {
                outcome.rejected.push((at, reject));
            }
        }
        // The log has the times of ticks of which nothing was taken too, and a replay must not go by these.
        if number.is_some() {
            self.last_ms = self.last_ms.max(at_ms);
        }
    }

    fn late_sample(&mut self, slot: Slot, at_ms: i64, value: &Value, lsn: u64) -> Result<(), Reject> {
        if let Some(there) = self.value_in_head(slot.0, at_ms) {
            return if same_value(&there, value) { Ok(()) } else { Err(Reject::Duplicate) };
        }
        if self.late.is_empty() {
            self.late_lsn = lsn;
        }
        self.late_bytes += LATE_BYTES + bytes_of_value(value);
        let (min_ms, max_ms) = self.late_span.unwrap_or((at_ms, at_ms));
        self.late_span = Some((min_ms.min(at_ms), max_ms.max(at_ms)));
        self.late.insert((slot.0, at_ms), value.clone());
        Ok(())
    }

    fn value_in_head(&self, slot: u32, at_ms: i64) -> Option<Value> {
        if let Some(value) = self.late.get(&(slot, at_ms)) {
            return Some(value.clone());
        }
        self.runs().find_map(|run| run.value_at(slot, at_ms))
    }
}

/// Bytes of a number in the log, at most.
const VALUE_BYTES: usize = 24;

/// The same of any value.
pub fn bytes_of_value(value: &Value) -> usize {
    match value {
        Value::Float(_) | Value::Integer(_) => VALUE_BYTES,
        Value::Histogram(histogram) => VALUE_BYTES + prost::Message::encoded_len(&**histogram),
    }
}
