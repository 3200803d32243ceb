use integration_tests::run_example;
use serde_json::Value;

#[test]
fn quickstart_figures_add_up_and_stack_sends_fewer_requests() {
    let output = run_example("quickstart", &["--json"]);
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    let figures: Value = serde_json::from_slice(&output.stdout).expect("the output is one JSON object");
    let sides: Vec<_> = figures.as_object().expect("the figures are an object").keys().collect();
    assert_eq!(sides, ["naive", "stack"]);

    for side in [&figures["naive"], &figures["stack"]] {
        let count = |name: &str| side[name].as_u64().unwrap_or_else(|| panic!("no {name} in {side}"));
        assert_eq!(count("offered"), count("answered") + count("failed") + count("rejected"), "{side}");
        let phases = side["reached_by_phase"].as_object().expect("the phases are an object");
        let reached_in_phases: u64 = phases.values().filter_map(Value::as_u64).sum();
        assert_eq!(phases.len(), 4, "{side}");
        assert_eq!(reached_in_phases, count("reached"), "{side}");
        assert_eq!(phases["outage"], side["reached_in_outage"], "{side}");
        // A request that timed out before its connection was made did not reach the server.
        assert!(count("reached") <= count("tries"), "{side}");
        assert!(count("answered") > 0, "{side}");
        assert!(count("reached_in_outage") > 0, "{side}");
    }

    assert_eq!(figures["naive"]["offered"], figures["stack"]["offered"], "both make the same calls");
    assert_eq!(figures["naive"]["rejected"], 0, "the naive client has no circuit");
    assert!(figures["stack"]["rejected"].as_u64() > Some(0), "the circuit did not open");
    let reached = |side: &str| figures[side]["reached_in_outage"].as_u64();
    assert!(reached("stack") < reached("naive"), "{figures}");
}

#[test]
fn quickstart_explains_its_settings_and_its_table() {
    let output = run_example("quickstart", &[]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    for row in [
        "its circuit stays open for 200ms instead of\n3s, and",
        "calls answered",
        "requests sent to the server during the outage",
        "latency p50",
        "latency p99",
        "time to first answer after the outage",
    ] {
        assert!(text.contains(row), "no {row:?} in {text}");
    }
    assert!(text.lines().last().is_some_and(|line| line.contains("README.md")), "{text}");
}

#[test]
fn quickstart_with_unknown_flag_prints_usage_and_fails() {
    let output = run_example("quickstart", &["--nonsense"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.lines().any(|line| line.starts_with("usage: ")), "{message}");
}

#[test]
fn quickstart_with_help_flag_prints_usage() {
    let output = run_example("quickstart", &["--help"]);
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    assert!(output.stdout.starts_with(b"usage: "), "{output:?}");
}
