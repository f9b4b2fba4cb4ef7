//! What is known of each agent, as samples.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::out::{Out, gauge, histogram};
use super::{Histogram, Telemetry};
use crate::fleet::{Agent, Registry};
use crate::store::AgentId;

/// The agents that are told of.
#[derive(Debug, Default)]
pub(super) struct Told {
    rows: Vec<Row>,
    /// The registry's revision while which these stay the same; `None` where they may change sooner.
    revision: Option<u64>,
}

#[derive(Debug)]
struct Row {
    agent: Arc<Agent>,
    instance: String,
    freshness: Option<Arc<Histogram>>,
}

impl Row {
    /// Whether both make the same series.
    fn is_like(&self, other: &Self) -> bool {
        self.agent.id == other.agent.id
            && self.instance == other.instance
            && self.freshness.is_some() == other.freshness.is_some()
    }
}

impl Telemetry {
    /// `told` are those of the last time, and become those of now. Histograms of agents that were told of are left as they were
    /// unless all of it is wanted.
    pub(super) fn agents(&self, registry: &Registry, told: &mut Told, is_full: bool, out: &mut Out<'_>) {
        let fresh = histogram("agent_freshness_seconds", "From an agent's tick until it was queryable here.");
        let families = [
            gauge("agent_lag_seconds", "Way of the last frame from the agent to here."),
            gauge("agent_clock_offset_seconds", "The collector's clock minus the agent's."),
            gauge("agent_clock_shift_seconds", "What is added to the agent's ticks because its clock is wrong."),
        ];
        // A thousand agents have seventeen series each.
        out.is_known = true;
        if told.revision != Some(registry.revision()) {
            let now = self.told(registry);
            out.is_known = now.rows.len() == told.rows.len()
                && now.rows.iter().zip(&told.rows).all(|(now, before)| now.is_like(before));
            *told = now;
        }
        for Row { agent, instance, freshness } in &told.rows {
            let labels = [("agent", instance.as_str())];
            let times_ms = agent.with(|state| [state.lag_ms, state.clock_offset_ms, state.clock_shift_ms]);
            for (family, ms) in families.iter().zip(times_ms) {
                out.push(family, "", &labels, ms as f64 / 1000.0);
            }
            match freshness {
                Some(_) if out.is_known && !is_full => out.keep_histogram(),
                Some(seen) => out.histogram(&fresh, &labels, seen),
                None => {}
            }
        }
    }

    /// A server that was installed anew has the name of the old one, which stays known for a day: of each name the one that pushed
    /// last is told of.
    fn told(&self, registry: &Registry) -> Told {
        let revision = registry.revision();
        let agents = registry.agents();
        let known: HashSet<AgentId> = agents.iter().map(|agent| agent.id).collect();
        let mut freshness = self.freshness.write();
        freshness.retain(|id, _| known.contains(id));
        let mut newest: BTreeMap<String, ((bool, i64), Row)> = BTreeMap::new();
        for agent in &agents {
            let (instance, pushed) =
                agent.with(|state| (state.hello.instance.clone(), (state.streaming, state.last_push_ms)));
            if newest.get(&instance).is_some_and(|(before, _)| *before > pushed) {
                continue;
            }
            let freshness = freshness.get(&agent.id).cloned();
            newest.insert(instance.clone(), (pushed, Row { agent: agent.clone(), instance, freshness }));
        }
        // Who streams gets a histogram right after it has come. Who does not must come before anything of it changes.
        let stay = newest.values().all(|((streams, _), row)| !streams || row.freshness.is_some());
        Told { rows: newest.into_values().map(|(_, row)| row).collect(), revision: stay.then_some(revision) }
    }
}
