//! Records what the agent reads of this host and a MariaDB: idle, under a mixed load, and under bursts of it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use lampad_tests::load::recording;
use lampad_tests::mariadb::Server;
use lampad_tests::{Agent, Collector, until_ok};
use sqlx::{AssertSqlSafe, MySqlConnection};

const PATIENCE: Duration = Duration::from_secs(60);

/// Connections of the load.
const CLIENTS: u32 = 8;

/// A burst, and as long a pause after it.
const BURST: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub struct Args {
    /// Directory for idle.zst, mixed.zst and bursts.zst
    #[arg(long)]
    out: PathBuf,
    /// Of each recording
    #[arg(long, default_value_t = 180)]
    seconds: u64,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.out)?;
    let database = Server::mariadb(&[]).await?;
    database.execute("create database bench").await?;
    database.execute("create table bench.orders (id bigint primary key auto_increment, customer int, amount decimal(10, 2), note varchar(200), key (customer))").await?;
    let collector = Collector::start().await?;
    let _agent = Agent::start(&collector.grpc_url(), "db1", &["--mysql", &database.dsn()])?;
    let api = collector.api();
    until_ok("the agent's series", PATIENCE, || api.value("mysql_global_status_questions")).await?;
    for (name, load, pause) in
        [("idle", false, Duration::ZERO), ("mixed", true, Duration::ZERO), ("bursts", true, BURST)]
    {
        let mut clients = tokio::task::JoinSet::new();
        if load {
            for client in 0..CLIENTS {
                clients.spawn(work(database.connect().await?, client, pause));
            }
        }
        tokio::time::sleep(Duration::from_secs(args.seconds + 2)).await;
        let series = recording::record(&api, "{job=~\"node|mysql\"}", args.seconds).await?;
        clients.shutdown().await;
        let path = args.out.join(format!("{name}.zst"));
        recording::write(&path, &series)?;
        let samples: usize = series.iter().map(|series| series.values.len()).sum();
        println!("{}: {} series, {samples} samples", path.display(), series.len());
    }
    Ok(())
}

/// Small transactions, and now and then a wide question.
async fn work(mut connection: MySqlConnection, client: u32, pause: Duration) -> anyhow::Result<()> {
    let mut turn = u64::from(client);
    let began = tokio::time::Instant::now();
    loop {
        turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let customer = turn >> 44;
        let statement = match turn >> 60 {
            0 => "select customer, sum(amount) from bench.orders group by customer order by 2 desc limit 10".to_owned(),
            1..=4 => format!(
                "insert into bench.orders (customer, amount, note) values ({customer}, {}.5, repeat('x', {}))",
                customer % 1000,
                turn >> 57
            ),
            5..=6 => format!("update bench.orders set amount = amount + 1 where customer = {customer}"),
            7 => format!("delete from bench.orders where customer = {customer}"),
            _ => format!("select * from bench.orders where customer between {customer} and {}", customer + 10),
        };
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.context("load on the database")?;
        tokio::time::sleep(Duration::from_millis(5)).await;
        if pause > Duration::ZERO && (began.elapsed().as_secs() / BURST.as_secs()) % 2 == 1 {
            tokio::time::sleep(pause).await;
        }
    }
}
