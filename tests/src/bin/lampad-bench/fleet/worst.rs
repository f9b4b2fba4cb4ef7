//! The seconds of a run in which acks took longest: a quantile over minutes does not tell one bad second from a slow disk.

use lampad_tests::Api;

/// So many seconds are told.
const TOLD: usize = 5;

/// A second of the run.
struct Second {
    /// Since the first connection.
    at_s: i64,
    frames: f64,
    /// p50 and p99.
    durable_ms: [f64; 2],
}

/// The worst seconds between two times, the worst first, as rows of a table. The collector writes its metrics once a second.
pub async fn rows(api: &Api, from_ms: i64, to_ms: i64) -> anyhow::Result<Vec<String>> {
    let of = "lampad_collector_durable_seconds";
    let ms = |q: f64| format!("1000 * histogram_quantile({q}, {of}_bucket - {of}_bucket offset 1s)");
    let frames = each(api, &format!("{of}_count - {of}_count offset 1s"), from_ms, to_ms).await?;
    let (p50, p99) = (each(api, &ms(0.5), from_ms, to_ms).await?, each(api, &ms(0.99), from_ms, to_ms).await?);
    let at = |values: &[(i64, f64)], at_ms: i64| values.iter().find(|(ms, _)| *ms == at_ms).map(|(_, value)| *value);
    let second = |(at_ms, frames): &(i64, f64)| {
        let durable_ms = [at(&p50, *at_ms)?, at(&p99, *at_ms)?];
        Some(Second { at_s: (at_ms - from_ms) / 1000, frames: *frames, durable_ms })
    };
    let mut seconds: Vec<Second> = frames.iter().filter_map(second).filter(|second| second.frames > 0.0).collect();
    seconds.sort_by(|a, b| b.durable_ms[1].total_cmp(&a.durable_ms[1]));
    Ok(seconds.iter().take(TOLD).map(Second::row).collect())
}

impl Second {
    fn row(&self) -> String {
        let [p50, p99] = self.durable_ms;
        format!("| {} | {:.0} | {p50:.1} / {p99:.1} |", self.at_s, self.frames)
    }
}

/// The values of a query whose answer is one series, second by second.
async fn each(api: &Api, query: &str, from_ms: i64, to_ms: i64) -> anyhow::Result<Vec<(i64, f64)>> {
    let found = api.range(query, from_ms, to_ms, 1000).await?;
    let samples = found.into_iter().flat_map(|series| series.samples);
    Ok(samples.map(|sample| (sample.timestamp_ms, sample.value)).collect())
}
