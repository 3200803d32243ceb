//! What a health checker says.

use super::*;

#[test]
fn a_critical_report_opens_a_circuit_that_lets_calls_through_and_it_recovers_as_usual() {
    let (circuit, hand) = circuit(config());
    circuit.report(HealthReport::Critical);
    let opened = circuit.status().last_trip.unwrap();
    let told = (opened.from, opened.to, opened.reason, opened.fault);
    assert_eq!(told, (CircuitState::Closed, CircuitState::Open, Reason::ReportedCritical, None));
    assert_eq!(circuit.status().retry_after, Some(OPEN_FOR));
    hand.advance(OPEN_FOR);
    let probe = circuit.try_acquire().unwrap();
    circuit.report(HealthReport::Critical);
    assert_eq!((state(&circuit), circuit.status().retry_after), (CircuitState::Open, Some(OPEN_FOR)));
    probe.settle(Verdict::Success);
    hand.advance(OPEN_FOR);
    send(&circuit, 2, Verdict::Success);
    assert_eq!(state(&circuit), CircuitState::Closed);
}

#[test]
fn saying_that_it_is_down_again_never_extends_the_open_time() {
    let (circuit, hand) = circuit(config());
    let mut transitions = circuit.transitions();
    send(&circuit, 5, FAILURE);
    for second in 0..30 {
        circuit.report(HealthReport::Critical);
        assert_eq!(circuit.status().retry_after, Some(OPEN_FOR.checked_sub(second * SECOND).unwrap()));
        hand.advance(SECOND);
    }
    send(&circuit, 2, Verdict::Success);
    assert_eq!(state(&circuit), CircuitState::Closed);
    assert_eq!(steps(&heard(&mut transitions)), [OPENS, HALF_OPENS, CLOSES]);
}

#[test]
fn a_recovered_server_is_probed_at_once_and_a_circuit_that_is_not_open_stays_as_it_is() {
    let reasons = [config(), config().open_until_reset(), config().open_backoff(10.0, 1_000 * OPEN_FOR)];
    for config in reasons {
        let (circuit, _hand) = circuit(config);
        send(&circuit, 4, FAILURE);
        circuit.report(HealthReport::Recovered);
        assert_eq!(circuit.status().consecutive_failures, 4);
        assert!(circuit.status().last_transition.is_none());
        send(&circuit, 1, FAILURE);
        circuit.report(HealthReport::Recovered);
        let probes: Vec<_> = (0..10).filter_map(|_| circuit.try_acquire().ok()).collect();
        assert_eq!((probes.len(), state(&circuit)), (3, CircuitState::HalfOpen));
        let epoch = circuit.status().last_transition.unwrap().epoch;
        circuit.report(HealthReport::Recovered);
        let last = circuit.status().last_transition.unwrap();
        assert_eq!(
            (last.epoch, last.reason),
            (epoch, Reason::ReportedRecovered),
            "half-open, nothing is new"
        );
        assert!(circuit.try_acquire().is_err(), "nor are there more places");
        probes.into_iter().take(2).for_each(|probe| probe.settle(Verdict::Success));
        assert_eq!(state(&circuit), CircuitState::Closed);
    }
}

#[test]
fn a_reader_or_a_call_that_waits_hears_of_a_report_as_of_any_change() {
    let (circuit, _hand) = circuit(config());
    let mut transitions = task::spawn(circuit.transitions());
    assert_pending!(transitions.poll_next());
    circuit.report(HealthReport::Critical);
    assert!(transitions.is_woken());
    let told = assert_ready!(transitions.poll_next()).unwrap().unwrap();
    assert_eq!((told.to, told.reason), (CircuitState::Open, Reason::ReportedCritical));
    circuit.report(HealthReport::Recovered);
    let told = assert_ready!(transitions.poll_next()).unwrap().unwrap();
    assert_eq!((told.to, told.reason), (CircuitState::HalfOpen, Reason::ReportedRecovered));
}

#[test]
fn a_report_changes_nothing_that_a_hand_has_forced_or_the_configuration_has_disabled() {
    type Force = fn(&Circuit);
    let forces: [(CircuitState, Mode, Force); 3] = [
        (CircuitState::ForcedOpen, Mode::Enforce, |circuit| circuit.force_open().unwrap()),
        (CircuitState::ForcedClosed, Mode::Enforce, |circuit| circuit.force_closed().unwrap()),
        (CircuitState::Disabled, Mode::Disabled, |_| {}),
    ];
    for (forced, mode, force) in forces {
        let (circuit, _hand) = circuit(config().mode(mode));
        force(&circuit);
        let mut transitions = circuit.transitions();
        for report in [HealthReport::Critical, HealthReport::Recovered, HealthReport::Critical] {
            circuit.report(report);
            assert_eq!(state(&circuit), forced);
            assert_eq!(circuit.try_acquire().is_err(), forced == CircuitState::ForcedOpen);
        }
        assert!(heard(&mut transitions).is_empty());
        circuit.release();
        let released = match forced {
            CircuitState::ForcedOpen => CircuitState::HalfOpen,
            CircuitState::ForcedClosed => CircuitState::Closed,
            other => other,
        };
        assert_eq!(state(&circuit), released, "nor is it remembered");
    }
}
