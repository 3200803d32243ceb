use integration_tests::run_example;
use serde_json::Value;

#[test]
fn quickstart_figures_add_up_and_stack_sends_fewer_requests() {
    let output = run_example("quickstart", &["--json"]);
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    let figures: Value = serde_json::from_slice(&output.stdout).expect("it prints one JSON object");
    let sides: Vec<_> = figures.as_object().expect("it is an object").keys().collect();
    assert_eq!(sides, ["naive", "stack"]);

    for side in [&figures["naive"], &figures["stack"]] {
        let count = |figure: &str| side[figure].as_u64().unwrap_or_else(|| panic!("no {figure} in {side}"));
        assert_eq!(count("offered"), count("answered") + count("failed") + count("rejected"), "{side}");
        let phases = side["reached_by_phase"].as_object().expect("it is an object");
        let by_phase: u64 = phases.values().filter_map(Value::as_u64).sum();
        assert_eq!((phases.len(), by_phase), (4, count("reached")), "{side}");
        assert_eq!(phases["outage"], side["reached_in_outage"], "{side}");
        // A try that timed out before it had a connection reached nobody.
        assert!(count("reached") <= count("tries"), "{side}");
        assert!(count("answered") > 0 && count("reached_in_outage") > 0, "{side}");
    }

    assert_eq!(figures["naive"]["offered"], figures["stack"]["offered"], "the load is the same");
    assert_eq!(figures["naive"]["rejected"], 0, "nobody is there to reject");
    assert!(figures["stack"]["rejected"].as_u64() > Some(0), "the circuit was never open");
    let reached = |side: &str| figures[side]["reached_in_outage"].as_u64();
    assert!(reached("stack") < reached("naive"), "{figures}");
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
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert!(output.stdout.starts_with(b"usage: "), "{output:?}");
}
