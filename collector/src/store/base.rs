//! What a tick leaves unsaid: where the values of the tick before it lie, per lane.
//!
//! Ticks of one lane may go to different runs: one that is not newer than the newest run goes to an overlay, the next one to
//! the newest run again. Each says only what has changed since the one before it, wherever that went.

use super::group::is_stale;
use super::run::{Carried, Run};
use super::{Slot, TickBatch, Value};

/// Where the last tick of a lane went.
#[derive(Debug, Default)]
pub(super) enum Base {
    /// Nobody knows any more: only a key tick can follow.
    #[default]
    Lost,
    /// To the newest run; once that is frozen, what was present is in the group's `carried`.
    Newest,
    /// To this overlay.
    Overlay(usize),
    /// To an overlay that was frozen so many times ago; what was present in it then.
    Kept { present: Vec<Carried>, freezes: u32 },
}

/// A lane that has not gone on for so many freezes will hardly ever: what it needs is dropped.
const FREEZES_MAX: u32 = 3;

impl Base {
    /// The overlays are taken away to be sealed.
    pub fn freeze(&mut self, overlays: &[Run]) {
        *self = match std::mem::take(self) {
            Self::Overlay(at) => {
                Self::Kept { present: overlays.get(at).map(Run::present).unwrap_or_default(), freezes: 1 }
            }
            Self::Kept { freezes: FREEZES_MAX.., .. } => Self::Lost,
            Self::Kept { present, freezes } => Self::Kept { present, freezes: freezes + 1 },
            other => other,
        };
    }

    pub fn keeps(&self, slot: u32) -> bool {
        match self {
            Self::Kept { present, .. } => present.binary_search_by_key(&slot, |carried| carried.slot).is_ok(),
            _ => false,
        }
    }
}

/// A tick as a key tick. `base` was present at the tick before it, `before` in the run to which it goes; of both, the stale
/// marker ends what the tick does not go on with. All three ascend by slot, and so does what comes of them.
pub(super) fn whole(before: &[Carried], base: &[Carried], tick: &TickBatch) -> Vec<(Slot, Value)> {
    let mut values = Vec::with_capacity(before.len().max(base.len()).max(tick.values.len()));
    let (mut before, mut base) = (before.iter().peekable(), base.iter().peekable());
    let mut said = tick.values.iter().peekable();
    loop {
        let heads = [before.peek(), base.peek()].map(|carried| carried.map(|carried| carried.slot));
        let heads = heads.into_iter().chain([said.peek().map(|(slot, _)| slot.0)]);
        let Some(slot) = heads.flatten().min() else { return values };
        let was_there = before.next_if(|carried| carried.slot == slot).is_some();
        let base = base.next_if(|carried| carried.slot == slot);
        let is_known = was_there || base.is_some();
        // A key tick that comes out of the log may end what only its first reader knew of.
        let said = said.next_if(|(said, _)| said.0 == slot).map(|(_, value)| value);
        let said = said.filter(|value| tick.key || is_known || !is_stale(value));
        let goes_on = base.filter(|_| !tick.key).map(|carried| &carried.value);
        match said.or(goes_on) {
            Some(value) => values.push((Slot(slot), value.clone())),
            None if is_known => values.push((Slot(slot), Value::Float(lampad_proto::stale()))),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{GroupId, Run as Lane};

    fn carried(slots: &[(u32, f64)]) -> Vec<Carried> {
        let one = |(slot, value): &(u32, f64)| Carried { slot: *slot, timestamp_ms: 5, value: Value::Float(*value) };
        slots.iter().map(one).collect()
    }

    /// Values by slot, `None` for an end.
    fn made(before: &[(u32, f64)], base: &[(u32, f64)], key: bool, values: &[(u32, f64)]) -> Vec<(u32, Option<f64>)> {
        let values = values.iter().map(|(slot, value)| (Slot(*slot), Value::Float(*value))).collect();
        let tick = TickBatch { group: GroupId(0), timestamp_ms: 10, run: Lane::Live, key, values };
        let whole = whole(&carried(before), &carried(base), &tick);
        let float = |value: Value| match value {
            Value::Float(value) => Some(value).filter(|value| !lampad_proto::is_stale(*value)),
            Value::Integer(_) | Value::Histogram(_) => None,
        };
        whole.into_iter().map(|(slot, value)| (slot.0, float(value))).collect()
    }

    #[test]
    fn a_tick_is_completed_from_its_base_and_ends_the_rest() {
        let stale = lampad_proto::stale();
        let base = [(0, 1.0), (1, 2.0), (3, 4.0)];
        let values = [(1, 5.0), (3, stale), (4, 6.0), (9, stale)];
        let wanted = [(0, Some(1.0)), (1, Some(5.0)), (2, None), (3, None), (4, Some(6.0))];
        assert_eq!(made(&[(0, 9.0), (2, 9.0)], &base, false, &values), wanted, "9 was never there");
        assert_eq!(made(&[(2, 9.0)], &base, true, &[(0, 7.0)]), [(0, Some(7.0)), (1, None), (2, None), (3, None)]);
    }
}
