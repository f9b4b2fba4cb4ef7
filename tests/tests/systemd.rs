//! The units: well-formed, tight, and honest. The sandbox is re-created in a mount namespace from the unit's own lines; in it
//! the agent must report what it reports outside.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use lampad_tests::mariadb::Server;
use lampad_tests::servers::installed;
use lampad_tests::{Agent, Collector, PATIENCE, Process, Program, binary, fixture, free_port, needs, until_ok};
use tempfile::TempDir;

/// systemd's exposure, in tenths: the agent must leave open what it measures, the collector nothing but the network.
const EXPOSURE: [(&str, u32); 2] = [("lampad-agent", 24), ("lampad-collector", 12)];

/// A user with no rights, as the unit's own is.
const NOBODY: &str = "65534";

/// The unit with its program where this build has it.
fn unit_of(name: &str, directory: &Path) -> anyhow::Result<PathBuf> {
    let text = std::fs::read_to_string(fixture(&format!("systemd/{name}.service")))?;
    let installed = format!("/usr/local/bin/{name}");
    ensure!(text.contains(&installed), "the unit of {name} does not start {installed}");
    let unit = directory.join(format!("{name}.service"));
    std::fs::write(&unit, text.replace(&installed, &binary(name)?.display().to_string()))?;
    Ok(unit)
}

fn analyze(args: &[&str], unit: &Path) -> anyhow::Result<(bool, String)> {
    let program = installed("systemd-analyze").context("systemd-analyze")?;
    let output = Command::new(program).args(args).arg(unit).env("SYSTEMD_PAGER", "").output()?;
    Ok((output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()))
}

#[test]
fn the_units_are_well_formed_and_tight() -> anyhow::Result<()> {
    if !needs::program("systemd-analyze") {
        return Ok(());
    }
    let directory = TempDir::new()?;
    for (name, threshold) in EXPOSURE {
        let unit = unit_of(name, directory.path())?;
        let (fine, said) = analyze(&["verify", "--man=no"], &unit)?;
        // Only what is said of our unit: a container's own units may be half there.
        let ours: Vec<&str> = said.lines().filter(|line| line.contains(name)).collect();
        ensure!(fine && ours.is_empty(), "verify {name}: {said}");
        let threshold = threshold.to_string();
        let (fine, said) = analyze(&["security", "--offline=true", "--threshold", &threshold, "--no-pager"], &unit)?;
        ensure!(fine, "{name} is more exposed than {threshold} tenths:\n{said}");
    }
    Ok(())
}

#[test]
fn sysusers_makes_the_users_that_the_units_name() -> anyhow::Result<()> {
    if !needs::root() || !needs::program("systemd-sysusers") {
        return Ok(());
    }
    let root = TempDir::new()?;
    std::fs::create_dir(root.path().join("etc"))?;
    for (name, _) in EXPOSURE {
        let file = std::fs::canonicalize(fixture(&format!("systemd/sysusers.d/{name}.conf")))?;
        let sysusers = installed("systemd-sysusers").context("systemd-sysusers")?;
        let output = Command::new(sysusers).arg(format!("--root={}", root.path().display())).arg(file).output()?;
        ensure!(output.status.success(), "{output:?}");
        let users = std::fs::read_to_string(root.path().join("etc/passwd"))?;
        let user = settings(name)?["User"].join("");
        let line = users.lines().find(|line| line.starts_with(&format!("{user}:")));
        ensure!(line.is_some_and(|line| line.ends_with("/nologin")), "no user {user} without a shell in:\n{users}");
    }
    Ok(())
}

/// The settings of a unit's `[Service]`; of one that comes several times, all.
fn settings(name: &str) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let text = std::fs::read_to_string(fixture(&format!("systemd/{name}.service")))?;
    let service = text.split_once("[Service]").context("[Service]")?.1.split("[Install]").next().unwrap_or_default();
    let mut settings: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in service.lines().filter(|line| !line.starts_with('#')) {
        if let Some((key, value)) = line.split_once('=') {
            settings.entry(key.to_owned()).or_default().push(value.to_owned());
        }
    }
    Ok(settings)
}

/// What the unit's settings do to the mounts, as a shell script for a mount namespace of its own. See systemd.exec(5).
fn sandbox(settings: &BTreeMap<String, Vec<String>>, writable: &Path) -> anyhow::Result<String> {
    let is = |key: &str, value: &str| settings.get(key).is_some_and(|values| values.last().is_some_and(|v| v == value));
    let mut script = String::from("set -e\nmount --make-rprivate /\n");
    if is("PrivateTmp", "yes") {
        script += "mount -t tmpfs tmpfs /tmp\nmount -t tmpfs tmpfs /var/tmp\n";
    }
    if is("PrivateDevices", "yes") {
        script += "mkdir -p /run/lampad-test-dev; mount -t tmpfs -o mode=755 tmpfs /run/lampad-test-dev\n\
                   for n in null zero full random urandom tty; do : >/run/lampad-test-dev/$n; mount --bind /dev/$n /run/lampad-test-dev/$n; done\n\
                   mkdir /run/lampad-test-dev/shm; mount --bind /dev/shm /run/lampad-test-dev/shm\n\
                   mount --move /run/lampad-test-dev /dev\n";
    }
    script += &format!("mount --bind {0} {0}\n", writable.display());
    for (key, value, paths) in [
        ("ProtectHome", "yes", "/home /root /run/user"),
        ("ProtectHome", "tmpfs", "/home /root /run/user"),
        ("ProtectKernelModules", "yes", "/usr/lib/modules"),
    ] {
        if is(key, value) {
            script += &format!("for d in {paths}; do [ -d $d ] && mount -t tmpfs -o mode=000 tmpfs $d; done; :\n");
        }
    }
    let read_only = |paths: &str| {
        format!("for d in {paths}; do [ -d $d ] && mount --bind $d $d && mount -o remount,bind,ro $d; done; :\n")
    };
    if is("ProtectHome", "read-only") {
        script += &read_only("/home /root /run/user");
    }
    if is("ProtectKernelTunables", "yes") {
        script += &read_only("/proc/sys /sys");
    }
    match settings.get("ProtectSystem").and_then(|values| values.last()).map(String::as_str) {
        Some("strict") => {
            script += &format!(
                "awk '{{print $5}}' /proc/self/mountinfo | while read -r m; do case $m in /dev*|/proc*|/sys*|{}) ;; \
                 *) mount -o remount,bind,ro \"$m\" 2>/dev/null || : ;; esac; done\n",
                writable.display()
            );
        }
        Some("full") => script += &read_only("/usr /boot /etc"),
        Some("yes") => script += &read_only("/usr /boot"),
        _ => {}
    }
    for key in ["ProtectProc", "ProcSubset"] {
        ensure!(is(key, "default") || is(key, "all"), "this test cannot re-create {key}");
    }
    for key in ["PrivateNetwork", "PrivateUsers"] {
        ensure!(is(key, "no"), "this test cannot re-create {key}");
    }
    Ok(script)
}

/// The agent under the unit's mounts, user and rights.
fn in_sandbox(directory: &Path, collector: &str, args: &[&str]) -> anyhow::Result<Process> {
    let state = directory.join("state");
    std::fs::create_dir(&state)?;
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o777))?;
    // A build directory may be out of reach for an ordinary user; /usr/local/bin is not.
    let program = directory.join("lampad-agent");
    std::fs::copy(binary("lampad-agent")?, &program)?;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755))?;
    let mut script = sandbox(&settings("lampad-agent")?, &state)?;
    script += &format!(
        "exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs \
         {} --collector {collector} --state-dir {} --label instance=inside {}",
        program.display(),
        state.display(),
        args.join(" ")
    );
    Program::at("/usr/bin/unshare", directory.join("inside.log"))
        .args(["--mount", "sh", "-c", &script])
        .env("HOME", "/nonexistent")
        .start()
}

#[tokio::test]
async fn under_its_own_sandbox_the_agent_sees_what_it_sees_outside() -> anyhow::Result<()> {
    if !needs::root() || !needs::program("mariadbd") {
        return Ok(());
    }
    // In /tmp, where a server built from source has its socket, and where PrivateTmp would hide it.
    let server = Server::mariadb(&[]).await?;
    server.execute("create user lampad_nobody identified by 'pw'; grant process on *.* to lampad_nobody").await?;
    let collector = Collector::start().await?;
    let dsn = format!("mysql://lampad_nobody:pw@localhost/?socket={}", server.socket().display());
    let directory = TempDir::with_prefix_in("lampad-inside-", "/var/tmp")?;
    let _outside = Agent::start(&collector.grpc_url(), "outside", &[])?;
    let inside = in_sandbox(directory.path(), &collector.grpc_url(), &["--mysql", &format!("'{dsn}'")])?;
    let api = collector.api();
    let patience = || format!("the log ends:\n{}", inside.log_tail());
    until_ok("the database, from inside", PATIENCE, || async {
        ensure!(api.value("mysql_up{instance=\"inside\"}").await? == 1.0, "mysql_up is 0");
        Ok(())
    })
    .await
    .with_context(patience)?;
    for metric in ["node_filesystem_size_bytes", "node_filesystem_readonly", "node_filesystem_files"] {
        until_ok(metric, PATIENCE, || async {
            let (inside, outside) = (of(&api, metric, "inside").await?, of(&api, metric, "outside").await?);
            ensure!(!outside.is_empty() && inside == outside, "inside: {inside:#?}\noutside: {outside:#?}");
            Ok(())
        })
        .await
        .with_context(patience)?;
    }
    // All processes, not only its own.
    let processes = until_ok("processes", PATIENCE, || api.value("node_procs_running{instance=\"inside\"}")).await?;
    ensure!(processes >= 1.0, "{processes} processes run");
    for metric in ["node_boot_time_seconds", "node_memory_MemTotal_bytes"] {
        let (inside, outside) = (of(&api, metric, "inside").await?, of(&api, metric, "outside").await?);
        assert_eq!(inside, outside, "{metric}");
    }
    Ok(())
}

/// Labels, without the instance, and value of every series.
async fn of(api: &lampad_tests::Api, metric: &str, instance: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let found = api.instant(&format!("{metric}{{instance=\"{instance}\"}}"), None).await?;
    let text = |series: &lampad_tests::Series| {
        let mut labels = series.labels.clone();
        labels.remove("instance");
        format!("{labels:?}")
    };
    Ok(found.iter().map(|series| (text(series), format!("{:?}", series.samples.last().map(|s| s.value)))).collect())
}

/// Listens as systemd does for what a service says of itself.
struct Notify {
    socket: UnixDatagram,
    path: PathBuf,
    _directory: TempDir,
}

impl Notify {
    fn new() -> anyhow::Result<Self> {
        let directory = TempDir::with_prefix("lampad-notify-")?;
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, path, _directory: directory })
    }

    /// Waits for a message with this line.
    fn expect(&self, line: &str) -> anyhow::Result<()> {
        let mut buffer = [0; 4096];
        let start = std::time::Instant::now();
        while start.elapsed() < PATIENCE {
            let length = self.socket.recv(&mut buffer).with_context(|| format!("{line} was never said"))?;
            if String::from_utf8_lossy(&buffer[..length]).lines().any(|said| said == line) {
                return Ok(());
            }
        }
        anyhow::bail!("{line} was not said within {PATIENCE:?}")
    }
}

async fn notifies(program: Program) -> anyhow::Result<()> {
    let notify = Notify::new()?;
    // The id of the process that is to be watched is known to the shell that becomes it.
    let shell = ["-c", "WATCHDOG_PID=$$ exec \"$0\" \"$@\""].map(OsString::from);
    let program = program.env("NOTIFY_SOCKET", &notify.path).env("WATCHDOG_USEC", "2000000").under("/bin/sh", shell);
    let mut process = program.start()?;
    let tail = || process.log_tail();
    notify.expect("READY=1").with_context(tail)?;
    notify.expect("WATCHDOG=1").with_context(tail)?;
    notify.expect("WATCHDOG=1").with_context(tail)?;
    process.signal(lampad_tests::Signal::TERM)?;
    notify.expect("STOPPING=1").with_context(|| process.log_tail())?;
    let status = process.ended(Duration::from_secs(20)).await?;
    ensure!(status.success(), "{status}");
    Ok(())
}

#[tokio::test]
async fn the_collector_tells_systemd_that_it_is_ready_and_alive() -> anyhow::Result<()> {
    let directory = TempDir::new()?;
    let local = |port: u16| ([127, 0, 0, 1], port).into();
    let data = directory.path().join("data");
    notifies(Collector::program(&data, directory.path(), local(free_port()?), local(free_port()?))?).await
}

#[tokio::test]
async fn the_agent_tells_systemd_that_it_is_ready_and_alive() -> anyhow::Result<()> {
    let directory = TempDir::new()?;
    // With nobody to push to: a collector that is away is no reason to be killed by the watchdog.
    let nobody = format!("http://127.0.0.1:{}", free_port()?);
    notifies(Agent::program(&directory.path().join("state"), directory.path(), &nobody)?).await
}

/// The system calls that a unit's filter allows. A later line takes from, or adds to, what the lines before it gave.
fn allowed_calls(unit: &BTreeMap<String, Vec<String>>) -> anyhow::Result<BTreeSet<String>> {
    let sets = call_sets()?;
    // What every allow-list has besides, see SystemCallFilter= in systemd.exec(5).
    let mut allowed = expand("@default", &sets);
    for line in unit.get("SystemCallFilter").context("SystemCallFilter=")? {
        let (names, taken) = match line.strip_prefix('~') {
            Some(names) => (names, true),
            None => (line.as_str(), false),
        };
        for call in names.split_whitespace().flat_map(|name| expand(name, &sets)) {
            if taken {
                allowed.remove(&call);
            } else {
                allowed.insert(call);
            }
        }
    }
    Ok(allowed)
}

/// `systemd-analyze syscall-filter`: sets by name, with calls and other sets in them.
fn call_sets() -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let program = installed("systemd-analyze").context("systemd-analyze")?;
    let output = Command::new(program).args(["syscall-filter", "--no-pager"]).output()?;
    let mut sets: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut set = String::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if line.starts_with('@') {
            set = line.trim().to_owned();
        } else if line.starts_with(' ') && !line.trim_start().starts_with('#') {
            sets.entry(set.clone()).or_default().push(line.trim().to_owned());
        }
    }
    ensure!(sets.contains_key("@system-service"), "no sets in: {output:?}");
    Ok(sets)
}

fn expand(name: &str, sets: &BTreeMap<String, Vec<String>>) -> BTreeSet<String> {
    match sets.get(name) {
        Some(members) => members.iter().flat_map(|member| expand(member, sets)).collect(),
        None => [name.to_owned()].into(),
    }
}

/// Runs a program under strace until `work` is done; the calls that it made.
async fn calls_of(
    program: Program,
    directory: &Path,
    work: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<BTreeSet<String>> {
    let summary = directory.join("calls");
    let strace = installed("strace").context("strace")?;
    let options = ["-f", "-c", "-U", "name", "-o"].map(OsString::from);
    let process = program.under(strace, options.into_iter().chain([summary.clone().into()])).start()?;
    work().await.with_context(|| process.log_tail())?;
    let mut process = process;
    // strace hands the signal on only when it comes from the terminal, so its child is told.
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", process.id()))?;
    let child: i32 = children.trim().parse().with_context(|| format!("children of strace: {children:?}"))?;
    let child = rustix::process::Pid::from_raw(child).context("an id")?;
    rustix::process::kill_process(child, lampad_tests::Signal::TERM)?;
    process.ended(PATIENCE).await?;
    let names = std::fs::read_to_string(summary)?;
    // Beside the names strace draws lines, and remarks on a thread that ended while it let go: `7 ???( <detached ...>`.
    let is_name = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let names = names.lines().map(str::trim).filter(is_name);
    Ok(names.filter(|name| !["syscall", "total"].contains(name)).map(str::to_owned).collect())
}

#[tokio::test]
async fn neither_program_makes_a_system_call_that_its_unit_forbids() -> anyhow::Result<()> {
    if !needs::program("strace") || !needs::program("systemd-analyze") || !needs::program("mariadbd") {
        return Ok(());
    }
    let server = Server::mariadb(&[]).await?;
    let dsn = format!("mysql://root@localhost/?socket={}", server.socket().display());
    let directory = TempDir::new()?;
    let (http, grpc) = (free_port()?, free_port()?);
    let local = |port: u16| ([127, 0, 0, 1], port).into();
    let api = lampad_tests::Api::new(format!("http://127.0.0.1:{http}"));
    let collector = Collector::program(&directory.path().join("data"), directory.path(), local(http), local(grpc))?;
    let agent_directory = directory.path().join("agent");
    std::fs::create_dir(&agent_directory)?;
    let agent = Agent::program(&agent_directory.join("state"), &agent_directory, &format!("http://127.0.0.1:{grpc}"))?
        .args(["--mysql", &dsn]);
    let agent_calls = std::cell::RefCell::new(BTreeSet::new());
    let collector_calls = calls_of(collector, directory.path(), async || {
        let calls = calls_of(agent, &agent_directory, async || {
            for query in ["mysql_up == 1", "node_load1", "sum(node_filesystem_size_bytes)"] {
                until_ok(query, PATIENCE * 2, || api.value(query)).await?;
            }
            Ok(())
        });
        *agent_calls.borrow_mut() = calls.await?;
        Ok(())
    })
    .await?;
    for (name, made) in [("lampad-agent", agent_calls.into_inner()), ("lampad-collector", collector_calls)] {
        ensure!(made.contains("write") || made.contains("writev"), "strace saw nothing of {name}: {made:?}");
        let allowed = allowed_calls(&settings(name)?)?;
        let forbidden: Vec<_> = made.difference(&allowed).collect();
        ensure!(forbidden.is_empty(), "{name} calls what its unit forbids: {forbidden:?}");
    }
    Ok(())
}

/// A commented default file with its keys switched on.
fn uncommented(name: &str) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(fixture(&format!("systemd/{name}")))?;
    let line = |line: &str| match line.strip_prefix('#') {
        Some(key) if !key.starts_with(' ') && !key.starts_with("off:") => key.to_owned() + "\n",
        _ => line.to_owned() + "\n",
    };
    Ok(text.lines().map(line).collect())
}

#[tokio::test]
async fn both_programs_start_with_their_default_files() -> anyhow::Result<()> {
    let directory = TempDir::new()?;
    for name in ["collector.toml", "agent.toml"] {
        std::fs::write(directory.path().join(name), uncommented(name)?)?;
    }
    let config = directory.path().join("collector.toml").display().to_string();
    let collector = Collector::with(&["--config", &config]).await?;
    let config = directory.path().join("agent.toml").display().to_string();
    let _agent = Agent::start(&collector.grpc_url(), "db1", &["--config", &config])?;
    let api = collector.api();
    until_ok("samples", PATIENCE, || api.value("node_load1{instance=\"db1\"}")).await?;
    Ok(())
}
