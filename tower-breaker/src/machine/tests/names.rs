//! Names in metrics, logs and files.

use std::time::Duration;

use super::*;

#[test]
fn circuit_states_have_names_and_is_open() {
    for (state, name, open) in [
        (CircuitState::Closed, "closed", false),
        (CircuitState::Open, "open", true),
        (CircuitState::HalfOpen, "half_open", false),
        (CircuitState::ForcedOpen, "forced_open", true),
        (CircuitState::ForcedClosed, "forced_closed", false),
        (CircuitState::Disabled, "disabled", false),
    ] {
        assert_eq!((state.as_str(), state.is_open()), (name, open));
        assert_eq!(state.to_string(), name);
    }
}

#[test]
fn cancelled_policies_have_names_in_snake_case() {
    for (policy, name) in [
        (CancelledPolicy::IfNoneCompletes, "if_none_completes"),
        (CancelledPolicy::Ignore, "ignore"),
        (CancelledPolicy::Failure, "failure"),
        (CancelledPolicy::FailureAfter(Duration::from_secs(1)), "failure_after"),
    ] {
        assert_eq!(policy.as_str(), name);
        assert_eq!(policy.to_string(), name);
    }
}

#[test]
fn health_reports_have_names_in_snake_case() {
    for (report, name) in [(HealthReport::Critical, "critical"), (HealthReport::Recovered, "recovered")] {
        assert_eq!(report.as_str(), name);
        assert_eq!(report.to_string(), name);
    }
}

#[test]
fn transition_reasons_have_names_in_snake_case() {
    for (reason, name) in [
        (Reason::ConsecutiveFailures, "consecutive_failures"),
        (Reason::FailureRate, "failure_rate"),
        (Reason::SlowRate, "slow_rate"),
        (Reason::NoneCompletes, "none_completes"),
        (Reason::OpenTimeOver, "open_time_over"),
        (Reason::ProbeFailed, "probe_failed"),
        (Reason::ProbeSlow, "probe_slow"),
        (Reason::ProbesSucceeded, "probes_succeeded"),
        (Reason::Tripped, "tripped"),
        (Reason::ProbeRequested, "probe_requested"),
        (Reason::Forced, "forced"),
        (Reason::Released, "released"),
        (Reason::OverrideEnded, "override_ended"),
        (Reason::Reset, "reset"),
        (Reason::Reconfigured, "reconfigured"),
        (Reason::ReportedCritical, "reported_critical"),
        (Reason::ReportedRecovered, "reported_recovered"),
        (Reason::CommandedOpen, "commanded_open"),
        (Reason::CommandedProbe, "commanded_probe"),
        (Reason::CommandedClose, "commanded_close"),
        (Reason::Restored, "restored"),
    ] {
        assert_eq!(reason.as_str(), name);
        assert_eq!(reason.to_string(), name);
    }
}
