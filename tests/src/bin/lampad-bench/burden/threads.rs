//! CPU time of the server's threads that serve one account, as the kernel counts it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lampad_tests::mariadb::Server;
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Row};

/// How often it is looked which threads those are; a connection that lives shorter may be missed.
const LOOK: Duration = Duration::from_millis(200);

/// CPU time within `span` of all threads that serve `user`.
pub async fn cpu_of(server: &Server, user: &str, span: Duration) -> anyhow::Result<Duration> {
    let pid = server.pid().context("the server is not running")?;
    let mut connection = server.connect().await?;
    let (start, mut last, mut sum) = (Instant::now(), HashMap::new(), 0);
    let mut ticks = tokio::time::interval(LOOK);
    while start.elapsed() < span {
        ticks.tick().await;
        let mut now = HashMap::new();
        for thread in threads(&mut connection, user).await? {
            // One that has ended meanwhile has nothing to read.
            let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")) else { continue };
            let ran: u64 = stat.split(' ').next().context("schedstat")?.parse()?;
            sum += last.get(&thread).map_or(0, |before| ran - before);
            now.insert(thread, ran);
        }
        last = now;
    }
    Ok(Duration::from_nanos(sum))
}

/// Gives all threads of a process this niceness; those that they start have it from them.
pub fn set_priority(pid: u32, nice: i32) -> anyhow::Result<()> {
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = task?.file_name().to_string_lossy().parse()?;
        // One that has ended meanwhile needs none.
        let _ = rustix::process::setpriority_process(rustix::process::Pid::from_raw(thread), nice);
    }
    Ok(())
}

/// Has all threads of a process run only when no other one wants the CPU.
pub fn set_idle(pid: u32) -> anyhow::Result<()> {
    let mut chrt = std::process::Command::new("chrt");
    let done = chrt.args(["--all-tasks", "--idle", "--pid", "0", &pid.to_string()]).status();
    ensure!(done.context("chrt (of util-linux) cannot be started")?.success(), "chrt failed");
    Ok(())
}

async fn threads(connection: &mut MySqlConnection, user: &str) -> anyhow::Result<Vec<u64>> {
    let sql = format!("select cast(tid as char) from information_schema.processlist where user = '{user}'");
    let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(connection).await?;
    rows.iter().map(|row| Ok(row.try_get_unchecked::<String, _>(0)?.parse()?)).collect()
}
