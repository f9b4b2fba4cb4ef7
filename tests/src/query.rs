//! Questions to a Prometheus HTTP API, ours or a real one.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// A sample as the API gives it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    pub timestamp_ms: i64,
    pub value: f64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub labels: BTreeMap<String, String>,
    pub samples: Vec<Sample>,
}

impl Series {
    /// The value of a label; empty when it is not there.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

#[derive(Debug, Clone)]
pub struct Api {
    base: String,
    client: reqwest::Client,
    token: Option<String>,
}

impl Api {
    pub fn new(base: impl Into<String>) -> Self {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).no_proxy().build();
        Self { base: base.into(), client: client.unwrap_or_default(), token: None }
    }

    pub fn with_client(base: impl Into<String>, client: reqwest::Client) -> Self {
        Self { base: base.into(), client, token: None }
    }

    /// Sends this bearer token with every question.
    pub fn with_token(self, token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), ..self }
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    /// Status and body.
    pub async fn get(&self, path: &str, params: &[(&str, &str)]) -> anyhow::Result<(u16, String)> {
        let mut request = self.client.get(format!("{}{path}", self.base)).query(params);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let reply = request.send().await?;
        Ok((reply.status().as_u16(), reply.text().await?))
    }

    /// The `data` of a successful answer; an error names what the API said.
    pub async fn data(&self, path: &str, params: &[(&str, &str)]) -> anyhow::Result<Value> {
        let (status, body) = self.get(path, params).await?;
        let mut reply: Value =
            serde_json::from_str(&body).with_context(|| format!("{path} answered {status} and no JSON: {body}"))?;
        if reply["status"] != "success" {
            bail!("{path} {params:?} answered {status}: {}", reply["error"]);
        }
        Ok(reply["data"].take())
    }

    /// An instant query; a range vector gives all samples of its range.
    pub async fn instant(&self, query: &str, time_ms: Option<i64>) -> anyhow::Result<Vec<Series>> {
        let time = time_ms.map(seconds);
        let mut params = vec![("query", query)];
        params.extend(time.as_deref().map(|time| ("time", time)));
        series(&self.data("/api/v1/query", &params).await?)
    }

    /// The value of a query whose answer is one series.
    pub async fn value(&self, query: &str) -> anyhow::Result<f64> {
        let found = self.instant(query, None).await?;
        ensure!(found.len() == 1, "{query} gives {} series, not one", found.len());
        found[0].samples.last().map(|sample| sample.value).with_context(|| format!("{query} gives no sample"))
    }

    pub async fn range(&self, query: &str, from_ms: i64, to_ms: i64, step_ms: i64) -> anyhow::Result<Vec<Series>> {
        let (start, end, step) = (seconds(from_ms), seconds(to_ms), seconds(step_ms));
        let params = [("query", query), ("start", &start), ("end", &end), ("step", &step)];
        series(&self.data("/api/v1/query_range", &params).await?)
    }
}

fn seconds(ms: i64) -> String {
    format!("{}.{:03}", ms.div_euclid(1000), ms.rem_euclid(1000))
}

fn series(data: &Value) -> anyhow::Result<Vec<Series>> {
    if data["resultType"] == "scalar" {
        return Ok(vec![Series { labels: BTreeMap::new(), samples: vec![sample(&data["result"])?] }]);
    }
    let result = data["result"].as_array().context("an answer without a result")?;
    result.iter().map(one_series).collect()
}

fn one_series(entry: &Value) -> anyhow::Result<Series> {
    let labels = entry["metric"].as_object().context("a series without labels")?;
    let labels = labels.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()));
    let samples = match entry["values"].as_array() {
        Some(values) => values.iter().map(sample).collect::<Result<_, _>>()?,
        None => vec![sample(&entry["value"])?],
    };
    Ok(Series { labels: labels.collect(), samples })
}

fn sample(pair: &Value) -> anyhow::Result<Sample> {
    let time = pair[0].as_f64().context("a sample without a time")?;
    let text = pair[1].as_str().context("a sample without a value")?;
    let value = match text {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        other => other.parse().with_context(|| format!("{other:?} is no number"))?,
    };
    Ok(Sample { timestamp_ms: (time * 1000.0).round() as i64, value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_are_read() {
        let vector = json!({"resultType": "vector", "result": [{"metric": {"a": "b"}, "value": [1.5, "+Inf"]}]});
        let found = series(&vector).unwrap();
        assert_eq!(found[0].label("a"), "b");
        assert_eq!(found[0].samples, [Sample { timestamp_ms: 1500, value: f64::INFINITY }]);
        let matrix = json!({"resultType": "matrix", "result": [{"metric": {}, "values": [[1, "2"], [2.25, "3"]]}]});
        assert_eq!(series(&matrix).unwrap()[0].samples[1], Sample { timestamp_ms: 2250, value: 3.0 });
    }
}
