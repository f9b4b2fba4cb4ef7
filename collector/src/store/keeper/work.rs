//! Work beside sealing: tiers are built and partitions folded, by threads of their own or here and now, and what came of it
//! is published.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::store::compact::{self, Compacted, CompactedGroup};
use crate::store::erase::Erased;
use crate::store::group::Group;
use crate::store::job::{Job, Pace};
use crate::store::seal::Sealer;
use crate::store::thin::{self, Places, Thinned};
use crate::store::tier::TIERS;

use super::{Compaction, Keeper};

/// Work that is done at once, where somebody waits for it: what fails would be begun again and again.
const WORKS_MAX: usize = 16;

impl Keeper {
    /// Begins to build the tiers or to fold what is worth it, if nothing of that kind goes on.
    pub(super) fn begin_work(&mut self) -> io::Result<()> {
        let compacts = self.compaction.is_some() || self.compacted.is_some();
        let thins = self.thinning.is_some() || self.thinned.is_some();
        if compacts || thins || self.core.disk_full.load(Ordering::Relaxed) {
            return Ok(());
        }
        let current = self.sealer.closed_below(&self.core);
        if self.unread.0 != current {
            self.unread = (current, BTreeSet::new());
        }
        // First, so that nothing is folded that the tiers have not seen: they would take it for new.
        if self.core.has_tiers() && thin::is_due(&self.core, current, &self.unread.1) {
            let places = self.sealer.tier_places(&self.core);
            let (core, engine) = (self.core.clone(), self.sealer.engine.clone());
            self.sealer.building = places;
            let work = move |pace: &Pace| thin::thin(&core, &*engine, current, places, pace);
            self.thinning = Some(Job::start("store-tiers", work)?);
            return Ok(());
        }
        let Some(from) = self.worth_folding() else { return Ok(()) };
        let into = self.sealer.name_after(&from)?;
        let (core, engine, partitions) = (self.core.clone(), self.sealer.engine.clone(), from.clone());
        let work = move |pace: &Pace| compact::compact(&core, &*engine, partitions, into, pace);
        let job = Job::start("store-compact", work)?;
        self.sealer.compacting_into = Some(into);
        self.compaction = Some(Compaction { from, into, job });
        Ok(())
    }

    /// Does what is worth doing, one after another, and waits for it.
    pub(super) fn tend(&mut self) -> io::Result<()> {
        for _ in 0..WORKS_MAX {
            self.begin_work()?;
            if self.thinning.is_none() && self.compaction.is_none() {
                break;
            }
            while self.thinning.is_some() || self.compaction.is_some() {
                std::thread::sleep(Duration::from_millis(1));
                self.end_work()?;
            }
        }
        self.retain()
    }

    /// Partitions to fold next, of raw samples or of one tier.
    fn worth_folding(&self) -> Option<Vec<u32>> {
        let families = [None].into_iter().chain((0..TIERS.len()).map(Some));
        let plans = families.map(|tier| {
            let mut usage = compact::usage(&self.core, tier);
            usage.retain(|partition, _| !self.tried.contains(partition));
            let growing = tier.map_or(self.sealer.partition, |tier| self.sealer.tiers[tier]);
            // A tier's partitions are folded each by itself.
            let spans = if tier.is_none() { Sealer::spans_s(&self.core.options) } else { (0, 0) };
            compact::plan(&usage, growing.map(|(begun, _)| begun), &self.sealer.whole, spans)
        });
        plans.into_iter().find(|from| !from.is_empty())
    }

    /// Publishes what came of work that is done.
    pub(super) fn end_work(&mut self) -> io::Result<()> {
        let finished = self.compaction.as_ref().and_then(|compaction| compaction.job.finished());
        if let Some(result) = finished
            && let Some(Compaction { from, into, .. }) = self.compaction.take()
        {
            self.take_compacted(result, &from, into);
        }
        if let Some(result) = self.thinning.as_ref().and_then(Job::finished) {
            self.thinning = None;
            self.take_thinned(result);
        }
        self.publish()
    }

    /// Ends the work that goes on, published or not.
    fn drop_work(&mut self) -> io::Result<()> {
        // What is done and not yet published keeps its place: to the retention it would be a left-over.
        if self.compaction.take().is_some() {
            self.sealer.compacting_into = None;
        }
        if self.thinning.take().is_some() {
            self.sealer.building = Places::default();
        }
        self.publish()
    }

    /// Folds partitions, here and now.
    fn fold_now(&mut self, from: Vec<u32>) -> io::Result<()> {
        let into = self.sealer.name_after(&from)?;
        let result = compact::compact(&self.core, &*self.sealer.engine, from.clone(), into, &Pace::default());
        self.take_compacted(result, &from, into);
        self.publish()
    }

    /// What is built next of a tier goes to a partition of its own, behind what comes of those that are there.
    fn close_tier(&mut self, tier: Option<usize>) {
        if let Some(place) = tier.and_then(|tier| self.sealer.tiers[tier].as_mut()) {
            *place = (place.0.saturating_add(2), 0);
        }
    }

    /// Folds the partitions in which something is deleted, and drops the records of what is gone with that; false where something
    /// is left.
    pub(super) fn clean_now(&mut self) -> io::Result<bool> {
        self.drop_work()?;
        let groups: Vec<Arc<Group>> = self.core.groups.read().all.clone();
        let of_group = |group: &Arc<Group>| (group.clone(), group.state.lock().erased.clone());
        let mut erased: Vec<(Arc<Group>, Arc<Vec<Erased>>)> = groups.iter().map(of_group).collect();
        erased.retain(|(_, erased)| !erased.is_empty());
        if erased.is_empty() {
            return Ok(true);
        }
        self.sealer.close_partition();
        let mut folded = BTreeSet::new();
        for tier in [None].into_iter().chain((0..TIERS.len()).map(Some)) {
            self.close_tier(tier);
            for partition in compact::partitions_of_erased(&erased, tier) {
                self.fold_now(vec![partition])?;
                folded.insert(partition);
            }
        }
        let mut is_clean = true;
        for (group, erased) in &erased {
            let mut state = group.state.lock();
            // A group that could not be read stays where it was.
            let is_left = state.all_sealed().any(|run| folded.contains(&run.head.partition));
            is_clean &= !is_left;
            // A manifest that is written anew says only what there is.
            self.sealer.say_everything |= !is_left && state.forget_cleaned(erased);
        }
        self.retain()?;
        if self.sealer.say_everything {
            self.sealer.checkpoint(&self.core)?;
        }
        Ok(is_clean)
    }

    /// Closes the partition that grows, builds the tiers and folds all, here and now.
    pub(super) fn compact_now(&mut self) -> io::Result<()> {
        self.drop_work()?;
        let current = self.sealer.close_partition();
        self.thin_now()?;
        for tier in [None].into_iter().chain((0..TIERS.len()).map(Some)) {
            self.close_tier(tier);
            let used = compact::usage(&self.core, tier).into_keys();
            let from: Vec<u32> = used.filter(|begun| Some(*begun) != current).collect();
            if from.is_empty() {
                continue;
            }
            self.fold_now(from)?;
        }
        self.retain()
    }

    /// Builds what the closed partitions have for the tiers, here and now.
    fn thin_now(&mut self) -> io::Result<()> {
        let current = self.sealer.partition.map_or(0, |(begun, _)| begun);
        if !self.core.has_tiers() || !thin::is_due(&self.core, current, &self.unread.1) {
            return Ok(());
        }
        let places = self.sealer.tier_places(&self.core);
        self.sealer.building = places;
        let thinned = thin::thin(&self.core, &*self.sealer.engine, current, places, &Pace::default());
        self.take_thinned(thinned);
        self.publish()
    }

    fn take_thinned(&mut self, result: io::Result<Thinned>) {
        match result {
            Ok(thinned) => {
                self.unread = (thinned.through, thinned.unread.clone());
                let runs: usize = thinned.groups.iter().map(|group| group.runs.len()).sum();
                tracing::info!(runs, thinned.bytes, through = thinned.through, "tiers are built");
                self.thinned = Some(thinned);
            }
            Err(error) => {
                self.sealer.building = Places::default();
                self.retained = Instant::now();
                tracing::error!(%error, "cannot build the tiers; raw samples stay until it is done, and it is tried again");
            }
        }
    }

    fn take_compacted(&mut self, result: io::Result<Compacted>, from: &[u32], into: u32) {
        match result {
            Ok(compacted) => {
                // A group that could not be read stays, and would be tried again and again.
                self.tried.extend(from);
                let runs = |of: fn(&CompactedGroup) -> usize| compacted.groups.iter().map(of).sum::<usize>();
                let (before, after) = (runs(|group| group.old.len()), runs(|group| group.new.len()));
                tracing::info!(partitions = from.len(), into, before, after, compacted.bytes, "runs are folded");
                self.core.counters.folded_bytes.fetch_add(compacted.bytes, Ordering::Relaxed);
                self.sealer.compacting_into = Some(into);
                self.compacted = Some(compacted);
            }
            Err(error) => {
                self.tried.extend(from);
                self.sealer.compacting_into = None;
                tracing::error!(%error, "cannot compact {from:?}; all stays where it is until the next start");
            }
        }
    }

    fn publish(&mut self) -> io::Result<()> {
        if let Some(compacted) = &self.compacted {
            self.sealer.publish(&self.core, compacted)?;
            self.compacted = None;
        }
        if let Some(thinned) = &self.thinned {
            self.sealer.publish_tiers(&self.core, thinned)?;
            self.thinned = None;
            self.core.note_tiers();
        }
        Ok(())
    }
}
