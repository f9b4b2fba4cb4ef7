//! `repair`: what is damaged is set aside, and the rest opens.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use super::Where;
use super::bar::Bar;
use super::check::{in_use, summary};
use super::scratch::ScratchDir;
use crate::store;

#[derive(Debug, Parser)]
pub struct Repair {
    #[command(flatten)]
    place: Where,
    /// Where partitions are copied to while they are read, one at a time [default: the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

impl Repair {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let dir = self.place.data_dir()?;
        let scratch = ScratchDir::new(self.scratch.as_deref())?;
        let mut bar = Bar::new("repair");
        let repaired = store::repair(&dir, scratch.path(), &mut |done, all| bar.show(done as u64, all as u64, "runs"));
        bar.end();
        let repaired = repaired.map_err(in_use)?;
        summary(&repaired.found);
        let Some(aside) = repaired.aside else {
            println!("nothing is damaged; nothing was changed");
            return Ok(ExitCode::SUCCESS);
        };
        repaired.found.damage.iter().for_each(|damage| println!("given up: {damage}"));
        println!("repaired; what was bad is kept in {}", aside.display());
        Ok(ExitCode::SUCCESS)
    }
}
