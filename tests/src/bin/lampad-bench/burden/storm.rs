//! A server in trouble: many tables, many sessions, an ALTER that waits for a reader, others that wait behind it, and a row that
//! many want while one session holds it.

use std::time::Duration;

use anyhow::ensure;
use lampad_tests::mariadb::Server;
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, ConnectOptions};
use tokio::task::JoinSet;

/// What the client asks whose answers are timed.
pub const BENCHMARK: &str = "select v from burden.rows_of_the_client where id = 7";

/// Tables made by one round trip.
const BATCH: usize = 100;

/// How long the wanted row is held before another session has its turn.
const HOLD: Duration = Duration::from_secs(15);

/// Between two statements of a session that works.
const WORK_EVERY: Duration = Duration::from_millis(250);

pub async fn create_tables(server: &Server, tables: usize) -> anyhow::Result<()> {
    server
        .execute(
            "create database burden; create table burden.rows_of_the_client (id int primary key, v varchar(32)); \
             insert into burden.rows_of_the_client select seq, md5(seq) from burden.seq_1_to_1000; \
             create table burden.wanted (id int primary key, n int) engine=innodb; insert into burden.wanted values (1, 0); \
             create table burden.altered (id int primary key) engine=innodb; insert into burden.altered values (1)",
        )
        .await?;
    for first in (0..tables).step_by(BATCH) {
        let table = |n| format!("create table burden.t{n} (id int primary key, v varchar(32)) engine=innodb;");
        server.execute(&(first..(first + BATCH).min(tables)).map(table).collect::<String>()).await?;
    }
    Ok(())
}

/// Sessions that end when this is dropped.
pub struct Storm {
    _sessions: JoinSet<anyhow::Result<()>>,
}

impl Storm {
    /// Sessions of which a fifth works and the others sleep.
    pub async fn calm(server: &Server, sessions: usize) -> anyhow::Result<Self> {
        let mut tasks = JoinSet::new();
        for n in 0..sessions {
            let connection = server.root().connect().await?;
            tasks.spawn(if n % 5 == 0 { Role::Works } else { Role::Sleeps }.play(connection));
        }
        Ok(Self { _sessions: tasks })
    }

    /// Of the sessions a sixth wants the held row, a tenth waits behind the ALTER, a tenth works, the others sleep.
    pub async fn begin(server: &Server, sessions: usize) -> anyhow::Result<Self> {
        let mut tasks = JoinSet::new();
        for n in 0..sessions {
            let role = match n {
                0 => Role::Reads,
                1 => Role::Alters,
                2 => Role::Holds,
                n if n % 6 == 0 => Role::Wants,
                n if n % 10 == 1 => Role::Queues,
                n if n % 10 == 5 => Role::Works,
                _ => Role::Sleeps,
            };
            let mut connection = server.root().connect().await?;
            if role == Role::Reads {
                // Before the ALTER comes.
                sqlx::raw_sql("begin; select * from burden.altered").execute(&mut connection).await?;
            }
            tasks.spawn(role.play(connection));
        }
        Ok(Self { _sessions: tasks })
    }

    /// Whether what it is made of is still there.
    pub async fn still_blows(&self, server: &Server) -> anyhow::Result<()> {
        let count = |state: &str| format!("select count(*) from information_schema.processlist where {state}");
        let altering = server.ask(&count("info like 'alter table burden%' and state like 'Waiting for%'")).await?;
        let queued = server.ask(&count("info = 'select * from burden.altered' and state like 'Waiting for%'")).await?;
        let wanting = server.ask(&count("info like 'update burden.wanted%'")).await?;
        ensure!(altering == "1" && queued != "0" && wanting != "0", "the storm is over: {altering} {queued} {wanting}");
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    /// Keeps a transaction open that has read the table.
    Reads,
    Alters,
    Queues,
    Holds,
    Wants,
    Works,
    Sleeps,
}

impl Role {
    async fn play(self, mut connection: MySqlConnection) -> anyhow::Result<()> {
        let connection = &mut connection;
        loop {
            match self {
                Self::Alters => run(connection, "alter table burden.altered add column c int").await?,
                Self::Queues => run(connection, "select * from burden.altered").await?,
                Self::Holds => {
                    run(connection, "begin; update burden.wanted set n = 0 where id = 1").await?;
                    tokio::time::sleep(HOLD).await;
                    run(connection, "rollback").await?;
                }
                // Whoever gets it gives it back at once; who waits too long is told so and comes again.
                Self::Wants => drop(run(connection, "update burden.wanted set n = n + 1 where id = 1").await),
                Self::Works => {
                    run(connection, "select count(*), max(v) from burden.rows_of_the_client").await?;
                    tokio::time::sleep(WORK_EVERY).await;
                }
                Self::Reads | Self::Sleeps => std::future::pending().await,
            }
        }
    }
}

async fn run(connection: &mut MySqlConnection, sql: &str) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await?;
    Ok(())
}
