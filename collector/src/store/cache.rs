//! What was read of blocks lately, so that a dashboard that asks again finds it in memory: values as they lie on disk, some
//! sixteen times smaller than their samples, and heads of runs as they were read.
//!
//! It is kept in two generations: what is read or read again goes to the young one; when that has its half of the bytes it
//! becomes the old one, and what nobody asked for since is dropped.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use foldhash::fast::RandomState;
use parking_lot::Mutex;

#[derive(Debug)]
pub(super) struct Cache<K, V: ?Sized> {
    generations: Mutex<Generations<K, V>>,
    generation_bytes_max: usize,
}

#[derive(Debug)]
struct Generations<K, V: ?Sized> {
    young: Generation<K, V>,
    old: Generation<K, V>,
}

#[derive(Debug)]
struct Generation<K, V: ?Sized> {
    /// With their bytes.
    values: HashMap<K, (Arc<V>, usize), RandomState>,
    bytes: usize,
}

impl<K: Copy + Eq + Hash, V: ?Sized> Cache<K, V> {
    pub fn new(bytes_max: usize) -> Self {
        let generations = Generations { young: Generation::new(), old: Generation::new() };
        Self { generations: Mutex::new(generations), generation_bytes_max: bytes_max / 2 }
    }

    pub fn get(&self, key: K) -> Option<Arc<V>> {
        let mut generations = self.generations.lock();
        if let Some((value, _)) = generations.young.values.get(&key) {
            return Some(value.clone());
        }
        let (value, bytes) = generations.old.take(key)?;
        self.put(&mut generations, key, value.clone(), bytes);
        Some(value)
    }

    pub fn keep(&self, key: K, value: &Arc<V>, bytes: usize) {
        if bytes <= self.generation_bytes_max {
            self.put(&mut self.generations.lock(), key, value.clone(), bytes);
        }
    }

    fn put(&self, generations: &mut Generations<K, V>, key: K, value: Arc<V>, bytes: usize) {
        if generations.young.bytes + bytes > self.generation_bytes_max {
            generations.old = std::mem::replace(&mut generations.young, Generation::new());
        }
        generations.young.put(key, value, bytes);
    }

    /// Bytes of all that is in it.
    pub fn bytes(&self) -> usize {
        let generations = self.generations.lock();
        generations.young.bytes + generations.old.bytes
    }
}

impl<K: Copy + Eq + Hash, V: ?Sized> Generation<K, V> {
    fn new() -> Self {
        Self { values: HashMap::default(), bytes: 0 }
    }

    fn take(&mut self, key: K) -> Option<(Arc<V>, usize)> {
        let (value, bytes) = self.values.remove(&key)?;
        self.bytes -= bytes;
        Some((value, bytes))
    }

    fn put(&mut self, key: K, value: Arc<V>, bytes: usize) {
        self.bytes += bytes;
        if let Some((_, before)) = self.values.insert(key, (value, bytes)) {
            self.bytes -= before;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_bytes_are_bounded() {
        let cache = Cache::new(100);
        let value = Arc::new(7);
        cache.keep((1, 0), &value, 10);
        for number in 1..50 {
            cache.keep((1, number), &value, 10);
            assert!(cache.get((1, 0)).is_some(), "after {number} others");
            assert!(cache.bytes() <= 100, "{} bytes", cache.bytes());
        }
        assert!(cache.get((1, 1)).is_none(), "nobody asked");
        assert!(cache.get((2, 49)).is_none());
        cache.keep((3, 0), &value, 51);
        assert!(cache.get((3, 0)).is_none(), "it would push out all others");
    }

    #[test]
    fn a_value_counts_once() {
        let cache = Cache::new(100);
        (0..9).for_each(|_| cache.keep(1, &Arc::new(7), 20));
        assert!(cache.bytes() <= 40, "{} bytes", cache.bytes());
    }
}
