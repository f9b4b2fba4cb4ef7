//! Several database servers of one host, watched by one agent.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use lampad_tests::mariadb::Server;
use lampad_tests::{Agent, Api, Collector, PATIENCE, Signal, until, until_ok};

/// Waits until `query` is `expected`.
async fn becomes(api: &Api, query: &str, expected: f64) -> Result<()> {
    let is = || async { matches!(api.value(query).await, Ok(value) if value == expected) };
    until(&format!("{query} to be {expected}"), PATIENCE, is).await
}

fn write(config: &Path, first: &Server, second: Option<&Server>) -> Result<()> {
    let mut text =
        format!("[mysql.labels]\nset = 'a'\n[[mysql.instance]]\nname = 'orders'\nserver = '{}'\n", first.dsn());
    if let Some(second) = second {
        let login = config.with_extension("cnf");
        std::fs::write(&login, "[client]\nuser = root\n")?;
        text += &format!(
            "[[mysql.instance]]\nport = {}\noption_file = {login:?}\nlabels.role = 'replica'\n",
            second.port()
        );
    }
    std::fs::write(config, text).context("the agent's configuration")
}

#[tokio::test]
async fn each_server_has_series_of_its_own_and_its_own_troubles() -> Result<()> {
    let (first, second) = tokio::join!(Server::mariadb(&["--server-id=11"]), Server::mariadb(&["--server-id=12"]));
    let (mut first, second) = (first?, second?);
    let collector = Collector::start().await?;
    let directory = tempfile::tempdir()?;
    let config = directory.path().join("agent.toml");
    write(&config, &first, Some(&second))?;
    let agent = Agent::start(&collector.grpc_url(), "db1", &["--config", &config.display().to_string()])?;
    let api = collector.api();

    let by_port = format!("db1:{}", second.port());
    let labelled = "count(mysql_up{set='a',instance='orders',role=''}) + count(mysql_up{set='a',role='replica'})";
    becomes(&api, labelled, 2.0).await?;
    for (instance, id) in [("orders", 11.0), (&*by_port, 12.0)] {
        let of = |family: &str| format!("{family}{{job=\"mysql\",instance=\"{instance}\"}}");
        becomes(&api, &of("mysql_up"), 1.0).await?;
        becomes(&api, &of("up"), 1.0).await?;
        becomes(&api, &of("mysql_global_variables_server_id"), id).await?;
        let running = of("mysql_global_status_threads_running");
        until_ok("vital signs", PATIENCE, || api.value(&running)).await?;
        let collectors = format!("sum({}) > 3", of("mysql_exporter_collector_success"));
        until_ok("collectors", PATIENCE, || api.value(&collectors)).await?;
        let books = format!("sum(lampad_mysql_server_seconds_total{{instance=\"{instance}\"}})");
        until_ok("the governor's books", PATIENCE, || api.value(&books)).await?;
    }
    becomes(&api, "count(mysql_up)", 2.0).await?;
    ensure!(api.value("up{instance=\"db1\",job=\"node\"}").await? == 1.0, "the host has lost its own name");
    let modules = format!("lampad_module_up{{module=\"mysql.status@{by_port}\",instance=\"db1\"}}");
    becomes(&api, &modules, 1.0).await?;

    // One that is away is down alone, and comes back.
    first.kill();
    becomes(&api, "mysql_up{instance=\"orders\"}", 0.0).await?;
    ensure!(api.value(&format!("mysql_up{{instance=\"{by_port}\"}}")).await? == 1.0, "the other one fell with it");
    first.start().await?;
    becomes(&api, "mysql_up{instance=\"orders\"}", 1.0).await?;

    // One that is no longer named ends.
    write(&config, &first, None)?;
    agent.process.signal(Signal::HUP)?;
    becomes(&api, "count(mysql_up)", 1.0).await?;
    becomes(&api, "mysql_up{instance=\"orders\"}", 1.0).await
}

#[tokio::test]
async fn flags_name_several_and_one_stays_as_it_was() -> Result<()> {
    let server = Server::mariadb(&[]).await?;
    let collector = Collector::start().await?;
    let socket = server.dsn();
    let tcp = format!("orders=mysql://root@127.0.0.1:{}", server.port());
    let _one = Agent::start(&collector.grpc_url(), "one", &["--mysql", &socket])?;
    let _two = Agent::start(&collector.grpc_url(), "two", &["--mysql", &socket, "--mysql", &tcp])?;
    let by_socket = format!("two:{}", server.socket().display());
    for instance in ["one", "orders", &by_socket] {
        becomes(&collector.api(), &format!("mysql_up{{instance=\"{instance}\"}}"), 1.0).await?;
    }
    becomes(&collector.api(), "count(mysql_up)", 3.0).await
}

/// A socket that leads to `server`, as a server at an unusual place has one. Aborted, it ends with all its connections.
fn lead_to(server: &Server, socket: &Path) -> Result<tokio::task::JoinHandle<()>> {
    let (listener, target) = (tokio::net::UnixListener::bind(socket)?, server.socket());
    Ok(tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            let target = target.clone();
            connections.spawn(async move {
                let mut server = tokio::net::UnixStream::connect(target).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    }))
}

#[tokio::test]
async fn servers_that_nobody_named_are_found_by_their_sockets() -> Result<()> {
    let server = Server::mariadb(&[]).await?;
    let collector = Collector::start().await?;
    let place = tempfile::tempdir()?;
    let place = place.path().canonicalize()?;
    let up = |name: &str| format!("mysql_up{{instance=\"db1:{}/{name}\"}}", place.display());
    let early = lead_to(&server, &place.join("mysql.sock"))?;
    let _agent = Agent::start(&collector.grpc_url(), "db1", &[])?;
    becomes(&collector.api(), &up("mysql.sock"), 1.0).await?;
    // One that comes later is found as well, and one that goes is down.
    let _late = lead_to(&server, &place.join("mysqld-3307.sock"))?;
    becomes(&collector.api(), &up("mysqld-3307.sock"), 1.0).await?;
    becomes(&collector.api(), &up("mysqld-3307.sock").replace("mysql_up", "up"), 1.0).await?;
    early.abort();
    becomes(&collector.api(), &up("mysql.sock"), 0.0).await?;
    becomes(&collector.api(), &up("mysqld-3307.sock"), 1.0).await
}
