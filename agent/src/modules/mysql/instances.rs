//! Which servers are watched, and what their series are told apart by.
//!
//! Source: `[mysql]` for one server, `[[mysql.instance]]` or several `--mysql` for more.
//! Shape:  one server without a name keeps the agent's own `instance`. Others carry the name that they were given, or where
//!         they are: `HOST:PORT`, and `AGENT:PORT` or `AGENT:/PATH/OF/SOCKET` on the agent's own host, as the targets of one
//!         exporter each would be called.
//! Errors: a server that is neither named nor placed, a place that is not understood, two of one name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::discovery::{self, DiscoveryError, Surroundings};
use super::settings::{Extra, MysqlSettings, Secret};
use super::target::Address;
use crate::module::Spec;

/// More servers than this are no longer found by themselves: each costs connections and series.
const FOUND_MAX: usize = 16;

/// `[[mysql.instance]]`: what one of several servers has of its own; the rest is that of `[mysql]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Instance {
    /// Value of the label `instance`.
    pub name: Option<String>,
    pub server: Option<Secret>,
    pub socket: Option<PathBuf>,
    pub port: Option<u16>,
    pub option_file: Option<PathBuf>,
    pub extra: Option<Vec<Extra>>,
    /// Beside those of `[mysql.labels]`, and before them.
    pub labels: BTreeMap<String, String>,
}

/// One server, with all that holds for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// `None`: the agent's own.
    pub instance: Option<Arc<str>>,
    pub labels: Vec<(String, String)>,
    pub settings: MysqlSettings,
}

impl Watched {
    fn new(instance: Option<Arc<str>>, settings: MysqlSettings) -> Self {
        Self { instance, labels: settings.labels.clone().into_iter().collect(), settings }
    }

    /// Puts on a module what tells this server apart.
    pub fn mark(&self, spec: &mut Spec) {
        spec.instance.clone_from(&self.instance);
        spec.labels.clone_from(&self.labels);
    }
}

#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    #[error("[mysql] names a server, and there are instances besides; write each server as a [[mysql.instance]]")]
    Both,
    #[error("instance {number} has no name, and where it is cannot be told: {source}")]
    Place { number: usize, source: DiscoveryError },
    #[error(
        "instance {number} says neither where it is nor its name; give it a socket, port, server, option_file or name"
    )]
    Nowhere { number: usize },
    #[error(transparent)]
    Server(#[from] DiscoveryError),
    #[error("instance {number}: {source}")]
    Of { number: usize, source: DiscoveryError },
    #[error("two instances are {name}; give each a name of its own")]
    Twice { name: Arc<str> },
}

impl Instance {
    /// `DSN` or `NAME=DSN`, as `--mysql` takes it.
    pub fn from_flag(flag: &Secret) -> Self {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
        let (name, server) = match flag.reveal().split_once('=') {
            // Without a scheme or a path behind it the text may be a password, which never becomes a name.
            Some((name, server))
                if !name.is_empty()
                    && name.bytes().all(plain)
                    && (server.starts_with("mysql://") || server.starts_with('/')) =>
            {
                (Some(name.to_owned()), Secret::new(server))
            }
            _ => (None, flag.clone()),
        };
        Self { name, server: Some(server), ..Self::default() }
    }

    fn over(&self, common: &MysqlSettings) -> MysqlSettings {
        MysqlSettings {
            server: self.server.clone(),
            socket: self.socket.clone(),
            port: self.port,
            option_file: self.option_file.clone().or_else(|| common.option_file.clone()),
            extra: self.extra.clone().unwrap_or_else(|| common.extra.clone()),
            labels: common.labels.clone().into_iter().chain(self.labels.clone()).collect(),
            instances: Vec::new(),
            ..common.clone()
        }
    }
}

impl MysqlSettings {
    /// Puts the servers of the flags in the place of those of the file.
    pub fn replace(&mut self, flags: &[Secret]) {
        // An empty variable is one that is not set.
        let given: Vec<_> = flags.iter().filter(|flag| !flag.reveal().is_empty()).map(Instance::from_flag).collect();
        if !given.is_empty() {
            (self.server, self.socket, self.port) = (None, None, None);
            self.instances = given;
        }
    }

    /// The servers that these settings name, for an agent whose own `instance` is `own`.
    pub fn watched(&self, own: &str, around: &Surroundings) -> Result<Vec<Watched>, InstanceError> {
        if !self.enabled {
            return Ok(Vec::new());
        }
        if self.instances.is_empty() {
            discovery::check(self, around)?;
            let only = Watched::new(None, self.clone());
            return Ok(std::iter::once(only).chain(self.others(own, around)).collect());
        }
        if self.server.is_some() || self.socket.is_some() || self.port.is_some() {
            return Err(InstanceError::Both);
        }
        let mut names = BTreeSet::new();
        let mut watched = Vec::with_capacity(self.instances.len());
        for (at, one) in self.instances.iter().enumerate() {
            let settings = one.over(self);
            discovery::check(&settings, around).map_err(|source| InstanceError::Of { number: at + 1, source })?;
            let instance: Option<Arc<str>> = match &one.name {
                Some(name) => Some(name.as_str().into()),
                None if self.instances.len() == 1 => None,
                None => Some(place(&settings, own, around, at + 1)?.into()),
            };
            if let Some(name) = instance.iter().find(|name| !names.insert(Arc::clone(name))) {
                return Err(InstanceError::Twice { name: Arc::clone(name) });
            }
            watched.push(Watched::new(instance, settings));
        }
        Ok(watched)
    }
}

impl MysqlSettings {
    /// Servers that listen on sockets at unusual places of this host, where none was named: what somebody named is what is
    /// meant. The one at a usual place keeps the agent's own `instance`, whoever comes and goes beside it.
    pub fn others(&self, own: &str, around: &Surroundings) -> Vec<Watched> {
        let named = discovery::targets(self, around).map_or(true, |targets| targets.iter().any(|one| one.explicit));
        if named || !self.find_others || !self.instances.is_empty() {
            return Vec::new();
        }
        let watch = |socket: PathBuf| {
            let name = format!("{own}:{}", socket.display());
            Watched::new(Some(name.into()), Self { socket: Some(socket), found: true, ..self.clone() })
        };
        let mut others: Vec<_> = discovery::unusual(&around.root).into_iter().take(FOUND_MAX).map(watch).collect();
        others.sort_by(|a, b| a.instance.cmp(&b.instance));
        others
    }
}

/// What a server is called by where it is.
fn place(settings: &MysqlSettings, own: &str, around: &Surroundings, number: usize) -> Result<String, InstanceError> {
    let targets = discovery::targets(settings, around).map_err(|source| InstanceError::Place { number, source })?;
    let target = targets.iter().find(|target| target.explicit).ok_or(InstanceError::Nowhere { number })?;
    Ok(match &target.address {
        Address::Socket(path) => format!("{own}:{}", path.display()),
        Address::Tcp { host, port } if matches!(host.as_str(), "localhost" | "127.0.0.1" | "::1") => {
            format!("{own}:{port}")
        }
        other => other.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(settings: &str) -> Result<Vec<String>, String> {
        let around = Surroundings { user: "os".into(), root: "/nonexistent".into(), ..Surroundings::default() };
        let settings: MysqlSettings = toml::from_str(settings).unwrap();
        let watched = settings.watched("db1", &around).map_err(|error| error.to_string())?;
        Ok(watched.iter().map(|one| one.instance.as_deref().unwrap_or("(own)").to_owned()).collect())
    }

    #[test]
    fn servers_are_called_as_they_were_named_or_by_where_they_are() {
        for (settings, expected) in [
            ("", vec!["(own)"]),
            ("enabled = false", vec![]),
            ("server = 'mysql://u@h'", vec!["(own)"]),
            ("instance = [{ server = 'mysql://u@h' }]", vec!["(own)"]),
            ("instance = [{ name = 'x', port = 3307 }]", vec!["x"]),
            (
                "instance = [{ port = 3306 }, { socket = '/s' }, { server = 'mysql://u@h:1' }, { server = 'mysql://u@[::1]' , name = 'y' }]",
                vec!["db1:3306", "db1:/s", "h:1", "y"],
            ),
        ] {
            assert_eq!(names(settings).unwrap(), expected, "{settings}");
        }
    }

    #[test]
    fn servers_that_nobody_named_are_found_beside_the_usual_one() {
        let root = tempfile::tempdir().unwrap();
        let socket = root.path().canonicalize().unwrap().join("data/3307/mysql.sock");
        for (path, text) in [
            (&*socket, String::new()),
            (&root.path().join("proc/net/unix"), "n: 2 0 00010000 0001 01 7 /data/3307/mysql.sock\n".to_owned()),
            (&root.path().join(".my.cnf"), "[client]\nuser = a\n".to_owned()),
        ] {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let home = Some(root.path().into());
        let around = Surroundings { user: "os".into(), root: root.path().into(), home, ..Surroundings::default() };
        let watched = |text: &str| toml::from_str::<MysqlSettings>(text).unwrap().watched("db1", &around).unwrap();
        let both = watched("extra = ['heartbeat']\nlabels = { set = 's' }");
        let name = format!("db1:{}", socket.display());
        assert_eq!(both.iter().map(|one| one.instance.as_deref()).collect::<Vec<_>>(), [None, Some(&*name)]);
        assert_eq!((both[1].labels.len(), both[1].settings.extra.len()), (1, 1), "all that [mysql] says holds for it");
        let target = &discovery::targets(&both[1].settings, &around).unwrap()[0];
        assert_eq!(format!("{} as {}", target.address, target.user), format!("{} as a", socket.display()));
        for alone in ["find_others = false", "port = 3306", "server = '/s'", "instance = [{ port = 1 }]"] {
            assert_eq!(watched(alone).len(), 1, "{alone}");
        }
        std::fs::write(root.path().join(".my.cnf"), "[client]\nsocket = /s\n").unwrap();
        assert_eq!(watched("").len(), 1, "the option file names one");
        // A stranger's, by now: nobody is asked.
        let gone = MysqlSettings { socket: Some(root.path().join("none/mysql.sock")), ..both[1].settings.clone() };
        assert!(discovery::targets(&gone, &around).unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_told_apart_is_refused() {
        for (settings, expected) in [
            ("server = 'mysql://h'\ninstance = [{ port = 1 }]", "write each server as a [[mysql.instance]]"),
            ("instance = [{ port = 1 }, { port = 1 }]", "two instances are db1:1"),
            ("instance = [{ port = 1 }, {}]", "instance 2 says neither where it is nor its name"),
            ("instance = [{ port = 1 }, { server = 'u:geheim@h' }]", "instance 2: the configured"),
        ] {
            let error = names(settings).unwrap_err();
            assert!(error.contains(expected) && !error.contains("geheim"), "{settings}: {error}");
        }
    }

    #[test]
    fn an_instance_has_what_the_others_have_unless_it_says_otherwise() {
        let settings: MysqlSettings = toml::from_str(
            "extra = ['heartbeat']\nobjects_max = 7\noption_file = '/a'\nlabels = { set = 's', role = 'r' }\n\
             instance = [{ port = 1 }, { port = 2, extra = [], option_file = '/b', name = 'n', labels = { role = 'x' } }]",
        )
        .unwrap();
        let two: Vec<_> = settings.instances.iter().map(|one| one.over(&settings)).collect();
        let seen: Vec<_> = two.iter().map(|one| (one.port, one.extra.len(), one.objects_max)).collect();
        assert_eq!(seen, [(Some(1), 1, 7), (Some(2), 0, 7)]);
        let files: Vec<_> = two.iter().map(|one| one.option_file.clone().unwrap()).collect();
        assert_eq!(files, [PathBuf::from("/a"), "/b".into()]);
        let labels =
            |at: usize| two[at].labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
        assert_eq!(
            (labels(0), labels(1)),
            (vec!["role=r".into(), "set=s".into()], vec!["role=x".into(), "set=s".into()])
        );
    }

    #[test]
    fn a_flag_may_bear_a_name() {
        for (flag, name, server) in [
            ("mysql://u@h", None, "mysql://u@h"),
            ("a-1:3307=mysql://u:p=q@h", Some("a-1:3307"), "mysql://u:p=q@h"),
            ("b=/run/b.sock", Some("b"), "/run/b.sock"),
            ("/run/b.sock", None, "/run/b.sock"),
            ("mysql://u@localhost?socket=/s", None, "mysql://u@localhost?socket=/s"),
            ("u:geheim=x@h", None, "u:geheim=x@h"),
        ] {
            let one = Instance::from_flag(&Secret::new(flag));
            let told = (one.name.as_deref(), one.server.as_ref().map(Secret::reveal));
            assert_eq!(told, (name, Some(server)), "{flag}");
        }
    }
}
