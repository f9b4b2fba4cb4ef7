//! Programs of others that read: promtool, PyPI's prometheus-api-client, and a Prometheus that federates. What each prints or
//! stores is compared with what was pushed, number by number. (A Prometheus that writes is in `remote_write.rs`.)

use std::time::Duration;

use anyhow::{Context, ensure};
use lampad_proto::v1::ingest_client::IngestClient;
use lampad_proto::v1::{Label, MetricType, PushRequest, PushSample, PushSeries};
use lampad_tests::servers::{Server, installed};
use lampad_tests::{Collector, PATIENCE, Program, Sample, fixture, needs, until_ok};
use serde_json::{Value, json};

const METRIC: &str = "orders_total";
const QUEUES: [&str; 3] = ["mail", "print", "ship"];

/// Samples of each series, one a second.
const SAMPLES: i64 = 61;

/// A series for each queue: after `n` seconds the first one is at `n`, the second at `2 n`, the third at `3 n`.
struct Pushed {
    collector: Collector,
    end_ms: i64,
}

impl Pushed {
    async fn new() -> anyhow::Result<Self> {
        let collector = Collector::start().await?;
        let end_ms = jiff::Timestamp::now().as_second() * 1000;
        let label = |name: &str, value: &str| Label { name: name.to_owned(), value: value.to_owned() };
        let series = QUEUES.iter().zip(1..).map(|(queue, pace)| PushSeries {
            name: METRIC.to_owned(),
            labels: vec![label("queue", queue), label("instance", "shop:1"), label("job", "shop")],
            r#type: MetricType::Counter.into(),
            help: "Orders that were done.".to_owned(),
            samples: (0..SAMPLES)
                .map(|n| PushSample {
                    timestamp_ms: end_ms - (SAMPLES - 1 - n) * 1000,
                    value: (n * pace) as f64,
                    histogram: None,
                })
                .collect(),
            ..PushSeries::default()
        });
        let request = PushRequest { series: series.collect(), pusher_id: vec![9; 16], sequence: 1 };
        let mut client = IngestClient::connect(collector.grpc_url()).await?;
        let reply = client.push(request).await?.into_inner();
        ensure!(reply.stored == SAMPLES as u64 * QUEUES.len() as u64, "{reply:?}");
        Ok(Self { collector, end_ms })
    }

    fn url(&self) -> String {
        format!("http://{}", self.collector.http())
    }

    fn end_s(&self) -> i64 {
        self.end_ms / 1000
    }

    async fn promtool(&self, args: &[&str]) -> anyhow::Result<Vec<String>> {
        let log = self.collector.directory().join("promtool.log");
        let promtool = Program::at(installed("promtool").context("promtool")?, log).arg("query").args(args);
        let (status, said) = promtool.run(PATIENCE).await?;
        ensure!(status.success(), "promtool {args:?} ended with {status}: {said}");
        Ok(said.lines().map(str::to_owned).collect())
    }
}

/// A series as promtool prints it.
fn shown(queue: &str) -> String {
    format!("{METRIC}{{instance=\"shop:1\", job=\"shop\", queue=\"{queue}\"}}")
}

#[tokio::test]
async fn promtool_asks() -> anyhow::Result<()> {
    if !needs::program("promtool") {
        return Ok(());
    }
    let pushed = Pushed::new().await?;
    let (url, end_s) = (pushed.url(), pushed.end_s());
    let (start, end) = ((end_s - 20).to_string(), end_s.to_string());

    let found = pushed.promtool(&["instant", "--time", &end, &url, METRIC]).await?;
    let wanted: Vec<String> =
        QUEUES.iter().zip(1..).map(|(queue, pace)| format!("{} => {} @[{end}]", shown(queue), 60 * pace)).collect();
    assert_eq!(found, wanted);

    let args =
        ["range", "--start", &start, "--end", &end, "--step", "10s", &url, "sum by (job) (rate(orders_total[30s]))"];
    let found = pushed.promtool(&args).await?;
    let mut wanted = vec!["{job=\"shop\"} =>".to_owned()];
    wanted.extend([20, 10, 0].map(|before| format!("6 @[{}]", end_s - before)));
    assert_eq!(found, wanted, "1 + 2 + 3 orders a second");

    let found = pushed.promtool(&["series", "--match", METRIC, "--start", &start, "--end", &end, &url]).await?;
    let mut wanted: Vec<String> = QUEUES.iter().map(|queue| shown(queue).replacen(METRIC, "", 1)).collect();
    wanted.iter_mut().for_each(|labels| labels.insert_str(1, &format!("__name__=\"{METRIC}\", ")));
    assert_eq!(found, wanted);

    let found = pushed.promtool(&["labels", "--start", &start, "--end", &end, &url, "queue"]).await?;
    assert_eq!(found, QUEUES);
    Ok(())
}

#[tokio::test]
async fn the_client_from_pypi_asks() -> anyhow::Result<()> {
    let python = fixture("target/python/bin/python");
    if !needs::met("prometheus-api-client in target/python", has_client(&python).await) {
        return Ok(());
    }
    let pushed = Pushed::new().await?;
    let (end, end_s) = (pushed.end_s().to_string(), pushed.end_s());
    let tool = Program::at(&python, pushed.collector.directory().join("python.log"))
        .arg(fixture("tests/python/query_client.py"))
        .args([&pushed.url(), METRIC, &end]);
    let (status, said) = tool.run(PATIENCE).await?;
    ensure!(status.success(), "ended with {status}: {said}");
    let answer: Value = serde_json::from_str(said.lines().last().context("it said nothing")?)?;

    assert_eq!(answer["connected"], true);
    assert_eq!(answer["metrics"], json!([METRIC]));
    assert_eq!(answer["label_names"], json!(["__name__", "instance", "job", "queue"]));
    assert_eq!(answer["label_values"], json!(QUEUES));
    assert_eq!(answer["current"][0]["value"][1], "60");
    assert_eq!(answer["instant"], json!([{"metric": {}, "value": [end_s, "360"]}]));
    let sums = [(30, "180"), (20, "240"), (10, "300"), (0, "360")].map(|(before, sum)| json!([end_s - before, sum]));
    assert_eq!(answer["range"], json!([{"metric": {}, "values": sums}]));
    assert_eq!(answer["series"].as_array().map(Vec::len), Some(3));
    assert_eq!(answer["metadata"][0]["type"], "counter", "{}", answer["metadata"]);
    ensure!(answer["targets"].is_u64(), "no list of targets: {answer}");
    let raw = answer["raw"].as_array().context("no raw samples")?;
    assert_eq!(raw.len(), QUEUES.len());
    for series in raw {
        let pace =
            1 + QUEUES.iter().position(|queue| series["metric"]["queue"] == *queue).context("which queue?")? as i64;
        let values = series["values"].as_array().context("a series without values")?;
        // Ranges are open on the left: the client asks for 30 s up to the end.
        let wanted: Vec<Value> = (31..SAMPLES).map(|n| json!([end_s - 60 + n, (n * pace).to_string()])).collect();
        assert_eq!(values, &wanted);
    }
    Ok(())
}

/// Whether the environment that tests/run.sh makes is there and has it.
async fn has_client(python: &std::path::Path) -> bool {
    let log = std::env::temp_dir().join(format!("lampad-client-{}.log", std::process::id()));
    let import = Program::at(python, &log).args(["-c", "import prometheus_api_client"]);
    let found = python.is_file() && matches!(import.run(PATIENCE).await, Ok((status, _)) if status.success());
    let _ = std::fs::remove_file(log);
    found
}

/// The very samples, with their times and labels, as a Prometheus has them that scrapes `/federate`.
#[tokio::test]
async fn a_prometheus_federates() -> anyhow::Result<()> {
    if !needs::program("prometheus") {
        return Ok(());
    }
    let pushed = Pushed::new().await?;
    let options = format!(
        "  honor_labels: true\n  metrics_path: /federate\n  params: {{'match[]': ['{METRIC}', '{{__name__=\"up\"}}']}}\n"
    );
    let targets = [("federate", pushed.collector.http())];
    let prometheus = Server::prometheus(&targets, Duration::from_millis(250), &options).await?;
    let api = prometheus.api();
    let query = format!("{METRIC}[5m]");
    let there = until_ok("the federated series", PATIENCE, || async {
        let found = api.instant(&query, None).await?;
        ensure!(found.len() == QUEUES.len(), "{} series", found.len());
        Ok(found)
    })
    .await?;
    for (series, pace) in there.iter().zip(1..) {
        let labels: Vec<(&str, &str)> = series.labels.iter().map(|(name, value)| (&**name, &**value)).collect();
        let queue = QUEUES[pace as usize - 1];
        assert_eq!(labels, [("__name__", METRIC), ("instance", "shop:1"), ("job", "shop"), ("queue", queue)]);
        assert_eq!(series.samples, [Sample { timestamp_ms: pushed.end_ms, value: (60 * pace) as f64 }]);
    }
    // What comes later is there with the next scrape.
    let label = |name: &str, value: &str| Label { name: name.to_owned(), value: value.to_owned() };
    let later = Sample { timestamp_ms: pushed.end_ms + 500, value: 60.5 };
    let series = PushSeries {
        name: METRIC.to_owned(),
        labels: vec![label("queue", QUEUES[0]), label("instance", "shop:1"), label("job", "shop")],
        samples: vec![PushSample { timestamp_ms: later.timestamp_ms, value: later.value, histogram: None }],
        ..PushSeries::default()
    };
    let request = PushRequest { series: vec![series], pusher_id: vec![9; 16], sequence: 2 };
    IngestClient::connect(pushed.collector.grpc_url()).await?.push(request).await?;
    until_ok("the later sample", PATIENCE, || async {
        let found = api.instant(&query, None).await?;
        ensure!(found[0].samples.last() == Some(&later), "{:?}", found[0]);
        Ok(())
    })
    .await
}
