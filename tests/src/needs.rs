//! What a test needs of the machine, and what happens where it is not there.

/// Whether a test can go on. Where a need is not met the test says so and passes, so that `cargo test` works on any
/// machine; under tests/run.sh, which provides everything, it fails instead. What only root can have is left out by
/// tests/run.sh for an ordinary user, who is told so.
pub fn met(what: &str, met: bool) -> bool {
    let complete = std::env::var_os("LAMPAD_TESTS_COMPLETE").is_some();
    assert!(met || !complete, "this test needs {what}, and tests/run.sh should have seen to it");
    if !met {
        eprintln!("skipped: needs {what}; tests/run.sh provides what can be provided");
    }
    met
}

/// Root's rights, with which mounts and users can be changed.
pub fn root() -> bool {
    if std::env::var_os("LAMPAD_TESTS_WITHOUT_ROOT").is_some() {
        eprintln!("skipped: needs root's rights, and tests/run.sh was run without");
        return false;
    }
    met("root's rights", rustix::process::geteuid().is_root())
}

/// A program of a package that tests/run.sh installs.
pub fn program(name: &str) -> bool {
    met(name, crate::servers::installed(name).is_some())
}
