//! What must not be believed: settings, directories, frames, clocks and identities. Each is answered by a message that names
//! the thing and the way out, and costs nobody else anything.

use std::path::Path;

use anyhow::{Context, ensure};
use lampad_proto::v1::ingest_client::IngestClient;
use lampad_proto::v1::{
    DecimalColumn, Frame, GroupTick, Label, Lane, MetricType, PushRequest, PushSample, PushSeries, Upward, downward,
    upward::Message,
};
use lampad_tests::load::{Encoder, LoadAgent, METRIC, Plan, run, verify};
use lampad_tests::{Collector, PATIENCE, Program, Signal, free_port, needs, until, until_ok};
use tempfile::TempDir;
use tonic::Code;

/// A collector that must refuse to start: what it says.
async fn refused(program: Program) -> anyhow::Result<String> {
    let (status, said) = program.run(PATIENCE).await?;
    ensure!(!status.success(), "started nevertheless: {said}");
    ensure!(status.code().is_some(), "ended by a signal ({status}): {said}");
    ensure!(!said.contains("panicked"), "{said}");
    Ok(said)
}

fn collector(data: &Path, logs: &Path) -> anyhow::Result<Program> {
    let address = |port: u16| ([127, 0, 0, 1], port).into();
    Collector::program(data, logs, address(free_port()?), address(free_port()?))
}

#[tokio::test]
async fn settings_that_nobody_knows_are_refused_by_name() -> anyhow::Result<()> {
    let directory = TempDir::new()?;
    let config = directory.path().join("bad.toml");
    std::fs::write(&config, "# a typing error\nretentoin = \"1d\"\n")?;
    let said =
        refused(collector(&directory.path().join("data"), directory.path())?.arg("--config").arg(&config)).await?;
    for part in ["bad.toml", "retentoin"] {
        ensure!(said.contains(part), "{part:?} is missing in: {said}");
    }
    let agent = lampad_tests::Agent::program(&directory.path().join("state"), directory.path(), "http://127.0.0.1:1")?;
    let said = refused(agent.arg("--config").arg(&config)).await?;
    for part in ["bad.toml", "retentoin"] {
        ensure!(said.contains(part), "{part:?} is missing in: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn bad_addresses_are_refused_by_name() -> anyhow::Result<()> {
    let directory = TempDir::new()?;
    for (flag, value) in [("--http-listen", "9390"), ("--grpc-listen", "127.0.0.1:99999"), ("--retention", "soon")] {
        let program = Program::ours("lampad-collector", directory.path().join("log"))?
            .arg("--data-dir")
            .arg(directory.path().join("data"))
            .args([flag, value]);
        let said = refused(program).await?;
        ensure!(said.contains(value) && said.contains(&flag[2..]), "{flag} {value} gave: {said}");
    }
    let agent = lampad_tests::Agent::program(&directory.path().join("state"), directory.path(), "ftp://there")?;
    let said = refused(agent).await?;
    ensure!(said.contains("ftp://there"), "{said}");
    Ok(())
}

#[tokio::test]
async fn listening_beyond_loopback_needs_tls_or_a_word() -> anyhow::Result<()> {
    let directory = TempDir::new()?;
    let program = Program::ours("lampad-collector", directory.path().join("log"))?
        .arg("--data-dir")
        .arg(directory.path().join("data"))
        .args(["--http-listen", &format!("0.0.0.0:{}", free_port()?)])
        .args(["--grpc-listen", &format!("127.0.0.1:{}", free_port()?)]);
    let said = refused(program).await?;
    ensure!(said.contains("--insecure") && said.contains("--tls-cert"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_taken_port_is_named() -> anyhow::Result<()> {
    let first = Collector::start().await?;
    let directory = TempDir::new()?;
    let grpc = ([127, 0, 0, 1], free_port()?).into();
    let second = Collector::program(&directory.path().join("data"), directory.path(), first.http(), grpc)?;
    let said = refused(second).await?;
    ensure!(said.contains(&first.http().to_string()), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_directory_that_is_not_ours_stays_untouched() -> anyhow::Result<()> {
    let directory = TempDir::new()?;
    let data = directory.path().join("photos");
    std::fs::create_dir(&data)?;
    std::fs::write(data.join("holiday.jpg"), "no sample")?;
    let said = refused(collector(&data, directory.path())?).await?;
    ensure!(said.contains("photos"), "{said}");
    let left: Vec<_> = std::fs::read_dir(&data)?.map(|entry| entry.map(|entry| entry.file_name())).collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(std::fs::read(data.join("holiday.jpg"))?, b"no sample");
    Ok(())
}

#[tokio::test]
async fn a_data_directory_serves_one_collector_at_a_time() -> anyhow::Result<()> {
    let first = Collector::start().await?;
    let directory = TempDir::new()?;
    let said = refused(collector(first.data(), directory.path())?).await?;
    ensure!(said.contains(&first.data().display().to_string()), "{said}");
    first.api().value("vector(1)").await?;
    Ok(())
}

#[tokio::test]
async fn a_full_disk_refuses_what_comes_and_keeps_what_was_acked() -> anyhow::Result<()> {
    if !needs::root() {
        return Ok(());
    }
    // A file system of its own in a mount namespace of its own: gone with the process, whatever happens here.
    let directory = TempDir::with_prefix("lampad-small-")?;
    let data = directory.path().join("data");
    std::fs::create_dir(&data)?;
    let (http, grpc) = (free_port()?, free_port()?);
    let ours = lampad_tests::binary("lampad-collector")?;
    let script = format!(
        "mount -t tmpfs -o size=60m tmpfs {data} && exec {} --data-dir {data}/d --http-listen 127.0.0.1:{http} --grpc-listen 127.0.0.1:{grpc}",
        ours.display(),
        data = data.display(),
    );
    let program = Program::at("/usr/bin/unshare", directory.path().join("log")).args(["-m", "sh", "-c", &script]);
    let mut process = program.start()?;
    let api = lampad_tests::Api::new(format!("http://127.0.0.1:{http}"));
    until("the collector", PATIENCE, || async { matches!(api.get("/-/ready", &[]).await, Ok((200, _))) }).await?;
    let plan = Plan {
        agents: 8,
        series: 2000,
        ticks: 400,
        change_percent: 100,
        pace: lampad_tests::load::Pace::FlatOut,
        patience: std::time::Duration::from_secs(15),
        ..Plan::small(format!("http://127.0.0.1:{grpc}"))
    };
    let records = run(&plan).await;
    ensure!(process.status().is_none(), "the collector ended on a full disk:\n{}", process.log_tail());
    let unacked: usize = records.iter().map(|record| record.unacked.len()).sum();
    ensure!(unacked > 0, "6.4 million samples fitted into what 60 MiB leave free; the test proves nothing");
    let verdict = verify(&api, &records[..2]).await?;
    ensure!(verdict.lost == 0 && verdict.invented == 0 && verdict.doubled == 0, "{verdict}");
    ensure!(
        process.log().matches("make room, or shorten --retention").count() >= 1,
        "the log does not name the trouble and the way out:\n{}",
        process.log_tail()
    );
    // What the collector says of itself says it too, though nothing else is taken.
    until_ok("the metric", PATIENCE, || async {
        let full = api.value("lampad_collector_disk_full").await?;
        ensure!(full == 1.0, "{full}");
        Ok(())
    })
    .await?;
    // What could not be written any more is said in the exit status; that it ends is what counts.
    process.signal(Signal::TERM)?;
    let status = process.ended(PATIENCE).await?;
    ensure!(status.code().is_some(), "ended by a signal: {status}");
    Ok(())
}

/// Sends these messages after a hello as agent `number`; what the collector answered last.
async fn converse(collector: &Collector, number: u32, messages: Vec<Upward>) -> anyhow::Result<Vec<downward::Message>> {
    let encoder = Encoder::new(&Plan::small(""), number, jiff::Timestamp::now().as_millisecond());
    let mut all = vec![encoder.hello(0, vec![]), encoder.dictionary(Lane::Live)];
    all.extend(messages);
    let mut client = IngestClient::connect(collector.grpc_url()).await?;
    let mut answers = client.stream(tokio_stream::iter(all)).await?.into_inner();
    let mut heard = Vec::new();
    while let Some(answer) = answers.message().await? {
        heard.extend(answer.message);
    }
    Ok(heard)
}

fn frame(tick: GroupTick) -> Upward {
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let frame = Frame { lane: Lane::Live.into(), sequence: 1, base_ms: now_ms, sent_ms: now_ms, ticks: vec![tick] };
    Upward { message: Some(Message::Frame(frame)) }
}

#[tokio::test]
async fn malformed_frames_cost_their_sender_only() -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let plan = Plan { first_agent: 50, ticks: 30, ..Plan::small(collector.grpc_url()) };
    let others = tokio::spawn(async move { run(&plan).await });
    let column = |refs: &[u32], deltas: &[i64]| DecimalColumn { digits: 0, refs: refs.into(), deltas: deltas.into() };
    let key = GroupTick { key: true, ..GroupTick::default() };
    let bad: Vec<(&str, GroupTick)> = vec![
        ("a group that nobody defined", GroupTick { group: 77, ..key.clone() }),
        ("a series that nobody defined", GroupTick { decimals: vec![column(&[9999], &[1])], ..key.clone() }),
        ("references without values", GroupTick { decimals: vec![column(&[0, 2], &[1])], ..key.clone() }),
        (
            "references beyond 32 bits",
            GroupTick { decimals: vec![column(&[2, u32::MAX, 5], &[1, 1, 1])], ..key.clone() },
        ),
        ("mantissas beyond doubles", GroupTick { decimals: vec![column(&[0], &[i64::MAX])], ..key.clone() }),
        (
            "more digits than there are",
            GroupTick { decimals: vec![DecimalColumn { digits: 99, refs: vec![0], deltas: vec![1] }], ..key.clone() },
        ),
        ("floats without references", GroupTick { float_bits: vec![1, 2, 3], ..key.clone() }),
        ("an end of what nobody defined", GroupTick { ended: vec![4444], ..key.clone() }),
    ];
    for (number, (what, tick)) in bad.into_iter().enumerate() {
        let answered = converse(&collector, 100 + number as u32, vec![frame(tick)]).await;
        match answered {
            Err(error) => {
                let status = error.downcast_ref::<tonic::Status>().with_context(|| format!("{what}: {error:#}"))?;
                let ours = matches!(status.code(), Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange);
                ensure!(ours && !status.message().is_empty(), "{what}: {status}");
            }
            Ok(heard) => {
                let told = heard.iter().any(|message| {
                    matches!(message, downward::Message::Refusal(_) | downward::Message::KeyFrameWanted(_))
                });
                ensure!(told, "{what} was taken: {heard:?}");
            }
        }
    }
    // Not even a hello.
    let mut client = IngestClient::connect(collector.grpc_url()).await?;
    let first = client.stream(tokio_stream::iter([frame(key)])).await;
    let first = match first {
        Ok(answers) => answers.into_inner().message().await.map(|_| ()),
        Err(status) => Err(status),
    };
    ensure!(first.is_err(), "a stream without a hello was taken");

    let records = others.await?;
    let verdict = verify(&collector.api(), &records).await?;
    ensure!(verdict.is_clean() && verdict.right == 20 * 30, "the well-behaved agent has {verdict}");
    let strays = collector.api().instant(&format!("{METRIC}{{instance=~\"load-001..\"}}"), None).await?;
    ensure!(strays.iter().all(|series| series.samples.len() <= 1), "{strays:?}");
    Ok(())
}

#[tokio::test]
async fn a_change_without_its_base_is_answered_with_key_frame_wanted() -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let column = DecimalColumn { digits: 0, refs: vec![0], deltas: vec![1] };
    let tick = GroupTick { decimals: vec![column], ..GroupTick::default() };
    let heard = converse(&collector, 1, vec![frame(tick)]).await?;
    let wanted = heard.iter().any(|message| matches!(message, downward::Message::KeyFrameWanted(_)));
    ensure!(wanted, "{heard:?}");
    Ok(())
}

#[tokio::test]
async fn a_clock_an_hour_off_costs_no_sample_and_is_told() -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    for (turn, hours) in [1, -1].into_iter().enumerate() {
        let number = turn as u32;
        let ahead_ms = hours * 3_600_000;
        let plan = Plan { first_agent: number, clock_ahead_ms: ahead_ms, ..Plan::small(collector.grpc_url()) };
        let mut records = run(&plan).await;
        ensure!(records[0].unacked.is_empty(), "not acked: {:?}", records[0].unacked);
        let instance = Plan::instance(number);
        let selector = format!("{METRIC}{{instance=\"{instance}\"}}[1m]");
        let found = collector.api().instant(&selector, None).await?;
        let first_ms = found.iter().flat_map(|series| &series.samples).map(|sample| sample.timestamp_ms).min();
        // Shifted by what the stream measured: the whole offset, but for the travel time.
        let shift_ms = first_ms.context("no sample near the collector's own time")? - records[0].start_ms;
        ensure!((shift_ms + ahead_ms).abs() < 2000, "{hours} h: shifted by {shift_ms} ms");
        records[0].start_ms += shift_ms;
        let verdict = verify(&collector.api(), &records).await?;
        ensure!(verdict.is_clean() && verdict.right == 20 * 20, "{hours} h: {verdict}");
    }
    let targets = collector.api().data("/api/v1/targets", &[]).await?.to_string();
    ensure!(targets.contains("clock"), "the targets list does not tell: {targets}");
    Ok(())
}

#[tokio::test]
async fn of_two_agents_with_one_identity_the_second_is_refused_and_told_why() -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let plan = Plan { ticks: 40, ..Plan::small(collector.grpc_url()) };
    let id = [9; 16];
    let mut first = LoadAgent::new(&plan, 1, Default::default()).with_identity(id, 1);
    let first = tokio::spawn(async move {
        first.work().await;
        first.record
    });
    let api = collector.api();
    until_ok("the first agent", PATIENCE, || async { api.value(&format!("count({METRIC})")).await }).await?;
    let brief = Plan { ticks: 1, patience: std::time::Duration::from_secs(1), ..plan };
    let mut second = LoadAgent::new(&brief, 2, Default::default()).with_identity(id, 2);
    second.work().await;
    assert_eq!(second.record.unacked.len(), 1, "the copy was acked");
    let told = second.record.refusals.first().context("the copy was not told why")?;
    ensure!(told.matches("127.0.0.1").count() >= 2, "both addresses are to be named: {told}");
    let first = first.await?;
    let verdict = verify(&api, &[first]).await?;
    ensure!(verdict.is_clean() && verdict.right == 20 * 40, "{verdict}");
    Ok(())
}

#[tokio::test]
async fn oversized_labels_are_refused_series_by_series_and_odd_values_are_kept() -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let series = |name: &str, value: f64, labels: Vec<Label>| PushSeries {
        name: name.to_owned(),
        labels,
        r#type: MetricType::Gauge.into(),
        samples: vec![PushSample { timestamp_ms: 0, value, histogram: None }],
        ..PushSeries::default()
    };
    let long = Label { name: "sql".to_owned(), value: "x".repeat(1 << 20) };
    let many = (0..1000).map(|i| Label { name: format!("l{i}"), value: "v".to_owned() }).collect();
    let request = PushRequest {
        series: vec![
            series("odd_inf", f64::INFINITY, vec![]),
            series("too_long", 1.0, vec![long]),
            series("odd_nan", f64::NAN, vec![]),
            series("too_many", 1.0, many),
            series("odd_minus", f64::NEG_INFINITY, vec![]),
            series("", 1.0, vec![]),
        ],
        ..PushRequest::default()
    };
    let mut client = IngestClient::connect(collector.grpc_url()).await?;
    let reply = client.push(request).await?.into_inner();
    let refused: Vec<u32> = reply.refused.iter().map(|refused| refused.series).collect();
    assert_eq!((reply.stored, &*refused), (3, &[1, 3, 5][..]), "{reply:?}");
    ensure!(reply.refused.iter().all(|refused| refused.reason.len() < 1000), "a reason repeats the input");
    let api = collector.api();
    assert_eq!(api.value("odd_inf").await?, f64::INFINITY);
    ensure!(api.value("odd_nan").await?.is_nan(), "NaN is a value");
    assert_eq!(api.value("odd_minus").await?, f64::NEG_INFINITY);
    Ok(())
}
