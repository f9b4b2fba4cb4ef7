//! Which frames are stored already, per agent and epoch.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{AgentId, PUSHER_EPOCH, SequenceSet};

/// Epochs kept per agent. A new one begins when a state directory is new or copied, which is rare; the frames of an epoch
/// that is forgotten would be stored a second time, as equal samples.
const EPOCHS_MAX: usize = 16;

/// Pushers that are remembered, those that came last. A pusher repeats a request within a minute or gives up; a job that cron
/// starts makes a new one each time, so most are never seen again. A repeat of a forgotten one is stored as equal samples.
const PUSHERS_MAX: usize = 16_384;

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
pub(super) struct Sequences(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    all: HashMap<AgentId, Arc<Mutex<Epochs>>>,
    /// Those of `all` that began as pushers, oldest first.
    pushers: VecDeque<AgentId>,
}

impl Sequences {
    /// The epochs of one that pushes frames of `epoch`; begun when they are not known.
    pub fn agent(&self, agent: AgentId, epoch: u64) -> Arc<Mutex<Epochs>> {
        let mut known = self.0.lock();
        if let Some(epochs) = known.all.get(&agent) {
            return epochs.clone();
        }
        if epoch == PUSHER_EPOCH {
            known.pushers.push_back(agent);
            if known.pushers.len() > PUSHERS_MAX
                && let Some(oldest) = known.pushers.pop_front()
            {
                known.all.remove(&oldest);
            }
        }
        known.all.entry(agent).or_default().clone()
    }

    /// What is stored of an agent's epoch. An id that is not known stays so: anybody may ask.
    pub fn stored(&self, agent: AgentId, epoch: u64) -> SequenceSet {
        let epochs = self.0.lock().all.get(&agent).cloned();
        epochs.map(|epochs| epochs.lock().get(epoch)).unwrap_or_default()
    }

    pub fn all(&self) -> Vec<(AgentId, Arc<Mutex<Epochs>>)> {
        self.0.lock().all.iter().map(|(agent, epochs)| (*agent, epochs.clone())).collect()
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

    /// A job that cron started each minute left an entry for ever, in memory and manifest.
    #[test]
    fn of_pushers_the_newest_are_remembered_and_agents_always() {
        let sequences = Sequences::default();
        let id = |number: u128| AgentId(number.to_be_bytes());
        sequences.agent(id(1), 7).lock().insert(7, 1, 5);
        for number in 2..PUSHERS_MAX as u128 + 12 {
            sequences.agent(id(number), PUSHER_EPOCH).lock().insert(PUSHER_EPOCH, 0, 0);
        }
        assert_eq!(sequences.all().len(), PUSHERS_MAX + 1);
        let stored = |number| sequences.stored(id(number), PUSHER_EPOCH).contains(0);
        assert!(!stored(2) && stored(PUSHERS_MAX as u128 + 11));
        assert!(sequences.stored(id(1), 7).contains(5));
    }

    #[test]
    fn asking_for_an_unknown_id_leaves_no_trace() {
        let sequences = Sequences::default();
        assert!(sequences.stored(AgentId([3; 16]), 7).is_empty());
        assert!(sequences.all().is_empty());
    }
}
