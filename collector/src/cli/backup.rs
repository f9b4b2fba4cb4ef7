//! `backup`: the copy of a data directory, of a collector that runs or does not.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Parser;

use super::Where;
use super::bar::Bar;
use super::check::in_use;
use crate::control;
use crate::store::{self, Backed, BackupSink, CopyDir};

#[derive(Debug, Parser)]
pub struct Backup {
    #[command(flatten)]
    place: Where,
    /// Where the copy goes; made when it is not there, refused when it holds anything
    #[arg(value_name = "TARGET")]
    target: PathBuf,
}

impl Backup {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let dir = self.place.data_dir()?;
        if !dir.is_dir() {
            bail!("there is no data directory {}; name it with --data-dir", dir.display());
        }
        let write = || format!("cannot make the backup in {}", self.target.display());
        let mut shown = Shown {
            copy: CopyDir::new(&self.target).with_context(write)?,
            bar: Bar::new("backup"),
            all: 0,
            done: 0,
            bytes: 0,
        };
        let fetched = control::fetch(&dir, &mut shown);
        shown.bar.end();
        let backed = match fetched {
            Ok(Some(backed)) => backed,
            // Nobody serves the directory: it is copied as it lies there.
            Ok(None) => store::backup_stopped(&dir, &mut shown).map_err(in_use)?,
            Err(error) => {
                return Err(anyhow::Error::new(error)
                    .context(format!("the backup was not finished; remove {} and try again", self.target.display())));
            }
        };
        shown.bar.end();
        let target = shown.copy.finish().with_context(write)?;
        say(&backed, &target);
        Ok(if backed.missing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn say(backed: &Backed, target: &Path) {
    let mib = backed.bytes as f64 / f64::from(1 << 20);
    println!("backup of {} values, {mib:.1} MiB in {}", backed.values, target.display());
    if backed.missing > 0 {
        println!(
            "{} values could not be read and are missing; `lampad-collector check` on the copy names them",
            backed.missing
        );
    }
}

/// The copy, with a bar.
struct Shown {
    copy: CopyDir,
    bar: Bar,
    all: u64,
    done: u64,
    bytes: u64,
}

impl Shown {
    fn more(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        let mib = self.bytes >> 20;
        self.bar.show(self.done, self.all, &format!("values, {mib} MiB"));
    }
}

impl BackupSink for Shown {
    fn begin(&mut self, values: u64) -> io::Result<()> {
        self.all = values;
        self.copy.begin(values)
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.more(bytes.len());
        self.copy.file(name, bytes)
    }

    fn value(&mut self, partition: u32, number: u32, bytes: &[u8]) -> io::Result<()> {
        self.done += 1;
        self.more(bytes.len());
        self.copy.value(partition, number, bytes)
    }
}
