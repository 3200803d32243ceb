//! Errors as values: clones and constructors.

use std::io;
use std::time::Duration;

use tower_breaker::fault_classify::classify_error;
use tower_breaker::{BreakerError, CircuitState, Kind, Rejection, TimedOut};

use crate::support::{OPEN_FOR, circuit, config};

#[test]
fn constructed_rejection_equals_rejection_of_circuit() {
    let (circuit, _time) = circuit(config().name("search"));
    circuit.trip().unwrap();
    let real = circuit.try_acquire().unwrap_err();
    let constructed = Rejection::open("search", OPEN_FOR);
    assert_eq!(constructed.to_string(), real.to_string());
    assert_eq!((constructed.circuit(), constructed.state()), (real.circuit(), real.state()));
    assert_eq!((constructed.retry_after(), constructed.key()), (real.retry_after(), None));
    assert_eq!(constructed.fault(), real.fault());
    assert_eq!(classify_error(&constructed), constructed.fault());

    circuit.force_open().unwrap();
    let real = circuit.try_acquire().unwrap_err();
    let constructed = Rejection::in_state("search", CircuitState::ForcedOpen, None);
    assert_eq!((constructed.to_string(), constructed.fault()), (real.to_string(), real.fault()));
}

#[test]
fn cloned_rejection_equals_original() {
    let original = Rejection::open("search", Duration::from_millis(1_500));
    let clone = original.clone();
    assert_eq!((clone.to_string(), clone.fault()), (original.to_string(), original.fault()));
    let error: BreakerError<io::ErrorKind> = BreakerError::Rejected(original);
    assert_eq!(error.clone().rejection().unwrap().retry_after(), Some(Duration::from_millis(1_500)));
    let inner = BreakerError::Inner(io::ErrorKind::TimedOut);
    assert_eq!(inner.clone().into_inner(), Some(io::ErrorKind::TimedOut));
}

#[test]
fn cloned_timed_out_equals_original() {
    let original = TimedOut::new(Duration::from_secs(3));
    let clone = original.clone();
    assert_eq!((clone.after(), clone.fault()), (original.after(), original.fault()));
    assert_eq!((clone.to_string(), clone.fault().kind()), ("call timed out after 3 s".into(), Kind::Timeout));
}
