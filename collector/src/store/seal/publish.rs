//! What came of other work is made to count: folded partitions, tiers, what is too old; and what a backup sees.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::store::GroupId;
use crate::store::backup::Moment;
use crate::store::block::{Address, SealedRun};
use crate::store::compact::{Compacted, CompactedGroup};
use crate::store::core::Core;
use crate::store::entry;
use crate::store::group::{AHEAD_MS_MAX, Group};
use crate::store::log;
use crate::store::manifest::{Transaction, present_payload};
use crate::store::thin::{Places, Thinned, ThinnedGroup};
use crate::store::tier::tier_of;

use super::{LOG_WITHIN, Sealer};

/// What the retention took from a group's memory.
pub(in crate::store) struct Forgotten {
    pub group: GroupId,
    pub slots: Vec<u32>,
    /// Who was present is too long ago to matter.
    pub present: bool,
    /// Tiers that are switched off: of this group nothing is built any more.
    pub tiers: Vec<usize>,
    /// Runs that are too old. Queries that began before may still read them.
    pub expired: Vec<Arc<SealedRun>>,
}

impl Sealer {
    /// Makes what came of a compaction count. On failure nothing is known of what the manifest says, so the same must be
    /// published again.
    pub fn publish(&mut self, core: &Core, compacted: &Compacted) -> io::Result<()> {
        let mut transaction = Transaction::default();
        for CompactedGroup { group, old, new } in &compacted.groups {
            transaction.folded(group.id, old, new);
        }
        let begun = |name: &u32| self.whole.get(name).copied().unwrap_or(*name);
        let begun = compacted.from.iter().map(begun).min().unwrap_or(compacted.into);
        transaction.whole(compacted.into, begun);
        self.write_manifest(core, &[], transaction)?;
        for CompactedGroup { group, old, new } in &compacted.groups {
            let heads: HashSet<Address> = old.iter().map(|run| run.head).collect();
            group.state.lock().replace_sealed(&heads, new.clone());
            self.retired.extend(old.iter().cloned());
        }
        self.whole.insert(compacted.into, begun);
        self.compacting_into = None;
        Ok(())
    }

    /// Makes what was built of the tiers count; on failure as [`Self::publish`].
    pub fn publish_tiers(&mut self, core: &Core, thinned: &Thinned) -> io::Result<()> {
        let mut transaction = Transaction::default();
        for ThinnedGroup { group, tier, until_ms, runs } in &thinned.groups {
            runs.iter().for_each(|run| transaction.run(group.id, 0, run));
            transaction.tiered(group.id, *tier, *until_ms, thinned.through);
        }
        self.write_manifest(core, &[], transaction)?;
        for ThinnedGroup { group, tier, until_ms, runs } in &thinned.groups {
            let mut state = group.state.lock();
            let tiered = &mut state.tiers[*tier];
            Arc::make_mut(&mut tiered.runs).extend(runs.iter().cloned());
            (tiered.until_ms, tiered.through) = (*until_ms, thinned.through);
        }
        self.tiers = thinned.places;
        self.building = Places::default();
        Ok(())
    }

    /// The store between two checkpoints, for a backup. The files of the log are opened when all that the manifest says is
    /// durable in them; what they say beyond it is replayed.
    pub fn moment(&self, core: &Core, log: &Path) -> io::Result<Moment> {
        let mut transaction = Transaction::default();
        self.say_everything(core, &mut transaction);
        let groups: Vec<Arc<Group>> = core.groups.read().all.clone();
        // Who holds a run keeps its partition.
        let runs =
            groups.iter().flat_map(|group| group.state.lock().all_sealed().cloned().collect::<Vec<_>>()).collect();
        if !core.log.flush(LOG_WITHIN) {
            return Err(io::Error::other("the log does not become durable"));
        }
        let mut files = Vec::new();
        for (_, path, _) in log::segments(log)? {
            let file = File::open(&path)?;
            let length = file.metadata()?.len();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            files.push((name, file, length));
        }
        let released_lsn = core.released_lsn.load(Ordering::Relaxed);
        Ok(Moment { manifest: transaction.into_file(released_lsn), log: files, runs })
    }

    /// Makes durable what was forgotten, and deletes the partitions in which no run lies any more.
    pub fn drop_old(&mut self, core: &Core, mut forgotten: Vec<Forgotten>, oldest_ms: i64) -> io::Result<()> {
        forgotten.iter_mut().for_each(|group| self.retired.append(&mut group.expired));
        // Once nobody else holds a run, nobody will ask for its partition.
        self.retired.retain(|run| Arc::strong_count(run) > 1);
        let growing = self.tiers.iter().chain(&self.building).chain([&self.partition]).flatten();
        let mut used: HashSet<u32> = growing.map(|(partition, _)| *partition).collect();
        used.extend(self.compacting_into);
        used.extend(self.retired.iter().flat_map(|run| run.parts.iter().chain([&run.head])).map(|at| at.partition));
        for group in &core.groups.read().all {
            used.extend(group.state.lock().all_sealed().map(|run| run.head.partition));
        }
        let mut partitions = self.engine.partitions()?;
        partitions.sort_unstable();
        // All of a partition was sealed before the next one began, and so are its samples older than that. What a tier holds
        // that nobody names stays until a repair.
        let outlived = |partition: &u32| {
            let next = partitions.iter().find(|next| *next > partition).filter(|_| tier_of(*partition).is_none());
            next.is_some_and(|next| i64::from(*next) * 1000 + AHEAD_MS_MAX < oldest_ms)
        };
        let unused = partitions.iter().filter(|partition| !used.contains(partition));
        // A backup reads: what is too old waits for its end.
        let may = core.pins.load(Ordering::SeqCst) == 0;
        let old: Vec<u32> =
            unused.filter(|partition| may && (!self.names_lost || outlived(partition))).copied().collect();
        let mut transaction = Transaction::default();
        for Forgotten { group, slots, present, tiers, .. } in &forgotten {
            tiers.iter().for_each(|tier| transaction.tiered(*group, *tier, i64::MIN, 0));
            if !slots.is_empty() {
                let mut payload = Vec::new();
                entry::put_forget(&mut payload, *group, slots);
                transaction.raw(entry::FORGET, &payload);
            }
            if *present {
                transaction.present(&present_payload(*group, 0, &[]));
            }
        }
        if transaction.is_empty() && old.is_empty() {
            return Ok(());
        }
        for partition in &old {
            self.whole.remove(partition);
            transaction.dropped(*partition);
        }
        self.write_manifest(core, &[], transaction)?;
        for partition in old {
            tracing::info!(partition, "all samples of this partition are folded into another or too old; deleting it");
            self.engine.drop_partition(partition)?;
        }
        Ok(())
    }
}
