//! Observers that use the circuit, and observers that block.

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use tower_breaker::{CircuitState, Reason, Verdict};

use crate::support::{FAILURE, config, layer, send, state};

/// Each of these calls would block for ever if the observer ran under a lock of the circuit.
#[test]
fn observer_may_control_circuit_at_every_transition() {
    let (layer, time) = layer(config());
    let circuit = layer.circuit();
    let told = Arc::new(Mutex::new(Vec::new()));
    let _layer = layer.on_transition({
        let (circuit, told) = (circuit.clone(), Arc::clone(&told));
        move |transition| {
            assert_eq!(circuit.status().state, transition.to);
            told.lock().unwrap().push((transition.to, transition.reason));
            match transition.reason {
                Reason::ConsecutiveFailures => {
                    circuit.force_closed().unwrap();
                    circuit.release();
                }
                // From forced closed: it is not ill, somebody thinks.
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
    assert!(send(&circuit, Verdict::Success), "its outcome is of an epoch that is over by then");
    let expected = [
        (CircuitState::Open, Reason::ConsecutiveFailures),
        (CircuitState::ForcedClosed, Reason::Forced),
        (CircuitState::Closed, Reason::Released),
        (CircuitState::Open, Reason::Tripped),
        (CircuitState::HalfOpen, Reason::OpenTimeOver),
        (CircuitState::Open, Reason::ProbeFailed),
        (CircuitState::Closed, Reason::Reset),
    ];
    assert_eq!(*told.lock().unwrap(), expected);
    assert_eq!(state(&circuit), CircuitState::Closed);
}

/// This test would never end if the observer ran under a lock.
#[test]
fn observer_that_blocks_delays_only_its_call() {
    let (layer, time) = layer(config());
    let (entered, has_entered) = mpsc::channel();
    let (let_go, may_go) = mpsc::channel();
    let may_go = Mutex::new(may_go);
    let layer = layer.on_transition(move |transition| {
        if transition.reason == Reason::ConsecutiveFailures {
            entered.send(()).unwrap();
            may_go.lock().unwrap().recv().unwrap();
        }
    });
    let circuit = layer.circuit();
    thread::scope(|scope| {
        let tells = scope.spawn(|| (0..5).filter(|_| send(&circuit, FAILURE)).count());
        has_entered.recv().unwrap();
        // The observer has not returned, and the circuit goes on.
        assert_eq!(state(&circuit), CircuitState::Open);
        assert!(circuit.try_acquire().is_err());
        time.advance(Duration::from_secs(30));
        (0..2).for_each(|_| assert!(send(&circuit, Verdict::Success)));
        assert_eq!(state(&circuit), CircuitState::Closed);
        circuit.trip().unwrap();
        circuit.reset().unwrap();
        let_go.send(()).unwrap();
        assert_eq!(tells.join().unwrap(), 5);
    });
}
