//! Which partition new values go to, and what partitions are called.

use std::collections::HashSet;
use std::io;

use crate::store::Options;
use crate::store::core::Core;
use crate::store::thin::Places;
use crate::store::tier::{TIERS, raw_name, tier_of};

use super::Sealer;

impl Sealer {
    pub(super) fn current_partition(&self, core: &Core) -> (u32, u32) {
        let now_s = u32::try_from(core.options.clock.now_ms() / 1000).unwrap_or(0);
        let (_, span_s) = Self::spans_s(&core.options);
        match self.partition {
            // Begun while the clock was far ahead: it would grow until the clock gets there.
            Some((partition, _)) if partition.saturating_sub(now_s) > span_s => {
                (self.free_name(now_s.saturating_sub(1)), 0)
            }
            Some((partition, number)) if now_s.saturating_sub(partition) < span_s => (partition, number),
            Some((partition, _)) => (raw_name(now_s.max(partition + 1)), 0),
            None => (raw_name(now_s), 0),
        }
    }

    /// The name below which partitions of raw samples do not grow any more. One that has had its time is closed even though
    /// nothing has come since.
    pub fn closed_below(&mut self, core: &Core) -> u32 {
        if let Some((begun, _)) = self.partition
            && self.current_partition(core).0 != begun
        {
            self.close_partition();
        }
        self.partition.map_or(0, |(begun, _)| begun)
    }

    /// Where what is built of the tiers now goes.
    pub fn tier_places(&self, core: &Core) -> Places {
        let now_ms = core.options.clock.now_ms();
        std::array::from_fn(|tier| {
            let retention = core.options.tiers[tier]?;
            Some(TIERS[tier].partition(now_ms, self.tiers[tier], retention))
        })
    }

    /// How many seconds a partition that comes of compaction may span, and one that grows. The former: at most an eighth of the
    /// space waits for its neighbours to grow old. The latter is short, so that what was sealed early is soon folded.
    pub fn spans_s(options: &Options) -> (u32, u32) {
        const HOUR_S: u64 = 3600;
        let (whole, part) = match options.retention.as_secs() {
            0 => (24 * HOUR_S, 2 * HOUR_S),
            retention => {
                // See `Options::seal_after`.
                let least = HOUR_S.min(retention / 4).max(1);
                ((retention / 8).clamp(HOUR_S, 24 * HOUR_S), (retention / 96).clamp(least, 2 * HOUR_S))
            }
        };
        (whole as u32, part as u32)
    }

    /// The next checkpoint begins a partition, whose name this is; one name before it stays free.
    pub fn close_partition(&mut self) -> Option<u32> {
        self.partition = self.partition.map(|(begun, _)| (begun.saturating_add(2), 0));
        self.partition.map(|(begun, _)| begun)
    }

    /// The first name after this one that nothing has.
    pub(super) fn free_name(&self, after: u32) -> u32 {
        let mut taken: HashSet<u32> = self.engine.partitions().unwrap_or_default().into_iter().collect();
        taken.extend(self.compacting_into);
        let free = |name: &u32| tier_of(*name).is_none() && !taken.contains(name);
        (after.saturating_add(1)..=u32::MAX).find(free).unwrap_or(u32::MAX)
    }

    /// A name for a partition that holds what lay in `from`: between these and the next one.
    pub fn name_after(&self, from: &[u32]) -> io::Result<u32> {
        let growing = self.tiers.iter().copied().chain([self.partition]).flatten().map(|(begun, _)| begun);
        let taken: HashSet<u32> = self.engine.partitions()?.into_iter().chain(growing).collect();
        let after = from.iter().max().map_or(0, |last| last.saturating_add(1));
        (after..=u32::MAX)
            .find(|name| !taken.contains(name))
            .ok_or_else(|| io::Error::other("no partition name is free"))
    }
}
