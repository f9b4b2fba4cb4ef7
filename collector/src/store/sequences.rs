//! Which frames are stored already, per agent and epoch.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{AgentId, SequenceSet};

/// Epochs kept per agent. A new one begins when a state directory is new or copied, which is rare; the frames of an epoch
/// that is forgotten would be stored a second time, as equal samples.
const EPOCHS_MAX: usize = 16;

/// One agent's epochs, the one used last at the end. Its lock is held while a frame is appended, so that two copies of one
/// frame cannot both be taken for new.
#[derive(Debug, Default)]
pub(super) struct Epochs {
    known: Vec<(u64, SequenceSet)>,
    /// Something was added since the manifest was told.
    pub unsaved: bool,
}

impl Epochs {
    pub fn contains(&self, epoch: u64, sequence: u64) -> bool {
        self.known.iter().any(|(known, set)| *known == epoch && set.contains(sequence))
    }

    pub fn get(&self, epoch: u64) -> SequenceSet {
        self.known.iter().find(|(known, _)| *known == epoch).map(|(_, set)| set.clone()).unwrap_or_default()
    }

    pub fn insert(&mut self, epoch: u64, first: u64, last: u64) {
        self.unsaved = true;
        match self.known.iter().position(|(known, _)| *known == epoch) {
            Some(at) if at + 1 == self.known.len() => {}
            Some(at) => {
                let entry = self.known.remove(at);
                self.known.push(entry);
            }
            None => {
                if self.known.len() == EPOCHS_MAX {
                    self.known.remove(0);
                }
                self.known.push((epoch, SequenceSet::default()));
            }
        }
        if let Some((_, set)) = self.known.last_mut() {
            set.insert_range(first, last);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, &SequenceSet)> {
        self.known.iter().map(|(epoch, set)| (*epoch, set))
    }
}

#[derive(Debug, Default)]
pub(super) struct Sequences(Mutex<HashMap<AgentId, Arc<Mutex<Epochs>>>>);

impl Sequences {
    pub fn agent(&self, agent: AgentId) -> Arc<Mutex<Epochs>> {
        self.0.lock().entry(agent).or_default().clone()
    }

    pub fn all(&self) -> Vec<(AgentId, Arc<Mutex<Epochs>>)> {
        self.0.lock().iter().map(|(agent, epochs)| (*agent, epochs.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_used_last_stays() {
        let mut epochs = Epochs::default();
        for epoch in 0..EPOCHS_MAX as u64 {
            epochs.insert(epoch, 1, 5);
        }
        epochs.insert(0, 7, 7);
        epochs.insert(99, 1, 1);
        assert!(epochs.contains(0, 7) && epochs.contains(0, 5) && !epochs.contains(0, 6));
        assert!(!epochs.contains(1, 1), "the oldest one made room");
    }
}
