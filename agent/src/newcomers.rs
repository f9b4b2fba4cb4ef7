//! Database servers that come to this host after the agent.
//!
//! Looked for now and then, at the places where those are found that nobody named. One is taken when it was there at two looks:
//! installers and upgrades run servers for moments. It is watched from then on until the agent or its configuration begins
//! anew: a server that has gone is down, and that is news.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::modules::mysql::{Surroundings, Watched};

/// From one look to the next; each reads one file of `/proc`.
pub const LOOK: Duration = Duration::from_secs(5);

/// What the last look saw.
#[derive(Debug, Default)]
pub struct Lookout(BTreeSet<Arc<str>>);

impl Lookout {
    /// Servers that are not watched and were there at the look before as well.
    pub fn look(&mut self, config: &Config, around: &Surroundings) -> Vec<Watched> {
        let Some(usual) = config.mysql.iter().find(|one| one.instance.is_none()) else { return Vec::new() };
        let own = config.labels.iter().find(|label| label.name == "instance").map_or("", |label| &label.value);
        let mut others = usual.settings.others(own, around);
        others.retain(|one| config.mysql.iter().all(|known| known.instance != one.instance));
        let now = others.iter().filter_map(|one| one.instance.clone()).collect();
        let before = std::mem::replace(&mut self.0, now);
        others.retain(|one| one.instance.as_ref().is_some_and(|instance| before.contains(instance)));
        others
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flags;

    #[test]
    fn a_server_is_taken_at_its_second_look_and_once() {
        let root = tempfile::tempdir().unwrap();
        let around = Surroundings { root: root.path().into(), ..Surroundings::default() };
        let listening = |names: &[&str]| {
            let line = |name: &&str| format!("n: 2 0 00010000 0001 01 7 /{name}.sock\n");
            std::fs::create_dir_all(root.path().join("proc/net")).unwrap();
            std::fs::write(root.path().join("proc/net/unix"), names.iter().map(line).collect::<String>()).unwrap();
            names.iter().for_each(|name| std::fs::write(root.path().join(format!("{name}.sock")), "").unwrap());
        };
        let mut config = Config::load(&Flags::default()).unwrap();
        config.mysql.retain(|one| one.instance.is_none());
        let mut lookout = Lookout::default();
        let mut taken = Vec::new();
        for names in [&["mysql_a"][..], &["mysql_a"], &["mysql_b"], &["mysql_a", "mysql_c"], &["mysql_c"]] {
            listening(names);
            for server in lookout.look(&config, &around) {
                taken.push(server.instance.as_deref().unwrap().rsplit('/').next().unwrap().to_owned());
                config.mysql.push(server);
            }
        }
        assert_eq!(taken, ["mysql_a.sock", "mysql_c.sock"]);
    }
}
