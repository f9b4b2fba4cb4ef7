//! `check` tells what is missing, and what it tells suffices.

use anyhow::{Context, Result, bail};
use lampad_agent::check::{Report, Verdict, check};
use lampad_agent::modules::mysql::{Extra, MysqlSettings, Secret, Surroundings};
use lampad_tests::mariadb::Server;

async fn check_as(server: &Server, login: &str) -> Report {
    let dsn = server.dsn().replace("root@", &format!("{login}@"));
    let settings = MysqlSettings { server: Some(Secret::new(dsn)), ..MysqlSettings::default() };
    check(&settings, &Surroundings::default()).await
}

async fn servers() -> Result<Vec<Server>> {
    let mariadb = Server::mariadb(&["--performance-schema=ON", "--log-bin=bin", "--server-id=1"]).await?;
    let mysql = Server::mysql9(&["--log-bin=bin", "--server-id=1"]).await?;
    Ok(std::iter::once(mariadb).chain(mysql).collect())
}

#[tokio::test]
async fn the_documented_minimum_suffices() -> Result<()> {
    for server in servers().await? {
        let rights = if server.is_mariadb() { "BINLOG MONITOR, SLAVE MONITOR" } else { "REPLICATION CLIENT" };
        server
            .execute(&format!(
                "CREATE USER 'lampad'@'localhost' IDENTIFIED BY 'secret' WITH MAX_USER_CONNECTIONS 3;
                 GRANT PROCESS, {rights} ON *.* TO 'lampad'@'localhost';
                 GRANT SELECT ON performance_schema.* TO 'lampad'@'localhost'"
            ))
            .await?;
        let report = check_as(&server, "lampad:secret").await;
        assert!(report.is_ok(), "{report}");
    }
    Ok(())
}

#[tokio::test]
async fn what_check_prints_makes_everything_run() -> Result<()> {
    for server in servers().await? {
        server.execute("CREATE USER 'lampad'@'localhost' IDENTIFIED BY 'secret'").await?;
        let bare = check_as(&server, "lampad:secret").await;
        let Report::Connected(found) = &bare else { bail!("{bare}") };
        let verdict = |name| found.modules.iter().find(|(module, _)| *module == name).map(|(_, verdict)| verdict);
        for free in ["mysql.up", "mysql.vital", "mysql.status", "mysql.variables"] {
            assert_eq!(verdict(free), Some(&Verdict::Ok), "{bare}");
        }
        assert!(matches!(verdict("mysql.transactions"), Some(Verdict::Denied(_))), "{bare}");
        assert!(matches!(verdict("mysql.replication"), Some(Verdict::Denied(_))), "{bare}");
        assert!(!bare.is_ok() && !bare.grants().is_empty());
        for grant in bare.grants() {
            assert!(bare.to_string().contains(&grant));
            server.execute(&grant).await.context(grant)?;
        }
        let granted = check_as(&server, "lampad:secret").await;
        assert!(granted.is_ok(), "{granted}");
        assert!(granted.to_string().contains("No right is missing"), "{granted}");
    }
    Ok(())
}

#[tokio::test]
async fn sessions_that_an_account_may_not_see_are_no_ok() -> Result<()> {
    let server = Server::mariadb(&[]).await?;
    server.execute("CREATE USER 'lampad'@'localhost' IDENTIFIED BY 'secret'").await?;
    let report = check_as(&server, "lampad:secret").await.to_string();
    assert!(report.contains("silently empty  mysql.processlist"), "{report}");
    Ok(())
}

#[tokio::test]
async fn modules_that_are_asked_for_say_what_they_need() -> Result<()> {
    for server in servers().await? {
        server.execute("CREATE USER 'lampad'@'localhost' IDENTIFIED BY 'secret'").await?;
        let dsn = server.dsn().replace("root@", "lampad:secret@");
        let settings = MysqlSettings {
            server: Some(Secret::new(dsn)),
            extra: vec![Extra::TableIoWaits, Extra::InnodbTablespaces],
            ..MysqlSettings::default()
        };
        let bare = check(&settings, &Surroundings::default()).await;
        let text = bare.to_string();
        for line in ["mysql.table_io_waits       needs SELECT ON perf", "mysql.innodb_tablespaces   needs PROCESS"] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        for grant in bare.grants() {
            server.execute(&grant).await.context(grant)?;
        }
        let granted = check(&settings, &Surroundings::default()).await;
        assert!(granted.is_ok(), "{granted}");
    }
    Ok(())
}

#[tokio::test]
async fn a_refused_login_gets_statements_that_make_the_account() -> Result<()> {
    let server = Server::mariadb(&[]).await?;
    let report = check_as(&server, "lampad:wrong").await;
    assert!(matches!(report, Report::Refused { .. }), "{report}");
    let text = report.to_string();
    let lines = text.lines().skip_while(|line| !line.contains("MariaDB 10.5.9")).skip(1).take(3);
    for statement in lines {
        server.execute(&statement.replace("'...'", "'wrong'")).await.context(statement.to_owned())?;
    }
    let report = check_as(&server, "lampad:wrong").await;
    assert!(report.is_ok(), "{report}");
    Ok(())
}

#[tokio::test]
async fn an_absent_server_is_told_with_where_we_looked() -> Result<()> {
    let settings =
        MysqlSettings { server: Some(Secret::new("mysql://u@localhost?socket=/nonexistent/s")), ..Default::default() };
    let report = check(&settings, &Surroundings::default()).await;
    assert!(matches!(report, Report::Absent { .. }), "{report}");
    assert!(report.to_string().contains("/nonexistent/s as u"), "{report}");
    Ok(())
}
