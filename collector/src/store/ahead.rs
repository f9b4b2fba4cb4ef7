//! Reads what a select wants of several groups at once, as soon as one of them lacks something in memory.

use std::sync::Arc;

use parking_lot::Mutex;

use super::block::SealedRun;
use super::blocks;
use super::core::Core;
use super::reading::{Asked, Wanted};
use super::{Budget, GroupId, SelectError, Slot};

/// Runs that are looked at together, about.
const RUNS_AHEAD: usize = 1 << 14;

/// The groups of one select, in its order.
pub(super) struct Ahead<'a> {
    core: &'a Core,
    groups: &'a [(GroupId, Vec<Wanted>)],
    asked: Asked,
    budget: &'a Budget,
    /// What was brought already.
    done: Mutex<Vec<bool>>,
}

/// What a group has on disk, and what of it is wanted.
struct OnDisk {
    group: GroupId,
    slots: Vec<Slot>,
    sealed: Arc<Vec<Arc<SealedRun>>>,
}

impl<'a> Ahead<'a> {
    pub fn new(core: &'a Core, groups: &'a [(GroupId, Vec<Wanted>)], asked: Asked, budget: &'a Budget) -> Self {
        Self { core, groups, asked, budget, done: Mutex::new(vec![false; groups.len()]) }
    }

    /// Is called where the group at this place lacks something. Others who do wait meanwhile: they want the same disk. Groups
    /// are read in parallel and in no order, so those before it are brought too where there is room.
    pub fn read(&self, at: usize) -> Result<(), SelectError> {
        let mut done = self.done.lock();
        if done[at] {
            return Ok(());
        }
        let (mut places, mut on_disk, mut runs) = (Vec::new(), Vec::new(), 0);
        for place in (at..self.groups.len()).chain(0..at).filter(|place| !done[*place]) {
            let (group, wanted) = &self.groups[place];
            let Some(sealed) = self.core.groups.read().get(*group).map(|group| group.state.lock().sealed.clone())
            else {
                continue;
            };
            let group = OnDisk { group: *group, slots: wanted.iter().map(|(_, slot)| *slot).collect(), sealed };
            runs += self.wanted(&group).near(&group.sealed).count();
            places.push(place);
            on_disk.push(group);
            if runs >= RUNS_AHEAD {
                break;
            }
        }
        let groups: Vec<_> = on_disk.iter().map(|group| (self.wanted(group), &**group.sealed)).collect();
        let read = self.core.blocks.read_ahead(&groups, self.budget)?;
        places[..read].iter().for_each(|place| done[*place] = true);
        Ok(())
    }

    fn wanted<'b>(&self, group: &'b OnDisk) -> blocks::Wanted<'b> {
        let Asked { from_ms, to_ms, .. } = self.asked;
        blocks::Wanted { group: group.group, slots: &group.slots, from_ms, to_ms }
    }
}
