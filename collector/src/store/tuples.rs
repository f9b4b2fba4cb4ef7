//! Short lists of numbers, very many of them, in little more than the numbers take: those of one length lie in one list.

use std::collections::BTreeMap;

/// Where a tuple lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tuple {
    length: u32,
    /// Counted in tuples of this length.
    at: u32,
}

#[derive(Debug, Default)]
pub(super) struct Tuples(BTreeMap<u32, OfLength>);

#[derive(Debug, Default)]
struct OfLength {
    numbers: Vec<u32>,
    free: Vec<u32>,
}

impl Tuples {
    pub fn add(&mut self, numbers: &[u32]) -> Tuple {
        let length = numbers.len() as u32;
        let of_length = self.0.entry(length).or_default();
        if let Some(at) = of_length.free.pop() {
            let start = at as usize * numbers.len();
            of_length.numbers[start..start + numbers.len()].copy_from_slice(numbers);
            return Tuple { length, at };
        }
        let at = of_length.numbers.len().checked_div(numbers.len()).unwrap_or(0) as u32;
        make_room(&mut of_length.numbers, numbers.len());
        of_length.numbers.extend_from_slice(numbers);
        Tuple { length, at }
    }

    pub fn get(&self, tuple: Tuple) -> &[u32] {
        let length = tuple.length as usize;
        let start = tuple.at as usize * length;
        self.0.get(&tuple.length).and_then(|of_length| of_length.numbers.get(start..start + length)).unwrap_or(&[])
    }

    /// Its place is given to another one later.
    pub fn remove(&mut self, tuple: Tuple) {
        if let Some(of_length) = self.0.get_mut(&tuple.length).filter(|_| tuple.length > 0) {
            of_length.free.push(tuple.at);
        }
    }

    pub fn bytes(&self) -> usize {
        let numbers = |of_length: &OfLength| of_length.numbers.capacity() + of_length.free.capacity();
        self.0.values().map(numbers).sum::<usize>() * size_of::<u32>()
    }
}

/// Room for some more in a long list: an eighth at a time, where doubling would leave a quarter of it empty on average.
pub(super) fn make_room<T>(list: &mut Vec<T>, more: usize) {
    if list.capacity() - list.len() < more {
        list.reserve_exact(more.max(list.len() / 8).max(64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tuples_come_back_and_their_room_is_used_again() {
        let mut tuples = Tuples::default();
        let lists: Vec<Vec<u32>> = (0..500u32).map(|at| (0..at % 5).map(|number| at * 10 + number).collect()).collect();
        let added: Vec<Tuple> = lists.iter().map(|list| tuples.add(list)).collect();
        assert!(added.iter().zip(&lists).all(|(tuple, list)| tuples.get(*tuple) == list));
        let bytes = tuples.bytes();
        added.iter().step_by(2).for_each(|tuple| tuples.remove(*tuple));
        let again: Vec<Tuple> = lists.iter().step_by(2).map(|list| tuples.add(list)).collect();
        assert!(again.iter().zip(lists.iter().step_by(2)).all(|(tuple, list)| tuples.get(*tuple) == list));
        assert!(added.iter().zip(&lists).skip(1).step_by(2).all(|(tuple, list)| tuples.get(*tuple) == list));
        let numbers: usize = lists.iter().map(Vec::len).sum();
        assert!(tuples.bytes() < bytes + 4 * 512, "{} bytes for {numbers} numbers", tuples.bytes());
    }
}
