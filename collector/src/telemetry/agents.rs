//! What is known of each agent, as samples.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::out::{Out, gauge, histogram};
use super::{Histogram, Telemetry};
use crate::fleet::Registry;
use crate::store::AgentId;

/// An agent that is told of, and whether it has a histogram.
pub(super) type Told = (AgentId, String, bool);

struct Row {
    told: Told,
    /// Lag, offset and shift of its clock.
    times_ms: [i64; 3],
    freshness: Option<Arc<Histogram>>,
}

impl Telemetry {
    /// `told` are those of the last time, and become those of now. Histograms of agents that were told of are left as they were
    /// unless all of it is wanted.
    pub(super) fn agents(&self, registry: &Registry, told: &mut Vec<Told>, is_full: bool, out: &mut Out<'_>) {
        let fresh = histogram("agent_freshness_seconds", "From an agent's tick until it was queryable here.");
        let families = [
            gauge("agent_lag_seconds", "Way of the last frame from the agent to here."),
            gauge("agent_clock_offset_seconds", "The collector's clock minus the agent's."),
            gauge("agent_clock_shift_seconds", "What is added to the agent's ticks because its clock is wrong."),
        ];
        let rows = self.rows(registry);
        // A thousand agents have seventeen series each.
        out.is_known = rows.iter().map(|row| &row.told).eq(&*told);
        for Row { told: (_, instance, _), times_ms, freshness } in &rows {
            let labels = [("agent", instance.as_str())];
            for (family, ms) in families.iter().zip(times_ms) {
                out.push(family, "", &labels, *ms as f64 / 1000.0);
            }
            match freshness {
                Some(_) if out.is_known && !is_full => out.keep_histogram(),
                Some(seen) => out.histogram(&fresh, &labels, seen),
                None => {}
            }
        }
        *told = rows.into_iter().map(|row| row.told).collect();
    }

    /// A server that was installed anew has the name of the old one, which stays known for a day: of each name the one that pushed
    /// last is told of.
    fn rows(&self, registry: &Registry) -> Vec<Row> {
        let agents = registry.agents();
        let known: HashSet<AgentId> = agents.iter().map(|agent| agent.id).collect();
        let mut freshness = self.freshness.write();
        freshness.retain(|id, _| known.contains(id));
        let mut newest: BTreeMap<String, (bool, i64, Row)> = BTreeMap::new();
        for agent in &agents {
            let freshness = freshness.get(&agent.id).cloned();
            agent.with(|state| {
                let name = &state.hello.instance;
                let pushed = (state.streaming, state.last_push_ms);
                if newest.get(name).is_some_and(|(is_streaming, ms, _)| (*is_streaming, *ms) > pushed) {
                    return;
                }
                let times_ms = [state.lag_ms, state.clock_offset_ms, state.clock_shift_ms];
                let told = (agent.id, name.clone(), freshness.is_some());
                newest.insert(name.clone(), (pushed.0, pushed.1, Row { told, times_ms, freshness }));
            });
        }
        newest.into_values().map(|(_, _, row)| row).collect()
    }
}
