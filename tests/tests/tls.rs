//! TLS on all ways in: certificates of a small authority of the test's own.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use lampad_tests::{Agent, Api, Collector, PATIENCE, Process, until_ok};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    fn new() -> anyhow::Result<Self> {
        let directory = TempDir::with_prefix("lampad-tls-")?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Lampad's test authority");
        let certificate = params.self_signed(&key)?;
        std::fs::write(directory.path().join("ca.crt"), certificate.pem())?;
        Ok(Self { issuer: Issuer::new(params, key), directory })
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    fn issue(&self, name: &str, purpose: ExtendedKeyUsagePurpose) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![purpose];
        let certificate = params.signed_by(&key, &self.issuer)?;
        std::fs::write(self.path(&format!("{name}.crt")), certificate.pem())?;
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem())?;
        Ok(())
    }

    fn client(&self, identity: Option<&str>) -> anyhow::Result<reqwest::Client> {
        let root = reqwest::Certificate::from_pem(&std::fs::read(self.path("ca.crt"))?)?;
        let mut builder = reqwest::Client::builder().no_proxy().add_root_certificate(root);
        if let Some(name) = identity {
            let pem =
                [std::fs::read(self.path(&format!("{name}.crt")))?, std::fs::read(self.path(&format!("{name}.key")))?];
            builder = builder.identity(reqwest::Identity::from_pem(&pem.concat())?);
        }
        Ok(builder.build()?)
    }
}

/// A collector with TLS and client certificates: its readiness is asked with one.
async fn secure(authority: &Authority) -> anyhow::Result<(Process, Api, String)> {
    let (http, grpc) = (lampad_tests::free_port()?, lampad_tests::free_port()?);
    let local = |port: u16| ([127, 0, 0, 1], port).into();
    let path = |file: &str| authority.path(file).display().to_string();
    let process = Collector::program(&authority.path("data"), authority.directory.path(), local(http), local(grpc))?
        .args(["--tls-cert", &path("collector.crt"), "--tls-key", &path("collector.key")])
        .args(["--tls-client-ca", &path("ca.crt")])
        .start()?;
    let api = Api::with_client(format!("https://127.0.0.1:{http}"), authority.client(Some("db1"))?);
    until_ok("a collector with TLS", PATIENCE, || async {
        let (status, _) = api.get("/-/ready", &[]).await?;
        ensure!(status == 200, "{status}");
        Ok(())
    })
    .await
    .with_context(|| process.log_tail())?;
    Ok((process, api, format!("https://127.0.0.1:{grpc}")))
}

fn agent(authority: &Authority, collector: &str, instance: &str, files: &[(&str, &str)]) -> anyhow::Result<Agent> {
    let args: Vec<String> = files
        .iter()
        .flat_map(|(flag, file)| [(*flag).to_owned(), authority.path(file).display().to_string()])
        .collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    Agent::start(collector, instance, &args)
}

#[tokio::test]
async fn certificates_let_agents_and_askers_in_and_nobody_else() -> anyhow::Result<()> {
    let authority = Authority::new()?;
    authority.issue("collector", ExtendedKeyUsagePurpose::ServerAuth)?;
    authority.issue("db1", ExtendedKeyUsagePurpose::ClientAuth)?;
    let (_collector, api, grpc) = secure(&authority).await?;
    let own = [("--tls-cert", "db1.crt"), ("--tls-key", "db1.key"), ("--tls-ca", "ca.crt")];
    let _agent = agent(&authority, &grpc, "db1", &own)?;
    until_ok("samples over TLS", PATIENCE, || api.value("node_load1{instance=\"db1\"}")).await?;

    let nameless = agent(&authority, &grpc, "nameless", &[("--tls-ca", "ca.crt")])?;
    // rustls tells a missing client certificate in the first read after the handshake, so the agent has something to say.
    refused_aloud(&nameless.process, &["certificate"]).await?;
    let found = api.instant("node_load1{instance=\"nameless\"}", None).await?;
    ensure!(found.is_empty(), "an agent without a certificate pushed {found:?}");

    let asker = Api::with_client(api.base(), authority.client(None)?);
    ensure!(asker.get("/-/ready", &[]).await.is_err(), "an asker without a certificate was answered");
    Ok(())
}

#[tokio::test]
async fn an_agent_does_not_push_to_a_collector_of_another_authority() -> anyhow::Result<()> {
    let authority = Authority::new()?;
    authority.issue("collector", ExtendedKeyUsagePurpose::ServerAuth)?;
    authority.issue("db1", ExtendedKeyUsagePurpose::ClientAuth)?;
    let other = Authority::new()?;
    let (_collector, api, grpc) = secure(&authority).await?;
    let own = [
        ("--tls-cert", authority.path("db1.crt")),
        ("--tls-key", authority.path("db1.key")),
        ("--tls-ca", other.path("ca.crt")),
    ];
    let args: Vec<String> =
        own.iter().flat_map(|(flag, path)| [(*flag).to_owned(), path.display().to_string()]).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let agent = Agent::start(&grpc, "db1", &args)?;
    refused_aloud(&agent.process, &["certificate", "--tls-ca"]).await?;
    ensure!(api.instant("node_load1", None).await?.is_empty(), "pushed to a stranger");
    Ok(())
}

async fn refused_aloud(process: &Process, words: &[&str]) -> anyhow::Result<()> {
    until_ok("a log line that tells why", PATIENCE, || async {
        let log = process.log().to_lowercase();
        ensure!(words.iter().all(|word| log.contains(word)), "{words:?} are not in the log:\n{}", process.log_tail());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_token_file_guards_http() -> anyhow::Result<()> {
    let directory = TempDir::new()?;
    let token = directory.path().join("token");
    std::fs::write(&token, "open-sesame\n")?;
    let collector = Collector::with(&["--token-file", path(&token)?]).await?;
    let asked = |token: Option<&str>| {
        let mut request = reqwest::Client::new().get(format!("http://{}/api/v1/query?query=1", collector.http()));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        async move { anyhow::Ok(request.send().await?.status().as_u16()) }
    };
    assert_eq!(asked(None).await?, 401);
    assert_eq!(asked(Some("open-door")).await?, 401);
    assert_eq!(asked(Some("open-sesame")).await?, 200);
    Ok(())
}

fn path(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}
