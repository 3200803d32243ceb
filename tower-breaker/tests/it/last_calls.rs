//! The times since the last success and the last failure.

use std::time::Duration;

use tower_breaker::keyed::{KeyedCircuits, KeyedConfig};
use tower_breaker::{BreakerConfig, Circuit, Status, Verdict};

use crate::support::{FAILURE, NEUTRAL, OPEN_FOR, SECOND, circuit, config, send, timed};

/// Returns the seconds since the last success and since the last failure. A failure is stored to
/// about a millisecond.
fn since(status: &Status) -> [Option<u64>; 2] {
    let seconds = |since: Duration| since.as_millis().div_ceil(10) as u64 / 100;
    [status.since_last_success.map(seconds), status.since_last_failure.map(seconds)]
}

#[test]
fn last_success_in_time_window_is_rounded_up_to_bucket() {
    let (circuit, time) = circuit(config());
    assert_eq!(since(&circuit.status()), [None, None]);
    // The window of a minute has buckets of four seconds.
    time.advance(6 * SECOND);
    send(&circuit, Verdict::Success);
    assert_eq!(since(&circuit.status()), [Some(2), None]);
    time.advance(10 * SECOND);
    send(&circuit, NEUTRAL);
    assert_eq!(since(&circuit.status()), [Some(12), None], "a neutral answer is neither");
    send(&circuit, FAILURE);
    time.advance(SECOND);
    assert_eq!(since(&circuit.status()), [Some(13), Some(1)]);
    time.advance(60 * SECOND);
    assert_eq!(since(&circuit.status()), [None, Some(61)], "the success has left the window");
}

#[test]
fn last_success_in_count_window_is_exact() {
    let (circuit, time) = circuit(config().count_window(2).failure_rate(None));
    send(&circuit, Verdict::Success);
    (0..2).for_each(|_| assert!(send(&circuit, FAILURE)));
    time.advance(1_001 * SECOND);
    assert_eq!(since(&circuit.status()), [Some(1_001), Some(1_001)]);
}

#[test]
fn last_times_are_kept_over_transitions_until_reset() {
    let (circuit, time) = circuit(config());
    send(&circuit, Verdict::Success);
    circuit.trip().unwrap();
    time.advance(3 * OPEN_FOR);
    assert_eq!(since(&circuit.status()), [Some(90), None]);
    send(&circuit, Verdict::Success);
    time.advance(SECOND);
    assert_eq!(since(&circuit.status()), [Some(1), None], "the time of a probe is exact");
    send(&circuit, FAILURE);
    time.advance(SECOND);
    assert_eq!(since(&circuit.status()), [Some(2), Some(1)]);
    circuit.reset().unwrap();
    assert_eq!(since(&circuit.status()), [None, None]);
}

#[test]
fn keyed_last_times_come_from_window_before_first_transition() {
    let (each, time) = timed(config());
    let circuits = KeyedCircuits::new(KeyedConfig::builder(each).build().unwrap());
    let one = circuits.get_or_insert(1).unwrap();
    assert_eq!(since(&one.status()), [None, None]);
    // The window of a minute has buckets of six seconds; 1,000 seconds are in the middle of one.
    one.try_acquire().unwrap().record(Verdict::Success);
    assert_eq!(since(&one.status()), [Some(4), None]);
    time.advance(6 * SECOND);
    one.try_acquire().unwrap().record(FAILURE);
    assert_eq!(since(&one.status()), [Some(10), Some(4)]);
    one.trip().unwrap();
    time.advance(OPEN_FOR);
    assert_eq!(since(&one.status()), [Some(40), Some(34)]);
    one.try_acquire().unwrap().record(FAILURE);
    time.advance(SECOND);
    assert_eq!(since(&one.status()), [Some(41), Some(1)]);
}

#[test]
fn keyed_failure_that_opens_circuit_is_stored() {
    let (each, time) = timed(config());
    let circuits = KeyedCircuits::new(KeyedConfig::builder(each).build().unwrap());
    let one = circuits.get_or_insert(1).unwrap();
    (0..5).for_each(|_| one.try_acquire().unwrap().record(FAILURE));
    time.advance(1_000 * SECOND);
    assert_eq!(since(&one.status()), [None, Some(1_000)]);
}

#[test]
fn reconfigure_with_other_window_keeps_last_times() {
    let (each, time) = timed(config());
    let circuit = Circuit::new(each.clone());
    let circuits = KeyedCircuits::new(KeyedConfig::builder(each.clone()).build().unwrap());
    // The keys: one with shared limits, one with limits of its own, one without a transition.
    let keyed = [1, 2, 3].map(|key| circuits.get_or_insert(key).unwrap());
    let key = |each: BreakerConfig| circuits.configure(&2, each).unwrap();
    for one in &keyed[..2] {
        one.trip().unwrap();
        one.reset().unwrap();
    }
    let statuses = || (since(&circuit.status()), [0, 1, 2].map(|at| since(&keyed[at].status())));
    circuit.try_acquire().unwrap().record(Verdict::Success);
    circuit.try_acquire().unwrap().record(FAILURE);
    for one in &keyed {
        one.try_acquire().unwrap().record(Verdict::Success);
        one.try_acquire().unwrap().record(FAILURE);
    }
    time.advance(SECOND);
    let before = statuses();
    for seconds in [90, 30] {
        let other = each.to_builder().time_window(seconds * SECOND).build().unwrap();
        key(other.clone());
        circuit.reconfigure(other.clone()).unwrap();
        circuits.reconfigure(KeyedConfig::builder(other.clone()).key("2", other).build().unwrap()).unwrap();
        let (of_static, [shared, own, unchanged]) = statuses();
        assert_eq!((of_static, [shared, own]), (before.0, [before.1[0], before.1[1]]));
        assert_eq!(unchanged, [None, None], "a circuit without lazy state has no place for the times");
    }
    time.advance(31 * SECOND);
    let (of_static, of_keyed) = statuses();
    assert!(
        of_static[0].is_none() && of_keyed[..2].iter().all(|since| since[0].is_none()),
        "the new window is over"
    );
    assert!(of_static[1].is_some() && of_keyed[..2].iter().all(|since| since[1].is_some()));
}
