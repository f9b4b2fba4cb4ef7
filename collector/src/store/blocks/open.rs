//! Sealed runs whose values are in memory, as far as they are wanted.

use std::sync::Arc;

use crate::store::Slot;
use crate::store::block::Address;
use crate::store::column::Samples;
use crate::store::piece::{Head, UnpackedColumn};

/// A sealed run of which something may still have to be read.
pub(super) struct Opening {
    pub(super) head: Arc<Head>,
    /// Of each wanted slot.
    pub(super) columns: Vec<Option<OpenColumn>>,
    /// Parts that have columns which are wanted and not kept, and where they lie.
    pub(super) missing: Vec<(usize, Address)>,
}

/// A sealed run whose values are in memory.
pub struct OpenRun {
    pub(super) ticks: Arc<[i64]>,
    /// Of each wanted slot.
    pub(super) columns: Vec<Option<OpenColumn>>,
}

/// Places of wanted slots, ascending by slot.
pub(super) struct Places(Vec<(u32, usize)>);

/// Up to so many are looked for one by one: of a wide run a query mostly wants one series.
const PLACES_FEW: usize = 8;

impl Places {
    pub(super) fn of_slots(slots: &[Slot]) -> Self {
        let mut places: Vec<(u32, usize)> = slots.iter().enumerate().map(|(at, slot)| (slot.0, at)).collect();
        places.sort_unstable();
        Self(places)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them, where these are few.
    pub(super) fn few(&self) -> Option<&[(u32, usize)]> {
        (self.0.len() <= PLACES_FEW).then_some(&*self.0)
    }

    pub(super) fn any_of(&self, slots: &[u32]) -> bool {
        slots.iter().any(|slot| self.of(*slot).is_some())
    }

    pub(super) fn of(&self, slot: u32) -> Option<usize> {
        let at = self.0.binary_search_by_key(&slot, |(slot, _)| *slot).ok()?;
        Some(self.0[at].1)
    }
}

impl OpenRun {
    pub fn ticks(&self) -> &[i64] {
        &self.ticks
    }

    /// Of the wanted slot at this place.
    pub fn column(&self, at: usize) -> Option<&OpenColumn> {
        self.columns[at].as_ref()
    }
}

/// What a column that is kept takes beside its bytes, about.
const KEPT_BYTES: usize = size_of::<OpenColumn>() + 96;

/// A column in a value that it keeps in memory.
#[derive(Debug, Clone)]
pub struct OpenColumn {
    value: Arc<[u8]>,
    /// Where its bytes lie in the value.
    from: usize,
    pub(super) length: usize,
    codec: u8,
    through: u32,
    pub(super) address: Address,
}

impl OpenColumn {
    pub(super) fn of(column: UnpackedColumn<'_>, value: &Arc<[u8]>, address: Address) -> Self {
        let UnpackedColumn { codec, through, bytes, .. } = column;
        // The bytes are a part of the value.
        let from = bytes.as_ptr() as usize - value.as_ptr() as usize;
        Self { value: value.clone(), from, length: bytes.len(), codec, through, address }
    }

    /// Without the rest of its value, and what it takes then.
    pub(super) fn alone(&self) -> (Self, usize) {
        let alone = Self { value: self.bytes().into(), from: 0, ..self.clone() };
        (alone, self.length + KEPT_BYTES)
    }

    fn bytes(&self) -> &[u8] {
        &self.value[self.from..self.from + self.length]
    }

    /// Adds the samples in `[from_ms, to_ms]`; false when something cannot be read.
    pub fn expand(&self, ticks: &[i64], from_ms: i64, to_ms: i64, out: &mut Samples) -> bool {
        let column = UnpackedColumn { slot: 0, codec: self.codec, through: self.through, bytes: self.bytes() };
        column.expand(ticks, from_ms, to_ms, out)
    }
}
