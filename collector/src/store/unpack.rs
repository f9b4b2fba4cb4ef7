//! Reading whole runs back, for those who make others of them.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use super::block::{Address, SealedRun, piece};
use super::disk::Engine;
use super::piece::{UnpackedColumn, read_columns, read_head};

/// Bytes of values that are kept at hand: groups that were sealed together share them.
const AT_HAND_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Reads values, each once where neighbours ask for it.
pub(super) struct Values<'a> {
    engine: &'a dyn Engine,
    at_hand: HashMap<(u32, u32), Arc<[u8]>>,
    at_hand_bytes: usize,
}

/// A run with the values in which its columns lie.
pub(super) struct Opened {
    pub live: bool,
    pub ticks: Vec<i64>,
    parts: Vec<(Arc<[u8]>, u32, Vec<u32>)>,
}

impl Opened {
    /// All its columns; `None` when something of them is damaged.
    pub fn columns(&self, group: u32) -> Option<Vec<UnpackedColumn<'_>>> {
        let mut columns = Vec::new();
        for (value, number, slots) in &self.parts {
            columns.extend(piece(value, *number).and_then(|piece| read_columns(piece, group, slots))?);
        }
        Some(columns)
    }
}

impl<'a> Values<'a> {
    pub fn new(engine: &'a dyn Engine) -> Self {
        Self { engine, at_hand: HashMap::new(), at_hand_bytes: 0 }
    }

    fn value(&mut self, address: Address) -> io::Result<Option<Arc<[u8]>>> {
        let key = (address.partition, address.number);
        if let Some(value) = self.at_hand.get(&key) {
            return Ok(Some(value.clone()));
        }
        let read = match self.engine.get(key.0, key.1) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => None,
            read => read?,
        };
        let Some(value) = read else { return Ok(None) };
        if self.at_hand_bytes + value.len() > AT_HAND_BYTES_MAX {
            (self.at_hand, self.at_hand_bytes) = (HashMap::new(), 0);
        }
        let value: Arc<[u8]> = value.into();
        self.at_hand_bytes += value.len();
        self.at_hand.insert(key, value.clone());
        Ok(Some(value))
    }

    /// Reads a run; `None` when a value of it is damaged.
    pub fn open(&mut self, group: u32, run: &SealedRun) -> io::Result<Option<Opened>> {
        let Some(head) = self.value(run.head)? else { return Ok(None) };
        let Some(head) = piece(&head, run.head.piece).and_then(|piece| read_head(piece, group)) else {
            return Ok(None);
        };
        let mut parts = Vec::with_capacity(run.parts.len());
        for (address, slots) in run.parts.iter().zip(head.parts()).filter(|(address, _)| !address.is_lost()) {
            let Some(value) = self.value(*address)? else { return Ok(None) };
            parts.push((value, address.piece, slots.to_vec()));
        }
        Ok(Some(Opened { live: run.live, ticks: head.ticks.list().to_vec(), parts }))
    }
}
