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
    pub fn others(&mut self, total: Numbers, grown: &Grown) -> &Numbers {
        let began = |now: &Option<f64>, before: &Option<f64>| now.is_some() != before.is_some() || now < before;
        let sums = match self.others.take() {
            Some(others) if !total.iter().zip(&others.total).any(|(now, before)| began(now, before)) => {
                let column = |(column, sum): (usize, &Option<f64>)| {
                    let grew = total[column]? - others.total[column]?;
                    // Objects are read before their sum, so a little more than was there may have gone to the chosen.
                    Some((*sum)? + (grew - grown.0.get(column).copied().unwrap_or(0.0)).max(0.0))
                };
                others.sums.iter().enumerate().map(column).collect()
            }
            // The first time, or somebody emptied the table: all that is not with the chosen.
            _ => {
                total.iter().enumerate().map(|(column, total)| Some(((*total)? - self.sum(column)).max(0.0))).collect()
            }
        };
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
            budget.others(vec![Some(total)], &grown)[0].unwrap()
        };
        assert_eq!(read(&[("a", 100.0), ("b", 10.0), ("c", 5.0)]), 15.0);
        assert_eq!(read(&[("a", 150.0), ("b", 20.0), ("c", 5.0)]), 25.0);
        // b and c pass a, which leaves with its 150.
        assert_eq!(read(&[("a", 151.0), ("b", 300.0), ("c", 400.0)]), 701.0);
        assert_eq!(read(&[("a", 152.0), ("b", 301.0), ("c", 410.0)]), 703.0);
        // Somebody emptied the table.
        assert_eq!(read(&[("a", 3.0), ("b", 1.0), ("c", 1.0)]), 2.0);
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
