//! What is too old goes.

use std::io;
use std::sync::Arc;

use crate::store::Slot;
use crate::store::admit::count_live;
use crate::store::block::SealedRun;
use crate::store::core::Core;
use crate::store::group::Group;
use crate::store::seal::Forgotten;
use crate::store::thin::needs;
use crate::store::tier::TIERS;

use super::Keeper;

impl Keeper {
    /// Drops what is older than the retention: runs, marks, series without samples, and partitions without runs.
    pub(super) fn retain(&mut self) -> io::Result<()> {
        let core = &self.core;
        let now_ms = self.age.now_ms(core.options.clock.now_ms());
        let oldest_ms = core.oldest_ms(now_ms);
        let groups: Vec<Arc<Group>> = core.groups.read().all.clone();
        let mut forgotten = Vec::new();
        for group in &groups {
            forgotten.push(forget_old(core, group, now_ms));
        }
        let live = count_live(&groups, core.options.live_since_ms());
        core.admission.lock().set_live(live);
        core.note_tiers();
        self.sealer.drop_old(core, forgotten, oldest_ms)
    }
}

/// Forgets raw samples from before `oldest_ms` that no tier needs any more, what tiers have of too long ago, the series that
/// are in neither, and that they went on when last heard of.
fn forget_old(core: &Core, group: &Group, now_ms: i64) -> Forgotten {
    let oldest_ms = core.oldest_ms(now_ms);
    let mut index = core.index.write();
    let mut state = group.state.lock();
    let stays = |run: &Arc<SealedRun>| run.max_ms >= oldest_ms || needs(core, &state, run);
    let (kept, mut expired): (Vec<_>, Vec<_>) = state.sealed.iter().cloned().partition(stays);
    if !expired.is_empty() {
        state.sealed = Arc::new(kept);
    }
    let mut off = Vec::new();
    for tier in 0..TIERS.len() {
        let tiered = &mut state.tiers[tier];
        match core.tier_oldest_ms(tier, now_ms) {
            Some(oldest_ms) if tiered.runs.iter().any(|run| run.max_ms < oldest_ms) => {
                let runs = Arc::make_mut(&mut tiered.runs);
                expired.extend(runs.extract_if(.., |run| run.max_ms < oldest_ms));
            }
            None if !tiered.is_unused() => {
                expired.extend(std::mem::take(tiered).runs.iter().cloned());
                off.push(tier);
            }
            _ => {}
        }
    }
    let kept_ms = core.oldest_kept_ms(now_ms);
    // A tier that is yet to be built wants to know who fell silent when.
    let built = |tier: usize| core.options.tiers[tier].is_none() || state.tiers[tier].until_ms >= oldest_ms;
    let all_built = (0..TIERS.len()).all(built);
    if all_built {
        state.marks.retain(|mark| mark.at_ms >= oldest_ms);
    }
    state.forget_erased(kept_ms);
    state.carried.retain(|carried| carried.timestamp_ms >= oldest_ms);
    if state.last_ms < oldest_ms {
        state.forget_kept();
    }
    let present = !state.present.is_empty() && state.last_ms < oldest_ms;
    if present {
        state.present = Arc::default();
    }
    let slots = 0..state.series.len() as u32;
    let mut is_old = |slot: &u32| {
        state.is_defined(Slot(*slot)) && state.seen_ms[*slot as usize] < kept_ms && !state.is_in_head(*slot)
    };
    let old: Vec<u32> = slots.filter(|slot| is_old(slot)).collect();
    for slot in &old {
        let Some(series) = state.forget(Slot(*slot)) else { continue };
        state.ended.remove(*slot);
        index.displace(series, group.id, Slot(*slot));
    }
    Forgotten { group: group.id, slots: old, present, expired, tiers: off }
}
