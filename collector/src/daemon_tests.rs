//! The whole daemon: TLS, tokens, reload, and an end in time.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Parser;
use lampad_proto::v1::downward::Message as Down;
use lampad_proto::v1::ingest_client::IngestClient;
use lampad_proto::v1::upward::Message;
use lampad_proto::v1::{
    Dictionary, Frame, GroupDef, GroupTick, Hello, Label as WireLabel, Lane, MetricDef, Ping, SeriesDef, Upward,
};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tokio_stream::StreamExt;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::*;
use crate::clock::now_ms;
use crate::store::{Flush, Told};

struct Place {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).unwrap();
        std::fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
        Self { issuer: Issuer::new(params, key), dir }
    }

    fn issue(&self, name: &str, purpose: ExtendedKeyUsagePurpose) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![purpose];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    fn args(&self, more: &[&str]) -> Args {
        let data = self.path("data").display().to_string();
        let http = if more.contains(&"--http-listen") { &[][..] } else { &["--http-listen", "127.0.0.1:0"] };
        let own = ["x", "--grpc-listen", "127.0.0.1:0", "--data-dir", &data];
        Args::parse_from(own.iter().chain(http).chain(more))
    }
}

async fn start(args: &Args) -> anyhow::Result<Daemon> {
    Daemon::start(Config::load(args)?, CancellationToken::new()).await
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn hello() -> Upward {
    let labels = vec![WireLabel { name: "instance".into(), value: "db1".into() }];
    let hello = Hello { protocol_min: 1, protocol_max: 1, agent_id: vec![9; 16], labels, ..Hello::default() };
    Upward { message: Some(Message::Hello(hello)) }
}

#[tokio::test]
async fn an_open_stream_does_not_hold_the_end() {
    let place = Place::new();
    let daemon = start(&place.args(&[])).await.unwrap();
    let mut client = IngestClient::connect(format!("http://{}", daemon.grpc_addr())).await.unwrap();
    let endless = tokio_stream::once(hello()).chain(tokio_stream::pending());
    let mut down = client.stream(endless).await.unwrap().into_inner();
    assert!(down.message().await.unwrap().is_some());
    let asked = Instant::now();
    daemon.stop().await.unwrap();
    assert!(asked.elapsed() < GRPC_ENDS_WITHIN + TASKS_END_WITHIN, "{:?}", asked.elapsed());
    assert!(fleet::read_roster(&place.path("data")).unwrap().iter().any(|(_, state)| state.hello.instance == "db1"));
}

#[tokio::test]
async fn certificates_and_the_token_let_in_by_tls() {
    let place = Place::new();
    place.issue("server", ExtendedKeyUsagePurpose::ServerAuth);
    place.issue("agent", ExtendedKeyUsagePurpose::ClientAuth);
    std::fs::write(place.path("token"), "first\n").unwrap();
    let paths = ["server.pem", "server.key", "ca.pem", "token"].map(|name| text(&place.path(name)));
    let args = place.args(&[
        "--tls-cert",
        &paths[0],
        "--tls-key",
        &paths[1],
        "--tls-client-ca",
        &paths[2],
        "--token-file",
        &paths[3],
    ]);
    let daemon = start(&args).await.unwrap();

    let root = reqwest::Certificate::from_pem(&place.read("ca.pem")).unwrap();
    let http = reqwest::Client::builder().no_proxy().add_root_certificate(root).build().unwrap();
    let url = format!("https://localhost:{}/metrics", daemon.http_addr().port());
    let get = async |token: &str| http.get(&url).bearer_auth(token).send().await.unwrap().status().as_u16();
    assert_eq!((get("first").await, get("second").await), (200, 401));

    let endpoint = |identity: Option<Identity>| {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(place.read("ca.pem")));
        let tls = identity.into_iter().fold(tls, ClientTlsConfig::identity);
        Endpoint::from_shared(format!("https://localhost:{}", daemon.grpc_addr().port()))
            .unwrap()
            .tls_config(tls)
            .unwrap()
    };
    let identity = Identity::from_pem(place.read("agent.pem"), place.read("agent.key"));
    let mut known = IngestClient::new(endpoint(Some(identity)).connect().await.unwrap());
    assert!(known.stream(tokio_stream::once(hello())).await.is_ok());
    let mut nameless = IngestClient::new(endpoint(None).connect().await.unwrap());
    let refused = nameless.stream(tokio_stream::once(hello())).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{refused}");

    let status = format!("https://localhost:{}/api/v1/status/runtimeinfo", daemon.http_addr().port());
    let reload_told = async |token: &str, told: &str| {
        let said = http.get(&status).bearer_auth(token).send().await.unwrap().text().await.unwrap();
        assert!(said.contains(&format!("\"reloadConfigSuccess\":{told}")), "{said}");
    };
    reload_told("first", "true").await;
    std::fs::write(place.path("token"), "").unwrap();
    daemon.reload(&args, &LogLevel::fixed());
    assert_eq!(get("first").await, 200, "an invalid file leaves the old token in force");
    reload_told("first", "false").await;
    std::fs::write(place.path("token"), "second").unwrap();
    daemon.reload(&args, &LogLevel::fixed());
    assert_eq!((get("first").await, get("second").await), (401, 200));
    reload_told("second", "true").await;
    drop((known, nameless));
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn strangers_are_kept_out_unless_somebody_says_so() {
    let place = Place::new();
    let refused = start(&place.args(&["--http-listen", "0.0.0.0:0"])).await.err().unwrap().to_string();
    assert!(refused.contains("--http-listen 0.0.0.0:0") && refused.contains("--insecure"), "{refused}");
    let daemon = start(&place.args(&["--http-listen", "0.0.0.0:0", "--insecure"])).await.unwrap();
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn certificates_that_do_not_fit_are_named() {
    let place = Place::new();
    place.issue("one", ExtendedKeyUsagePurpose::ServerAuth);
    place.issue("two", ExtendedKeyUsagePurpose::ServerAuth);
    std::fs::write(place.path("empty"), "").unwrap();
    for (cert, key, part) in
        [("one.pem", "two.key", "two.key"), ("empty", "one.key", "holds no certificate"), ("no", "one.key", "/no")]
    {
        let (cert, key) = (text(&place.path(cert)), text(&place.path(key)));
        let refused = start(&place.args(&["--tls-cert", &cert, "--tls-key", &key])).await.err().unwrap().to_string();
        assert!(refused.contains(part), "{refused}");
    }
}

#[tokio::test]
async fn no_ack_leaves_while_the_flush_hangs_or_fails_and_queries_are_answered() {
    let place = Place::new();
    let disk = Told::default();
    let config = Config::load(&place.args(&[])).unwrap();
    let daemon = Daemon::start_on(config, CancellationToken::new(), Arc::new(disk.clone())).await.unwrap();
    let mut client = IngestClient::connect(format!("http://{}", daemon.grpc_addr())).await.unwrap();
    let (up, stream) = tokio::sync::mpsc::channel(16);
    let send = async |message: Message| up.send(Upward { message: Some(message) }).await.unwrap();
    up.send(hello()).await.unwrap();
    let mut down = client.stream(tokio_stream::wrappers::ReceiverStream::new(stream)).await.unwrap().into_inner();
    // All answers up to the one to a ping that is sent now.
    let mut answers = async || {
        send(Message::Ping(Ping { id: 42, ..Ping::default() })).await;
        let mut acked = None;
        loop {
            match down.message().await.unwrap().unwrap().message.unwrap() {
                Down::Ack(ack) => acked = Some(ack.through),
                Down::Pong(_) => return acked,
                _ => {}
            }
        }
    };
    assert_eq!(answers().await, None);
    disk.tell(Flush::Hangs);
    let symbols = ["", "host.cpu", "a_total"].map(String::from).into();
    send(Message::Dictionary(Dictionary {
        lane: Lane::Live.into(),
        reset: true,
        symbols,
        groups: vec![GroupDef { name: 1, labels: vec![], interval_ms: 1000 }],
        metrics: vec![MetricDef { name: 2, ..MetricDef::default() }],
        series: vec![SeriesDef { group: 0, metric: 0, labels: vec![] }],
    }))
    .await;
    let url = format!("http://{}/api/v1/query?query=a_total", daemon.http_addr());
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for (sequence, flush) in [(1, Flush::Hangs), (2, Flush::Fails)] {
        disk.tell(flush);
        let base_ms = now_ms();
        let tick = GroupTick {
            key: sequence == 1,
            float_refs: vec![0],
            float_bits: vec![f64::to_bits(sequence as f64 + 0.5)],
            ..GroupTick::default()
        };
        let lane = Lane::Live.into();
        send(Message::Frame(Frame { lane, sequence, base_ms, sent_ms: base_ms, ticks: vec![tick] })).await;
        let tried = disk.tried();
        assert_eq!(answers().await, None, "no ack while the flush {flush:?}");
        let shown = format!("{sequence}.5");
        let body = http.get(&url).send().await.unwrap().text().await.unwrap();
        assert!(body.contains(&shown), "queryable while the flush {flush:?}: {body}");
        if flush == Flush::Fails {
            crate::recorder::until("some failed tries", || disk.tried() > tried + 2).await;
        }
        assert_eq!(answers().await, None, "no ack while the flush {flush:?}");
    }
    disk.tell(Flush::Works);
    let deadline = Instant::now() + Duration::from_secs(20);
    while answers().await != Some(2) {
        assert!(Instant::now() < deadline, "acked once the disk works");
    }
    drop(up);
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn the_admin_api_is_there_when_it_is_asked_for() {
    let place = Place::new();
    let daemon = start(&place.args(&["--enable-admin-api"])).await.unwrap();
    let url = format!("http://{}/api/v1", daemon.http_addr());
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = async |path: &str| {
        let reply = http.post(format!("{url}/admin/tsdb/{path}")).send().await.unwrap();
        (reply.status().as_u16(), reply.text().await.unwrap())
    };
    assert_eq!(post("delete_series").await.0, 400, "of which series?");
    assert_eq!(post("delete_series?match[]=up&start=0").await, (204, String::new()));
    assert_eq!(post("clean_tombstones").await, (204, String::new()));
    let (status, text) = post("snapshot").await;
    let name = serde_json::from_str::<serde_json::Value>(&text).unwrap()["data"]["name"].as_str().unwrap().to_owned();
    assert_eq!(status, 200, "{text}");
    daemon.stop().await.unwrap();
    // A snapshot is a data directory.
    let copy = place.path("data").join("snapshots").join(name);
    let args = Args::parse_from([
        "x",
        "--grpc-listen",
        "127.0.0.1:0",
        "--http-listen",
        "127.0.0.1:0",
        "--data-dir",
        &self::text(&copy),
    ]);
    start(&args).await.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn the_end_of_a_thread_of_the_store_ends_the_daemon() {
    let place = Place::new();
    let daemon = start(&place.args(&[])).await.unwrap();
    daemon.store.lose_keeper();
    let ended = timeout(Duration::from_secs(20), daemon.ended()).await.unwrap().unwrap_err();
    assert!(ended.to_string().contains("store-keeper"), "{ended}");
    let asked = Instant::now();
    daemon.stop().await.unwrap();
    assert!(asked.elapsed() < STORE_ENDS_WITHIN, "nobody waits for a thread that is gone: {:?}", asked.elapsed());
}

/// SIGTERM ends the gRPC server at once; looking after the servers in that very moment, the daemon took it for broken, and ended
/// without sealing anything.
#[tokio::test]
async fn a_server_that_ends_because_it_shall_is_not_broken() {
    let place = Place::new();
    let daemon = start(&place.args(&[])).await.unwrap();
    daemon.shutdown.cancel();
    let ended = async {
        while !daemon.servers.lock().iter().any(JoinHandle::is_finished) {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), ended).await.expect("the gRPC server ends");
    assert!(daemon.broken_server().is_none());
    daemon.ended().await.unwrap();
    daemon.stop().await.unwrap();
}
