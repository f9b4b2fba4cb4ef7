//! Where the programs under test are.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

/// The binary of this name: in `LAMPAD_BIN_DIR`, or beside the test that asks (`target/debug/deps/..` looks in
/// `target/debug`). Cargo builds the binaries of other packages only when told, so a missing one is named with the command.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let directory = match std::env::var_os("LAMPAD_BIN_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => beside_this_program()?,
    };
    let path = directory.join(name);
    ensure!(
        path.is_file(),
        "{} is not there; `cargo build --workspace --bins` builds it, or LAMPAD_BIN_DIR names where it is",
        path.display()
    );
    Ok(path)
}

fn beside_this_program() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("where is this test?")?;
    let directory = program.parent().context("this test has no directory")?;
    let up = if directory.ends_with("deps") { directory.parent().unwrap_or(directory) } else { directory };
    Ok(up.to_path_buf())
}

/// A path inside the repository, from its top.
pub fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
