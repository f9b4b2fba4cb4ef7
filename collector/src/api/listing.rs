//! The labels of many series as a JSON list, written while they are looked up.

use std::ops::Range;

use axum::body::Bytes;
use axum::response::Response;

use crate::store::Label;

use super::json::push_string;
use super::reply::{TRUNCATED, written};
use super::stream::{PIECE_BYTES, streamed};

/// A reply under way. Neighbours have most of their labels in common: one that the series before has at the same place is
/// copied from there.
pub struct Listing {
    /// What is written, in pieces that need not be moved to grow.
    done: Vec<Bytes>,
    out: Vec<u8>,
    limit: usize,
    count: usize,
    truncated: bool,
    /// The labels of the series before, and where they were written.
    before: Vec<(Label, Range<usize>)>,
}

impl Listing {
    pub fn new(limit: Option<usize>) -> Self {
        let out = b"{\"status\":\"success\",\"data\":[".to_vec();
        let limit = limit.unwrap_or(usize::MAX);
        Self { done: Vec::new(), out, limit, count: 0, truncated: false, before: Vec::new() }
    }

    /// Adds a series; false when the list is full.
    pub fn push(&mut self, labels: &[&Label]) -> bool {
        if self.count == self.limit {
            self.truncated = true;
            return false;
        }
        if self.out.len() >= PIECE_BYTES {
            self.done.push(std::mem::replace(&mut self.out, Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 8)).into());
            self.before.clear();
        }
        self.out.extend_from_slice(if self.count > 0 { b",{" } else { b"{" });
        self.count += 1;
        self.before.truncate(labels.len());
        for (at, label) in labels.iter().copied().enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            if let Some((_, range)) = self.before.get(at).filter(|(before, _)| before == label) {
                self.out.extend_from_within(range.clone());
                continue;
            }
            let from = self.out.len();
            push_string(&mut self.out, &label.name);
            self.out.push(b':');
            push_string(&mut self.out, &label.value);
            let written = (label.clone(), from..self.out.len());
            match self.before.get_mut(at) {
                Some(before) => *before = written,
                None => self.before.push(written),
            }
        }
        self.out.push(b'}');
        true
    }

    pub fn finish(mut self) -> Response {
        self.out.push(b']');
        if self.truncated {
            self.out.extend_from_slice(b",\"warnings\":[");
            push_string(&mut self.out, TRUNCATED);
            self.out.push(b']');
        }
        self.out.push(b'}');
        self.done.push(self.out.into());
        let bytes = self.done.iter().map(Bytes::len).sum();
        let (body, _) = streamed(self.done.into_iter(), ());
        written((body, Some(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::store::Labels;

    async fn listed(lists: &[Vec<(&str, String)>], limit: Option<usize>) -> serde_json::Value {
        let mut listing = Listing::new(limit);
        for pairs in lists {
            let labels = Labels::from_pairs(pairs.iter().map(|(name, value)| (*name, value.as_str())));
            if !listing.push(&labels.iter().collect::<Vec<_>>()) {
                break;
            }
        }
        let text = axum::body::to_bytes(listing.finish().into_body(), usize::MAX).await.unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    #[tokio::test]
    async fn each_series_has_its_own_labels() {
        let mut lists = vec![
            vec![("__name__", "a".to_owned()), ("host", "x\"\\\n\u{1}ä".to_owned()), ("job", "mysql".to_owned())],
            vec![("__name__", "a".to_owned()), ("host", "y".to_owned()), ("job", "mysql".to_owned())],
            vec![("__name__", "b".to_owned())],
            vec![("__name__", "b".to_owned()), ("host", "y".to_owned())],
            vec![("host", "y".to_owned())],
        ];
        // More than a piece.
        lists.extend((0..4000).map(|n| vec![("host", "z".to_owned()), ("n", n.to_string())]));
        for limit in [None, Some(lists.len()), Some(3000), Some(2), Some(0)] {
            let shown = lists.iter().take(limit.unwrap_or(usize::MAX));
            let data: Vec<BTreeMap<&str, &str>> =
                shown.map(|pairs| pairs.iter().map(|(name, value)| (*name, value.as_str())).collect()).collect();
            let mut wanted = serde_json::json!({ "status": "success", "data": data });
            if limit.is_some_and(|limit| limit < lists.len()) {
                wanted["warnings"] = serde_json::json!([TRUNCATED]);
            }
            assert_eq!(listed(&lists, limit).await, wanted, "limit {limit:?}");
        }
    }
}
