//! `check` tells what is missing, and what it tells suffices.

use anyhow::{Context, Result, bail};
use lampad_agent::check::{Report, Verdict, check};
use lampad_agent::modules::mysql::{Extra, MysqlSettings, Secret, Surroundings};
use lampad_tests::mariadb::Server;

/// A busy machine may take its time: these tests are about rights.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

async fn check_as(server: &Server, login: &str) -> Report {
    let dsn = server.dsn().replace("root@", &format!("{login}@"));
    let settings =
        MysqlSettings { server: Some(Secret::new(dsn)), statement_deadline: PATIENCE, ..MysqlSettings::default() };
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
        let rights = if server.is_mariadb() {
            "GRANT PROCESS, SLAVE MONITOR ON *.* TO 'lampad'@'localhost'"
        } else {
            "GRANT PROCESS, REPLICATION CLIENT ON *.* TO 'lampad'@'localhost';
             GRANT SELECT ON performance_schema.* TO 'lampad'@'localhost'"
        };
        server
            .execute(&format!(
                "CREATE USER 'lampad'@'localhost' IDENTIFIED BY 'secret' WITH MAX_USER_CONNECTIONS 3; {rights}"
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
        assert!(bare.to_string().contains("    -- buys mysql_slave_status_*\n"), "{bare}");
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

/// Every collector there is, on a server that has something to tell for each.
async fn everything(server: &Server) -> Result<MysqlSettings> {
    server
        .execute(
            "CREATE DATABASE heartbeat; CREATE TABLE heartbeat.heartbeat (ts VARCHAR(26), server_id INT PRIMARY KEY);
             INSERT INTO heartbeat.heartbeat VALUES (NOW(6), 1)",
        )
        .await?;
    Ok(MysqlSettings {
        server: Some(Secret::new(server.dsn().replace("root@", "lampad:secret@"))),
        extra: Extra::ALL.to_vec(),
        statement_deadline: PATIENCE,
        ..MysqlSettings::default()
    })
}

#[tokio::test]
async fn each_line_that_check_prints_is_needed() -> Result<()> {
    for server in servers().await? {
        server.execute("CREATE USER 'lampad'@'localhost' IDENTIFIED BY 'secret'").await?;
        let settings = everything(&server).await?;
        let around = Surroundings::default();
        let check = || check(&settings, &around);
        let bare = check().await;
        let lines = bare.grants();
        for grant in &lines {
            server.execute(grant).await.context(grant.clone())?;
        }
        let whole = check().await;
        assert!(whole.is_ok() && whole.revokes().is_empty(), "{whole}");
        assert!(lines.len() >= 4, "{bare}");
        for line in &lines {
            server.execute(&line.replace("GRANT", "REVOKE").replace(" TO ", " FROM ")).await.context(line.clone())?;
            let without = check().await;
            let Report::Connected(found) = &without else { bail!("{without}") };
            let broken = |verdict: &Verdict| matches!(verdict, Verdict::Denied(_) | Verdict::SilentlyEmpty(_));
            assert!(found.modules.iter().any(|(_, verdict)| broken(verdict)), "without {line}\n{without}");
            assert!(without.grants().contains(line), "without {line}\n{without}");
            server.execute(line).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_nobody_needs_is_taken_away_and_all_stays_green() -> Result<()> {
    for server in servers().await? {
        server
            .execute(
                "CREATE USER 'lampad'@'localhost' IDENTIFIED BY 'secret';
                 GRANT ALL PRIVILEGES ON *.* TO 'lampad'@'localhost' WITH GRANT OPTION;
                 CREATE DATABASE shop; GRANT INSERT, SELECT ON shop.* TO 'lampad'@'localhost'",
            )
            .await?;
        let over = check_as(&server, "lampad:secret").await;
        assert!(over.is_ok() && !over.revokes().is_empty(), "{over}");
        for statement in over.revokes().iter().cloned().chain(over.grants()) {
            assert!(over.to_string().contains(&statement));
            server.execute(&statement).await.context(statement)?;
        }
        let least = check_as(&server, "lampad:secret").await;
        assert!(least.is_ok() && least.revokes().is_empty() && least.grants().is_empty(), "{least}");
    }
    Ok(())
}

/// SELECT on everything was asked for, to tell sizes that can be had without.
#[tokio::test]
async fn sizes_of_tables_take_no_right_to_read_them() -> Result<()> {
    for server in servers().await? {
        server
            .execute(
                "CREATE USER 'lampad'@'localhost' IDENTIFIED BY 'secret'; CREATE DATABASE shop;
                 CREATE TABLE shop.`or``ders` (a INT AUTO_INCREMENT PRIMARY KEY)",
            )
            .await?;
        let settings = MysqlSettings { extra: vec![Extra::Tables], ..everything(&server).await? };
        let around = Surroundings::default();
        let bare = check(&settings, &around).await;
        let hidden = "silently empty  mysql.tables               needs SHOW VIEW ON *.* to see all tables";
        assert!(bare.to_string().contains(hidden), "{bare}");
        for grant in bare.grants() {
            server.execute(&grant).await.context(grant)?;
        }
        let granted = check(&settings, &around).await;
        assert!(granted.is_ok() && granted.revokes().is_empty(), "{granted}");
        // What reads columns and rows of tables is told that this is too little.
        let deeper = MysqlSettings { extra: vec![Extra::Tables, Extra::AutoIncrement], ..settings.clone() };
        let report = check(&deeper, &around).await;
        let hidden = "silently empty  mysql.auto_increment       needs SELECT ON *.* to see all tables";
        assert!(!report.is_ok() && report.to_string().contains(hidden), "{report}");
        assert_eq!(report.grants(), ["GRANT SELECT ON *.* TO 'lampad'@'localhost';"], "{report}");
        server.execute(&report.grants()[0]).await?;
        assert!(check(&deeper, &around).await.is_ok());
        // And whoever does not read them need not be able to.
        let over = check(&settings, &around).await;
        for statement in over.revokes().iter().cloned().chain(over.grants()) {
            server.execute(&statement).await.context(statement)?;
        }
        assert!(over.revokes().iter().any(|statement| statement.contains("REVOKE SELECT ON *.*")), "{over}");
        let least = check(&settings, &around).await;
        assert!(least.is_ok() && least.revokes().is_empty(), "{least}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_switched_off_is_neither_denied_nor_empty() -> Result<()> {
    let server = Server::mariadb(&[]).await?;
    let extra = vec![Extra::TableStatistics, Extra::Statements, Extra::BinlogSize, Extra::GroupMembers];
    let settings = MysqlSettings { server: Some(Secret::new(server.dsn())), extra, ..MysqlSettings::default() };
    let report = check(&settings, &Surroundings::default()).await;
    assert!(report.is_ok(), "{report}");
    let text = report.to_string();
    for line in ["userstat = 0", "performance_schema = OFF", "log_bin = OFF"] {
        assert!(text.lines().any(|found| found.contains("switched off") && found.contains(line)), "{line} in\n{text}");
    }
    assert!(text.lines().any(|line| line.contains("not here") && line.contains("mysql.group_members")), "{text}");
    assert!(text.contains("not asked for: engine_innodb_status"), "{text}");
    assert!(report.revokes().is_empty() && text.contains("account of the agent's own"), "root stays root: {text}");
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
