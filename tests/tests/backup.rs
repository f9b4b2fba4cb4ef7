//! A backup of a collector under load: restored, it answers as the original did, and ingest did not wait for it.

use std::time::Duration;

use anyhow::ensure;
use lampad_tests::load::{self, Plan, verify};
use lampad_tests::{Collector, PATIENCE, binary, until_ok};
use tempfile::TempDir;

/// Ends with this code and prints this.
fn ended(args: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
    let output = std::process::Command::new(binary("lampad-collector")?).args(args).output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&text).into_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_is_restorable_and_checks() -> anyhow::Result<()> {
    let mut collector = Collector::start().await?;
    let plan = Plan { agents: 3, ticks: 40, ..Plan::small(collector.grpc_url()) };
    let pushing = tokio::spawn(async move { load::run(&plan).await });
    let api = collector.api();
    until_ok("samples", PATIENCE, || async {
        let count = api.value("count(lampad_load_value offset 1s)").await?;
        ensure!(count == 60.0, "{count} series");
        Ok(())
    })
    .await?;
    let data = collector.data().display().to_string();
    let target = TempDir::with_prefix("lampad-backup-")?;
    let copy = target.path().join("copy").display().to_string();
    let begun_ms = jiff::Timestamp::now().as_millisecond();
    let (code, text) = ended(&["backup", "--data-dir", &data, &copy])?;
    ensure!(code == Some(0) && text.contains("backup of"), "{code:?}: {text}");
    let (code, text) = ended(&["backup", "--data-dir", &data, &copy])?;
    ensure!(code == Some(2) && text.contains("is not empty"), "{code:?}: {text}");
    let (code, text) = ended(&["check", "--data-dir", &data])?;
    ensure!(code == Some(2) && text.contains("in use by a running"), "{code:?}: {text}");
    let (code, text) = ended(&["check", "--data-dir", &copy])?;
    ensure!(code == Some(0) && text.contains("all is well"), "{code:?}: {text}");

    let records = pushing.await?;
    let verdict = verify(&api, &records).await?;
    ensure!(verdict.is_clean() && records.iter().all(|record| record.unacked.is_empty()), "{verdict}");
    let original = range(&api, begun_ms).await?;
    collector.process.terminate(PATIENCE).await?;
    let restored = Collector::on(copy.as_ref(), target, &[]).await?;
    let found = range(&restored.api(), begun_ms).await?;
    ensure!(found.len() == 60, "{} series", found.len());
    // The backup may hold samples that came after the moment we noted, none of them others than the original's.
    let (whole, part) = (samples(&original), samples(&found));
    ensure!(part.iter().all(|sample| whole.contains(sample)), "the copy has samples that the original has not");
    let before = |all: &[(String, i64, u64)]| all.iter().filter(|(_, at_ms, _)| *at_ms <= begun_ms - 500).count();
    ensure!(before(&part) == before(&whole) && before(&part) > 0, "{} of {}", before(&part), before(&whole));
    // Of a stopped collector too.
    let (code, text) = ended(&["check", "--data-dir", &data])?;
    ensure!(code == Some(0), "{code:?}: {text}");
    Ok(())
}

async fn range(api: &lampad_tests::Api, until_ms: i64) -> anyhow::Result<Vec<lampad_tests::Series>> {
    let span_s = Duration::from_secs(120).as_secs();
    api.instant(&format!("lampad_load_value[{span_s}s]"), Some(until_ms + 20_000)).await
}

fn samples(all: &[lampad_tests::Series]) -> Vec<(String, i64, u64)> {
    let of = |series: &lampad_tests::Series| {
        let name = format!("{:?}", series.labels);
        series.samples.iter().map(move |sample| (name.clone(), sample.timestamp_ms, sample.value.to_bits())).collect()
    };
    all.iter().flat_map(|series| -> Vec<_> { of(series) }).collect()
}
