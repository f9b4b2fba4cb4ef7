//! Ingest while heavy queries run: agents at a sample a second, without queries and then with some askers, each of which asks
//! again as soon as it is answered.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::future::try_join_all;
use lampad_tests::load::Plan;
use lampad_tests::{Collector, Cost};

use crate::quantiles::Quantiles;

use super::list::Question;
use super::{Asked, MIB};

const ASKERS: usize = 8;
const AGENTS: u32 = 50;
const SERIES: u32 = 1000;

/// The collector's own measure of each frame, from its arrival until its samples were queryable.
const BUCKET: &str = "lampad_collector_queryable_seconds_bucket{";

pub async fn run(collector: &Collector, seconds: u32, questions: &[Question]) -> anyhow::Result<()> {
    let heavy: Vec<&Question> = questions.iter().filter(|question| question.heavy).collect();
    let asked = Asked::new("lampad", collector.http().to_string(), collector.process.id())?;
    println!(
        "\n| {AGENTS} agents of {SERIES} series at 1 s | queries a second | cores | memory on top, MiB | arrival to queryable, ms, p99 at most | tick to durable ack, ms, p50, p99 |"
    );
    println!("|---|---|---|---|---|---|");
    for (turn, (name, heavy)) in [("no query", &[] as &[&Question]), ("heavy queries", &heavy)].into_iter().enumerate()
    {
        let plan = Plan {
            collector: collector.grpc_url(),
            first_agent: 10_000 + turn as u32 * AGENTS,
            agents: AGENTS,
            series: SERIES,
            groups: 16,
            interval: Duration::from_secs(1),
            ticks: u64::from(seconds),
            patience: Duration::from_secs(60),
            ..Plan::small("")
        };
        let (before, began, counts, answers) =
            (asked.calm()?, Instant::now(), buckets(collector).await?, AtomicU64::new(0));
        let records = tokio::select! {
            records = lampad_tests::load::run(&plan) => records,
            failed = storm(&asked, heavy, &answers) => match failed? {},
        };
        let (after, took) = (Cost::of(asked.pid)?, began.elapsed().as_secs_f64());
        lampad_tests::load::undisturbed(&records)?;
        let queryable = quantile(&counts, &buckets(collector).await?, 0.99);
        // The first ticks carry dictionaries and key frames.
        let acks = Quantiles::of(records.iter().flat_map(|record| record.latencies.iter().skip(3).copied()).collect());
        println!(
            "| {name} | {:.1} | {:.2} | {:.0} | {:.1} | {:.1}, {:.1} |",
            answers.load(Ordering::Relaxed) as f64 / took,
            (after.cpu - before.cpu).as_secs_f64() / took,
            after.peak_bytes.saturating_sub(before.resident_bytes) as f64 / MIB,
            queryable * 1e3,
            acks.ms(0.5),
            acks.ms(0.99),
        );
    }
    Ok(())
}

/// Ends with the first query that fails.
async fn storm(asked: &Asked, heavy: &[&Question], answers: &AtomicU64) -> anyhow::Result<Infallible> {
    if heavy.is_empty() {
        return std::future::pending().await;
    }
    let asker = async |first: usize| -> anyhow::Result<Infallible> {
        for question in heavy.iter().cycle().skip(first) {
            asked.ask(question).await?;
            answers.fetch_add(1, Ordering::Relaxed);
        }
        anyhow::bail!("there was nothing to ask")
    };
    let ended = try_join_all((0..ASKERS).map(asker)).await?;
    ended.into_iter().next().context("nobody asked")
}

/// Upper bounds in seconds, and how many frames took at most so long, of all agents and lanes together.
async fn buckets(collector: &Collector) -> anyhow::Result<Vec<(f64, f64)>> {
    let (_, page) =
        collector.api().get("/metrics", &[("match[]", "{__name__=~\"lampad_collector_queryable_.*\"}")]).await?;
    let mut found: Vec<(f64, f64)> = Vec::new();
    for line in page.lines().filter(|line| line.starts_with(BUCKET)) {
        let (_, rest) = line.split_once("le=\"").context("a bucket without a bound")?;
        let (bound, rest) = rest.split_once('"').context("a bound without an end")?;
        let count: f64 = rest.rsplit(' ').next().context("a bucket without a count")?.parse()?;
        found.push((bound.parse()?, count));
    }
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    Ok(found)
}

/// The bound below which the share `q` lies of what came between two looks at the buckets.
fn quantile(before: &[(f64, f64)], after: &[(f64, f64)], q: f64) -> f64 {
    let earlier = |bound: f64| before.iter().find(|(other, _)| *other == bound).map_or(0.0, |(_, count)| *count);
    let grown: Vec<(f64, f64)> = after.iter().map(|(bound, count)| (*bound, count - earlier(*bound))).collect();
    let all = grown.last().map_or(0.0, |(_, count)| *count);
    grown.iter().find(|(_, count)| *count >= all * q && all > 0.0).map_or(f64::NAN, |(bound, _)| *bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_came_between_counts() {
        let before = [(0.1, 100.0), (1.0, 100.0), (f64::INFINITY, 100.0)];
        let after = [(0.1, 101.0), (1.0, 110.0), (f64::INFINITY, 110.0)];
        assert_eq!(quantile(&before, &after, 0.99), 1.0);
        assert_eq!(quantile(&[], &after, 0.5), 0.1);
        assert!(quantile(&after, &after, 0.5).is_nan());
    }
}
