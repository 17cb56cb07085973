//! Every suite of `bench/run` once and small, with debug builds, so that none can rot. Starts a lab
//! of its own unless `RUSTBALANCE_LAB_DIR` names one.

use std::path::Path;
use std::process::Command;

#[test]
fn every_suite_runs_and_no_round_is_void() {
    let suite = Path::new(env!("CARGO_BIN_EXE_suite"));
    // Of another package: built by whatever built the whole workspace.
    let rustbalance = suite.with_file_name("rustbalance");
    assert!(rustbalance.exists(), "{}: build the workspace first", rustbalance.display());
    let out = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let status = Command::new(suite)
        .args(["--smoke", "--out"])
        .arg(out.path().join("run"))
        .arg("--rustbalance")
        .arg(&rustbalance)
        .status()
        .expect("the suite starts");
    assert!(status.success(), "the suite ended with {status}");
    for file in ["README.md", "raw.jsonl"] {
        assert!(out.path().join("run").join(file).exists(), "no {file} in the run's directory");
    }
}
