//! Observers that use the circuit, and observers that block.

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use tower_breaker::{CircuitState, Reason, Verdict};

use crate::support::{FAILURE, config, layer, send, state};

/// Each of these operations would block forever if the observer were called under a lock.
#[test]
fn observer_may_control_circuit_at_every_transition() {
    let (layer, time) = layer(config());
    let circuit = layer.circuit();
    let observed = Arc::new(Mutex::new(Vec::new()));
    let _layer = layer.on_transition({
        let (circuit, observed) = (circuit.clone(), Arc::clone(&observed));
        move |transition| {
            assert_eq!(circuit.status().state, transition.to);
            observed.lock().unwrap().push((transition.to, transition.reason));
            match transition.reason {
                Reason::ConsecutiveFailures => {
                    circuit.force_closed().unwrap();
                    circuit.release();
                }
                // After the release from forced closed.
                Reason::Released => circuit.trip().unwrap(),
                Reason::Tripped => assert!(circuit.try_acquire().is_err()),
                Reason::OpenTimeOver => circuit.try_acquire().unwrap().record(FAILURE),
                Reason::ProbeFailed => circuit.reset().unwrap(),
                _ => {}
            }
        }
    });
    (0..5).for_each(|_| assert!(send(&circuit, FAILURE)));
    time.advance(Duration::from_secs(30));
    assert!(send(&circuit, Verdict::Success), "the epoch of its outcome is already over");
    let expected = [
        (CircuitState::Open, Reason::ConsecutiveFailures),
        (CircuitState::ForcedClosed, Reason::Forced),
        (CircuitState::Closed, Reason::Released),
        (CircuitState::Open, Reason::Tripped),
        (CircuitState::HalfOpen, Reason::OpenTimeOver),
        (CircuitState::Open, Reason::ProbeFailed),
        (CircuitState::Closed, Reason::Reset),
    ];
    assert_eq!(*observed.lock().unwrap(), expected);
    assert_eq!(state(&circuit), CircuitState::Closed);
}

/// This test would not end if the observer were called under a lock.
#[test]
fn observer_that_blocks_delays_only_its_call() {
    let (layer, time) = layer(config());
    let (entered, has_entered) = mpsc::channel();
    let (release, released) = mpsc::channel();
    let released = Mutex::new(released);
    let layer = layer.on_transition(move |transition| {
        if transition.reason == Reason::ConsecutiveFailures {
            entered.send(()).unwrap();
            released.lock().unwrap().recv().unwrap();
        }
    });
    let circuit = layer.circuit();
    thread::scope(|scope| {
        let caller = scope.spawn(|| (0..5).filter(|_| send(&circuit, FAILURE)).count());
        has_entered.recv().unwrap();
        // The observer has not returned. The circuit works nevertheless.
        assert_eq!(state(&circuit), CircuitState::Open);
        assert!(circuit.try_acquire().is_err());
        time.advance(Duration::from_secs(30));
        (0..2).for_each(|_| assert!(send(&circuit, Verdict::Success)));
        assert_eq!(state(&circuit), CircuitState::Closed);
        circuit.trip().unwrap();
        circuit.reset().unwrap();
        release.send(()).unwrap();
        assert_eq!(caller.join().unwrap(), 5);
    });
}
