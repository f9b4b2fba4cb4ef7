//! Logging in: any password, every plugin that the agent speaks, every way to the server.

use anyhow::{Context, Result, bail};
use lampad_agent::module::ModuleError;
use lampad_agent::modules::mysql::{
    Address, MysqlSettings, Secret, Session, Surroundings, Target, Tls, TlsMode, discovery, log_in,
};
use lampad_tests::mariadb::Server;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

const PASSWORDS: usize = 40;

fn target(server: &Server, address: Address, password: &str, mode: TlsMode) -> Target {
    Target {
        address,
        user: "lampad".into(),
        password: (!password.is_empty()).then(|| Secret::new(password)),
        tls: Tls { mode, ..Tls::default() },
        origin: format!("test on port {}", server.port()),
        explicit: true,
    }
}

fn sql_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

fn random_password(random: &mut StdRng) -> String {
    // All of ASCII but NUL, which ends a password on the wire, and some letters of two to four bytes.
    let alphabet: Vec<char> = (1..=127u8).map(char::from).chain("äßłж中🔥".chars()).collect();
    let length = random.random_range(1..=40);
    (0..length).filter_map(|_| alphabet.choose(random).copied()).collect()
}

#[tokio::test]
async fn any_password_works() -> Result<()> {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut servers = vec![Server::mariadb(&[]).await?];
    servers.extend(Server::mysql9(&[]).await?);
    for server in &servers {
        server.execute("CREATE USER lampad@localhost").await?;
        let hard = ["p?a#s&s%w@o:r/d", "%41", "a b", "\"'`\\", "-- ", "😀"].map(str::to_owned);
        for password in hard.into_iter().chain((0..PASSWORDS).map(|_| random_password(&mut random))) {
            server
                .execute(&format!(
                    "SET NAMES utf8mb4; ALTER USER lampad@localhost IDENTIFIED BY {}",
                    sql_quoted(&password)
                ))
                .await?;
            // As in an option file, with what needs it escaped: the parser is on the way too.
            let home = tempfile::tempdir()?;
            let escaped = password.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n").replace('\r', r"\r");
            std::fs::write(
                home.path().join(".my.cnf"),
                format!("[client]\nuser=lampad\npassword=\"{escaped}\"\nsocket={}\n", server.socket().display()),
            )?;
            let around = Surroundings { home: Some(home.path().into()), ..Surroundings::default() };
            let session = Session::new(MysqlSettings::default(), around);
            session.ping().await.with_context(|| format!("password {password:?}, seed {seed}"))?;
            // And as a URL.
            let encoded: String = password.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let server_url = Secret::new(server.dsn().replace("root@", &format!("lampad:{encoded}@")));
            let settings = MysqlSettings { server: Some(server_url), ..MysqlSettings::default() };
            let session = Session::new(settings, Surroundings::default());
            session.ping().await.with_context(|| format!("password {password:?} in a URL, seed {seed}"))?;
        }
    }
    Ok(())
}

/// A value as somebody may write it behind `password =`, on one line.
fn random_value(random: &mut StdRng) -> String {
    let alphabet: Vec<char> = r#"ab""''\\## ;=[]nrsté"#.chars().chain(['\t', '\r']).collect();
    (0..random.random_range(0..=12)).filter_map(|_| alphabet.choose(random).copied()).collect()
}

/// The password that an option file gives us.
fn password_in(file: &std::path::Path) -> Result<Option<String>> {
    let settings = MysqlSettings { option_file: Some(file.into()), ..MysqlSettings::default() };
    let targets = discovery::targets(&settings, &Surroundings { user: "u".into(), ..Surroundings::default() })?;
    Ok(targets[0].password.as_ref().map(|password| password.reveal().to_owned()))
}

/// `password=p#ss` was taken as a whole, where the clients see a comment.
#[test]
fn option_files_say_to_us_what_they_say_to_the_clients() -> Result<()> {
    const CLIENTS: &str = "my_print_defaults";
    if !lampad_tests::needs::program(CLIENTS) {
        return Ok(());
    }
    let seed: u64 = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("my.cnf");
    for _ in 0..500 {
        let value = random_value(&mut random);
        // MySQL's client programs print no password, so the value has another name for them.
        std::fs::write(&file, format!("[client]\npassword = {value}\nnote = {value}\n"))?;
        let defaults = format!("--defaults-file={}", file.display());
        let printed = std::process::Command::new(CLIENTS).args([&defaults, "client"]).output()?;
        let printed = String::from_utf8(printed.stdout)?;
        let (_, theirs) = printed.rsplit_once("--note=").with_context(|| printed.clone())?;
        let theirs = theirs.strip_suffix('\n').unwrap_or(theirs);
        let ours = password_in(&file).with_context(|| format!("{value:?}, seed {seed}"))?.unwrap_or_default();
        anyhow::ensure!(ours == theirs, "{value:?} is {ours:?} to us and {theirs:?} to the clients, seed {seed}");
    }
    Ok(())
}

/// A server just started has no digest of any account, so each first login here is a full one.
#[tokio::test]
async fn caching_sha2_password_works_on_the_first_login() -> Result<()> {
    for (name, flags) in [("with TLS", vec![]), ("without TLS", vec!["--tls-version="])] {
        let Some(server) = Server::mysql9(&flags).await? else { return Ok(()) };
        server.execute("CREATE USER lampad@localhost IDENTIFIED WITH caching_sha2_password BY 's3cret%'").await?;
        let tcp = Address::Tcp { host: "127.0.0.1".into(), port: server.port() };
        for (address, mode) in [
            (Address::Socket(server.socket()), TlsMode::Preferred),
            (Address::Socket(server.socket()), TlsMode::Disabled),
            (tcp.clone(), TlsMode::Preferred),
            (tcp, TlsMode::Disabled),
        ] {
            server.execute("FLUSH PRIVILEGES").await?; // forgets the digests
            let target = target(&server, address, "s3cret%", mode);
            if let Err(error) = log_in(&target, std::time::Duration::from_secs(30)).await {
                bail!("server {name}, {target}, {mode:?}: {error}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_plugin_that_we_do_not_speak_is_named() -> Result<()> {
    let server = Server::mariadb(&["--plugin-load-add=auth_ed25519"]).await?;
    server.execute("CREATE USER lampad@localhost IDENTIFIED VIA ed25519 USING PASSWORD('x')").await?;
    let settings = MysqlSettings {
        server: Some(Secret::new(server.dsn().replace("root@", "lampad:x@"))),
        ..MysqlSettings::default()
    };
    let refused = Session::new(settings, Surroundings::default()).ping().await;
    let Err(ModuleError::Connect { detail, .. }) = refused else { bail!("{refused:?}") };
    assert!(detail.contains("plugin ed25519,") && detail.contains("ALTER USER"), "{detail}");
    Ok(())
}

#[tokio::test]
async fn socket_authentication_needs_no_password() -> Result<()> {
    let server = Server::mariadb(&[]).await?;
    let whoami = std::process::Command::new("id").arg("-un").output()?.stdout;
    let user = String::from_utf8(whoami)?.trim().to_owned();
    server.execute(&format!("CREATE OR REPLACE USER '{user}'@localhost IDENTIFIED VIA unix_socket")).await?;
    let settings =
        MysqlSettings { server: Some(Secret::new(server.socket().display().to_string())), ..MysqlSettings::default() };
    let around = Surroundings { user, ..Surroundings::default() };
    Session::new(settings, around).ping().await?;
    Ok(())
}
