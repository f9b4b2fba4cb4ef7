//! The command line of `lampad-agent check`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::modules::mysql::{MysqlSettings, Secret, Surroundings};

/// Tell which MySQL modules can run here, and the GRANT statements that are missing
#[derive(Debug, Args)]
pub struct Check {
    /// A MySQL or MariaDB server to look at; repeatable; without it the configured ones or the usual places are
    #[arg(long, env = "LAMPAD_MYSQL", value_name = "DSN", hide_env_values = true)]
    mysql: Vec<Secret>,
    /// The agent's configuration file, for its section [mysql]
    #[arg(long, env = "LAMPAD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Check {
    /// Prints what it finds; an error where something is missing, so that scripts see it.
    pub async fn run(self) -> Result<()> {
        let mut settings = match &self.config {
            Some(path) => section(path)?,
            None => MysqlSettings::default(),
        };
        settings.replace(&self.mysql);
        let around = Surroundings::of_this_process();
        // The name of this host is only there to tell several servers apart here.
        let watched = settings.watched("this host", &around)?;
        let mut is_ok = true;
        for one in &watched {
            let report = super::check(&one.settings, &around).await;
            is_ok &= report.is_ok();
            #[allow(clippy::print_stdout)] // this is what the command is for
            {
                if let Some(instance) = &one.instance {
                    println!("instance {instance}");
                }
                print!("{report}");
            }
        }
        if !is_ok {
            bail!("not every MySQL module can run; see above");
        }
        Ok(())
    }
}

/// `[mysql]` of the agent's file; the other sections are the daemon's to check.
fn section(path: &Path) -> Result<MysqlSettings> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut table: toml::Table = toml::from_str(&text).with_context(|| format!("{} is not TOML", path.display()))?;
    let section = table.remove("mysql").unwrap_or_else(|| toml::Value::Table(toml::Table::new()));
    section.try_into().with_context(|| format!("section [mysql] of {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_of_the_agents_file_counts() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.toml");
        std::fs::write(&file, "collector = 'http://c:1'\n[mysql]\nextra = ['binlog_size']\n").unwrap();
        assert_eq!(section(&file).unwrap().extra.len(), 1);
        std::fs::write(&file, "[mysql]\nextra = ['everything']\n").unwrap();
        let refused = format!("{:#}", section(&file).unwrap_err());
        assert!(refused.contains("section [mysql]") && refused.contains("everything"), "{refused}");
    }
}
