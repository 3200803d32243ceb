//! Quick runs of the benchmark of fleets, with few processes and without targets for times.

use std::process::{Command, Stdio};

/// Runs one case with a store, and asserts that all its targets are met.
#[track_caller]
fn assert_case_passes(case: &str, store: &str) {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_fleet_bench"));
    bench.args(["--quick", "--case", case, "--store", store]).stdin(Stdio::null());
    let output = bench.output().unwrap();
    let (table, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{table}{errors}");
    // A case without a row would pass as well.
    assert!(table.contains("| pass |"), "{table}{errors}");
}

#[test]
fn outage_opens_all_circuits_and_limits_probes() {
    assert_case_passes("outage", "redis");
}

#[test]
fn store_failures_delay_no_call() {
    assert_case_passes("store-failures", "redis");
}

#[test]
fn restart_keeps_circuits_open() {
    assert_case_passes("restart", "redis");
}
