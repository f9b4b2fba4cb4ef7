//! The names of labels, each with a number: who adds a series like the one before it need not look its names up again.

use std::collections::BTreeMap;
use std::sync::Arc;

use roaring::RoaringBitmap;

#[derive(Debug, Default)]
pub(super) struct Name {
    text: Arc<str>,
    /// Number of the label with each value.
    pub values: BTreeMap<Arc<str>, u32>,
    /// Series with the label.
    pub any: RoaringBitmap,
    /// Counts additions and removals of values.
    pub version: u64,
}

#[derive(Debug, Default)]
pub(super) struct Names {
    numbers: BTreeMap<Arc<str>, u32>,
    all: Vec<Name>,
    free: Vec<u32>,
}

impl Names {
    pub fn get(&self, text: &str) -> Option<&Name> {
        self.all.get(*self.numbers.get(text)? as usize)
    }

    pub fn by_number(&mut self, number: u32) -> Option<&mut Name> {
        self.all.get_mut(number as usize)
    }

    /// The number of a name, a new one where there is none; mostly it is that of `like`.
    pub fn number(&mut self, text: &Arc<str>, like: Option<u32>) -> u32 {
        let is_it = |number: &u32| self.all.get(*number as usize).is_some_and(|name| name.text == *text);
        if let Some(number) = like.filter(is_it).or_else(|| self.numbers.get(text).copied()) {
            return number;
        }
        let number = self.free.pop().unwrap_or(self.all.len() as u32);
        let name = Name { text: text.clone(), ..Name::default() };
        match self.all.get_mut(number as usize) {
            Some(place) => *place = name,
            None => self.all.push(name),
        }
        self.numbers.insert(text.clone(), number);
        number
    }

    /// The text of a name: one for all labels that have it.
    pub fn text(&self, number: u32) -> Arc<str> {
        self.all.get(number as usize).map(|name| name.text.clone()).unwrap_or_default()
    }

    /// Its number is given out again.
    pub fn remove(&mut self, number: u32) {
        let name = self.all.get_mut(number as usize).map(std::mem::take);
        if name.is_some_and(|name| self.numbers.remove(&name.text).is_some()) {
            self.free.push(number);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Name)> {
        self.numbers.iter().filter_map(|(text, number)| Some((text, self.all.get(*number as usize)?)))
    }
}
