//! Metadata of metric families: it comes in requests of its own, before or after the series.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::wire::Metadata;
use lampad_proto::v1::MetricType;

use crate::limits::Limits;
use crate::store::Meta;

/// Families whose metadata is kept.
const FAMILIES_MAX: usize = 100_000;

#[derive(Debug, Default)]
pub struct Families(Mutex<HashMap<String, Meta>>);

impl Families {
    /// Takes what is new; whether there was any. Of several texts of one family, as two versions of a program have them, the first
    /// stays: all series are described anew when one changes, and these would change with every send.
    pub fn note(&self, metadata: Vec<Metadata>, limits: &Limits) -> bool {
        let mut families = self.0.lock();
        let mut news = false;
        for family in metadata {
            let is_full = families.len() >= FAMILIES_MAX && !families.contains_key(&family.family);
            if is_full || limits.metric(&family.family).is_err() {
                continue;
            }
            let (help, unit) = (limits.described(&family.help).into(), limits.described(&family.unit).into());
            let meta = Meta { kind: family.kind(), help, unit };
            let unknown = MetricType::default();
            let better = |known: &Meta| known.kind == unknown && meta.kind != unknown;
            let is_news = families.get(&family.family).is_none_or(better);
            if is_news {
                families.insert(family.family, meta);
                news = true;
            }
        }
        news
    }

    /// The metadata of a metric: its own, or that of the histogram or summary which it is a part of.
    pub fn of(&self, metric: &str) -> Option<Meta> {
        let families = self.0.lock();
        let part_of = || ["_bucket", "_count", "_sum"].iter().find_map(|part| families.get(metric.strip_suffix(part)?));
        families.get(metric).or_else(part_of).cloned()
    }
}
