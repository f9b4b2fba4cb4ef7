//! Which of many objects are told one by one, and what the others come to.
//!
//! Servers have 50,000 tables and 10,000 statement digests; a series for each would cost more than the server. Of the objects
//! of a collector the `max` that did the most work are told. Who was chosen stays until `2 * max` others did more, so that
//! series do not come and go with each change of rank. What all others did together is told as one object, `other`: it grows
//! by what the total grows beyond the chosen, so neither who joins nor who leaves makes it jump.

use std::collections::HashMap;

/// Label values that identify an object.
pub type Key = Box<[Box<str>]>;

/// Numbers of one object, or of all, in the order of the collector's columns; `None` where it has none.
pub type Numbers = Vec<Option<f64>>;

/// What a column comes to for the objects that are not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sum {
    /// A counter: what the total grows by and the chosen do not.
    Grows,
    /// A size or a number of now: the total without the chosen.
    Stands,
    /// A quantile: there is none for all together.
    Meaningless,
}

/// How many rows to ask for, ordered by work: those of rank `2 * max` and one to see that there are more.
pub fn rows_wanted(max: usize) -> usize {
    2 * max + 1
}

#[derive(Debug, Default)]
pub struct Budget {
    max: usize,
    chosen: HashMap<Key, Chosen>,
    others: Option<Others>,
}

#[derive(Debug)]
struct Chosen {
    /// Labels that describe and do not identify, as they were when the object was chosen.
    about: Key,
    last: Numbers,
    round: bool,
}

#[derive(Debug)]
struct Others {
    total: Numbers,
    sums: Numbers,
}

/// An object that is told.
#[derive(Debug, PartialEq)]
pub struct Told<'a> {
    pub key: &'a Key,
    pub about: &'a Key,
    pub numbers: &'a Numbers,
}

/// A row of the answer.
#[derive(Debug)]
pub struct Object {
    pub key: Key,
    pub about: Key,
    pub numbers: Numbers,
}

/// What the chosen did since the last round, by column.
#[derive(Debug, Default)]
pub struct Grown(Vec<f64>);

impl Budget {
    pub fn new(max: usize) -> Self {
        Self { max, ..Self::default() }
    }

    /// Takes the rows of an answer, ordered by work; returns what those chosen before have grown by.
    pub fn choose(&mut self, objects: Vec<Object>) -> Grown {
        let mut grown = Grown::default();
        self.chosen.values_mut().for_each(|chosen| chosen.round = false);
        let mut free = Vec::new();
        for object in objects.into_iter().take(2 * self.max) {
            match self.chosen.get_mut(&object.key) {
                Some(chosen) => {
                    grown.add(&chosen.last, &object.numbers);
                    (chosen.last, chosen.round) = (object.numbers, true);
                }
                None => free.push(object),
            }
        }
        self.chosen.retain(|_, chosen| chosen.round);
        for object in free.into_iter().take(self.max.saturating_sub(self.chosen.len())) {
            let chosen = Chosen { about: object.about, last: object.numbers, round: true };
            self.chosen.insert(object.key, chosen);
        }
        grown
    }

    /// Those that are told now, in no order.
    pub fn told(&self) -> impl Iterator<Item = Told<'_>> {
        self.chosen.iter().map(|(key, chosen)| Told { key, about: &chosen.about, numbers: &chosen.last })
    }

    pub fn len(&self) -> usize {
        self.chosen.len()
    }

    /// What the objects that are not told come to, given the sums over all objects.
    pub fn others(&mut self, total: Numbers, grown: &Grown, columns: &[Sum]) -> &Numbers {
        let before = self.others.take();
        let sum = |column: usize| {
            let now = total[column]?;
            let rest = (now - self.sum(column)).max(0.0);
            match columns.get(column)? {
                Sum::Meaningless => None,
                Sum::Stands => Some(rest),
                Sum::Grows => Some(before.as_ref().and_then(|before| before.grown(column, now, grown)).unwrap_or(rest)),
            }
        };
        let sums = (0..total.len()).map(sum).collect();
        &self.others.insert(Others { total, sums }).sums
    }

    /// All are told again; what others come to begins anew when there are any.
    pub fn forget_others(&mut self) {
        self.others = None;
    }

    fn sum(&self, column: usize) -> f64 {
        self.chosen.values().filter_map(|chosen| chosen.last.get(column).copied().flatten()).sum()
    }
}

impl Others {
    /// What a counter comes to now. `None` when it was not there before, or has begun anew: somebody emptied the table.
    fn grown(&self, column: usize, now: f64, grown: &Grown) -> Option<f64> {
        let (total, sum) = (self.total[column]?, self.sums[column]?);
        // Objects are read before their sum, so a little more than was there may have gone to the chosen.
        (now >= total).then(|| sum + (now - total - grown.0.get(column).copied().unwrap_or(0.0)).max(0.0))
    }
}

impl Grown {
    fn add(&mut self, before: &Numbers, now: &Numbers) {
        self.0.resize(now.len().max(self.0.len()), 0.0);
        for (sum, (before, now)) in self.0.iter_mut().zip(before.iter().zip(now)) {
            // One that was set back has begun anew.
            *sum += now.unwrap_or(0.0) - before.filter(|before| *before <= now.unwrap_or(0.0)).unwrap_or(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(rows: &[(&str, f64)]) -> Vec<Object> {
        let mut rows = rows.to_vec();
        rows.sort_by(|a, b| b.1.total_cmp(&a.1));
        let key = |name: &str| -> Key { [Box::from(name)].into() };
        rows.iter().map(|(name, work)| Object { key: key(name), about: key("x"), numbers: vec![Some(*work)] }).collect()
    }

    fn told(budget: &Budget) -> Vec<String> {
        let mut names: Vec<_> =
            budget.told().map(|told| format!("{} {}", told.key[0], told.numbers[0].unwrap())).collect();
        names.sort();
        names
    }

    #[test]
    fn who_is_chosen_stays_while_it_is_among_the_first_of_twice_as_many() {
        let mut budget = Budget::new(2);
        budget.choose(objects(&[("a", 9.0), ("b", 8.0), ("c", 7.0)]));
        assert_eq!(told(&budget), ["a 9", "b 8"]);
        budget.choose(objects(&[("a", 9.0), ("b", 8.0), ("c", 20.0), ("d", 19.0)]));
        assert_eq!(told(&budget), ["a 9", "b 8"], "passed by two, and still there");
        budget.choose(objects(&[("a", 9.0), ("b", 8.0), ("c", 20.0), ("d", 19.0), ("e", 18.0)]));
        assert_eq!(told(&budget), ["a 9", "c 20"], "passed by four");
    }

    #[test]
    fn neither_who_joins_nor_who_leaves_makes_the_others_jump() {
        let mut budget = Budget::new(1);
        let mut read = |rows: &[(&str, f64)]| {
            let grown = budget.choose(objects(rows));
            let total = rows.iter().map(|(_, work)| work).sum();
            budget.others(vec![Some(total)], &grown, &[Sum::Grows])[0].unwrap()
        };
        assert_eq!(read(&[("a", 100.0), ("b", 10.0), ("c", 5.0)]), 15.0);
        assert_eq!(read(&[("a", 150.0), ("b", 20.0), ("c", 5.0)]), 25.0);
        // b and c pass a, which leaves with its 150.
        assert_eq!(read(&[("a", 151.0), ("b", 300.0), ("c", 400.0)]), 701.0);
        assert_eq!(read(&[("a", 152.0), ("b", 301.0), ("c", 410.0)]), 703.0);
        // Somebody emptied the table.
        assert_eq!(read(&[("a", 3.0), ("b", 1.0), ("c", 1.0)]), 2.0);
    }

    /// A quantile or a size that fell was taken for an emptied table, and all counters of the others began anew.
    #[test]
    fn only_a_counter_that_falls_begins_anew_and_only_itself() {
        let mut budget = Budget::new(1);
        let columns = [Sum::Grows, Sum::Stands, Sum::Meaningless];
        let mut read = |rows: [[f64; 3]; 2]| {
            let object = |(name, numbers): (&str, [f64; 3])| Object {
                key: [Box::from(name)].into(),
                about: [].into(),
                numbers: numbers.map(Some).into(),
            };
            let grown = budget.choose(["a", "b"].into_iter().zip(rows).map(object).collect());
            let total = (0..3).map(|column| Some(rows[0][column] + rows[1][column])).collect();
            budget.others(total, &grown, &columns).clone()
        };
        assert_eq!(read([[9.0, 5.0, 0.3], [1.0, 4.0, 0.2]]), [Some(1.0), Some(4.0), None]);
        assert_eq!(read([[9.0, 1.0, 0.1], [3.0, 2.0, 0.1]]), [Some(3.0), Some(2.0), None]);
        assert_eq!(read([[2.0, 1.0, 0.1], [1.0, 8.0, 0.1]]), [Some(1.0), Some(8.0), None], "emptied");
    }

    #[test]
    fn a_chosen_object_keeps_the_text_that_it_was_chosen_with() {
        let mut budget = Budget::new(1);
        budget.choose(objects(&[("a", 1.0)]));
        let mut again = objects(&[("a", 2.0)]);
        again[0].about = [Box::from("other text")].into();
        budget.choose(again);
        assert_eq!(&*budget.told().next().unwrap().about[0], "x");
    }
}
