//! What groups and series are called, and what one frame says of them.

use std::sync::Arc;

use crate::module::{Desc, Spec};
use crate::tick::Changes;

/// A series of a group: the family and the values of its labels.
#[derive(Debug, Clone)]
pub struct Series {
    pub desc: Desc,
    pub labels: Box<[Box<str>]>,
}

/// The series of one module that are sampled together.
#[derive(Debug, Clone)]
pub struct Group {
    /// The module's name, unique within the agent.
    pub name: String,
    /// Put on every series of the group, beside the agent's own labels and before them: `job`, `instance`.
    pub labels: Vec<(String, String)>,
    pub interval_ms: u32,
    /// A number, once given, stays: it is what [`Changes`] speak of.
    pub series: Vec<Arc<Series>>,
}

impl Group {
    pub fn new(name: impl Into<String>, job: &str, interval_ms: u32) -> Self {
        let labels = if job.is_empty() { Vec::new() } else { vec![("job".to_owned(), job.to_owned())] };
        Self { name: name.into(), labels, interval_ms, series: Vec::new() }
    }

    /// The group of a module.
    pub fn of(spec: &Spec, interval_ms: u32) -> Self {
        let mut group = Self::new(spec.id(), spec.job, interval_ms);
        // These go before the agent's own labels of their names.
        group.labels.extend(spec.instance.iter().map(|instance| ("instance".to_owned(), instance.to_string())));
        group.labels.extend(spec.labels.iter().cloned());
        group
    }
}

/// All groups of an agent. Only grows, so that numbers stay valid in every encoder.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    groups: Vec<Group>,
}

impl Catalog {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a group and returns its number.
    pub fn add(&mut self, group: Group) -> u32 {
        self.groups.push(group);
        (self.groups.len() - 1) as u32
    }

    pub fn group(&self, number: u32) -> Option<&Group> {
        self.groups.get(number as usize)
    }

    pub fn group_mut(&mut self, number: u32) -> Option<&mut Group> {
        self.groups.get_mut(number as usize)
    }

    /// Takes the name from a group that nothing will tick any more, so that another can have it.
    pub fn retire(&mut self, number: u32) {
        if let Some(group) = self.group_mut(number) {
            group.name.clear();
        }
    }

    /// The number of the group with this name.
    pub fn find(&self, name: &str) -> Option<u32> {
        self.groups.iter().position(|group| group.name == name).map(|at| at as u32)
    }
}

/// A tick of one group that succeeded, and what it changed.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupTick {
    pub group: u32,
    /// Milliseconds since 1970; ascending within a group.
    pub at_ms: i64,
    pub changes: Changes,
}

/// What one frame says, before any lane's encoding. Numbered once; whichever lane brings it, it is stored once.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    pub sequence: u64,
    pub ticks: Vec<GroupTick>,
}

impl Batch {
    /// Values that this batch carries: the measure of what it costs to keep.
    pub fn values(&self) -> usize {
        self.ticks.iter().map(|tick| 1 + tick.changes.values.len() + tick.changes.ended.len()).sum()
    }
}
