//! PromQL by scripts: ours in tests/promql, all of which pass; and Prometheus' own where the conformance kit lies beside the
//! repository or LAMPAD_SHARED names it, of which the count is printed.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod promql_support {
    pub mod histogram;
    pub mod memory;
    pub mod nhcb;
    pub mod script;
}

use std::path::{Path, PathBuf};

use promql_support::script::{Case, Verdict, run};

fn scripts(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "test"));
    files.sort();
    files
}

fn run_file(path: &Path) -> Vec<Case> {
    run(&std::fs::read_to_string(path).unwrap())
}

#[test]
fn own_scripts_pass() {
    let files = scripts(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/promql"));
    assert!(!files.is_empty(), "tests/promql has no scripts");
    let mut failures = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        for case in run_file(&file) {
            if case.verdict != Verdict::Passed {
                failures.push(format!("{name}:{}: {}: {:?}", case.line, case.query, case.verdict));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Prints what passes of Prometheus' scripts; fails only when fewer pass than when this was last written down.
#[test]
fn conformance_does_not_shrink() {
    const PASSED: usize = 1_011;
    let shared = std::env::var_os("LAMPAD_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"), PathBuf::from);
    let files = scripts(&shared.join("conformance/promqltest"));
    if files.is_empty() {
        println!("skipped: no conformance scripts at {}", shared.display());
        return;
    }
    let (mut passed, mut all) = (0, 0);
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        for case in run_file(&file) {
            all += 1;
            match case.verdict {
                Verdict::Passed => passed += 1,
                other => println!("{name}:{}: {}: {other:?}", case.line, case.query),
            }
        }
    }
    println!("passed {passed} of {all}");
    assert!(passed >= PASSED, "passed {passed} of {all}, {PASSED} before");
}
