//! Texts that many streams bring: names of metrics and labels, help texts. Each is kept once, however many agents say it.
//!
//! A text that only this table holds is dropped when the table has doubled since the last look.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

/// Not worth a look below this.
const TEXTS_MIN: usize = 4_096;

/// The table, shared by all streams.
#[derive(Debug, Default)]
pub struct Symbols(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    texts: HashSet<Arc<str>>,
    /// Texts that were in use when last looked at.
    used: usize,
}

impl Symbols {
    /// The same texts, each shared with those who brought it before.
    pub fn share(&self, texts: Vec<String>) -> Vec<Arc<str>> {
        let mut table = self.0.lock();
        texts.into_iter().map(|text| table.share(text)).collect()
    }
}

impl Table {
    fn share(&mut self, text: String) -> Arc<str> {
        if let Some(known) = self.texts.get(text.as_str()) {
            return known.clone();
        }
        if self.texts.len() >= TEXTS_MIN.max(2 * self.used) {
            self.texts.retain(|text| Arc::strong_count(text) > 1);
            self.texts.shrink_to(2 * self.texts.len());
            self.used = self.texts.len();
        }
        let text: Arc<str> = text.into();
        self.texts.insert(text.clone());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_once_and_for_as_long_as_somebody_needs_it() {
        let symbols = Symbols::default();
        let kept = symbols.share(vec!["job".into(), "instance".into()]);
        assert!(Arc::ptr_eq(&kept[0], &symbols.share(vec!["job".into()])[0]));
        for at in 0..3 * TEXTS_MIN {
            symbols.share(vec![at.to_string()]);
        }
        let table = symbols.0.lock();
        assert!(table.texts.len() <= TEXTS_MIN && kept.iter().all(|text| table.texts.contains(text)));
    }
}
