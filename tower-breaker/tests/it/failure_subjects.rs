//! The subject of the last failure, and how long a circuit keeps it.

use std::fmt;
use std::future::{Ready, ready};
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;
use tower::{Layer, Service, service_fn};
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedCircuit, KeyedConfig};
use tower_breaker::{Circuit, CircuitState, Kind, Mode, Permit, Verdict};

use crate::support::{FAULT, NEUTRAL, OPEN_FOR, call_once, circuit, config, layer, refused, timed};

/// Returns a service that refuses odd requests.
fn refuses_odd()
-> impl Service<u32, Response = u32, Error = io::Error, Future = Ready<io::Result<u32>>> + Clone {
    service_fn(|request: u32| {
        ready(if request.is_multiple_of(2) { Ok(request) } else { Err(io::Error::other("odd")) })
    })
}

/// Returns the subject of the last failure.
fn subject(circuit: &Circuit) -> Option<String> {
    circuit.status().last_failure.map(|last| last.subject)
}

fn keyed_subject(circuit: &KeyedCircuit<u32>) -> Option<String> {
    circuit.status().last_failure.map(|last| last.subject)
}

#[test]
fn subject_is_made_from_failed_request() {
    let (layer, _time) = layer(config());
    let circuit = layer.circuit();
    let layer = layer.errors_only().keep_last_failure_by(|request: &u32| format!("order {request}"));
    let mut service = layer.layer(refuses_odd());
    for (request, expected) in [(2, None), (3, Some("order 3")), (4, Some("order 3")), (5, Some("order 5"))] {
        let _ = call_once(&mut service, request);
        assert_eq!(subject(&circuit).as_deref(), expected, "{request}");
    }
    let last = circuit.status().last_failure.unwrap();
    assert_eq!((last.fault.kind(), &*last.message), (Kind::Unknown, "odd"));
    circuit.trip().unwrap();
    let tripped_at = circuit.status().last_trip.unwrap().at;
    let distance = tripped_at.duration_since(last.at).unwrap_or_else(|error| error.duration());
    assert!(distance < Duration::from_secs(60), "{distance:?}");
}

/// A subject that counts how often its text is made.
struct CountedSubject(Arc<AtomicUsize>);

impl fmt::Display for CountedSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fetch_add(1, Ordering::Relaxed);
        f.write_str("counted")
    }
}

#[test]
fn subject_text_is_made_only_for_failure() {
    let (layer, _time) = layer(config());
    let texts = Arc::new(AtomicUsize::new(0));
    let layer = layer.errors_only().keep_last_failure_by(|_: &u32| CountedSubject(Arc::clone(&texts)));
    let mut service = layer.layer(refuses_odd());
    for (request, expected) in [(2, 0), (3, 1), (4, 1), (5, 2)] {
        let _ = call_once(&mut service, request);
        assert_eq!(texts.load(Ordering::Relaxed), expected, "{request}");
    }
}

#[test]
fn subject_closure_is_not_called_for_rejected_call() {
    let (layer, _time) = layer(config());
    let circuit = layer.circuit();
    let calls = Arc::new(AtomicUsize::new(0));
    let layer = layer.errors_only().keep_last_failure_by(|request: &u32| {
        calls.fetch_add(1, Ordering::Relaxed);
        *request
    });
    let mut service = layer.layer(refuses_odd());
    call_once(&mut service, 2).unwrap();
    circuit.force_open().unwrap();
    call_once(&mut service, 3).unwrap_err();
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[test]
fn panic_of_subject_closure_counts_as_cancelled_call() {
    let (layer, _time) = layer(config());
    let circuit = layer.circuit();
    let panics = |_: &u32| -> &'static str { panic!("no subject") };
    let mut service = layer.errors_only().keep_last_failure_by(panics).layer(refuses_odd());
    let call = std::panic::AssertUnwindSafe(|| call_once(&mut service, 1));
    std::panic::catch_unwind(call).unwrap_err();
    let window = circuit.status().window;
    assert_eq!((window.calls, window.cancelled), (0, 1));
}

/// A service that is never ready, because it fails.
#[derive(Clone)]
struct Unready;

impl Service<u32> for Unready {
    type Response = u32;
    type Error = io::Error;
    type Future = Ready<io::Result<u32>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(refused()))
    }

    fn call(&mut self, _: u32) -> Self::Future {
        ready(Err(refused()))
    }
}

#[test]
fn readiness_error_has_constant_subject_or_none_of_request() {
    let mut cx = Context::from_waker(Waker::noop());
    let (layer, _time) = layer(config());
    let circuit = layer.circuit();
    let layer = layer.errors_only();
    let mut service = layer.clone().keep_last_failure("orders").layer(Unready);
    assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Err(_))));
    assert_eq!(subject(&circuit).as_deref(), Some("orders"));
    let mut service = layer.keep_last_failure_by(|request: &u32| *request).layer(Unready);
    assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Err(_))));
    assert_eq!(subject(&circuit).as_deref(), Some("(readiness)"));
    assert_eq!(circuit.status().window.failures, 2);
}

#[test]
fn success_allocates_nothing_for_subject() {
    let allocations = |service: &mut dyn FnMut(u32)| {
        service(2);
        [2, 3].map(|request| allocation_counter::measure(|| service(request)).count_total)
    };
    let new = || layer(config().consecutive_failures(0).failure_rate(None)).0.errors_only();
    let mut plain = new().layer(refuses_odd());
    let [success, failure] = allocations(&mut |request| drop(call_once(&mut plain, request)));

    let mut shared = new().keep_last_failure("an owned subject".to_owned()).layer(refuses_odd());
    let kept = allocations(&mut |request| drop(call_once(&mut shared, request)));
    assert!(kept[0] == success && kept[1] > failure, "shared: {kept:?}");

    let mut number = new().keep_last_failure_by(|request: &u32| *request).layer(refuses_odd());
    let kept = allocations(&mut |request| drop(call_once(&mut number, request)));
    assert!(kept[0] == success && kept[1] > failure, "number: {kept:?}");
}

#[test]
fn keyed_circuits_keep_their_own_failures() {
    let (each, _time) = timed(config());
    let layer =
        KeyedBreakerLayer::<_, _>::new(KeyedConfig::builder(each).build().unwrap(), |order: &u32| order % 10);
    let circuits = layer.circuits();
    let layer = layer.errors_only().keep_last_failure_by(|order: &u32| format!("order {order}"));
    let mut service = layer.layer(refuses_odd());
    for order in [11, 13, 22, 33] {
        let _ = call_once(&mut service, order);
    }
    let kept = |key: u32| keyed_subject(&circuits.get(&key).unwrap());
    assert_eq!([1, 2, 3].map(kept), [Some("order 11".to_owned()), None, Some("order 33".to_owned())]);
}

#[test]
fn keyed_success_allocates_nothing_for_last_failure() {
    let (each, _time) = timed(config());
    let layer =
        KeyedBreakerLayer::<_, _>::new(KeyedConfig::builder(each).build().unwrap(), |order: &u32| order % 10);
    let mut service = layer.errors_only().keep_last_failure("orders").layer(refuses_odd());
    call_once(&mut service, 2).unwrap();
    let again = allocation_counter::measure(|| drop(call_once(&mut service, 2)));
    assert_eq!(again.count_total, 0);
}

#[test]
fn permit_fail_classifies_and_keeps_error() {
    let (circuit, _time) = circuit(config());
    let fault = circuit.try_acquire().unwrap().fail(&refused(), "order 7");
    assert_eq!(fault.kind(), Kind::Unavailable);
    let status = circuit.status();
    assert_eq!(status.window.failures, 1);
    let last = status.last_failure.unwrap();
    assert_eq!((last.fault.kind(), &*last.subject), (Kind::Unavailable, "order 7"));
    assert_eq!((last.type_name, &*last.message), (std::any::type_name::<io::Error>(), "connection refused"));

    let boxed: tower::BoxError = refused().into();
    circuit.try_acquire().unwrap().fail(&boxed, 8);
    assert_eq!(subject(&circuit).as_deref(), Some("8"));
    assert_eq!(circuit.status().window.failures, 2);
}

#[test]
fn permit_fail_as_records_fault_of_caller() {
    let (circuit, _time) = circuit(config());
    circuit.try_acquire().unwrap().fail_as(FAULT, &refused(), "order 7");
    assert_eq!(circuit.status().last_failure.unwrap().fault, FAULT);
    let neutral = *NEUTRAL.fault().unwrap();
    circuit.try_acquire().unwrap().fail_as(neutral, &refused(), "order 8");
    let status = circuit.status();
    assert_eq!(status.window.failures, 1, "a neutral fault is no failure");
    assert_eq!(status.last_failure.unwrap().subject, "order 7");
}

#[test]
fn permit_fail_of_probe_opens_circuit() {
    let (circuit, time) = circuit(config());
    for _ in 0..5 {
        circuit.try_acquire().unwrap().fail(&refused(), "job");
    }
    time.advance(OPEN_FOR);
    circuit.try_acquire().unwrap().fail(&refused(), "probe");
    assert_eq!(circuit.status().state, CircuitState::Open);
    assert_eq!(subject(&circuit).as_deref(), Some("probe"));
}

#[test]
fn permit_fail_of_keyed_circuit_keeps_error() {
    let (each, _time) = timed(config());
    let layer = KeyedBreakerLayer::<_, _>::new(KeyedConfig::builder(each).build().unwrap(), |key: &u32| *key);
    let circuit = layer.circuits().get_or_insert(7).unwrap();
    let early = circuit.try_acquire().unwrap();
    circuit.try_acquire().unwrap().fail(&refused(), "order 7");
    assert_eq!(keyed_subject(&circuit).as_deref(), Some("order 7"));
    circuit.reset().unwrap();
    early.fail(&refused(), "order 6");
    assert_eq!(keyed_subject(&circuit), None);
}

#[test]
fn uncounted_failure_is_kept() {
    for force_closed in [false, true] {
        let (circuit, _time) = circuit(config());
        if force_closed {
            circuit.force_closed().unwrap();
        }
        circuit.try_acquire().unwrap().retry().fail(&refused(), "retry");
        assert_eq!(subject(&circuit).as_deref(), Some("retry"));
        assert_eq!(circuit.status().window.failures, 0);
    }
    let (disabled, _time) = circuit(config().mode(Mode::Disabled));
    disabled.try_acquire().unwrap().fail(&refused(), "disabled");
    assert_eq!(subject(&disabled).as_deref(), Some("disabled"));
}

#[test]
fn reset_removes_last_failure_and_ignores_earlier_calls() {
    let (circuit, _time) = circuit(config());
    let [early, late] = [(); 2].map(|()| circuit.try_acquire().unwrap());
    circuit.try_acquire().unwrap().fail(&refused(), "before");
    early.fail(&refused(), "early");
    assert_eq!(subject(&circuit).as_deref(), Some("early"));
    circuit.reset().unwrap();
    assert_eq!(subject(&circuit), None);
    late.fail(&refused(), "late");
    assert_eq!(subject(&circuit), None, "the call began before the reset");
    circuit.try_acquire().unwrap().fail(&refused(), "after");
    assert_eq!(subject(&circuit).as_deref(), Some("after"));
}

#[test]
fn other_transitions_keep_last_failure() {
    let (circuit, time) = circuit(config());
    let late = circuit.try_acquire().unwrap();
    circuit.try_acquire().unwrap().fail(&refused(), "before");
    circuit.trip().unwrap();
    assert_eq!(subject(&circuit).as_deref(), Some("before"));
    time.advance(OPEN_FOR);
    (0..2).for_each(|_| circuit.try_acquire().unwrap().record(Verdict::Success));
    assert_eq!(circuit.status().state, CircuitState::Closed);
    assert_eq!(subject(&circuit).as_deref(), Some("before"));
    late.fail(&refused(), "late");
    assert_eq!(subject(&circuit).as_deref(), Some("late"), "a call of an earlier epoch has failed");
}

#[test]
fn observer_of_trip_sees_failure_that_caused_it() {
    let (circuit, _time) = circuit(config());
    let seen = Arc::new(Mutex::new(None));
    let (slot, observed) = (Arc::clone(&seen), circuit.clone());
    circuit.on_transition(move |_| *slot.lock().unwrap() = subject(&observed));
    for number in 1..=5 {
        let permit: Permit = circuit.try_acquire().unwrap();
        permit.fail(&refused(), number);
    }
    assert_eq!(seen.lock().unwrap().as_deref(), Some("5"));
    circuit.reset().unwrap();
    assert_eq!(*seen.lock().unwrap(), None);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Acquire,
    /// Fails one of the acquired permits.
    Fail(usize),
    Trip,
    Reset,
    ForceClosed,
    Release,
    /// Ends the circuit, and begins another one, which may use its storage.
    Replace,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => Just(Step::Acquire),
        6 => (0..8_usize).prop_map(Step::Fail),
        1 => Just(Step::Trip),
        1 => Just(Step::Reset),
        1 => Just(Step::ForceClosed),
        1 => Just(Step::Release),
        1 => Just(Step::Replace),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #[test]
    fn last_failure_agrees_with_model(steps in steps()) {
        let (config, time) = timed(config());
        let mut circuit = Circuit::new(config.clone());
        // Each permit with the number of resets and ends before it was acquired.
        let mut permits = Vec::new();
        let (mut generation, mut expected) = (0, None);
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Acquire => {
                    // An open circuit then admits a probe.
                    time.advance(OPEN_FOR);
                    permits.extend(circuit.try_acquire().map(|permit| (permit, generation)));
                }
                Step::Fail(index) => {
                    if index < permits.len() {
                        let (permit, began) = permits.remove(index);
                        permit.fail(&refused(), number);
                        if began == generation {
                            expected = Some(number.to_string());
                        }
                    }
                }
                Step::Trip => drop(circuit.trip()),
                Step::Reset => {
                    if circuit.reset().is_ok() {
                        (generation, expected) = (generation + 1, None);
                    }
                }
                Step::ForceClosed => circuit.force_closed().unwrap(),
                Step::Release => circuit.release(),
                Step::Replace => {
                    drop(circuit);
                    circuit = Circuit::new(config.clone());
                    (generation, expected) = (generation + 1, None);
                }
            }
            prop_assert_eq!(subject(&circuit), expected.clone());
        }
    }
}

#[cfg(feature = "serde")]
#[test]
fn last_failure_is_serialized_with_rfc_3339_time() {
    let (circuit, _time) = circuit(config());
    circuit.try_acquire().unwrap().fail(&refused(), "order 7");
    let json = serde_json::to_value(circuit.status()).unwrap();
    let last = &json["last_failure"];
    assert_eq!((&last["subject"], &last["message"]), (&"order 7".into(), &"connection refused".into()));
    assert_eq!(last["type_name"], "std::io::error::Error");
    assert_eq!(last["fault"]["kind"], "unavailable");
    let at = last["at"].as_str().unwrap();
    assert!(at.ends_with('Z') && at.contains('T'), "{at}");
    assert_eq!(last.as_object().unwrap().len(), 5);
}
