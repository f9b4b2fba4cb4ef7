//! The servers that the other tests start do start, stop and start again.

use lampad_tests::mariadb::Server;

#[tokio::test]
async fn a_private_mariadb_starts_stops_and_starts_again() -> anyhow::Result<()> {
    starts_stops_and_starts_again(Server::mariadb(&["--max-connections=33"]).await?, "33").await
}

#[tokio::test]
async fn a_private_mysql_9_starts_stops_and_starts_again() -> anyhow::Result<()> {
    match Server::mysql9(&["--max-connections=33"]).await? {
        Some(server) => starts_stops_and_starts_again(server, "33").await,
        None => Ok(()),
    }
}

async fn starts_stops_and_starts_again(mut server: Server, max_connections: &str) -> anyhow::Result<()> {
    assert_eq!(server.ask("SELECT @@max_connections").await?, max_connections);
    server.execute("CREATE DATABASE kept").await?;
    server.stop();
    assert!(server.connect().await.is_err());
    server.start().await?;
    assert_eq!(server.ask("SHOW DATABASES LIKE 'kept'").await?, "kept");
    Ok(())
}
