//! Reference material of others, which lies beside the repository and is no part of it.

use std::path::{Path, PathBuf};

/// A file or folder of it. `LAMPAD_SHARED` says where the material is, else a folder `shared` above the workspace is used. Where there
/// is none this is said, and the tests that compare with our own data remain.
pub fn reference(part: &str) -> Option<PathBuf> {
    let named = std::env::var_os("LAMPAD_SHARED").map(PathBuf::from);
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("shared"));
    let found = named.into_iter().chain(above).map(|folder| folder.join(part)).find(|path| path.exists());
    if found.is_none() {
        eprintln!("skipped: no {part} in a folder beside the repository; LAMPAD_SHARED names the folder that has it");
    }
    found
}
