//! Reports of a health checker.

use super::*;

#[test]
fn critical_report_opens_and_circuit_recovers() {
    let (circuit, time) = circuit(config());
    circuit.report(HealthReport::Critical);
    let opened = circuit.status().last_trip.unwrap();
    let fields = (opened.from, opened.to, opened.reason, opened.fault);
    assert_eq!(fields, (CircuitState::Closed, CircuitState::Open, Reason::ReportedCritical, None));
    assert_eq!(circuit.status().retry_after, Some(OPEN_FOR));
    time.advance(OPEN_FOR);
    let probe = circuit.try_acquire().unwrap();
    circuit.report(HealthReport::Critical);
    assert_eq!((state(&circuit), circuit.status().retry_after), (CircuitState::Open, Some(OPEN_FOR)));
    probe.record(Verdict::Success);
    time.advance(OPEN_FOR);
    send(&circuit, 2, Verdict::Success);
    assert_eq!(state(&circuit), CircuitState::Closed);
}

#[test]
fn repeated_critical_report_does_not_extend_open_time() {
    let (circuit, time) = circuit(config());
    let mut transitions = circuit.transitions();
    send(&circuit, 5, FAILURE);
    for second in 0..30 {
        circuit.report(HealthReport::Critical);
        assert_eq!(circuit.status().retry_after, Some(OPEN_FOR.checked_sub(second * SECOND).unwrap()));
        time.advance(SECOND);
    }
    send(&circuit, 2, Verdict::Success);
    assert_eq!(state(&circuit), CircuitState::Closed);
    assert_eq!(steps(&read_all(&mut transitions)), [OPENS, HALF_OPENS, CLOSES]);
}

#[test]
fn recovered_report_starts_probes_only_if_open() {
    let reasons = [config(), config().open_until_reset(true), config().open_backoff(10.0, 1_000 * OPEN_FOR)];
    for config in reasons {
        let (circuit, _time) = circuit(config);
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
            "a half-open circuit does not change"
        );
        assert!(circuit.try_acquire().is_err(), "it gets no more slots");
        probes.into_iter().take(2).for_each(|probe| probe.record(Verdict::Success));
        assert_eq!(state(&circuit), CircuitState::Closed);
    }
}

#[test]
fn report_wakes_stream_reader() {
    let (circuit, _time) = circuit(config());
    let mut transitions = task::spawn(circuit.transitions());
    assert_pending!(transitions.poll_next());
    circuit.report(HealthReport::Critical);
    assert!(transitions.is_woken());
    let transition = assert_ready!(transitions.poll_next()).unwrap().unwrap();
    assert_eq!((transition.to, transition.reason), (CircuitState::Open, Reason::ReportedCritical));
    circuit.report(HealthReport::Recovered);
    let transition = assert_ready!(transitions.poll_next()).unwrap().unwrap();
    assert_eq!((transition.to, transition.reason), (CircuitState::HalfOpen, Reason::ReportedRecovered));
}

#[test]
fn report_does_not_change_forced_or_disabled_circuit() {
    type Force = fn(&Circuit);
    let forces: [(CircuitState, Mode, Force); 3] = [
        (CircuitState::ForcedOpen, Mode::Enforce, |circuit| circuit.force_open().unwrap()),
        (CircuitState::ForcedClosed, Mode::Enforce, |circuit| circuit.force_closed().unwrap()),
        (CircuitState::Disabled, Mode::Disabled, |_| {}),
    ];
    for (forced, mode, force) in forces {
        let (circuit, _time) = circuit(config().mode(mode));
        force(&circuit);
        let mut transitions = circuit.transitions();
        for report in [HealthReport::Critical, HealthReport::Recovered, HealthReport::Critical] {
            circuit.report(report);
            assert_eq!(state(&circuit), forced);
            assert_eq!(circuit.try_acquire().is_err(), forced == CircuitState::ForcedOpen);
        }
        assert!(read_all(&mut transitions).is_empty());
        circuit.release();
        let released = match forced {
            CircuitState::ForcedOpen => CircuitState::HalfOpen,
            CircuitState::ForcedClosed => CircuitState::Closed,
            other => other,
        };
        assert_eq!(state(&circuit), released, "the reports have no later effect");
    }
}
