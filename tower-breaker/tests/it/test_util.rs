//! The helpers for users' tests lead to the states, and create the values, that real calls lead to.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tower::{Layer, service_fn};
use tower_breaker::handle::CircuitRef;
use tower_breaker::keyed::{KeyedCircuits, KeyedConfig};
use tower_breaker::test_util;
use tower_breaker::{
    BreakerConfigBuilder, BreakerError, Circuit, CircuitState, Mode, Permit, Reason, Rejection, Verdict,
};

use crate::support::{FAILURE, OPEN_FOR, SECOND, call_once, circuit, config, layer, refused, send, timed};

/// Returns what a dashboard shows of a circuit, without how the circuit came into its state.
fn visible<R: CircuitRef>(circuit: &Circuit<R>) -> String {
    let mut status = circuit.status();
    status.consecutive_failures = 0;
    (status.last_transition, status.last_trip) = (None, None);
    (status.rejected_calls, status.rejected_since_transition) = (0, 0);
    (status.since_last_success, status.since_last_failure) = (None, None);
    format!("{status:?}")
}

/// Acquires all permits that the circuit grants now, at most ten.
fn acquire_all<R: CircuitRef>(circuit: &Circuit<R>) -> Vec<Permit<R>> {
    (0..10).map_while(|_| circuit.try_acquire().ok()).collect()
}

/// Opens a circuit by failures, and waits until it admits probes.
fn fail_and_wait(config: BreakerConfigBuilder) -> Circuit {
    let (circuit, time) = circuit(config);
    (0..5).for_each(|_| assert!(send(&circuit, FAILURE)));
    time.advance(OPEN_FOR);
    circuit
}

#[test]
fn half_open_equals_state_after_real_failures() {
    for running in 0..=3 {
        let real = fail_and_wait(config());
        let real_probes: Vec<_> = (0..running.max(1)).map(|_| real.try_acquire().unwrap()).collect();
        let real_probes = if running > 0 { real_probes } else { cancel_all(real_probes) };
        let (helped, _time) = circuit(config());
        let probes = test_util::half_open(&helped, running);

        assert_eq!(probes.len(), running as usize);
        assert_eq!(visible(&helped), visible(&real));
        let (real_rest, rest) = (acquire_all(&real), acquire_all(&helped));
        assert_eq!((real_rest.len(), rest.len()), (3 - running as usize, 3 - running as usize));

        // Two successes close both circuits.
        let end = |circuit: &Circuit, probes: Vec<Permit>| {
            probes.into_iter().take(2).for_each(|probe| probe.record(Verdict::Success));
            circuit.status().state
        };
        let real_end = end(&real, real_probes.into_iter().chain(real_rest).collect());
        assert_eq!(end(&helped, probes.into_iter().chain(rest).collect()), real_end);
        assert_eq!(real_end, CircuitState::Closed);
    }
}

fn cancel_all(permits: Vec<Permit>) -> Vec<Permit> {
    permits.into_iter().for_each(Permit::cancel);
    Vec::new()
}

#[test]
fn failed_probe_of_half_open_opens_for_open_time() {
    let (circuit, _time) = circuit(config());
    test_util::half_open(&circuit, 1).pop().unwrap().record(FAILURE);
    let status = circuit.status();
    assert_eq!((status.state, status.retry_after), (CircuitState::Open, Some(OPEN_FOR)));
    assert_eq!(status.last_trip.unwrap().reason, Reason::ProbeFailed);
}

/// Brings a circuit into every state from which a helper may start.
fn from_each_state<R: CircuitRef>(circuit: &Circuit<R>, check: impl Fn(&Circuit<R>)) {
    check(circuit);
    circuit.reset().unwrap();
    check(circuit);
    circuit.trip().unwrap();
    check(circuit);
    let _probe = circuit.try_acquire();
    check(circuit);
    circuit.force_open().unwrap();
    check(circuit);
    circuit.force_closed_for(SECOND).unwrap();
    check(circuit);
}

fn check_half_open<R: CircuitRef>(circuit: &Circuit<R>) {
    let probes = test_util::half_open(circuit, 3);
    assert!(acquire_all(circuit).is_empty());
    let half_open = circuit.status().half_open.unwrap();
    assert_eq!((half_open.running_probes, half_open.successes), (3, 0));
    probes.into_iter().next().unwrap().record(Verdict::Success);
}

#[test]
fn half_open_begins_a_new_round_from_each_state() {
    from_each_state(&circuit(config()).0, check_half_open);
    let (each, _time) = timed(config());
    let circuits = KeyedCircuits::new(KeyedConfig::builder(each).build().unwrap());
    from_each_state(&circuits.circuit(&7), check_half_open);
    assert_eq!(circuits.statuses()[0].state, CircuitState::HalfOpen);
}

#[test]
fn layer_of_half_open_circuit_rejects_while_probes_run() {
    let (layer, _time) = layer(config().probes(1).successes_to_close(1));
    let mut service = layer.layer(service_fn(async |()| Ok::<_, std::io::Error>(http::Response::new(()))));
    let probes = test_util::half_open(&layer.circuit(), 1);
    let Err(BreakerError::Rejected(rejection)) = call_once(&mut service, ()) else {
        panic!("the only slot is taken")
    };
    assert_eq!(rejection.state(), CircuitState::HalfOpen);
    cancel_all(probes);
    assert!(call_once(&mut service, ()).is_ok());
    assert_eq!(layer.circuit().status().state, CircuitState::Closed);
}

#[test]
fn slow_start_equals_state_after_real_probes() {
    for config in [config().slow_start(60 * SECOND), config().slow_start_successes(8)] {
        let real = fail_and_wait(config.clone());
        (0..2).for_each(|_| assert!(send(&real, Verdict::Success)));
        let (helped, _time) = circuit(config);
        test_util::slow_start(&helped);

        assert!(real.status().slow_start.is_some());
        assert_eq!(visible(&helped), visible(&real));
        let (real_admitted, admitted) = (acquire_all(&real), acquire_all(&helped));
        assert_eq!(admitted.len(), real_admitted.len());
        assert!(admitted.len() < 10, "a slow start admits some calls");
        assert_eq!(visible(&helped), visible(&real));
    }
}

#[test]
fn slow_start_begins_again_from_each_state() {
    let check = |circuit: &Circuit| {
        test_util::slow_start(circuit);
        assert_eq!(circuit.status().slow_start, Some(0.0));
    };
    let (circuit, _time) = circuit(config().slow_start(60 * SECOND));
    from_each_state(&circuit, check);
}

/// Returns the text of the panic of `run`.
fn panic_of<T>(run: impl FnOnce() -> T) -> String {
    let Err(panic) = catch_unwind(AssertUnwindSafe(run)) else { panic!("no panic") };
    *panic.downcast::<String>().unwrap()
}

#[test]
fn helpers_that_cannot_work_panic_with_reason() {
    let (plain, _time) = circuit(config().name("users"));
    assert_eq!(
        panic_of(|| test_util::half_open(&plain, 4)),
        "circuit breaker `users` has 3 probe slots, and 4 probes are to run"
    );
    assert_eq!(
        panic_of(|| test_util::slow_start(&plain)),
        "circuit breaker `users` has no slow start; configure one first"
    );
    let (disabled, _time) = circuit(config().name("users").mode(Mode::Disabled));
    let text = "circuit breaker `users` is disabled; configure another mode first";
    assert_eq!(panic_of(|| test_util::half_open(&disabled, 0)), text);
    assert_eq!(panic_of(|| test_util::slow_start(&disabled)), text);
}

#[test]
fn status_equals_that_of_circuit_in_same_state() {
    type Prepare = fn(&Circuit);
    let cases: [(CircuitState, Mode, Prepare); 6] = [
        (CircuitState::Closed, Mode::Enforce, |_| {}),
        (CircuitState::Open, Mode::Enforce, |circuit| circuit.trip().unwrap()),
        (CircuitState::HalfOpen, Mode::Enforce, |circuit| drop(test_util::half_open(circuit, 0))),
        (CircuitState::ForcedOpen, Mode::Enforce, |circuit| circuit.force_open().unwrap()),
        (CircuitState::ForcedClosed, Mode::Enforce, |circuit| circuit.force_closed().unwrap()),
        (CircuitState::Disabled, Mode::Disabled, |_| {}),
    ];
    for (state, mode, prepare) in cases {
        let (circuit, _time) = circuit(config().name("users").open_until_reset(true).mode(mode));
        prepare(&circuit);
        let mut status = test_util::status("users", state);
        assert_eq!(status.half_open.is_some(), state == CircuitState::HalfOpen);
        status.half_open = circuit.status().half_open;
        assert_eq!(format!("{status:?}"), visible(&circuit));
    }
}

#[test]
fn transition_equals_observed_one() {
    let (circuit, _time) = circuit(config().name("users"));
    let observed = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&observed);
    circuit.on_transition(move |transition| seen.lock().unwrap().push(transition.clone()));
    test_util::half_open(&circuit, 0);
    circuit.reset().unwrap();
    for (epoch, mut real) in (1..).zip(observed.lock().unwrap().drain(..)) {
        let mut made = test_util::transition("users", real.from, real.to, real.reason);
        made.epoch = epoch;
        assert_eq!(made.half_open.is_some(), real.half_open.is_some());
        made.half_open = real.half_open;
        assert_eq!(made.at, SystemTime::UNIX_EPOCH);
        real.at = made.at;
        assert_eq!(format!("{made:?}"), format!("{real:?}"));
    }
    assert_eq!(circuit.status().last_transition.unwrap().epoch, 3);
}

#[tokio::test]
async fn failure_and_last_failure_equal_recorded_ones() {
    let (circuit, _time) = circuit(config().name("users"));
    let observed = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&observed);
    circuit.on_failure(move |failure| *seen.lock().unwrap() = Some(failure.clone()));
    let calls = circuit.keep_last_failure("/users/7");
    calls.call(async { Err::<http::Response<()>, _>(refused()) }).await.unwrap_err();

    let mut real = observed.lock().unwrap().take().unwrap();
    let made = test_util::failure("users", real.fault);
    assert_eq!(made.at, SystemTime::UNIX_EPOCH);
    real.at = made.at;
    assert_eq!(format!("{made:?}"), format!("{real:?}"));

    let mut real = circuit.status().last_failure.unwrap();
    let made = test_util::last_failure(&refused(), "/users/7");
    assert_eq!(made.at, SystemTime::UNIX_EPOCH);
    real.at = made.at;
    assert_eq!(format!("{made:?}"), format!("{real:?}"));
}

#[test]
fn rejection_by_key_equals_that_of_keyed_circuit() {
    let (each, _time) = timed(config().name("tenants"));
    let circuits = KeyedCircuits::new(KeyedConfig::builder(each).build().unwrap());
    circuits.circuit("acme").trip_for(OPEN_FOR).unwrap();
    let real = circuits.try_acquire("acme").unwrap_err();
    let made = test_util::rejection_by_key("tenants", "acme", CircuitState::Open, Some(OPEN_FOR));
    let parts = |rejection: &Rejection| {
        (rejection.to_string(), rejection.key(), rejection.circuit(), rejection.state(), rejection.fault())
    };
    assert_eq!(parts(&made), parts(&real));
    assert_eq!(made.clone().key().as_deref(), Some("acme"));
}

#[tokio::test(start_paused = true)]
async fn clock_advances_timeouts_and_open_times_together() {
    let (clock, time) = test_util::clock();
    let circuit = Circuit::new(config().consecutive_failures(1).clock(clock).build().unwrap());
    let hanging = circuit.clone();
    let timeout = Duration::from_millis(1_500);
    let call = tokio::spawn(async move {
        hanging
            .call_within(timeout, std::future::pending::<Result<http::Response<()>, std::io::Error>>())
            .await
    });
    time.advance(timeout).await;
    assert!(call.is_finished());
    assert!(matches!(call.await.unwrap(), Err(BreakerError::TimedOut(_))));

    let status = circuit.status();
    assert_eq!((status.state, status.retry_after), (CircuitState::Open, Some(OPEN_FOR)));
    tokio::time::sleep(OPEN_FOR / 2).await;
    assert_eq!(circuit.status().retry_after, Some(OPEN_FOR / 2));
    time.advance(OPEN_FOR / 2).await;
    assert!(!circuit.status().rejects_calls());
}
