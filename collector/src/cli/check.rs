//! `check`: what is damaged.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use super::Where;
use super::bar::Bar;
use super::scratch::ScratchDir;
use crate::store::{self, OpenError, Report};

#[derive(Debug, Parser)]
pub struct Check {
    #[command(flatten)]
    place: Where,
    /// Where partitions are copied to while they are read, one at a time [default: the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

impl Check {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let dir = self.place.data_dir()?;
        let scratch = ScratchDir::new(self.scratch.as_deref())?;
        let mut bar = Bar::new("check");
        let checked = store::check(&dir, scratch.path(), &mut |done, all| bar.show(done as u64, all as u64, "runs"));
        bar.end();
        let report = checked.map_err(in_use)?;
        summary(&report);
        report.damage.iter().for_each(|damage| println!("damaged: {damage}"));
        if report.is_clean() {
            println!("all is well");
            return Ok(ExitCode::SUCCESS);
        }
        let places = report.damage.len();
        println!(
            "{places} damaged; `lampad-collector repair --data-dir {}` leaves it out and keeps the rest",
            dir.display()
        );
        Ok(ExitCode::FAILURE)
    }
}

pub fn summary(report: &Report) {
    let Report { groups, series, log_records, runs, values, value_bytes, .. } = report;
    let mib = *value_bytes as f64 / f64::from(1 << 20);
    println!(
        "read {groups} groups, {series} series; {runs} runs in {values} values ({mib:.1} MiB); {log_records} records of the log"
    );
}

/// The way out of a directory that is in use is another one here than at a start.
pub fn in_use(error: OpenError) -> anyhow::Error {
    match error {
        OpenError::Locked { path } => anyhow::anyhow!(
            "{} is in use by a running lampad-collector; stop it first, or make a backup (`lampad-collector backup`) and name that",
            path.display()
        ),
        other => other.into(),
    }
}
