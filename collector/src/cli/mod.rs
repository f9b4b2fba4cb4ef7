//! Commands for whoever operates a collector; each ends by itself.
#![allow(clippy::print_stdout)]

mod backup;
mod bar;
mod check;
mod repair;
mod scratch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Args, Config};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Read everything in the data directory of a stopped collector and name what is damaged; changes nothing
    ///
    /// Ends with 0 when all is well, 1 when something is damaged, 2 when it could not be checked. A collector that runs need
    /// not be stopped: make a backup and check that.
    Check(check::Check),
    /// Make a damaged data directory open again: what is bad is kept in its directory `damaged`, and said
    Repair(repair::Repair),
    /// Copy the data directory, also while its collector runs; the copy is a data directory itself
    ///
    /// To restore, start a collector on the copy, or move it to where the old directory was. Run it as a user that may enter the
    /// data directory; the copy belongs to that user.
    Backup(backup::Backup),
}

/// Which data directory.
#[derive(Debug, Clone, Parser)]
pub struct Where {
    /// The collector's data directory [default: lampad-data]
    #[arg(long, env = "LAMPAD_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The collector's TOML file, which may name the data directory
    #[arg(long, env = "LAMPAD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Where {
    fn data_dir(&self) -> anyhow::Result<PathBuf> {
        let args = Args { data_dir: self.data_dir.clone(), config: self.config.clone(), ..Args::default() };
        Ok(Config::load(&args)?.data_dir)
    }
}

/// What could not even be tried ends with this.
pub const TROUBLE: u8 = 2;

pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Check(check) => check.run(),
        Command::Repair(repair) => repair.run(),
        Command::Backup(backup) => backup.run(),
    }
}
