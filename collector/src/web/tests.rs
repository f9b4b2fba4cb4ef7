use std::io::Write;
use std::process::{Command, Stdio};

use axum::body::{Body, to_bytes};
use lampad_proto::v1::MetricType;

use super::*;
use crate::auth::Rules;
use crate::clock::now_ms;
use crate::fleet::{Attach, Hello, Job};
use crate::own::{Own, OwnSample};
use crate::sink::Sink;
use crate::store::{AgentId, Label, Labels, METRIC_NAME, Meta, Options, RealDisk, Store};

struct Site {
    store: Arc<Store>,
    registry: Arc<Registry>,
    telemetry: Arc<Telemetry>,
    access: Arc<Access>,
    progress: Progress,
    _dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Options::new(dir.path().join("data")), Arc::new(RealDisk)).unwrap();
        let (registry, progress) = (Registry::new(9, []), Progress::default());
        Self { store, registry, telemetry: Arc::default(), access: Arc::default(), progress, _dir: dir }
    }

    fn door(&self) -> Door {
        Door::new(self.access.clone(), self.telemetry.clone(), self.progress.clone())
    }

    fn open(&self, door: &Door) {
        let web = Web::new(self.store.clone(), self.registry.clone(), self.telemetry.clone());
        door.open(pages(web, Router::new()));
    }

    fn write(&self, name: &str, kind: MetricType, value: f64) {
        let meta = Meta { kind, help: "Help.".into(), unit: "".into() };
        let labels = Labels::from_pairs([(METRIC_NAME, name), ("instance", "a\"b")]);
        let group: &'static str = Box::leak(name.to_owned().into_boxed_str());
        Own::new(self.store.clone(), group).write(now_ms(), &[OwnSample { labels, meta, value }]).unwrap();
    }
}

async fn get(router: &Router, path: &str, token: Option<&str>) -> (StatusCode, String) {
    let mut request = Request::builder().uri(path);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, token);
    }
    let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), 1 << 24).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn until_the_data_is_read_there_is_health_and_patience() {
    let site = Site::new();
    let door = site.door();
    let router = door.clone().router();
    assert_eq!(get(&router, "/-/healthy", None).await.0, StatusCode::OK);
    for path in ["/-/ready", "/metrics", "/api/v1/query?query=up"] {
        let (status, text) = get(&router, path, None).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert!(text.contains("it is reading the manifest: 0 records"), "{text}");
        assert_eq!(text.starts_with("{\"error\""), path.starts_with("/api/"), "{text}");
    }
    site.progress.begin_log(7, 96 << 20);
    site.progress.segment_done(16 << 20);
    let (_, text) = get(&router, "/api/v1/query?query=up", None).await;
    assert!(text.contains("replaying the log: 1 of 7 segments, 16 of 96 MiB"), "{text}");
    let (status, text) = get(&router, "/api/v1/status/walreplay", None).await;
    assert_eq!(status, StatusCode::OK);
    assert!(text.contains(r#""data":{"current":1,"max":7,"min":0,"state":"in progress"}"#), "{text}");
    site.open(&door);
    assert_eq!(get(&router, "/-/ready", None).await.0, StatusCode::OK);
    assert_eq!(get(&router, "/nowhere", None).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn without_the_token_only_probes_are_answered() {
    let site = Site::new();
    site.access.set(Rules { token: Some("word".into()), certificates: false });
    let door = site.door();
    site.open(&door);
    let router = door.router();
    for path in ["/", "/metrics", "/api/v1/targets"] {
        assert_eq!(get(&router, path, None).await.0, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(get(&router, path, Some("Bearer wrong")).await.0, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(get(&router, path, Some("Bearer word")).await.0, StatusCode::OK, "{path}");
    }
    for path in ["/-/healthy", "/-/ready"] {
        assert_eq!(get(&router, path, None).await.0, StatusCode::OK, "{path}");
    }
    assert_eq!(site.telemetry.unauthorised.get(), 6);
}

#[tokio::test]
async fn metrics_are_what_is_current_and_what_match_selects() {
    let site = Site::new();
    let door = site.door();
    site.open(&door);
    let router = door.router();
    site.write("a_total", MetricType::Counter, 1.0);
    site.write("b", MetricType::Gauge, f64::INFINITY);
    site.write("c", MetricType::Gauge, lampad_proto::stale());
    let (status, text) = get(&router, "/metrics", None).await;
    assert_eq!(status, StatusCode::OK);
    insta::assert_snapshot!(text, @r#"
    # HELP a_total Help.
    # TYPE a_total counter
    a_total{instance="a\"b"} 1
    # HELP b Help.
    # TYPE b gauge
    b{instance="a\"b"} +Inf
    "#);
    let (_, text) = get(&router, "/metrics?match[]=b&match[]=nothing", None).await;
    assert!(text.contains("\nb{") && !text.contains("a_total"), "{text}");
    let (status, text) = get(&router, "/metrics?match[]=b{", None).await;
    assert!(status == StatusCode::BAD_REQUEST && text.contains("b{"), "{text}");
    // Prometheus sends whatever its `params` say.
    assert_eq!(get(&router, "/metrics?mach[]=b{", None).await.0, StatusCode::OK);
}

fn attach(site: &Site) -> crate::fleet::Lease {
    let hello = Hello {
        instance: "db<1>".into(),
        version: "0.1".into(),
        labels: [("instance".to_owned(), "db<1>".to_owned())].into(),
        ..Hello::default()
    };
    let module = |name: &str, error: &str| lampad_proto::v1::ModuleState {
        name: name.into(),
        interval_ms: 1000,
        up: error.is_empty(),
        error: error.into(),
        absent: error.starts_with("not on"),
    };
    let modules = [("host.cpu", ""), ("host.zfs", "not on this machine"), ("mysql.status", "access <denied>")];
    let modules = modules.map(|(name, error)| module(name, error)).into();
    let peer = ([127, 0, 0, 1], 5).into();
    let lease = site.registry.attach(Attach { id: AgentId([1; 16]), hello, modules, peer, now_ms: 5 }).unwrap();
    lease.jobs(["mysql", "node"].map(|job| Job::at(job, None)).into_iter());
    lease.pushed(1_000, 7);
    lease
}

#[tokio::test]
async fn targets_have_prometheus_shape() {
    let site = Site::new();
    let door = site.door();
    site.open(&door);
    let router = door.router();
    let lease = attach(&site);
    let (_, text) = get(&router, "/api/v1/targets?scrapePool=node", None).await;
    let reply: serde_json::Value = serde_json::from_str(&text).unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&reply["data"]["activeTargets"]).unwrap(), @r#"
    [
      {
        "discoveredLabels": {},
        "globalUrl": "",
        "health": "up",
        "labels": {
          "instance": "db<1>",
          "job": "node"
        },
        "lampad": {
          "address": "127.0.0.1:5",
          "agent_id": "01010101010101010101010101010101",
          "clock_offset_seconds": 0.0,
          "clock_shift_seconds": 0.0,
          "connected": true,
          "hostname": "",
          "lag_seconds": 0.007,
          "modules": [
            {
              "error": "",
              "health": "up",
              "interval_seconds": 1.0,
              "name": "host.cpu"
            },
            {
              "error": "not on this machine",
              "health": "absent",
              "interval_seconds": 1.0,
              "name": "host.zfs"
            },
            {
              "error": "access <denied>",
              "health": "down",
              "interval_seconds": 1.0,
              "name": "mysql.status"
            }
          ],
          "version": "0.1"
        },
        "lastError": "mysql.status: access <denied>",
        "lastScrape": "1970-01-01T00:00:01Z",
        "lastScrapeDuration": 0.007,
        "scrapeInterval": "1000ms",
        "scrapePool": "node",
        "scrapeTimeout": "2500ms",
        "scrapeUrl": ""
      }
    ]
    "#);
    lease.goodbye();
    drop(lease);
    let (_, text) = get(&router, "/api/v1/targets", None).await;
    let reply: serde_json::Value = serde_json::from_str(&text).unwrap();
    let targets = reply["data"]["activeTargets"].as_array().unwrap();
    assert_eq!(targets.len(), 2);
    assert!(targets.iter().all(|target| target["health"] == "down" && target["lastError"] == "the agent was stopped"));
}

#[tokio::test]
async fn the_page_lists_agents_and_escapes_what_they_say() {
    let site = Site::new();
    let door = site.door();
    site.open(&door);
    let router = door.router();
    assert!(get(&router, "/", None).await.1.contains("No agent has pushed yet"));
    let lease = attach(&site);
    let (_, text) = get(&router, "/", None).await;
    for part in ["db&lt;1&gt;", ">UP<", "access &lt;denied&gt;", "mysql, node", "href=\"/metrics\""] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    assert!(!text.contains("db<1>") && !text.contains("<denied>"));
    assert!(!text.contains(r#"class="down">host.zfs"#), "what a machine does not have is no trouble: {text}");
    lease.goodbye();
    assert!(get(&router, "/", None).await.1.contains(">DOWN<"));
}

/// Prometheus' own checker has nothing to say about what we write ourselves.
#[tokio::test]
async fn own_metrics_are_clean_under_promtool() {
    if Command::new("promtool").arg("--version").output().is_err() {
        eprintln!("skipped: promtool is not installed");
        return;
    }
    let site = Site::new();
    let door = site.door();
    site.open(&door);
    let router = door.router();
    let _lease = attach(&site);
    site.telemetry.freshness(AgentId([1; 16])).observe(Duration::from_millis(30));
    let end = tokio_util::sync::CancellationToken::new();
    let sink: Arc<dyn Sink> = site.store.clone();
    let store = site.store.clone();
    let stats = move || store.stats();
    let own = vec![Label { name: "job".into(), value: "lampad-collector".into() }];
    tokio::spawn(site.telemetry.clone().run(sink, site.registry.clone(), own, stats, end));
    let mut text = String::new();
    while !text.contains("lampad_collector_agent_freshness_seconds_bucket") {
        text = get(&router, "/metrics", None).await.1;
    }
    let mut check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = check.wait_with_output().unwrap();
    assert!(said.status.success(), "{}\n{text}", String::from_utf8_lossy(&said.stderr));
}
