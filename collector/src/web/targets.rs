//! `GET /api/v1/targets`: the agents, in the shape in which Prometheus lists what it scrapes.
//!
//! One target per agent and job, as `up` has them; what Prometheus has no field for is in `lampad`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Web;
use crate::fleet::{self, Agent, LEASE};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    discovered_labels: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    scrape_pool: String,
    scrape_url: String,
    global_url: String,
    last_error: String,
    last_scrape: String,
    last_scrape_duration: f64,
    health: &'static str,
    scrape_interval: String,
    scrape_timeout: String,
    lampad: Value,
}

pub async fn targets(State(web): State<Arc<Web>>, Query(parameters): Query<BTreeMap<String, String>>) -> Json<Value> {
    let now = Instant::now();
    let pool = parameters.get("scrapePool").filter(|pool| !pool.is_empty());
    let active = match parameters.get("state").map(String::as_str) {
        Some("dropped") => Vec::new(),
        _ => web.registry.agents().iter().flat_map(|agent| of_agent(agent, now)).collect(),
    };
    let active: Vec<Target> =
        active.into_iter().filter(|target| pool.is_none_or(|pool| target.scrape_pool == *pool)).collect();
    Json(json!({
        "status": "success",
        "data": { "activeTargets": active, "droppedTargets": [], "droppedTargetCounts": {} },
    }))
}

fn of_agent(agent: &Agent, now: Instant) -> Vec<Target> {
    let state = agent.state();
    let is_up = agent.is_up(now);
    let modules: Vec<Value> = state
        .modules
        .iter()
        .map(|(name, module)| {
            let interval = f64::from(module.interval_ms) / 1000.0;
            let health = if is_up && module.absent { "absent" } else { health(is_up && module.up) };
            json!({ "name": name, "health": health, "interval_seconds": interval, "error": module.error })
        })
        .collect();
    let extra = json!({
        "agent_id": fleet::hex(agent.id),
        "hostname": state.hello.hostname,
        "version": state.hello.version,
        "address": state.peer.map(|peer| peer.to_string()),
        "connected": state.streaming,
        "lag_seconds": state.lag_ms as f64 / 1000.0,
        "clock_offset_seconds": state.clock_offset_ms as f64 / 1000.0,
        "clock_shift_seconds": state.clock_shift_ms as f64 / 1000.0,
        "modules": modules,
    });
    let interval_ms =
        state.modules.values().map(|module| module.interval_ms).filter(|ms| *ms > 0).min().unwrap_or(1000);
    let target = |job: &fleet::Job| {
        let mut labels = state.hello.labels.clone();
        labels.insert("job".into(), job.name.clone());
        labels.extend(job.instance.clone().map(|instance| ("instance".into(), instance)));
        Target {
            discovered_labels: BTreeMap::new(),
            labels,
            scrape_pool: job.name.clone(),
            scrape_url: String::new(),
            global_url: String::new(),
            last_error: last_error(&state, is_up),
            last_scrape: time(state.last_push_ms),
            last_scrape_duration: state.lag_ms.max(0) as f64 / 1000.0,
            health: health(is_up),
            scrape_interval: format!("{interval_ms}ms"),
            scrape_timeout: format!("{}ms", LEASE.as_millis()),
            lampad: extra.clone(),
        }
    };
    state.jobs.iter().map(target).collect()
}

fn last_error(state: &fleet::State, is_up: bool) -> String {
    if is_up {
        let failed = state.modules.iter().filter(|(_, module)| module.is_failing() && !module.error.is_empty());
        return failed.map(|(name, module)| format!("{name}: {}", module.error)).collect::<Vec<_>>().join("; ");
    }
    match (state.last_seen, state.ended) {
        (None, _) => "has not connected since the collector started".into(),
        (Some(_), true) => "the agent was stopped".into(),
        (Some(_), false) => "the agent has fallen silent".into(),
    }
}

pub fn health(is_up: bool) -> &'static str {
    if is_up { "up" } else { "down" }
}

/// As RFC 3339; the year 1 for never, as Prometheus writes it.
pub fn time(ms: i64) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(time) if ms > 0 => time.to_string(),
        _ => "0001-01-01T00:00:00Z".into(),
    }
}
