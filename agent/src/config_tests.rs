use super::*;
use crate::module::Tier;

fn load(flags: Flags, file: &str) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.toml");
    std::fs::write(&path, file).unwrap();
    Config::load(&Flags { config: Some(path), ..flags })
}

fn refused(file: &str) -> String {
    load(Flags::default(), file).unwrap_err().to_string()
}

#[test]
fn flags_go_before_the_file() {
    let flags = Flags {
        collector: Some("http://a:1".to_owned()),
        labels: vec!["env=test".to_owned(), "note=a, b".to_owned()],
        instance: Some("db7".to_owned()),
        ..Flags::default()
    };
    let config =
        load(flags, "collector = \"http://b:2\"\nlabels = { env = \"prod\", dc = \"x\", instance = \"y\" }").unwrap();
    assert_eq!(config.target.collector, "http://a:1");
    let labels: Vec<_> = config.labels.iter().map(|label| format!("{}={}", label.name, label.value)).collect();
    assert_eq!(labels, ["dc=x", "env=test", "instance=db7", "note=a, b"]);
}

#[test]
fn modules_are_set_one_by_one() {
    let config = load(
        Flags::default(),
        "[module.\"host.cpu\"]\ninterval = \"100ms\"\n[module.\"host.disk\"]\nenabled = false\n",
    )
    .unwrap();
    let spec = |name| Spec::new(name, "", "node", Tier::Standard);
    let cpu = config.schedule(&spec("host.cpu")).unwrap();
    assert_eq!((cpu.interval, cpu.deadline), (Duration::from_millis(100), Duration::from_secs(1)));
    assert_eq!(config.schedule(&spec("host.disk")), None);
    assert_eq!(config.schedule(&spec("host.other")), Some(Schedule::of(Tier::Standard)));
    assert!(config.check_modules(["host.cpu", "host.disk"].into_iter()).is_ok());
    let error = config.check_modules(["host.cpu"].into_iter()).unwrap_err().to_string();
    assert!(error.contains("host.disk") && error.contains("there are: host.cpu"), "{error}");
}

/// The sampler gave up after a second what a statement may take two for.
#[test]
fn a_module_bears_with_a_statement_as_long_as_it_may_run() {
    let config = load(Flags::default(), "[mysql]\nstatement_deadline = \"3s\"\n").unwrap();
    let spec = |name| Spec::new(name, "", "mysql", Tier::Vital);
    assert!(config.schedule(&spec("mysql.vital")).unwrap().deadline > Duration::from_secs(3));
    assert_eq!(config.schedule(&spec("host.stat")).unwrap().deadline, Duration::from_secs(1));
    assert!(refused("[mysql]\nstatement_deadline = \"0s\"\n").contains("statement_deadline"));
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let error = refused("collector = \"http://a:1\"\n\nintervall = 3\n");
    assert!(error.contains("agent.toml:3:") && error.contains("`intervall`"), "{error}");
    let error = refused("[module.\"host.cpu\"]\nintervall = \"1s\"\n");
    assert!(error.contains("agent.toml:2:") && error.contains("`intervall`"), "{error}");
}

#[test]
fn bad_values_are_named_with_the_way_out() {
    for (file, wanted) in [
        ("collector = \"a:1\"", "write http://HOST:PORT"),
        ("collector = \"http://a\"", "has no port"),
        ("[mysql.labels]\njob = \"x\"", "set by Lampad itself"),
        ("[mysql.labels]\ninstance = \"x\"", "write it there"),
        ("[[mysql.instance]]\nport = 1\nlabels = { \"a-b\" = \"x\" }", "is not a label's name"),
        ("collector = \"http://a:70000\"", "http://a:70000\" has a port that is not within 1 and 65535"),
        ("collector = \"http://a\"", "agent.toml: collector: "),
        ("log_level = \"nonsense\"", "agent.toml: log_level: \"nonsense\" is no level; write error"),
        ("[mysql]\nserver = \"nonsense\"", "agent.toml: [mysql]: the configured MySQL server is not understood"),
        ("[[mysql.instance]]\nname = \"a\"\nserver = \"nonsense\"", "mysql://user"),
        ("collector = \"http://a:1\"\ntls_ca = \"ca.pem\"", "write https://"),
        ("tls_cert = \"c.pem\"", "give both or none"),
        ("labels = { \"a-b\" = \"1\" }", "a-b"),
        ("labels = { job = \"x\" }", "set by Lampad itself"),
        ("spool_bytes = 1000", "below the least"),
        ("[module.\"host.cpu\"]\ninterval = \"1ms\"", "not within 50ms"),
    ] {
        let error = refused(file);
        assert!(error.contains(wanted), "{file:?}: {error}");
    }
}

#[test]
fn a_value_is_blamed_on_whoever_gave_it() {
    let flags = Flags { spool_bytes: Some(1), ..Flags::default() };
    let error = load(flags, "spool_bytes = 1073741824").unwrap_err().to_string();
    assert!(error.starts_with("--spool-bytes: 1 is below"), "{error}");
    let error = refused("spool_bytes = 1");
    assert!(error.contains("agent.toml: spool_bytes: 1 is below"), "{error}");
}

/// A label from a script that went wrong was printed as a whole.
#[test]
fn a_refused_label_is_shown_by_its_beginning() {
    for label in [format!("a-{}=x", "b".repeat(10_000)), "x".repeat(10_000)] {
        let error = parse_label(&label).unwrap_err();
        assert!(error.len() < 200, "{} bytes", error.len());
    }
}

/// Each key that the default file shows, and the file as a whole, says what holds without it.
#[test]
fn the_default_file_says_what_holds_without_it() {
    let written = include_str!("../../systemd/agent.toml");
    let line = |line: &str| match line.strip_prefix('#') {
        Some(key) if !key.starts_with(' ') && !key.starts_with("off:") => key.to_owned() + "\n",
        _ => line.to_owned() + "\n",
    };
    let shown: String = written.lines().map(line).collect();
    let all = |config: Config| {
        let Config { target, labels, spool_bytes, log_format, log_level, modules, host, mysql, .. } = config;
        format!("{target:#?}{labels:#?}{spool_bytes}{log_format:?}{log_level}{modules:#?}{host:#?}{mysql:#?}")
    };
    assert_eq!(all(load(Flags::default(), &shown).unwrap()), all(load(Flags::default(), "").unwrap()));
    for argument in <Flags as clap::Args>::augment_args(clap::Command::new("x")).get_arguments() {
        let key = match argument.get_id().as_str() {
            "config" => continue,
            "mysql" => "server",
            key => key,
        };
        let is_shown =
            |line: &str| line.trim_start_matches("#off: ").trim_start_matches('#').starts_with(&format!("{key} ="));
        assert!(written.lines().any(is_shown), "{key} is not shown");
    }
}

#[test]
fn the_kernels_trees_are_placed_by_flag_and_file() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_path_buf();
    let flags = Flags { path_procfs: Some(root.clone()), path_udev_data: Some("/no/udev".into()), ..Flags::default() };
    let config = load(flags, &format!("[host]\npath_procfs = \"/no\"\npath_rootfs = {root:?}")).unwrap();
    assert_eq!((&config.host.path_procfs, &config.host.path_rootfs), (&root, &root));
    assert_eq!(config.host.path_udev_data, PathBuf::from("/no/udev"));
    let error = refused("[host]\npath_sysfs = \"/no/such/tree\"");
    assert!(error.contains("path_sysfs: /no/such/tree is no directory"), "{error}");
}
